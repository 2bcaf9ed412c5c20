"""The executor for multi-node MPI applications: its parameters, and why it cannot run a task yet."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from typing import Any, Final

import attrs

from flowcore.errors import FlowcoreError
from flowcore.executors.announced import AnnouncedExecutor
from flowcore.executors.errors import UnsupportedFeatureError
from flowcore.parameters import choice, whole
from flowcore.providers.base import Provider

MPI_LAUNCHERS: Final = ("mpiexec", "srun", "aprun")


@attrs.define(eq=False)
class MPIExecutor(AnnouncedExecutor):
    """Names and defaults of an executor whose tasks are MPI applications over several nodes. This version runs none.

    Args:
        label: names the executor within a run.
        provider: starts the blocks, with a `SimpleLauncher`; None for this machine.
        launch_cmd: the manager's command line; None for the usual one.
        interchange_launch_cmd: the interchange's command line; None for the usual one.
        address: at which the blocks reach this machine; None finds one.
        loopback_address: at which the interchange is reached from here.
        worker_ports: the ports on which workers connect; None takes free ones.
        worker_port_range: from which those are taken.
        interchange_port_range: from which the ports towards this process are taken.
        storage_access: the staging methods; None for the default ones.
        working_dir: folder into which files are staged.
        worker_debug: whether managers and workers log at level DEBUG.
        max_workers_per_block: MPI applications that run in one block at once.
        prefetch_capacity: tasks that wait at each block.
        heartbeat_threshold: seconds of silence after which a peer is lost.
        heartbeat_period: seconds between heartbeats.
        drain_period: seconds after which a block takes no new task; None for never.
        poll_period: milliseconds that the manager waits for news at most.
        address_probe_timeout: seconds to try each address; None for the usual time.
        worker_logdir_root: folder for the logs of blocks; None for the run's.
        mpi_launcher: 'mpiexec', 'srun' or 'aprun'; the task finds it as `$FLOWCORE_MPI_PREFIX`.
        block_error_handler: whether repeated failure of blocks fails all tasks.
        encrypted: whether TCP connections are encrypted.

    Raises:
        ConfigurationError: a launcher that is not known, or less than one worker.
        UnsupportedFeatureError: always, in this version.
    """

    label: str = "MPIExecutor"
    provider: Provider | None = None
    launch_cmd: str | None = None
    interchange_launch_cmd: Sequence[str] | str | None = None
    address: str | None = None
    loopback_address: str = "127.0.0.1"
    worker_ports: tuple[int, int] | None = None
    worker_port_range: tuple[int, int] = (54000, 55000)
    interchange_port_range: tuple[int, int] = (55000, 56000)
    storage_access: Sequence[Any] | None = None
    working_dir: str | None = None
    worker_debug: bool = False
    max_workers_per_block: int = attrs.field(default=1, validator=whole(1))
    prefetch_capacity: int = 0
    heartbeat_threshold: float = 120
    heartbeat_period: float = 30
    drain_period: float | None = None
    poll_period: float = 10
    address_probe_timeout: float | None = None
    worker_logdir_root: str | None = None
    mpi_launcher: str = attrs.field(default="mpiexec", validator=choice(*MPI_LAUNCHERS))
    block_error_handler: bool | Callable[..., None] = True
    encrypted: bool | None = None

    def refusal(self) -> FlowcoreError:
        """Return the error that says that MPI applications cannot be run yet, and what can be done meanwhile."""
        command = shutil.which(self.mpi_launcher)
        found = f"found {command}" if command else f"there is no command {self.mpi_launcher!r} on this machine"
        reason = (
            f"{found}; with it or without, this version of flowcore-mpi cannot run MPI applications yet\n"
            f"  on one node, a bash app on HighThroughputExecutor can call {self.mpi_launcher}"
        )
        return UnsupportedFeatureError(self, reason)
