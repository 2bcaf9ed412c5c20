"""What goes wrong between tasks: a dependency that failed, a join that failed, a checkpoint that cannot be read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs

from flowcore.errors import FlowcoreError


class DataFlowException(FlowcoreError):
    """The root of the kernel's own errors."""


@attrs.define(eq=False, slots=False)
class BadCheckpoint(DataFlowException):
    """A checkpoint that was asked for is missing or is none."""

    reason: str

    def __str__(self) -> str:
        return self.reason


@attrs.define(eq=False, slots=False, repr=False)
class PropagatedException(DataFlowException):
    """A task failed because other tasks did.

    Attributes:
        dependent_exceptions_tids: the failures, each with the name of where it happened: `task 3`, or a future's repr.
        task_id: the task that failed because of them.
    """

    dependent_exceptions_tids: Sequence[tuple[BaseException, str]]
    task_id: int

    _failure = "Failure"

    def __attrs_post_init__(self) -> None:
        self.__cause__ = self._root()[0]

    def __repr__(self) -> str:  # one line, however long the chain
        return f"{type(self).__name__}(task {self.task_id}, {len(self.dependent_exceptions_tids)} failed)"

    def _root(self) -> tuple[BaseException, list[str]]:
        """Follow the first failures down to the one that no other caused, with the names on the way.

        Earlier links of a chain keep theirs, so that a long chain of failures is not walked once per link.
        """
        error, name = self.dependent_exceptions_tids[0]
        if isinstance(error, PropagatedException):
            return error.__cause__ or error, [name]
        return error, [name]

    def _names(self) -> Iterable[str]:
        error: BaseException = self
        while isinstance(error, PropagatedException):
            error, name = error.dependent_exceptions_tids[0]
            yield name

    def __str__(self) -> str:
        names = list(self._names())
        if len(names) > _LONGEST_PATH:
            names = [
                *names[: _LONGEST_PATH // 2],
                f"({len(names) - _LONGEST_PATH} more)",
                *names[-_LONGEST_PATH // 2 :],
            ]
        others = " (+ others)" if len(self.dependent_exceptions_tids) > 1 else ""
        path = " <- ".join(names)
        cause = f"\n  {type(self.__cause__).__name__}: {self.__cause__}" if self.__cause__ is not None else ""
        return f"{self._failure} failure for task {self.task_id}. The representative cause is via {path}{others}{cause}"


_LONGEST_PATH = 20


class DependencyError(PropagatedException):
    """A task never ran because something it depends on failed."""

    _failure = "Dependency"


class JoinError(PropagatedException):
    """A join app failed because a future that it returned failed."""

    _failure = "Join"
