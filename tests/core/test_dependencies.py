"""Futures among arguments: found wherever they are, awaited, replaced; and what a failed one means."""

from __future__ import annotations

import concurrent.futures
import gc
import pickle
import threading
import time
from collections import OrderedDict, defaultdict, namedtuple
from collections.abc import Sequence
from typing import Any, NamedTuple

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.core.conftest import Load

from flowcore import python_app
from flowcore.dataflow.dependency_resolvers import (
    DEEP_DEPENDENCY_RESOLVER,
    SHALLOW_DEPENDENCY_RESOLVER,
    DependencyResolver,
)
from flowcore.dataflow.errors import DependencyError
from flowcore.dataflow.kernel import DataFlowKernel

gather = DEEP_DEPENDENCY_RESOLVER.traverse_to_gather
unwrap = DEEP_DEPENDENCY_RESOLVER.traverse_to_unwrap

Pair = namedtuple("Pair", "left right")  # noqa: PYI024 - both ways of making one are tested


class Typed(NamedTuple):
    left: Any
    right: Any = 0


@python_app
def same(value: Any) -> Any:
    return value


@python_app
def both(*args: Any, **kwargs: Any) -> Any:
    return args, kwargs


@python_app
def fail(error: BaseException) -> Any:
    raise error


def done(value: Any) -> concurrent.futures.Future[Any]:
    future: concurrent.futures.Future[Any] = concurrent.futures.Future()
    future.set_result(value)
    return future


class TestWhereTheyAreFound:
    @pytest.mark.parametrize(
        ("make", "expected"),
        [
            (lambda f: f, 1),
            (lambda f: [f], [1]),
            (lambda f: (f, 2), (1, 2)),
            (lambda f: {f}, {1}),
            (lambda f: frozenset([f, 2]), frozenset([1, 2])),
            (lambda f: {"a": f}, {"a": 1}),
            (lambda f: {f: "a"}, {1: "a"}),
            (lambda f: {(f, f): [f]}, {(1, 1): [1]}),
            (lambda f: [[[[({"a": [f]},)]]]], [[[[({"a": [1]},)]]]]),
            (lambda f: Pair(f, [f]), Pair(1, [1])),
            (lambda f: Typed(f), Typed(1)),
            (lambda f: OrderedDict(a=f), OrderedDict(a=1)),
            (lambda f: [f, "x", None, b"y", 1.5, f], [1, "x", None, b"y", 1.5, 1]),
        ],
    )
    def test_in_containers(self, kernel: DataFlowKernel, make: Any, expected: Any) -> None:
        value = same(make(same(1))).result()
        assert value == expected
        assert type(value) is type(expected)

    def test_a_default_dict_stays_one(self, kernel: DataFlowKernel) -> None:
        argument = defaultdict(list)
        argument["a"].append(same(1))
        value = same(argument).result()
        assert value == {"a": [1]}
        assert value["new"] == []

    def test_in_every_kind_of_parameter(self, kernel: DataFlowKernel) -> None:
        one = same(1)
        assert both(one, [one], a=one, b={"c": one}).result() == ((1, [1]), {"a": 1, "b": {"c": 1}})

    def test_at_any_depth(self, kernel: DataFlowKernel) -> None:
        nested: Any = same(1)
        for _ in range(50_000):
            nested = [nested]
        value = same(nested).result()
        for _ in range(50_000):
            (value,) = value
        assert value == 1
        while nested:  # taken apart from the outside, or its end would recurse as deeply
            nested = nested.pop() if isinstance(nested, list) else None

    def test_in_a_list_that_contains_itself(self, kernel: DataFlowKernel) -> None:
        argument: list[Any] = [same(1)]
        argument.append(argument)
        value = same(argument).result()
        assert value[0] == 1
        assert value[1] is value
        assert argument[1] is argument

    def test_in_a_cycle_of_all_kinds(self, kernel: DataFlowKernel) -> None:
        inner: list[Any] = []
        mapping = {"list": inner, "future": same(1)}
        argument = (mapping, Pair(inner, 0))
        inner.append(argument)
        value = same(argument).result()
        assert value[0]["future"] == 1
        assert value[0]["list"] is value[1].left
        assert value[0]["list"][0] is value

    def test_a_container_in_two_places_stays_one(self, kernel: DataFlowKernel) -> None:
        shared = [same(1)]
        value = same([shared, shared]).result()
        assert value == [[1], [1]]
        assert value[0] is value[1]

    def test_a_container_without_futures_is_not_copied(self, kernel: DataFlowKernel) -> None:
        clean, argument = [1, 2], ([1], {"a": {3}})
        assert same([same(1), clean]).result()[1] is clean
        assert same(argument).result() is argument

    def test_the_callers_container_is_not_changed(self, kernel: DataFlowKernel) -> None:
        future = same(1)
        argument = {"a": [future]}
        same(argument).result()
        assert argument == {"a": [future]}

    def test_not_inside_objects_of_other_kinds(self, kernel: DataFlowKernel) -> None:
        class Own(list[Any]):
            pass

        argument = Own([same(1)])
        assert same(argument).result() is argument

    def test_an_unhashable_result_in_a_set_fails_the_task(self, kernel: DataFlowKernel) -> None:
        assert isinstance(same({same([])}).exception(), TypeError)
        assert isinstance(same({same([]): 1}).exception(), TypeError)

    @pytest.mark.performance
    def test_a_wide_container_costs_linear_time(self) -> None:
        def seconds(width: int) -> float:
            argument = [[[number, done(number)]] for number in range(width)]
            gc.collect()
            gc.disable()  # it looks at everything there is, however many that are
            try:
                start = time.process_time()
                assert len(gather(argument)) == width
                unwrap(argument)
                return time.process_time() - start
            finally:
                gc.enable()

        seconds(1000)
        assert min(seconds(32_000) / seconds(2_000) for _ in range(3)) < 64  # 16 if it is linear, 256 if quadratic


containers = st.recursive(
    st.integers() | st.text() | st.none() | st.builds(done, st.integers()),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.builds(Pair, inner, inner)
        | st.dictionaries(st.text() | st.builds(done, st.integers()), inner)
        | st.frozensets(st.integers() | st.builds(done, st.text()))
    ),
    max_leaves=30,
)


def plain(value: Any) -> Any:
    """Replace futures the simple way."""
    if isinstance(value, concurrent.futures.Future):
        return value.result()
    if isinstance(value, dict):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, Pair):
        return Pair(*map(plain, value))
    if isinstance(value, (list, tuple, frozenset)):
        return type(value)(plain(item) for item in value)
    return value


@given(containers)
def test_replacing_is_what_the_simple_way_does(argument: Any) -> None:
    unwrapped = unwrap(argument)
    assert unwrapped == plain(argument)
    assert not gather(unwrapped)
    if not gather(argument):
        assert unwrapped is argument


class TestPlainFutures:
    def test_one_that_is_done_later(self, kernel: DataFlowKernel) -> None:
        plain_one: concurrent.futures.Future[int] = concurrent.futures.Future()
        future = same([plain_one])
        assert future.task_status() == "pending"
        plain_one.set_result(4)
        assert future.result() == [4]

    def test_one_of_another_pool(self, kernel: DataFlowKernel) -> None:
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            assert same(pool.submit(pow, 2, 3)).result() == 8

    def test_one_that_fails_is_named_by_its_repr(self, kernel: DataFlowKernel) -> None:
        plain_one: concurrent.futures.Future[int] = concurrent.futures.Future()
        cause = ValueError("x")
        plain_one.set_exception(cause)
        error = same(plain_one).exception()
        assert isinstance(error, DependencyError)
        assert error.dependent_exceptions_tids[0][1].startswith("<Future ")
        assert error.__cause__ is cause

    def test_one_that_is_cancelled(self, kernel: DataFlowKernel) -> None:
        plain_one: concurrent.futures.Future[int] = concurrent.futures.Future()
        future = same(plain_one)
        plain_one.cancel()
        error = future.exception()
        assert isinstance(error, DependencyError)
        assert isinstance(error.__cause__, concurrent.futures.CancelledError)

    def test_the_same_one_many_times(self, kernel: DataFlowKernel) -> None:
        plain_one: concurrent.futures.Future[int] = concurrent.futures.Future()
        future = both(*[plain_one] * 100, [plain_one] * 100)
        plain_one.set_result(1)
        assert future.result() == ((*[1] * 100, [1] * 100), {})

    def test_many_that_are_done_by_many_threads(self, kernel: DataFlowKernel) -> None:
        for _ in range(50):
            plain_ones = [concurrent.futures.Future[int]() for _ in range(8)]
            barrier = threading.Barrier(len(plain_ones))

            def finish(one: Any, barrier: Any = barrier) -> None:
                barrier.wait()
                one.set_result(1)

            threads = [threading.Thread(target=finish, args=(one,)) for one in plain_ones]
            for thread in threads:
                thread.start()
            future = same(plain_ones)
            assert future.result(timeout=90) == [1] * 8
            for thread in threads:
                thread.join()


class TestFailures:
    def test_the_task_never_runs(self, kernel: DataFlowKernel) -> None:
        ran: list[int] = []
        cause = ValueError("the reason")
        bad = fail(cause)
        future = python_app(ran.append)(bad)
        error = future.exception()
        assert isinstance(error, DependencyError)
        assert (error.task_id, error.dependent_exceptions_tids) == (1, [(cause, "task 0")])
        assert error.__cause__ is cause
        expected = "Dependency failure for task 1. The representative cause is via task 0\n  ValueError: the reason"
        assert str(error) == expected
        assert future.task_status() == "dep_fail"
        assert ran == []

    def test_a_chain_names_the_way_and_the_root(self, kernel: DataFlowKernel) -> None:
        cause = ValueError("root")
        error = same(same(same(fail(cause)))).exception()
        assert isinstance(error, DependencyError)
        text = "Dependency failure for task 3. The representative cause is via task 2 <- task 1 <- task 0\n  ValueError"
        assert str(error).startswith(text)
        assert isinstance(error.dependent_exceptions_tids[0][0], DependencyError)
        assert error.__cause__ is cause
        assert {state.name: count for state, count in kernel.task_state_counts.items() if count} == {
            "failed": 1,
            "dep_fail": 3,
        }

    def test_several_are_all_kept(self, kernel: DataFlowKernel) -> None:
        error = both(fail(ValueError("a")), [fail(KeyError("b"))], c=same(1)).exception()
        assert isinstance(error, DependencyError)
        assert [name for _, name in error.dependent_exceptions_tids] == ["task 0", "task 1"]
        assert " (+ others)" in str(error)

    def test_it_waits_for_the_others_before_it_fails(self, kernel: DataFlowKernel) -> None:
        plain_one: concurrent.futures.Future[int] = concurrent.futures.Future()
        bad = fail(ValueError())
        future = both(bad, plain_one)
        bad.exception()
        assert not future.done()
        plain_one.set_result(1)
        assert isinstance(future.exception(), DependencyError)

    def test_the_error_pickles(self, kernel: DataFlowKernel) -> None:
        error = same(same(fail(ValueError("x")))).exception()
        again = pickle.loads(pickle.dumps(error))
        assert str(again) == str(error)
        assert isinstance(again.__cause__, ValueError)

    def test_a_long_chain_has_a_short_text(self, kernel: DataFlowKernel) -> None:
        future = fail(ValueError("root"))
        for _ in range(500):
            future = same(future)
        text = str(future.exception())
        assert len(text) < 500
        assert "ValueError: root" in text
        assert repr(future.exception()) == "DependencyError(task 500, 1 failed)"

    def test_they_are_not_tried_again(self, load: Load) -> None:
        asked: list[BaseException] = []
        load(retries=3, retry_handler=lambda error, _: asked.append(error) or 1)
        bad = fail(ValueError())
        assert isinstance(same(bad).exception(), DependencyError)
        assert [type(error) for error in asked] == [ValueError] * 4


class TestResolvers:
    def test_the_shallow_one_looks_at_arguments_and_inputs_only(self, load: Load) -> None:
        load(dependency_resolver=SHALLOW_DEPENDENCY_RESOLVER)
        one = same(1)
        (args, kwargs) = both(one, [one], a=one, inputs=[one, [one]]).result()
        assert args == (1, [one])
        assert kwargs == {"a": 1, "inputs": [1, [one]]}

    def test_one_of_the_users_own(self, load: Load) -> None:
        @attrs.frozen
        class Box:
            content: Any

        def look(argument: object) -> Sequence[concurrent.futures.Future[Any]]:
            return gather(argument.content if isinstance(argument, Box) else argument)

        def replace(argument: object) -> object:
            return Box(unwrap(argument.content)) if isinstance(argument, Box) else unwrap(argument)

        load(dependency_resolver=DependencyResolver(look, replace))
        assert same(Box([same(1)])).result() == Box([1])
        assert isinstance(same(Box(fail(ValueError()))).exception(), DependencyError)

    def test_one_that_raises_when_it_looks_raises_at_the_call(self, load: Load) -> None:
        def look(_: object) -> Sequence[concurrent.futures.Future[Any]]:
            raise KeyError("look")

        kernel = load(dependency_resolver=DependencyResolver(look, lambda argument: argument))
        with pytest.raises(KeyError):
            same(object())
        kernel.wait_for_current_tasks()
        assert kernel.unfinished_count() == 0

    def test_one_that_raises_when_it_replaces_fails_the_task(self, load: Load) -> None:
        def replace(_: object) -> object:
            raise KeyError("replace")

        load(dependency_resolver=DependencyResolver(gather, replace))
        assert isinstance(same(same(1)).exception(timeout=90), KeyError)
