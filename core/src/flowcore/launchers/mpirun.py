"""The launcher that starts the copies with mpirun."""

from __future__ import annotations

from flowcore.launchers.spread import SpreadLauncher


class MpiRunLauncher(SpreadLauncher):
    """Starts the copies with `mpirun -np <copies> --hostfile <file> <overrides> <bash_location> ...`.

    The file has the nodes that the resource manager (PBS, Cobalt, Grid Engine, LSF, Slurm) gave to the job, or this
    node alone. MPICH's mpirun lets the other copies go on when one has failed; Open MPI's ends them.

    Args:
        debug: say on standard error what is started.
        bash_location: where the nodes have their bash.
        overrides: shell text with further options.
    """

    def __init__(self, debug: bool = True, bash_location: str = "/bin/bash", overrides: str = "") -> None:
        super().__init__(debug=debug, overrides=overrides)
        self.bash_location = bash_location

    def start_words(self, tasks_per_node: int, nodes_per_block: int) -> str:
        """Return the call of mpirun."""
        copies = tasks_per_node * nodes_per_block
        return f'mpirun -np {copies} --hostfile "$flowcore_scratch" {self.overrides}'.rstrip()

    def shell(self) -> str:
        """Return the shell that runs the copies."""
        return self.bash_location

    def parts(self) -> tuple[str, ...]:
        """Find the nodes, and write them to the file."""
        return ("nodes", "hostfile")
