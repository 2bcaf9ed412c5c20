"""The manifest of core's own providers and launchers: they come through the door that plugins come through."""

from __future__ import annotations

from collections.abc import Iterator

from flowcore.plugin import Component, hookimpl

FLOWCORE_API = 1


@hookimpl
def flowcore_providers() -> Iterator[Component]:
    """Offer what needs no resource manager."""
    yield Component("LocalProvider", "flowcore.providers.local:LocalProvider", "Starts blocks on this machine.")


@hookimpl
def flowcore_launchers() -> Iterator[Component]:
    """Offer what needs no launch command but the shell's."""
    yield Component("SimpleLauncher", "flowcore.launchers.simple:SimpleLauncher", "Starts the command once.")
    yield Component(
        "SingleNodeLauncher",
        "flowcore.launchers.single_node:SingleNodeLauncher",
        "Starts the command's copies on the first node of a block.",
    )
    yield Component(
        "WrappedLauncher",
        "flowcore.launchers.wrapped:WrappedLauncher",
        "Puts another command, such as a container's or a debugger's, in front.",
    )
