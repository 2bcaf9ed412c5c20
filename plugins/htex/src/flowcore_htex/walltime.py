"""How long a block lasts: when its managers stop taking tasks, and how much time that leaves for these."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

BLOCK_END: Final = "FLOWCORE_BLOCK_END"
"""When the walltime of the block is over, in seconds since the epoch; jobs of batch providers export it."""

ALMOST_OVER: Final = "its walltime is almost over"

_SHARE: Final = 0.01
_LEAST: Final = 5.0
_MOST: Final = 60.0

TIME_KEYS: Final = ("walltime", "running_time_min")
"""What a task may ask for that its manager must have time for; only the first is also a limit."""


def margin(seconds: float) -> float:
    """Return how long before its end a block drains that lasts `seconds` from now: 1 % of it, 5 s to 60 s.

    Workers, launcher and job script end in that time, and it makes up for a script that was started late.
    """
    return min(_MOST, max(_LEAST, _SHARE * seconds))


def time_for_tasks(seconds: float) -> float:
    """Return for how long tasks can run in a block that lasts `seconds` from now, negative where it is about to end."""
    return seconds - margin(seconds)


def seconds_left(environment: Mapping[str, str], now: float) -> float | None:
    """Return how long the block lasts from now, negative where it is over; None where nobody has told.

    Args:
        environment: of a process of the block.
        now: the time, in seconds since the epoch.

    Raises:
        ValueError: what was told is no time.
    """
    text = environment.get(BLOCK_END)
    if not text:
        return None
    end = float(text)
    if not 0 < end < float("inf"):
        raise ValueError(f"{text!r} is no time")
    return end - now


def time_needed(need: Mapping[str, Any]) -> float:
    """Return the seconds that a manager must have left for a task with such a request."""
    seconds: float = max(need.get("walltime", 0.0), need.get("running_time_min", 0.0))
    return seconds
