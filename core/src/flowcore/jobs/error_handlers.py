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
    """Put the executor out of order when no block is left, and enough have failed since the last good one.

    A block is good in which a task came to its end, and one that connected a worker and did not fail: as long as there
    are such blocks, the work gets done. Blocks that were given back before they connected do not count. If no block
    ever connected, something is wrong from the start: `init_blocks` failed ones are enough (one at least, `threshold`
    at most). Otherwise it takes `threshold`: a node may fail.
    """
    if not all(block.terminal for block in status.values()):
        return
    connected = set(status).intersection(executor.connected_blocks())
    enough = threshold if connected else min(threshold, max(1, executor.provider.init_blocks))
    proven = set(status).intersection(executor.proven_blocks())
    good = proven | {block_id for block_id in connected if status[block_id].state not in FAILED}
    last_good = max(map(int, good), default=-1)
    useless = {i: block for i, block in status.items() if int(i) > last_good and block.state in FAILED}
    if useless and len(useless) >= enough:
        which = f"all {len(useless)}" if len(useless) == len(status) else f"the last {len(useless)}"
        reason = f"{which} blocks failed" if len(status) > 1 else "the only block failed"
        executor.set_bad_state_and_fail_all(TooManyJobFailuresError(reason, useless))


def windowed_error_handler(executor: HasBlocks, status: Mapping[str, JobStatus], threshold: int = 3) -> None:
    """Put the executor out of order when the `threshold` newest blocks have failed, whatever went before."""
    newest = sorted(status, key=int)[-threshold:]
    if len(newest) == threshold and all(status[block_id].state in FAILED for block_id in newest):
        blocks = {block_id: status[block_id] for block_id in newest}
        executor.set_bad_state_and_fail_all(TooManyJobFailuresError(f"the last {threshold} blocks failed", blocks))
