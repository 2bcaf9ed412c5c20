"""The launcher that hands the command to another one: a container runtime, a profiler, a tracer."""

from __future__ import annotations

import shlex
from typing import Final

from flowcore.launchers.base import Launcher, announce

WORD: Final = 30_000
"""Characters of a command that go into one word; the system's limit is 128 KiB, and a character has 4 bytes at most."""

JOINED: Final = 'printf -v flowcore_command %s "$@"; set --; eval "$flowcore_command"'
"""Runs a command that was cut into words."""


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
        return f"{announce(self, told)}{self.prepend} /bin/bash -c {_words(command)}"


def _words(command: str) -> str:
    """Return the command as one word after `bash -c`, or as several where the system would refuse one."""
    if len(command) <= WORD:
        return shlex.quote(command)
    return shlex.join([JOINED, "bash", *(command[start : start + WORD] for start in range(0, len(command), WORD))])
