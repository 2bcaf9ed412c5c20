"""The high-throughput executor keeps the contract of an executor."""

from __future__ import annotations

from flowcore.testing.executors import ExecutorConformance
from flowcore_htex.executor import HighThroughputExecutor


class TestHighThroughputExecutor(ExecutorConformance):
    def make_executor(self) -> HighThroughputExecutor:
        return HighThroughputExecutor(max_workers=2)
