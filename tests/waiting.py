"""Waiting for what no event tells of: the state of another process, what a cluster does. Every wait has a bound."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

PATIENCE = 60
"""Seconds that anything may take before a test fails; more than a busy machine needs."""

_T = TypeVar("_T")


def until(true: Callable[[], _T], within: float = PATIENCE) -> _T:
    """Wait until `true()` holds, so many seconds at most, and return what it gave last."""
    deadline = time.monotonic() + within
    pause = 0.005
    while not (answer := true()) and time.monotonic() < deadline:
        time.sleep(pause)
        pause = min(2 * pause, 0.1)
    return answer


def eventually(true: Callable[[], object], within: float = PATIENCE, what: str = "the awaited state") -> None:
    """Wait until `true()` holds, or raise `TimeoutError` after so many seconds."""
    if not until(true, within):
        raise TimeoutError(f"{what}: not within {within:g} s")
