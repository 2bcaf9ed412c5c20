"""A private Grid Engine cell of several hosts on this machine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar
from xml.etree import ElementTree as ET

from clusters.cluster import Cluster, free_port, head
from clusters.daemons import Daemon

SLOTS = 4
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


class GridEngineCell(Cluster):
    """Hosts n1, n2, ... in the queues all.q and off.q (which runs nothing), and parallel environments smp and mpi."""

    title: ClassVar[str] = "a Grid Engine cell"
    packages: ClassVar[tuple[str, ...]] = ("gridengine-master", "gridengine-exec", "gridengine-client")
    commands: ClassVar[tuple[str, ...]] = ("sge_qmaster", "sge_execd", "qsub")
    service: ClassVar[str] = r"\S*sge_execd"
    cancel: ClassVar[str] = "qdel"

    def queue(self) -> list[str]:
        jobs = ET.fromstring(self.call("qstat", "-u", "*", "-xml")).iter("job_list")
        return [job.findtext("JB_job_number", "") for job in jobs]

    def start_node(self, name: str) -> None:
        self.hosts.start(name, [str(BINARIES / "sge_execd")], self.environment)

    def await_nodes(self, *, beside_jobs: bool = False) -> None:
        self._await(lambda: self._ready() and (beside_jobs or not self.queue()), "the hosts")

    def start_master(self) -> None:
        words = self._at_head(str(BINARIES / "sge_qmaster"))
        self.master = Daemon(words, self.folder / "qmaster.out", self.environment)

    def _variables(self) -> dict[str, str]:
        self._root, self._spool = self.folder / "root", self.folder / "spool"
        self._common = self._root / "default" / "common"
        return {
            "SGE_ROOT": str(self._root),
            "SGE_CELL": "default",
            "SGE_QMASTER_PORT": str(free_port()),
            "SGE_EXECD_PORT": str(free_port()),
        }

    def _boot(self) -> None:
        self.environment["SGE_ND"] = "1"  # daemons stay in the foreground
        self._write_cell()
        self.start_master()
        self._await(lambda: self._qconf("-sconf", "global"), "the master")
        self._replace("-ssconf", "-Msconf", SCHEDULER)
        for host in (head(), *self.nodes):
            self._qconf("-as", host, check=False)
            self._qconf("-ah", host, check=False)
        for host in self.nodes:
            self._add("-Ae", EXECUTION_HOST.format(host=host, slots=SLOTS))
        self._add("-Ahgrp", f"group_name @allhosts\nhostlist {' '.join(self.nodes)}\n")
        self._add("-Ap", ENVIRONMENT.format(name="smp", rule="$pe_slots"))
        self._add("-Ap", ENVIRONMENT.format(name="mpi", rule="$round_robin"))
        queue = {**QUEUE, "tmpdir": self._temporary()}
        self._replace("-sq", "-Aq", {"qname": "all.q", **queue})
        self._replace("-sq", "-Aq", {"qname": "off.q", "initial_state": "disabled", **queue})
        for name in self.nodes:
            self.start_node(name)
        self.await_nodes()

    def _write_cell(self) -> None:
        for folder in (self._common, self._spool / "qmaster", self._spool / "execd"):
            folder.mkdir(parents=True)
        for name in ("bin", "lib", "util", "utilbin"):
            (self._root / name).symlink_to(INSTALLED / name)
        (self._common / "act_qmaster").write_text(f"{head()}\n")
        # What comes over the loopback seems to come from "localhost"; it has to be the name that a caller gives itself.
        (self._common / "host_aliases").write_text(f"{head()} localhost\n")
        (self._common / "bootstrap").write_text(BOOTSTRAP.format(common=self._common, spool=self._spool))
        configuration = self.folder / "configuration"
        settings = {name: value.format(spool=self._spool) for name, value in SETTINGS.items()}
        configuration.write_text(_changed((SHARED / "default-configuration").read_text(), settings))
        resources = SHARED / "util" / "resources"
        self.call(f"{BINARIES}/spoolinit", "classic", "libspoolc", f"{self._common};{self._spool}/qmaster", "init")
        for words in (
            ("configuration", str(configuration)),
            ("complexes", str(resources / "centry")),
            ("usersets", str(resources / "usersets")),
            ("managers", "root"),
        ):
            self.call(f"{BINARIES}/spooldefaults", *words)

    def _temporary(self) -> str:
        """Return where jobs have their temporary folders, which are named for their numbers, and go with them.

        So each host has a place of its own: the files of this machine are shared, with other cells too.
        """
        places = {name: self.folder / "tmp" / name for name in self.nodes}
        for place in places.values():
            place.mkdir(parents=True)
        return ",".join(["/tmp", *(f"[{name}={place}]" for name, place in places.items())])

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


def _changed(text: str, settings: dict[str, str]) -> str:
    """Give other values to the settings in lines of name and value, some of which go on in further lines."""
    text = text.replace("\\\n", " ")
    for name, value in settings.items():
        text = re.sub(rf"^{name}\s.*$", f"{name} {value}", text, flags=re.MULTILINE)
    return text
