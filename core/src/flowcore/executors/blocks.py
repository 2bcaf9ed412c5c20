"""The blocks of one executor: submitted, polled and cancelled through its provider, one call at a time."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import Final

import attrs

from flowcore.executors.errors import ScalingFailed
from flowcore.executors.ledger import FAILED_STATES, Ledger, Tally
from flowcore.executors.silence import Silence, is_unanswered
from flowcore.jobs.states import JobState, JobStatus
from flowcore.providers.base import Provider
from flowcore.providers.errors import SubmitException

logger = logging.getLogger(__name__)


CHANGE: Final = "executor %s: block %s is %s"

UNCONNECTED: Final = 120.0
"""Seconds for which a job may run without a worker before the log says so."""


class Blocks:
    """The only caller of a provider. All methods may be called from any thread.

    Args:
        label: of the executor, for log lines and job names.
        provider: where blocks come from.
        command: returns the shell text for a block id.
        connected: returns the ids of blocks that have, or had, a worker.
        hear: waits until what workers have said is known; called before a job without one is said to have ended early.
    """

    def __init__(
        self,
        label: str,
        provider: Provider,
        command: Callable[[str], str],
        connected: Callable[[], Collection[str]],
        hear: Callable[[], None] = lambda: None,
    ) -> None:
        self._label = label
        self._provider = provider
        self._command = command
        self._connected = connected
        self._hear = hear
        self._calls = threading.Lock()  # held during calls of the provider; taken before `_lock`, never after
        self._lock = threading.RLock()  # guards `_ledger`; nothing but a signal handler is called while it is held
        self._ledger = Ledger()
        self._open = True
        self.silence: Silence | None = None  # since the provider last answered; written under `_calls`

    def close(self) -> None:
        """Submit nothing from now on."""
        self._open = False

    def live(self) -> list[str]:
        """Return the ids of the blocks that have not ended, oldest first."""
        with self._lock:
            return list(self._ledger.live())

    def draining(self) -> list[str]:
        """Return the ids of the blocks that are to be cancelled when they have no task."""
        with self._lock:
            return [block_id for block_id, block in self._ledger.live().items() if block.draining]

    def unsettled(self) -> list[str]:
        """Return the ids of the jobs of which the provider has not said that they have ended."""
        with self._lock:
            return list(self._ledger.unsettled().values())

    def statuses(self) -> dict[str, JobStatus]:
        """Return what was last known of every block; one that has a worker runs, whatever the provider said before."""
        with self._lock:
            statuses = self._ledger.statuses()
        return self._seen(statuses)

    def answered(self) -> dict[str, JobStatus]:
        """Return `statuses`, but for the blocks about whose submission nobody answered."""
        with self._lock:
            statuses = self._ledger.answered()
        return self._seen(statuses)

    def tally(self) -> Tally:
        """Count the blocks."""
        connected = self._connected()
        with self._lock:
            return self._ledger.tally(connected)

    def forget_ended(self) -> None:
        """Drop what is known of blocks that have ended, and of failed status calls."""
        with self._lock:
            self._ledger.forget_ended()
        with self._calls:
            self.silence = None

    def drain(self, n: int, idle: Mapping[str, float], min_idle: float | None) -> list[str]:
        """Choose up to `n` blocks, as `Ledger.dispensable` orders them, and mark them as draining."""
        connected = self._connected()
        with self._lock:
            chosen = self._ledger.dispensable(idle, connected, time.monotonic(), min_idle)[: max(n, 0)]
            self._ledger.drain(chosen)
        return chosen

    def leave(self, block_ids: Collection[str], reason: str) -> bool:
        """Note that blocks get no new task and end by themselves; whether that was news."""
        with self._lock:
            leaving = self._ledger.leave(block_ids, reason)
        for block_id in leaving:
            logger.info("executor %s: block %s takes no more tasks: %s", self._label, block_id, reason)
        return bool(leaving)

    def submit(self, n: int) -> dict[str, Exception | None]:
        """Submit up to `n` blocks, as far as `max_blocks` allows; return their ids, with an error where refused.

        The first about which nobody answers is the last that is tried.
        """
        with self._lock:
            room = self._provider.max_blocks - len(self._ledger.live())
            wanted = min(n, room) if self._open else 0
            block_ids = [self._ledger.reserve(time.monotonic()) for _ in range(wanted)]
        outcomes: dict[str, Exception | None] = {}
        for number, block_id in enumerate(block_ids):
            try:
                outcomes[block_id] = error = self._submit(block_id)
            except BaseException:  # Ctrl-C: what has no job is no block
                with self._lock:
                    self._ledger.release([i for i in block_ids[number:] if self._ledger.blocks[i].job_id is None])
                raise
            if is_unanswered(error):
                with self._lock:
                    self._ledger.release(block_ids[number + 1 :])
                break
        return outcomes

    def cancel(self, block_ids: Collection[str]) -> list[str]:
        """Let the provider end these blocks, and return those that it agreed to end."""
        with self._calls:
            with self._lock:
                live = self._ledger.live()
                jobs = {i: block.job_id for i in block_ids if (block := live.get(i)) and block.job_id is not None}
            if not jobs:
                return []
            try:
                answers = self._provider.cancel(list(jobs.values()))
                gone = [block_id for block_id, answer in zip(jobs, answers, strict=True) if answer]
            except Exception as error:  # noqa: BLE001 - a provider is foreign code; the blocks stay, and are tried again
                logger.warning("executor %s: cannot cancel jobs: %s", self._label, error)
                return []
            with self._lock:
                for block_id in gone:
                    self._ledger.scaled_in(block_id)
        for block_id in gone:
            logger.info("executor %s: block %s was cancelled", self._label, block_id)
        return gone

    def ask(self) -> Exception | None:
        """Ask the provider about every job that may still change; return its failure if it does not answer."""
        with self._calls:
            with self._lock:
                jobs = self._ledger.unsettled()
            if not jobs:
                return None
            try:
                answers = dict(zip(jobs, self._provider.status(list(jobs.values())), strict=True))
            except Exception as error:  # noqa: BLE001 - a provider is foreign code, and may answer next time
                times = self._unheard(error)
                logger.warning("executor %s: no job status, time %d: %s", self._label, times, error)
                return error
            self.silence = None
        self._record(answers)
        return None

    def _submit(self, block_id: str) -> Exception | None:
        name = re.sub(r"[^A-Za-z0-9._-]", "_", f"flowcore.{self._label}.block-{block_id}")
        try:
            command = self._command(block_id)
            with self._calls:
                if not self._open:
                    raise ScalingFailed(self._label, "it has been shut down")
                job_id = self._provider.submit(command, 1, name)
                if not job_id:
                    raise SubmitException(name, "the provider gave no job id")
                with self._lock:
                    self._ledger.submitted(block_id, job_id)
                self.silence = None
        except Exception as error:  # noqa: BLE001 - a provider is foreign code, and its failure is the block's status
            self._not_submitted(block_id, error)
            return error
        logger.info("executor %s: block %s is job %s", self._label, block_id, job_id)
        return None

    def _not_submitted(self, block_id: str, error: Exception) -> None:
        status = JobStatus(JobState.FAILED, str(error), exit_code=getattr(error, "retcode", None))
        with self._calls:
            if is_unanswered(error):
                self._unheard(error)
                with self._lock:
                    self._ledger.unheard(block_id, status)
            else:
                with self._lock:
                    self._ledger.refused(block_id, status)
        logger.warning("executor %s: block %s was not submitted: %s", self._label, block_id, error)

    def _unheard(self, error: Exception) -> int:
        """Note, under `_calls`, that a call got no answer; return how many in a row did not."""
        self.silence = Silence.after(self.silence, error)
        return self.silence.times

    def _record(self, answers: Mapping[str, JobStatus]) -> None:
        connected = self._connected()
        if any(status.terminal and block_id not in connected for block_id, status in answers.items()):
            self._hear()
            connected = self._connected()
        now = time.monotonic()
        for block_id, status in answers.items():
            with self._lock:
                seen = status if block_id in connected else self._ledger.judged(block_id, status)
                changed = self._ledger.observe(block_id, seen, now)
                seen = self._ledger.blocks[block_id].status if changed else seen
            if changed:
                failed = seen.state in FAILED_STATES
                said = seen.report() if failed else str(seen)
                logger.log(logging.WARNING if failed else logging.INFO, CHANGE, self._label, block_id, said)
        with self._lock:
            late = self._ledger.unconnected(connected, now - UNCONNECTED)
        for block_id, status in late.items():
            told = "executor %s: block %s has sent no worker for %g s; it is %s"
            logger.warning(told, self._label, block_id, UNCONNECTED, status.report())

    def _seen(self, statuses: Mapping[str, JobStatus]) -> dict[str, JobStatus]:
        connected, silence = self._connected(), self.silence
        return {i: _seen(status, i in connected, silence) for i, status in statuses.items()}


def _seen(status: JobStatus, connected: bool, silence: Silence | None) -> JobStatus:
    if status.terminal:
        return status
    if connected and status.state is JobState.PENDING:
        status = attrs.evolve(status, state=JobState.RUNNING, message=None)
    return status if silence is None else attrs.evolve(status, message=str(silence))
