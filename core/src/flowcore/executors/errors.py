"""What goes wrong in executors: starting, scaling, losing a task with the process that ran it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from flowcore.errors import FlowcoreError, InvalidResourceSpecification, ShutdownError

if TYPE_CHECKING:
    from flowcore.executors.base import Executor

__all__ = [
    "BadMessage",
    "BadStateException",
    "ExecutorError",
    "InvalidResourceSpecification",
    "ScalingError",
    "ScalingFailed",
    "ShutdownError",
    "TaskLost",
    "UnsupportedFeatureError",
    "WalltimeExceeded",
]


def _label(executor: Executor | str) -> str:
    """Keep the label only: the error must pickle, the executor does not."""
    return executor if isinstance(executor, str) else executor.label


@attrs.define(eq=False, slots=False)
class ExecutorError(FlowcoreError):
    """An executor failed as a whole; the failure belongs to no single task."""

    executor: str = attrs.field(converter=_label)
    reason: str = attrs.field(converter=str)

    def __str__(self) -> str:
        return f"Executor {self.executor} failed due to: {self.reason}"


class BadStateException(ExecutorError):
    """The executor is out of order: all its tasks fail with this, until it is reset."""


class UnsupportedFeatureError(ExecutorError):
    """The executor was asked for something that it cannot do."""


class ScalingFailed(ExecutorError):
    """A provider refused to start a block."""


ScalingError = ScalingFailed


class BadMessage(ExecutorError):
    """A peer of the executor sent something that is no message."""


class TaskLost(FlowcoreError):
    """The process that held the task went away before the task's outcome arrived.

    It is nobody's user error: the kernel reruns such a task from the budget `Config(lost_retries=)`.
    Executors raise subclasses that say which process was lost, where, and how it died.
    """


class WalltimeExceeded(FlowcoreError, TimeoutError):
    """The task ran longer than the walltime it asked for, and was killed by its executor."""
