"""What the providers for the PBS family share: `qsub`, `qstat`, `qdel`, and how a job's attributes are to be read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Final

import attrs

from flowcore.jobs.states import JobState, JobStatus
from flowcore.launchers.base import Launcher
from flowcore.launchers.mpiexec import MpiExecLauncher
from flowcore.launchers.single_node import SingleNodeLauncher
from flowcore.parameters import positive
from flowcore.providers.batch import Answer, BatchProvider, ended
from flowcore.providers.checks import duration, one_line
from flowcore.providers.scripts import JobScript

STATES: Final[Mapping[str, JobState]] = {
    **dict.fromkeys("QWTM", JobState.PENDING),
    **dict.fromkeys("RBE", JobState.RUNNING),
    **dict.fromkeys("HSU", JobState.HELD),
}
"""What the states of jobs that have not ended mean; E is a job that is just ending."""

ENDED: Final = frozenset("CFX")

_UNKNOWN: Final = re.compile(r"Unknown Job I[dD]", re.IGNORECASE)


def _default_launcher(provider: PBSFamilyProvider) -> Launcher:
    return MpiExecLauncher() if provider.nodes_per_block > 1 else SingleNodeLauncher()


@attrs.define(eq=False)
class PBSFamilyProvider(BatchProvider):
    """Submits each block with `qsub`, asks `qstat` about it, and ends it with `qdel`.

    A block of several nodes has `MpiExecLauncher` unless another is given.

    Attributes:
        account: whom to charge.
        queue: the queue; None for the server's default.
    """

    directive: ClassVar[str] = "#PBS"
    walltime_line: ClassVar[str | None] = r"^#PBS\s.*\bwalltime="
    gone: ClassVar[str | None] = r"(?i)unknown job id|job has finished|invalid (for )?state"
    unreachable: ClassVar[str | None] = r"(?i)cannot connect to|unable to communicate with|connection refused"
    timeouts: ClassVar[frozenset[int]] = frozenset()
    """The exit codes with which the server says that a job was ended at its walltime."""

    account: str | None = attrs.field(default=None, validator=one_line)
    queue: str | None = attrs.field(default=None, validator=one_line)
    walltime: str = attrs.field(default="00:20:00", validator=duration, kw_only=True)
    cmd_timeout: float = attrs.field(default=120, validator=positive("seconds"), kw_only=True)
    launcher: Launcher = attrs.field(
        default=attrs.Factory(_default_launcher, takes_self=True),
        validator=attrs.fields(BatchProvider).launcher.validator,
        kw_only=True,
    )

    def submit_command(self, script: JobScript, job_name: str) -> list[str]:
        """Return the words of `qsub`; see `BatchProvider`."""
        del job_name
        return ["qsub", str(script.path)]

    def cancel_command(self, job_ids: Sequence[str]) -> list[str]:
        """Return the words of `qdel`; see `BatchProvider`."""
        return ["qdel", *job_ids]

    def answered(self, answer: Answer) -> str:
        """Return what `qstat` printed; it fails when one of the jobs is unknown, and tells of the others all the same.

        Raises:
            SchedulerError: it failed for another reason.
        """
        complaints = answer.stderr.strip().splitlines()
        if answer.retcode != 0 and not (complaints and all(_UNKNOWN.search(line) for line in complaints)):
            raise answer.error()
        return answer.stdout

    def matched(self, job_ids: Sequence[str], jobs: Mapping[str, Mapping[str, str]]) -> Mapping[str, JobStatus]:
        """Return the statuses of the jobs among those told of; the server's name after the number may differ."""
        by_number = {name.partition(".")[0]: attributes for name, attributes in jobs.items()}
        numbers = {job_id: job_id.partition(".")[0] for job_id in job_ids}
        return {job_id: self._status(by_number[number]) for job_id, number in numbers.items() if number in by_number}

    def _status(self, attributes: Mapping[str, str]) -> JobStatus:
        letter = attributes.get("job_state", "")
        said = attributes.get("comment")
        if letter not in ENDED:
            state = STATES.get(letter, JobState.UNKNOWN)
            return JobStatus(state, None if state is JobState.RUNNING else said)
        status = attributes.get("exit_status")
        if attributes.get("substate") == "91":  # of PBS: it was deleted while it ran, whatever its exit status
            return JobStatus(JobState.CANCELLED, said or "it was deleted")
        if status is None:
            return JobStatus(JobState.FAILED, said or "it ended without having run")
        code = int(status)
        if code in self.timeouts:
            return JobStatus(JobState.TIMEOUT, said or "its walltime was over")
        if code < 0:
            reason = f"PBS could not run it: exit status {code}"
            return JobStatus(JobState.FAILED, reason if said is None else f"{reason}; {said}")
        return ended(code if code < 256 else 128 + code - 256)  # 256 and the signal, as against 128 in a shell


def attributes_of(text: str) -> dict[str, dict[str, str]]:
    r"""Read `qstat -f`: the attributes of each job, their names in lower case, by job id.

    >>> attributes_of("Job Id: 7.host\n    job_state = C\n    comment = at\n\tlast\n    exit_status = 3\n")
    {'7.host': {'job_state': 'C', 'comment': 'atlast', 'exit_status': '3'}}
    """
    unfolded = re.sub(r"\n\t", "", text)
    return {
        job_id: dict(_pairs(body))
        for job_id, body in re.findall(r"^Job Id: *(\S+)\n((?:(?!Job Id:).*\n?)*)", unfolded, re.MULTILINE)
    }


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    for name, value in re.findall(r"^ +([\w.]+) = (.*)$", text, re.MULTILINE):
        yield name.lower(), value
