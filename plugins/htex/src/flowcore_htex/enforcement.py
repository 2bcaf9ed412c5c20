"""Walltime and memory of running tasks: what is due, and who is over the limit."""

from __future__ import annotations

import heapq
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from flowcore_htex.lineage import descendants, families
from flowcore_htex.node import resident_memory
from flowcore_htex.slots import Slot

_LOOK: Final = 0.1
"""Seconds between two looks at the memory of tasks that have a limit; no looks while there is no such task."""

_REST: Final = 10
"""So many times as long as a look has taken passes until the next: on a node with many processes looks are dear."""

Doom = Callable[[Slot, int, "dict[str, Any] | None"], None]


class Enforcement:
    """Watches the tasks that asked for a walltime or for memory, and dooms their workers when they go over it."""

    def __init__(self, doom: Doom) -> None:
        self._doom = doom
        self._ends: list[tuple[float, int, Slot, float]] = []
        self._limits: dict[int, tuple[Slot, float, float]] = {}
        self._running: set[int] = set()
        self._next_look = 0.0

    def begin(self, tid: int, slot: Slot, need: Mapping[str, Any], *, born_of: int | None = None) -> None:
        """Note that a task starts now; its worker is there.

        Args:
            tid: the task.
            slot: its worker.
            need: what it asked for.
            born_of: the process that the worker has just been forked from: where the task has begun already, no more
                than that one has in use was there before.
        """
        self._running.add(tid)
        if "walltime" in need:
            heapq.heappush(self._ends, (time.monotonic() + need["walltime"], tid, slot, need["walltime"]))
        if "memory" in need:
            before = resident_memory([slot.pid])  # what earlier tasks left is not this one's
            if born_of is not None:
                before = min(before, resident_memory([born_of]))
            self._limits[tid] = (slot, need["memory"], before)

    def end(self, tid: int) -> None:
        """Note that a task has ended."""
        self._running.discard(tid)
        self._limits.pop(tid, None)
        while self._ends and self._ends[0][1] not in self._running:
            heapq.heappop(self._ends)

    def deadline(self) -> float | None:
        """Return when `check` has to be called next, None for never."""
        due = [self._ends[0][0]] if self._ends else []
        if self._limits:
            due.append(self._next_look)
        return min(due, default=None)

    def check(self, now: float) -> None:
        """Doom whoever is over a limit."""
        while self._ends and self._ends[0][0] <= now:
            _, tid, slot, walltime = heapq.heappop(self._ends)
            if tid in self._running:
                self._doom(slot, tid, _record(tid, "WalltimeExceeded", limit=walltime, used=walltime))
        if self._limits and now >= self._next_look:
            began = time.thread_time()
            self._check_memory()
            self._next_look = time.monotonic() + max(_LOOK, _REST * (time.thread_time() - began))

    def _check_memory(self) -> None:
        parents = families()
        for tid, (slot, limit, before) in list(self._limits.items()):
            if slot.pid:
                used = resident_memory([slot.pid, *descendants(slot.pid, parents)]) - before
                if used > limit:
                    self._doom(slot, tid, _record(tid, "MemoryExceeded", limit=limit, used=used))


def _record(tid: int, error: str, *, limit: float, used: float) -> dict[str, Any]:
    return {"tids": [tid], "error": error, "limit": limit, "used": used, "host": socket.gethostname()}
