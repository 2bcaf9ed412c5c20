"""How many blocks there should be: pure functions from a snapshot of one executor to a decision."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

import attrs

from flowcore.errors import ConfigurationError

FIRST_RESPITE: Final = 0.2
"""Seconds between a failed block and the one that replaces it, when the block before it did well."""


@attrs.frozen(kw_only=True)
class Snapshot:
    """One executor at one moment.

    Attributes:
        tasks: tasks that are not done, each as often as the slots that it takes.
        stuck: tasks that no block with workers will ever have room, or time, for.
        active: blocks that run, or will.
        coming: those of them that have no workers yet.
        draining: blocks on their way out, which still count against `max_blocks`.
        ended: blocks that are gone.
        slots_per_block: tasks that one block can run at once.
        unused: seconds for which there have been no tasks; 0 while there are some.
    """

    tasks: float
    active: int
    stuck: int = 0
    coming: int = 0
    draining: int = 0
    ended: int = 0
    slots_per_block: float = 1
    unused: float = 0
    min_blocks: int = 0
    max_blocks: int = 1
    parallelism: float = 1


@attrs.frozen
class Decision:
    """Blocks to start, or blocks to give back; never both."""

    scale_out: int = 0
    scale_in: int = 0


Strategy: TypeAlias = Callable[[Snapshot, float], Decision]


def none(snapshot: Snapshot, max_idletime: float) -> Decision:
    """Leave the blocks as they are."""
    del snapshot, max_idletime
    return Decision()


def simple(snapshot: Snapshot, max_idletime: float) -> Decision:
    """Grow with the work at once; when there has been none for `max_idletime` seconds, fall back to `min_blocks`."""
    if snapshot.tasks == 0 and snapshot.unused >= max_idletime and snapshot.active > snapshot.min_blocks:
        return Decision(scale_in=snapshot.active - snapshot.min_blocks)
    return Decision(scale_out=_missing(snapshot))


def htex_auto_scale(snapshot: Snapshot, max_idletime: float) -> Decision:
    """As `simple`, and give back what is more than the work can use even while there is some.

    A block is given back only when it has been idle for `max_idletime` seconds; `BlockExecutor.scale_in` sees to that.
    """
    needed = max(snapshot.min_blocks, _wanted(snapshot, 1), 1)
    if snapshot.tasks > 0 and snapshot.active > needed:
        return Decision(scale_in=snapshot.active - needed)
    return simple(snapshot, max_idletime)


STRATEGIES: Final[Mapping[str, Strategy]] = {"none": none, "simple": simple, "htex_auto_scale": htex_auto_scale}


def named(name: str | None) -> Strategy:
    """Return the strategy of that name; None means 'none'.

    Raises:
        ConfigurationError: there is none.
    """
    try:
        return STRATEGIES[name or "none"]
    except KeyError:
        choices = ", ".join(map(repr, STRATEGIES))
        raise ConfigurationError(f"strategy={name!r} is unknown; choose one of {choices}") from None


def respite(failed_in_row: int, period: float) -> float:
    """Return the seconds to wait between starting a block and the next, after so many failures in a row.

    The first replacement comes quickly, since a node may fail; blocks that fail again and again come once a period.
    """
    if failed_in_row == 0:
        return 0
    return min(period, FIRST_RESPITE * 4.0 ** min(failed_in_row - 1, 10))


def _missing(snapshot: Snapshot) -> int:
    wanted = max(_wanted(snapshot, snapshot.parallelism), snapshot.min_blocks)
    room = snapshot.max_blocks - snapshot.active - snapshot.draining
    return max(0, min(wanted - snapshot.active, room))


def _wanted(snapshot: Snapshot, parallelism: float) -> int:
    """Return how many blocks the work fills, when that share of it is to have a slot; one at least if there is any.

    For stuck tasks there are blocks beyond those that have workers.
    """
    wanted = _filled(snapshot, snapshot.tasks * parallelism) if snapshot.tasks else 0
    if snapshot.stuck:
        others = _filled(snapshot, snapshot.stuck * parallelism)
        wanted = max(wanted, snapshot.active - snapshot.coming + others)
    return wanted


def _filled(snapshot: Snapshot, slots: float) -> int:
    """Return how many blocks so many slots are, from 1 to `max_blocks`."""
    if slots >= snapshot.slots_per_block * snapshot.max_blocks:
        return max(1, snapshot.max_blocks)
    return max(1, math.ceil(slots / snapshot.slots_per_block))
