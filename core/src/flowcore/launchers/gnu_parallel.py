"""The launcher that starts the copies with GNU parallel, which reaches the nodes through ssh."""

from __future__ import annotations

from flowcore.launchers.base import Launcher, announce
from flowcore.launchers.spread import assignments, script


class GnuParallelLauncher(Launcher):
    """Starts `tasks_per_node` copies on each node of the block with GNU parallel.

    The nodes are those that the resource manager (PBS, Cobalt, Grid Engine, LSF, Slurm) gave to the job, or this node
    alone. Others than this one are reached through ssh, which must ask for nothing; they need parallel's perl.
    The copies have the job's environment and its working folder. The exit code is that of the first copy that failed.
    """

    def __call__(self, command: str, tasks_per_node: int, nodes_per_block: int) -> str:
        """Return the script that starts the copies and waits for them."""
        told = f"{tasks_per_node} cop{'y' if tasks_per_node == 1 else 'ies'} on each of {nodes_per_block} node(s)"
        return (
            announce(self, f"{told} with parallel")
            + assignments(command, tasks_per_node, nodes_per_block)
            + script("nodes", "environment", "supervise", "gnu_parallel")
        )
