"""Blocks that end: asked about until their end is known, and replaced where there is no kernel to do it."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from flowcore_htex.executor import HighThroughputExecutor

logger = logging.getLogger(__name__)

_FIRST: Final = 0.5
_LONGEST: Final = 30.0


class Mender:
    """Does what the kernel's poller does, as little of it as keeps futures from waiting for ever.

    A poller that attaches itself to the executor takes this one's place, but for blocks that are silent or have lost
    their managers. The thread, `flowcore-htex-mender-LABEL`, is started when there is something to do.
    """

    def __init__(self, executor: HighThroughputExecutor) -> None:
        self._executor = executor
        self._lock = threading.Lock()  # guards `_thread`, `_changed`, `_missed` and `_ending`
        self._thread: threading.Thread | None = None
        self._due = threading.Event()
        self._closed = threading.Event()
        self._changed = False
        self._missed: dict[str, float] = {}
        self._ending: dict[str, tuple[float, float]] = {}  # when to ask about a block, and how long to wait after that

    def wake(self) -> None:
        """Have a look at the blocks, soon; called from any thread."""
        with self._lock:
            self._changed = True
            self._start()
        self._due.set()

    def demand(self) -> None:
        """Have a look if there is no block at all; called with each task that the blocks may not be enough for."""
        if self._executor.tally().active == 0:
            self.wake()

    def expect_back(self, block_id: str, seconds: float) -> None:
        """Cancel a block whose managers are silent, so that another can take its place, unless one is back in time."""
        with self._lock:
            self._missed[block_id] = time.monotonic() + seconds
            self._start()
        self._due.set()

    def expect_end(self, block_id: str) -> None:
        """Ask about a block, whose last manager has gone, until the provider knows that it has ended too."""
        with self._lock:
            self._ending[block_id] = (time.monotonic(), _FIRST)
            self._start()
        self._due.set()

    def _start(self) -> None:
        if self._thread is None and not self._closed.is_set():
            name = f"flowcore-htex-mender-{self._executor.label}"
            self._thread = threading.Thread(target=self._run, name=name, daemon=True)
            self._thread.start()

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
            with self._lock:
                times = [*self._missed.values(), *(due for due, _ in self._ending.values())]
            next_time = min(times, default=None)
            self._due.wait(None if next_time is None else max(0.0, next_time - time.monotonic()))
            self._due.clear()
            if self._closed.is_set():
                return
            now = time.monotonic()
            with self._lock:
                changed, self._changed = self._changed, False
                overdue = {block for block, due in self._missed.items() if due <= now}
                for block in overdue:
                    del self._missed[block]
                ending = [block for block, (due, _) in self._ending.items() if due <= now]
            try:
                if gone := overdue - self._executor.served_blocks():
                    self._executor.abandon(sorted(gone))
                if ending:
                    self._ask_about(ending)
                if changed:
                    self._look()
            except Exception:
                logger.exception("executor %s: its blocks cannot be looked after", self._executor.label)

    def _ask_about(self, blocks: list[str]) -> None:
        """Have the provider asked about those of the blocks that have not ended, and again later, ever more rarely."""
        statuses, served = self._executor.status(), self._executor.served_blocks()
        left = {block for block in blocks if block in statuses and not statuses[block].terminal} - served
        with self._lock:
            for block in blocks:
                _, pause = self._ending.pop(block)
                if block in left:
                    self._ending[block] = (time.monotonic() + pause, min(2 * pause, _LONGEST))
        if left:
            self._executor.look_at_blocks()

    def _look(self) -> None:
        executor = self._executor
        if not executor.alone:
            return
        executor.poll()
        executor.handle_errors()
        tally = executor.tally()
        if executor.bad_state_is_set or tally.active or not executor.outstanding():
            return
        if tally.failed_in_row and self._closed.wait(min(0.1 * 2.0 ** min(tally.failed_in_row, 20), _LONGEST)):
            return
        executor.scale_out(1)
        executor.handle_errors()
        if not executor.tally().active and not executor.bad_state_is_set:
            self.wake()  # it was refused: the next look waits longer
