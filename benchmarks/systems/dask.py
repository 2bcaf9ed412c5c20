"""Dask's distributed scheduler, with a cluster of single-threaded worker processes."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from typing import Any

from systems import System, Task


class Adapter(System):
    """Calls of `Client.submit`."""

    module = "distributed"
    dependencies = True

    def start(self, workers: int) -> None:
        """See `System`."""
        from distributed import Client, LocalCluster

        self._cluster = LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            memory_limit=0,
            silence_logs=logging.CRITICAL,
        )
        self._client = Client(self._cluster)

    def app(self, function: Task) -> Task:
        """See `System`."""
        return functools.partial(self._client.submit, function, pure=False)

    def results(self, handles: Sequence[Any]) -> list[Any]:
        """See `System`."""
        return list(self._client.gather(list(handles)))

    def stop(self) -> None:
        """See `System`."""
        self._client.close()
        self._cluster.close()
