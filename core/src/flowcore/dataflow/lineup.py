"""The executors of a run: they are started together, chosen among for every task, and shut down together."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final

from flowcore import executors, registry, resources
from flowcore.config import check_labels
from flowcore.errors import ConfigurationError, InvalidResourceSpecification, NoDataFlowKernelError
from flowcore.executors.base import Executor, RunContext
from flowcore.executors.errors import ExecutorError
from flowcore.plugin_errors import PluginError

logger = logging.getLogger(__name__)

ALL: Final = "all"
"""Asks for any executor."""

_FEWEST_SLOTS: Final = 1e-6


class Lineup:
    """The executors of a run, by label.

    Args:
        context: what each is told when it starts.
    """

    def __init__(self, context: RunContext) -> None:
        self.executors: dict[str, Executor] = {}
        """Replaced, never changed, when an executor is added."""
        self._context = context
        self._lock = threading.Lock()  # guards `executors` and `_closed` while they change
        self._closed = False
        self._known: dict[tuple[Any, frozenset[str]], tuple[Executor, ...]] = {}

    def add(self, executor: Executor) -> None:
        """Start an executor; tasks may go to it from now on.

        Raises:
            ConfigurationError: another one has its label.
            ExecutorError: it cannot start; nothing of it is left.
            NoDataFlowKernelError: the run is over.
        """
        check_labels([*self.executors.values(), executor])
        try:
            executor.start(self._context)
        except ExecutorError:  # it has stopped itself, or it serves another run
            raise
        except BaseException as error:
            _shut_down(executor)
            if not isinstance(error, Exception):
                raise
            raise ExecutorError(executor, f"{type(error).__name__}: {error}") from error
        with self._lock:
            closed = self._closed
            if not closed:
                self.executors = {**self.executors, executor.label: executor}
                self._known = {}
        if closed:
            _shut_down(executor)
            message = f"executor {executor.label!r} cannot be added\n  the run is over"
            raise NoDataFlowKernelError(message)

    def shutdown(self) -> None:
        """Shut all executors down, one's failure notwithstanding."""
        with self._lock:
            self._closed = True
        for executor in self.executors.values():
            _shut_down(executor)

    def candidates(self, labels: str | Sequence[str], specification: Mapping[str, Any]) -> tuple[Executor, ...]:
        """Return the executors with one of the labels that honour all keys of the specification.

        Every distinct wish is worked out once.

        Raises:
            ValueError: a label that no executor has.
            InvalidResourceSpecification: none of them honours all the keys.
        """
        wish = (labels if isinstance(labels, str) else tuple(labels), frozenset(specification))
        known = self._known  # the one that belongs to the executors looked at below
        found = known.get(wish)
        if found is None:
            found = known[wish] = self._work_out(*wish)
        return found

    def check(self, labels: str | Sequence[str]) -> None:
        """Refuse labels that no executor has.

        Raises:
            ValueError: naming the label, and those there are.
        """
        if labels == ALL:
            return
        unknown = [label for label in _listed(labels) if label not in self.executors]
        if unknown:
            there_are = ", ".join(map(repr, self.executors)) or "none"
            message = (
                f"app requested invalid executor {unknown[0]!r}\n  the labels of this run's executors: {there_are}"
            )
            raise ValueError(message)

    def _work_out(self, labels: str | tuple[str, ...], keys: frozenset[str]) -> tuple[Executor, ...]:
        self.check(labels)
        named = [executor for label, executor in self.executors.items() if labels == ALL or label in _listed(labels)]
        found = tuple(executor for executor in named if keys <= executor.resource_keys)
        if not found:
            raise self._unhonoured(keys, named)
        return found

    def _unhonoured(self, keys: frozenset[str], named: Sequence[Executor]) -> InvalidResourceSpecification:
        offers = {label: executor.resource_keys for label, executor in self.executors.items()}
        asked = [executor.label for executor in named]
        missing = [key for key in keys if not any(key in executor.resource_keys for executor in named)]
        message = resources.unhonoured(sorted(keys), offers, asked)
        if not any(keys <= offered for offered in offers.values()):
            message += f"\n  installed executors that honour it: {', '.join(_honouring(keys)) or 'none'}"
        return InvalidResourceSpecification(missing or sorted(keys), message)


def _honouring(keys: frozenset[str]) -> list[str]:
    """Name the installed executors that take tasks with these keys; it imports them all, which only an error may."""
    installed = registry.current()
    found = []
    for name in installed.names("executor"):
        with contextlib.suppress(PluginError):
            if keys <= getattr(installed.load("executor", name, Executor), "resource_keys", frozenset()):
                found.append(name)
    return found


def _shut_down(executor: Executor) -> None:
    try:
        executor.shutdown()
    except Exception:  # the others must be shut down all the same
        logger.exception("executor %s did not shut down cleanly", executor.label)


def _listed(labels: str | Sequence[str]) -> Sequence[str]:
    return [labels] if isinstance(labels, str) else labels


def by_load(candidates: tuple[Executor, ...]) -> Sequence[Executor]:
    """Return the executors, that with the least work a slot first; those out of order have none, and come last."""
    if len(candidates) == 1:
        return candidates
    return sorted(candidates, key=lambda executor: (executor.bad_state_is_set, _load(executor)))


def _load(executor: Executor) -> float:
    return executor.slots_wanted() / max(executor.slots(), _FEWEST_SLOTS)


def default_executors() -> list[Executor]:
    """Return what runs tasks where the configuration does not say: threads, else worker processes on this machine.

    Raises:
        ConfigurationError: neither is installed, or can be used; it says why.
    """
    reasons = []
    for name in ("ThreadPoolExecutor", "HighThroughputExecutor"):
        try:
            kind = getattr(executors, name)
        except PluginError as error:
            reasons.append(str(error).replace("\n", "\n    "))
        else:
            return [kind()]
    raise ConfigurationError("\n  ".join(["no executor can be had to run tasks by default", *reasons]))
