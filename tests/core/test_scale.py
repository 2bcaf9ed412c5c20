"""Many tasks: no deep recursion, no quadratic time, no memory that a finished task keeps."""

from __future__ import annotations

import gc
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from types import NoneType
from typing import Any

import pytest

from flowcore import join_app, python_app
from flowcore.dataflow.errors import DependencyError
from flowcore.dataflow.kernel import DataFlowKernel
from flowcore.futures import TaskFuture

pytestmark = [pytest.mark.slow, pytest.mark.performance]

BYTES_PER_TASK = 2000
# What takes linear time takes 16 times as long for 16 times the size, or up to three times that: so many tasks fit in
# no cache, and threads wait for each other. What takes quadratic time takes 256 times as long.
LINEAR = 64


@python_app
def increment(x: int) -> int:
    return x + 1


@python_app
def add(*numbers: int) -> int:
    return sum(numbers)


@python_app
def fail() -> int:
    raise ValueError("root")


def chain(length: int, begin: Callable[[], Any]) -> Any:
    future = begin()
    for _ in range(length):
        future = increment(future)
    return future


def fan_in(width: int) -> Any:
    return add(*[increment(number) for number in range(width)])


def seconds(run: Callable[[], Any]) -> float:
    """Measure processor time: what other programs do on the machine does not count."""
    gc.collect()
    start = time.process_time()
    run()
    return time.process_time() - start


def ratio(run: Callable[[int], Any], size: int) -> float:
    """Tell how much longer 16 times the size takes, each at the best of three tries."""
    run(size // 10)
    tries = [(seconds(lambda: run(16 * size)), seconds(lambda: run(size))) for _ in range(3)]
    return min(large for large, _ in tries) / min(small for _, small in tries)


class TestChains:
    def test_of_a_hundred_thousand(self, kernel: DataFlowKernel) -> None:
        assert chain(100_000, lambda: increment(0)).result() == 100_001

    def test_of_a_hundred_thousand_that_begin_later(self, kernel: DataFlowKernel) -> None:
        plain: Future[int] = Future()
        future = chain(100_000, lambda: increment(plain))
        plain.set_result(0)
        assert future.result() == 100_001

    def test_of_a_hundred_thousand_that_fail(self, kernel: DataFlowKernel) -> None:
        error = chain(100_000, fail).exception()
        assert isinstance(error, DependencyError)
        assert isinstance(error.__cause__, ValueError)
        assert len(str(error)) < 1000

    def test_of_thousands_whose_callbacks_wait_for_another_task(self, kernel: DataFlowKernel) -> None:
        release, called = threading.Event(), []
        held, other = python_app(release.wait)(60), TaskFuture[int]()
        awaited = increment(other)
        futures = [python_app(lambda _: 1 / 0)(held)]
        for _ in range(2000):
            futures.append(increment(futures[-1]))
        for future in futures:
            future.add_done_callback(lambda _: called.append(awaited.result()))
        threading.Timer(0.5, other.set_result, [1]).start()
        release.set()
        assert isinstance(futures[-1].exception(60), DependencyError)
        kernel.wait_for_all_tasks()
        assert called == [2] * 2001

    @pytest.mark.parametrize("late", [False, True], ids=["begun", "waiting"])
    @pytest.mark.parametrize("fails", [False, True], ids=["done", "failed"])
    def test_take_linear_time(self, kernel: DataFlowKernel, fails: bool, late: bool) -> None:
        def run(length: int) -> None:
            root: Future[int] = Future()
            end = partial(root.set_exception, ValueError("root")) if fails else partial(root.set_result, 0)
            if not late:
                end()
            future = chain(length, lambda: increment(root))
            if late:
                end()
            assert isinstance(future.exception(), DependencyError if fails else NoneType)
            kernel.wait_for_current_tasks()

        assert ratio(run, 2_000) < LINEAR


class TestFans:
    def test_of_ten_thousand(self, kernel: DataFlowKernel) -> None:
        assert fan_in(10_000).result() == sum(range(10_001))

    def test_out_and_in_again(self, kernel: DataFlowKernel) -> None:
        first = increment(0)
        assert add(*[increment(first) for _ in range(10_000)]).result() == 20_000

    def test_in_a_list_inside_a_list(self, kernel: DataFlowKernel) -> None:
        futures = [[increment(number)] for number in range(10_000)]
        total = python_app(lambda nested: sum(map(sum, nested)))(futures)
        assert total.result() == sum(range(10_001))

    def test_take_linear_time(self, kernel: DataFlowKernel) -> None:
        assert ratio(lambda width: fan_in(width).result(), 2_000) < LINEAR


class TestJoins:
    def test_nested_five_thousand_deep(self, kernel: DataFlowKernel) -> None:
        @join_app
        def down(depth: int) -> Any:
            return increment(0) if depth == 0 else down(depth - 1)

        assert down(5000).result() == 1

    def test_of_ten_thousand(self, kernel: DataFlowKernel) -> None:
        @join_app
        def fan(width: int) -> Any:
            return [increment(number) for number in range(width)]

        assert sum(fan(10_000).result()) == sum(range(10_001))


class TestMemory:
    COUNT = 10_000

    def grown(self, kernel: DataFlowKernel, run: Callable[[], Any]) -> float:
        """Tell how many bytes a task leaves behind where there have been as many at once: no table grows any more."""
        release = threading.Event()
        tracemalloc.start()
        try:
            futures = [python_app(release.wait)(60) for _ in range(4)]
            futures += [increment(number) for number in range(self.COUNT)]
            release.set()
            kernel.wait_for_current_tasks()
            futures.clear()
            gc.collect()
            before = tracemalloc.get_traced_memory()[0]
            kept = run()
            kernel.wait_for_current_tasks()
            gc.collect()
            after = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        del kept
        return (after - before) / self.COUNT

    def test_of_futures_that_are_kept(self, kernel: DataFlowKernel) -> None:
        assert self.grown(kernel, lambda: [increment(number) for number in range(self.COUNT)]) < BYTES_PER_TASK

    def test_of_futures_that_are_dropped(self, kernel: DataFlowKernel) -> None:
        def run() -> None:
            for number in range(self.COUNT):
                increment(number)

        assert self.grown(kernel, run) < 100

    def test_of_a_chain(self, kernel: DataFlowKernel) -> None:
        assert self.grown(kernel, lambda: chain(self.COUNT, lambda: increment(0)).result()) < 100

    def test_of_a_chain_whose_futures_are_kept(self, kernel: DataFlowKernel) -> None:
        def run() -> list[Any]:
            futures = [increment(0)]
            for _ in range(self.COUNT):
                futures.append(increment(futures[-1]))
            return futures

        assert self.grown(kernel, run) < BYTES_PER_TASK

    def test_of_failed_tasks(self, kernel: DataFlowKernel) -> None:
        frames = 500 if sys.version_info < (3, 11) else 0  # an error keeps those that it came through
        assert self.grown(kernel, lambda: [fail() for _ in range(self.COUNT)]) < BYTES_PER_TASK + frames
