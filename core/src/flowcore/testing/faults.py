"""A provider that fails when it is told to, for tests of whatever uses providers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import attrs

from flowcore.jobs.states import JobState, JobStatus
from flowcore.providers.local import LocalProvider


@attrs.define(eq=False, kw_only=True)
class FaultyProvider(LocalProvider):
    """A `LocalProvider` whose calls raise, or answer what a test says; it also sees to it that they never overlap.

    Attributes:
        submit_error: raised by `submit` where it is not None.
        status_error: likewise by `status`.
        cancel_error: likewise by `cancel`.
        pending: report running jobs as PENDING.
        tells: whether the end of a job is told, or found out by polling only.
        interval: what `status_polling_interval` is.
        calls: the names of the calls, in order.
    """

    submit_error: Exception | None = None
    status_error: Exception | None = None
    cancel_error: Exception | None = None
    pending: bool = False
    tells: bool = True
    interval: float = 30
    calls: list[str] = attrs.field(factory=list, init=False)
    _busy: threading.Lock = attrs.field(factory=threading.Lock, init=False, repr=False)

    @property
    def status_polling_interval(self) -> float:
        """Seconds between two calls of `status`."""
        return self.interval

    def submit(self, command: str, tasks_per_node: int, job_name: str = "flowcore") -> str:
        """Raise `submit_error`, or start the job."""
        with self._call("submit", self.submit_error):
            return super().submit(command, tasks_per_node, job_name)

    def status(self, job_ids: Sequence[str]) -> list[JobStatus]:
        """Raise `status_error`, or report on the jobs."""
        with self._call("status", self.status_error):
            answers = super().status(job_ids)
        if self.pending:
            return [JobStatus(JobState.PENDING) if one.state is JobState.RUNNING else one for one in answers]
        return answers

    def cancel(self, job_ids: Sequence[str]) -> list[bool]:
        """Raise `cancel_error`, or end the jobs."""
        with self._call("cancel", self.cancel_error):
            return super().cancel(job_ids)

    def watch(self, changed: Callable[[], None]) -> None:
        """Ask for a call of `changed` whenever a job has ended, unless this provider does not tell."""
        if self.tells:
            super().watch(changed)

    @contextmanager
    def _call(self, name: str, error: Exception | None) -> Iterator[None]:
        if not self._busy.acquire(blocking=False):
            raise AssertionError(f"{name} overlaps another call")
        try:
            self.calls.append(name)
            if error is not None:
                raise error
            yield
        finally:
            self._busy.release()
