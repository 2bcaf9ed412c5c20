"""The states of a provider's job, and the record that reports one."""

from __future__ import annotations

import enum
import re
from pathlib import Path
from typing import Final

import attrs

SUMMARY_BYTES: Final = 2048
"""How much of a job's output a summary shows: half from its beginning, half from its end."""


class JobState(enum.IntEnum):
    """Where a job stands; a terminal state never changes."""

    UNKNOWN = 0
    PENDING = 1
    RUNNING = 2
    CANCELLED = 3
    COMPLETED = 4
    FAILED = 5
    TIMEOUT = 6
    HELD = 7
    MISSING = 8
    """The job ended without a worker ever having connected."""
    SCALED_IN = 9
    """flowcore itself ended the job because it was not needed."""

    @property
    def terminal(self) -> bool:
        """Whether the job has ended for good."""
        return self in TERMINAL_STATES


TERMINAL_STATES: Final = frozenset(
    {
        JobState.CANCELLED,
        JobState.COMPLETED,
        JobState.FAILED,
        JobState.TIMEOUT,
        JobState.MISSING,
        JobState.SCALED_IN,
    }
)


@attrs.frozen
class JobStatus:
    """What is known of one job at one time.

    `message` is for a person; `exit_code` is the job script's own, where the provider can tell it; the paths are of
    the job's script and of its output, where this process can read them.
    """

    state: JobState
    message: str | None = None
    exit_code: int | None = None
    stdout_path: str | None = None
    stderr_path: str | None = None
    script_path: str | None = None

    @property
    def terminal(self) -> bool:
        """Whether the job has ended for good."""
        return self.state.terminal

    @property
    def status_name(self) -> str:
        """The state's name, such as 'RUNNING'."""
        return self.state.name

    @property
    def stdout(self) -> str | None:
        """All that the job wrote to its standard output, or None where it cannot be read."""
        return _read(self.stdout_path)

    @property
    def stderr(self) -> str | None:
        """All that the job wrote to its standard error, or None where it cannot be read."""
        return _read(self.stderr_path)

    @property
    def stdout_summary(self) -> str | None:
        """The beginning and the end of the standard output, `SUMMARY_BYTES` at most."""
        return _summary(self.stdout_path)

    @property
    def stderr_summary(self) -> str | None:
        """The beginning and the end of the standard error, `SUMMARY_BYTES` at most."""
        return _summary(self.stderr_path)

    def __str__(self) -> str:
        code = self._untold_exit_code
        details = [self.message, None if code is None else f"exit code {code}"]
        said = ", ".join(detail for detail in details if detail)
        return f"{self.status_name} ({said})" if said else self.status_name

    def report(self) -> str:
        """Return all that is known of the job, in lines: how it stands, its script, and what it wrote."""
        lines = [self.status_name if self.message is None else f"{self.status_name}: {self.message}"]
        if self._untold_exit_code is not None:
            lines.append(f"exit code: {self.exit_code}")
        if self.script_path is not None:
            lines.append(f"job script: {self.script_path}")
        paths = {"standard output": self.stdout_path, "standard error": self.stderr_path}
        written = [(name, path, _summary(path)) for name, path in paths.items() if path is not None]
        lines += [f"{name}:{_told(path, text)}" for name, path, text in written if text is None or text.strip()]
        if written and not any(text is None or text.strip() for _, _, text in written):
            lines.append("it wrote nothing")
        return "\n".join(line.replace("\n", "\n  ") for line in lines)

    @property
    def _untold_exit_code(self) -> int | None:
        """The exit code, unless the message has it."""
        told = self.message is not None and re.search(rf"exit code:? {self.exit_code}\b", self.message)
        return None if told else self.exit_code


def _read(path: str | None) -> str | None:
    if path is None:
        return None
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return None


def _told(path: str, text: str | None) -> str:
    if text is None:
        return f" {path} cannot be read here"
    lead = "\n" if "\n" in text.strip() else " "
    return lead + text.strip()


def _summary(path: str | None) -> str | None:
    if path is None:
        return None
    half = SUMMARY_BYTES // 2
    try:
        with Path(path).open("rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(0)
            if size <= SUMMARY_BYTES:
                return stream.read().decode(errors="replace")
            head = stream.read(half)
            stream.seek(-half, 2)
            tail = stream.read()
    except OSError:
        return None
    return (
        f"{head.decode(errors='replace')}\n[... {size - 2 * half} bytes left out ...]\n{tail.decode(errors='replace')}"
    )
