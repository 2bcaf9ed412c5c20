"""The contract of a launcher: from "start this command once" to "start it on every node of the block"."""

from __future__ import annotations

import shlex
from abc import ABC, abstractmethod
from typing import ClassVar, Final

WORD: Final = 30_000
"""Characters of a command that go into one word; the system's limit is 128 KiB, and a character has 4 bytes at most."""

_JOINED: Final = 'printf -v flowcore_command %s "$@"; set --; eval "$flowcore_command"'
"""Runs a command that was cut into words."""


class Launcher(ABC):
    """Wraps the command of a block so that the right number of copies start in the right places.

    Launchers are plain values: no state, no side effect, callable any number of times from any thread.
    `debug=True` makes the generated script say what it does on the job's standard error; it never changes what runs.
    """

    schedulers: ClassVar[frozenset[str] | None] = None
    """Labels of the providers in whose jobs it works, None for all; 'local' for inside a job that is there already."""

    one_node: ClassVar[bool] = False
    """Whether it starts every copy on one node, so that a block of several would be mostly idle."""

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


def bash(command: str) -> str:
    """Return the words that run `command` when they are put behind something that takes a command to start.

    They are `/bin/bash -c COMMAND`, COMMAND being cut into several words where the system would refuse one.
    """
    if len(command) <= WORD:
        return f"/bin/bash -c {shlex.quote(command)}"
    pieces = [command[start : start + WORD] for start in range(0, len(command), WORD)]
    return shlex.join(["/bin/bash", "-c", _JOINED, "bash", *pieces])
