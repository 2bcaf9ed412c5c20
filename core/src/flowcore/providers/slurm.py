"""Blocks that are jobs of Slurm."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Final

import attrs

from flowcore.jobs.states import JobState, JobStatus
from flowcore.launchers.base import Launcher
from flowcore.launchers.single_node import SingleNodeLauncher
from flowcore.launchers.srun import SrunLauncher
from flowcore.parameters import flag, refusal
from flowcore.providers.batch import BatchProvider
from flowcore.providers.checks import one_line
from flowcore.providers.errors import SchedulerError
from flowcore.providers.processes import describe_exit
from flowcore.providers.scripts import JobScript

STATES: Final[Mapping[str, JobState]] = {
    **dict.fromkeys(("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED"), JobState.PENDING),
    **dict.fromkeys(("RUNNING", "COMPLETING", "SIGNALING", "STAGE_OUT", "RESIZING"), JobState.RUNNING),
    **dict.fromkeys(("SUSPENDED", "STOPPED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"), JobState.HELD),
    "COMPLETED": JobState.COMPLETED,
    **dict.fromkeys(("CANCELLED", "PREEMPTED", "REVOKED"), JobState.CANCELLED),
    **dict.fromkeys(("TIMEOUT", "DEADLINE"), JobState.TIMEOUT),
    **dict.fromkeys(
        ("FAILED", "NODE_FAIL", "BOOT_FAIL", "OUT_OF_MEMORY", "LAUNCH_FAILED", "RECONFIG_FAIL"), JobState.FAILED
    ),
}
"""What Slurm's states mean; the long names, which `squeue` and `sacct` share."""

_PLAIN: Final = re.compile(r"[\w@%+=:,./\[\]&|*()-]+")
_UNKNOWN: Final = re.compile("Invalid job id", re.IGNORECASE)
_NO_ACCOUNTING: Final = re.compile("accounting storage is disabled", re.IGNORECASE)


def _default_launcher(provider: SlurmProvider) -> Launcher:
    return SrunLauncher() if provider.nodes_per_block > 1 else SingleNodeLauncher()


def _gpus(provider: SlurmProvider, attribute: attrs.Attribute[int | str | None], value: int | str | None) -> None:
    if isinstance(value, bool) or (isinstance(value, int) and value < 1):
        raise refusal(provider, attribute, value, "a number from 1 on, or 'TYPE:NUMBER', is needed")
    if not isinstance(value, int):
        one_line(provider, attribute, value)


@attrs.define(eq=False)
class SlurmProvider(BatchProvider):
    """Submits each block with `sbatch`, asks `sacct` or `squeue` about it, and ends it with `scancel`.

    `sacct` is asked where there is accounting, which the first `status` finds out; what it does not know yet, and all
    where there is none, is asked of `squeue`. A block of several nodes has `SrunLauncher` unless another is given.

    Attributes:
        partition: the partition, or several separated by commas; None for the cluster's default.
        account: whom to charge.
        qos: quality of service.
        constraint: features that the nodes must have.
        clusters: the clusters of a federation that may take the job.
        gpus_per_node: GPUs on each node, a number or 'TYPE:NUMBER'.
        gres: other generic resources on each node.
        exclusive: share no node with other jobs.
        mem_per_node: memory on each node in GB.
    """

    template: ClassVar[str] = "slurm.sh"
    directive: ClassVar[str] = "#SBATCH"
    walltime_line: ClassVar[str | None] = r"^#SBATCH(\s.*)?\s(--time[\s=]|-t)"
    gone: ClassVar[str | None] = r"(?i)invalid job id|already compl"
    unreachable: ClassVar[str | None] = (
        r"(?i)unable to (contact slurm|establish c)|timed out|zero bytes were|in standby mode|temporarily unable"
    )

    partition: str | None = attrs.field(default=None, validator=one_line)
    account: str | None = attrs.field(default=None, validator=one_line)
    qos: str | None = attrs.field(default=None, validator=one_line)
    constraint: str | None = attrs.field(default=None, validator=one_line)
    clusters: str | None = attrs.field(default=None, validator=one_line)
    gpus_per_node: int | str | None = attrs.field(default=None, validator=_gpus, kw_only=True)
    gres: str | None = attrs.field(default=None, validator=one_line, kw_only=True)
    exclusive: bool = attrs.field(default=True, validator=flag(), kw_only=True)
    regex_job_id: str = attrs.field(
        default=r"Submitted batch job (?P<id>\S*)",
        validator=attrs.fields(BatchProvider).regex_job_id.validator,
        kw_only=True,
    )
    launcher: Launcher = attrs.field(
        default=attrs.Factory(_default_launcher, takes_self=True),
        validator=attrs.fields(BatchProvider).launcher.validator,
        kw_only=True,
    )
    _accounting: bool | None = attrs.field(default=None, init=False, repr=False)

    def fields(self, tasks_per_node: int, script: JobScript) -> Mapping[str, object]:
        """Return the fields of `templates/slurm.sh`; see `BatchProvider`."""
        cores = self.cores_per_node
        return {
            "stdout": _pattern(script.out),
            "stderr": _pattern(script.err),
            "cpus_per_task": None if cores is None else max(1, cores // tasks_per_node),
            "memory": None if self.mem_per_node is None else f"{math.ceil(self.mem_per_node * 1024)}M",
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "constraint": self.constraint,
            "clusters": self.clusters,
            "gpus_per_node": self.gpus_per_node,
            "gres": self.gres,
            "exclusive": "exclusive" if self.exclusive else None,
        }

    def submit_command(self, script: JobScript, job_name: str) -> list[str]:
        """Return the words of `sbatch`; see `BatchProvider`."""
        del job_name
        return ["sbatch", str(script.path)]

    def cancel_command(self, job_ids: Sequence[str]) -> list[str]:
        """Return the words of `scancel`; see `BatchProvider`."""
        return ["scancel", *self._cluster_words(), *job_ids]

    def ask(self, job_ids: Sequence[str]) -> Mapping[str, JobStatus]:
        """Ask `sacct`, then `squeue` about jobs that it does not know; see `BatchProvider`."""
        answers = {} if self._accounting is False else self._ask_sacct(job_ids)
        rest = [job_id for job_id in job_ids if job_id not in answers]
        return {**answers, **self._ask_squeue(rest)} if rest else answers

    def quote_directive(self, value: str) -> str:
        """Quote as sbatch reads its lines: a backslash counts even within quotes."""
        if _PLAIN.fullmatch(value):
            return value
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'

    def _ask_sacct(self, job_ids: Sequence[str]) -> dict[str, JobStatus]:
        fields = "--format=JobIDRaw,State,ExitCode"
        words = ["sacct", *self._cluster_words(), "--allocations", "--noheader", "--parsable2", fields]
        try:
            answer = self.run([*words, f"--jobs={','.join(job_ids)}"])
            if answer.retcode != 0:
                raise answer.error()
        except SchedulerError as error:
            if self._accounting:
                raise
            # It is not there, or not usable here: then not for this provider, unless it may be a passing trouble.
            if error.retcode is None or _NO_ACCOUNTING.search(error.stderr):
                self._accounting = False
            return {}
        self._accounting = True
        return dict(_parsed(answer.stdout, _sacct_code))

    def _ask_squeue(self, job_ids: Sequence[str]) -> dict[str, JobStatus]:
        fields = "--Format=JobID:|,State:|,exit_code:|,Reason:|"
        words = ["squeue", *self._cluster_words(), "--states=all", "--noheader", fields]
        answer = self.run([*words, f"--jobs={','.join(job_ids)}"])
        if answer.retcode != 0 and not _UNKNOWN.search(answer.stderr):  # it fails when it knows none of the jobs
            raise answer.error()
        return dict(_parsed(answer.stdout, _wait_code))

    def _cluster_words(self) -> list[str]:
        return [] if self.clusters is None else [f"--clusters={self.clusters}"]


def _pattern(path: Path) -> str:
    """Return a path as sbatch wants it, which replaces what follows a percent sign."""
    return str(path).replace("%", "%%")


def _parsed(text: str, exit_code: Callable[[str], int | None]) -> Iterator[tuple[str, JobStatus]]:
    """Read lines of job id, state, exit code and perhaps a reason, separated by bars."""
    for line in text.splitlines():
        job_id, *rest = line.strip().split("|")
        if not job_id.isdigit() or len(rest) < 2:
            continue
        word = rest[0].split()[0]  # 'CANCELLED by 1000'
        state = STATES.get(word, JobState.UNKNOWN)
        reason = rest[2] if len(rest) > 2 and rest[2] not in {"", "None"} else None
        if state is JobState.PENDING and reason is not None and reason.startswith("JobHeld"):
            state = JobState.HELD
        code = exit_code(rest[1]) if state in {JobState.COMPLETED, JobState.FAILED} else None
        if code == 0 and state is JobState.FAILED:  # the script was not asked
            code = None
        yield job_id, JobStatus(state, _message(word, state, code, reason), exit_code=code)


def _message(word: str, state: JobState, code: int | None, reason: str | None) -> str | None:
    if state in {JobState.COMPLETED, JobState.RUNNING}:
        return None
    if word == "FAILED" and code:
        return describe_exit(code)
    if reason is None:
        return None if word == state.name else f"Slurm says {word}"
    return f"Slurm says {word} ({reason})"


def _wait_code(text: str) -> int | None:
    """Return the exit code in what `wait` returns, 128 and the signal for a killed script as shells have it."""
    if not text.isdigit():
        return None
    status = int(text)
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def _sacct_code(text: str) -> int | None:
    """Return the exit code in 'CODE:SIGNAL'."""
    code, _, number = text.partition(":")
    if not code.isdigit():
        return None
    return 128 + int(number) if number.isdigit() and int(number) else int(code)
