"""The systems that are compared, each behind the same few calls; one file each."""

from __future__ import annotations

import abc
import importlib
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

ORDER = ("flowcore", "parsl", "dask", "ray", "loky", "ppe")
"""In this order they take their turns, and have their columns."""

Task = Callable[..., Any]


class System(abc.ABC):
    """One system with its worker processes on this machine, everything else as it comes.

    Nothing of the system is imported before `start`.
    """

    module: ClassVar[str]
    """What a script imports."""

    dependencies: ClassVar[bool] = False
    """Whether what one call gives can be an argument of another call."""

    @abc.abstractmethod
    def start(self, workers: int) -> None:
        """Start so many worker processes, or what starts them."""

    @abc.abstractmethod
    def app(self, function: Task) -> Task:
        """Return what submits a call of the function and gives a handle for its result."""

    def results(self, handles: Sequence[Any]) -> list[Any]:
        """Wait for results, the way the system advises."""
        return [handle.result() for handle in handles]

    @abc.abstractmethod
    def stop(self) -> None:
        """End everything."""


def load(name: str) -> System:
    """Return one of `ORDER`."""
    system: System = importlib.import_module(f"systems.{name}").Adapter()
    return system
