"""Managers as the interchange sees them: how to reach one, what it has, what it holds."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any, Final, Protocol

from flowcore_htex import wire
from flowcore_htex.link import LinkClosed, StreamLink
from flowcore_htex.matching import UNITS, Room
from flowcore_htex.node import slots_needed
from flowcore_htex.wire import Task

_BYTES: Final = 1_000_000
"""Bytes in a MB: what is taken is counted in whole ones, since sums of fractions drift."""


class Peer(Protocol):
    """A connection to something that is, or wants to be, a manager."""

    manager: Manager | None
    known: bool
    """Whether it has ever registered: what it says of tasks counts, even if it was given up meanwhile."""

    def accept(self) -> None:
        """Take note that it has registered."""

    @property
    def descriptor(self) -> int:
        """The open file that the connection is here."""

    @property
    def heard(self) -> float:
        """When it was last heard, by `time.monotonic`."""

    def queue(self, kind: int, head: bytes = b"", buffers: Sequence[Any] = ()) -> None:
        """Queue a message until the next `flush`."""

    def flush(self) -> None:
        """Send what is queued."""

    def close(self) -> None:
        """Close the connection."""


class StreamPeer:
    """A peer on this host."""

    def __init__(self, link: StreamLink) -> None:
        self.link = link
        self.known = False
        self.since = time.monotonic()
        self.manager: Manager | None = None

    def accept(self) -> None:
        """See `Peer`."""
        self.known = True
        self.link.limit = None

    @property
    def descriptor(self) -> int:
        """See `Peer`."""
        return self.link.fileno()

    @property
    def heard(self) -> float:
        """When it was last heard, by `time.monotonic`."""
        return self.link.heard

    def queue(self, kind: int, head: bytes = b"", buffers: Sequence[Any] = ()) -> None:
        """See `Peer`."""
        self.link.queue(kind, head, buffers)

    def flush(self) -> None:
        """See `Peer`; a broken connection is noticed when it is read."""
        try:
            self.link.flush()
        except LinkClosed:
            pass

    def close(self) -> None:
        """See `Peer`."""
        self.link.close()


class Manager:
    """A registered manager.

    Attributes:
        used: units of work it was given and has not answered.
        tasks: these tasks, each with its units, and with what it asks for and the slots that takes, if anything.
        known: numbers of the functions it has.
        owed: outcome messages received from it and not acknowledged.
        cancelled: those of them that nobody wants any more, and of which it was told.
        held: whether it is to get no more tasks, because its block is about to be cancelled.
        proven: whether a task has ever come to its end there.
        ends: when it will drain because the walltime of its block is almost over, by `time.monotonic`; infinite where
            that is not known.
    """

    def __init__(self, peer: Peer, info: dict[str, Any], settings: dict[str, Any]) -> None:
        self.peer = peer
        self.info = info
        self.name: str = info["manager"]
        self.workers: int = info["worker_count"]
        self._settings = settings
        self.used = 0
        self.tasks: dict[int, tuple[Task, int, dict[str, Any] | None, int]] = {}
        self.known: set[int] = set()
        self.cancelled: set[int] = set()
        self.owed = 0
        self.held = self.proven = False
        self.draining: bool = info["draining"]
        self.told = time.monotonic()
        left = info.get("seconds_left")
        self.ends = float("inf") if left is None else self.told + left
        self.idle_since = time.time()
        # what is free of it
        self._memory, self._disk, self._gpus = _in_bytes(info["memory"]), _in_bytes(info["disk"]), info["gpus"]

    @property
    def open(self) -> bool:
        """Whether it may be given tasks."""
        return not self.held and not self.draining

    def slots_for(self, need: dict[str, Any]) -> int:
        """Return how many of its worker slots a task takes."""
        settings = self._settings
        bound = bool(settings["accelerators"])
        return slots_needed(need, settings["cores_per_worker"], settings["mem_per_worker"], bound)

    @property
    def seconds(self) -> float:
        """How long tasks can run here, infinite where that is not known."""
        return max(0.0, self.ends - time.monotonic())

    @property
    def total(self) -> Room:
        """What it has for tasks."""
        info = self.info
        return Room(self.workers, info["memory"], info["disk"], info["gpus"], self.seconds)

    def free(self) -> Room:
        """Return what is free now."""
        slots = self.workers - self.used / UNITS
        return Room(slots, self._memory / _BYTES, self._disk / _BYTES, self._gpus, self.seconds)

    def take(self, task: Task, weight: int, need: dict[str, Any] | None = None) -> None:
        """Note that it was given a task."""
        slots = 0
        if need is not None:
            slots = self.slots_for(need)
            weight = slots * UNITS
            self._account(need, -1)
        self.tasks[task.tid] = (task, weight, need, slots)
        self.used += weight

    def answered(self, tid: int) -> Task | None:
        """Note that it has answered a task; None where it had no such task."""
        entry = self.tasks.pop(tid, None)
        if entry is None:
            return None
        task, weight, need, _ = entry
        self.cancelled.discard(tid)
        self.used -= weight
        if need is not None:
            self._account(need, 1)
        if not self.tasks:
            self.idle_since = time.time()
        return task

    def given_back(self, tids: Iterable[int]) -> list[Task]:
        """Note that it has not begun these tasks, and never will; return those that somebody still wants."""
        unwanted = self.cancelled.intersection(tids)
        tasks = [(tid, self.answered(tid)) for tid in tids]
        return [task for tid, task in tasks if task is not None and tid not in unwanted]

    def _account(self, need: dict[str, Any], sign: int) -> None:
        self._memory += sign * _in_bytes(need.get("memory", 0))
        self._disk += sign * _in_bytes(need.get("disk", 0))
        self._gpus += sign * need.get("gpus", 0)

    def hand_over(self, given: list[Task], functions: dict[int, bytes]) -> None:
        """Send tasks, after the functions that it has not got, and after what is owed to it."""
        peer = self.peer
        self.acknowledge()
        for task in given:
            if task.function not in self.known and task.function in functions:
                self.known.add(task.function)
                peer.queue(wire.FUNCTION, wire.pack_function(task.function, functions[task.function]))
        small = [task for task in given if not task.buffers]
        if small:
            peer.queue(wire.TASKS, wire.pack_tasks(small, small[0].spec))
        for task in given:
            if task.buffers:
                peer.queue(wire.BIG_TASK, wire.pack_big_task(task.tid, task.function, task.spec), task.buffers)
        peer.flush()
        self.told = time.monotonic()

    def acknowledge(self) -> None:
        """Queue what tells the manager that its outcomes have arrived."""
        if self.owed:
            self.peer.queue(wire.ACK, wire.pack_ids([self.owed]))
            self.owed = 0

    def report(self) -> dict[str, Any]:
        """Return what a person, or a selector, wants to know of it."""
        return {
            **{key: value for key, value in self.info.items() if key not in ("held", "protocol", "byteorder")},
            "tasks": len(self.tasks),
            "idle_duration": 0.0 if self.tasks else time.time() - self.idle_since,
            "active": self.open,
            "draining": self.draining,
            "seconds_left": None if self.ends == float("inf") else self.seconds,
            "flowcore_version": self.info["release"],
            "python_version": self.info["python"],
        }


def _in_bytes(megabytes: float) -> int:
    return round(megabytes * _BYTES)
