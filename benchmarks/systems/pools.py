"""What the pools of worker processes share: the interface of `concurrent.futures`."""

from __future__ import annotations

import functools
from concurrent.futures import Executor

from systems import System, Task


class Pool(System):
    """Calls of `submit`."""

    pool: Executor

    def app(self, function: Task) -> Task:
        """See `System`."""
        return functools.partial(self.pool.submit, function)

    def stop(self) -> None:
        """See `System`."""
        self.pool.shutdown()
