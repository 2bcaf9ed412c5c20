"""What flowcore and Parsl share: the names of their public classes, and so one adapter."""

from __future__ import annotations

import importlib
from typing import Any

from systems import System, Task


class Apps(System):
    """Calls of `python_app` on one block of a HighThroughputExecutor."""

    dependencies = True

    def start(self, workers: int) -> None:
        """See `System`."""
        self._package = importlib.import_module(self.module)
        config = importlib.import_module(f"{self.module}.config").Config(executors=[self._executor(workers)])
        self._package.load(config)

    def _executor(self, workers: int) -> Any:
        executors = importlib.import_module(f"{self.module}.executors")
        providers = importlib.import_module(f"{self.module}.providers")
        return executors.HighThroughputExecutor(
            cores_per_worker=0.001,  # the number of workers is what is asked for, whatever this machine has
            encrypted=True,
            max_workers_per_node=workers,
            provider=providers.LocalProvider(init_blocks=1, max_blocks=1),
        )

    def app(self, function: Task) -> Task:
        """See `System`."""
        app: Task = self._package.python_app(function)
        return app

    def stop(self) -> None:
        """See `System`."""
        self._package.dfk().cleanup()
