"""What goes wrong between a provider and its resource manager."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import attrs

from flowcore.errors import FlowcoreError


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
    """

    command: Sequence[str]
    reason: str
    stdout: str = ""
    stderr: str = ""
    retcode: int | None = None

    def __str__(self) -> str:
        lines = [f"{self.command[0]}: {self.reason}", f"  command: {shlex.join(self.command)}"]
        lines += [f"  {name}: {text.strip()}" for name, text in _outputs(self) if text]
        return "\n".join(lines)


@attrs.define(eq=False, slots=False)
class SubmitException(ExecutionProviderException):
    """The resource manager refused a job."""

    job_name: str
    message: str
    stdout: str | None = None
    stderr: str | None = None
    retcode: int | None = None

    def __str__(self) -> str:
        lines = [f"cannot submit job {self.job_name}: {self.message}"]
        if self.retcode is not None:
            lines.append(f"  exit code: {self.retcode}")
        lines += [f"  {name}: {text.strip()}" for name, text in _outputs(self) if text]
        return "\n".join(lines)


class ScaleOutFailed(ExecutionProviderException):
    """No further block could be had."""


@attrs.define(eq=False, slots=False)
class BadLauncher(ExecutionProviderException, TypeError):
    """A provider was given a launcher that is none, or one that cannot work with it."""

    launcher: object
    reason: str = "not a Launcher"

    def __str__(self) -> str:
        return f"{self.launcher!r}: {self.reason}"


def _outputs(error: SchedulerError | SubmitException) -> list[tuple[str, str | None]]:
    return [("stdout", error.stdout), ("stderr", error.stderr)]
