"""The executor keeps the contract."""

from __future__ import annotations

from flowcore.testing.executors import ExecutorConformance

from flowcore_acme.executor import AcmeExecutor


class TestAcmeExecutor(ExecutorConformance):
    """Inherits the tests of what every executor must do."""

    def make_executor(self) -> AcmeExecutor:
        """Return a new executor that was not started."""
        return AcmeExecutor(max_workers=2)
