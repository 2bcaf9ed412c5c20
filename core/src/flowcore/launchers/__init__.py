"""Launchers start a command on the nodes of a block; their classes are served here by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowcore.component_names import ComponentNames
from flowcore.launchers.base import Launcher

if TYPE_CHECKING:
    from flowcore.launchers.simple import SimpleLauncher as SimpleLauncher
    from flowcore.launchers.single_node import SingleNodeLauncher as SingleNodeLauncher
    from flowcore.launchers.wrapped import WrappedLauncher as WrappedLauncher

_names = ComponentNames(__name__, "launcher", Launcher)
_names.install()


def __getattr__(name: str) -> Any:
    return _names.attribute(name)


def __dir__() -> list[str]:
    return _names.listing(globals())
