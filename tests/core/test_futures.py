"""A `TaskFuture` behaves as the standard library's future does; the same checks run against both."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import pickle
import signal
import sys
import threading
import time
import weakref
from concurrent.futures import CancelledError, Future, InvalidStateError
from typing import Any

import pytest

from flowcore.futures import TaskFuture

Kind = type[Future[Any]]


@pytest.fixture(params=[TaskFuture, Future], ids=["flowcore", "stdlib"])
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


def in_thread(function: Any, *args: Any) -> threading.Thread:
    thread = threading.Thread(target=function, args=args, name="flowcore-test")
    thread.start()
    return thread


class TestOutcome:
    def test_a_new_future_has_none(self, kind: Kind) -> None:
        future = kind()
        assert not future.done()
        assert not future.running()
        assert not future.cancelled()

    def test_a_result_is_returned(self, kind: Kind) -> None:
        future = kind()
        future.set_result(None)
        assert future.done()
        assert future.result() is None
        assert future.exception() is None

    def test_an_exception_is_raised_as_the_very_object(self, kind: Kind) -> None:
        future, error = kind(), KeyError("x")
        future.set_exception(error)
        with pytest.raises(KeyError) as caught:
            future.result()
        assert caught.value is error
        assert future.exception() is error

    def test_a_running_future_can_finish(self, kind: Kind) -> None:
        future = kind()
        assert future.set_running_or_notify_cancel()
        assert future.running()
        future.set_result(1)
        assert not future.running()
        assert future.result() == 1

    @pytest.mark.parametrize("outcome", ["result", "exception", "cancel"])
    def test_there_is_one_outcome_only(self, kind: Kind, outcome: str) -> None:
        future = kind()
        if outcome == "result":
            future.set_result(1)
        elif outcome == "exception":
            future.set_exception(ValueError())
        else:
            future.cancel()
        with pytest.raises(InvalidStateError):
            future.set_result(2)
        with pytest.raises(InvalidStateError):
            future.set_exception(ValueError())

    def test_waiting_ends_with_the_timeout(self, kind: Kind) -> None:
        for wait in (kind().result, kind().exception):
            with pytest.raises(concurrent.futures.TimeoutError):
                wait(timeout=0.01)

    def test_a_waiter_is_woken_by_a_result(self, kind: Kind) -> None:
        future, found = kind(), []
        waiters = [in_thread(lambda: found.append(future.result(timeout=90))) for _ in range(5)]
        future.set_result(7)
        for waiter in waiters:
            waiter.join()
        assert found == [7] * 5

    def test_a_waiter_is_woken_by_a_cancellation(self, kind: Kind) -> None:
        future, found = kind(), []

        def wait() -> None:
            try:
                future.result(timeout=90)
            except CancelledError as error:
                found.append(error)

        waiter = in_thread(wait)
        future.cancel()
        waiter.join()
        assert len(found) == 1


class TestCancellation:
    def test_a_pending_future_is_cancelled_for_good(self, kind: Kind) -> None:
        future = kind()
        assert future.cancel()
        assert future.cancel()
        assert future.cancelled()
        assert future.done()
        assert not future.set_running_or_notify_cancel()
        for ask in (future.result, future.exception):
            with pytest.raises(CancelledError):
                ask(timeout=0)

    def test_a_running_or_finished_future_is_not(self, kind: Kind) -> None:
        running, finished = kind(), kind()
        running.set_running_or_notify_cancel()
        finished.set_result(1)
        assert not running.cancel()
        assert not finished.cancel()
        assert not running.cancelled()
        running.set_result(None)

    def test_of_two_racing_threads_one_wins(self, kind: Kind) -> None:
        for _ in range(300):
            future, barrier, won = kind(), threading.Barrier(2), []

            def cancel(future: Any = future, barrier: Any = barrier, won: Any = won) -> None:
                barrier.wait()
                won.append(future.cancel())

            thread = in_thread(cancel)
            barrier.wait()
            runs = future.set_running_or_notify_cancel()
            thread.join()
            assert [runs] != won
            if runs:
                future.set_result(1)
            assert future.cancelled() is not runs


class TestCallbacks:
    def test_they_are_called_in_order_with_the_future(self, kind: Kind) -> None:
        future, called = kind(), []
        future.add_done_callback(lambda done: called.append((1, done)))
        future.add_done_callback(lambda done: called.append((2, done)))
        future.set_result(None)
        future.add_done_callback(lambda done: called.append((3, done)))
        assert called == [(1, future), (2, future), (3, future)]

    def test_cancelling_calls_them(self, kind: Kind) -> None:
        future, called = kind(), []
        future.add_done_callback(called.append)
        future.cancel()
        assert called == [future]

    def test_one_that_raises_is_logged_and_hinders_nobody(self, kind: Kind, caplog: pytest.LogCaptureFixture) -> None:
        future, called = kind(), []
        future.add_done_callback(lambda _: 1 / 0)
        future.add_done_callback(called.append)
        future.set_result(1)
        assert called == [future]
        assert "ZeroDivisionError" in caplog.text

    def test_every_one_is_called_once_while_threads_race(self, kind: Kind) -> None:
        for _ in range(100):
            future, called = kind(), []
            barrier = threading.Barrier(4)

            def add(future: Any = future, barrier: Any = barrier, called: Any = called) -> None:
                barrier.wait()
                for number in range(20):
                    future.add_done_callback(lambda _, number=number: called.append(number))

            threads = [in_thread(add) for _ in range(3)]
            barrier.wait()
            future.set_result(1)
            for thread in threads:
                thread.join()
            assert sorted(called) == sorted(list(range(20)) * 3)

    def test_an_interrupt_in_one_comes_through_after_the_others(self) -> None:
        future, called = TaskFuture[int](), []

        def interrupt(_: Future[int]) -> None:
            raise KeyboardInterrupt

        future.add_done_callback(interrupt)
        future.add_done_callback(called.append)
        with pytest.raises(KeyboardInterrupt):
            future.set_result(1)
        assert called == [future]


class TestWaitingForMany:
    def test_wait_for_all(self, kind: Kind) -> None:
        futures = [kind() for _ in range(10)]
        threads = [in_thread(future.set_result, number) for number, future in enumerate(futures)]
        done, left = concurrent.futures.wait(futures, timeout=90)
        assert done == set(futures)
        assert not left
        for thread in threads:
            thread.join()

    def test_wait_for_the_first(self, kind: Kind) -> None:
        slow, fast = kind(), kind()
        thread = in_thread(fast.set_result, 1)
        done, left = concurrent.futures.wait([slow, fast], timeout=90, return_when="FIRST_COMPLETED")
        assert (done, left) == ({fast}, {slow})
        thread.join()
        slow.cancel()

    def test_wait_for_the_first_exception(self, kind: Kind) -> None:
        slow, good, bad = kind(), kind(), kind()
        good.set_result(1)
        thread = in_thread(bad.set_exception, ValueError())
        done, left = concurrent.futures.wait([slow, good, bad], timeout=90, return_when="FIRST_EXCEPTION")
        assert (done, left) == ({good, bad}, {slow})
        thread.join()

    def test_wait_is_over_when_all_are_cancelled(self, kind: Kind) -> None:
        futures = [kind() for _ in range(3)]

        def cancel() -> None:
            for future in futures:
                future.cancel()
                future.set_running_or_notify_cancel()

        thread = in_thread(cancel)
        assert concurrent.futures.wait(futures, timeout=90).done == set(futures)
        thread.join()

    def test_as_completed_gives_each_once(self, kind: Kind) -> None:
        futures = [kind() for _ in range(50)]
        threads = [in_thread(future.set_result, None) for future in futures]
        assert set(concurrent.futures.as_completed(futures, timeout=90)) == set(futures)
        for thread in threads:
            thread.join()

    def test_as_completed_times_out(self, kind: Kind) -> None:
        done, pending = kind(), kind()
        done.set_result(1)
        found = concurrent.futures.as_completed([done, pending], timeout=0.05)
        assert next(found) is done
        with pytest.raises(concurrent.futures.TimeoutError):
            next(found)

    def test_both_kinds_mix(self) -> None:
        futures: list[Future[int]] = [TaskFuture(), Future(), TaskFuture()]
        for future in futures:
            future.set_result(1)
        assert len(concurrent.futures.wait(futures).done) == 3


class TestAsyncio:
    def test_a_wrapped_future_gives_the_result(self, kind: Kind) -> None:
        future = kind()

        async def main() -> Any:
            wrapped = asyncio.wrap_future(future)
            asyncio.get_running_loop().call_soon(future.set_result, 5)
            return await wrapped

        assert asyncio.run(main()) == 5

    def test_cancelling_the_wrapper_cancels_the_future(self, kind: Kind) -> None:
        future = kind()

        async def main() -> None:
            wrapped = asyncio.wrap_future(future)
            wrapped.cancel()
            await asyncio.wait([wrapped])

        asyncio.run(main())
        assert future.cancelled()


class TestTaskFutureItself:
    def test_it_is_a_future(self) -> None:
        assert isinstance(TaskFuture(), Future)

    def test_it_is_smaller_than_the_standard_one(self) -> None:
        assert sys.getsizeof(TaskFuture()) < 200

    def test_it_says_why_it_does_not_pickle(self) -> None:
        with pytest.raises(TypeError, match=r"cannot be sent to another process\n  pass it to an app as an argument"):
            pickle.dumps([TaskFuture()])

    def test_raising_its_exception_makes_no_cycle(self) -> None:  # through the frame that raises it
        class OwnError(Exception):
            pass

        def failed() -> TaskFuture[int]:
            future = TaskFuture[int]()
            future.set_exception(error)
            return future

        def ask() -> None:
            try:
                failed().result()
            except OwnError:
                pass

        error: Any = OwnError()
        refers = weakref.ref(error)
        gc.collect()
        gc.disable()
        try:
            ask()
            error = None
            assert refers() is None
        finally:
            gc.enable()


def test_an_interrupt_while_it_waits_leaves_nothing_taken() -> None:
    """It comes in turn after every call that the waiting makes in Python code; a future waits with a timeout."""
    for point in range(1000):
        future: TaskFuture[int] = TaskFuture()
        left = point

        def tracer(frame: Any, event: str, arg: Any) -> Any:
            nonlocal left
            if event == "return" and frame.f_code.co_filename == threading.__file__:
                left -= 1
                if left < 0:
                    left = 1 << 30
                    raise KeyboardInterrupt
            return tracer

        before = sys.gettrace()
        sys.settrace(tracer)
        try:
            with pytest.raises(concurrent.futures.TimeoutError):
                future.result(0.01)
            break
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(before)
        setter = in_thread(future.set_result, 1)
        setter.join(60)
        assert not setter.is_alive(), f"interrupted at point {point}, it cannot be set"
    else:
        raise AssertionError("it never waits to its end")
    assert future.cancel()


def test_a_wait_that_was_in_vain_leaves_nothing_in_the_future() -> None:
    future: TaskFuture[int] = TaskFuture()
    for _ in range(3):
        with pytest.raises(concurrent.futures.TimeoutError):
            future.exception(0)
    assert not future._gates


def test_a_signal_that_does_not_wake_the_main_thread_is_handled_all_the_same() -> None:
    """As one that comes just before the wait: here it comes to another thread, while the main thread waits."""

    class ComeError(Exception):
        pass

    def handler(*_: Any) -> None:
        raise ComeError

    future: TaskFuture[int] = TaskFuture()

    def tell() -> None:
        while not future._gates:
            pass
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        begun = time.monotonic()
        teller = in_thread(tell)
        with pytest.raises(ComeError):
            future.result(120)
        assert time.monotonic() - begun < 100
        teller.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
