"""Ray, on a node of its own that its script starts."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any

from systems import System, Task


class Adapter(System):
    """Calls of remote functions."""

    module = "ray"
    dependencies = True

    def start(self, workers: int) -> None:
        """See `System`."""
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        import ray

        self._ray = ray
        ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)

    def app(self, function: Task) -> Task:
        """See `System`."""
        remote: Task = self._ray.remote(function).remote
        return remote

    def results(self, handles: Sequence[Any]) -> list[Any]:
        """See `System`."""
        return list(self._ray.get(list(handles)))

    def stop(self) -> None:
        """See `System`."""
        self._ray.shutdown()
