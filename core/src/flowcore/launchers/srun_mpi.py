"""The launcher that gives each copy a job step of its own, for workers that start MPI programs."""

from __future__ import annotations

import shlex
from typing import ClassVar

from flowcore.launchers import single_node, srun
from flowcore.launchers.base import Launcher, announce


class SrunMPILauncher(Launcher):
    """Starts `tasks_per_node` copies on each node of the block, each with a call of Slurm's `srun`.

    The steps share the nodes' resources with each other and with what the copies start by srun or mpiexec, for which
    SLURM_OVERLAP is set. The exit code is 0, or that of the first copy that failed. SIGTERM, SIGINT and SIGHUP make the
    script send SIGTERM to every copy, and two seconds later SIGKILL.

    Args:
        debug: say on standard error what is started.
        overrides: further options for each srun, as shell text.
    """

    schedulers: ClassVar[frozenset[str] | None] = frozenset({"slurm", "local"})

    def __init__(self, debug: bool = True, overrides: str = "") -> None:
        super().__init__(debug=debug)
        self.overrides = overrides

    def __call__(self, command: str, tasks_per_node: int, nodes_per_block: int) -> str:
        """Return the script that starts the steps and waits for them."""
        copies = tasks_per_node * nodes_per_block
        place = f'--relative="$((flowcore_i / {tasks_per_node}))"'  # flowcore_i is the number of the copy
        options = f"--nodes=1 --ntasks=1 {place} --overlap {self.overrides}".rstrip()
        step = shlex.quote(srun.step(options, command))
        script = single_node.SCRIPT.format(command=step, copies=copies, tolerated=1)
        return f"{announce(self, f'{copies} steps on {nodes_per_block} node(s)')}export SLURM_OVERLAP=1\n{script}"
