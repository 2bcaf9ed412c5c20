"""The high-throughput executor keeps the contract of an executor."""

from __future__ import annotations

from flowcore.executors.base import Executor
from flowcore.testing.executors import ExecutorConformance
from flowcore_htex.executor import HighThroughputExecutor


class TestHighThroughputExecutor(ExecutorConformance):
    def make_executor(self) -> HighThroughputExecutor:
        return HighThroughputExecutor(max_workers=2)

    def cancellations_have_arrived(self, executor: Executor) -> bool:
        """A manager has tasks that wait for its workers; nothing but those that the workers hold is to be left."""
        assert isinstance(executor, HighThroughputExecutor)
        return sum(manager["tasks"] for manager in executor.connected_managers()) == executor.slots()
