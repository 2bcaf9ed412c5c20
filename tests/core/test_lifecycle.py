"""A run from load to clean-up, in every order that a script may try."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import flowcore
from flowcore import Config, DataFlowKernel, join_app, python_app
from flowcore.dataflow import exits
from flowcore.dataflow.errors import DependencyError
from flowcore.dataflow.memoization import BasicMemoizer
from flowcore.dataflow.tasks import States
from flowcore.errors import ConfigurationError, NoDataFlowKernelError, ShutdownError
from flowcore.executors import ThreadPoolExecutor
from flowcore.futures import TaskFuture
from flowcore.testing.leftovers import Leftovers


@python_app
def same(value: Any) -> Any:
    return value


def config(**options: Any) -> Config:
    return Config(executors=[ThreadPoolExecutor(max_threads=2)], **options)


@pytest.fixture
def event() -> Iterator[threading.Event]:
    """Holds tasks until it is set; the end of the test sets it."""
    event = threading.Event()
    yield event
    event.set()


@python_app
def hold(event: threading.Event) -> int:
    event.wait(90)
    return 1


def count_down(start: int) -> list[Any]:
    """Submit a task whose callback submits the next one, and so on; return the list in which their futures will be."""
    made: list[Any] = []

    def submit(number: int) -> None:
        made.append(same(number))
        if number:
            made[-1].add_done_callback(lambda _: submit(number - 1))

    submit(start)
    return made


class TestLoading:
    def test_twice_is_refused_with_a_remedy(self) -> None:
        first = flowcore.load(config())
        with pytest.raises(
            ConfigurationError, match=r"^Config has already been loaded\n  end that run first, with flowcore.clear\(\)$"
        ):
            flowcore.load(config())
        assert flowcore.dfk() is first
        assert same(1).result() == 1

    def test_one_that_fails_leaves_none_loaded_not_even_one_that_has_ended(self) -> None:
        with flowcore.load(config()) as ended:
            assert same(1).result() == 1
        assert flowcore.dfk() is ended
        with pytest.raises(ConfigurationError):
            flowcore.load("no configuration")  # type: ignore[arg-type]
        with pytest.raises(NoDataFlowKernelError):
            flowcore.dfk()

    def test_again_after_clear(self) -> None:
        for number in range(3):
            flowcore.load(config())
            assert same(number).result() == number
            flowcore.clear()

    def test_one_configuration_again_and_its_memoizer_remembers_in_every_run(self) -> None:
        runs = Config(memoizer=BasicMemoizer(checkpoint_mode="task_exit", checkpoint_files=[]))
        app = python_app(cache=True)(abs)
        for number in range(2):
            with flowcore.load(runs) as kernel:
                assert [app(-number).result(), app(-number).result()] == [number, number]
                assert kernel.task_state_counts[States.memo_done] == 1
                assert (kernel.run_dir / "checkpoint" / "tasks.pkl").exists()

    def test_one_memoizer_in_two_runs_at_once_is_refused_and_the_first_goes_on(self) -> None:
        memoizer = BasicMemoizer()
        app = python_app(cache=True)(abs)
        with flowcore.load(config(memoizer=memoizer)) as kernel:
            with pytest.raises(ConfigurationError, match="serves a run that is not over"):
                DataFlowKernel(config(memoizer=memoizer))
            assert [app(-1).result(), app(-1).result()] == [1, 1]
            assert kernel.task_state_counts[States.memo_done] == 1

    def test_again_after_cleanup(self) -> None:
        flowcore.load(config()).cleanup()
        flowcore.load(config())
        assert same(1).result() == 1

    @pytest.mark.parametrize("ask", [flowcore.dfk, flowcore.wait_for_current_tasks, lambda: same(1)])
    def test_before_it_there_is_no_run(self, ask: Any) -> None:
        with pytest.raises(
            NoDataFlowKernelError, match=r"^Must first load config\n  call flowcore.load\(\) before apps are called$"
        ):
            ask()

    def test_of_many_threads_one_wins(self) -> None:
        barrier, outcomes = threading.Barrier(4), []

        def load() -> None:
            barrier.wait()
            try:
                outcomes.append(flowcore.load(config()))
            except ConfigurationError as error:
                outcomes.append(error)

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(isinstance(outcome, DataFlowKernel) for outcome in outcomes) == 1


class TestDefaults:
    """What `load()` takes where nobody says."""

    @staticmethod
    def told(disabled: str) -> str:
        program = """
import flowcore
try:
    with flowcore.load() as kernel:
        print(*kernel.executors, flowcore.python_app(abs)(-3).result())
except flowcore.errors.ConfigurationError as error:
    print(error)
"""
        environment = {**os.environ, "FLOWCORE_DISABLE_PLUGINS": disabled}
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=120, check=True
        )
        return done.stdout

    def test_threads_come_first(self) -> None:
        assert self.told("") == "threads 3\n"

    def test_worker_processes_come_next(self) -> None:
        assert self.told("threads") == "HighThroughputExecutor 3\n"

    def test_without_both_the_error_gives_the_reasons(self) -> None:
        told = self.told("threads,htex").splitlines()
        assert told[0] == "no executor can be had to run tasks by default"
        assert "'ThreadPoolExecutor' comes from plugin threads" in told[1]
        assert "'HighThroughputExecutor' comes from plugin htex" in told[3]

    def test_where_none_is_installed_the_error_gives_the_commands(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("flowcore.discovery._entry_points", lambda: ([], []))
        monkeypatch.setattr("flowcore.registry._current", None)
        with pytest.raises(ConfigurationError) as caught:
            flowcore.load()
        assert "pip install 'flowcore[threads]'" in str(caught.value)
        assert "pip install 'flowcore[htex]'" in str(caught.value)


class TestClearing:
    def test_it_waits_for_running_tasks(self) -> None:
        flowcore.load(config())
        release = threading.Event()
        future = hold(release)
        later = same(future)
        threading.Timer(0.05, release.set).start()
        flowcore.clear()
        assert later.result() == 1

    def test_join_apps_that_have_yet_to_run_call_apps_of_the_run(self) -> None:
        flowcore.load(config())
        release = threading.Event()
        future = join_app(lambda count: [same(number) for number in range(count)])(same(hold(release)))
        threading.Timer(0.05, release.set).start()
        flowcore.clear()
        assert future.result(timeout=0) == [0]

    def test_callbacks_submit_tasks_to_the_last(self) -> None:
        flowcore.load(config())
        made = count_down(5)
        flowcore.clear()
        assert [future.result(timeout=0) for future in made] == [5, 4, 3, 2, 1, 0]

    def test_a_callback_may_clear_while_the_run_is_being_ended(self, event: threading.Event) -> None:
        flowcore.load(config())
        first, second = hold(event), hold(event)
        first.add_done_callback(lambda _: flowcore.clear())
        flowcore.clear(wait=False)
        assert {type(future.exception(timeout=0)) for future in (first, second)} == {ShutdownError}

    def test_from_callbacks_it_waits_for_the_tasks(self) -> None:
        flowcore.load(Config(executors=[ThreadPoolExecutor(max_threads=3)]))
        begin, release, over = threading.Event(), threading.Event(), threading.Barrier(3)

        def clear(_: Any) -> None:
            flowcore.clear()
            over.wait(90)

        held, later = hold(begin), same(hold(release))
        for future in (same(held), same(held)):
            future.add_done_callback(clear)
        begin.set()
        threading.Timer(0.05, release.set).start()
        over.wait(90)
        assert later.result(timeout=0) == 1

    def test_no_other_run_is_loaded_meanwhile(self) -> None:
        kernel = flowcore.load(config())
        release, seen = threading.Event(), []

        def look() -> None:
            seen.append(flowcore.dfk())
            try:
                flowcore.load(config())
            except ConfigurationError as error:
                seen.append(error)
            release.set()

        hold(release)
        threading.Timer(0.05, look).start()
        flowcore.clear()
        assert seen[0] is kernel
        assert isinstance(seen[1], ConfigurationError)
        with pytest.raises(NoDataFlowKernelError):
            flowcore.dfk()

    def test_of_many_threads_all_return_when_the_run_is_forgotten(self) -> None:
        flowcore.load(config())
        barrier, seen = threading.Barrier(4), []

        def clear() -> None:
            barrier.wait(90)
            flowcore.clear()
            try:
                seen.append(flowcore.dfk())
            except NoDataFlowKernelError as error:
                seen.append(error)

        threads = [threading.Thread(target=clear) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(90)
        assert [type(each) for each in seen] == [NoDataFlowKernelError] * 4

    def test_one_that_fails_forgets_the_run_all_the_same(self) -> None:
        class Bad(ThreadPoolExecutor):
            def shutdown(self) -> None:
                super().shutdown()
                raise OSError("network")

        flowcore.load(Config(executors=[Bad()], initialize_logging=False))
        with contextlib.suppress(OSError):
            flowcore.clear()
        with pytest.raises(NoDataFlowKernelError):
            flowcore.dfk()

    def test_without_waiting_it_fails_them(self, event: threading.Event) -> None:
        flowcore.load(config())
        running, waiting = hold(event), same(hold(event))
        flowcore.clear(wait=False)
        for future in (running, waiting):
            assert isinstance(future.exception(timeout=0), ShutdownError)

    def test_nothing_loaded_is_nothing_to_do(self) -> None:
        flowcore.clear()
        flowcore.clear(wait=False)
        with pytest.raises(NoDataFlowKernelError):
            flowcore.dfk()

    def test_twice(self) -> None:
        flowcore.load(config())
        flowcore.clear()
        flowcore.clear()
        with pytest.raises(NoDataFlowKernelError):
            flowcore.dfk()

    def test_after_cleanup_it_only_forgets(self, event: threading.Event) -> None:
        kernel = flowcore.load(config())
        future = hold(event)
        kernel.cleanup()
        flowcore.clear()
        assert isinstance(future.exception(timeout=0), ShutdownError)
        with pytest.raises(NoDataFlowKernelError):
            flowcore.dfk()

    def test_it_leaves_no_thread(self) -> None:
        left = Leftovers()
        flowcore.load(config())
        join_app(lambda: [same(number) for number in range(20)])().result()
        same([1])[0].result()
        flowcore.clear()
        assert left.after(60) == []


class TestCleaningUp:
    def test_every_future_is_done_with_an_error_that_says_why(self, event: threading.Event) -> None:
        kernel = flowcore.load(config())
        plain: TaskFuture[int] = TaskFuture()
        running = [hold(event) for _ in range(2)]
        queued = [same(1) for _ in range(3)]
        waiting = [same(running[0]), same(plain)]
        chained = same(same(waiting[1]))
        joining = join_app(lambda: [plain])()
        part = running[0]["x"]
        kernel.cleanup()
        for future in (*running, *queued, *waiting, chained, joining, part):
            error = future.exception(timeout=0)
            assert type(error) is ShutdownError
            assert f"task {future.tid} (" in str(error)
            assert "when its run ended\n  flowcore.clear()" in str(error)
        assert kernel.unfinished_count() == 0
        plain.set_result(1)

    def test_a_task_that_is_ending_already_comes_to_its_end(self) -> None:
        ending, release = threading.Event(), threading.Event()

        class Slow(BasicMemoizer):
            def update_memo_result(self, *_: Any) -> None:
                ending.set()
                release.wait(60)

        kernel = flowcore.load(config(memoizer=Slow()))
        future = python_app(cache=True)(abs)(-1)
        assert ending.wait(60)
        threading.Timer(0.05, release.set).start()
        kernel.cleanup()
        assert future.result(timeout=0) == 1

    def test_every_future_is_done_though_callbacks_exit(self) -> None:
        kernel = flowcore.load(config())
        never: TaskFuture[int] = TaskFuture()
        futures = [same(never) for _ in range(3)]
        for future in futures[:2]:
            future.add_done_callback(lambda _: sys.exit(3))
        with pytest.raises(SystemExit):
            kernel.cleanup()
        assert [type(future.exception(timeout=0)) for future in futures] == [ShutdownError] * 3
        assert kernel.cleaned

    def test_it_does_not_wait_for_running_tasks(self, event: threading.Event) -> None:
        kernel = flowcore.load(config())
        future = hold(event)
        kernel.cleanup()
        assert not event.is_set()
        assert future.done()

    def test_twice_is_harmless(self) -> None:
        kernel = flowcore.load(config())
        kernel.cleanup()
        kernel.cleanup()
        assert kernel.cleaned

    def test_interrupted_before_it_begins_it_can_be_called_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        kernel = flowcore.load(config())
        future = same(TaskFuture())

        uninterrupted = exits.uninterrupted

        def interrupt() -> Any:
            monkeypatch.setattr(exits, "uninterrupted", uninterrupted)
            raise KeyboardInterrupt

        monkeypatch.setattr(exits, "uninterrupted", interrupt)
        with pytest.raises(KeyboardInterrupt):
            kernel.cleanup()
        kernel.cleanup()
        assert isinstance(future.exception(timeout=0), ShutdownError)

    def test_of_many_threads_all_return_when_it_is_over(self) -> None:
        kernel = flowcore.load(config())
        barrier, seen = threading.Barrier(4), []

        def clean() -> None:
            barrier.wait()
            kernel.cleanup()
            seen.append(kernel.cleaned)

        threads = [threading.Thread(target=clean) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert seen == [True] * 4

    def test_nothing_is_submitted_afterwards(self) -> None:
        kernel = flowcore.load(config())
        future = same([1])
        future.result()
        kernel.cleanup()
        for submit in (lambda: same(1), lambda: future[0], lambda: kernel.submit(pow, (1, 2))):
            with pytest.raises(
                NoDataFlowKernelError, match=r"^Cannot submit to a DFK that has been cleaned up\n  start"
            ):
                submit()

    def test_from_a_callback_inside_it(self, event: threading.Event) -> None:
        kernel = flowcore.load(config())
        future = hold(event)
        future.add_done_callback(lambda _: kernel.cleanup())
        kernel.cleanup()
        assert kernel.cleaned

    def test_from_a_task_and_from_its_callback(self) -> None:
        for make in (lambda kernel: kernel.cleanup, lambda kernel: lambda: None):
            kernel = flowcore.load(config())
            cleaned = threading.Event()
            future = python_app(make(kernel))()
            future.add_done_callback(lambda _, kernel=kernel, cleaned=cleaned: (kernel.cleanup(), cleaned.set()))
            assert cleaned.wait(90)
            assert future.done()
            flowcore.clear()

    def test_while_threads_submit_loses_no_future(self) -> None:
        for _ in range(20):
            kernel = flowcore.load(config())
            futures: list[Any] = []
            barrier = threading.Barrier(3)

            def submit(futures: Any = futures, barrier: Any = barrier) -> None:
                barrier.wait()
                try:
                    while True:
                        futures.append(same(same(1)))
                except NoDataFlowKernelError:
                    pass

            threads = [threading.Thread(target=submit) for _ in range(2)]
            for thread in threads:
                thread.start()
            barrier.wait()
            while len(futures) < 20:
                futures[-1:] and futures[-1].exception(timeout=90)
            kernel.cleanup()
            for thread in threads:
                thread.join()
            for future in futures:
                error = future.exception(timeout=90)
                assert error is None or isinstance(error, (ShutdownError, DependencyError))
            flowcore.clear()

    def test_no_queued_body_of_a_join_app_runs_afterwards(self, event: threading.Event) -> None:
        left = Leftovers()
        kernel = flowcore.load(config(internal_tasks_max_threads=1))
        started, ran = threading.Event(), []

        def first() -> Any:
            started.set()
            event.wait(90)
            return []

        join_app(first)()
        assert started.wait(90)
        join_app(lambda: ran.append(1) or [])()
        kernel.cleanup()
        event.set()
        assert left.after(60) == []
        assert ran == []

    def test_a_memoizer_that_raises_hinders_nothing_else(self) -> None:
        class Bad(BasicMemoizer):
            def close(self) -> None:
                raise OSError("disk")

        executor = ThreadPoolExecutor()
        kernel = flowcore.load(Config(executors=[executor], memoizer=Bad()))
        with pytest.raises(OSError, match="disk"):
            kernel.cleanup()
        assert kernel.cleaned
        with pytest.raises(ShutdownError):
            executor.submit(pow, {}, 1, 2)


class TestWithBlocks:
    def test_cleanup_does_not_wait(self, event: threading.Event) -> None:
        with flowcore.load(config(exit_mode="cleanup")) as kernel:
            future = hold(event)
        assert kernel.cleaned
        assert isinstance(future.exception(timeout=0), ShutdownError)

    def test_wait_waits(self) -> None:
        release = threading.Event()
        with flowcore.load(config(exit_mode="wait")) as kernel:
            future = same(hold(release))
            threading.Timer(0.05, release.set).start()
        assert kernel.cleaned
        assert future.result(timeout=0) == 1

    def test_wait_waits_for_what_callbacks_submit(self) -> None:
        with flowcore.load(config(exit_mode="wait")):
            made = count_down(5)
        assert [future.result(timeout=0) for future in made] == [5, 4, 3, 2, 1, 0]

    def test_wait_does_not_wait_after_an_exception(self, event: threading.Event) -> None:
        with pytest.raises(KeyError), flowcore.load(config(exit_mode="wait")) as kernel:
            future = hold(event)
            raise KeyError
        assert kernel.cleaned
        assert isinstance(future.exception(timeout=0), ShutdownError)

    def test_skip_leaves_the_run_as_it_is(self) -> None:
        with flowcore.load(config(exit_mode="skip")) as kernel:
            pass
        assert not kernel.cleaned
        assert flowcore.dfk() is kernel
        assert same(1).result() == 1

    def test_skip_leaves_it_after_an_exception_too(self) -> None:
        with pytest.raises(KeyError), flowcore.load(config(exit_mode="skip")) as kernel:
            raise KeyError
        assert not kernel.cleaned

    @pytest.mark.parametrize("mode", ["cleanup", "wait"])
    def test_another_run_may_follow(self, mode: Any) -> None:
        for number in range(3):
            with flowcore.load(config(exit_mode=mode)):
                assert same(number).result() == number

    def test_a_kernel_that_is_not_loaded(self) -> None:
        with DataFlowKernel(config()) as kernel:
            assert kernel.submit(pow, (2, 3)).result() == 8
            with pytest.raises(NoDataFlowKernelError):
                flowcore.dfk()
        assert kernel.cleaned

    def test_cleaned_up_inside(self) -> None:
        with flowcore.load(config(exit_mode="wait")) as kernel:
            kernel.cleanup()
        assert kernel.cleaned
