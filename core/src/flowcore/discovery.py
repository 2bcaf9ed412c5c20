"""Finds the installed plugins and examines each on its own, so that nothing one of them does reaches another."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from enum import Enum
from importlib import metadata
from typing import Any, Final, Literal, TypeAlias

import attrs
import pluggy

from flowcore import hookspecs
from flowcore.plugin import API_VERSION, PROJECT, Component

_Distribution: TypeAlias = Any  # `importlib.metadata` has named the type differently over time

Kind: TypeAlias = Literal["executor", "provider", "launcher"]

OFFERS: Final[Mapping[Kind, str]] = {
    "executor": "flowcore_executors",
    "provider": "flowcore_providers",
    "launcher": "flowcore_launchers",
}
"""The hook that offers components of each kind."""

DISABLE: Final = "FLOWCORE_DISABLE_PLUGINS"
"""The environment variable that switches plugins off: their names, separated by commas."""


class Status(Enum):
    """What discovery made of a plugin."""

    ACTIVE = "active"
    DISABLED = "disabled"
    INCOMPATIBLE = "incompatible"
    BROKEN = "broken"


@attrs.frozen(kw_only=True)
class Plugin:
    """One entry point of the group `flowcore`, and what came of it.

    Attributes:
        name: the entry point's name; `FLOWCORE_DISABLE_PLUGINS` takes it.
        manifest: the module the entry point names.
        distribution: the distribution that announces it, '?' where its metadata do not say.
        version: the distribution's version, '?' likewise.
        status: whether it can be used.
        reason: why not, in a sentence; empty where it can.
        components: what it offers, with the kind of each; where it is broken, what it had offered by then.
        error: the exception that broke it.
        hooks: its hook implementations, where it is active.
    """

    name: str
    manifest: str
    distribution: str = "?"
    version: str = "?"
    status: Status = Status.ACTIVE
    reason: str = ""
    components: tuple[tuple[Kind, Component], ...] = ()
    error: BaseException | None = attrs.field(default=None, repr=False)
    hooks: pluggy.PluginManager | None = attrs.field(default=None, repr=False)

    def __str__(self) -> str:
        return f"{self.name} ({self.distribution} {self.version})"


class _Fault(Exception):
    """Why the plugin under examination is not active."""

    def __init__(self, reason: str, status: Status = Status.BROKEN) -> None:
        super().__init__(reason)
        self.status = status


def discover() -> list[Plugin]:
    """Examine every installed plugin. Never raises: what goes wrong in a plugin is that plugin's status."""
    off = {name.strip() for name in os.environ.get(DISABLE, "").split(",")}
    entry_points, unreadable = _entry_points()
    plugins = [_examined(entry_point, off) for entry_point in entry_points]
    return sorted(plugins + unreadable, key=lambda plugin: (plugin.name, plugin.distribution))


def _entry_points() -> tuple[Iterable[metadata.EntryPoint], list[Plugin]]:
    """Read the metadata of all distributions; of one with a malformed file, only that one is lost."""
    try:
        return metadata.entry_points(group=PROJECT), []
    except Exception:  # noqa: BLE001 - one malformed entry_points.txt anywhere fails them all
        return _entry_points_one_by_one()


def _entry_points_one_by_one() -> tuple[list[metadata.EntryPoint], list[Plugin]]:
    found: list[metadata.EntryPoint] = []
    unreadable = []
    seen = {"?"}
    for distribution in metadata.distributions():
        name, version = _identity(distribution)
        if name in seen - {"?"}:
            continue  # an earlier folder of sys.path has it, which wins
        seen.add(name)
        try:
            found.extend(distribution.entry_points.select(group=PROJECT))
        except Exception as error:  # noqa: BLE001 - foreign files
            if _announces(distribution):
                unreadable.append(_unreadable(name, version, error))
    return found, unreadable


def _announces(distribution: _Distribution) -> bool:
    """Tell whether a distribution with a malformed file means to be a plugin; others are none of our business."""
    with suppress(Exception):  # foreign files
        return f"[{PROJECT}]" in (distribution.read_text("entry_points.txt") or "")
    return False


def _unreadable(name: str, version: str, error: Exception) -> Plugin:
    reason = f"its entry_points.txt cannot be read: {_told(error)}"
    return Plugin(
        name=name,
        manifest="?",
        distribution=name,
        version=version,
        status=Status.BROKEN,
        reason=reason,
        error=error,
    )


def _identity(distribution: _Distribution) -> tuple[str, str]:
    """Name and version of a distribution, whatever its metadata lack."""
    name = version = None
    with suppress(Exception):  # foreign files: missing, unreadable, or without these fields
        name, version = distribution.name, distribution.version
    return name or "?", version or "?"


def _examined(entry_point: metadata.EntryPoint, off: set[str]) -> Plugin:
    distribution, version = _identity(entry_point.dist)
    plugin = Plugin(name=entry_point.name, manifest=entry_point.value, distribution=distribution, version=version)
    if plugin.name in off:
        return attrs.evolve(plugin, status=Status.DISABLED, reason=f"{DISABLE} names it; take {plugin.name!r} out")
    components: list[tuple[Kind, Component]] = []
    try:
        with _blame(f"importing {entry_point.value} failed"):
            manifest = entry_point.load()
        hooks = _registered(manifest, plugin)
        for kind, hook in OFFERS.items():
            _collect(kind, hook, hooks, components)
    except _Fault as fault:
        plugin = attrs.evolve(plugin, status=fault.status, reason=str(fault), error=fault.__cause__)
        return attrs.evolve(plugin, components=tuple(components))
    return attrs.evolve(plugin, components=tuple(components), hooks=hooks)


@contextmanager
def _blame(doing: str) -> Iterator[None]:
    """Make the plugin's fault of whatever its code raises; only Ctrl-C passes."""
    try:
        yield
    except _Fault:
        raise
    except (Exception, SystemExit) as error:  # foreign code: a manifest must not end the user's script
        raise _Fault(f"{doing}: {_told(error)}") from error


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _registered(manifest: Any, plugin: Plugin) -> pluggy.PluginManager:
    """Check the manifest as a whole, and hand it to a plugin manager of its own."""
    with _blame("its manifest cannot be read"):
        _check_api(getattr(manifest, "FLOWCORE_API", None), plugin)
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    with _blame("its hooks do not fit"):
        manager.register(manifest, name=plugin.name)
        manager.check_pending()
        _check_marked(manifest, manager)
    return manager


def _check_api(stated: object, plugin: Plugin) -> None:
    if stated is None:
        raise _Fault(f"{plugin.manifest} does not state FLOWCORE_API; it begins with FLOWCORE_API = {API_VERSION}")
    if type(stated) is not int:
        raise _Fault(f"{plugin.manifest} states FLOWCORE_API = {stated!r}, which is no whole number")
    if stated != API_VERSION:
        older = plugin.distribution if stated < API_VERSION else "flowcore"
        reason = f"it speaks plugin API {stated}, this flowcore speaks {API_VERSION}: pip install --upgrade {older}"
        raise _Fault(reason, Status.INCOMPATIBLE)


def _check_marked(manifest: Any, manager: pluggy.PluginManager) -> None:
    for name, value in vars(manifest).items():
        if name.startswith("flowcore_") and inspect.isfunction(value):
            module = getattr(manifest, "__name__", manifest)
            if value.__module__ == module and manager.parse_hookimpl_opts(manifest, name) is None:
                raise _Fault(f"{name} lacks the decorator @hookimpl of flowcore.plugin")


def _collect(kind: Kind, hook: str, manager: pluggy.PluginManager, into: list[tuple[Kind, Component]]) -> None:
    """Call one hook of one plugin, and take what it offers if it is what the hook promises."""
    with _blame(f"{hook} raised"):
        for offered in getattr(manager.hook, hook)():
            if isinstance(offered, (str, Component)) or not isinstance(offered, Iterable):
                raise _Fault(f"{hook} gave {offered!r}; it yields Component records")
            for component in offered:
                if not isinstance(component, Component):
                    raise _Fault(f"{hook} yielded {component!r}, which is no Component")
                if any(kind == had and component.name == other.name for had, other in into):
                    raise _Fault(f"{hook} yielded {component.name!r} twice")
                into.append((kind, component))
