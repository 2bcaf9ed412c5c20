"""The nodes of an executor, as far as they are known: what this machine has, and what managers said when they came."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from flowcore_htex.node import inspect_node, worker_count

if TYPE_CHECKING:
    from flowcore.providers.base import Provider
    from flowcore_htex.options import Options

_MANY: Final = float("inf")


class KnownNodes:
    """The sizes of nodes: slots, cores, memory and disk in MB, accelerators.

    Args:
        provider: where they come from.
        options: what a worker is given.
    """

    def __init__(self, provider: Provider, options: Options) -> None:
        self._provider = provider
        self._options = options
        self._seen: dict[tuple[float, ...], dict[str, Any]] = {}
        self.folder: str | None = None
        """Where workers have their files; None as long as that is not known."""

    @cached_property
    def local(self) -> dict[str, Any] | None:
        """What each node has, where the nodes are this machine."""
        if self._provider.label != "local":
            return None
        return _local_node(self._provider, self._options, self.folder or str(Path.cwd()))

    def saw(self, manager: Mapping[str, Any]) -> bool:
        """Remember what a manager has, be it there later or not; tell whether that is news."""
        kind = tuple(manager[key] for key in ("worker_count", "cores", "memory", "gpus"))
        disk = max(manager["disk"], self._seen.get(kind, manager)["disk"])
        before = self._seen.get(kind)
        self._seen[kind] = dict(zip(("slots", "cores", "memory", "gpus"), kind, strict=True), disk=disk)
        return self._seen[kind] != before

    def sizes(self) -> list[dict[str, Any]]:
        """Return the sizes that are known."""
        seen = list(self._seen.values())
        return seen if self.local is None else [self.local, *seen]

    def workers(self, managers: Sequence[Mapping[str, Any]]) -> float:
        """Return the workers on one node: counted where there are managers, estimated else."""
        if managers:
            return float(sum(manager["worker_count"] for manager in managers) / len(managers))
        if self.local is not None:
            return float(self.local["slots"])
        provider, options = self._provider, self._options
        bounds: list[float] = [options.worker_limit, len(options.available_accelerators) or _MANY]
        if provider.cores_per_node:
            bounds.append(provider.cores_per_node // options.cores_per_worker)
        if provider.mem_per_node and options.mem_per_worker:
            bounds.append(1000 * provider.mem_per_node // options.mem_per_worker)
        least = min(bounds)
        return 1.0 if least == _MANY else max(1.0, float(least))


def _local_node(provider: Provider, options: Options, folder: str) -> dict[str, Any]:
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
