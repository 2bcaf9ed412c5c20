"""Launchers start a command on the nodes of a block; their classes are served here by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowcore.component_names import ComponentNames
from flowcore.launchers.base import Launcher

if TYPE_CHECKING:
    from flowcore.launchers.aprun import AprunLauncher as AprunLauncher
    from flowcore.launchers.gnu_parallel import GnuParallelLauncher as GnuParallelLauncher
    from flowcore.launchers.jsrun import JsrunLauncher as JsrunLauncher
    from flowcore.launchers.mpiexec import MpiExecLauncher as MpiExecLauncher
    from flowcore.launchers.mpirun import MpiRunLauncher as MpiRunLauncher
    from flowcore.launchers.simple import SimpleLauncher as SimpleLauncher
    from flowcore.launchers.single_node import SingleNodeLauncher as SingleNodeLauncher
    from flowcore.launchers.srun import SrunLauncher as SrunLauncher
    from flowcore.launchers.srun_mpi import SrunMPILauncher as SrunMPILauncher
    from flowcore.launchers.wrapped import WrappedLauncher as WrappedLauncher

_names = ComponentNames(__name__, "launcher", Launcher)
_names.install()


def __getattr__(name: str) -> Any:
    return _names.attribute(name)


def __dir__() -> list[str]:
    return _names.listing(globals())
