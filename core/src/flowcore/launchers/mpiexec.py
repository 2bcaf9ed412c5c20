"""The launcher that starts the copies with mpiexec."""

from __future__ import annotations

from flowcore.launchers.spread import SpreadLauncher


class MpiExecLauncher(SpreadLauncher):
    """Starts the copies with `mpiexec <bind_cmd> none <overrides> -n <copies> --hostfile <file>`.

    The file has the nodes that the resource manager (PBS, Cobalt, Grid Engine, LSF, Slurm) gave to the job, or this
    node alone. MPICH's mpiexec lets the other copies go on when one has failed; Open MPI's ends them.

    Args:
        debug: say on standard error what is started.
        bind_cmd: the option that binds copies to cores, which gets the value `none`; "" for no such option.
        overrides: shell text with further options.
    """

    def __init__(self, debug: bool = True, bind_cmd: str = "--bind-to", overrides: str = "") -> None:
        super().__init__(debug=debug, overrides=overrides)
        self.bind_cmd = bind_cmd

    def start_words(self, tasks_per_node: int, nodes_per_block: int) -> str:
        """Return the call of mpiexec."""
        binding = f"{self.bind_cmd} none" if self.bind_cmd else ""
        options = [binding, self.overrides, f"-n {tasks_per_node * nodes_per_block}"]
        return " ".join(["mpiexec", *filter(None, options), '--hostfile "$flowcore_scratch"'])

    def parts(self) -> tuple[str, ...]:
        """Find the nodes, and write them to the file."""
        return ("nodes", "hostfile")
