"""The launcher that hands the command to another one: a container runtime, a profiler, a tracer."""

from __future__ import annotations

from flowcore.launchers.base import Launcher, announce, bash


class WrappedLauncher(Launcher):
    """Starts `<prepend> /bin/bash -c <command>` once, on the node where the block's script runs.

    The exit code is that of `prepend`.

    Args:
        prepend: shell text that takes a command at its end, such as `"apptainer exec image.sif"`.
        debug: say on standard error what is started.
    """

    def __init__(self, prepend: str, debug: bool = True) -> None:
        super().__init__(debug=debug)
        self.prepend = prepend

    def __call__(self, command: str, tasks_per_node: int, nodes_per_block: int) -> str:
        """Return the wrapped command."""
        told = f"one copy under {self.prepend!r} for {tasks_per_node} task(s) on each of {nodes_per_block} node(s)"
        return f"{announce(self, told)}{self.prepend} {bash(command)}"
