"""The executor as users see it: `HighThroughputExecutor`."""

from __future__ import annotations

import inspect
import json
import logging
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, ClassVar, Final

from flowcore.errors import ConfigurationError, InvalidResourceSpecification
from flowcore.executors.base import RunContext
from flowcore.executors.block import BlockErrorHandler, BlockExecutor
from flowcore.executors.errors import ExecutorError
from flowcore.providers.base import Provider
from flowcore_htex import launch
from flowcore_htex.broker import Broker, InterchangeFailed
from flowcore_htex.client import Client
from flowcore_htex.curve import prepare_folder, write_keys
from flowcore_htex.demand import BLOCKS_ENOUGH, BlockTimes, Demand
from flowcore_htex.errors import (
    InterchangeLost,
    ManagerLost,
    MemoryExceeded,
    TaskWalltimeExceeded,
    VersionMismatch,
    WorkerLost,
)
from flowcore_htex.known_nodes import KnownNodes
from flowcore_htex.launch import SETTINGS
from flowcore_htex.matching import ManagerSelector
from flowcore_htex.mending import Mender
from flowcore_htex.options import Options
from flowcore_htex.outbox import HtexFuture
from flowcore_htex.search import BARE
from flowcore_htex.settings import interchange_settings, manager_settings
from flowcore_htex.walltime import BLOCK_END, TIME_KEYS

__all__ = [
    "SETTINGS",
    "HighThroughputExecutor",
    "InterchangeLost",
    "ManagerLost",
    "MemoryExceeded",
    "TaskWalltimeExceeded",
    "VersionMismatch",
    "WorkerLost",
]

logger = logging.getLogger(__name__)

_GREETING: Final = 30.0
_LOOPBACK: Final = "127.0.0.1"
_CLIENT_PORTS: Final = (55000, 56000)
_ANY_NODE: Final = frozenset({"priority", *TIME_KEYS})
"""What any node can give to a task."""

_COME_BACK: Final = 10.0
"""Seconds that silent managers get at least to come back, before their block is cancelled."""


class HighThroughputExecutor(BlockExecutor):
    """Runs tasks in worker processes: an interchange process here, a manager and its workers on each node.

    Managers know when the walltime of their block is over, from FLOWCORE_BLOCK_END in the job's environment. A task
    that asks for `walltime` (after which it is killed) or `running_time_min` (which only helps to place it) goes where
    there is as much time left; one that asks for more than a block has is refused. All other tasks are taken until 1 %
    of the walltime is left, 5 seconds at least and 60 at most. Then the manager drains: it finishes what it runs, hands
    back what it has not begun, and ends, and the job with it. What still runs when the walltime is over is lost.

    Args:
        label: names the executor within a run.
        provider: obtains the blocks; None for this machine.
        launch_cmd: how a manager is started, a format template; None for `flowcore_htex.launch.MANAGER`. Keys: python,
            bare (code for `python -c`), config (the settings file), block_id, label, logdir, debug (`--debug` or
            nothing), nodes_per_block, and each of `flowcore_htex.launch.SETTINGS`. A setting is overridden with
            `--NAME VALUE`, the value in json where it is no text; its key gives it so.
        address: where managers reach the interchange, an address or a host name; None offers all of this host's.
        worker_ports: a pair of ports for managers; both are listened on.
        worker_port_range: where a port for managers is looked for: the first, and one past the last.
        interchange_port_range: the same for the connection between this process and the interchange. Giving another
            range than the default makes that connection a TCP one; normally it is a Unix socket.
        storage_access: staging methods for this executor's files.
        working_dir: folder into which files are staged, as the workers see it.
        worker_debug: log each task and message.
        cores_per_worker: cores of a node for each worker; less than 1 to oversubscribe.
        mem_per_worker: memory of a node for each worker, in MB or with a unit.
        max_workers: workers per node at most.
        prefetch_capacity: tasks per worker that a manager holds in advance.
        heartbeat_threshold: seconds of silence after which a peer is taken for lost.
        heartbeat_period: seconds after which a silent peer says that it is there.
        poll_period: milliseconds that a manager may hold outcomes back to send several at once, while all its workers
            have work.
        address_probe_timeout: seconds that a manager tries to reach the interchange; None for 30.
        worker_logdir_root: folder for the workers' logs; None puts them beside the manager's.
        container_image: image in which manager and workers run; `RUNTIME://IMAGE` names the container runtime too.
        encrypted: encrypt and authenticate connections over TCP; None means True.
        cert_dir: folder, mode 0700, in which each run has one for its keys; None makes that in the run's folder.
        interchange_launch_cmd: how the interchange is started; None for `flowcore_htex.launch.INTERCHANGE`.
        loopback_address: address for the connection between this process and the interchange.
        worker_port: the one port for managers.
        cpu_affinity: 'none', 'block', 'block-reverse', 'alternating', or 'list:' and the cores of each worker.
        available_accelerators: how many, or their names; each worker has one to itself.
        drain_period: seconds after which a manager takes no more tasks, finishes those it has, and ends.
        manager_selector: decides which managers get tasks first; see `flowcore_htex.matching`.
        block_error_handler: see `BlockExecutor`.
        max_workers_per_node: the same as `max_workers`.
        remote_monitoring_radio: only None: monitoring observes the kernel and needs no radio.
    """

    resource_keys: ClassVar[frozenset[str]] = frozenset(
        {"cores", "memory", "gpus", "disk", "walltime", "running_time_min", "priority"}
    )
    cancels_running: ClassVar[bool] = True

    def __init__(
        self,
        label: str = "HighThroughputExecutor",
        provider: Provider | None = None,
        launch_cmd: str | None = None,
        address: str | None = None,
        worker_ports: tuple[int, int] | None = None,
        worker_port_range: tuple[int, int] = (54000, 55000),
        interchange_port_range: tuple[int, int] = _CLIENT_PORTS,
        storage_access: Sequence[Any] | None = None,
        working_dir: str | None = None,
        worker_debug: bool = False,
        cores_per_worker: float = 1,
        mem_per_worker: float | str | None = None,
        max_workers: float = float("inf"),
        prefetch_capacity: int = 0,
        heartbeat_threshold: float = 120,
        heartbeat_period: float = 30,
        poll_period: float = 10,
        address_probe_timeout: float | None = 30,
        worker_logdir_root: str | None = None,
        container_image: str | None = None,
        encrypted: bool | None = None,
        cert_dir: str | os.PathLike[str] | None = None,
        *,
        interchange_launch_cmd: str | Sequence[str] | None = None,
        loopback_address: str = _LOOPBACK,
        worker_port: int | None = None,
        cpu_affinity: str = "none",
        available_accelerators: int | Sequence[str] = (),
        drain_period: float | None = None,
        manager_selector: ManagerSelector | None = None,
        block_error_handler: bool | BlockErrorHandler = True,
        max_workers_per_node: float | None = None,
        remote_monitoring_radio: None = None,
    ) -> None:
        if remote_monitoring_radio is not None:
            raise ConfigurationError(
                "remote_monitoring_radio: monitoring observes the kernel and needs no radio; leave it None"
            )
        values: dict[str, Any] = {
            "label": label,
            "address": address,
            "worker_port": worker_port,
            "worker_ports": worker_ports,
            "worker_port_range": worker_port_range,
            "interchange_port_range": interchange_port_range,
            "loopback_address": loopback_address,
            "cores_per_worker": cores_per_worker,
            "mem_per_worker": mem_per_worker,
            "max_workers": max_workers,
            "max_workers_per_node": max_workers_per_node,
            "prefetch_capacity": prefetch_capacity,
            "heartbeat_threshold": heartbeat_threshold,
            "heartbeat_period": heartbeat_period,
            "poll_period": poll_period,
            "address_probe_timeout": address_probe_timeout,
            "drain_period": drain_period,
            "worker_logdir_root": worker_logdir_root,
            "container_image": container_image,
            "cpu_affinity": cpu_affinity,
            "available_accelerators": available_accelerators,
            "manager_selector": manager_selector,
            "working_dir": working_dir,
            "worker_debug": worker_debug,
            "launch_cmd": launch_cmd,
            "interchange_launch_cmd": interchange_launch_cmd,
            "encrypted": encrypted,
            "cert_dir": cert_dir,
        }
        self.options = Options(**values)
        self._given = {
            **values,
            "provider": provider,
            "storage_access": storage_access,
            "block_error_handler": block_error_handler,
        }
        if not all(hasattr(method, "can_stage_in") for method in _listed(storage_access)):
            raise ConfigurationError(f"storage_access={storage_access!r}: give a list of staging methods")
        self.launch_cmd = self.options.launch_cmd
        super().__init__(
            label=label,
            provider=provider if provider is not None else _this_machine(),
            block_error_handler=block_error_handler,
            working_dir=self.options.working_dir,
            storage_access=storage_access,
        )
        self._client: Client | None = None
        self._run: RunContext | None = None
        self._settings: dict[str, Any] = {}
        self._owner = 0
        self._key_folder: Path | None = None
        self._connected_blocks: set[str] = set()
        self._proven_blocks: set[str] = set()
        self._refused_blocks: set[str] = set()
        self._nodes = KnownNodes(self.provider, self.options)
        self._demand = Demand(label, self.options, self._nodes.sizes)
        self._times = BlockTimes(label, None)
        self._mender = Mender(self)

    def __repr__(self) -> str:
        defaults = inspect.signature(HighThroughputExecutor).parameters
        given = [f"{k}={v!r}" for k, v in self._given.items() if k == "label" or repr(v) != repr(defaults[k].default)]
        return f"{type(self).__name__}({', '.join(given)})"

    # -- life

    def start(self, run: RunContext) -> None:
        """Start the interchange and the first blocks; see `Executor`."""
        if self._run is not None:
            raise ExecutorError(self.label, "it has been started before; make a new one for a new run")
        self._run = run
        self._nodes.folder = self.logdir
        self._times = BlockTimes(self.label, self.provider.block_walltime)
        self._owner = os.getpid()
        try:
            self._start(run)
        except BaseException:
            self.shutdown()
            raise

    def _start(self, run: RunContext) -> None:
        try:
            Path(self.logdir).mkdir(parents=True, exist_ok=True)
            cert_dir = self._make_keys() if self.options.encrypted else None
            broker = self._make_broker(run, cert_dir)
            self._client = Client(
                self.label,
                broker,
                self.options.heartbeat_threshold,
                self._manager_changed,
                self.set_bad_state_and_fail_all,
                self.notify_demand,
            )
            broker.listen()
            self._client.start()
            self._settings = {
                **manager_settings(self.options, self.logdir, self.worker_logdir, self._log_level, cert_dir),
                "run_id": run.run_id,
                "socket": broker.socket_path,
                "socket_outlives_interchange": broker.inherited,
                "ports": broker.ports,
            }
            self._config_path.write_text(json.dumps(self._settings, indent=1), encoding="utf-8")
        except (OSError, InterchangeFailed) as error:
            raise ExecutorError(self.label, f"the interchange cannot be started: {error}") from error
        self.attach(self._mender.demand, self._mender.wake)
        self.start_blocks(run)
        import cloudpickle  # noqa: F401 - loaded here, while the other processes start

        if not self._client.wait_until_greeted(_GREETING):
            why = self._client.failure or f"the interchange does not answer; see {self.logdir}"
            raise ExecutorError(self.label, str(why)) from self._client.failure

    def shutdown(self) -> None:
        """Stop everything; see `Executor`. Does nothing in a forked child of the process that started it."""
        if self._owner != os.getpid():
            return
        self._mender.close()
        try:
            if self._client is not None:
                self._client.shutdown()
        finally:
            if self._run is not None:
                self.end_blocks()
            if self._key_folder is not None:
                shutil.rmtree(self._key_folder, ignore_errors=True)

    def reset(self) -> None:
        """Put the executor in order again, with a new interchange if it has none; see `BlockExecutor`."""
        if self._client is not None and self._client.failure is not None:
            try:
                self._client.start()
            except (OSError, InterchangeFailed) as error:
                raise ExecutorError(self.label, f"the interchange cannot be started: {error}") from error
        super().reset()

    def served_blocks(self) -> set[str]:
        """Return the ids of the blocks that have a manager now."""
        return self._client.blocks() if self._client is not None else set()

    @property
    def alone(self) -> bool:
        """Whether no poller looks after the blocks."""
        return self._on_jobs_changed == self._mender.wake

    def look_at_blocks(self) -> None:
        """Have the provider asked about the blocks, soon."""
        self._jobs_changed()

    # -- tasks

    def submit(
        self, func: Callable[..., Any], resource_specification: Mapping[str, Any], /, *args: Any, **kwargs: Any
    ) -> Future[Any]:
        """Run a task in some worker; see `Executor`."""
        client = self._client
        if client is None:
            raise ExecutorError(self.label, "it has not been started")
        self.raise_if_bad()
        if not resource_specification:
            future = client.submit(func, b"", args, kwargs)
        else:
            future = self._submit_demanding(client, func, resource_specification, args, kwargs)
        self.notify_demand()
        return future

    def _submit_demanding(
        self,
        client: Client,
        func: Callable[..., Any],
        specification: Mapping[str, Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> HtexFuture:
        need = self.check_resources(specification)
        judged = self._demand.judged
        if fault := self._fault(need):
            raise fault
        future = client.submit(func, json.dumps(need).encode(), args, kwargs)
        self._demand.add(future, need)
        fault = self._times.fault(need) if judged is self._demand.judged else self._fault(need)
        if fault is not None:  # it became known meanwhile
            client.fail(future, fault)
        return future

    def _fault(self, need: Mapping[str, Any]) -> InvalidResourceSpecification | None:
        """Return the error for a request that no node or block can ever meet, None where one can, or may."""
        fault = self._times.fault(need)
        return fault or (None if need.keys() <= _ANY_NODE else self._demand.fault(need, self._final_nodes()))

    def _final_nodes(self) -> Sequence[Mapping[str, Any]]:
        """Return the sizes of nodes, once it is known that there are no others."""
        live = [block for block, status in self.status().items() if not status.terminal]
        may_grow = len(live) < self.provider.max_blocks or not self._connected_blocks.issuperset(live)
        unknown = may_grow and self._nodes.local is None and len(self._connected_blocks) < BLOCKS_ENOUGH
        return () if unknown else self._nodes.sizes()

    def outstanding(self) -> int:
        """Count the tasks whose futures are not done."""
        return self._client.outstanding() if self._client is not None else 0

    def slots_wanted(self) -> float:
        """See `Executor`; a task counts for what it takes of a node, be that cores, memory, disk or accelerators."""
        return self.outstanding() + self._demand.surplus

    def stuck_tasks(self) -> int:
        """See `BlockExecutor`."""
        return self._client.stuck() if self._client is not None else 0

    def fail_outstanding(self, error: Exception) -> None:
        """Fail every future that is not done."""
        if self._client is not None:
            self._client.fail_all(error)

    # -- managers and blocks

    def connected_managers(self) -> list[dict[str, Any]]:
        """Return what is known of each manager: manager, block_id, worker_count, tasks, idle_duration, active, ...

        An interchange that does not answer within a few seconds is not waited for: then it is what was last heard.
        """
        if self._client is None:
            return []
        answer = self._client.ask("managers")
        return list(self._client.managers.values()) if answer is None else answer

    def connected_blocks(self) -> Collection[str]:
        """Return the ids of the blocks from which a manager has ever connected."""
        return list(self._connected_blocks)

    def hear_workers(self) -> None:
        """See `BlockExecutor`."""
        if self._client is not None:
            self._client.ask("managers")  # the answer comes behind the news of managers that came, or were refused

    def proven_blocks(self) -> Collection[str]:
        """See `BlockExecutor`."""
        return list(self._proven_blocks)

    def idle_blocks(self) -> Mapping[str, float]:
        """See `BlockExecutor`."""
        idle: dict[str, float] = {}
        busy = set()
        managers = self._client.ask("managers") if self._client is not None else None
        for manager in managers or ():
            block = manager["block_id"]
            if manager["tasks"]:
                busy.add(block)
            idle[block] = min(idle.get(block, float("inf")), manager["idle_duration"])
        return {block: seconds for block, seconds in idle.items() if block not in busy}

    def hold_blocks(self, block_ids: Collection[str]) -> Collection[str]:
        """See `BlockExecutor`."""
        if self._client is None:
            return []
        managers = self._client.ask("hold", sorted(block_ids))
        if managers is None:
            return []  # they may be busy
        busy = {manager["block_id"] for manager in managers if manager["tasks"]}
        busy |= self._client.blocks() - {
            manager["block_id"] for manager in managers
        }  # not back at a new interchange yet
        return [block for block in block_ids if block in self._connected_blocks and block not in busy]

    def block_command(self, block_id: str) -> str:
        """See `BlockExecutor`."""
        assert self._run is not None
        python = "python3" if self.options.container_image else sys.executable
        values = {
            **self._settings,
            "python": python,
            "bare": BARE,
            "config": self._config_path,
            "debug": "--debug" if self.options.worker_debug else "",
            "nodes_per_block": self.provider.nodes_per_block,
        }
        command = launch.manager_command(self.launch_cmd, values, block_id)
        variables = {"FLOWCORE_RUN_ID": self._run.run_id, "FLOWCORE_BLOCK_ID": block_id}
        if self.options.container_image:
            folders = {self.logdir, str(Path(self._settings["socket"]).parent), self._settings["cert_dir"]}
            folders |= {self.worker_logdir} if self.options.worker_logdir_root else set()
            binds = sorted(folder for folder in folders if folder)
            passed = [*variables, "FLOWCORE_CORES", "FLOWCORE_MEMORY_GB", BLOCK_END]
            command = launch.containerized(self.options.container_image, command, binds, passed)
        exports = " ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items())
        return f"export {exports}\n{command}"

    @property
    def workers_per_node(self) -> float:
        """Workers on one node: counted where one has connected, estimated before."""
        return self._nodes.workers(list(self._client.managers.values()) if self._client is not None else [])

    @property
    def logdir(self) -> str:
        """Folder of this executor's files; it is known once the executor has been started."""
        if self._run is None:
            raise ExecutorError(self.label, "it has not been started, and has no folder yet")
        return str(self._run.run_dir / self.label)

    @property
    def worker_logdir(self) -> str:
        """Folder of the workers' logs."""
        root = self.options.worker_logdir_root
        return str(Path(root) / self.label) if root else self.logdir

    # -- how it is done

    @property
    def _config_path(self) -> Path:
        return Path(self.logdir) / "manager.json"

    def _make_keys(self) -> str:
        if self.options.cert_dir is None:
            folder = prepare_folder(Path(self.logdir) / "certificates")
        else:  # others may use it at the same time; managers read the keys whenever they come
            folder = Path(tempfile.mkdtemp(prefix=f"{self.label}-", dir=prepare_folder(self.options.cert_dir)))
            self._key_folder = folder
        write_keys(folder)
        return str(folder.resolve())

    @property
    def _log_level(self) -> int | None:
        assert self._run is not None
        return logging.DEBUG if self.options.worker_debug else self._run.log_level

    def _make_broker(self, run: RunContext, cert_dir: str | None) -> Broker:
        options = self.options
        own = (
            options.interchange_launch_cmd is not None
            or options.loopback_address != _LOOPBACK
            or options.interchange_port_range != _CLIENT_PORTS
        )
        return Broker(
            options.interchange_launch_cmd or launch.interchange_command(None),
            interchange_settings(options, self.logdir, self._log_level, cert_dir),
            own=own,
            output=Path(self.logdir) / "interchange.stderr",
            environment={**os.environ, "FLOWCORE_RUN_ID": run.run_id},
        )

    def _manager_changed(self, record: dict[str, Any]) -> None:
        """Take note of a manager that came, went or was refused; in the client's thread."""
        client, event, manager = self._client, record["event"], record["manager"]
        if client is None:
            return
        block = manager.get("block_id", "")
        if event == "registered":
            self._connected_blocks.add(block)
            self._times.saw(block, manager["seconds_left"])
            if self._nodes.saw(manager):
                self._demand.nodes_changed()
        elif event == "proven":
            self._proven_blocks.add(block)
        elif event == "refused":
            self._refused_blocks.add(block)
            if not client.managers and self._all_refused(block):
                self.set_bad_state_and_fail_all(VersionMismatch(self.label, record["reason"]))
        elif event == "lost" and block not in client.blocks():
            if record.get("silent"):
                self._mender.expect_back(block, max(self.options.heartbeat_threshold, _COME_BACK))
            else:
                self._mender.expect_end(block)
        if manager.get("draining") and event != "lost":
            self._drains(client, block, manager.get("drain_reason") or "its managers drain")
        self._demand.recheck(client, self._final_nodes(), self._times)

    def _all_refused(self, block: str) -> bool:
        """Whether the block is one of this executor's, and it and all that have not ended had a manager refused."""
        statuses = self.status()
        expected = {one for one, status in statuses.items() if not status.terminal or one == block}
        return block in statuses and expected <= self._refused_blocks

    def _drains(self, client: Client, block: str, reason: str) -> None:
        """Let others take the place of a block once all of its managers drain."""
        if all(one["draining"] for one in list(client.managers.values()) if one["block_id"] == block):
            self.expect_end([block], reason)


def _listed(methods: Any) -> Sequence[Any]:
    """Return the staging methods; what is no list of them counts as one that is none."""
    if methods is None:
        return ()
    return [None] if isinstance(methods, str) or not isinstance(methods, Sequence) else methods


def _this_machine() -> Provider:
    from flowcore.providers import LocalProvider

    return LocalProvider()
