"""The contract of a launcher: from "start this command once" to "start it on every node of the block"."""

from __future__ import annotations

import shlex
from abc import ABC, abstractmethod


class Launcher(ABC):
    """Wraps the command of a block so that the right number of copies start in the right places.

    Launchers are plain values: no state, no side effect, callable any number of times from any thread.
    `debug=True` makes the generated script say what it does on the job's standard error; it never changes what runs.
    """

    def __init__(self, debug: bool = True) -> None:
        self.debug = debug

    @abstractmethod
    def __call__(self, command: str, tasks_per_node: int, nodes_per_block: int) -> str:
        """Return the shell text that starts `command` as this launcher does.

        Called by a provider each time it submits a block.

        Args:
            command: shell text, any length, any quoting; it arrives unchanged at every copy.
            tasks_per_node: copies wanted on each node, 1 or more.
            nodes_per_block: nodes in the block, 1 or more.

        Returns:
            Text for /bin/bash. It ends when all copies have ended, and its exit code tells of theirs.
        """

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({options})"


def announce(launcher: Launcher, told: str) -> str:
    """Return the shell line with which a launcher says what it starts, "" where it is not to say anything."""
    if not launcher.debug:
        return ""
    return f"printf '%s\\n' {shlex.quote(f'flowcore: {type(launcher).__name__} starts {told}')} >&2\n"
