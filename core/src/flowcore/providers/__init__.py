"""Providers obtain blocks of resources; core and plugins bring them, and their classes are served here by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowcore.component_names import ComponentNames
from flowcore.providers.base import Provider

if TYPE_CHECKING:
    from flowcore.providers.condor import CondorProvider as CondorProvider
    from flowcore.providers.grid_engine import GridEngineProvider as GridEngineProvider
    from flowcore.providers.local import LocalProvider as LocalProvider
    from flowcore.providers.lsf import LSFProvider as LSFProvider
    from flowcore.providers.pbspro import PBSProProvider as PBSProProvider
    from flowcore.providers.slurm import SlurmProvider as SlurmProvider
    from flowcore.providers.torque import TorqueProvider as TorqueProvider

_names = ComponentNames(__name__, "provider", Provider)
_names.install()


def __getattr__(name: str) -> Any:
    return _names.attribute(name)


def __dir__() -> list[str]:
    return _names.listing(globals())
