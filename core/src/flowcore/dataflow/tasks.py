"""One task: its record, its states, and which state may follow which."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from flowcore.dataflow.futures import AppFuture
    from flowcore.dataflow.kernel import DataFlowKernel
    from flowcore.executors.base import Executor


class States(enum.IntEnum):
    """Where a task stands. `running` and `running_ended` are told by monitors, never by the kernel."""

    pending = 0
    """Known, and waiting for what it depends on."""
    running = 2
    exec_done = 3
    """Finished with a result."""
    failed = 4
    """Finished with an exception of its own."""
    dep_fail = 5
    """Never run, because a dependency failed."""
    launched = 7
    """Handed to an executor."""
    fail_retryable = 8
    """An attempt failed, and another one follows."""
    memo_done = 9
    """Finished with the remembered result of an equal task."""
    joining = 10
    """The body of a join app has returned, and what it returned is awaited."""
    running_ended = 11
    cancelled = 12
    """Cancelled before there was an outcome."""


FINAL_STATES: Final = frozenset({States.exec_done, States.failed, States.dep_fail, States.memo_done, States.cancelled})
FINAL_FAILURE_STATES: Final = frozenset({States.failed, States.dep_fail, States.cancelled})

_ABANDONED: Final = frozenset({States.failed, States.dep_fail, States.cancelled})
SUCCESSORS: Final[Mapping[States, frozenset[States]]] = {
    States.pending: _ABANDONED | {States.launched, States.memo_done},
    States.launched: _ABANDONED | {States.exec_done, States.fail_retryable, States.joining},
    States.fail_retryable: _ABANDONED | {States.launched, States.memo_done},
    States.joining: _ABANDONED | {States.exec_done},
    **dict.fromkeys(FINAL_STATES, frozenset()),
}
"""Which states may follow a state; nothing follows a final one: whoever brings a task there decides its outcome."""


_NOTHING: Final[Mapping[str, Any]] = {}


class TaskRecord:
    """What the kernel knows of one task.

    Only the kernel writes it. The fields can also be read as `record["name"]`. `func`, `args`, `kwargs`, `depends`
    and `joins` are given up when the task is final; times are seconds since the epoch.
    """

    __slots__ = (
        "__weakref__",
        "app_fu",
        "args",
        "candidates",
        "depends",
        "dfk",
        "exec_fu",
        "executor",
        "fail_cost",
        "fail_count",
        "fail_history",
        "from_memo",
        "func",
        "func_name",
        "hashsum",
        "id",
        "ignore_for_cache",
        "join",
        "joins",
        "kwargs",
        "lost_count",
        "memoize",
        "resource_specification",
        "status",
        "time_invoked",
        "time_returned",
        "try_id",
        "try_time_launched",
        "try_time_returned",
        "waiting",
        "walltime",
    )

    app_fu: AppFuture[Any]
    """The task's future, which in turn refers to the record: absent when the future is done, unless
    `Config(garbage_collect=False)`."""

    def __init__(
        self,
        dfk: DataFlowKernel,
        func: Callable[..., Any],
        args: Sequence[Any],
        kwargs: dict[str, Any],
        *,
        candidates: tuple[Executor, ...],
        now: float,
        resource_specification: Mapping[str, Any] = _NOTHING,
        memoize: bool = False,
        ignore_for_cache: Sequence[str] = (),
        join: bool = False,
        walltime: float | None = None,
    ) -> None:
        self.dfk = dfk
        self.id = -1
        self.func: Callable[..., Any] | None = func
        self.func_name: str = getattr(func, "__name__", None) or type(func).__name__
        self.args: Sequence[Any] = args
        self.kwargs: dict[str, Any] = kwargs
        self.candidates = candidates
        """The executors that may run the task; empty for the kernel's own threads."""
        self.resource_specification = resource_specification
        self.memoize = memoize
        self.ignore_for_cache = ignore_for_cache
        self.join = join
        self.walltime = walltime
        self.status = States.pending
        self.depends: Sequence[Future[Any]] = ()
        self.waiting = 0
        """How many dependencies are not done yet."""
        self.joins: Future[Any] | list[Future[Any]] | None = None
        self.exec_fu: Future[Any] | None = None
        self.executor: str | None = None
        self.try_id = 0
        self.lost_count = 0
        self.fail_count = 0
        self.fail_cost: float = 0
        self.fail_history: list[str] | None = None
        self.from_memo: bool | None = None
        self.hashsum: str | None = None
        self.time_invoked = now
        self.time_returned: float | None = None
        self.try_time_launched: float | None = None
        self.try_time_returned: float | None = None

    def __getitem__(self, name: str) -> Any:
        if name in TaskRecord.__slots__ and hasattr(self, name):
            return getattr(self, name)
        raise KeyError(name)

    def keys(self) -> Iterator[str]:
        """Name the fields, so that `dict(record)` is a snapshot."""
        return (name for name in TaskRecord.__slots__ if not name.startswith("_") and hasattr(self, name))

    def dependency_done(self, _dependency: Future[Any]) -> None:
        """Count one dependency off; a callback of each."""
        self.dfk.course.dependency_done(self)

    def attempt_done(self, outcome: Future[Any]) -> None:
        """Take an executor's outcome; the callback of the executor's future."""
        self.dfk.course.returned(self, outcome)

    def drop_inputs(self) -> None:
        """Give up what only an unfinished task needs; from any thread, and more than once."""
        self.func = None  # first: whoever takes the arguments sees by it whether they are whole
        self.args = ()
        self.kwargs = {}
        self.depends = ()
        self.exec_fu = None
        self.joins = None
        self.candidates = ()

    def call(self) -> tuple[Callable[..., Any], Sequence[Any], dict[str, Any]] | None:
        """Return the function with its arguments, None once they were given up."""
        args, kwargs = self.args, self.kwargs
        func = self.func
        return None if func is None else (func, args, kwargs)

    def __repr__(self) -> str:
        return f"<TaskRecord {self.id} {self.func_name} {self.status.name}>"
