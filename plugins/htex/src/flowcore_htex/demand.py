"""Requests that are more than a worker slot: remembered while they wait, refused where no node can ever meet them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flowcore.errors import InvalidResourceSpecification
from flowcore_htex.node import inspect_node, slots_needed, worker_count

if TYPE_CHECKING:
    from flowcore.providers.base import Provider
    from flowcore_htex.client import Client
    from flowcore_htex.options import Options
    from flowcore_htex.outbox import HtexFuture

_UNITS = {"cores": "", "memory": " MB", "disk": " MB", "gpus": ""}


class Demand:
    """The demanding tasks that are not done."""

    def __init__(self) -> None:
        self._waiting: dict[int, tuple[HtexFuture, dict[str, Any]]] = {}
        self._clean_at = 1000

    def add(self, future: HtexFuture, need: dict[str, Any]) -> None:
        """Remember a task."""
        if set(need) <= {"priority", "walltime"}:
            return
        self._waiting[future.tid] = (future, need)
        if len(self._waiting) > self._clean_at:
            for tid, (one, _) in list(self._waiting.items()):
                if one.done():
                    self._waiting.pop(tid, None)
            self._clean_at = 2 * len(self._waiting) + 1000

    def recheck(self, client: Client, never: Callable[[Mapping[str, Any]], Exception | None]) -> None:
        """Fail the tasks that can never run, now that more is known of the nodes."""
        for tid, (future, need) in list(self._waiting.items()):
            error = None if future.done() else never(need)
            if future.done() or error is not None:
                self._waiting.pop(tid, None)
            if error is not None:
                client.fail(future, error)

    @staticmethod
    def impossible(
        need: Mapping[str, Any], nodes: Sequence[Mapping[str, Any]], options: Options, label: str
    ) -> InvalidResourceSpecification | None:
        """Return the error for a request that none of the nodes can meet, naming what is too much."""
        too_much: dict[str, str] = {}
        for node in nodes:
            excess = _excess(need, node, options)
            if not excess:
                return None
            too_much.update(excess)
        text = "; ".join(too_much.values())
        return InvalidResourceSpecification(list(too_much), f"no node of executor {label!r} can ever meet it: {text}")


def local_node(provider: Provider, options: Options, folder: str) -> dict[str, Any]:
    """Return what a node has where the nodes are this machine, as a manager there would find it."""
    environment = dict(os.environ)
    if provider.cores_per_node:
        environment["FLOWCORE_CORES"] = str(provider.cores_per_node)
    if provider.mem_per_node:
        environment["FLOWCORE_MEMORY_GB"] = str(provider.mem_per_node)
    node = inspect_node(environment, folder)
    slots = worker_count(
        node,
        max_workers=options.worker_limit,
        cores_per_worker=options.cores_per_worker,
        mem_per_worker=options.mem_per_worker,
        accelerators=options.available_accelerators,
    )
    gpus = len(options.available_accelerators[:slots] if options.available_accelerators else node.gpus)
    return {"slots": slots, "cores": node.cores, "memory": node.memory, "disk": node.disk, "gpus": gpus}


def _excess(need: Mapping[str, Any], node: Mapping[str, Any], options: Options) -> dict[str, str]:
    found = {
        key: f"{key}={need[key]:g}{unit} is asked for, a node has {node[key]:g}{unit}"
        for key, unit in _UNITS.items()
        if key in need and need[key] > node[key]
    }
    bound = bool(options.available_accelerators)
    slots = slots_needed(need, options.cores_per_worker, options.mem_per_worker, bound)
    if not found and slots > node["slots"]:
        keys = [key for key in ("cores", "memory", "gpus") if key in need]
        text = f"it takes {slots} worker slots, a node has {node['slots']}"
        found = dict.fromkeys(keys, text)
    return found
