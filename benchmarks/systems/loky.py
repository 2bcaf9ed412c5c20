"""loky's ProcessPoolExecutor."""

from __future__ import annotations

from systems.pools import Pool


class Adapter(Pool):
    """See `Pool`."""

    module = "loky"

    def start(self, workers: int) -> None:
        """See `System`."""
        from loky import ProcessPoolExecutor

        self.pool = ProcessPoolExecutor(workers)
