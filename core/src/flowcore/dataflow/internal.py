"""The kernel's own threads: they run the bodies of join apps and take parts out of results."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

from flowcore.thread_pool import ThreadPool

_serving = threading.local()
"""Its `pool` is that which the current thread belongs to."""


class InternalThreads(ThreadPool):
    """The threads of one run.

    Args:
        limit: the most threads there may be, apart from those whose bodies wait for a task.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(limit, "flowcore-internal", "the run")
        self._waits: Counter[int] = Counter()  # for how many tasks each thread waits; guarded by the pool's lock

    @contextlib.contextmanager
    def blocked(self) -> Iterator[None]:
        """Let another thread take over while the body that calls this waits for a task, which may need one.

        A body that awaits several tasks at once enters this for each; it makes room for one thread all the same.
        """
        waiting = threading.get_ident()  # what is not awaited to its end may be closed in another thread
        try:
            with self._lock:
                self._waits[waiting] += 1
                if self._waits[waiting] == 1:
                    self._limit += 1
                    self._grow()
            yield
        finally:
            with self._lock:
                self._waits[waiting] -= 1
                if not self._waits[waiting]:
                    del self._waits[waiting]
                    self._limit -= 1

    def _serve(self) -> None:
        _serving.pool = self
        super()._serve()


class Waiters(list[Any]):
    """Those that wait for one future: `concurrent.futures.wait` and `as_completed` append them, and remove them."""

    def __init__(self) -> None:
        super().__init__()
        self._waits: dict[int, contextlib.AbstractContextManager[None]] = {}

    def append(self, waiter: Any) -> None:
        """Note the waiter; the thread that calls this waits from now on."""
        super().append(waiter)
        wait = self._waits[id(waiter)] = waiting_for_a_task()
        wait.__enter__()

    def remove(self, waiter: Any) -> None:
        """Forget the waiter."""
        super().remove(waiter)
        self._waits.pop(id(waiter)).__exit__(None, None, None)


def waiting_for_a_task() -> contextlib.AbstractContextManager[None]:
    """Return the context in which a thread may wait for a task without keeping others from running."""
    pool: InternalThreads | None = getattr(_serving, "pool", None)
    return contextlib.nullcontext() if pool is None else pool.blocked()
