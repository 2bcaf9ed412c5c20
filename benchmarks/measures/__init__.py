"""What is measured of a system: one function each, which gets a `Bench` and returns figures by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from systems import System, Task

Figures = dict[str, float]


class Bench(NamedTuple):
    """A running system, and the functions that measures have it call."""

    system: System
    workers: int
    size: int
    """How many tasks, or what else the measure counts."""

    noop: Task
    """Takes anything, returns None."""

    echo: Task
    """Returns its argument."""

    nap: Task
    """Sleeps so many seconds, returns the process id."""


Measure = Callable[[Bench], Figures]
