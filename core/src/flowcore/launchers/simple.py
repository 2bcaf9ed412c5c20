"""The launcher that starts the command once, on the node where the block's script runs."""

from __future__ import annotations

from flowcore.launchers.base import Launcher, announce


class SimpleLauncher(Launcher):
    """Starts the command once, however many nodes and tasks there are: it is for commands that use the rest themselves.

    The command runs in the shell of the job's script, and its exit code is the script's.
    """

    def __call__(self, command: str, tasks_per_node: int, nodes_per_block: int) -> str:
        """Return the command, unchanged."""
        told = f"one copy for {tasks_per_node} task(s) on each of {nodes_per_block} node(s)"
        return announce(self, told) + command
