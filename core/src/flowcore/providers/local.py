"""Blocks that are processes of this machine."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import attrs

from flowcore.jobs.states import JobState, JobStatus
from flowcore.launchers.base import Launcher
from flowcore.launchers.single_node import SingleNodeLauncher
from flowcore.parameters import text
from flowcore.process_exit import await_exit
from flowcore.providers.base import Provider
from flowcore.providers.errors import SubmitException
from flowcore.providers.processes import describe_exit, end_session
from flowcore.providers.scripts import JobScript, exports

logger = logging.getLogger(__name__)

KILL_AFTER: Final = 3.0
"""Seconds from SIGTERM to SIGKILL, for jobs that are cancelled and for what a job leaves behind."""


@attrs.define(eq=False, kw_only=True)
class LocalProvider(Provider):
    """Runs each block as a shell script on this machine, in a session of processes of its own.

    A job ends with its script: what the script leaves running in its session is sent SIGTERM, and SIGKILL
    `KILL_AFTER` seconds later. `nodes_per_block` is the number of copies of the command that the launcher starts
    here. Each job is watched by a thread, so that its end is known at once; `cmd_timeout` bounds `cancel`.

    Attributes:
        worker_init: shell text that runs before the command, to activate an environment for example.
    """

    launcher: Launcher = attrs.field(factory=SingleNodeLauncher, validator=attrs.fields(Provider).launcher.validator)
    worker_init: str = attrs.field(default="", validator=text())
    _jobs: dict[str, _Job] = attrs.field(factory=dict, init=False, repr=False)
    _numbers: Iterator[int] = attrs.field(factory=itertools.count, init=False, repr=False)
    _changed: Callable[[], None] | None = attrs.field(default=None, init=False, repr=False)

    @property
    def status_polling_interval(self) -> float:
        """Seconds between two calls of `status`; long, since the end of a job is told by `watch`."""
        return 30

    def script(self, command: str, tasks_per_node: int = 1, job_name: str = "flowcore") -> str:
        """Return the script that `submit` would run, and start nothing."""
        launched = self.launcher(command, tasks_per_node, self.nodes_per_block)
        return "\n".join(["#!/bin/bash", exports(self, job_name), self.worker_init, launched, ""])

    def submit(self, command: str, tasks_per_node: int, job_name: str = "flowcore") -> str:
        """Start the job, and return its id: the number of its process and a serial number.

        Raises:
            ScriptPathError: the job's script cannot be written.
            SubmitException: it cannot be started.
        """
        script = JobScript.new(self, job_name)
        script.write(self.script(command, tasks_per_node, job_name))
        try:
            process = _start(script)
        except OSError as error:
            raise SubmitException(job_name, f"cannot run {script.path}: {error}") from error
        job_id = f"{process.pid}.{next(self._numbers)}"
        self._jobs[job_id] = _Job(process, script, self._grace, self._job_ended)
        return job_id

    def status(self, job_ids: Sequence[str]) -> list[JobStatus]:
        """Report on the jobs; MISSING where this provider started no such job."""
        unknown = JobStatus(JobState.MISSING, "this provider started no such job")
        return [self._jobs[job_id].status if job_id in self._jobs else unknown for job_id in job_ids]

    def cancel(self, job_ids: Sequence[str]) -> list[bool]:
        """Send SIGTERM to the jobs, later SIGKILL, and wait for them to end, `cmd_timeout` at most."""
        jobs = [self._jobs.get(job_id) for job_id in job_ids]
        started = [job for job in jobs if job is not None]
        for job in started:
            job.terminate()
        begin = time.monotonic()
        for job in started:
            if not job.join(begin + self._grace):
                job.kill()
        return [job is not None and job.join(begin + self.cmd_timeout) for job in jobs]

    def watch(self, changed: Callable[[], None]) -> None:
        """Ask for a call of `changed` whenever a job has ended; it comes from the thread that watches the job."""
        self._changed = changed

    @property
    def _grace(self) -> float:
        return min(KILL_AFTER, self.cmd_timeout / 2)

    def _job_ended(self) -> None:
        if self._changed is not None:
            self._changed()


class _Job:
    """A running script, and the thread that waits for its end; `status` is replaced by that thread, once."""

    def __init__(
        self, process: subprocess.Popen[bytes], script: JobScript, grace: float, changed: Callable[[], None]
    ) -> None:
        self.status = JobStatus(
            JobState.RUNNING,
            stdout_path=str(script.out),
            stderr_path=str(script.err),
            script_path=str(script.path),
        )
        self._process = process
        self._grace = grace
        self._changed = changed
        self._sent: signal.Signals | None = None  # by us; guarded by `_lock`
        self._reaped = False  # guarded by `_lock`: until then the number of the process is its own
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._watch, name=f"flowcore-job-{process.pid}", daemon=True)
        self._thread.start()

    def join(self, deadline: float) -> bool:
        """Wait until the job has ended and the thread with it, or for `deadline`; True where it has."""
        self._thread.join(max(0.0, deadline - time.monotonic()))
        return not self._thread.is_alive()

    def terminate(self) -> None:
        """Ask the job to end, unless it has been asked before."""
        if self._sent is None:
            self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the job's script; the thread then ends whatever is left."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        with self._lock:
            if not self._reaped:
                self._sent = number
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._process.pid, number)

    def _watch(self) -> None:
        """Wait for the script, end what it leaves behind, and tell."""
        await_exit(self._process)
        first = {None: signal.SIGTERM, signal.SIGTERM: 0}.get(self._sent, signal.SIGKILL)
        try:
            end_session(self._process.pid, first, self._grace)
        except OSError as error:
            logger.warning("cannot tell what job %d left running: %s", self._process.pid, error)
        with self._lock:
            returncode = self._process.wait()
            self._reaped = True
            cancelled = self._sent is not None
        self.status = _final(self.status, returncode, cancelled)
        self._changed()


def _start(script: JobScript) -> subprocess.Popen[bytes]:
    with script.out.open("xb") as out, script.err.open("xb") as err:
        return subprocess.Popen(
            ["/bin/bash", str(script.path)], stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
        )


def _final(status: JobStatus, returncode: int, cancelled: bool) -> JobStatus:
    message = describe_exit(returncode)
    exit_code = 128 - returncode if returncode < 0 else returncode
    if cancelled:
        state, message = JobState.CANCELLED, "cancelled"
    else:
        state = JobState.COMPLETED if returncode == 0 else JobState.FAILED
    return attrs.evolve(status, state=state, message=message, exit_code=exit_code)
