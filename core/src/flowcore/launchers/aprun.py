"""The launcher that starts the copies with aprun, on Cray machines that have ALPS."""

from __future__ import annotations

from typing import ClassVar

from flowcore.launchers.spread import SpreadLauncher


class AprunLauncher(SpreadLauncher):
    """Starts the copies with `aprun -n <copies> -N <copies on each node> <overrides>`.

    Args:
        debug: say on standard error what is started.
        overrides: shell text with further options, such as `-d 16`.
    """

    schedulers: ClassVar[frozenset[str] | None] = frozenset({"local", "pbspro", "slurm", "torque"})

    def start_words(self, tasks_per_node: int, nodes_per_block: int) -> str:
        """Return the call of aprun."""
        return f"aprun -n {tasks_per_node * nodes_per_block} -N {tasks_per_node} {self.overrides}".rstrip()
