"""Blocks that are jobs of Grid Engine (Sun, Oracle, Univa, Altair, Son of Grid Engine)."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Final
from xml.etree import ElementTree as ET

import attrs

from flowcore.errors import ConfigurationError
from flowcore.jobs.states import JobState, JobStatus
from flowcore.launchers.base import Launcher
from flowcore.launchers.mpiexec import MpiExecLauncher
from flowcore.launchers.single_node import SingleNodeLauncher
from flowcore.parameters import positive
from flowcore.providers.batch import BatchProvider, ended
from flowcore.providers.checks import one_line
from flowcore.providers.processes import describe_exit
from flowcore.providers.scripts import JobScript, Verbatim

ACCOUNTING_DELAY: Final = 20.0
"""Seconds after which a job that has left the queue is in the accounts; Grid Engine writes them every 15 seconds."""

UNHEARD: Final = 120.0
"""Seconds for which the master has to say that it has not heard of a job's host until the job is given up.

It says so `max_unheard` after the host's last word, and of all hosts for half a minute after its own restart.
"""

_LIMIT: Final = "37"
"""What `failed` is for a job that the master ended at its time limit."""

_NOT_YET: Final = re.compile(r"job id \S+ not found|no jobs running since startup", re.IGNORECASE)
"""What `qacct` says of a job that is not in the accounts, or where there are none since they were moved away."""


def _default_launcher(provider: GridEngineProvider) -> Launcher:
    return MpiExecLauncher() if provider.nodes_per_block > 1 else SingleNodeLauncher()


@attrs.define(eq=False)
class GridEngineProvider(BatchProvider):
    """Submits each block with `qsub`, asks `qstat` about it, and ends it with `qdel`.

    A job that `qstat` no longer lists has ended; the exit code that its script has left, or else `qacct`, tells how.
    A job in an error state is deleted, and its reason kept; so is one whose host is not heard of for long. A block of
    several nodes has `MpiExecLauncher` unless another is given.

    Attributes:
        queue: the queue, or several separated by commas; None for whichever there is.
        parallel_environment: what gives a job more than one slot: `nodes_per_block * cores_per_node` are asked for.
            Its allocation rule decides how they are spread over nodes.
        mem_per_node: memory that the node must have free, in GB.
    """

    template: ClassVar[str] = "grid_engine.sh"
    directive: ClassVar[str] = "#$"
    walltime_line: ClassVar[str | None] = r"^#\$\s.*\bh_rt="
    gone: ClassVar[str | None] = r"(?i)job \"?\S+ does not exist"
    unreachable: ClassVar[str | None] = r"(?i)unable to (send message to|contact) qmaster|commlib error|timeout error"

    queue: str | None = attrs.field(default=None, validator=one_line)
    parallel_environment: str | None = attrs.field(default=None, validator=one_line, kw_only=True)
    cmd_timeout: float = attrs.field(default=60, validator=positive("seconds"), kw_only=True)
    launcher: Launcher = attrs.field(
        default=attrs.Factory(_default_launcher, takes_self=True),
        validator=attrs.fields(BatchProvider).launcher.validator,
        kw_only=True,
    )
    _unlisted: dict[str, float] = attrs.field(factory=dict, init=False, repr=False)  # since when, by job id
    _unheard: dict[str, float] = attrs.field(factory=dict, init=False, repr=False)  # likewise, of jobs that run
    _next_look: float | None = attrs.field(default=None, init=False, repr=False)  # for jobs on such hosts

    def fields(self, tasks_per_node: int, script: JobScript) -> Mapping[str, object]:
        """Return the fields of `templates/grid_engine.sh`; see `BatchProvider`."""
        del tasks_per_node, script
        slots = self.nodes_per_block * (self.cores_per_node or 1)
        environment = self.parallel_environment
        if slots > 1 and environment is None and not re.search(r"-pe\s", self.scheduler_options):
            raise ConfigurationError(
                f"a job of {slots} slots needs a parallel environment; `qconf -spl` lists them\n"
                "  give parallel_environment, or a line '#$ -pe ...' in scheduler_options"
            )
        named = None if environment is None else Verbatim(f"{self.quote_directive(environment)} {slots}")
        memory = None if self.mem_per_node is None else f"{round(self.mem_per_node * 1024)}M"
        return {"queue": self.queue, "parallel_environment": named, "memory": memory}

    def submit_command(self, script: JobScript, job_name: str) -> list[str]:
        """Return the words of `qsub`; see `BatchProvider`."""
        del job_name
        return ["qsub", "-terse", str(script.path)]

    def cancel_command(self, job_ids: Sequence[str]) -> list[str]:
        """Return the words of `qdel`; see `BatchProvider`."""
        return ["qdel", *job_ids]

    def ask(self, job_ids: Sequence[str]) -> Mapping[str, JobStatus]:
        """Ask `qstat`; see `BatchProvider`."""
        answer = self.run(["qstat", "-xml"])
        if answer.retcode != 0:
            raise answer.error()
        try:
            listed = dict(_listed(answer.stdout))
            self._look_for_lost_hosts(listed)
        except ET.ParseError as error:
            raise answer.error(f"its answer is no XML: {error}") from error
        return {job_id: self._status(job_id, listed[job_id]) for job_id in job_ids if job_id in listed}

    def forgotten(self, job_id: str, script: JobScript) -> JobStatus:
        """Tell how a job ended that is no longer listed; see `BatchProvider`.

        Where neither its script nor the accounts tell, it stays RUNNING for `ACCOUNTING_DELAY`.
        """
        code = script.exit_code()
        if code is not None:
            return ended(code)
        answer = self.run(["qacct", "-j", job_id])
        accounted = _accounted(answer.stdout, self.block_walltime) if answer.retcode == 0 else None
        if accounted is not None:
            return accounted
        if self._jobs[job_id].cancelled:
            return JobStatus(JobState.CANCELLED, "it was deleted")
        since = self._unlisted.setdefault(job_id, time.monotonic())
        if _NOT_YET.search(answer.stderr + answer.stdout) and time.monotonic() - since < ACCOUNTING_DELAY:
            return JobStatus(JobState.RUNNING, "it has left the queue, and is not in the accounts yet")
        return super().forgotten(job_id, script)

    def _status(self, job_id: str, letters: str) -> JobStatus:
        """Translate qstat's letters, of which several may hold at once."""
        said = f"Grid Engine says {letters}"
        if "E" in letters:
            return JobStatus(JobState.FAILED, self._end_in_error(job_id, said))
        if "d" in letters:
            return JobStatus(JobState.RUNNING, f"{said}: it is being deleted")
        if time.monotonic() - self._unheard.get(job_id, math.inf) >= UNHEARD:
            self._delete(job_id)
            return JobStatus(JobState.FAILED, f"Grid Engine has not heard of its host for {UNHEARD:g} s")
        if set(letters) & set("hsST"):
            return JobStatus(JobState.HELD, said)
        if set(letters) & set("rtR"):
            return JobStatus(JobState.RUNNING)
        return JobStatus(JobState.PENDING if "w" in letters else JobState.UNKNOWN, said)

    def _end_in_error(self, job_id: str, said: str) -> str:
        """Delete a job in an error state, which would wait there for ever; return why it is in one."""
        reasons: list[str] = []
        try:
            told = self.run(["qstat", "-j", job_id]).stdout
            reasons = re.findall(r"^error reason[^:]*:\s*(.*)$", told, re.MULTILINE)
        finally:
            self._delete(job_id)
        return ": ".join([said, *reasons])

    def _delete(self, job_id: str) -> None:
        deleted = self.run(self.cancel_command([job_id]))
        if deleted.retcode != 0 and not re.search(str(self.gone), deleted.stdout + deleted.stderr):
            raise deleted.error()

    def _look_for_lost_hosts(self, listed: Mapping[str, str]) -> None:
        """Ask now and then which jobs run on hosts of which the master has not heard, and note since when."""
        now = time.monotonic()
        running = {job_id for job_id, letters in listed.items() if "w" not in letters and job_id in self._jobs}
        if self._next_look is None or not running:
            self._next_look = now + UNHEARD / 4
        if now < self._next_look:
            return
        self._next_look = now + UNHEARD / 4
        answer = self.run(["qstat", "-qs", "u", "-xml"])
        if answer.retcode == 0:
            lost = running & dict(_listed(answer.stdout)).keys()
            self._unheard = {job_id: self._unheard.get(job_id, now) for job_id in lost}


def _listed(text: str) -> Iterator[tuple[str, str]]:
    """Read `qstat -xml`: the jobs' ids and their state letters."""
    for job in ET.fromstring(text).iter("job_list"):  # noqa: S314 - the scheduler's own words
        yield job.findtext("JB_job_number", ""), job.findtext("state", "")


def _accounted(text: str, walltime: float) -> JobStatus:
    """Read `qacct -j`, which may have one record for each time that the job was started: the last counts."""
    record = dict(line.split(None, 1) for line in text.splitlines() if len(line.split(None, 1)) == 2)
    failed, status = record.get("failed", "0").strip(), record.get("exit_status", "")
    code = int(status.split()[0]) if re.match(r"\d+", status) else None
    if failed.split()[0] == "0" and code is not None:
        return ended(code)
    lasted = re.match(r"[\d.]+", record.get("ru_wallclock", ""))
    if failed.split()[0] == _LIMIT or (lasted is not None and float(lasted[0]) >= walltime):
        return JobStatus(JobState.TIMEOUT, f"its walltime was over; Grid Engine says: failed {failed}", exit_code=code)
    how = None if code is None else describe_exit(code)
    message = f"Grid Engine says: failed {failed}" + ("" if how is None else f"; {how}")
    return JobStatus(JobState.FAILED, message, exit_code=code)
