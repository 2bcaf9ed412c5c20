"""A private Grid Engine cell of several hosts on this machine."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from clusters.daemons import PATH, Daemon, eventually
from clusters.hosts import Hosts
from clusters.packages import give_up, require

PACKAGES = ("gridengine-master", "gridengine-exec", "gridengine-client", "iproute2")
COMMANDS = ("sge_qmaster", "sge_execd", "qsub", "ip", "unshare", "nsenter")
SLOTS = 4
BOOT = 60.0
BINARIES = Path("/usr/lib/gridengine")
SHARED = Path("/usr/share/gridengine")
INSTALLED = Path("/var/lib/gridengine")

BOOTSTRAP = """\
admin_user none
default_domain none
ignore_fqdn true
spooling_method classic
spooling_lib libspoolc
spooling_params {common};{spool}/qmaster
binary_path /usr/sbin
qmaster_spool_dir {spool}/qmaster
security_mode none
listener_threads 2
worker_threads 2
scheduler_threads 1
"""

SETTINGS = {
    "execd_spool_dir": "{spool}/execd",
    "mailer": "/bin/true",
    "shell_start_mode": "unix_behavior",
    "min_uid": "0",
    "min_gid": "0",
    "load_report_time": "00:00:02",
    "max_unheard": "00:00:10",
    "reporting_params": "accounting=true reporting=false flush_time=00:00:01 joblog=false sharelog=00:00:00",
}
"""Let root run jobs, and report often enough for a test to see it."""

SCHEDULER = {
    "schedule_interval": "0:0:1",
    "flush_submit_sec": "1",
    "flush_finish_sec": "1",
    "job_load_adjustments": "NONE",
    "load_adjustment_decay_time": "0:0:0",
}
"""Schedule at once, and mind the slots alone: the machine may be busy."""

EXECUTION_HOST = """\
hostname {host}
load_scaling NONE
complex_values slots={slots}
user_lists NONE
xuser_lists NONE
projects NONE
xprojects NONE
usage_scaling NONE
report_variables NONE
"""

ENVIRONMENT = """\
pe_name {name}
slots 9999
user_lists NONE
xuser_lists NONE
start_proc_args NONE
stop_proc_args NONE
allocation_rule {rule}
control_slaves TRUE
job_is_first_task FALSE
urgency_slots min
accounting_summary FALSE
qsort_args NONE
"""

QUEUE = {
    "hostlist": "@allhosts",
    "load_thresholds": "NONE",
    "pe_list": "smp mpi",
    "rerun": "TRUE",
    "slots": str(SLOTS),
    "shell_start_mode": "unix_behavior",
}


class GridEngineCell:
    """Hosts n1, n2, ... in the queues all.q and off.q (which runs nothing), and parallel environments smp and mpi.

    Grid Engine's commands reach it where `variables` are in the environment.
    """

    def __init__(self, nodes: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fcg-", dir="/tmp"))
        self.folder.chmod(0o755)
        self.root, self.spool = self.folder / "root", self.folder / "spool"
        self.common = self.root / "default" / "common"
        self.hosts: Hosts | None = None
        self.master: Daemon
        self.variables = {
            "SGE_ROOT": str(self.root),
            "SGE_CELL": "default",
            "SGE_QMASTER_PORT": str(_free_port()),
            "SGE_EXECD_PORT": str(_free_port()),
        }
        self.environment = {**os.environ, **self.variables, "SGE_ND": "1", "PATH": PATH}
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
        """Run one of Grid Engine's commands, and return what it prints."""
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
        """Return the ids of all users' jobs that wait or run."""
        jobs = ET.fromstring(self.call("qstat", "-u", "*", "-xml")).iter("job_list")
        return [job.findtext("JB_job_number", "") for job in jobs]

    def processes(self) -> list[str]:
        """Return what runs on the hosts beside Grid Engine's own daemon."""
        assert self.hosts is not None
        return [
            f"{node}: {line}"
            for node in self.nodes
            for line in self.hosts.processes(node).values()
            if not re.match(r"bash -c hostname|\S*sge_execd", line)
        ]

    def await_rest(self, seconds: float = 30) -> list[str]:
        """Wait until no job and no process is left; return what is left when the time is up."""
        try:
            eventually(lambda: not self.queue() and not self.processes(), seconds, "rest")
        except TimeoutError:
            return [*(f"job {job}" for job in self.queue()), *self.processes()]
        return []

    def clear(self) -> None:
        """End every job."""
        if jobs := self.queue():
            self.call("qdel", *jobs, check=False)

    def stop_master(self) -> None:
        self.master.stop(signal.SIGKILL)  # it takes 8 s to end when asked to, and has written down every job

    def start_master(self) -> None:
        """Start the master; it knows what it knew."""
        self.master = Daemon(
            self._at_head(str(BINARIES / "sge_qmaster")), self.folder / "qmaster.out", self.environment
        )
        self._await(lambda: self._qconf("-sconf", "global"), "the master")

    def close(self) -> None:
        """End all of it."""
        if hasattr(self, "master") and self.master.running:
            try:
                self.clear()
                eventually(lambda: not self.queue(), 10, "the end of the jobs")
            except (RuntimeError, TimeoutError, subprocess.TimeoutExpired):
                pass  # the hosts are switched off in a moment
            self.stop_master()
        if self.hosts is not None:
            self.hosts.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _boot(self, nodes: int) -> None:
        self.hosts = Hosts(nodes, self.folder)
        self._write_cell()
        self.start_master()
        self._replace("-ssconf", "-Msconf", SCHEDULER)
        for host in (_head(), *self.nodes):
            self._qconf("-as", host, check=False)
            self._qconf("-ah", host, check=False)
        for host in self.nodes:
            self._add("-Ae", EXECUTION_HOST.format(host=host, slots=SLOTS))
        self._add("-Ahgrp", f"group_name @allhosts\nhostlist {' '.join(self.nodes)}\n")
        self._add("-Ap", ENVIRONMENT.format(name="smp", rule="$pe_slots"))
        self._add("-Ap", ENVIRONMENT.format(name="mpi", rule="$round_robin"))
        self._replace("-sq", "-Aq", {"qname": "all.q", **QUEUE})
        self._replace("-sq", "-Aq", {"qname": "off.q", "initial_state": "disabled", **QUEUE})
        for name in self.nodes:
            self.hosts.start(name, [str(BINARIES / "sge_execd")], self.environment)
        self._await(self._ready, "the hosts")

    def _write_cell(self) -> None:
        for folder in (self.common, self.spool / "qmaster", self.spool / "execd"):
            folder.mkdir(parents=True)
        for name in ("bin", "lib", "util", "utilbin"):
            (self.root / name).symlink_to(INSTALLED / name)
        (self.common / "act_qmaster").write_text(f"{_head()}\n")
        # What comes over the loopback seems to come from "localhost"; it has to be the name that a caller gives itself.
        (self.common / "host_aliases").write_text(f"{_head()} localhost\n")
        (self.common / "bootstrap").write_text(BOOTSTRAP.format(common=self.common, spool=self.spool))
        configuration = self.folder / "configuration"
        settings = {name: value.format(spool=self.spool) for name, value in SETTINGS.items()}
        configuration.write_text(_changed((SHARED / "default-configuration").read_text(), settings))
        resources = SHARED / "util" / "resources"
        self.call(f"{BINARIES}/spoolinit", "classic", "libspoolc", f"{self.common};{self.spool}/qmaster", "init")
        for words in (
            ("configuration", str(configuration)),
            ("complexes", str(resources / "centry")),
            ("usersets", str(resources / "usersets")),
            ("managers", "root"),
        ):
            self.call(f"{BINARIES}/spooldefaults", *words)

    def _at_head(self, *words: str) -> list[str]:
        """Return the words of a command that knows the hosts by name."""
        bound = 'mount --bind "$0" /etc/hosts; exec "$@"'
        return ["unshare", "--mount", "bash", "-c", bound, str(self.folder / "hosts"), *words]

    def _qconf(self, *words: str, check: bool = True) -> str:
        return self.call(*self._at_head(str(BINARIES / "qconf"), *words), check=check)

    def _add(self, option: str, text: str) -> None:
        """Make an object: qconf reads it from a file."""
        (self.folder / "object").write_text(text)
        self._qconf(option, str(self.folder / "object"))

    def _replace(self, show: str, option: str, changes: dict[str, str]) -> None:
        self._add(option, _changed(self._qconf(show), changes))

    def _ready(self) -> bool:
        lines = [
            line.split() for line in self.call("qstat", "-f", "-q", "all.q").splitlines() if line.startswith("all.q@")
        ]
        return sum(len(line) == 5 and line[4].startswith("lx-") for line in lines) == len(self.nodes)

    def _await(self, true: Callable[[], object], what: str) -> None:
        def tried() -> object:
            try:
                return true()
            except RuntimeError:
                return False

        try:
            eventually(tried, BOOT, what)
        except TimeoutError as error:
            logs = [*self.folder.glob("*.out"), *self.spool.glob("**/messages")]
            raise RuntimeError(
                "\n".join([str(error), *(path.read_text(errors="replace")[-1000:] for path in logs)])
            ) from error


def boot(nodes: int) -> GridEngineCell:
    """Boot a cell; a machine on which that is impossible is a skip, or a failure where the engines are required."""
    if os.name != "posix" or os.geteuid() != 0:
        give_up("hosts of their own (network and process namespaces) need root")
    require(COMMANDS, PACKAGES)
    try:
        return GridEngineCell(nodes)
    except (RuntimeError, OSError) as error:
        give_up(f"a Grid Engine cell cannot be booted here: {error}")
        raise pytest.UsageError from error  # not reached: give_up raises


def _head() -> str:
    return socket.gethostname().partition(".")[0]


def _free_port() -> int:
    with socket.create_server(("", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def _changed(text: str, settings: dict[str, str]) -> str:
    """Give other values to the settings in lines of name and value, some of which go on in further lines."""
    text = text.replace("\\\n", " ")
    for name, value in settings.items():
        text = re.sub(rf"^{name}\s.*$", f"{name} {value}", text, flags=re.MULTILINE)
    return text
