"""The variables by which a task knows its worker, in flowcore's spelling and in Parsl's."""

from __future__ import annotations

from typing import Final

PREFIXES: Final = ("FLOWCORE", "PARSL")


def worker_environment(rank: int, count: int, pool: str, block: str) -> dict[str, str]:
    """Return the variables of one worker.

    Args:
        rank: its number on the node, from 0.
        count: workers on the node.
        pool: the manager's name.
        block: the block's id.
    """
    table = {"WORKER_RANK": str(rank), "WORKER_COUNT": str(count), "WORKER_POOL_ID": pool, "WORKER_BLOCK_ID": block}
    return {f"{prefix}_{name}": value for prefix in PREFIXES for name, value in table.items()}
