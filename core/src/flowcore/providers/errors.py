"""What goes wrong between a provider and its resource manager."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import attrs

from flowcore.errors import ConfigurationError, FlowcoreError


class ExecutionProviderException(FlowcoreError):
    """The root of all provider errors."""


@attrs.define(eq=False, slots=False)
class SchedulerMissingArgs(ExecutionProviderException, ValueError):
    """A job script's template asks for a value that nobody gave."""

    missing_keywords: str
    label: str

    def __str__(self) -> str:
        return f"the job script of {self.label} needs a value for {self.missing_keywords}"


@attrs.define(eq=False, slots=False)
class ScriptPathError(ExecutionProviderException, OSError):
    """A job script cannot be written."""

    script_path: str
    reason: str

    def __str__(self) -> str:
        return f"cannot write the job script {self.script_path}: {self.reason}"


@attrs.define(eq=False, slots=False)
class SchedulerError(ExecutionProviderException):
    """A command of the resource manager failed, or did not answer in time.

    Attributes:
        command: its words.
        reason: why this is a failure.
        retcode: its exit code, None where it had none.
        unanswered: nobody answered, or could be reached; the same may work later.
    """

    command: Sequence[str]
    reason: str
    stdout: str = ""
    stderr: str = ""
    retcode: int | None = None
    unanswered: bool = False

    def __str__(self) -> str:
        lines = [f"{self.command[0]}: {self.reason}", f"  command: {shlex.join(self.command)}"]
        lines += [f"  {name}: {text.strip()}" for name, text in _outputs(self) if text]
        return "\n".join(lines)


@attrs.define(eq=False, slots=False)
class SubmitException(ExecutionProviderException):
    """The resource manager refused a job, or gave no answer.

    Attributes:
        retcode: the exit code of its command, None where it had none.
        unanswered: nobody answered, or could be reached; the same may work later.
    """

    job_name: str
    message: str
    stdout: str | None = None
    stderr: str | None = None
    retcode: int | None = None
    unanswered: bool = False

    def __str__(self) -> str:
        lines = [f"cannot submit job {self.job_name}: {self.message}"]
        if self.retcode is not None and f"exit code {self.retcode}" not in self.message:
            lines.append(f"  exit code: {self.retcode}")
        lines += [f"  {name}: {text.strip()}" for name, text in _outputs(self) if text]
        if self.unanswered:
            lines.append("  see whether its commands work in a shell here; the same may work later")
        elif self.retcode is not None:
            lines.append("  mend the provider's options; `flowcore provider show CONFIG` prints the script they make")
        return "\n".join(lines)


@attrs.define(eq=False, slots=False)
class ProviderSilent(ExecutionProviderException, TimeoutError):
    """A resource manager has given no answer for so long that it is no longer waited for.

    Attributes:
        provider: its label.
        seconds: since it was first asked in vain.
        times: how often it was asked.
        words: what the last attempt brought.
    """

    provider: str
    seconds: float
    times: int
    words: str

    def __str__(self) -> str:
        said = self.words.replace("\n", "\n  ")
        return (
            f"{self.provider} has not answered for {self.seconds:.0f} s, {self.times} times in a row\n  {said}\n"
            "  see whether its commands work in a shell here, then call the executor's reset()"
        )


class ScaleOutFailed(ExecutionProviderException):
    """No further block could be had."""


@attrs.define(eq=False, slots=False)
class BadLauncher(ExecutionProviderException, ConfigurationError, TypeError):
    """A provider was given a launcher that is none, or one that cannot work with it."""

    launcher: object
    reason: str = ""

    def __str__(self) -> str:
        if self.reason:
            return f"{self.launcher!r}: {self.reason}"
        example = self.launcher.__name__ if isinstance(self.launcher, type) else "SingleNodeLauncher"
        return f"launcher={self.launcher!r} is no launcher\n  write launcher={example}()"


def _outputs(error: SchedulerError | SubmitException) -> list[tuple[str, str | None]]:
    return [("stdout", error.stdout), ("stderr", error.stderr)]
