"""A block executor whose tasks and workers are moved by hand, for tests of the scaling code."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from flowcore.executors.base import RunContext
from flowcore.executors.block import BlockErrorHandler, BlockExecutor
from flowcore.futures import TaskFuture
from flowcore.providers.base import Provider


class HandRunExecutor(BlockExecutor):
    """Accepts tasks and runs none; a test says which blocks are connected, idle or busy.

    Attributes:
        command: what a block runs.
        workers: tasks at once on each node.
        connected: blocks that have, or had, a worker.
        proven: blocks in which a task has come to its end.
        idle: seconds without a task, by block.
        busy: blocks that have a task when they are held.
        held: blocks that were held.
        tasks: futures of the tasks that are not done.
        size: slots that each of them takes.
        stuck: how many of them no connected block can take.
        grown: set whenever a block has been asked for.
    """

    def __init__(
        self,
        provider: Provider,
        *,
        label: str = "hand",
        command: str = "exec sleep 600",
        workers: float = 1,
        block_error_handler: bool | BlockErrorHandler = True,
    ) -> None:
        super().__init__(label=label, provider=provider, block_error_handler=block_error_handler)
        self.command = command
        self.workers = workers
        self.connected: set[str] = set()
        self.idle: dict[str, float] = {}
        self.busy: set[str] = set()
        self.held: list[str] = []
        self.proven: set[str] = set()
        self.tasks: list[TaskFuture[Any]] = []
        self.size: float = 1
        self.stuck = 0
        self.grown = threading.Event()

    def start(self, run: RunContext) -> None:
        """Start the first blocks."""
        self.start_blocks(run)

    def submit(
        self, func: Callable[..., Any], resource_specification: Mapping[str, Any], /, *args: Any, **kwargs: Any
    ) -> Future[Any]:
        """Accept a task that stays as it is."""
        del func, resource_specification, args, kwargs
        self.raise_if_bad()
        future: TaskFuture[Any] = TaskFuture()
        self.tasks.append(future)
        self.notify_demand()
        return future

    def shutdown(self) -> None:
        """Cancel the blocks."""
        self.end_blocks()

    def outstanding(self) -> int:
        """Count the tasks that are not done."""
        return len(self.tasks)

    def slots_wanted(self) -> float:
        """Count the slots that they take."""
        return self.size * len(self.tasks)

    def stuck_tasks(self) -> int:
        """Return `stuck`."""
        return self.stuck

    def block_command(self, block_id: str) -> str:
        """Return `command`, with the block's id in its environment."""
        self.grown.set()
        return f"export FLOWCORE_BLOCK_ID={block_id}\n{self.command}"

    @property
    def workers_per_node(self) -> float:
        """Return `workers`."""
        return self.workers

    def idle_blocks(self) -> Mapping[str, float]:
        """Return `idle`."""
        return dict(self.idle)

    def connected_blocks(self) -> Collection[str]:
        """Return `connected`."""
        return set(self.connected)

    def proven_blocks(self) -> Collection[str]:
        """Return `proven`."""
        return set(self.proven)

    def hold_blocks(self, block_ids: Collection[str]) -> Collection[str]:
        """Remember the blocks as held, and return those without a task."""
        self.held += block_ids
        return [block_id for block_id in block_ids if block_id in self.connected and block_id not in self.busy]

    def fail_outstanding(self, error: Exception) -> None:
        """Fail every task."""
        for _ in range(len(self.tasks)):  # none that comes meanwhile: the executor may be in order again
            with suppress(IndexError):  # another thread was faster
                self.tasks.pop(0).set_exception(error)
