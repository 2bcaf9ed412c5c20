"""Looks components up by kind and name, imports their classes, and says what is wrong where that fails."""

from __future__ import annotations

import importlib
import inspect
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import attrs

from flowcore import observation
from flowcore.discovery import Kind, Plugin, Status, discover
from flowcore.observation import Observers
from flowcore.plugin import Component
from flowcore.plugin_errors import (
    ComponentBroken,
    ComponentClash,
    PluginBroken,
    PluginDisabled,
    PluginError,
    PluginInactive,
    PluginIncompatible,
    PluginNotFound,
)

FIRST_PARTY: Final[Mapping[str, str]] = {
    "ThreadPoolExecutor": "threads",
    "HighThroughputExecutor": "htex",
    "MPIExecutor": "mpi",
    "FluxExecutor": "flux",
    "WorkQueueExecutor": "workqueue",
    "RadicalPilotExecutor": "radical",
    "ResourceConfig": "radical",
}
"""The extra that brings each executor name of flowcore's own plugins: known even where the plugin is absent."""

_INACTIVE: Final[Mapping[Status, type[PluginInactive]]] = {
    Status.DISABLED: PluginDisabled,
    Status.INCOMPATIBLE: PluginIncompatible,
    Status.BROKEN: PluginBroken,
}


@attrs.frozen
class Offer:
    """One component as one active plugin offers it."""

    kind: Kind
    component: Component
    plugin: Plugin

    def load(self, base: type) -> type:
        """Import the class, and check that it is one of its kind.

        Raises:
            ComponentBroken: it cannot be imported, is no subclass of `base`, or is abstract.
        """
        loaded = self._imported(self.component.attribute)
        if not (isinstance(loaded, type) and issubclass(loaded, base)):
            raise self._broken(f"not a subclass of {base.__module__}.{base.__qualname__}")
        if inspect.isabstract(loaded):
            missing = ", ".join(sorted(getattr(loaded, "__abstractmethods__", ())))
            raise self._broken(f"an abstract class, without {missing}")
        return loaded

    def load_companion(self, name: str) -> Any:
        """Import one of the names that come with the class."""
        return self._imported(name)

    def _imported(self, attribute: str) -> Any:
        try:
            return getattr(importlib.import_module(self.component.module), attribute)
        except (Exception, SystemExit) as error:  # foreign code: the one who asked for the name is told
            raise self._broken(f"{type(error).__name__}: {error}") from error

    def _broken(self, reason: str) -> ComponentBroken:
        return ComponentBroken(self.kind, self.component.name, str(self.plugin), self.component.target, reason)


class Registry:
    """What one discovery found. It never changes, and serves any thread."""

    def __init__(self, plugins: Iterable[Plugin]) -> None:
        self.plugins = tuple(plugins)
        claims: defaultdict[tuple[Kind, str], list[Offer]] = defaultdict(list)
        for plugin in self.plugins:
            if plugin.status is Status.ACTIVE:
                for kind, component in plugin.components:
                    for name in (component.name, *component.companions):
                        claims[kind, name].append(Offer(kind, component, plugin))
        self._claims: Mapping[tuple[Kind, str], list[Offer]] = dict(claims)

    def names(self, kind: Kind) -> list[str]:
        """Return every name of a kind that can be looked up, in alphabetical order."""
        return sorted(name for (of, name), offers in self._claims.items() if of == kind and len(offers) == 1)

    def clashes(self) -> list[ComponentClash]:
        """Return an error for every name that several plugins claim."""
        return [
            ComponentClash(kind, name, tuple(str(offer.plugin) for offer in offers))
            for (kind, name), offers in sorted(self._claims.items())
            if len(offers) > 1
        ]

    def offers(self, plugin: Plugin) -> Iterator[Offer]:
        """Yield what an active plugin offers, names that clash included."""
        for kind, component in plugin.components:
            yield Offer(kind, component, plugin)

    def load(self, kind: Kind, name: str, base: type) -> Any:
        """Import the component of this name, or the companion of one.

        Args:
            kind: what it has to be.
            name: as users import it.
            base: the class that all components of the kind derive from.

        Raises:
            PluginNotFound: nobody offers it.
            PluginInactive: the plugin that offers it is disabled, incompatible or broken.
            ComponentClash: several plugins offer it.
            ComponentBroken: its class cannot be imported, or is none of this kind.
        """
        match self._claims.get((kind, name), []):
            case []:
                raise self.absence(kind, name) from self._cause(name)
            case [offer]:
                return offer.load(base) if name == offer.component.name else offer.load_companion(name)
            case offers:
                raise ComponentClash(kind, name, tuple(str(offer.plugin) for offer in offers))

    def absence(self, kind: Kind, name: str) -> PluginError:
        """Return the error that says why there is no component of this name."""
        culprit = self._culprit(name)
        if culprit is not None:
            return _inactive(name, culprit)
        extra = FIRST_PARTY.get(name) if kind == "executor" else None
        inactive = [f"{plugin} is {plugin.status.value}: {plugin.reason}" for plugin in self._inactive_plugins()]
        return PluginNotFound(kind, name, extra, tuple(self.names(kind)), tuple(inactive))

    def public_module(self, kind: Kind, plugin_name: str) -> str:
        """Return the module that `flowcore.executors.PLUGIN` stands for: the one of the plugin's first component.

        Raises:
            PluginNotFound: there is no such plugin, or it offers nothing of this kind.
            PluginInactive: it is disabled, incompatible or broken.
            ComponentClash: several plugins have this name.
        """
        plugins = [plugin for plugin in self.plugins if plugin.name == plugin_name]
        active = [plugin for plugin in plugins if plugin.status is Status.ACTIVE]
        offering = [plugin for plugin in active if any(of == kind for of, _ in plugin.components)]
        if len(offering) > 1:
            raise ComponentClash("plugin", plugin_name, tuple(str(plugin) for plugin in offering))
        if offering:
            return next(component.module for of, component in offering[0].components if of == kind)
        if plugins and not active:
            raise _inactive(plugin_name, plugins[0]) from plugins[0].error
        if not plugins and plugin_name in FIRST_PARTY.values():
            raise PluginNotFound("plugin", plugin_name, extra=plugin_name)
        raise self.absence(kind, plugin_name)

    def _inactive_plugins(self) -> list[Plugin]:
        return [plugin for plugin in self.plugins if plugin.status is not Status.ACTIVE]

    def _culprit(self, name: str) -> Plugin | None:
        """Find the inactive plugin that has the name, as far as it could say so."""
        for plugin in self._inactive_plugins():
            offered = {name for _, component in plugin.components for name in (component.name, *component.companions)}
            if name in offered or plugin.name == FIRST_PARTY.get(name):
                return plugin
        return None

    def _cause(self, name: str) -> BaseException | None:
        culprit = self._culprit(name)
        return None if culprit is None else culprit.error


def _inactive(wanted: str, plugin: Plugin) -> PluginInactive:
    return _INACTIVE[plugin.status](wanted, str(plugin), plugin.reason)


_lock = threading.RLock()
_current: Registry | None = None
_discovering = False


def current() -> Registry:
    """Return the process's registry; the first call discovers the plugins."""
    return _current or rediscover()


def rediscover() -> Registry:
    """Look again at what is installed, after an installation or in a test, and return what is there now."""
    global _current, _discovering
    before = _current
    with _lock:
        if _current is not None and _current is not before:
            return _current  # another thread was quicker
        if _discovering:
            message = "a plugin's manifest asked for a component while plugins are being discovered; import it later"
            raise PluginError(message)
        _discovering = True
        try:
            _current = Registry(discover())
        finally:
            _discovering = False
        return _current


def observation_hooks(*watchers: object) -> Observers | None:
    """Return one object that tells all observers what happens, or None where nobody watches.

    Args:
        watchers: objects with any of the observation hooks of `flowcore.hookspecs` as methods,
            heard besides the active plugins that implement them.
    """
    plugins = [plugin for plugin in current().plugins if plugin.hooks is not None]
    observers = [observation.of_plugin(str(plugin), plugin.hooks) for plugin in plugins if plugin.hooks is not None]
    observers += [observation.of_object(watcher) for watcher in watchers if watcher is not None]
    watching = [observer for observer in observers if observer.hooks]
    return Observers(watching) if watching else None
