"""Executors run tasks; plugins bring them, and their classes are served here by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowcore.component_names import ComponentNames
from flowcore.executors.base import Executor

if TYPE_CHECKING:
    from flowcore_flux.executor import FluxExecutor as FluxExecutor
    from flowcore_htex.executor import HighThroughputExecutor as HighThroughputExecutor
    from flowcore_mpi.executor import MPIExecutor as MPIExecutor
    from flowcore_radical.executor import RadicalPilotExecutor as RadicalPilotExecutor
    from flowcore_radical.executor import ResourceConfig as ResourceConfig
    from flowcore_threads.executor import ThreadPoolExecutor as ThreadPoolExecutor
    from flowcore_workqueue.executor import WorkQueueExecutor as WorkQueueExecutor

_names = ComponentNames(__name__, "executor", Executor)
_names.install()


def __getattr__(name: str) -> Any:
    return _names.attribute(name)


def __dir__() -> list[str]:
    return _names.listing(globals())
