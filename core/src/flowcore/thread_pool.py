"""Threads of this process that run calls, and never keep it alive."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import InvalidStateError
from contextlib import suppress
from typing import Any, Final, TypeAlias

from flowcore.errors import ShutdownError
from flowcore.futures import TaskFuture

logger = logging.getLogger(__name__)

JOIN_SECONDS: Final = 5.0
"""How long `close` waits for threads that run nothing to end; they need microseconds."""

_Work: TypeAlias = tuple[TaskFuture[Any], Callable[..., Any], Sequence[Any], Mapping[str, Any]]


class ThreadPool:
    """A pool of threads, started as calls come: daemons, so that a call that never ends cannot keep the script alive.

    Callbacks of a future run in the thread that ran the call. All methods may be called from any thread.

    Args:
        limit: the most threads there may be.
        name: what the names of the threads begin with.
        owner: whose they are, in the errors.
    """

    def __init__(self, limit: int, name: str, owner: str) -> None:
        self._limit = limit
        self._name = name
        self._owner = owner
        self._work: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._unfinished: set[TaskFuture[Any]] = set()  # as the next two, changed by operations that are atomic
        self._queued: set[TaskFuture[Any]] = set()  # or keeping a thread, in their callbacks too
        self._busy: set[threading.Thread] = set()
        self._lock = threading.RLock()  # guards what follows; a signal handler may close the pool while it is held
        self._threads: list[threading.Thread] = []
        self._closed = False

    def submit(self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> TaskFuture[Any]:
        """Run `function(*args, **kwargs)` in the next free thread.

        Raises:
            ShutdownError: the pool is closed.
            RuntimeError: a thread is missing and the system has no more of them.
        """
        future: TaskFuture[Any] = TaskFuture()
        future.add_done_callback(self._unfinished.discard)
        try:
            with self._lock:
                if self._closed:
                    message = f"{self._owner} has been shut down and takes no more tasks"
                    raise ShutdownError(message)
                self._unfinished.add(future)
                self._queued.add(future)
                self._grow()
                self._work.put((future, function, args, kwargs))
        except BaseException:  # an interrupt may come at any time, also after the last of it
            future.cancel()
            self._queued.discard(future)
            raise
        return future

    def __len__(self) -> int:
        """Count the futures that are not done."""
        return len(self._unfinished)

    def close(self) -> None:
        """Fail what is unfinished with a `ShutdownError`, and end the threads; one that runs a call ends after it."""
        with self._lock:
            self._closed = True
            threads = list(self._threads)
        for future in tuple(self._unfinished):
            with suppress(InvalidStateError):  # it finished by itself just now
                future.set_exception(ShutdownError(f"{self._owner} was shut down before this task finished"))
        while not self._work.empty():  # what has failed just now need not be looked at
            with suppress(queue.Empty):
                self._work.get_nowait()
        self._queued.clear()
        for _ in threads:
            self._work.put(None)
        deadline = time.monotonic() + JOIN_SECONDS
        for thread in set(threads) - self._busy:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _grow(self) -> None:
        """Start a thread where one is missing, the lock being held."""
        count = len(self._threads)
        if not self._closed and count < min(len(self._queued), self._limit):
            thread = threading.Thread(target=self._serve, name=f"{self._name}-{count}", daemon=True)
            thread.start()
            self._threads.append(thread)
            if self._closed:  # by a signal handler, just now: it knew nothing of this thread
                self._work.put(None)  # type: ignore[unreachable]  # mypy knows nothing of signal handlers

    def _serve(self) -> None:
        """Run calls until told to end; the body of every thread."""
        thread = threading.current_thread()
        while (work := self._work.get()) is not None:
            self._busy.add(thread)
            try:
                _run(*work)
            except BaseException:  # a callback's exit or interrupt must not cost the pool a thread
                logger.exception("a callback of a task raised")
            self._queued.discard(work[0])
            del work  # an idle thread keeps no argument and no result alive
            self._busy.discard(thread)


def _run(future: TaskFuture[Any], function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    outcome = None
    try:
        with suppress(InvalidStateError):  # the pool was closed, which failed the future already
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = function(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 - whatever a task raises is its outcome
                trace = error.__traceback__
                outcome = error.with_traceback(trace and trace.tb_next)  # this frame is of no interest to anybody
            else:
                future.set_result(result)
                return
            future.set_exception(outcome)
    finally:
        del future, args, kwargs, outcome  # the frames of the error lead back to this one: cycles
