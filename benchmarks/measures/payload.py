"""How fast data goes to a task and back; both ways are counted."""

from __future__ import annotations

import os
import time
from typing import Any

from measures import Bench, Figures

_SMALL = 1_000_000
_LARGE = 1_000_000  # numbers of eight bytes


def one_megabyte(bench: Bench) -> Figures:
    """Send bytes."""
    return _echo(bench, os.urandom(_SMALL), _SMALL)


def eight_megabytes(bench: Bench) -> Figures:
    """Send a numpy array."""
    import numpy as np

    return _echo(bench, np.arange(_LARGE, dtype=float), 8 * _LARGE)


def _echo(bench: Bench, data: Any, size: int) -> Figures:
    bench.system.results([bench.echo(data) for _ in range(bench.workers)])
    started = time.perf_counter()
    handles = [bench.echo(data) for _ in range(bench.size)]
    returned = bench.system.results(handles)
    elapsed = time.perf_counter() - started
    wrong = sum(bool(len(one) != len(data) or one[-1] != data[-1]) for one in returned)
    return {"lost": wrong, "mb_per_s": 2 * size * bench.size / elapsed / 1e6}
