"""The launchers that hand the copies of a command to a program that starts them on all nodes of the block."""

from __future__ import annotations

import shlex
from abc import abstractmethod
from pathlib import Path
from typing import Final

from flowcore.launchers.base import Launcher, announce

SCRIPTS: Final = Path(__file__).with_name("scripts")
"""The parts of the generated scripts, each a file for people to read."""


class SpreadLauncher(Launcher):
    """Starts `tasks_per_node * nodes_per_block` copies of `/bin/bash -c <command>` with one call of a program.

    Every copy has the job's environment. SIGTERM, SIGINT and SIGHUP become one SIGTERM to the program, which passes it
    on; the exit code is the program's.

    Args:
        debug: say on standard error what is started.
        overrides: shell text with further options for the program.
    """

    def __init__(self, debug: bool = True, overrides: str = "") -> None:
        super().__init__(debug=debug)
        self.overrides = overrides

    @abstractmethod
    def start_words(self, tasks_per_node: int, nodes_per_block: int) -> str:
        """Return the program and its options as shell text, to be followed by the words of a copy."""

    def shell(self) -> str:
        """Return the shell that runs the copies."""
        return "/bin/bash"

    def parts(self) -> tuple[str, ...]:
        """Name the files in `scripts` that precede the start."""
        return ()

    def __call__(self, command: str, tasks_per_node: int, nodes_per_block: int) -> str:
        """Return the script that starts the copies and waits for them."""
        starter = self.start_words(tasks_per_node, nodes_per_block)
        copies = tasks_per_node * nodes_per_block
        told = f"{copies} cop{'y' if copies == 1 else 'ies'} on {nodes_per_block} node(s): {starter}"
        return (
            announce(self, told)
            + assignments(command, tasks_per_node, nodes_per_block)
            + f"flowcore_bash={shlex.quote(self.shell())}\n"
            + script("environment", "supervise", *self.parts())
            + f"flowcore_starter=({starter})\n"
            + script("spread")
        )


def assignments(command: str, tasks_per_node: int, nodes_per_block: int) -> str:
    """Return the shell lines that tell the parts of a script what to start, and how often."""
    return (
        f"flowcore_command={shlex.quote(command)}\n"
        f"flowcore_tasks_per_node={tasks_per_node}\n"
        f"flowcore_nodes_per_block={nodes_per_block}\n"
    )


def script(*names: str) -> str:
    """Return the named files of `scripts` as one text."""
    return "".join((SCRIPTS / f"{name}.sh").read_text(encoding="utf-8") for name in names)
