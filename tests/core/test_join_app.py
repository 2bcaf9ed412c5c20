"""`@join_app`: a body that calls apps stands for their results, and waits for nothing while they are on their way."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable
from typing import Any

import pytest
from tests.core.conftest import Load

from flowcore import join_app, python_app
from flowcore.dataflow.errors import JoinError
from flowcore.dataflow.kernel import DataFlowKernel
from flowcore.errors import InvalidResourceSpecification


@python_app
def same(value: Any) -> Any:
    return value


@python_app
def fail(error: BaseException) -> Any:
    raise error


@join_app
def join(make: Callable[[], Any]) -> Any:
    return make()


BODIES: list[int] = []
"""No variable of a closure: those count for whether two calls are equal."""


class TestResults:
    def test_of_one_future(self, kernel: DataFlowKernel) -> None:
        assert join(lambda: same(5)).result() == 5

    def test_of_a_list(self, kernel: DataFlowKernel) -> None:
        assert join(lambda: [same(1), same(2)]).result() == [1, 2]

    def test_of_an_empty_list(self, kernel: DataFlowKernel) -> None:
        assert join(list).result() == []

    def test_of_a_coroutine_function(self, kernel: DataFlowKernel) -> None:
        @join_app
        async def one() -> Any:
            return same(5)

        @join_app(cache=True)
        async def several() -> Any:
            return [same(1), same(2)]

        assert one().result() == 5
        assert several().result() == [1, 2]

    def test_of_a_plain_future_that_is_done_later(self, kernel: DataFlowKernel) -> None:
        plain: concurrent.futures.Future[int] = concurrent.futures.Future()
        future = join(lambda: plain)
        plain.set_result(3)
        assert future.result() == 3

    def test_of_the_same_future_twice(self, kernel: DataFlowKernel) -> None:
        def twice() -> Any:
            future = same(1)
            return [future, future]

        assert join(twice).result() == [1, 1]

    def test_of_a_list_that_the_body_has_kept_and_changes(self, kernel: DataFlowKernel) -> None:
        first: concurrent.futures.Future[int] = concurrent.futures.Future()
        kept: list[Any] = []

        def body() -> Any:
            kept.append(first)
            return kept

        future = join(body)
        while future.task_status() != "joining":
            join(list).result(timeout=90)
        kept.append(concurrent.futures.Future())
        threading.Thread(target=first.set_result, args=(3,), daemon=True).start()
        assert future.result(timeout=90) == [3]

    def test_a_result_that_is_a_future_is_not_joined_again(self, kernel: DataFlowKernel) -> None:
        inner: concurrent.futures.Future[int] = concurrent.futures.Future()
        outer: concurrent.futures.Future[Any] = concurrent.futures.Future()
        outer.set_result(inner)
        assert join(lambda: outer).result() is inner

    @pytest.mark.parametrize("returned", [None, 5, (), {}, "x", [1], [same, 2]])
    def test_of_anything_else_are_a_type_error(self, kernel: DataFlowKernel, returned: Any) -> None:
        error = join(lambda: returned).exception()
        assert isinstance(error, TypeError)
        expected = f"join_app body must return a Future or list of Futures, got {returned!r} of type {type(returned)}"
        assert str(error).splitlines()[0] == expected
        assert "one future, or several in a list" in str(error)

    def test_of_a_tuple_of_futures_are_a_type_error(self, kernel: DataFlowKernel) -> None:
        assert isinstance(join(lambda: (same(1),)).exception(), TypeError)


class TestFailures:
    def test_one_of_two(self, kernel: DataFlowKernel) -> None:
        cause = ValueError("x")
        error = join(lambda: [same(1), fail(cause)]).exception()
        assert isinstance(error, JoinError)
        assert error.dependent_exceptions_tids == [(cause, "task 2")]
        assert error.__cause__ is cause
        assert str(error) == "Join failure for task 0. The representative cause is via task 2\n  ValueError: x"

    def test_both_of_two(self, kernel: DataFlowKernel) -> None:
        error = join(lambda: [fail(ValueError()), fail(KeyError())]).exception()
        assert isinstance(error, JoinError)
        assert [type(each) for each, _ in error.dependent_exceptions_tids] == [ValueError, KeyError]
        assert " (+ others)" in str(error)

    def test_it_waits_for_all_before_it_fails(self, kernel: DataFlowKernel) -> None:
        slow: concurrent.futures.Future[int] = concurrent.futures.Future()
        bad = threading.Event()

        def body() -> Any:
            failing = fail(ValueError())
            failing.add_done_callback(lambda _: bad.set())
            return [failing, slow]

        future = join(body)
        assert bad.wait(90)
        assert future.task_status() in {"launched", "joining"}
        assert not future.done()
        slow.set_result(1)
        assert isinstance(future.exception(), JoinError)

    def test_of_the_body_is_its_own(self, kernel: DataFlowKernel) -> None:
        def body() -> Any:
            raise KeyError("x")

        assert isinstance(join(body).exception(), KeyError)

    @pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
    def test_of_a_body_that_exits_cost_no_thread(self, load: Load, kind: type[BaseException]) -> None:
        load(internal_tasks_max_threads=1)

        def body() -> Any:
            raise kind

        assert isinstance(join(body).exception(), kind)
        assert join(lambda: same(1)).result() == 1

    def test_the_root_cause_is_seen_through_dependencies(self, kernel: DataFlowKernel) -> None:
        cause = ValueError("root")
        error = join(lambda: same(same(fail(cause)))).exception()
        assert error is not None
        assert error.__cause__ is cause

    def test_the_body_is_run_again_but_the_joined_part_never(self, load: Load) -> None:
        load(retries=2)
        bodies: list[int] = []

        def late() -> Any:
            bodies.append(1)
            if len(bodies) < 3:
                raise ValueError
            return same(1)

        assert join(late).result() == 1
        assert len(bodies) == 3
        bodies.clear()

        def failing() -> Any:
            bodies.append(1)
            plain: concurrent.futures.Future[int] = concurrent.futures.Future()
            plain.set_exception(ValueError())
            return plain

        assert isinstance(join(failing).exception(), JoinError)
        assert len(bodies) == 1


class TestThreads:
    def test_a_body_runs_when_its_arguments_are_there(self, kernel: DataFlowKernel) -> None:
        @join_app
        def fan(count: int) -> Any:
            return [same(number) for number in range(count)]

        assert fan(same(3)).result() == [0, 1, 2]

    def test_nothing_waits_while_the_inner_ones_run(self, load: Load) -> None:
        load(internal_tasks_max_threads=1)
        plain: concurrent.futures.Future[int] = concurrent.futures.Future()
        futures = [join(lambda: plain) for _ in range(100)]
        assert join(lambda: same(1)).result(timeout=90) == 1
        plain.set_result(5)
        assert [future.result() for future in futures] == [5] * 100

    @pytest.mark.parametrize("limit", [1, 3])
    def test_bodies_that_wait_for_join_apps_do_not_starve_them(self, load: Load, limit: int) -> None:
        load(internal_tasks_max_threads=limit)

        @join_app
        def tree(depth: int) -> Any:
            if depth == 0:
                return same(1)
            return same(sum(future.result() for future in [tree(depth - 1), tree(depth - 1)]))

        assert tree(4).result(timeout=60) == 16

    @pytest.mark.parametrize("limit", [1, 3])
    def test_bodies_that_await_join_apps_do_not_starve_them(self, load: Load, limit: int) -> None:
        load(internal_tasks_max_threads=limit)

        @join_app
        async def down(depth: int) -> Any:
            return same(0 if depth == 0 else await down(depth - 1) + 1)

        assert down(10).result(timeout=60) == 10

    @pytest.mark.parametrize(
        "wait", [concurrent.futures.wait, lambda inner: list(concurrent.futures.as_completed(inner))]
    )
    def test_bodies_that_wait_for_several_join_apps_do_not_starve_them(self, load: Load, wait: Any) -> None:
        load(internal_tasks_max_threads=2)

        def body() -> Any:
            inner = [join(lambda: same(1)) for _ in range(3)]
            wait(inner)
            return inner

        futures = [join(body) for _ in range(10)]
        assert [future.result(timeout=60) for future in futures] == [[1] * 3] * 10

    def test_bodies_that_wait_for_files_do_not_starve_what_makes_them(self, load: Load) -> None:
        load(internal_tasks_max_threads=1)
        nothing = join_app(lambda outputs: [])

        def body() -> Any:
            return same(nothing(outputs=["file"]).outputs[0].result().filename)

        assert join(body).result(timeout=60) == "file"

    def test_a_body_that_awaits_many_makes_room_for_one_thread(self, load: Load) -> None:
        load(internal_tasks_max_threads=1)
        names: set[str] = set()

        def note() -> Any:
            names.add(threading.current_thread().name)
            return []

        @join_app
        async def body() -> Any:
            await asyncio.gather(*(join(note) for _ in range(20)))
            return []

        body().result(timeout=60)
        assert len(names) == 1

    def test_bodies_that_wait_for_parts_do_not_starve_them(self, load: Load) -> None:
        load(internal_tasks_max_threads=2)
        futures = [join(lambda: same(same({"a": 1})["a"].result())) for _ in range(10)]
        assert [future.result(timeout=60) for future in futures] == [1] * 10

    def test_no_more_bodies_run_at_once_than_allowed(self, load: Load) -> None:
        load(internal_tasks_max_threads=2)
        running, most, lock = [0], [0], threading.Lock()
        gate = threading.Barrier(2)

        def body() -> Any:
            with lock:
                running[0] += 1
                most[0] = max(most[0], running[0])
            gate.wait(90)
            with lock:
                running[0] -= 1
            return []

        for future in [join(body) for _ in range(10)]:
            future.result()
        assert most[0] == 2

    def test_no_executor_runs_a_body(self, kernel: DataFlowKernel) -> None:
        names: list[str] = []

        def body() -> Any:
            names.append(threading.current_thread().name)
            return []

        future = join(body)
        future.result()
        assert names[0].startswith("flowcore-internal-")
        assert list(kernel.executors) == ["threads"]


class TestOptions:
    def test_the_results_can_be_remembered(self, kernel: DataFlowKernel) -> None:
        @join_app(cache=True)
        def fan(count: int) -> Any:
            BODIES.append(count)
            return [same(number) for number in range(count)]

        assert fan(3).result() == fan(3).result() == [0, 1, 2]
        assert BODIES == [3]

    def test_there_is_no_executor_to_choose(self) -> None:
        with pytest.raises(TypeError):
            join_app(executors=["threads"])

    def test_resources_are_refused_with_a_remedy(self, kernel: DataFlowKernel) -> None:
        with pytest.raises(InvalidResourceSpecification, match="give it to the apps that it calls"):
            join(list, resource_specification={"cores": 1})

    def test_a_method(self, kernel: DataFlowKernel) -> None:
        class Fan:
            width = 2

            @join_app
            def out(self) -> Any:
                return [same(number) for number in range(self.width)]

        assert Fan().out().result() == [0, 1]

    def test_inputs_are_awaited(self, kernel: DataFlowKernel) -> None:
        assert join_app(lambda inputs: [same(item) for item in inputs])(inputs=(same(1), 2)).result() == [1, 2]


def test_nested_joins(kernel: DataFlowKernel) -> None:
    @join_app
    def down(depth: int) -> Any:
        return same(0) if depth == 0 else down(depth - 1)

    assert down(200).result() == 0
