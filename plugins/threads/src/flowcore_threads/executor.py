"""Runs tasks in threads of the user's own process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from flowcore.executors.base import Executor, RunContext
from flowcore.executors.errors import ExecutorError
from flowcore.futures import TaskFuture
from flowcore.parameters import label, text, whole
from flowcore.thread_pool import ThreadPool


def _number(executor: object, attribute: attrs.Attribute[int], value: object) -> None:
    if isinstance(value, str):
        example = "ThreadPoolExecutor(max_threads=2, label='threads')"
        raise TypeError(f"max_threads comes first and is an int, not {value!r}; write {example}")
    whole(1)(executor, attribute, value)


@attrs.define(eq=False)
class ThreadPoolExecutor(Executor):
    """Runs tasks in up to `max_threads` threads, started as tasks come.

    Tasks share the interpreter with the script: nothing is copied or pickled, and only tasks that wait (for files,
    for the network, for a command) or that release the interpreter's lock run side by side. Callbacks of a finished
    task's future run in the thread that ran the task. A running task cannot be stopped. A task that exits has the
    `SystemExit` as its exception: `result()` raises it, and ends a script that does not catch it.

    Args:
        max_threads: how many tasks run at once.
        thread_name_prefix: what the threads' names begin with; '' stands for `flowcore-worker-<label>`.
        label: the executor's name within a run.
        storage_access: the staging methods for its files; None stands for the default ones.
        working_dir: folder into which input files are staged.
    """

    max_threads: int = attrs.field(default=2, validator=_number)
    thread_name_prefix: str = attrs.field(default="", validator=text())
    label: str = attrs.field(default="threads", validator=label())
    storage_access: Sequence[Any] | None = None
    working_dir: str | None = None

    _pool: ThreadPool | None = attrs.field(default=None, init=False, repr=False)

    def start(self, run: RunContext) -> None:  # noqa: ARG002 - threads need no folder
        """Accept tasks from now on."""
        if self._pool is not None:
            raise ExecutorError(self, "it was started before; make a new one for every run")
        name = self.thread_name_prefix or f"flowcore-worker-{self.label}"
        self._pool = ThreadPool(self.max_threads, name, f"executor {self.label!r}")

    def submit(
        self, func: Callable[..., Any], resource_specification: Mapping[str, Any], /, *args: Any, **kwargs: Any
    ) -> TaskFuture[Any]:
        """Queue the call for the next free thread."""
        if resource_specification:
            self.check_resources(resource_specification)
        if self._pool is None:
            raise ExecutorError(self, "it has not been started")
        return self._pool.submit(func, args, kwargs)

    def shutdown(self) -> None:
        """Fail what is unfinished, and end the threads; one that runs a task ends after it."""
        if self._pool is not None:
            self._pool.close()

    def outstanding(self) -> int:
        """Count the tasks whose futures are not done."""
        return 0 if self._pool is None else len(self._pool)

    def slots(self) -> float:
        """Tell how many tasks can run at once."""
        return self.max_threads
