"""Which cores and which accelerator a worker has to itself, and the variables that tell its libraries."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

PLAIN: Final = ("none", "block", "block-reverse", "alternating")
_LIST: Final = re.compile(r"list(:[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*)+")


def check_affinity(strategy: str) -> str:
    """Return the strategy, or raise a `ValueError` that tells what may be written."""
    listed = isinstance(strategy, str) and _LIST.fullmatch(strategy) is not None
    if strategy not in PLAIN and not (listed and all(map(_cores, strategy.split(":")[1:]))):
        raise ValueError(
            f"cpu_affinity is one of {', '.join(PLAIN)}, or a list of cores per worker such as 'list:0-3:4-7,9', "
            f"not {strategy!r}"
        )
    return strategy


def worker_cores(strategy: str, rank: int, workers: int, cores: Sequence[int]) -> list[int]:
    """Return the cores of one worker; an empty list leaves it all of them.

    >>> [worker_cores("block", rank, 2, range(4)) for rank in range(2)]
    [[0, 1], [2, 3]]
    >>> [worker_cores("alternating", rank, 2, range(4)) for rank in range(2)]
    [[0, 2], [1, 3]]
    >>> worker_cores("list:0-1:2,5", 1, 2, range(8))
    [2, 5]

    Args:
        strategy: as `check_affinity` accepts it.
        rank: which worker of the node, from 0.
        workers: how many there are.
        cores: the cores the node offers.
    """
    if strategy == "none":
        return []
    if strategy.startswith("list:"):
        groups = strategy.split(":")[1:]
        return _cores(groups[rank % len(groups)])
    share = max(1, len(cores) // workers)
    if strategy == "alternating":
        return sorted(cores)[rank % len(cores) :: workers][:share]
    ordered = sorted(cores, reverse=strategy == "block-reverse")
    start = rank * share % len(ordered)
    return sorted(ordered[start : start + share])


def affinity_environment(cores: Sequence[int]) -> dict[str, str]:
    """Return the variables by which OpenMP runtimes keep to the cores."""
    if not cores:
        return {}
    listed = ",".join(map(str, cores))
    return {
        "OMP_NUM_THREADS": str(len(cores)),
        "GOMP_CPU_AFFINITY": " ".join(map(str, cores)),
        "KMP_AFFINITY": f"explicit,proclist=[{listed}]",
    }


def accelerator_environment(names: Sequence[str]) -> dict[str, str]:
    """Return the variables by which CUDA, ROCm and oneAPI see these accelerators only."""
    if not names:
        return {}
    listed = ",".join(names)
    return {
        "CUDA_VISIBLE_DEVICES": listed,
        "ROCR_VISIBLE_DEVICES": listed,
        "ZE_AFFINITY_MASK": listed,
        "ZE_ENABLE_PCI_ID_DEVICE_ORDER": "1",
    }


def _cores(text: str) -> list[int]:
    cores: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        cores += range(int(first), int(last or first) + 1)
    return cores
