"""The thread executor keeps the contract of an executor."""

from __future__ import annotations

from flowcore.testing.executors import ExecutorConformance
from flowcore_threads.executor import ThreadPoolExecutor


class TestThreadPoolExecutor(ExecutorConformance):
    def make_executor(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(max_threads=2)
