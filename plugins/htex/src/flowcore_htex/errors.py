"""What goes wrong in this executor: a task lost with a worker, a manager or the interchange, or stopped at a limit."""

from __future__ import annotations

import signal
from typing import Any

import attrs

from flowcore.errors import FlowcoreError
from flowcore.executors.errors import TaskLost, WalltimeExceeded

__all__ = [
    "InterchangeLost",
    "ManagerLost",
    "MemoryExceeded",
    "TaskWalltimeExceeded",
    "VersionMismatch",
    "WorkerLost",
    "from_record",
]


@attrs.define(eq=False, slots=False)
class WorkerLost(TaskLost):
    """The worker process that ran the task died.

    Attributes:
        worker: its rank on the node.
        hostname: the node.
        exit_code: its exit code, negative for a signal.
        stderr: the end of what it wrote.
    """

    worker: int
    hostname: str
    exit_code: int | None = None
    stderr: str = ""

    def __str__(self) -> str:
        text = f"Task failure due to loss of worker {self.worker} on host {self.hostname}: {ending(self.exit_code)}"
        return f"{text}\n  the end of its output:\n{self.stderr}" if self.stderr else text


@attrs.define(eq=False, slots=False)
class ManagerLost(TaskLost):
    """The manager that held the task went away, or was silent for too long.

    Attributes:
        manager: its name.
        hostname: the node.
        block_id: the block it belonged to.
        why: how it was lost.
    """

    manager: str
    hostname: str
    block_id: str = ""
    why: str = ""

    def __str__(self) -> str:
        return (
            f"Task failure due to loss of manager {self.manager} on host {self.hostname}"
            f" (block {self.block_id}): it {self.why or 'went away'}"
        )


@attrs.define(eq=False, slots=False)
class InterchangeLost(TaskLost):
    """The interchange process died, and could not be started again.

    Attributes:
        label: the executor's label.
        why: how it ended.
    """

    label: str
    why: str = ""

    def __str__(self) -> str:
        return f"Task failure due to loss of the interchange of executor {self.label}: {self.why or 'it went away'}"


@attrs.define(eq=False, slots=False)
class TaskWalltimeExceeded(WalltimeExceeded):
    """The task ran longer than the walltime it asked for, and its worker was killed.

    Attributes:
        walltime: seconds it had.
        hostname: the node it ran on.
    """

    walltime: float
    hostname: str = ""

    def __str__(self) -> str:
        return f"the task ran longer than its walltime of {self.walltime:g} s on {self.hostname}, and was killed"


@attrs.define(eq=False, slots=False)
class MemoryExceeded(FlowcoreError, MemoryError):
    """The task used more memory than it asked for, and its worker was killed.

    Attributes:
        limit: MB it asked for.
        used: MB it was seen to use.
        hostname: the node it ran on.
    """

    limit: float
    used: float
    hostname: str = ""

    def __str__(self) -> str:
        return (
            f"the task asked for {self.limit:g} MB of memory, used {self.used:.0f} MB on {self.hostname},"
            " and was killed\n"
            "  ask for more: resource_specification={'memory': ...}"
        )


@attrs.define(eq=False, slots=False)
class VersionMismatch(FlowcoreError):
    """The only managers that came do not fit the user's process.

    Attributes:
        label: the executor's label.
        reason: which versions differ.
    """

    label: str
    reason: str

    def __str__(self) -> str:
        return (
            f"executor {self.label} has no manager that fits: {self.reason}\n"
            "  use the same Python minor version and the same flowcore release on the nodes"
        )


def ending(code: int | None) -> str:
    """Say in words how a process ended."""
    if code is None:
        return "it went away"
    if code >= 0:
        return f"it ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"it was ended by {name}"


def from_record(record: dict[str, Any]) -> Exception:
    """Make the error that a record of lost tasks stands for."""
    host = str(record.get("host", ""))
    match record.get("error"):
        case "WorkerLost":
            return WorkerLost(record["worker"], host, record["code"], record.get("tail", ""))
        case "WalltimeExceeded":
            return TaskWalltimeExceeded(record["limit"], host)
        case "MemoryExceeded":
            return MemoryExceeded(record["limit"], record["used"], host)
        case _:
            return ManagerLost(record["manager"], host, str(record.get("block", "")), record.get("why", ""))
