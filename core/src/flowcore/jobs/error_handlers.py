"""What to do about failed blocks: functions that look at the blocks and may put their executor out of order."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final, Protocol

from flowcore.jobs.errors import TooManyJobFailuresError
from flowcore.jobs.states import JobState, JobStatus

FAILED: Final = frozenset({JobState.FAILED, JobState.MISSING})


class HasBlocks(Protocol):
    """What a handler needs of an executor; every `BlockExecutor` has it."""

    @property
    def provider(self) -> Any:
        """Where the blocks come from."""

    def connected_blocks(self) -> Collection[str]:
        """Return the ids of the blocks from which a worker has ever connected."""

    def proven_blocks(self) -> Collection[str]:
        """Return the ids of the blocks in which a task has ever come to its end."""

    def set_bad_state_and_fail_all(self, error: Exception) -> None:
        """Put the executor out of order."""


def noop_error_handler(executor: HasBlocks, status: Mapping[str, JobStatus], threshold: int = 3) -> None:
    """Do nothing: the scaling code replaces failed blocks as long as there is work."""
    del executor, status, threshold


def simple_error_handler(executor: HasBlocks, status: Mapping[str, JobStatus], threshold: int = 3) -> None:
    """Put the executor out of order when every block so far has failed, and the newest without finishing a task.

    Blocks that never connected a worker show that something is wrong from the start: `init_blocks` of them are enough
    (one at least, `threshold` at most). If some did connect it takes `threshold` blocks: a node may fail. Blocks up to
    the last one in which a task came to its end do not count: as long as there are such blocks, the work gets done.
    """
    if not status or not all(block.state in FAILED for block in status.values()):
        return
    hopeless = not set(status) & set(executor.connected_blocks())
    enough = min(threshold, max(1, executor.provider.init_blocks)) if hopeless else threshold
    proven = max((int(block_id) for block_id in set(status).intersection(executor.proven_blocks())), default=-1)
    useless = {block_id: block for block_id, block in status.items() if int(block_id) > proven}
    if len(useless) >= enough:
        which = f"the last {len(useless)}" if proven >= 0 else f"all {len(useless)}"
        reason = f"{which} blocks failed" if len(status) > 1 else "the only block failed"
        executor.set_bad_state_and_fail_all(TooManyJobFailuresError(reason, useless))


def windowed_error_handler(executor: HasBlocks, status: Mapping[str, JobStatus], threshold: int = 3) -> None:
    """Put the executor out of order when the `threshold` newest blocks have failed, whatever went before."""
    newest = sorted(status, key=int)[-threshold:]
    if len(newest) == threshold and all(status[block_id].state in FAILED for block_id in newest):
        blocks = {block_id: status[block_id] for block_id in newest}
        executor.set_bad_state_and_fail_all(TooManyJobFailuresError(f"the last {threshold} blocks failed", blocks))
