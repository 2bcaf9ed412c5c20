"""The contract of an executor, and what it is told about the run it serves."""

from __future__ import annotations

import logging
import shutil
import tempfile
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from flowcore import resources
from flowcore.errors import InvalidResourceSpecification

if TYPE_CHECKING:
    from flowcore.jobs.states import JobStatus


@attrs.frozen(kw_only=True)
class RunContext:
    """What an executor is told when it starts.

    Attributes:
        run_id: unique to the run.
        run_dir: absolute path of an existing folder; the executor keeps its files in `run_dir / label`.
        log_level: level of the run's log file; processes that the executor starts log at this level too.
            None where the user switched logging off.
    """

    run_id: str
    run_dir: Path
    log_level: int | None = logging.INFO

    @classmethod
    def standalone(cls) -> RunContext:
        """Return a context for an executor that is used without a kernel: a new temporary folder."""
        return cls(run_id=str(uuid.uuid4()), run_dir=Path(tempfile.mkdtemp(prefix="flowcore-")))


class Executor(ABC):
    """Runs tasks: takes a function with its arguments, gives a future of the outcome.

    The kernel calls `start` once from the thread that loads the configuration, then `submit` from any thread, any
    number of times, then `shutdown`. Constructors check their parameters and start nothing. An executor object serves
    one run; `start` on an object that was started before raises `ExecutorError`.

    An executor also works without a kernel, as a context manager:

        with AcmeExecutor() as executor:
            assert executor.submit(pow, {}, 2, 3).result() == 8

    Its files are in a temporary folder then, which is removed in the end unless the block raises.
    """

    label: str
    """Names the executor within a run; `@python_app(executors=[label])` asks for it."""

    resource_keys: ClassVar[frozenset[str]] = frozenset()
    """The keys of a resource specification that are honoured; a task with any other key is never offered."""

    scalable: ClassVar[bool] = False
    """Whether this is a `BlockExecutor`, which the scaling code may grow and shrink."""

    cancels_running: ClassVar[bool] = False
    """Whether cancelling the future of a running task stops the task."""

    working_dir: str | None = None
    """Folder into which input files of tasks are staged, as the workers see it."""

    storage_access: Sequence[Any] | None = None
    """The staging methods for this executor's files; None stands for the default ones."""

    @abstractmethod
    def start(self, run: RunContext) -> None:
        """Get ready to run tasks; on return `submit` may be called.

        Raises:
            ExecutorError: it cannot start; whatever it had started by then is stopped again.
        """

    @abstractmethod
    def submit(
        self, func: Callable[..., Any], resource_specification: Mapping[str, Any], /, *args: Any, **kwargs: Any
    ) -> Future[Any]:
        """Run `func(*args, **kwargs)` somewhere, and return a future of its outcome.

        Called from any thread; returns without waiting for anything remote. A task that cannot be sent (an argument
        that does not pickle, say) raises here or fails its own future, never another task's.

        Args:
            func: any callable.
            resource_specification: what the task needs, as in `flowcore.resources`; {} for nothing special.
            args: positional arguments for `func`.
            kwargs: keyword arguments for `func`.

        Raises:
            InvalidResourceSpecification: a key that is not in `resource_keys`, or a request that can never be met.
            ExecutorError: the executor is out of order.
            ShutdownError: it has been shut down.
        """

    @abstractmethod
    def shutdown(self) -> None:
        """Stop everything that `start` and `submit` started. Idempotent, and harmless before `start`.

        Does not wait for running tasks. When it returns, every future that `submit` ever returned is done
        (those without an outcome fail with `ShutdownError`) and no process of the executor is left.
        """

    @abstractmethod
    def outstanding(self) -> int:
        """Count the tasks whose futures are not done."""

    @property
    def bad_state_is_set(self) -> bool:
        """Whether the executor is out of order: `submit` refuses every task, and other executors get them."""
        return False

    def slots(self) -> float:
        """Tell how many tasks can run at once, blocks that may still be started included.

        Where a task may go to several executors the kernel takes the one with the least `slots_wanted()` a slot.
        """
        return 1

    def slots_wanted(self) -> float:
        """Tell how many slots the tasks take whose futures are not done: one each, unless some ask for more."""
        return self.outstanding()

    def status(self) -> dict[str, JobStatus]:
        """Tell the state of every block by its block id; empty where there are no blocks."""
        return {}

    def check_resources(self, specification: Mapping[str, Any]) -> dict[str, Any]:
        """Return the specification in canonical units, as `flowcore.resources.parse` does.

        Raises:
            InvalidResourceSpecification: naming every key that this executor does not honour.
        """
        parsed = resources.parse(specification)
        unknown = parsed.keys() - self.resource_keys
        if unknown:
            honoured = ", ".join(sorted(self.resource_keys)) or "none"
            message = f"executor {self.label!r} honours these keys only: {honoured}"
            raise InvalidResourceSpecification(sorted(unknown), message)
        return parsed

    def __enter__(self) -> Executor:
        run = RunContext.standalone()
        self._own_folder = run.run_dir
        self.start(run)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()
        if error is None:  # else its logs may tell what went wrong
            shutil.rmtree(self._own_folder, ignore_errors=True)
