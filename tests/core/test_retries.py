"""What is run again: failures of the user's code from one budget, lost tasks from another."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import pytest
from tests.core.conftest import Load

from flowcore import python_app
from flowcore.dataflow.kernel import DataFlowKernel
from flowcore.errors import InvalidResourceSpecification, ShutdownError
from flowcore.executors import ThreadPoolExecutor
from flowcore.executors.base import Executor, RunContext
from flowcore.executors.errors import BadStateException, ExecutorError, TaskLost, WalltimeExceeded
from flowcore.futures import TaskFuture


class Scripted(Executor):
    """Gives the outcomes of a script, one an attempt; a task that has outlived the script is run."""

    def __init__(self, *outcomes: BaseException, label: str = "scripted", refuse: bool = False) -> None:
        self.label = label
        self.outcomes = list(outcomes)
        self.refuse = refuse
        self.attempts = 0

    def start(self, run: RunContext) -> None: ...

    def submit(
        self, func: Callable[..., Any], resource_specification: Mapping[str, Any], /, *args: Any, **kwargs: Any
    ) -> TaskFuture[Any]:
        self.attempts += 1
        future: TaskFuture[Any] = TaskFuture()
        if self.outcomes:
            error = self.outcomes.pop(0)
            if self.refuse:
                raise error
            future.set_exception(error)
            return future
        try:
            future.set_result(func(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future

    def shutdown(self) -> None: ...

    def outstanding(self) -> int:
        return 0


class Flaky:
    """Fails a number of times before it gives its result."""

    def __init__(self, failures: int, error: type[BaseException] = ValueError) -> None:
        self.left = failures
        self.error = error
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.left:
            self.left -= 1
            raise self.error(f"failure {self.calls}")
        return "done"


class TestRetries:
    def test_none_is_the_default(self, kernel: DataFlowKernel) -> None:
        flaky = Flaky(1)
        assert str(python_app(flaky)().exception()) == "failure 1"
        assert flaky.calls == 1

    @pytest.mark.parametrize(("retries", "calls"), [(0, 1), (1, 2), (3, 4)])
    def test_they_are_counted(self, load: Load, retries: int, calls: int) -> None:
        load(retries=retries)
        flaky = Flaky(100)
        assert str(python_app(flaky)().exception()) == f"failure {calls}"
        assert flaky.calls == calls

    def test_success_ends_them(self, load: Load) -> None:
        load(retries=5)
        flaky = Flaky(2)
        future = python_app(flaky)()
        assert future.result() == "done"
        record = future.task_record
        assert (record.try_id, record.fail_count, record.fail_cost) == (2, 2, 2)
        assert record.fail_history == ["ValueError('failure 1')", "ValueError('failure 2')"]

    def test_every_task_has_its_own_budget(self, load: Load) -> None:
        load(retries=1)
        futures = [python_app(Flaky(1))() for _ in range(20)]
        assert [future.result() for future in futures] == ["done"] * 20

    def test_arguments_are_there_again(self, load: Load) -> None:
        load(retries=1)
        seen: list[Any] = []

        @python_app
        def fail(*args: Any, **kwargs: Any) -> None:
            seen.append((args, kwargs))
            raise ValueError

        one = python_app(lambda: 1)()
        fail(one, [one], a=one).exception()
        assert seen == [((1, [1]), {"a": 1})] * 2

    def test_thousands_do_not_deepen_the_stack(self, load: Load) -> None:
        executor = Scripted(*[ValueError(str(number)) for number in range(5000)])
        load(executors=[executor], retries=10_000)
        assert python_app(lambda: "done")().result() == "done"
        assert executor.attempts == 5001

    def test_what_another_attempt_would_repeat_is_not_repeated(self, load: Load) -> None:
        for error in (InvalidResourceSpecification(["cores"]), ShutdownError()):
            executor = Scripted(error, label=type(error).__name__)
            with DataFlowKernel(config(executor, retries=5)) as kernel:
                assert python_app(data_flow_kernel=kernel)(lambda: 1)().exception() is error
            assert executor.attempts == 1


def config(*executors: Executor, **options: Any) -> Any:
    from flowcore import Config

    return Config(executors=executors, **options)


class TestHandler:
    def test_it_sees_the_error_and_the_task(self, load: Load) -> None:
        seen: list[Any] = []

        def handler(error: BaseException, task: Any) -> float:
            seen.append((str(error), task.func_name, task["try_id"], task.args))
            return 1

        load(retries=1, retry_handler=handler)

        def fail(x: int) -> None:
            raise ValueError("x")

        python_app(fail)(5).exception()
        assert seen == [("x", "fail", 0, (5,)), ("x", "fail", 1, (5,))]

    @pytest.mark.parametrize(
        ("cost", "calls"), [(0.5, 5), (1, 3), (3, 1), (2, 2), (float("inf"), 1), (float("nan"), 1)]
    )
    def test_its_costs_add_up(self, load: Load, cost: float, calls: int) -> None:
        load(retries=2, retry_handler=lambda *_: cost)
        flaky = Flaky(100)
        python_app(flaky)().exception()
        assert flaky.calls == calls

    def test_costs_may_differ(self, load: Load) -> None:
        load(retries=3, retry_handler=lambda error, _: 0.1 if isinstance(error, OSError) else 100)
        flaky = Flaky(5, ConnectionError)
        assert python_app(flaky)().result() == "done"
        assert isinstance(python_app(Flaky(1))().exception(), ValueError)

    def test_its_own_exception_ends_the_task(self, load: Load) -> None:
        def handler(*_: Any) -> float:
            raise KeyError("handler")

        load(retries=5, retry_handler=handler)
        flaky = Flaky(100)
        error = python_app(flaky)().exception()
        assert isinstance(error, KeyError)
        assert isinstance(error.__context__, ValueError)
        assert flaky.calls == 1

    @pytest.mark.parametrize("cost", [None, "1", [1]])
    def test_a_cost_that_is_no_number_ends_the_task_with_an_error_that_names_the_handler(
        self, load: Load, cost: Any
    ) -> None:
        def forgetful(*_: Any) -> Any:
            return cost

        load(retries=5, retry_handler=forgetful)
        flaky = Flaky(100)
        error = python_app(flaky)().exception()
        assert isinstance(error, TypeError)
        assert re.match(rf"retry_handler .*forgetful gave {re.escape(repr(cost))} for ValueError\(.*\)\n  ", str(error))
        assert isinstance(error.__cause__, ValueError)
        assert flaky.calls == 1

    @pytest.mark.parametrize("cost", [1, 0.5, True, Fraction(1, 2)])
    def test_a_cost_may_be_any_kind_of_number(self, load: Load, cost: Any) -> None:
        load(retries=1, retry_handler=lambda *_: cost)
        assert python_app(Flaky(1))().result() == "done"

    @pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
    def test_even_one_that_exits_leaves_no_task_unfinished(self, load: Load, kind: type[BaseException]) -> None:
        def handler(*_: Any) -> float:
            raise kind

        load(retries=5, retry_handler=handler)
        assert python_app(Flaky(1))().exception(timeout=60) is not None
        assert python_app(Flaky(0))().result(timeout=60) == "done"


class TestLostTasks:
    def test_they_are_run_again_twice_by_default(self, load: Load) -> None:
        executor = Scripted(TaskLost("1"), TaskLost("2"))
        load(executors=[executor])
        future = python_app(lambda: "done")()
        assert future.result() == "done"
        assert (future.task_record.lost_count, future.task_record.fail_count) == (2, 0)

    def test_the_third_loss_is_the_error(self, load: Load) -> None:
        last = TaskLost("3")
        executor = Scripted(TaskLost("1"), TaskLost("2"), last)
        load(executors=[executor])
        assert python_app(lambda: "done")().exception() is last

    def test_none_is_possible(self, load: Load) -> None:
        first = TaskLost("1")
        load(executors=[Scripted(first)], lost_retries=0)
        assert python_app(lambda: "done")().exception() is first

    def test_the_budgets_are_independent(self, load: Load) -> None:
        executor = Scripted(TaskLost("a"), ValueError("b"), TaskLost("c"), ValueError("d"))
        load(executors=[executor], retries=2, lost_retries=2)
        assert python_app(lambda: "done")().result() == "done"
        assert executor.attempts == 5

    def test_the_handler_is_not_asked(self, load: Load) -> None:
        asked: list[Any] = []
        load(executors=[Scripted(TaskLost("a"))], retry_handler=lambda *seen: asked.append(seen) or 1)
        assert python_app(lambda: "done")().result() == "done"
        assert asked == []


class TestBrokenExecutors:
    def test_their_errors_do_not_cost_retries(self, load: Load) -> None:
        load(executors=[Scripted(BadStateException("scripted", "down"))], retries=0)
        assert python_app(lambda: "done")().result() == "done"

    def test_a_refusal_sends_the_task_to_another_one(self, load: Load) -> None:
        broken = Scripted(*[ExecutorError("broken", "down")] * 100, label="broken", refuse=True)
        load(executors=[broken, ThreadPoolExecutor(label="fine")])
        futures = [python_app(lambda: "done")() for _ in range(20)]
        assert [future.result() for future in futures] == ["done"] * 20
        assert {future.task_record.executor for future in futures} == {"fine"}

    def test_where_all_refuse_the_last_refusal_is_the_error(self, load: Load) -> None:
        broken = Scripted(*[ExecutorError("broken", "down")] * 100, label="broken", refuse=True)
        load(executors=[broken])
        error = python_app(lambda: "done")().exception()
        assert isinstance(error, ExecutorError)
        assert str(error) == "Executor broken failed due to: down"

    def test_a_task_killed_for_its_walltime_timed_out(self, load: Load) -> None:
        from flowcore.app.errors import AppTimeout

        killed = WalltimeExceeded("worker 1 killed it after 5 s")
        load(executors=[Scripted(killed)])
        error = python_app(lambda: 1)().exception()
        assert isinstance(error, AppTimeout)
        assert str(error) == "worker 1 killed it after 5 s"
        assert error.__cause__ is killed


def test_no_attempt_follows_the_end_of_the_run(load: Load) -> None:
    kernel = load(retries=1000)
    started, ended = threading.Event(), threading.Event()
    calls: list[int] = []

    @python_app
    def fail() -> None:
        calls.append(1)
        started.set()
        ended.wait(60)
        raise ValueError

    future = fail()
    assert started.wait(60)
    kernel.cleanup()
    ended.set()
    assert isinstance(future.exception(), ShutdownError)
    assert calls == [1]
