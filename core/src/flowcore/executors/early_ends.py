"""Jobs that ended before a worker connected."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs

from flowcore.jobs.states import JobState, JobStatus

REMEDIES: Final[Mapping[str, str]] = {
    "TIMEOUT": "its walltime was over: give the provider a longer one, or see why no worker connected",
    "COMPLETED": "its script does not wait for the workers, or the launcher does not start them",
    "CANCELLED": "it was cancelled by somebody else, or by the scheduler for another job",
    "SIGKILL": "a job that takes more memory than it asked for is killed like that: see mem_per_node",
}
"""What to do about a job that ended before a worker connected, by how it ended."""


def early_end(status: JobStatus) -> JobStatus:
    """Say that a job ended too early, and what to do about it."""
    killed = status.state is JobState.FAILED and "SIGKILL" in (status.message or "")
    remedy = REMEDIES.get("SIGKILL" if killed else status.status_name)
    message = f"the job ended before a worker connected: {status}"
    return attrs.evolve(status, state=JobState.MISSING, message=message if remedy is None else f"{message}; {remedy}")
