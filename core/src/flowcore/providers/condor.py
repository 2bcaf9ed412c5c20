"""Blocks that are jobs of HTCondor."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Final

import attrs

from flowcore.errors import ConfigurationError
from flowcore.jobs.states import JobState, JobStatus
from flowcore.launchers.base import Launcher
from flowcore.launchers.single_node import SingleNodeLauncher
from flowcore.parameters import optional, positive, text, whole
from flowcore.providers.batch import BatchProvider, ended
from flowcore.providers.checks import CONTROL
from flowcore.providers.errors import ScriptPathError
from flowcore.providers.scripts import JobScript, Verbatim, fill, read_template

STATES: Final[Mapping[str, JobState]] = {
    "1": JobState.PENDING,
    "2": JobState.RUNNING,
    "3": JobState.CANCELLED,
    "4": JobState.COMPLETED,
    "5": JobState.HELD,
    "6": JobState.RUNNING,
    "7": JobState.HELD,
}
"""What HTCondor's numbers mean: idle, running, removed, completed, held, transferring output, suspended."""

ATTRIBUTES: Final = ("JobStatus", "ExitCode", "ExitSignal", "HoldReasonCode", "HoldReason", "RemoveReason")
"""What is asked of each job beside its id."""

BY_ITS_OWNER: Final = "1"
"""The code of a hold that somebody asked for; any other one is a failure."""

_TEXT: Final = r'(undefined|"(?:[^"\\]|\\.)*")'
_ROW: Final = re.compile(rf"(\d+)\.\d+ (\d+) (\S+) (\S+) (\S+) {_TEXT} {_TEXT}\s*")


def _files(_provider: CondorProvider, _attribute: attrs.Attribute[Sequence[str]], value: object) -> None:
    if isinstance(value, str) or not isinstance(value, Sequence) or not all(isinstance(name, str) for name in value):
        raise ConfigurationError(f"CondorProvider(transfer_input_files={value!r}): a list of paths is needed")
    if any("," in name for name in value):
        raise ConfigurationError(f"CondorProvider(transfer_input_files={value!r}): no path may have a comma")


def _variables(_provider: CondorProvider, _attribute: attrs.Attribute[Mapping[str, str]], value: object) -> None:
    if not isinstance(value, Mapping) or not all(isinstance(text, str) for pair in value.items() for text in pair):
        raise ConfigurationError(f"CondorProvider(environment={value!r}): a dict of strings is needed")


def _one_node(_provider: CondorProvider, _attribute: attrs.Attribute[int], value: int) -> None:
    if value != 1:
        raise ConfigurationError(
            f"CondorProvider(nodes_per_block={value}): a job of HTCondor's vanilla universe has one machine\n"
            "  give max_blocks and init_blocks instead"
        )


@attrs.define(eq=False, kw_only=True)
class CondorProvider(BatchProvider):
    """Submits each block with `condor_submit`, asks `condor_q` about it, and ends it with `condor_rm`.

    A block is one job of the vanilla universe. A job that HTCondor itself puts on hold has failed: it is removed, and
    the reason kept. `scheduler_options` are lines of the submit description, not of the script.

    Attributes:
        cores_per_slot: the same as `cores_per_node`.
        mem_per_slot: the same as `mem_per_node`, memory in GB.
        environment: variables for the job.
        project: whom to charge.
        transfer_input_files: files that HTCondor copies to where the job runs.
        requirements: an expression that the machine must meet.
        cmd_chunk_size: jobs that one command names at most.
    """

    template: ClassVar[str] = "condor.sh"
    directive: ClassVar[str] = ""
    gone: ClassVar[str | None] = r"(?i)not found|couldn't find"
    unreachable: ClassVar[str | None] = r"(?i)can't find address of|failed to (connect|fetch ads)"

    nodes_per_block: int = attrs.field(default=1, validator=[whole(1), _one_node])
    cores_per_slot: int | None = attrs.field(default=None, validator=optional(whole(1)))
    mem_per_slot: float | None = attrs.field(default=None, validator=optional(positive("GB")))
    environment: Mapping[str, str] | None = attrs.field(default=None, validator=optional(_variables))
    project: str = attrs.field(default="", validator=text())
    transfer_input_files: Sequence[str] = attrs.field(factory=list, validator=_files)
    requirements: str = attrs.field(default="", validator=text())
    cmd_timeout: float = attrs.field(default=60, validator=positive("seconds"))
    status_batch_size: int = attrs.field(default=100, alias="cmd_chunk_size", validator=whole(1))
    regex_job_id: str = attrs.field(
        default=r"submitted to cluster (?P<id>\d+)", validator=attrs.fields(BatchProvider).regex_job_id.validator
    )
    launcher: Launcher = attrs.field(
        factory=SingleNodeLauncher, validator=attrs.fields(BatchProvider).launcher.validator
    )

    def script(self, command: str, tasks_per_node: int = 1, job_name: str = "flowcore") -> str:
        """Return the submit description and the job's script, and submit nothing."""
        description = self._description(JobScript.sample(self, job_name), job_name)
        return f"{description}\n\n{super().script(command, tasks_per_node, job_name)}"

    def fields(self, tasks_per_node: int, script: JobScript) -> Mapping[str, object]:
        """Return the fields of `templates/condor.sh` that others do not have: none; see `BatchProvider`."""
        del tasks_per_node, script
        return {}

    def submit_command(self, script: JobScript, job_name: str) -> list[str]:
        """Write the submit description beside the script, and return the words of `condor_submit`."""
        description = script.path.with_suffix(".sub")
        try:
            description.write_text(f"{self._description(script, job_name)}\n")
        except OSError as error:
            raise ScriptPathError(str(description), error.strerror or str(error)) from error
        return ["condor_submit", str(description)]

    def cancel_command(self, job_ids: Sequence[str]) -> list[str]:
        """Return the words of `condor_rm`; see `BatchProvider`."""
        return ["condor_rm", *job_ids]

    def ask(self, job_ids: Sequence[str]) -> Mapping[str, JobStatus]:
        """Ask `condor_q`; see `BatchProvider`."""
        answer = self.run(["condor_q", *job_ids, "-af:jr", *ATTRIBUTES])
        if answer.retcode != 0:
            raise answer.error()
        return {job_id: self._end_held(job_id, status) for job_id, status in _rows(answer.stdout)}

    def forgotten(self, job_id: str, script: JobScript) -> JobStatus:
        """Tell how a job ended that has left the queue: its script, or else `condor_history`; see `BatchProvider`."""
        if script.exit_code() is None:
            answer = self.run(["condor_history", job_id, "-limit", "1", "-af:jr", *ATTRIBUTES])
            for _, status in _rows(answer.stdout):
                if status.terminal:
                    return status
        return super().forgotten(job_id, script)

    def __attrs_post_init__(self) -> None:
        for node, slot in (("cores_per_node", "cores_per_slot"), ("mem_per_node", "mem_per_slot")):
            given = [value for value in (getattr(self, node), getattr(self, slot)) if value is not None]
            if len(set(given)) > 1:
                raise ConfigurationError(f"CondorProvider: {node} and {slot} are the same thing, and differ")
            setattr(self, node, given[0] if given else None)
        super().__attrs_post_init__()

    def _description(self, script: JobScript, job_name: str) -> str:
        memory = None if self.mem_per_node is None else math.ceil(self.mem_per_node * 1024)
        fields = {
            "job_name": job_name,
            "script": _plain(str(script.path)),
            "stdout": _plain(str(script.out)),
            "stderr": _plain(str(script.err)),
            "log": _plain(str(script.path.with_suffix(".log"))),
            "cores": self.cores_per_node,
            "memory": memory,
            "requirements": _plain(self.requirements, macros=True) or None,
            "environment": _environment(self.environment) if self.environment else None,
            "transfer_input_files": _plain(",".join(self.transfer_input_files)) or None,
            "walltime_seconds": math.ceil(self.block_walltime),
            "project": _literal(self.project) if self.project else None,
            "scheduler_options": self.scheduler_options,
        }
        verbatim = {name: None if value is None else Verbatim(value) for name, value in fields.items()}
        return fill(read_template("condor.sub"), verbatim, self.label, str)

    def _end_held(self, job_id: str, status: JobStatus) -> JobStatus:
        """Remove a job that HTCondor has put on hold, where it would stay for ever."""
        if status.state is JobState.FAILED and status.exit_code is None:
            removed = self.run(self.cancel_command([job_id]))
            if removed.retcode != 0 and not re.search(str(self.gone), removed.stdout + removed.stderr):
                raise removed.error()
        return status


def _rows(text: str) -> Iterator[tuple[str, JobStatus]]:
    for line in text.splitlines():
        if row := _ROW.fullmatch(line):
            yield row[1], _status(*row.groups()[1:])


def _status(number: str, code: str, signal: str, hold: str, held: str, removed: str) -> JobStatus:
    state = STATES.get(number, JobState.UNKNOWN)
    if state is JobState.COMPLETED:
        return ended(int(code) if code.isdigit() else 128 + int(signal))
    if state is JobState.CANCELLED:
        late = "PeriodicRemove" in removed
        return JobStatus(JobState.TIMEOUT if late else state, "its walltime was over" if late else removed.strip('"'))
    if number == "5":
        return JobStatus(state if hold == BY_ITS_OWNER else JobState.FAILED, "HTCondor holds it: " + held.strip('"'))
    return JobStatus(state)


def _plain(text: str, *, macros: bool = False) -> str:
    """Return a value for a line of a submit description, which ends with the line.

    Raises:
        ConfigurationError: it has several lines.
    """
    if CONTROL.search(text):
        raise ConfigurationError(f"{text!r} does not fit on one line of the submit description")
    return text if macros else text.replace("$", "$(DOLLAR)")


def _environment(variables: Mapping[str, str]) -> str:
    r"""Return variables as a submit description has them: quoted one by one, and all together.

    >>> print(_environment({"A": "it's 5 \"", "B": "1"}))
    "A='it''s 5 ""' B='1'"
    """
    words = []
    for name, value in variables.items():
        quoted = value.replace("'", "''")
        words.append(f"{name}='{quoted}'")
    return '"' + _plain(" ".join(words)).replace('"', '""') + '"'


def _literal(text: str) -> str:
    """Return a string of HTCondor's expressions."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{_plain(escaped)}"'
