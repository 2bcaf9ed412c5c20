"""The standard library's ProcessPoolExecutor."""

from __future__ import annotations

from systems.pools import Pool


class Adapter(Pool):
    """See `Pool`."""

    module = "concurrent.futures.process"

    def start(self, workers: int) -> None:
        """See `System`."""
        from concurrent.futures import ProcessPoolExecutor

        self.pool = ProcessPoolExecutor(workers)
