"""A walltime ends an app that runs longer, and nothing else."""

from __future__ import annotations

import ctypes
import gc
import os
import select
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from flowcore import bash_app, join_app, python_app
from flowcore.app import shell, timing
from flowcore.app.errors import AppTimeout
from flowcore.app.timing import TimedCall
from waiting import eventually

pytestmark = pytest.mark.usefixtures("kernel")


@python_app
def spin(walltime: Any = 0.02) -> None:
    while True:
        pass


@python_app
def fine(walltime: Any = 60) -> int:
    return 1


class TestPython:
    def test_a_loop_is_interrupted(self) -> None:
        error = spin().exception(timeout=60)
        assert isinstance(error, AppTimeout)
        assert isinstance(error, TimeoutError)
        assert str(error) == "spin ran longer than its walltime of 0.02 s"

    def test_an_app_that_catches_exceptions_is_interrupted(self) -> None:
        @python_app
        def stubborn(walltime: float = 0.02) -> None:
            while True:
                try:
                    while True:
                        pass
                except Exception:
                    pass

        assert isinstance(stubborn().exception(timeout=60), AppTimeout)

    def test_one_that_is_in_a_finalizer_then_is_interrupted_all_the_same(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(timing, "AGAIN", 0.02)
        monkeypatch.setattr(sys, "unraisablehook", bool)  # Python tells what it ignores; one in C is not interrupted

        class Stubborn:
            def __del__(self) -> None:
                while True:
                    pass

        @python_app
        def work(walltime: float = 0.02) -> None:
            Stubborn()
            while True:
                pass

        assert isinstance(work().exception(timeout=60), AppTimeout)

    def test_an_error_that_comes_of_the_interruption_is_the_cause(self, monkeypatch: pytest.MonkeyPatch) -> None:
        clocks: list[Any] = []
        start = timing._Clock.start
        monkeypatch.setattr(timing._Clock, "start", lambda clock: clocks.append(clock))

        def work() -> None:
            try:
                start(clocks[0])
                while True:
                    pass
            finally:
                raise KeyError("half done")

        monkeypatch.setattr(timing, "AGAIN", 600)  # or the next one may come before the error
        with pytest.raises(AppTimeout, match="work ran longer") as caught:
            TimedCall(work, 0.01)()
        assert isinstance(caught.value.__cause__, KeyError)

    def test_an_inner_call_leaves_the_interruption_of_the_outer_one_alone(self) -> None:
        def outer() -> None:
            while True:
                TimedCall(lambda: sum(range(1000)), 60)()

        with pytest.raises(AppTimeout, match=r"outer ran longer than its walltime of 0\.05 s"):
            TimedCall(outer, 0.05)()

    def test_one_that_does_nothing_but_start_threads_is_interrupted(self) -> None:
        script = """
        import threading
        from flowcore.app.errors import AppTimeout
        from flowcore.app.timing import TimedCall

        def work():
            while True:
                threading.Thread(target=int).start()

        for number in range(100):
            try:
                TimedCall(work, 0.01)()
            except AppTimeout:
                print("interrupted")
        """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=240, check=False
        )
        assert (done.stdout, done.stderr) == ("interrupted\n" * 100, "")

    def test_one_that_starts_a_thread_is_not_interrupted_however_slow_that_is(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        slow, begun, waiting = threading.Thread(), [], threading.Event()
        monkeypatch.setattr(timing, "_LOOKS", 20)  # in haste; then there are slow ones

        class Clock(timing._Clock):
            def start(self) -> None:
                """Leave it to the call, or the time may be over before the call starts a thread."""
                self.bell = Bell(self.bell)
                clocks.append(super().start)

        class Bell:
            def __init__(self, lock: Any) -> None:
                self.release, self.looks, self._lock = lock.release, 0, lock

            def acquire(self, timeout: float) -> bool:
                self.looks += 1
                if self.looks == 30:
                    waiting.set()
                return bool(self._lock.acquire(timeout=timeout))

        clocks: list[Any] = []
        monkeypatch.setattr(timing, "_Clock", Clock)

        def work() -> None:
            timing._starting[slow] = slow
            try:
                clocks[0]()
                assert waiting.wait(60)
                begun.append(slow)
            finally:
                del timing._starting[slow]
            while True:
                pass

        with pytest.raises(AppTimeout):
            TimedCall(work, 0.01)()
        assert begun == [slow]

    def test_a_walltime_of_ages_is_none(self) -> None:
        assert TimedCall(lambda: "done", 1e12)() == "done"

    def test_that_of_the_call_stands_against_the_default(self) -> None:
        @python_app
        def work(seconds: float, walltime: float = 0.001) -> str:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                pass
            return "done"

        assert isinstance(work(600).exception(timeout=60), AppTimeout)
        assert work(0.05, walltime=600).result() == "done"

    def test_it_need_not_be_declared(self) -> None:
        app = python_app(spin.func)
        assert isinstance(app(walltime="00:00:00.02").exception(timeout=60), AppTimeout)

    @pytest.mark.parametrize("walltime", [60, 60.5, "01:00:00", "60", timedelta(minutes=1), None])
    def test_units(self, walltime: Any) -> None:
        assert fine(walltime=walltime).result() == 1

    @pytest.mark.parametrize("walltime", [0, -1, "soon", float("nan"), float("inf"), True, [1]])
    def test_what_is_no_duration_is_refused_at_the_call(self, walltime: Any) -> None:
        with pytest.raises(ValueError, match=r"duration|walltime"):
            fine(walltime=walltime)

    def test_the_threads_work_on_after_timeouts(self) -> None:
        errors = [spin(walltime=0.005) for _ in range(20)]
        assert all(isinstance(error.exception(timeout=60), AppTimeout) for error in errors)
        assert [fine().result() for _ in range(50)] == [1] * 50

    def test_the_clock_is_stopped_by_a_return(self) -> None:
        before = threading.active_count()
        assert fine(walltime=3600).result() == 1
        for thread in threading.enumerate():
            if thread.name == "flowcore-walltime":
                thread.join(60)
        assert threading.active_count() <= before + 4  # those of the executor

    def test_the_clock_is_stopped_by_an_exception(self) -> None:
        @python_app
        def fail(walltime: float = 3600) -> None:
            raise KeyError

        assert isinstance(fail().exception(), KeyError)
        for thread in threading.enumerate():
            if thread.name == "flowcore-walltime":
                thread.join(60)
                assert not thread.is_alive()

    def test_the_clock_is_stopped_where_its_start_is_broken_off(self, monkeypatch: pytest.MonkeyPatch) -> None:
        start = timing._Clock.start

        def broken_off(clock: Any) -> None:
            start(clock)
            raise RuntimeError("release unlocked lock")

        monkeypatch.setattr(timing._Clock, "start", broken_off)
        with pytest.raises(RuntimeError, match="release unlocked lock"):
            TimedCall(int, 3600)()
        for thread in threading.enumerate():
            if thread.name == "flowcore-walltime":
                thread.join(60)
                assert not thread.is_alive()

    def test_an_equal_call_is_remembered_whatever_the_function_is_annotated_with(self) -> None:
        def total(numbers: Any) -> Any:
            """Add up."""
            return sum(numbers)

        total.__annotations__.update({"numbers": list[int], "return": int | None})
        app = python_app(cache=True)(total)
        assert app([1, 2], walltime=60).result() == 3
        second = app([1, 2], walltime=60)
        assert second.result() == 3
        assert second.task_status() == "memo_done"

    def test_the_body_of_a_join_app_has_one_too(self) -> None:
        @join_app
        def body(walltime: float = 0.02) -> Any:
            while True:
                pass

        assert isinstance(body().exception(timeout=60), AppTimeout)

    def test_the_clock_is_stopped_where_it_rings_while_an_exception_is_raised(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clocks: list[Any] = []
        ring = ctypes.pythonapi.PyThreadState_SetAsyncExc
        me = ctypes.c_ulong(threading.get_ident())
        monkeypatch.setattr(timing._Clock, "start", lambda clock: clocks.append(clock))

        def work() -> None:
            clocks[0].fired = True
            # One call in C that rings and then fails by itself: no Python code runs in between.
            list(map(ring, (me, object()), (timing._REACHED, timing._REACHED)))

        with pytest.raises(AppTimeout, match="work ran longer"):
            TimedCall(work, 600)()
        assert clocks[0].over
        assert not clocks[0].bell.locked()

    @pytest.mark.parametrize("seconds", [0.01, 0.0001])
    def test_what_is_profiled_afterwards_does_not_hang(self, seconds: float) -> None:
        script = f"""
        import sys
        from flowcore.app.errors import AppTimeout
        from flowcore.app.timing import TimedCall

        def work():
            for _ in range(1000):
                sum(range(1000))

        def called():
            return "called"

        for _ in range(20):
            try:
                TimedCall(work, {seconds})()
            except AppTimeout:
                pass
        sys.setprofile(lambda *_: None)
        print(called())
        """
        command = [sys.executable, "-c", textwrap.dedent(script)]
        assert subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout == "called\n"


class TestNothingStrays:
    """The exception arrives inside the call or never: the race is run with walltimes about as long as the call.

    In a finalizer, which the garbage collector may call at any time, it would be ignored.
    """

    @pytest.fixture(autouse=True)
    def hurried_and_without_finalizers(self) -> Iterator[None]:
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        gc.disable()
        yield
        gc.enable()
        sys.setswitchinterval(interval)

    @staticmethod
    def outcomes(count: int, function: Any, expected: type[BaseException] | tuple[()]) -> dict[str, int]:
        found = {"in time": 0, "late": 0}
        for number in range(count):
            seconds = 0.00001 + 0.0000015 * number
            try:
                TimedCall(function, seconds)()
                found["in time"] += 1
            except AppTimeout:
                found["late"] += 1
            except expected:
                found["in time"] += 1
            sum(range(50))  # a stray exception would be raised in here
        return found

    def test_after_a_return(self) -> None:
        assert sum(self.outcomes(1000, lambda: sum(range(3000)), ()).values()) == 1000

    def test_after_an_exception(self) -> None:
        def fail() -> None:
            sum(range(3000))
            raise KeyError

        assert sum(self.outcomes(1000, fail, KeyError).values()) == 1000

    def test_in_an_executors_threads(self) -> None:
        @python_app
        def brief(walltime: float) -> int:
            return sum(range(3000))

        futures = [brief(walltime=0.00001 + 0.000002 * number) for number in range(500)]
        for future in futures:
            error = future.exception(timeout=60)
            assert error is None or isinstance(error, AppTimeout)
        assert fine().result() == 1


class TestBash:
    @staticmethod
    def gone(process: int) -> bool:
        try:
            handle = os.pidfd_open(process)
        except ProcessLookupError:
            return True
        try:
            return bool(select.select([handle], [], [], 60)[0])
        finally:
            os.close(handle)

    @pytest.fixture
    def patient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let no signal be sent before the command has told its last process: it may be slow to begin."""
        send = shell._signal_group

        def send_later(group: int, number: signal.Signals) -> None:
            eventually(lambda: "end\n" in Path("pids").read_text())
            send(group, number)

        monkeypatch.setattr(shell, "_signal_group", send_later)

    @pytest.mark.usefixtures("patient")
    def test_a_command_is_ended_with_all_that_it_started(self) -> None:
        @bash_app
        def slow(stdout: str = "pids", walltime: float = 0.2) -> str:
            return "sleep 600 & echo $!; (sleep 601; touch late) & echo $!; echo end; wait"

        error = slow().exception(timeout=60)
        assert isinstance(error, AppTimeout)
        assert str(error) == "bash_app slow ran longer than its walltime of 0.2 s"
        assert all(self.gone(int(line)) for line in Path("pids").read_text().split()[:2])
        assert not Path("late").exists()

    @pytest.mark.usefixtures("patient")
    def test_one_that_ignores_the_polite_signal_is_killed(self) -> None:
        @bash_app
        def stubborn(stdout: str = "pids", walltime: float = 0.1) -> str:
            return "trap '' TERM; echo $$; echo end; while true; do sleep 0.2; done"

        error = stubborn().exception(timeout=60)
        assert isinstance(error, AppTimeout)
        assert self.gone(int(Path("pids").read_text().split()[0]))

    def test_one_that_ends_in_time_is_left_alone(self) -> None:
        @bash_app
        def quick(walltime: Any = "00:01:00") -> str:
            return "true"

        assert quick().result() == 0

    def test_that_of_the_call_stands_against_the_default(self) -> None:
        @bash_app
        def work(seconds: float, walltime: float = 0.001) -> str:
            return f"sleep {seconds}"

        assert isinstance(work(600).exception(timeout=60), AppTimeout)
        assert work(0.1, walltime=600).result() == 0
