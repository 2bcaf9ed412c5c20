"""A private Slurm cluster of several hosts on this machine."""

from __future__ import annotations

import contextlib
import secrets
import signal
from typing import ClassVar

from clusters.cluster import Cluster, free_port, head
from clusters.daemons import Daemon
from waiting import eventually

CPUS = 4
NODE_PORT = 16818
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
SlurmdTimeout=120
MessageTimeout=5
ReturnToService=2
MailProg=/bin/true
PartitionName=compute Nodes=n[1-{nodes}] Default=YES MaxTime=INFINITE DefaultTime=10 State=UP
"""


class SlurmCluster(Cluster):
    """Nodes n1, n2, ... in the partition `compute`."""

    title: ClassVar[str] = "a Slurm cluster"
    packages: ClassVar[tuple[str, ...]] = ("slurmctld", "slurmd", "slurm-client", "munge")
    commands: ClassVar[tuple[str, ...]] = ("slurmctld", "slurmd", "sbatch", "munged")
    service: ClassVar[str] = "slurmd -D"
    cancel: ClassVar[str] = "scancel"

    def queue(self) -> list[str]:
        return self.call("squeue", "--noheader", "--format=%i").split()

    def clear(self) -> None:
        """End every job; one that is just being launched begins first, as Slurm may lose what would end it then."""
        with contextlib.suppress(TimeoutError):
            eventually(lambda: not self._being_launched(), 30, "the begin of jobs")
        super().clear()

    def _being_launched(self) -> list[str]:
        running = self.call("squeue", "--noheader", "--states=running", "--format=%i").split()
        lines = "\n".join(self.processes())
        return [job for job in running if f"job{int(job):05}/slurm_script" not in lines]

    def start_node(self, name: str) -> None:
        for kind in ("spool", "tmp"):
            (self.folder / kind / name).mkdir(parents=True, exist_ok=True)
        self.hosts.start(name, ["slurmd", "-D", "-N", name, "-f", str(self._conf)], self.environment)

    def await_nodes(self, *, beside_jobs: bool = False) -> None:
        states = "idle,alloc,mix" if beside_jobs else "idle"
        self._await(lambda: self._up(states), "nodes")

    def stop_master(self) -> None:
        """End slurmctld as an administrator does; it writes down what it knows."""
        self.master.stop()

    def start_master(self, *options: str) -> None:
        words = ["slurmctld", "-D", "-f", str(self._conf), *options]
        self.master = Daemon(words, self.folder / "slurmctld.out", self.environment)

    def forget_jobs(self) -> None:
        """Wait for all jobs to end, and start slurmctld anew, without any memory."""
        eventually(lambda: not self.queue(), 90, "an empty queue")
        self.master.stop(signal.SIGKILL)
        self.start_master("-c")
        self.await_nodes()

    def _variables(self) -> dict[str, str]:
        self._conf = self.folder / "slurm.conf"
        return {"SLURM_CONF": str(self._conf)}

    def _boot(self) -> None:
        for name in ("munge", "ctld"):
            (self.folder / name).mkdir(mode=0o711)
        self._write()
        self._start_munge()
        self.start_master()
        for name in self.nodes:
            self.start_node(name)
        self.await_nodes()

    def _write(self) -> None:
        own = {"host": head(), "head": self.hosts.head, "port": free_port(), "node_port": NODE_PORT}
        lines = [
            f"NodeName={name} NodeHostName={name} NodeAddr={self.hosts.address(name)} Features=rack{name[1:]} {NODE}\n"
            for name in self.nodes
        ]
        text = CONFIGURATION.format(folder=self.folder, nodes=len(self.nodes), **own)
        nodes_first, partition = text.split("PartitionName")
        self._conf.write_text(f"{nodes_first}{''.join(lines)}PartitionName{partition}")
        # slurmd loads a plugin for cgroups even where nothing uses it; this one starts anywhere.
        (self.folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        # Any device will do for a GPU that nobody opens.
        (self.folder / "gres.conf").write_text(f"NodeName=n[1-{len(self.nodes)}] Name=gpu File=/dev/tty[1-2]\n")

    def _start_munge(self) -> None:
        munge = self.folder / "munge"
        (munge / "key").touch(mode=0o600)
        (munge / "key").write_bytes(secrets.token_bytes(128))
        files = [f"--{option}={munge / name}" for option, name in _MUNGE_FILES.items()]
        words = ["munged", "--foreground", "--force", "--num-threads=2", *files]
        self._daemons.append(Daemon(words, self.folder / "munged.out"))
        self._await(lambda: self.call("munge", f"--socket={munge / 'socket'}", "--no-input"), "munged")

    def _up(self, states: str) -> bool:
        lines = self.call("sinfo", "--noheader", "-N", f"--states={states}", "--responding", "--format=%N").split()
        return len(lines) == len(self.nodes)


_MUNGE_FILES = {"key-file": "key", "socket": "socket", "pid-file": "pid", "seed-file": "seed", "log-file": "munged.log"}
