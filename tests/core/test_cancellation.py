"""Cancelling: always before a task runs, afterwards where its executor can; dependents fail; races have one winner."""

from __future__ import annotations

import concurrent.futures
import itertools
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError
from typing import Any

import pytest
from tests.core.conftest import Load

from flowcore import join_app, python_app
from flowcore.dataflow.course import Course
from flowcore.dataflow.errors import DependencyError
from flowcore.dataflow.futures import AppFuture
from flowcore.dataflow.kernel import DataFlowKernel
from flowcore.dataflow.tasks import States
from flowcore.executors import ThreadPoolExecutor
from flowcore.executors.base import Executor, RunContext
from flowcore.futures import TaskFuture


@python_app
def same(value: Any) -> Any:
    return value


class Stoppable(Executor):
    """Runs nothing; its tasks can be cancelled although they run."""

    cancels_running = True

    def __init__(self, label: str = "stoppable") -> None:
        self.label = label
        self.futures: list[_Running] = []

    def start(self, run: RunContext) -> None: ...

    def submit(
        self, func: Callable[..., Any], resource_specification: Mapping[str, Any], /, *args: Any, **kwargs: Any
    ) -> TaskFuture[Any]:
        self.futures.append(_Running())
        return self.futures[-1]

    def shutdown(self) -> None:
        for future in self.futures:
            future.cancel()

    def outstanding(self) -> int:
        return sum(not future.done() for future in self.futures)


class _Running(TaskFuture[Any]):
    def running(self) -> bool:
        return not self.done()


class Joining:
    """Sees a join app begin to wait for what it joins."""

    def __init__(self) -> None:
        self.seen = threading.Event()

    def flowcore_task_changed(self, state: States, **_: Any) -> None:
        if state is States.joining:
            self.seen.set()


@pytest.fixture
def joining() -> Joining:
    return Joining()


@pytest.fixture
def held(load: Load, joining: Joining) -> Any:
    """A run whose only thread is busy until the event is set."""
    load(executors=[ThreadPoolExecutor(max_threads=1)], monitoring=joining)
    event = threading.Event()
    started = threading.Event()

    @python_app
    def hold() -> None:
        started.set()
        event.wait(600)

    future = hold()
    assert started.wait(60)
    yield future
    event.set()


class TestBeforeItRuns:
    def test_a_queued_task(self, held: Any) -> None:
        ran: list[int] = []
        future = python_app(ran.append)(1)
        assert future.cancel()
        assert future.cancelled()
        assert future.done()
        assert future.task_status() == "cancelled"
        with pytest.raises(CancelledError):
            future.result()
        assert ran == []

    def test_a_task_that_waits_for_another(self, held: Any) -> None:
        future = same(held)
        assert future.cancel()
        assert future.cancelled()

    def test_again(self, held: Any) -> None:
        future = same(held)
        assert future.cancel()
        assert future.cancel()

    def test_dependents_fail_with_the_cancellation_as_cause(self, held: Any) -> None:
        future = same(held)
        second = same([future])
        third = same(second)
        future.cancel()
        error = third.exception(timeout=60)
        assert isinstance(error, DependencyError)
        assert isinstance(error.__cause__, CancelledError)
        assert "via task 2 <- task 1" in str(error)

    def test_what_it_waited_for_goes_on(self, held: Any, load: Load) -> None:
        same(held).cancel()
        assert not held.done()

    def test_waiters_are_woken(self, held: Any) -> None:
        futures = [same(held) for _ in range(5)]
        for future in futures:
            future.cancel()
        assert concurrent.futures.wait(futures, timeout=60).done == set(futures)


class TestAfterItBegan:
    def test_a_thread_cannot_be_stopped(self, held: Any) -> None:
        assert not held.cancel()
        assert not held.cancelled()
        assert not held.done()

    def test_where_the_executor_can_it_is(self, load: Load) -> None:
        executor = Stoppable()
        load(executors=[executor])
        future = same(1)
        assert future.running()
        assert future.cancel()
        assert future.cancelled()
        assert executor.futures[0].cancelled()

    def test_an_executor_that_cancels_by_itself_cancels_the_task(self, load: Load) -> None:
        executor = Stoppable()
        load(executors=[executor])
        future = same(1)
        executor.futures[0].cancel()
        assert future.cancelled()
        assert future.task_status() == "cancelled"

    def test_a_finished_task_stays_finished(self, kernel: DataFlowKernel) -> None:
        future = same(1)
        future.result()
        assert not future.cancel()
        assert future.result() == 1


class TestJoinApps:
    def test_cancelling_one_cancels_what_it_joins(self, held: Any, joining: Joining) -> None:
        inner: list[Any] = []

        @join_app
        def fan() -> Any:
            inner.extend(same(held) for _ in range(3))
            return inner

        future = fan()
        assert joining.seen.wait(60)
        assert future.cancel()
        assert future.cancelled()
        assert all(one.cancelled() for one in inner)

    def test_cancelling_one_cancels_what_it_begins_to_join_meanwhile(self, held: Any, joining: Joining) -> None:
        returns = threading.Event()
        inner: list[Any] = []

        @join_app
        def fan() -> Any:
            returns.wait(600)
            inner.append(same(held))
            return inner

        future = fan()
        lines = itertools.count()

        def step(_frame: Any, event: str, _: Any) -> Any:
            if event == "line" and next(lines) == 1:  # the second one
                returns.set()
                assert joining.seen.wait(60)
            return step

        before = sys.gettrace()
        sys.settrace(lambda frame, *_: step if frame.f_code is Course.cancel.__code__ else None)
        try:
            assert future.cancel()
        finally:
            sys.settrace(before)
        assert inner[0].cancelled()

    def test_cancelling_what_it_joins_fails_it(self, held: Any, joining: Joining) -> None:
        inner = same(held)
        future = join_app(lambda: [inner])()
        assert joining.seen.wait(60)
        inner.cancel()
        assert isinstance(future.exception(timeout=60), Exception)
        assert not future.cancelled()


class TestRaces:
    def test_with_the_end_of_the_task(self, load: Load) -> None:
        kernel = load(executors=[ThreadPoolExecutor(max_threads=2)])
        futures = []
        for number in range(2000):
            future = same(number)
            futures.append((number, future, future.cancel()))
        for number, future, cancelled in futures:
            if cancelled:
                assert future.cancelled()
            else:
                assert future.result(timeout=60) == number
        kernel.wait_for_current_tasks()
        assert kernel.unfinished_count() == 0

    def test_with_the_end_of_what_it_waits_for(self, kernel: DataFlowKernel) -> None:
        for number in range(500):
            plain: concurrent.futures.Future[int] = concurrent.futures.Future()
            future = same(plain)
            thread = threading.Thread(target=plain.set_result, args=(number,))
            thread.start()
            cancelled = future.cancel()
            thread.join()
            assert future.cancelled() is cancelled
            if not cancelled:
                assert future.result(timeout=60) == number

    def test_of_many_threads_all_agree(self, load: Load) -> None:
        load(executors=[ThreadPoolExecutor(max_threads=1)])
        for _ in range(100):
            plain: concurrent.futures.Future[int] = concurrent.futures.Future()
            future = same(plain)
            barrier, answers = threading.Barrier(4), []

            def cancel(future: Any = future, barrier: Any = barrier, answers: Any = answers) -> None:
                barrier.wait()
                answers.append(future.cancel())

            threads = [threading.Thread(target=cancel) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert answers == [True] * 4
            plain.set_result(1)

    def test_who_is_told_that_it_is_cancelled_finds_it_so(self, load: Load) -> None:
        told, looked = threading.Event(), threading.Event()

        class Slow:
            def flowcore_task_changed(self, state: States, **_: Any) -> None:
                if state is States.cancelled:
                    told.set()
                    looked.wait(600)

        load(monitoring=Slow())
        future = same(concurrent.futures.Future())
        first = threading.Thread(target=future.cancel)
        first.start()
        assert told.wait(60)
        try:
            assert (future.cancel(), future.cancelled()) == (True, True)
        finally:
            looked.set()
            first.join()

    def test_a_cancelled_task_keeps_no_argument(self, held: Any) -> None:
        import weakref

        class Argument(list[int]):
            pass

        argument = Argument()
        reference = weakref.ref(argument)
        future = python_app(lambda *_: None)(held, argument)
        del argument
        future.cancel()
        assert reference() is None


def test_an_interrupt_while_a_task_is_cancelled_leaves_no_future_that_is_never_done(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: AppFuture[Any]) -> None:
        raise KeyboardInterrupt

    load(executors=[Stoppable()])
    future = same(1)
    monkeypatch.setattr(AppFuture, "mark_cancelled", interrupt)
    with pytest.raises(KeyboardInterrupt):
        future.cancel()
    assert "interrupted" in str(future.exception(60))
