"""The launcher that starts the copies with jsrun, on IBM machines that have the job step manager."""

from __future__ import annotations

from typing import ClassVar

from flowcore.launchers.spread import SpreadLauncher


class JsrunLauncher(SpreadLauncher):
    """Starts the copies with `jsrun -n <copies> -r <copies on each node> <overrides>`.

    Args:
        debug: say on standard error what is started.
        overrides: shell text with further options, such as `-c ALL_CPUS -g ALL_GPUS`.
    """

    schedulers: ClassVar[frozenset[str] | None] = frozenset({"local", "lsf"})

    def start_words(self, tasks_per_node: int, nodes_per_block: int) -> str:
        """Return the call of jsrun."""
        return f"jsrun -n {tasks_per_node * nodes_per_block} -r {tasks_per_node} {self.overrides}".rstrip()
