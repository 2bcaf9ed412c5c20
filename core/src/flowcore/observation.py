"""Carries what happens in a run to everybody who watches, and lets no watcher disturb it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Any, Final

import attrs
import pluggy

logger = logging.getLogger(__name__)

OBSERVATIONS: Final = ("flowcore_run_started", "flowcore_task_changed", "flowcore_run_finished")


@attrs.frozen(eq=False)
class Observer:
    """One watcher: a plugin or an object, with those observation hooks that it implements."""

    name: str
    hooks: dict[str, Callable[..., object]]


def of_plugin(name: str, manager: pluggy.PluginManager) -> Observer:
    """Return the observation hooks that a plugin implements."""
    callers = ((hook, getattr(manager.hook, hook)) for hook in OBSERVATIONS)
    return Observer(f"plugin {name}", {hook: caller for hook, caller in callers if caller.get_hookimpls()})


def of_object(watcher: object) -> Observer:
    """Return the methods of an object that are named as observation hooks are."""
    methods = ((hook, getattr(watcher, hook, None)) for hook in OBSERVATIONS)
    return Observer(
        f"{type(watcher).__qualname__} object", {hook: method for hook, method in methods if callable(method)}
    )


class Observers:
    """Calls every observer, each in its own try; one that raises is logged once and hears no more."""

    def __init__(self, observers: Iterable[Observer]) -> None:
        self._observers = tuple(observers)
        self._dropping = threading.Lock()

    def run_started(self, kernel: Any) -> None:
        """Tell that a run begins."""
        self._tell("flowcore_run_started", kernel=kernel)

    def task_changed(self, task: Any, state: Any, when: float) -> None:
        """Tell that a task entered a state. Called from any thread."""
        self._tell("flowcore_task_changed", task=task, state=state, when=when)

    def run_finished(self, kernel: Any) -> None:
        """Tell that a run is over."""
        self._tell("flowcore_run_finished", kernel=kernel)

    def _tell(self, hook: str, **facts: Any) -> None:
        for observer in self._observers:
            told = observer.hooks.get(hook)
            if told is None:
                continue
            try:
                told(**facts)
            except Exception as error:  # noqa: BLE001 - foreign code, and the run does not depend on who watches
                self._drop(observer, hook, error)

    def _drop(self, observer: Observer, hook: str, error: Exception) -> None:
        with self._dropping:
            if observer not in self._observers:
                return
            self._observers = tuple(other for other in self._observers if other is not observer)
        logger.warning("%s raised in %s and is told nothing more", observer.name, hook, exc_info=error)
