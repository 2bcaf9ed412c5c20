"""A private Slurm cluster of several hosts on this machine."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from clusters.daemons import PATH, Daemon, eventually
from clusters.hosts import Hosts
from clusters.packages import give_up, require

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge", "iproute2")
COMMANDS = ("slurmctld", "slurmd", "sbatch", "munged", "ip", "unshare", "nsenter")
CPUS = 4
NODE_PORT = 16818
BOOT = 60.0
NODE = f"CPUs={CPUS} Boards=1 SocketsPerBoard=1 CoresPerSocket={CPUS} ThreadsPerCore=1 RealMemory=8192 Gres=gpu:2"

CONFIGURATION = """\
ClusterName=flowcore
SlurmctldHost={host}({head})
SlurmctldPort={port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
StateSaveLocation={folder}/ctld
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdSpoolDir={folder}/spool/%n
TmpFS={folder}/tmp/%n
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdLogFile={folder}/slurmd-%n.log
# No cgroups, no binding, no raising of limits: none is to be had in a container, and nodes claim more than there is.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
PropagateResourceLimits=NONE
SlurmdParameters=config_overrides
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=64
GresTypes=gpu
JobAcctGatherType=jobacct_gather/linux
# Be quick: schedule at once, end a cancelled job soon, notice a dead node.
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
KillWait=2
MinJobAge=300
SlurmdTimeout=20
MessageTimeout=5
ReturnToService=2
MailProg=/bin/true
PartitionName=compute Nodes=n[1-{nodes}] Default=YES MaxTime=INFINITE DefaultTime=10 State=UP
"""


class SlurmCluster:
    """Nodes n1, n2, ... in the partition `compute`; Slurm's commands reach it where SLURM_CONF is `conf`."""

    def __init__(self, nodes: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fcs-", dir="/tmp"))  # sockets need a short path
        self.folder.chmod(0o755)
        self.conf = self.folder / "slurm.conf"
        self.environment = {**os.environ, "SLURM_CONF": str(self.conf), "PATH": PATH}
        self.hosts: Hosts | None = None
        self._daemons: list[Daemon] = []
        self.controller: Daemon
        try:
            self._boot(nodes)
        except BaseException:
            self.close()
            raise

    @property
    def nodes(self) -> list[str]:
        assert self.hosts is not None
        return self.hosts.names

    def call(self, *words: str, check: bool = True) -> str:
        """Run one of Slurm's commands, and return what it prints."""
        done = subprocess.run(
            words,
            env=self.environment,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=30,
            check=False,
        )
        if check and done.returncode != 0:
            raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def queue(self) -> list[str]:
        """Return the ids of the jobs that wait, run or are just ending."""
        return self.call("squeue", "--noheader", "--format=%i").split()

    def processes(self) -> list[str]:
        """Return what runs on the nodes beside Slurm's own daemon."""
        assert self.hosts is not None
        return [
            f"{node}: {line}"
            for node in self.nodes
            for line in self.hosts.processes(node).values()
            if not line.startswith(("bash -c hostname", "slurmd -D"))
        ]

    def pids(self, command: str) -> list[int]:
        """Return the processes on the nodes with this very command line."""
        assert self.hosts is not None
        return [pid for node in self.nodes for pid, line in self.hosts.processes(node).items() if line == command]

    def await_rest(self, seconds: float = 20) -> list[str]:
        """Wait until no job and no process is left; return what is left when the time is up."""
        try:
            eventually(lambda: not self.queue() and not self.processes(), seconds, "rest")
        except TimeoutError:
            return [*(f"job {job}" for job in self.queue()), *self.processes()]
        return []

    def clear(self) -> None:
        """End every job."""
        if jobs := self.queue():
            self.call("scancel", *jobs)

    def purge(self) -> None:
        """End every job, and what jobs have left behind, for the sake of the next test."""
        self.clear()
        for node in self.nodes:
            self.kill_node(node)
            self.start_node(node)
        self.await_nodes()

    def kill_node(self, name: str) -> None:
        assert self.hosts is not None
        self.hosts.kill(name)

    def start_node(self, name: str) -> None:
        assert self.hosts is not None
        for kind in ("spool", "tmp"):
            (self.folder / kind / name).mkdir(parents=True, exist_ok=True)
        self.hosts.start(name, ["slurmd", "-D", "-N", name, "-f", str(self.conf)], self.environment)

    def stop_controller(self) -> None:
        self.controller.stop()

    def forget_jobs(self) -> None:
        """Wait for all jobs to end, and start slurmctld anew, without any memory."""
        eventually(lambda: not self.queue(), 30, "an empty queue")
        self.controller.stop(signal.SIGKILL)
        self.start_controller("-c")
        self.await_nodes()

    def start_controller(self, *options: str) -> None:
        words = ["slurmctld", "-D", "-f", str(self.conf), *options]
        self.controller = Daemon(words, self.folder / "slurmctld.out", self.environment)

    def await_controller(self) -> None:
        """Wait until slurmctld answers."""
        self._await(lambda: self.call("squeue"), "slurmctld")

    def await_nodes(self, *, beside_jobs: bool = False) -> None:
        """Wait until every node is idle, or at work where jobs are allowed."""
        states = "idle,alloc,mix" if beside_jobs else "idle"
        self._await(lambda: self._up(states), "nodes")

    def close(self) -> None:
        """End all of it."""
        if hasattr(self, "controller") and self.controller.running:
            try:
                self.clear()
                eventually(lambda: not self.queue(), 10, "the end of the jobs")
            except (RuntimeError, TimeoutError, subprocess.TimeoutExpired):
                pass  # the hosts are switched off in a moment
            self.controller.stop(signal.SIGKILL)
        if self.hosts is not None:
            self.hosts.close()
        for daemon in reversed(self._daemons):
            daemon.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _boot(self, nodes: int) -> None:
        for name in ("munge", "ctld"):
            (self.folder / name).mkdir(mode=0o711)
        self.hosts = Hosts(nodes, self.folder)
        self._write(nodes)
        self._start_munge()
        self.start_controller()
        for name in self.nodes:
            self.start_node(name)
        self.await_nodes()

    def _write(self, nodes: int) -> None:
        assert self.hosts is not None
        with socket.create_server(("", 0)) as probe:
            port = probe.getsockname()[1]
        host = socket.gethostname().partition(".")[0]
        head = {"host": host, "head": self.hosts.head, "port": port, "node_port": NODE_PORT, "nodes": nodes}
        lines = [
            f"NodeName={name} NodeHostName={name} NodeAddr={self.hosts.address(name)} Features=rack{name[1:]} {NODE}\n"
            for name in self.nodes
        ]
        nodes_first, partition = CONFIGURATION.format(folder=self.folder, **head).split("PartitionName")
        self.conf.write_text(f"{nodes_first}{''.join(lines)}PartitionName{partition}")
        # slurmd loads a plugin for cgroups even where nothing uses it; this one starts anywhere.
        (self.folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        # Any device will do for a GPU that nobody opens.
        (self.folder / "gres.conf").write_text(f"NodeName=n[1-{nodes}] Name=gpu File=/dev/tty[1-2]\n")

    def _start_munge(self) -> None:
        munge = self.folder / "munge"
        (munge / "key").touch(mode=0o600)
        (munge / "key").write_bytes(secrets.token_bytes(128))
        files = [f"--{option}={munge / name}" for option, name in _MUNGE_FILES.items()]
        words = ["munged", "--foreground", "--force", "--num-threads=2", *files]
        self._daemons.append(Daemon(words, self.folder / "munged.out"))
        self._await(lambda: self.call("munge", f"--socket={munge / 'socket'}", "--no-input"), "munged")

    def _await(self, true: Callable[[], object], what: str) -> None:
        def tried() -> object:
            try:
                return true()
            except RuntimeError:
                return False

        try:
            eventually(tried, BOOT, what)
        except TimeoutError as error:
            logs = [path.read_text(errors="replace")[-1000:] for path in sorted(self.folder.glob("*.[lo][ou][gt]"))]
            raise RuntimeError("\n".join([str(error), *logs])) from error

    def _up(self, states: str) -> bool:
        lines = self.call("sinfo", "--noheader", "-N", f"--states={states}", "--responding", "--format=%N").split()
        return len(lines) == len(self.nodes)


_MUNGE_FILES = {"key-file": "key", "socket": "socket", "pid-file": "pid", "seed-file": "seed", "log-file": "munged.log"}


def boot(nodes: int) -> SlurmCluster:
    """Boot a cluster; a machine on which that is impossible is a skip, or a failure where the engines are required."""
    if os.name != "posix" or os.geteuid() != 0:
        give_up("hosts of their own (network and process namespaces) need root")
    require(COMMANDS, PACKAGES)
    try:
        return SlurmCluster(nodes)
    except (RuntimeError, OSError) as error:
        give_up(f"a Slurm cluster cannot be booted here: {error}")
        raise pytest.UsageError from error  # not reached: give_up raises
