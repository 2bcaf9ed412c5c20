"""Blocks of an executor that is used without a kernel: replaced when they end while there is work."""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from flowcore_htex.executor import HighThroughputExecutor

logger = logging.getLogger(__name__)

_LONGEST: Final = 30.0


class Mender:
    """Does what the kernel's poller does, as little of it as keeps futures from waiting for ever.

    A poller that attaches itself to the executor takes this one's place, but for blocks that are silent. The thread,
    `flowcore-htex-mender-LABEL`, is started when there is something to do.
    """

    def __init__(self, executor: HighThroughputExecutor) -> None:
        self._executor = executor
        self._lock = threading.Lock()  # guards `_thread`
        self._thread: threading.Thread | None = None
        self._due = threading.Event()
        self._closed = threading.Event()
        self._lost: deque[str] = deque()

    def wake(self) -> None:
        """Have a look at the blocks, soon; called from any thread."""
        with self._lock:
            if self._thread is None and not self._closed.is_set():
                name = f"flowcore-htex-mender-{self._executor.label}"
                self._thread = threading.Thread(target=self._run, name=name, daemon=True)
                self._thread.start()
        self._due.set()

    def demand(self) -> None:
        """Have a look if there is no block at all; called with each task that the blocks may not be enough for."""
        if self._executor.tally().active == 0:
            self.wake()

    def abandon(self, block_id: str) -> None:
        """Cancel a block whose managers are silent, so that another can take its place."""
        self._lost.append(block_id)
        self.wake()

    def close(self) -> None:
        """Stop."""
        with self._lock:
            self._closed.set()
            thread = self._thread
        self._due.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        while not self._closed.is_set():
            self._due.wait()
            self._due.clear()
            if self._closed.is_set():
                return
            try:
                self._look()
            except Exception:
                logger.exception("executor %s: its blocks cannot be looked after", self._executor.label)

    def _look(self) -> None:
        executor = self._executor
        while self._lost:
            executor.abandon([self._lost.popleft()])
        if not executor.alone:
            return
        executor.poll()
        executor.handle_errors()
        tally = executor.tally()
        if executor.bad_state_is_set or tally.active or not executor.outstanding():
            return
        if tally.failed_in_row and self._closed.wait(min(0.1 * 2**tally.failed_in_row, _LONGEST)):
            return
        executor.scale_out(1)
        executor.handle_errors()
