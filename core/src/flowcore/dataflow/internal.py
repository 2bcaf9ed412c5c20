"""The kernel's own threads: they run the bodies of join apps and take parts out of results."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from typing import Any, Final

from flowcore.errors import ShutdownError
from flowcore.futures import TaskFuture

logger = logging.getLogger(__name__)

JOIN_SECONDS: Final = 5.0
"""How long `close` waits for threads that run nothing to end; they need microseconds."""

_Work = tuple[TaskFuture[Any], Callable[..., Any], Mapping[str, Any], tuple[Any, ...]]

_serving = threading.local()
"""Its `pool` is that which the current thread belongs to."""


class InternalThreads:
    """A pool of daemon threads, started as they are needed; daemons, so that a stuck body cannot keep the script alive.

    Args:
        limit: the most threads there may be, apart from those whose bodies wait for a task.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._work: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._lock = threading.Lock()  # guards what follows
        self._threads: list[threading.Thread] = []
        self._busy: set[threading.Thread] = set()
        self._load = 0
        self._blocked = 0
        self._closed = False

    def submit(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Future[Any]:
        """Run `function(*args, **kwargs)` in one of the threads."""
        future: TaskFuture[Any] = TaskFuture()
        with self._lock:
            if self._closed:
                message = "the run is over"
                raise ShutdownError(message)
            self._load += 1
            self._grow()
            self._work.put((future, function, kwargs, args))
        return future

    @contextlib.contextmanager
    def blocked(self) -> Iterator[None]:
        """Let another thread take over while the body that calls this waits for a task, which may need one."""
        with self._lock:
            self._blocked += 1
            self._grow()
        try:
            yield
        finally:
            with self._lock:
                self._blocked -= 1

    def close(self) -> None:
        """Cancel what has not begun and let the threads end; a busy one ends with the body that it runs."""
        with self._lock:
            self._closed = True
            idle = set(self._threads) - self._busy
        with contextlib.suppress(queue.Empty):
            while (work := self._work.get_nowait()) is not None:
                work[0].cancel()
        for _ in self._threads:
            self._work.put(None)
        deadline = time.monotonic() + JOIN_SECONDS
        for thread in idle:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _grow(self) -> None:
        count = len(self._threads)
        if not self._closed and count < min(self._load, self._limit + self._blocked):
            thread = threading.Thread(target=self._serve, name=f"flowcore-internal-{count}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self) -> None:
        _serving.pool = self
        thread = threading.current_thread()
        while (work := self._work.get()) is not None:
            with self._lock:
                self._busy.add(thread)
            try:
                _run(*work)
            except BaseException:  # a callback's exit or interrupt must not cost the pool a thread
                logger.exception("a callback of a task raised")
            del work  # an idle thread keeps no argument and no result alive
            with self._lock:
                self._busy.discard(thread)
                self._load -= 1


def waiting_for_a_task() -> contextlib.AbstractContextManager[None]:
    """Return the context in which a thread may wait for a task without keeping others from running."""
    pool: InternalThreads | None = getattr(_serving, "pool", None)
    return contextlib.nullcontext() if pool is None else pool.blocked()


def _run(
    future: TaskFuture[Any], function: Callable[..., Any], kwargs: Mapping[str, Any], args: tuple[Any, ...]
) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = function(*args, **kwargs)
    except BaseException as error:  # noqa: BLE001 - whatever user code raises belongs to its future
        trace = error.__traceback__
        outcome = error.with_traceback(trace and trace.tb_next)  # this frame refers to the future: a cycle
    else:
        future.set_result(result)
        return
    future.set_exception(outcome)
