"""The contract of an executor whose workers run in blocks that a provider submits."""

from __future__ import annotations

import logging
import math
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final, TypeAlias

from flowcore.errors import ConfigurationError
from flowcore.executors.base import Executor, RunContext
from flowcore.executors.blocks import Blocks
from flowcore.executors.errors import BadStateException, ExecutorError, ScalingFailed
from flowcore.executors.ledger import Tally
from flowcore.jobs.states import JobStatus
from flowcore.providers.base import Provider
from flowcore.providers.errors import ProviderSilent

logger = logging.getLogger(__name__)

BlockErrorHandler: TypeAlias = "Callable[[Any, dict[str, JobStatus]], None]"

SILENT_POLLS: Final = 10
"""Calls of the provider in a row without an answer after which an executor without connected blocks is given up."""

SILENCE: Final = 300.0
"""Seconds that such calls have to span as well: schedulers are restarted, and have their jobs after it."""

END_BOUND: Final = 10.0
"""Seconds that `end_blocks` waits for the provider to say that every job has ended."""


class BlockExecutor(Executor):
    """An executor that gets its workers block by block from a provider.

    It submits, polls and cancels the blocks and remembers how each one ended; the scaling code (`flowcore.jobs`)
    decides how many there should be. All methods may be called from any thread. The methods that a subclass provides,
    the block error handler and the failing of futures run without any lock held; calls of the provider never overlap.

    A subclass calls `start_blocks` at the end of `start`, `raise_if_bad` at the beginning and `notify_demand` at the
    end of `submit`, `end_blocks` in `shutdown`, and `expect_end` when workers say that they are about to end.

    Args:
        label: names the executor within the run.
        provider: where blocks come from; it belongs to this executor.
        block_error_handler: what to do about failed blocks: True for `simple_error_handler`, False for nothing,
            or a function of the executor and its blocks' statuses.
        working_dir: folder into which input files of tasks are staged, as the workers see it.
        storage_access: the staging methods for this executor's files.
    """

    scalable: ClassVar[bool] = True

    def __init__(
        self,
        *,
        label: str,
        provider: Provider,
        block_error_handler: bool | BlockErrorHandler = True,
        working_dir: str | None = None,
        storage_access: Sequence[Any] | None = None,
    ) -> None:
        if not isinstance(provider, Provider):
            raise ConfigurationError(f"executor {label!r}: provider={provider!r} is no provider{_hint(provider)}")
        if not (isinstance(block_error_handler, bool) or callable(block_error_handler)):
            raise ConfigurationError(f"executor {label!r}: block_error_handler is True, False or a function")
        self.label = label
        self.provider = provider
        self.block_error_handler = block_error_handler
        self.working_dir = working_dir
        self.storage_access = storage_access
        self._provider_blocks = Blocks(label, provider, self.block_command, self.connected_blocks, self.hear_workers)
        self._own_script_dir = False
        self._bad_state_lock = threading.RLock()  # guards what follows; but for signal handlers nothing is called then
        self._bad_state: Exception | None = None
        self._demand_limit = math.inf  # wanted slots above which another block would be started
        self._on_demand: Callable[[], None] | None = None
        self._on_jobs_changed: Callable[[], None] | None = None

    # What a subclass provides.

    @abstractmethod
    def block_command(self, block_id: str) -> str:
        """Return the shell text that each node of the block runs; it sets FLOWCORE_BLOCK_ID for itself."""

    @property
    @abstractmethod
    def workers_per_node(self) -> float:
        """How many tasks one node can run at once; an estimate as long as no node has connected."""

    @abstractmethod
    def idle_blocks(self) -> Mapping[str, float]:
        """Return the seconds since the last task ended for each connected block that has no task."""

    @abstractmethod
    def connected_blocks(self) -> Collection[str]:
        """Return the ids of the blocks from which a worker has ever connected; it must not raise."""

    def hear_workers(self) -> None:
        """Wait, a few seconds at most, until all that workers have said before is known; it must not raise.

        It is called when a job has ended from which no worker has come, as far as is known.
        """

    def proven_blocks(self) -> Collection[str]:
        """Return the ids of the blocks in which a task has ever come to its end; none where that is not known.

        `simple_error_handler` forgives the failure of such a block: it had done its work.
        """
        return ()

    def stuck_tasks(self) -> int:
        """How many tasks wait that no connected block will ever have room, or time, for: they need another block.

        Call `notify_demand` when it changes; 0 where that is not known.
        """
        return 0

    @abstractmethod
    def hold_blocks(self, block_ids: Collection[str]) -> Collection[str]:
        """Give these blocks no new task; return those of them that have no task now, and so may be cancelled."""

    @abstractmethod
    def fail_outstanding(self, error: Exception) -> None:
        """Fail every future that is not done with `error`."""

    # What a subclass calls.

    def start_blocks(self, run: RunContext) -> None:
        """Prepare the folder for job scripts, and submit the first blocks.

        Raises:
            ExecutorError: the folder cannot be made.
            ScalingFailed: the provider refused a block; those submitted before it are cancelled.
        """
        if self.provider.script_dir is None:
            self.provider.script_dir = str(run.run_dir / self.label / "submit_scripts")
            self._own_script_dir = True
        try:
            Path(self.provider.script_dir).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ExecutorError(self.label, f"cannot make the folder for job scripts: {error}") from error
        self.provider.watch(self._jobs_changed)
        try:
            self._start_init_blocks()
        except ScalingFailed:
            self.end_blocks()
            raise

    def end_blocks(self) -> None:
        """Cancel every job, and wait until the provider says that they have ended, `END_BOUND` at most; idempotent."""
        self.detach()
        self._provider_blocks.close()
        pause, deadline, delay = threading.Event(), time.monotonic() + END_BOUND, 0.02
        while True:
            answered = self._provider_blocks.cancel(self._provider_blocks.live())
            if answered or time.monotonic() < deadline:
                self._provider_blocks.ask()
            left = self._provider_blocks.unsettled()
            if not left or time.monotonic() >= deadline:
                break
            pause.wait(delay)  # a resource manager takes its time, and only asking it tells
            delay = min(2 * delay, 1.0)
        if left:
            logger.warning("executor %s: jobs that did not end in time: %s", self.label, ", ".join(left))
        if self._own_script_dir:
            self.provider.script_dir, self._own_script_dir = None, False

    def raise_if_bad(self) -> None:
        """Raise if the executor is out of order; `submit` calls it before it does anything else.

        Raises:
            BadStateException: with what put it out of order as its cause.
        """
        error = self._bad_state
        if error is not None:
            raise BadStateException(self.label, str(error)) from error

    def notify_demand(self) -> None:
        """Wake the scaling code if tasks are stuck, or more than the blocks were meant for.

        `submit` calls it when `fail_outstanding` has come to know the new future: should the executor have gone out of
        order since `raise_if_bad`, that future fails with the others.
        """
        error = self._bad_state
        if error is not None:
            self._fail_all(error)
        limit = self._demand_limit
        if limit != math.inf and (self.slots_wanted() > limit or self.stuck_tasks()):
            wake = self._on_demand
            if wake is not None:
                wake()

    def expect_end(self, block_ids: Collection[str], reason: str) -> None:
        """Say that blocks take no more tasks and will end by themselves, so that others can take their place.

        They are not cancelled, and once their jobs have completed their status has the reason.
        """
        if self._provider_blocks.leave(block_ids, reason):
            self._set_demand_limit()
            self._jobs_changed()

    # What the scaling code and users call.

    def scale_out(self, n: int = 1) -> list[str]:
        """Submit up to `n` more blocks, never beyond `max_blocks`, and return their ids.

        A block that the provider refuses is in the list too; its status is FAILED and has the provider's words.
        Where the resource manager does not answer, that block is the last that is tried, and no failure to the block
        error handler. An executor that is out of order or shut down starts none.
        """
        if self._bad_state is not None:
            return []
        started = self._provider_blocks.submit(n)
        self._give_up_after_silence()
        self._set_demand_limit()
        return list(started)

    def scale_in(self, n: int, *, max_idletime: float | None = None) -> list[str]:
        """Cancel up to `n` blocks, and return the ids of those cancelled.

        Blocks without workers go first, then those idle longest. Each gets no new task before it is cancelled;
        one that was given a task at the last moment drains, and is cancelled by a later `poll`.

        Args:
            n: how many.
            max_idletime: take only blocks that have been idle (or without workers) for longer, in seconds; with
                None blocks that run tasks are taken as well if there are not enough others.
        """
        chosen = self._provider_blocks.drain(n, self.idle_blocks(), max_idletime)
        if not chosen:
            return []
        free = self._hold(chosen)
        gone = self._provider_blocks.cancel(chosen if max_idletime is None else free)
        self._set_demand_limit()
        return gone

    def abandon(self, block_ids: Collection[str]) -> list[str]:
        """Cancel blocks whose workers are not heard of any more, so that others can take their place; return their ids.

        What they held is the executor's affair: to report it as lost, or to run it elsewhere.
        """
        gone = self._provider_blocks.cancel(block_ids)
        self._set_demand_limit()
        self._jobs_changed()
        return gone

    def status(self) -> dict[str, JobStatus]:
        """Return what was last known of every block, by block id."""
        return self._provider_blocks.statuses()

    def tally(self) -> Tally:
        """Count the blocks by what may be expected of them."""
        return self._provider_blocks.tally()

    def poll(self) -> dict[str, JobStatus]:
        """Ask the provider about the blocks, cancel those that have drained, and return every block's status.

        A provider that does not answer changes nothing but the messages of the blocks, which say so. When it has not
        for `SILENT_POLLS` times in a row and `SILENCE` seconds, an executor without a single connected block is put out
        of order.
        """
        live = self._provider_blocks.live()
        if self._bad_state is not None:  # looked at afterwards: blocks that `reset` has started are not among them
            self._provider_blocks.cancel(live)
        elif draining := self._provider_blocks.draining():
            self._provider_blocks.cancel(self._hold(draining))
        self._provider_blocks.ask()
        self._give_up_after_silence()
        self._set_demand_limit()
        return self.status()

    def handle_errors(self) -> None:
        """Let the block error handler look at the blocks; it may put the executor out of order."""
        if self._bad_state is not None:
            return
        handler = self.block_error_handler
        if isinstance(handler, bool):
            from flowcore.jobs.error_handlers import noop_error_handler, simple_error_handler

            handler = simple_error_handler if handler else noop_error_handler
        handler(self, self._provider_blocks.answered())

    def set_bad_state_and_fail_all(self, error: Exception) -> None:
        """Put the executor out of order: every task fails with `error`, and blocks are cancelled by the next `poll`.

        The first error stays. `reset` puts the executor in order again.
        """
        with self._bad_state_lock:
            first = self._bad_state is None
            if first:
                self._bad_state = error
            error = self._bad_state or error
            self._demand_limit = math.inf
        if first:
            logger.error("executor %s is out of order: %s", self.label, error)
        self._fail_all(error)
        self._jobs_changed()

    @property
    def bad_state_is_set(self) -> bool:
        """Whether the executor is out of order; `reset` puts it in order again."""
        return self._bad_state is not None

    @property
    def executor_exception(self) -> Exception | None:
        """What put the executor out of order."""
        return self._bad_state

    def reset(self) -> None:
        """Put the executor in order again: forget its error and its dead blocks, and start `init_blocks` anew.

        Raises:
            ScalingFailed: the provider refused a block; the executor is in order without it.
        """
        if self._bad_state is not None:
            self._provider_blocks.cancel(self._provider_blocks.live())
            self._provider_blocks.ask()
        self._provider_blocks.forget_ended()
        with self._bad_state_lock:
            self._bad_state = None
        self._start_init_blocks()
        self._jobs_changed()

    def slots(self) -> float:
        """Tell how many tasks can run at once when there are `max_blocks` blocks."""
        return max(self.provider.max_blocks, 1) * self.slots_per_block()

    def slots_per_block(self) -> float:
        """Tell how many tasks one block can run at once, as far as is known."""
        return self.provider.nodes_per_block * self.workers_per_node

    def attach(
        self, wake: Callable[[], None], changed: Callable[[], None] | None = None, *, demand: bool = True
    ) -> None:
        """Say who is to be told, from any thread and often, when the blocks need attention.

        Args:
            wake: called when there are more tasks than the blocks were meant for.
            changed: called when a job has ended, where the provider can tell; `wake` if None.
            demand: whether `wake` is to be called at all.
        """
        with self._bad_state_lock:
            self._on_demand = wake if demand else None
            self._on_jobs_changed = changed or wake
        self._set_demand_limit()

    def detach(self) -> None:
        """Tell nobody any more."""
        with self._bad_state_lock:
            self._on_demand = self._on_jobs_changed = None
            self._demand_limit = math.inf

    # How it is done.

    def _fail_all(self, error: Exception) -> None:
        failure = BadStateException(self.label, str(error))
        failure.__cause__ = error
        self.fail_outstanding(failure)

    def _start_init_blocks(self) -> None:
        started = self._provider_blocks.submit(self.provider.init_blocks - len(self._provider_blocks.live()))
        self._set_demand_limit()
        for block_id, error in started.items():
            if error is not None:
                raise ScalingFailed(self.label, f"block {block_id}: {error}") from error

    def _hold(self, block_ids: Collection[str]) -> list[str]:
        """Hold blocks, and return those that can be cancelled without loss."""
        free = set(self.hold_blocks(block_ids))
        connected = self.connected_blocks()
        return [block_id for block_id in block_ids if block_id in free or block_id not in connected]

    def _give_up_after_silence(self) -> None:
        silence = self._provider_blocks.silence
        if silence is None or silence.times < SILENT_POLLS or silence.seconds < SILENCE or self._any_connected():
            return
        error = ProviderSilent(self.provider.label, silence.seconds, silence.times, str(silence.error))
        error.__cause__ = silence.error
        self.set_bad_state_and_fail_all(error)

    def _any_connected(self) -> bool:
        return not set(self._provider_blocks.live()).isdisjoint(self.connected_blocks())

    def _jobs_changed(self) -> None:
        changed = self._on_jobs_changed
        if changed is not None:
            changed()

    def _set_demand_limit(self) -> None:
        per_block, tally, provider = self.slots_per_block(), self.tally(), self.provider
        if tally.active + tally.draining >= provider.max_blocks:
            limit = math.inf
        elif tally.active == 0:
            limit = 0
        else:
            limit = tally.active * per_block / provider.parallelism if provider.parallelism else math.inf
        with self._bad_state_lock:
            self._demand_limit = math.inf if self._on_demand is None or self._bad_state is not None else limit


def _hint(provider: object) -> str:
    return f"\n  write provider={provider.__name__ if isinstance(provider, type) else 'LocalProvider'}()"
