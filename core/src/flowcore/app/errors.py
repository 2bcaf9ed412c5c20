"""What goes wrong inside apps: a command that failed, a walltime that passed, an output that is not there."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Any

from flowcore.errors import FlowcoreError


class AppException(FlowcoreError):
    """The root of the errors that apps themselves raise."""


class AppBadFormatting(AppException, ValueError):
    """The command line of a bash app could not be formatted."""


class AppTimeout(AppException, TimeoutError):
    """The app ran longer than its walltime."""


class BashAppNoReturn(AppException, ValueError):
    """The body of a bash app did not return a command line."""


class BadStdStreamFile(AppException, TypeError):
    """A stdout or stderr that is no file, or one that cannot be opened."""


class BashExitFailure(AppException):
    """The command of a bash app ended with an exit code other than 0, or by a signal.

    Attributes:
        app_name: the app's name.
        exitcode: the exit code; -N where signal N ended the shell.
        stderr_tail: the end of what the command wrote to its standard error file.
        stderr_path: that file, or None where the app was called without `stderr`.
    """

    def __init__(self, app_name: str, exitcode: int, stderr_tail: str = "", stderr_path: str | None = None) -> None:
        super().__init__(app_name, exitcode, stderr_tail, stderr_path)
        self.app_name = app_name
        self.exitcode = exitcode
        self.stderr_tail = stderr_tail
        self.stderr_path = stderr_path

    def __str__(self) -> str:
        if self.exitcode < 0:
            fault = f"bash_app {self.app_name} was killed by {_signal_name(-self.exitcode)}"
        else:
            fault = f"bash_app {self.app_name} failed with unix exit code {self.exitcode}"
        if self.stderr_path is None:
            return f"{fault}\n  its error output was not kept; call it with stderr=flowcore.AUTO_LOGNAME to keep it"
        return f"{fault}\n  {self.stderr_path} ends with:\n{self.stderr_tail}"


class MissingOutputs(AppException):
    """A bash app ended well, yet some of its `outputs` are not there.

    Attributes:
        reason: what was expected.
        outputs: the files that are missing.
    """

    def __init__(self, reason: str, outputs: Sequence[Any]) -> None:
        super().__init__(reason, outputs)
        self.reason = reason
        self.outputs = outputs

    def __str__(self) -> str:
        missing = ", ".join(map(str, self.outputs))
        return f"{self.reason}: {missing}\n  its command ended well; see that it writes to these paths"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
