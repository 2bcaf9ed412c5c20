"""Requests that are more than a worker slot: remembered while they wait, refused where no node can ever meet them."""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final

from flowcore.errors import InvalidResourceSpecification
from flowcore_htex.matching import within
from flowcore_htex.node import slots_needed
from flowcore_htex.walltime import TIME_KEYS, time_for_tasks, time_needed

if TYPE_CHECKING:
    from flowcore_htex.client import Client
    from flowcore_htex.options import Options
    from flowcore_htex.outbox import HtexFuture

_UNITS = {"cores": "", "memory": " MB", "disk": " MB", "gpus": ""}

BLOCKS_ENOUGH: Final = 3
"""After so many blocks the one with the most time for tasks, or the largest node, counts for the most there ever is."""

Fault = InvalidResourceSpecification
_Size = tuple[float, ...]
"""Cores, memory and disk in MB, and accelerators that a task asks for."""

_SIZES: Final = 1024
"""So many different requests are worked out once."""


class Demand:
    """The demanding tasks that are not done: those that ask for a part of a node, and those that ask for time.

    Args:
        label: the executor's.
        options: what a worker is given.
        nodes: tells what is known of the nodes.
    """

    def __init__(self, label: str, options: Options, nodes: Callable[[], Sequence[Mapping[str, Any]]]) -> None:
        self._label = label
        self._options = options
        self._nodes = nodes
        self.judged: Sequence[Mapping[str, Any]] = ()
        """The sizes of nodes by which the tasks were judged last."""
        self._sized: dict[int, tuple[HtexFuture, Mapping[str, Any]]] = {}
        self._timed: dict[int, tuple[HtexFuture, Mapping[str, Any]]] = {}
        self._most_seconds = float("inf")
        self._lock = threading.RLock()  # guards all that follows; a signal handler may end tasks while it is held
        self._taken: dict[int, tuple[_Size, float]] = {}
        self._slots: Callable[[_Size], float] | None = None
        self.surplus = 0.0
        """Worker slots that the tasks take beyond one each."""

    def add(self, future: HtexFuture, need: Mapping[str, Any]) -> None:
        """Remember a task until it is done."""
        sized, timed = (any(key in need for key in keys) for keys in (_UNITS, TIME_KEYS))
        if sized or timed:
            future.add_done_callback(self._forget)  # first: an interrupt may come at any time
        if sized:
            self._sized[future.tid] = (future, need)
            size = _size(need)
            with self._lock:
                slots = self._measure()(size)
                self._taken[future.tid] = (size, slots)
                self.surplus += slots - 1
        if timed:
            self._timed[future.tid] = (future, need)
        if future.done():
            self._forget(future)

    def _forget(self, future: Future[Any]) -> None:
        tid = future.tid  # type: ignore[attr-defined]  # it is the `HtexFuture` that `add` was given
        self._sized.pop(tid, None)
        self._timed.pop(tid, None)
        with self._lock:
            _, slots = self._taken.pop(tid, (None, 1))
            self.surplus = self.surplus + 1 - slots if self._taken else 0.0  # not what sums of fractions have lost

    def nodes_changed(self) -> None:
        """Count the slots again, now that something else is known of the nodes."""
        with self._lock:
            self._slots = None
            if self._taken:
                measure = self._measure()
                self._taken = {tid: (size, measure(size)) for tid, (size, _) in self._taken.items()}
                self.surplus = sum(slots - 1 for _, slots in self._taken.values())

    def _measure(self) -> Callable[[_Size], float]:
        """Return what tells how many slots a task of some size takes; the lock is held."""
        if self._slots is None:
            taken = functools.partial(slots_taken, nodes=self._nodes(), options=self._options)
            self._slots = functools.lru_cache(_SIZES)(taken)
        return self._slots

    def recheck(self, client: Client, nodes: Sequence[Mapping[str, Any]], times: BlockTimes) -> None:
        """Fail the tasks that can never run, where more is known of nodes and blocks than the last time.

        Args:
            client: has the tasks.
            nodes: the sizes of nodes that there are; none as long as there may be others.
            times: how long blocks last.
        """
        doomed = []
        if nodes != self.judged:
            self.judged = nodes
            waiting = list(self._sized.values())
            distinct = {_size(need): need for _, need in waiting}
            beyond = {size for size, need in distinct.items() if self.fault(need, nodes)}
            doomed += [(future, self.fault(need, nodes)) for future, need in waiting if _size(need) in beyond]
        shorter, self._most_seconds = times.most < self._most_seconds, times.most
        if shorter:
            doomed += [(future, error) for future, need in list(self._timed.values()) if (error := times.fault(need))]
        for future, error in doomed:
            assert error is not None
            client.fail(future, error)

    def fault(self, need: Mapping[str, Any], nodes: Sequence[Mapping[str, Any]]) -> Fault | None:
        """Return the error for a request that none of the nodes can meet, naming what is too much."""
        too_much: dict[str, str] = {}
        for node in nodes:
            excess = _excess(need, node, self._options)
            if not excess:
                return None
            too_much.update(excess)
        if not too_much:
            return None
        text = "; ".join(too_much.values())
        return Fault(list(too_much), f"no node of executor {self._label!r} can ever meet it: {text}")


class BlockTimes:
    """How long blocks last: what the provider promises, and what managers found when they came.

    Args:
        label: the executor's.
        walltime: seconds that the provider gives a block, None for no end.
    """

    def __init__(self, label: str, walltime: float | None) -> None:
        self._label = label
        self._walltime = walltime
        self._blocks: set[str] = set()
        self._longest = 0.0
        self.most = float("inf") if walltime is None else time_for_tasks(walltime)
        """Seconds that tasks can ever run."""

    def saw(self, block_id: str, seconds: float | None) -> None:
        """Note for how long tasks could run when a manager came; None for no end."""
        self._blocks.add(block_id)
        self._longest = max(self._longest, float("inf") if seconds is None else seconds)
        if len(self._blocks) >= BLOCKS_ENOUGH:
            self.most = min(float("inf") if self._walltime is None else time_for_tasks(self._walltime), self._longest)

    def fault(self, need: Mapping[str, Any]) -> Fault | None:
        """Return the error for a request for more time than any block has."""
        if time_needed(need) <= self.most:
            return None
        keys = [key for key in TIME_KEYS if need.get(key, 0) > self.most]
        asked = " and ".join(f"{key}={need[key]:g} s" for key in keys)
        block, remedy = f" of a block's walltime of {self._walltime or 0:g} s", "give the provider a longer walltime"
        if self._walltime is None:
            block, remedy = "", "see to it that blocks last longer"
        return Fault(
            keys,
            f"no block of executor {self._label!r} lasts that long: {asked} is asked for, tasks have at most"
            f" {round(self.most, 1):g} s{block}\n  ask for less, or {remedy}",
        )


def _size(need: Mapping[str, Any]) -> _Size:
    return tuple(need.get(key, 0) for key in _UNITS)


def slots_taken(size: _Size, nodes: Sequence[Mapping[str, Any]], options: Options) -> float:
    """Return how many worker slots of a node a task takes, with its share of what no other such task can use.

    Args:
        size: what it asks for.
        nodes: what is known of the nodes; the one that has room for most such tasks counts.
        options: what a worker is given.
    """
    need = {key: amount for key, amount in zip(_UNITS, size, strict=True) if amount}
    bound = bool(options.available_accelerators)
    slots = slots_needed(need, options.cores_per_worker, options.mem_per_worker, bound)
    shares = []
    for node in nodes:
        keys = [key for key in ("memory", "disk", "gpus") if key in need]
        room = [node["slots"] // slots, *(math.floor(node[key] / need[key] + 1e-9) for key in keys)]
        shares.append(node["slots"] / max(1, min(room)))
    return float(min(shares, default=slots))


def _excess(need: Mapping[str, Any], node: Mapping[str, Any], options: Options) -> dict[str, str]:
    found = {
        key: f"{key}={need[key]:g}{unit} is asked for, a node has {node[key]:g}{unit}"
        for key, unit in _UNITS.items()
        if key in need and not within(need[key], node[key])
    }
    bound = bool(options.available_accelerators)
    slots = slots_needed(need, options.cores_per_worker, options.mem_per_worker, bound)
    if not found and slots > node["slots"]:
        keys = [key for key in ("cores", "memory", "gpus") if key in need]
        text = f"it takes {slots} worker slots, a node has {node['slots']}"
        found = dict.fromkeys(keys, text)
    return found
