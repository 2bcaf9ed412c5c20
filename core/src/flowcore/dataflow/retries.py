"""Decide whether a failed attempt is followed by another one."""

from __future__ import annotations

import numbers
from typing import TYPE_CHECKING, Final

from flowcore.dataflow.errors import DependencyError
from flowcore.errors import InvalidResourceSpecification, ShutdownError
from flowcore.executors.errors import ExecutorError, TaskLost

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowcore.config import Config
    from flowcore.dataflow.tasks import TaskRecord

_FOR_GOOD: Final = (ShutdownError, DependencyError, InvalidResourceSpecification)
"""Failures that another attempt would only repeat."""


def may_run_again(task: TaskRecord, error: BaseException, config: Config) -> tuple[bool, BaseException]:
    """Charge a failure to the budget that it belongs to.

    A task that was lost with its process, or that a broken executor refused, is charged to `lost_retries`; what the
    user's code raised costs 1, or what `retry_handler` says, of `retries`.

    Returns:
        Whether the task is run again, and the error that stands if it is not.
    """
    if isinstance(error, _FOR_GOOD):
        return False, error
    if isinstance(error, (TaskLost, ExecutorError)):
        task.lost_count += 1
        return task.lost_count <= config.lost_retries, error
    task.fail_count += 1
    task.fail_history = [*(task.fail_history or ()), repr(error)]
    try:
        task.fail_cost += 1 if config.retry_handler is None else _cost(config.retry_handler, error, task)
    except Exception as failure:  # noqa: BLE001 - the user's handler; its own error says more than the task's
        failure.__context__ = error
        return False, failure
    return task.fail_cost <= config.retries, error


def _cost(handler: Callable[[BaseException, TaskRecord], float], error: BaseException, task: TaskRecord) -> float:
    """Return what the user's handler gives, or raise a `TypeError` where that is no number."""
    cost: object = handler(error, task)
    if not isinstance(cost, numbers.Real):
        fault = f"retry_handler {getattr(handler, '__qualname__', handler)} gave {cost!r} for {error!r}"
        message = f"{fault}\n  it has to return the cost of each failure, a number; 1 counts as one of Config(retries=)"
        raise TypeError(message) from error
    return cost  # type: ignore[return-value]  # any real number adds up
