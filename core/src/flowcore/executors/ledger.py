"""What is known of an executor's blocks: a plain record without threads, clocks or side effects."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Final

import attrs

from flowcore.executors.early_ends import early_end
from flowcore.jobs.states import JobState, JobStatus

FAILED_STATES: Final = frozenset({JobState.FAILED, JobState.MISSING, JobState.TIMEOUT, JobState.CANCELLED})


@attrs.define(eq=False)
class Block:
    """One block, from the moment its number is given out.

    Attributes:
        started: when it was submitted, on the clock of `time.monotonic`.
        job_id: the provider's name for it; None while it is being submitted, and where that failed.
        status: what was last known.
        draining: it gets no new task, and is cancelled when it has none.
        leaves: why it gets no new task and ends by itself; None where it does not.
        settled: the provider has nothing more to say about it.
        unanswered: how many submissions in a row, this one the last, got no answer: no fault of the block. 0 where
            there was one.
        runs_since: when it was first seen to run; infinite before, and when that has been told to be long ago.
    """

    started: float
    job_id: str | None = None
    status: JobStatus = attrs.field(factory=lambda: JobStatus(JobState.PENDING))
    draining: bool = False
    leaves: str | None = None
    settled: bool = False
    unanswered: int = 0
    runs_since: float = math.inf


@attrs.frozen(kw_only=True)
class Tally:
    """The blocks in numbers.

    Attributes:
        active: neither ended nor draining.
        coming: those of them from which no worker has come yet.
        draining: on the way out, whoever wants that, but still there.
        ended: gone, for whatever reason.
        failed_in_row: how many of the newest blocks ended though nobody asked them to.
    """

    active: int
    coming: int
    draining: int
    ended: int
    failed_in_row: int


class Ledger:
    """The blocks by their ids, which are numbers in order of submission; a terminal state never changes."""

    def __init__(self) -> None:
        self.blocks: dict[str, Block] = {}
        self._next = 0

    def reserve(self, now: float) -> str:
        """Open a block that is about to be submitted, and return its id."""
        block_id = str(self._next)
        self._next += 1
        self.blocks[block_id] = Block(started=now)
        return block_id

    def release(self, block_ids: Collection[str]) -> None:
        """Drop blocks that were reserved, and will not be submitted."""
        for block_id in block_ids:
            del self.blocks[block_id]

    def submitted(self, block_id: str, job_id: str) -> None:
        """Record that the provider took the block."""
        self.blocks[block_id].job_id = job_id

    def refused(self, block_id: str, status: JobStatus) -> None:
        """Record that the provider did not take the block: it ends before it began."""
        block = self.blocks[block_id]
        block.status = status
        block.settled = True

    def unheard(self, block_id: str, status: JobStatus) -> None:
        """Record that nobody answered when the block was submitted; it takes the place of the last such one."""
        before = [(i, block.unanswered) for i, block in self.blocks.items() if i != block_id]
        in_row = before[-1][1] if before else 0
        self.release([i for i, unanswered in before if unanswered])
        self.refused(block_id, status)
        self.blocks[block_id].unanswered = in_row + 1

    def judged(self, block_id: str, status: JobStatus) -> JobStatus:
        """Return what the status of a job that has, and had, no worker means for its block."""
        block = self.blocks.get(block_id)
        if not status.terminal or block is None:
            return status
        return _not_needed(status) if block.draining else early_end(status)

    def observe(self, block_id: str, status: JobStatus, now: float) -> bool:
        """Record what the provider says; True where that changes the state."""
        block = self.blocks.get(block_id)
        if block is None or block.settled:
            return False
        block.settled = status.terminal
        if block.status.terminal:
            return False
        changed = block.status.state is not status.state
        if status.state is JobState.COMPLETED and block.leaves is not None:
            status = attrs.evolve(status, message=f"ended: {block.leaves}")
        if changed and status.state is JobState.RUNNING:
            block.runs_since = now
        block.status = status
        return changed

    def drain(self, block_ids: Collection[str]) -> None:
        """Record that these blocks get no new task."""
        for block_id in block_ids:
            self.blocks[block_id].draining = True

    def leave(self, block_ids: Collection[str], reason: str) -> list[str]:
        """Record that these blocks get no new task and end by themselves; return those of which it was not known.

        Those that have completed are not among them: that is why they did, though it is heard of only now.
        """
        news = {i: block for i in block_ids if (block := self.blocks.get(i)) is not None and block.leaves is None}
        for block in news.values():
            if not block.status.terminal or block.status.state is JobState.COMPLETED:
                block.leaves = reason
            if block.status.state is JobState.COMPLETED:
                block.status = attrs.evolve(block.status, message=f"ended: {reason}")
        return [block_id for block_id, block in news.items() if not block.status.terminal]

    def scaled_in(self, block_id: str) -> None:
        """Record that the provider was told, and agreed, to end the block."""
        block = self.blocks[block_id]
        if not block.status.terminal:
            block.status = _not_needed(block.status)

    def unconnected(self, connected: Collection[str], before: float) -> dict[str, JobStatus]:
        """Return the blocks that have run since `before`, or longer, without a worker; each once."""
        late = [i for i, block in self.live().items() if block.runs_since <= before and i not in connected]
        for block_id in late:
            self.blocks[block_id].runs_since = math.inf
        return {block_id: self.blocks[block_id].status for block_id in late}

    def forget_ended(self) -> None:
        """Drop the blocks that have ended; their numbers are not given out again."""
        self.blocks = {i: block for i, block in self.blocks.items() if not (block.status.terminal and block.settled)}

    def live(self) -> dict[str, Block]:
        """Return the blocks that have not ended, oldest first."""
        return {block_id: block for block_id, block in self.blocks.items() if not block.status.terminal}

    def unsettled(self) -> dict[str, str]:
        """Return the job ids, by block, of which the provider has not yet said that they have ended."""
        return {i: block.job_id for i, block in self.blocks.items() if block.job_id is not None and not block.settled}

    def statuses(self) -> dict[str, JobStatus]:
        """Return what was last known, by block id."""
        return {block_id: block.status for block_id, block in self.blocks.items()}

    def answered(self) -> dict[str, JobStatus]:
        """Return what was last known of the blocks, but for those about whose submission nobody answered."""
        return {block_id: block.status for block_id, block in self.blocks.items() if not block.unanswered}

    def tally(self, connected: Collection[str] = ()) -> Tally:
        """Count the blocks, given those that have, or had, a worker."""
        live = self.live()
        active = [block_id for block_id, block in live.items() if not (block.draining or block.leaves is not None)]
        return Tally(
            active=len(active),
            coming=len(set(active).difference(connected)),
            draining=len(live) - len(active),
            ended=len(self.blocks) - len(live),
            failed_in_row=self._failed_in_row(),
        )

    def dispensable(
        self, idle: Mapping[str, float], connected: Collection[str], now: float, min_idle: float | None
    ) -> list[str]:
        """Return the blocks that could be cancelled, those that would be missed least first.

        Blocks without a worker come first, then idle ones, longest first, then those that run tasks.

        Args:
            idle: seconds without a task of the connected blocks that have none.
            connected: blocks that have, or had, a worker.
            now: the time on the clock of `started`.
            min_idle: leave out blocks that run tasks, or that have not been idle for longer than these seconds.
        """
        ranked: list[tuple[int, float, str]] = []
        for block_id, block in self.live().items():
            if block.draining or block.leaves is not None or block.job_id is None:
                continue
            unconnected = block_id not in connected
            seconds = now - block.started if unconnected else idle.get(block_id)
            if min_idle is None or (seconds is not None and seconds > min_idle):
                rank = 2 if seconds is None else 0 if unconnected else 1
                ranked.append((rank, -(seconds or 0), block_id))
        return [block_id for _, _, block_id in sorted(ranked)]

    def _failed_in_row(self) -> int:
        count = 0
        for block in reversed(self.blocks.values()):
            if block.status.state not in FAILED_STATES:
                break
            count += max(block.unanswered, 1)
        return count


def _not_needed(status: JobStatus) -> JobStatus:
    return attrs.evolve(status, state=JobState.SCALED_IN, message="no longer needed")
