"""Which manager gets the next task, and how many short tasks count as one: pure decisions."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, Protocol

from flowcore_htex.walltime import time_needed

UNITS: Final = 64
"""A worker's worth of work, in units; a short task counts less, so that several are sent ahead."""

_SHORT: Final = 0.005
"""Seconds from which a task has a worker to itself; below, as many as fill this time are sent at once."""

_QUICK: Final = 0.250
"""Seconds up to which a manager is sent as many tasks again as it has workers, to bridge the way to it."""


def learn(known: float | None, seconds: float) -> float:
    """Return the new estimate of a function's run time: quick to rise, slow to fall."""
    if known is None:
        return seconds
    return known + (seconds - known) * (0.5 if seconds > known else 0.1)


def units(estimate: float | None) -> int:
    """Return what a task counts for in a worker: all of it where its run time is unknown or not short."""
    if estimate is None or estimate >= _SHORT:
        return UNITS
    return max(1, int(UNITS * estimate / _SHORT))


def units_ahead(estimate: float | None) -> int:
    """Return what a task counts for in a manager: half where it is quick, so that there is always a next one."""
    if estimate is None or estimate >= _QUICK:
        return UNITS
    return max(1, units(estimate) // 2)


class ManagerSelector(Protocol):
    """Decides which of the managers with room are offered tasks first."""

    def sort_managers(self, ready: Mapping[str, Mapping[str, Any]], names: set[str]) -> list[str]:
        """Return the managers in the order in which they get tasks.

        Called in the interchange process each time there are tasks and managers with room; so the selector
        is sent there, pickled, when the executor starts.

        Args:
            ready: what is known of each manager: 'block_id', 'worker_count', 'tasks', 'hostname', 'start' and more.
            names: those that have room now.
        """


class RandomManagerSelector:
    """Spreads tasks over the managers by chance."""

    def sort_managers(self, ready: Mapping[str, Mapping[str, Any]], names: set[str]) -> list[str]:  # noqa: ARG002
        """See `ManagerSelector`."""
        order = list(names)
        random.shuffle(order)
        return order


class BlockIdManagerSelector:
    """Fills the oldest blocks first, so that the youngest become idle and can be given back."""

    def sort_managers(self, ready: Mapping[str, Mapping[str, Any]], names: set[str]) -> list[str]:
        """See `ManagerSelector`."""
        return sorted(names, key=lambda name: (_number(ready[name].get("block_id")), name))


def _number(block_id: Any) -> tuple[float, str]:
    text = str(block_id)
    return (int(text), text) if text.isdigit() else (float("inf"), text)


class Room(NamedTuple):
    """What a manager has, or what of it is free: worker slots, memory and disk in MB, accelerators, and seconds.

    `seconds` is how long tasks can run there before it drains; infinite where its block has no end that is known.
    """

    slots: float
    memory: float
    disk: float
    gpus: float
    seconds: float = float("inf")


def within(amount: float, room: float) -> bool:
    """Whether an amount in MB is no more than there is, but for what the arithmetic with fractions has lost."""
    return amount <= room * (1 + 1e-9) + _LOST


_LOST: Final = 5e-4
"""MB that a thousand tasks of a node may have lost together, half a byte each."""


def fits(room: Room, need: Mapping[str, Any], slots: int) -> bool:
    """Whether a task that takes `slots` worker slots, and memory, disk, accelerators and time by `need`, has room."""
    return (
        slots <= room.slots
        and within(need.get("memory", 0), room.memory)
        and within(need.get("disk", 0), room.disk)
        and need.get("gpus", 0) <= room.gpus
        and time_needed(need) <= room.seconds
    )


class Rooms:
    """What managers have free while tasks that ask for something are placed: it only ever becomes less.

    So the managers that have room for a request are looked for once, however many tasks have the same one.

    Args:
        free: what each manager has free, by name; whoever gives it a task keeps that true.
    """

    def __init__(self, free: dict[str, Room]) -> None:
        self.free = free
        self._most = _most(free)
        self._orders: dict[bytes, list[str]] = {}

    @property
    def full(self) -> bool:
        """Whether there is known to be no worker slot free."""
        return self._most.slots < 1

    def choose(self, request: bytes, need: Mapping[str, Any], slots: int) -> str | None:
        """Return the manager that a demanding task goes to; None where it fits nowhere now.

        It is the one that the task fills best, as things were when this request was first looked at.

        Args:
            request: stands for `need`.
            need: what the task asks for.
            slots: how many worker slots it takes.
        """
        order = self._orders.get(request)
        if order is None:
            order = self._orders[request] = self._order(need, slots)
        elif not order:
            return None
        while order:
            room = self.free.get(order[-1])
            if room is not None and fits(room, need, slots):
                return order[-1]
            order.pop()
        self._most = _most(self.free)
        return None

    def _order(self, need: Mapping[str, Any], slots: int) -> list[str]:
        if not fits(self._most, need, slots):
            return []
        able = [(room.slots, name) for name, room in self.free.items() if fits(room, need, slots)]
        return [name for _, name in sorted(able, reverse=True)]


def _most(free: Mapping[str, Room]) -> Room:
    """Return a room that is at least as large in everything as any of these."""
    return Room(*map(max, zip(*free.values(), strict=True))) if free else Room(0, 0, 0, 0)


def reserve(total: Mapping[str, Room], free: Mapping[str, Room], need: Mapping[str, Any], slots: int) -> str | None:
    """Return the manager that is to be kept free for a task that fits nowhere now: the one closest to having room.

    None where no manager will ever have room for it.
    """
    able = [name for name, room in total.items() if fits(room, need, slots)]
    return max(able, key=lambda name: (free[name].slots, name), default=None)
