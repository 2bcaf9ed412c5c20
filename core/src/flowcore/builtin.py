"""The manifest of core's own providers and launchers: they come through the door that plugins come through."""

from __future__ import annotations

from collections.abc import Iterator

from flowcore.plugin import Component, hookimpl

FLOWCORE_API = 1


@hookimpl
def flowcore_providers() -> Iterator[Component]:
    """Offer this machine and the batch schedulers."""
    yield Component("LocalProvider", "flowcore.providers.local:LocalProvider", "Starts blocks on this machine.")
    yield Component("SlurmProvider", "flowcore.providers.slurm:SlurmProvider", "Submits blocks to Slurm.")
    yield Component(
        "GridEngineProvider", "flowcore.providers.grid_engine:GridEngineProvider", "Submits blocks to Grid Engine."
    )
    yield Component(
        "PBSProProvider", "flowcore.providers.pbspro:PBSProProvider", "Submits blocks to PBS Pro or OpenPBS."
    )
    yield Component("TorqueProvider", "flowcore.providers.torque:TorqueProvider", "Submits blocks to Torque.")
    yield Component("LSFProvider", "flowcore.providers.lsf:LSFProvider", "Submits blocks to LSF.")
    yield Component("CondorProvider", "flowcore.providers.condor:CondorProvider", "Submits blocks to HTCondor.")


@hookimpl
def flowcore_launchers() -> Iterator[Component]:
    """Offer the shell's ways to start a command, and those of schedulers and MPIs."""
    yield Component("SimpleLauncher", "flowcore.launchers.simple:SimpleLauncher", "Starts the command once.")
    yield Component(
        "SingleNodeLauncher",
        "flowcore.launchers.single_node:SingleNodeLauncher",
        "Starts the command's copies on the first node of a block.",
    )
    yield Component(
        "WrappedLauncher",
        "flowcore.launchers.wrapped:WrappedLauncher",
        "Puts another command, such as a container's or a debugger's, in front.",
    )
    yield Component(
        "SrunLauncher", "flowcore.launchers.srun:SrunLauncher", "Starts copies on every node of a block with srun."
    )
    yield Component(
        "SrunMPILauncher", "flowcore.launchers.srun_mpi:SrunMPILauncher", "Gives each copy an srun call of its own."
    )
    yield Component(
        "MpiExecLauncher", "flowcore.launchers.mpiexec:MpiExecLauncher", "Starts copies on every node with mpiexec."
    )
    yield Component(
        "MpiRunLauncher", "flowcore.launchers.mpirun:MpiRunLauncher", "Starts copies on every node with mpirun."
    )
    yield Component(
        "GnuParallelLauncher",
        "flowcore.launchers.gnu_parallel:GnuParallelLauncher",
        "Starts copies on every node with GNU parallel and ssh.",
    )
    yield Component(
        "AprunLauncher", "flowcore.launchers.aprun:AprunLauncher", "Starts copies on every node of a Cray with aprun."
    )
    yield Component(
        "JsrunLauncher", "flowcore.launchers.jsrun:JsrunLauncher", "Starts copies on every node of an IBM with jsrun."
    )
