"""The base of providers whose blocks are jobs of a batch scheduler, driven through its commands."""

from __future__ import annotations

import logging
import math
import re
import shlex
import subprocess
import time
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Final

import attrs

from flowcore import resources
from flowcore.errors import ConfigurationError
from flowcore.jobs.states import JobState, JobStatus
from flowcore.launchers.base import Launcher
from flowcore.parameters import text, whole
from flowcore.providers.base import Provider
from flowcore.providers.checks import CONTROL, duration, fits, job_id_pattern, script_lines
from flowcore.providers.errors import SchedulerError, SubmitException
from flowcore.providers.processes import describe_exit
from flowcore.providers.scripts import JobScript, Verbatim, exports, fill, read_template

logger = logging.getLogger(__name__)

SHORTEST_INTERVAL: Final = 2.0
"""Seconds between two calls of `status` while there are young jobs."""

LONGEST_INTERVAL: Final = 60.0
"""Seconds between two calls of `status` when all jobs are old: schedulers are shared."""

UNTOLD: Final = 3
"""Calls of `status` in a row in which nobody may answer how a job ended, before it has just failed."""


@attrs.frozen
class Answer:
    """What a command of the scheduler said."""

    command: list[str]
    retcode: int
    stdout: str
    stderr: str

    def error(self, reason: str | None = None) -> SchedulerError:
        """Return the error that this answer is."""
        reason = reason or f"it failed with exit code {self.retcode}"
        return SchedulerError(self.command, reason, self.stdout, self.stderr, self.retcode)


@attrs.define(eq=False)
class _Job:
    """One job that was submitted here; `status` is final once it is terminal."""

    script: JobScript
    begun: float
    status: JobStatus
    cancelled: bool = False
    untold: int = 0
    """Calls of `status` in which nobody told how it ended."""


@attrs.define(eq=False, kw_only=True)
class BatchProvider(Provider):
    """Submits a script for each block, asks about jobs in batches, and remembers for good how each one ended.

    A subclass names its script template (a file in `templates/`, see `scripts.fill`), and provides `fields`,
    `submit_command`, `ask` and `cancel_command`. Commands are lists of words; each may take `cmd_timeout` seconds.
    Young jobs are asked about often, old ones once a minute.

    A job's script leaves its exit code in a file beside it, which tells how a job ended that the scheduler has
    forgotten.

    Attributes:
        walltime: how long a block may last, 'HH:MM:SS' or whatever `flowcore.resources.parse_duration` takes.
        worker_init: shell text that runs before the command, to activate an environment for example.
        scheduler_options: further lines for the script's head, such as '#SBATCH --mail-type=END'.
        regex_job_id: finds the group `id` in what the submit command prints.
        status_batch_size: jobs that one command names at most.
    """

    template: ClassVar[str]
    """The name of the script template."""

    directive: ClassVar[str]
    """What the scheduler's lines in a script begin with."""

    walltime_line: ClassVar[str | None] = None
    """A regular expression for lines that would set the walltime; in `scheduler_options` they are refused."""

    gone: ClassVar[str | None] = None
    """A regular expression for what the cancel command says, when it fails, of a job that has ended."""

    unreachable: ClassVar[str | None] = None
    """A regular expression for what the submit command says, when it fails, if the scheduler cannot be reached."""

    launcher: Launcher = attrs.field(validator=fits)
    walltime: str = attrs.field(default="00:10:00", validator=duration)
    worker_init: str = attrs.field(default="", validator=text())
    scheduler_options: str = attrs.field(default="", validator=script_lines)
    regex_job_id: str = attrs.field(default=r"(?P<id>\S+)", validator=job_id_pattern)
    status_batch_size: int = attrs.field(default=50, validator=whole(1))
    _jobs: dict[str, _Job] = attrs.field(factory=dict, init=False, repr=False)

    # What a subclass provides.

    @abstractmethod
    def fields(self, tasks_per_node: int, script: JobScript) -> Mapping[str, object]:
        """Return the fields of the template beyond those of every script, or in their place; None leaves a line out.

        Every script has job_name, stdout, stderr, nodes, tasks_per_node, walltime ('HH:MM:SS'), scheduler_options,
        prologue, worker_init and command.
        """

    @abstractmethod
    def submit_command(self, script: JobScript, job_name: str) -> list[str]:
        """Return the words of the command that submits a script."""

    @abstractmethod
    def ask(self, job_ids: Sequence[str]) -> Mapping[str, JobStatus]:
        """Ask the scheduler about these jobs, `status_batch_size` at most; leave out those that it does not know.

        Raises:
            SchedulerError: it does not answer.
        """

    @abstractmethod
    def cancel_command(self, job_ids: Sequence[str]) -> list[str]:
        """Return the words of the command that ends jobs."""

    def shown_name(self, job_name: str) -> str:
        """Return the job's name as the scheduler takes it."""
        return job_name

    def submit_input(self, script: JobScript) -> str:
        """Return what the submit command reads from its standard input."""
        del script
        return ""

    def forgotten(self, job_id: str, script: JobScript) -> JobStatus:
        """Tell how a job ended that the scheduler no longer knows.

        The exit code that its script has left tells. A script that has left none did not come to its end.

        Raises:
            SchedulerError: whoever has to be asked does not answer; `status` asks again, `UNTOLD` times in all.
        """
        del job_id
        code = script.exit_code()
        if code is None:
            message = "the scheduler no longer knows the job, and its script did not come to its end"
            return JobStatus(JobState.FAILED, message)
        return ended(code)

    def quote_directive(self, value: str) -> str:
        """Quote a value for a line that the scheduler reads; it has no control characters.

        Raises:
            ConfigurationError: it cannot be written.
        """
        if re.search(r"\s", value):
            raise ConfigurationError(f"{value!r} has a space in it, which no line for {self.label} can hold")
        return value

    # What every provider does.

    @property
    def block_walltime(self) -> float:
        """Seconds after which the scheduler ends a block."""
        return resources.parse_duration(self.walltime)

    @property
    def status_polling_interval(self) -> float:
        """Seconds between two calls of `status`: a quarter of the youngest job's age, within bounds."""
        now = time.monotonic()
        ages = [now - job.begun for job in list(self._jobs.values()) if not job.status.terminal]
        return min(LONGEST_INTERVAL, max(SHORTEST_INTERVAL, min(ages, default=math.inf) / 4))

    def script(self, command: str, tasks_per_node: int = 1, job_name: str = "flowcore") -> str:
        """Return the script that `submit` would hand to the scheduler, and submit nothing."""
        return self._script(JobScript.sample(self, job_name), command, tasks_per_node, job_name)

    def submit(self, command: str, tasks_per_node: int, job_name: str = "flowcore") -> str:
        """Submit a job; see `Provider`.

        Raises:
            ScriptPathError: the job's script cannot be written.
            SubmitException: the scheduler refused, with its command, exit code and words. One that did not answer in
                time may have taken the job all the same; the job then ends as soon as it starts. So does one whose
                submission is interrupted by an exception of another kind, Ctrl-C for example.
        """
        script = JobScript.new(self, job_name)
        try:
            script.write(self._script(script, command, tasks_per_node, job_name))
            job_id = self._submit(script, job_name)
        except (SchedulerError, ConfigurationError) as error:
            script.withdraw()
            raise _refusal(job_name, error) from error
        except BaseException:  # Ctrl-C: the scheduler may have taken the job, and nobody will know its id
            script.withdraw()
            raise
        status = JobStatus(
            JobState.PENDING, stdout_path=str(script.out), stderr_path=str(script.err), script_path=str(script.path)
        )
        self._jobs[job_id] = _Job(script, time.monotonic(), status)
        return job_id

    def status(self, job_ids: Sequence[str]) -> list[JobStatus]:
        """Report on the jobs; see `Provider`. MISSING where nobody has heard of the job.

        Raises:
            SchedulerError: the scheduler does not answer.
        """
        asked = [i for i in dict.fromkeys(job_ids) if i not in self._jobs or not self._jobs[i].status.terminal]
        answers: dict[str, JobStatus] = {}
        for batch in self._batches(asked):
            answers.update(self.ask(batch))
        silent = False
        for job_id in asked:
            if job_id in self._jobs:
                self._observe(job_id, answers.get(job_id) or self._end(job_id, silent))
                silent |= self._jobs[job_id].untold > 0
        unknown = JobStatus(JobState.MISSING, f"{self.label} knows no such job")
        return [self._jobs[i].status if i in self._jobs else answers.get(i, unknown) for i in job_ids]

    def cancel(self, job_ids: Sequence[str]) -> list[bool]:
        """End the jobs; see `Provider`. False for jobs that were not submitted here.

        Those that have not started by then do nothing when they do: what ends a job just as it starts may miss it.

        Raises:
            SchedulerError: the scheduler does not answer, or refuses to end any of them.
        """
        live = [i for i in dict.fromkeys(job_ids) if i in self._jobs and not self._jobs[i].status.terminal]
        before = {i for i in live if self._jobs[i].cancelled}
        for job_id in live:
            self._jobs[job_id].script.withdraw()
            self._jobs[job_id].cancelled = True
        refusals: dict[str, SchedulerError] = {}
        for start, batch in zip(range(0, len(live), self.status_batch_size), self._batches(live), strict=True):
            try:
                refusals |= self._cancel(batch)
            except SchedulerError as error:  # it does not answer: what is left is not tried
                refusals |= dict.fromkeys(live[start:], error)
                break
        for job_id in refusals.keys() - before:
            self._jobs[job_id].cancelled = False
        if refusals and len(refusals) == len(live):
            raise next(iter(refusals.values()))
        for refusal in refusals.values():
            logger.warning("%s", refusal)
        return [job_id in self._jobs and job_id not in refusals for job_id in job_ids]

    def run(self, command: Sequence[str], stdin: str = "") -> Answer:
        """Run a command of the scheduler.

        Raises:
            SchedulerError: it cannot be run, or takes longer than `cmd_timeout`.
        """
        words = list(command)
        try:
            done = subprocess.run(
                words,
                input=stdin,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=self.cmd_timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            reason = f"no answer within cmd_timeout={self.cmd_timeout:g} s"
            raise SchedulerError(words, reason, _text(error.stdout), _text(error.stderr), unanswered=True) from error
        except OSError as error:
            raise SchedulerError(words, f"it cannot be run here: {error.strerror or error}") from error
        return Answer(words, done.returncode, done.stdout, done.stderr)

    # How it is done.

    def __attrs_post_init__(self) -> None:
        try:
            self.script(":")
        except ConfigurationError as error:
            raise ConfigurationError(f"{type(self).__name__}: {error}") from error

    def _script(self, script: JobScript, command: str, tasks_per_node: int, job_name: str) -> str:
        prologue = {
            "files": str(script.path.with_suffix("")),
            "walltime_seconds": math.ceil(self.block_walltime),
            "exports": Verbatim(exports(self, job_name)),
        }
        fields = {
            "job_name": self.shown_name(job_name),
            "stdout": str(script.out),
            "stderr": str(script.err),
            "nodes": self.nodes_per_block,
            "tasks_per_node": tasks_per_node,
            "walltime": clock(self.block_walltime),
            "scheduler_options": Verbatim(self.scheduler_options),
            "prologue": Verbatim(fill(read_template("prologue.sh"), prologue, self.label, self.quote_directive)),
            "worker_init": Verbatim(self.worker_init),
            "command": Verbatim(self.launcher(command, tasks_per_node, self.nodes_per_block)),
            **self.fields(tasks_per_node, script),
        }
        return fill(read_template(self.template), fields, self.label, self._quoted) + "\n"

    def _quoted(self, value: str) -> str:
        if CONTROL.search(value):
            raise ConfigurationError(f"{value!r} does not fit on one line of the job script")
        return self.quote_directive(value)

    def _submit(self, script: JobScript, job_name: str) -> str:
        answer = self.run(self.submit_command(script, job_name), self.submit_input(script))
        if answer.retcode != 0:
            failure = answer.error()
            failure.unanswered = _says(answer, self.unreachable)
            raise failure
        match = re.search(self.regex_job_id, answer.stdout)
        if match is None or not match["id"]:
            raise answer.error(f"its answer has no job id; regex_job_id={self.regex_job_id!r} found none")
        return match["id"]

    def _end(self, job_id: str, silent: bool) -> JobStatus:
        """Tell how a job ended that the scheduler no longer knows.

        Where whoever has to be asked does not answer, or is `silent` already, the job keeps its status for a while.
        """
        job = self._jobs[job_id]
        try:
            if not silent or job.script.exit_code() is not None:
                status = self.forgotten(job_id, job.script)
                job.untold = 0
                return status
        except SchedulerError as error:
            logger.warning("%s: cannot tell how job %s ended: %s", self.label, job_id, error)
        job.untold += 1
        return job.status if job.untold < UNTOLD else BatchProvider.forgotten(self, job_id, job.script)

    def _observe(self, job_id: str, answer: JobStatus) -> None:
        """Take note of what is known of a live job.

        One that was cancelled did not do its work, whatever the scheduler makes of its script, unless that has come to
        its end: a script that starts while its job is cancelled ends well, and so may a part on another node.
        """
        job = self._jobs[job_id]
        state, message, code = answer.state, answer.message, answer.exit_code
        if code is None and state in {JobState.COMPLETED, JobState.FAILED}:
            code = job.script.exit_code()
        if job.cancelled and state is JobState.FAILED:
            state = JobState.CANCELLED
        elif job.cancelled and state is JobState.COMPLETED and job.script.exit_code() is None:
            state, message, code = JobState.CANCELLED, "it was cancelled", None
        job.status = attrs.evolve(job.status, state=state, message=message, exit_code=code)

    def _cancel(self, job_ids: list[str]) -> dict[str, SchedulerError]:
        """Cancel a batch, each job for itself where that fails; return what was refused."""
        answer = self.run(self.cancel_command(job_ids))
        if answer.retcode == 0 or (len(job_ids) == 1 and _says(answer, self.gone)):
            return {}
        if len(job_ids) == 1:
            return {job_ids[0]: answer.error()}
        refusals: dict[str, SchedulerError] = {}
        deadline = time.monotonic() + self.cmd_timeout
        for job_id in job_ids:
            late = time.monotonic() > deadline
            refusals |= {job_id: answer.error()} if late else self._cancel([job_id])
        return refusals

    def _batches(self, job_ids: Sequence[str]) -> Iterator[list[str]]:
        for start in range(0, len(job_ids), self.status_batch_size):
            yield list(job_ids[start : start + self.status_batch_size])


def ended(exit_code: int) -> JobStatus:
    """Return the status of a job whose script has ended with this exit code."""
    state = JobState.COMPLETED if exit_code == 0 else JobState.FAILED
    return JobStatus(state, describe_exit(exit_code), exit_code=exit_code)


def clock(seconds: float) -> str:
    """Return a duration as schedulers read it, rounded up to whole seconds.

    >>> clock(90061.5)
    '25:01:02'
    """
    minutes, rest = divmod(math.ceil(seconds), 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest:02}"


def _says(answer: Answer, words: str | None) -> bool:
    return words is not None and re.search(words, answer.stdout + answer.stderr) is not None


def _refusal(job_name: str, error: SchedulerError | ConfigurationError) -> SubmitException:
    if isinstance(error, ConfigurationError):
        return SubmitException(job_name, str(error))
    message = f"{error.command[0]}: {error.reason}\n  command: {shlex.join(error.command)}"
    return SubmitException(job_name, message, error.stdout, error.stderr, error.retcode, error.unanswered)


def _text(output: bytes | str | None) -> str:
    """Return what a command had said when its time was up: bytes, whatever was asked for."""
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""
