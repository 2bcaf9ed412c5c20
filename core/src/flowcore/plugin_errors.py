"""What goes wrong between the name of a component and its class: absent, switched off, broken, claimed twice."""

from __future__ import annotations

from difflib import get_close_matches

import attrs

from flowcore.errors import FlowcoreError


class PluginError(FlowcoreError, ImportError):
    """A component cannot be had; an `ImportError`, because importing its name is how users ask for it."""


@attrs.define(eq=False, slots=False)
class PluginNotFound(PluginError):
    """No active plugin offers what was asked for.

    Attributes:
        kind: 'executor', 'provider', 'launcher' or 'plugin'.
        wanted: the name that was asked for.
        extra: the extra of flowcore that brings it, where it is a first-party name.
        known: the names of this kind that are there.
        inactive: a line on each plugin that is installed and not active; one of them may have had the name.
    """

    kind: str
    wanted: str
    extra: str | None = None
    known: tuple[str, ...] = ()
    inactive: tuple[str, ...] = ()

    def __str__(self) -> str:
        fault = f"no {self.kind} named {self.wanted!r} is installed"
        if self.extra is not None:
            return f"{fault}\npip install 'flowcore[{self.extra}]'"
        close = get_close_matches(self.wanted, self.known, n=1, cutoff=0.8)
        guess = f"; did you mean {close[0]!r}?" if close else ""
        return "\n  ".join([fault, f"there are: {', '.join(self.known) or 'none'}{guess}", *self.inactive])


@attrs.define(eq=False, slots=False)
class PluginInactive(PluginError):
    """The plugin that has the component is installed and cannot be used.

    Attributes:
        wanted: the name that was asked for.
        plugin: the plugin that has it, as `flowcore plugins` shows it.
        reason: why it is not active.
    """

    wanted: str
    plugin: str
    reason: str

    def __str__(self) -> str:
        return f"{self.wanted!r} comes from plugin {self.plugin}, which is {self.fault}\n  {self.reason}"

    @property
    def fault(self) -> str:
        """The plugin's status, as an adjective."""
        return type(self).__name__.removeprefix("Plugin").lower()


class PluginDisabled(PluginInactive):
    """The plugin that has the component is switched off."""


class PluginIncompatible(PluginInactive):
    """The plugin that has the component was written for another generation of flowcore's plugin interface."""


class PluginBroken(PluginInactive):
    """The plugin that has the component failed when it was discovered; the failure is the `__cause__`."""


@attrs.define(eq=False, slots=False)
class ComponentBroken(PluginError):
    """The component was found, and its class cannot be used."""

    kind: str
    wanted: str
    plugin: str
    target: str
    reason: str

    def __str__(self) -> str:
        return f"{self.kind} {self.wanted!r} of plugin {self.plugin} is broken\n  {self.target}: {self.reason}"


@attrs.define(eq=False, slots=False)
class ComponentClash(PluginError):
    """Several plugins claim one name, so that none of them has it."""

    kind: str
    wanted: str
    plugins: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"{len(self.plugins)} plugins claim the {self.kind} name {self.wanted!r}: {', '.join(self.plugins)}\n"
            f"  uninstall all but one, or switch them off: FLOWCORE_DISABLE_PLUGINS=NAME[,NAME]"
        )
