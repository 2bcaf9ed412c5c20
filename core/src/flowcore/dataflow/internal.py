"""The kernel's own threads: they run the bodies of join apps and take parts out of results."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

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

    @contextlib.contextmanager
    def blocked(self) -> Iterator[None]:
        """Let another thread take over while the body that calls this waits for a task, which may need one."""
        with self._lock:
            self._limit += 1
            self._grow()
        try:
            yield
        finally:
            with self._lock:
                self._limit -= 1

    def _serve(self) -> None:
        _serving.pool = self
        super()._serve()


def waiting_for_a_task() -> contextlib.AbstractContextManager[None]:
    """Return the context in which a thread may wait for a task without keeping others from running."""
    pool: InternalThreads | None = getattr(_serving, "pool", None)
    return contextlib.nullcontext() if pool is None else pool.blocked()
