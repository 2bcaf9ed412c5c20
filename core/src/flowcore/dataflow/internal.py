"""The kernel's own threads: they run the bodies of join apps and take parts out of results."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

from flowcore.errors import ShutdownError
from flowcore.futures import TaskFuture

_Work = tuple[TaskFuture[Any], Callable[..., Any], Mapping[str, Any], tuple[Any, ...]]


class InternalThreads:
    """A pool of daemon threads, started as they are needed; daemons, so that a stuck body cannot keep the script alive.

    Args:
        limit: the most threads there may be.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._work: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._waiting = 0
        self._closed = False

    def submit(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Future[Any]:
        """Run `function(*args, **kwargs)` in one of the threads."""
        future: TaskFuture[Any] = TaskFuture()
        with self._lock:
            if self._closed:
                message = "the run is over"
                raise ShutdownError(message)
            self._waiting += 1
            if self._waiting > len(self._threads) and len(self._threads) < self._limit:
                name = f"flowcore-internal-{len(self._threads)}"
                thread = threading.Thread(target=self._serve, name=name, daemon=True)
                self._threads.append(thread)
                thread.start()
        self._work.put((future, function, kwargs, args))
        return future

    def close(self) -> None:
        """Let idle threads end; a busy one ends with the body that it runs."""
        with self._lock:
            self._closed = True
            threads = list(self._threads)
        for _ in threads:
            self._work.put(None)

    def _serve(self) -> None:
        while (work := self._work.get()) is not None:
            future, function, kwargs, args = work
            del work
            if future.set_running_or_notify_cancel():
                self._run(future, function, args, kwargs)
            del future, function, args, kwargs
            with self._lock:
                self._waiting -= 1

    @staticmethod
    def _run(
        future: TaskFuture[Any], function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        try:
            result = function(*args, **kwargs)
        except BaseException as error:  # noqa: BLE001 - whatever user code raises belongs to its future
            future.set_exception(error)
        else:
            future.set_result(result)
