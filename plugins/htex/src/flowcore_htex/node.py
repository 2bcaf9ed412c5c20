"""What a node has: cores, memory, disk and accelerators, and how many workers that makes."""
# ruff: noqa: PTH123, PTH208 - these processes have to start fast, and pathlib is slow to import

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Node(NamedTuple):
    """Sizes of one node; memory and disk in MB."""

    cores: int
    memory: float
    disk: float
    gpus: tuple[str, ...]


def inspect_node(environment: Mapping[str, str], folder: str) -> Node:
    """Look at this machine, within what the environment and the process' own affinity allow.

    Args:
        environment: FLOWCORE_CORES and FLOWCORE_MEMORY_GB (or their PARSL_ spellings) limit what is found.
        folder: where the free disk space is looked up.
    """
    cores = environment.get("FLOWCORE_CORES") or environment.get("PARSL_CORES")
    memory = environment.get("FLOWCORE_MEMORY_GB") or environment.get("PARSL_MEMORY_GB")
    return Node(
        int(cores) if cores else len(os.sched_getaffinity(0)),
        float(memory) * 1000 if memory else _memory(),
        _disk(folder),
        _gpus(),
    )


def worker_count(
    node: Node,
    *,
    max_workers: float,
    cores_per_worker: float,
    mem_per_worker: float | None,
    accelerators: Sequence[str],
) -> int:
    """Return how many workers the node runs: the tightest of all bounds, but at least one."""
    bounds: list[float] = [max_workers, math.floor(node.cores / cores_per_worker + 1e-9)]
    if mem_per_worker:
        bounds.append(math.floor(node.memory / mem_per_worker + 1e-9))
    if accelerators:
        bounds.append(len(accelerators))
    return max(1, int(min(bounds)))


def slots_needed(
    need: Mapping[str, Any], cores_per_worker: float, mem_per_worker: float | None, accelerators_bound: bool
) -> int:
    """Return how many worker slots a task with such a request takes."""
    wanted = [1, math.ceil(need.get("cores", 0) / cores_per_worker - 1e-9)]
    if mem_per_worker and "memory" in need:
        wanted.append(math.ceil(need["memory"] / mem_per_worker - 1e-9))
    if accelerators_bound:
        wanted.append(need.get("gpus", 0))
    return int(max(wanted))


def resident_memory(pids: Sequence[int]) -> float:
    """Return the memory in MB that these processes have in use together."""
    pages = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/statm", "rb") as stream:
                pages += int(stream.read().split()[1])
        except (OSError, IndexError):
            continue
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _memory() -> float:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e6
    try:
        with open("/sys/fs/cgroup/memory.max", encoding="ascii") as stream:
            limit = stream.read().strip()
    except OSError:
        return total
    return min(total, int(limit) / 1e6) if limit.isdigit() else total


def _disk(folder: str) -> float:
    try:
        room = os.statvfs(folder)
    except OSError:
        return 0.0
    return room.f_bavail * room.f_frsize / 1e6


def _gpus() -> tuple[str, ...]:
    """Return the numbers of the NVIDIA devices; other makes are named by `available_accelerators`."""
    try:
        numbers = [name[6:] for name in os.listdir("/dev") if re.fullmatch(r"nvidia[0-9]+", name)]
    except OSError:
        return ()
    return tuple(sorted(numbers, key=int))
