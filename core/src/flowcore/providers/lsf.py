"""Blocks that are jobs of LSF."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping, Sequence
from typing import ClassVar, Final

import attrs

from flowcore.errors import ConfigurationError
from flowcore.jobs.states import JobState, JobStatus
from flowcore.launchers.base import Launcher
from flowcore.launchers.mpiexec import MpiExecLauncher
from flowcore.launchers.single_node import SingleNodeLauncher
from flowcore.parameters import flag, optional, positive, whole
from flowcore.providers.batch import BatchProvider, ended
from flowcore.providers.checks import one_line
from flowcore.providers.scripts import JobScript, Verbatim

STATES: Final[Mapping[str, JobState]] = {
    **dict.fromkeys(("PEND", "PROV", "WAIT"), JobState.PENDING),
    "RUN": JobState.RUNNING,
    **dict.fromkeys(("PSUSP", "USUSP", "SSUSP"), JobState.HELD),
    "DONE": JobState.COMPLETED,
    **dict.fromkeys(("EXIT", "ZOMBI"), JobState.FAILED),
}
"""What LSF's states mean; UNKWN is a job on a host that does not answer."""

NEWS: Final = 30.0
"""Seconds in which `bjobs` may not know a job yet: the daemon that answers it learns of jobs every MBD_REFRESH_TIME."""

_UNKNOWN: Final = re.compile(r"Job <\S+> is not found|No matching job found", re.IGNORECASE)


def _default_launcher(provider: LSFProvider) -> Launcher:
    return MpiExecLauncher() if provider.nodes_per_block > 1 else SingleNodeLauncher()


@attrs.define(eq=False)
class LSFProvider(BatchProvider):
    """Submits each block with `bsub`, asks `bjobs` about it, and ends it with `bkill`.

    A block of several nodes has `MpiExecLauncher` unless another is given.

    Attributes:
        queue: the queue; None for the default one.
        project: whom to charge.
        cores_per_block: slots of a block; with `request_by_nodes=False`.
        cores_per_node: slots on each node; with `request_by_nodes` it asks for nothing, and only tells the job.
        request_by_nodes: ask for `nodes_per_block` nodes (`-nnodes`, which only some sites have), not for slots.
        bsub_redirection: hand the script to `bsub` on its standard input; without, `bsub` must be set up to read the
            options in a script that it is given by name.
        mem_per_node: memory on each node in GB; with `request_by_nodes` it asks for nothing, and only tells the job.
    """

    template: ClassVar[str] = "lsf.sh"
    directive: ClassVar[str] = "#BSUB"
    walltime_line: ClassVar[str | None] = r"^#BSUB(\s.*)?\s-W[\s\d]"
    gone: ClassVar[str | None] = r"(?i)is not found|no matching job|already finished"
    unreachable: ClassVar[str | None] = r"(?i)LSF is down|cannot connect to LSF|LIM is down|not responding"

    queue: str | None = attrs.field(default=None, validator=one_line, kw_only=True)
    project: str | None = attrs.field(default=None, validator=one_line, kw_only=True)
    cores_per_block: int | None = attrs.field(default=None, validator=optional(whole(1)), kw_only=True)
    request_by_nodes: bool = attrs.field(default=True, validator=flag(), kw_only=True)
    bsub_redirection: bool = attrs.field(default=False, validator=flag(), kw_only=True)
    cmd_timeout: float = attrs.field(default=120, validator=positive("seconds"), kw_only=True)
    regex_job_id: str = attrs.field(
        default=r"Job <(?P<id>\d+)>", validator=attrs.fields(BatchProvider).regex_job_id.validator, kw_only=True
    )
    launcher: Launcher = attrs.field(
        default=attrs.Factory(_default_launcher, takes_self=True),
        validator=attrs.fields(BatchProvider).launcher.validator,
        kw_only=True,
    )

    def fields(self, tasks_per_node: int, script: JobScript) -> Mapping[str, object]:
        """Return the fields of `templates/lsf.sh`; see `BatchProvider`."""
        del tasks_per_node, script
        minutes = math.ceil(self.block_walltime / 60)
        return {
            "minutes": f"{minutes // 60}:{minutes % 60:02}",
            "queue": self.queue,
            "project": self.project,
            **(self._nodes() if self.request_by_nodes else self._slots()),
        }

    def submit_command(self, script: JobScript, job_name: str) -> list[str]:
        """Return the words of `bsub`; see `BatchProvider`."""
        del job_name
        return ["bsub"] if self.bsub_redirection else ["bsub", str(script.path)]

    def submit_input(self, script: JobScript) -> str:
        """Return the script where `bsub` reads its standard input; see `BatchProvider`."""
        return script.path.read_text() if self.bsub_redirection else ""

    def cancel_command(self, job_ids: Sequence[str]) -> list[str]:
        """Return the words of `bkill`; see `BatchProvider`."""
        return ["bkill", *job_ids]

    def ask(self, job_ids: Sequence[str]) -> Mapping[str, JobStatus]:
        """Ask `bjobs`; see `BatchProvider`."""
        answer = self.run(["bjobs", "-a", "-noheader", "-o", "jobid stat exit_code", *job_ids])
        complaints = answer.stderr.strip().splitlines()
        if answer.retcode != 0 and not (complaints and all(_UNKNOWN.search(line) for line in complaints)):
            raise answer.error()
        rows = [row for line in answer.stdout.splitlines() if len(row := line.split()) >= 2]
        return {
            row[0]: self._status(row[0], row[1], row[2] if len(row) > 2 else "-") for row in rows if row[0].isdigit()
        }

    def forgotten(self, job_id: str, script: JobScript) -> JobStatus:
        """Tell how a job ended that LSF does not know; a young one is PENDING for `NEWS`; see `BatchProvider`."""
        job = self._jobs[job_id]
        new = job.status.state is JobState.PENDING and time.monotonic() - job.begun < NEWS
        if new and script.exit_code() is None:
            return JobStatus(JobState.PENDING, "LSF does not know it yet")
        return super().forgotten(job_id, script)

    def _nodes(self) -> dict[str, object]:
        if self.cores_per_block is not None:
            raise ConfigurationError("cores_per_block asks for nothing with request_by_nodes=True; set it to False")
        return {"node_count": self.nodes_per_block, "slots": None, "span": None, "memory": None}

    def _slots(self) -> dict[str, object]:
        per_node, total = self.cores_per_node, self.cores_per_block
        if total is None:
            total = (per_node or 1) * self.nodes_per_block
        if per_node is None:
            per_node = math.ceil(total / self.nodes_per_block)
        if math.ceil(total / per_node) != self.nodes_per_block:
            wanted = f"nodes_per_block={self.nodes_per_block}"
            raise ConfigurationError(f"cores_per_block={total} with {per_node} on each node do not make {wanted}")
        memory = (
            None if self.mem_per_node is None else Verbatim(f'"rusage[mem={math.ceil(self.mem_per_node * 1024)}MB]"')
        )
        return {"node_count": None, "slots": total, "span": Verbatim(f'"span[ptile={per_node}]"'), "memory": memory}

    def _status(self, job_id: str, word: str, code: str) -> JobStatus:
        state = STATES.get(word, JobState.UNKNOWN)
        if state is not JobState.FAILED:
            return JobStatus(state, None if state in {JobState.RUNNING, JobState.COMPLETED} else f"LSF says {word}")
        told = self.run(["bjobs", "-l", job_id]).stdout
        reason = re.search(r"TERM_\w+(:[^.;]*)?", re.sub(r"\n\s*", "", told))
        status = ended(int(code)) if code.isdigit() and int(code) else JobStatus(JobState.FAILED, f"LSF says {word}")
        if reason is None:
            return status
        late = "TERM_RUNLIMIT" in reason[0]
        return attrs.evolve(status, state=JobState.TIMEOUT if late else status.state, message=f"LSF says {reason[0]}")
