"""The thread that keeps the blocks of all executors under review: polls, error handling, scaling."""

from __future__ import annotations

import logging
import math
import threading
import time
from typing import Final

from flowcore.errors import ConfigurationError
from flowcore.executors.block import BlockExecutor
from flowcore.jobs.errors import JobFailure
from flowcore.jobs.strategy import Snapshot, Strategy, named, none, respite

logger = logging.getLogger(__name__)

COALESCE: Final = 0.05
"""Seconds within which further demand does not start another review."""

FAILED_REVIEWS: Final = 10
"""Reviews in a row that may raise before the executor is put out of order."""


class JobStatusPoller:
    """Reviews the blocks of scalable executors from one thread, which sleeps until there is something to do.

    It wakes when a provider's `status_polling_interval` or the strategy's period has passed, when a provider tells that
    a job has ended, and when an executor gets more tasks than its blocks were meant for.

    Args:
        strategy: 'none', 'simple' or 'htex_auto_scale'; None means 'none'.
        max_idletime: seconds without work after which blocks are given back.
        strategy_period: seconds between two looks at how many blocks there should be; demand does not wait for it.

    Raises:
        ConfigurationError: there is no such strategy, or a time is not positive.
    """

    def __init__(
        self, strategy: str | None = "simple", max_idletime: float = 120.0, strategy_period: float = 5.0
    ) -> None:
        self._strategy = named(strategy)
        if max_idletime < 0 or strategy_period <= 0:
            raise ConfigurationError(f"max_idletime={max_idletime} or strategy_period={strategy_period} is no duration")
        self._max_idletime = max_idletime
        self._strategy_period = strategy_period
        self._lock = threading.Lock()  # guards `_reviews`
        self._reviews: dict[str, _Review] = {}
        self._awake = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None

    def add(self, executor: BlockExecutor) -> None:
        """Keep the blocks of this executor under review, from now on; it has been started."""
        review = _Review(executor, self._strategy, self._max_idletime, self._strategy_period, self._awake)
        with self._lock:
            if self._closed:
                raise RuntimeError("the poller is closed")
            self._reviews[executor.label] = review
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="flowcore-poller-blocks", daemon=True)
                self._thread.start()
        self._awake.set()

    def remove(self, executor: BlockExecutor) -> None:
        """Leave the blocks of this executor alone from now on; a review that has begun may still end."""
        executor.detach()
        with self._lock:
            self._reviews.pop(executor.label, None)

    def close(self, timeout: float = 30.0) -> None:
        """Stop, and wait for a review that has begun, `timeout` seconds at most; idempotent. Blocks stay."""
        with self._lock:
            self._closed = True
            reviews = list(self._reviews.values())
            self._reviews.clear()
        for review in reviews:
            review.executor.detach()
        self._awake.set()
        if self._thread is not None:
            self._thread.join(timeout)
            if self._thread.is_alive():
                logger.warning("a provider has not answered for %g s; its thread is left behind", timeout)

    def _run(self) -> None:
        while True:
            self._awake.clear()
            if self._closed:  # looked at afterwards: `close` may have been called just before that
                return
            with self._lock:
                reviews = list(self._reviews.values())
            due = min((review.turn() for review in reviews), default=math.inf)
            seconds = None if due == math.inf else max(0.0, due - time.monotonic())
            self._awake.wait(seconds)


class _Review:
    """What the poller knows of one executor; only the poller's thread changes it, but for the two flags."""

    def __init__(
        self,
        executor: BlockExecutor,
        strategy: Strategy,
        max_idletime: float,
        period: float,
        awake: threading.Event,
    ) -> None:
        self.executor = executor
        self._strategy = strategy
        self._max_idletime = max_idletime
        self._period = period
        self._awake = awake
        self._demand = False  # set by any thread
        self._jobs_changed = False  # set by any thread
        self._next_poll = -math.inf
        self._next_scaling = -math.inf
        self._last_scaling = -math.inf
        self._last_scale_out = -math.inf
        self._unused_since: float | None = None
        self._failures = 0
        executor.attach(self._on_demand, self._on_jobs_changed, demand=strategy is not none)

    def turn(self) -> float:
        """Do what is due, and return when something will be due again."""
        try:
            self._review(time.monotonic())
            self._failures = 0
        except Exception as error:
            self._failures += 1
            self._next_poll = self._next_scaling = time.monotonic() + self._period
            logger.exception("executor %s: review of its blocks, failure %d", self.executor.label, self._failures)
            if self._failures == FAILED_REVIEWS:
                self.executor.set_bad_state_and_fail_all(error)
        return min(self._next_poll, self._next_scaling)

    def _on_demand(self) -> None:
        if not self._demand:
            self._demand = True
            self._awake.set()

    def _on_jobs_changed(self) -> None:
        self._jobs_changed = True
        self._awake.set()

    def _review(self, now: float) -> None:
        if self._jobs_changed or now >= self._next_poll:
            self._jobs_changed = False
            self._next_poll = now + self.executor.provider.status_polling_interval
            self.executor.poll()
            self.executor.handle_errors()
            self._next_scaling = now
        if self._demand:
            self._next_scaling = min(self._next_scaling, self._last_scaling + COALESCE)
        if now >= self._next_scaling:
            self._demand = False
            self._last_scaling = now
            self._next_scaling = now + self._period
            self._scale(now)

    def _scale(self, now: float) -> None:
        executor, snapshot = self.executor, self._snapshot(now)
        if executor.bad_state_is_set:
            return
        if self._strategy is none and _stranded(snapshot):
            executor.set_bad_state_and_fail_all(
                JobFailure("the last block has ended, and strategy 'none' starts no other")
            )
            return
        decision = self._strategy(snapshot, self._max_idletime)
        if decision.scale_in:
            executor.scale_in(decision.scale_in, max_idletime=self._max_idletime)
        elif decision.scale_out:
            allowed = self._last_scale_out + respite(executor.tally().failed_in_row, self._period)
            if now < allowed:
                self._next_scaling = min(self._next_scaling, allowed)
                return
            self._last_scale_out = now
            executor.scale_out(decision.scale_out)
            self._next_poll = min(self._next_poll, now + executor.provider.status_polling_interval)
            executor.handle_errors()  # a block may have been refused, and will not be heard of again

    def _snapshot(self, now: float) -> Snapshot:
        executor, provider, tally = self.executor, self.executor.provider, self.executor.tally()
        tasks = executor.slots_wanted()
        if tasks:
            self._unused_since = None
        elif self._unused_since is None:
            self._unused_since = now
        return Snapshot(
            tasks=tasks,
            stuck=executor.stuck_tasks(),
            active=tally.active,
            coming=tally.coming,
            draining=tally.draining,
            ended=tally.ended,
            slots_per_block=executor.slots_per_block(),
            unused=0 if self._unused_since is None else now - self._unused_since,
            min_blocks=provider.min_blocks,
            max_blocks=provider.max_blocks,
            parallelism=provider.parallelism,
        )


def _stranded(snapshot: Snapshot) -> bool:
    """Whether tasks wait for blocks that will never come."""
    return snapshot.tasks > 0 and snapshot.ended > 0 and snapshot.active + snapshot.draining == 0
