"""What a call gives: a future that can be lifted, awaited and looked at, and launches nothing by accident."""

from __future__ import annotations

import asyncio
import concurrent.futures
import copy
import gc
import pickle
import threading
import weakref
from types import SimpleNamespace
from typing import Any

import pytest
from tests.core.conftest import Load

from flowcore import join_app, python_app
from flowcore.app.futures import AppFuture
from flowcore.dataflow.kernel import DataFlowKernel
from waiting import eventually


@python_app
def same(value: Any) -> Any:
    return value


@python_app
def fail(error: BaseException) -> Any:
    raise error


@python_app
def hold(event: threading.Event) -> int:
    event.wait(600)
    return 1


class TestParts:
    def test_an_item_of_a_dict(self, kernel: DataFlowKernel) -> None:
        assert same({"a": 1})["a"].result() == 1

    def test_an_item_of_a_list(self, kernel: DataFlowKernel) -> None:
        future = same([1, 2, 3])
        assert (future[0].result(), future[-1].result(), future[1:].result()) == (1, 3, [2, 3])

    def test_an_attribute(self, kernel: DataFlowKernel) -> None:
        assert same(SimpleNamespace(q=3)).q.result() == 3

    def test_a_part_of_a_part(self, kernel: DataFlowKernel) -> None:
        assert same({"a": [SimpleNamespace(b=5)]})["a"][0].b.result() == 5

    def test_a_part_is_an_argument(self, kernel: DataFlowKernel) -> None:
        assert same(same({"a": 1})["a"]).result() == 1

    def test_a_key_may_be_a_future(self, kernel: DataFlowKernel) -> None:
        assert same({"a": 1})[same("a")].result() == 1

    def test_a_missing_key_is_the_parts_error(self, kernel: DataFlowKernel) -> None:
        future = same({"a": 1})
        with pytest.raises(KeyError):
            future["b"].result()
        assert future.result() == {"a": 1}

    def test_a_missing_attribute_is_the_parts_error(self, kernel: DataFlowKernel) -> None:
        with pytest.raises(AttributeError):
            same(1).nothing.result()

    def test_lifting_does_not_wait(self, kernel: DataFlowKernel) -> None:
        event = threading.Event()
        part = hold(event)["a"]
        assert not part.done()
        event.set()
        assert isinstance(part.exception(), TypeError)

    def test_private_attributes_are_not_lifted(self, kernel: DataFlowKernel) -> None:
        future = same(1)
        with pytest.raises(AttributeError, match="has no attribute '_secret'"):
            _ = future._secret

    def test_parts_do_not_need_the_executor(self, load: Load) -> None:
        kernel = load()
        future = same({"a": 1})
        future.result()
        event = threading.Event()
        held = [hold(event) for _ in range(4)]
        assert future["a"].result(timeout=60) == 1
        event.set()
        assert [one.result() for one in held] == [1] * 4
        assert kernel.task_count == 6


class TestNothingIsLaunched:
    @pytest.mark.parametrize(
        "look",
        [
            lambda future: hasattr(future, "__array__"),
            lambda future: hasattr(future, "__len__"),
            lambda future: hasattr(future, "_repr_html_"),
            repr,
            str,
            bool,
            hash,
            lambda future: future == 1,
            lambda future: future.task_status(),
            lambda future: (future.tid, future.stdout, future.stderr, future.outputs),
            copy.copy,
        ],
    )
    def test_by_looking(self, kernel: DataFlowKernel, look: Any) -> None:
        future = same(1)
        future.result()
        try:
            look(future)
        except TypeError:
            pass
        assert kernel.task_count == 1

    @pytest.mark.parametrize(
        "loop", [list, iter, tuple, lambda future: 1 in future, lambda future: [*future], reversed]
    )
    def test_by_iterating(self, kernel: DataFlowKernel, loop: Any) -> None:
        with pytest.raises(TypeError):
            loop(same([1, 2]))
        assert kernel.task_count == 1

    def test_by_asking_for_a_length(self, kernel: DataFlowKernel) -> None:
        with pytest.raises(TypeError):
            len(same([1]))
        assert kernel.task_count == 1


class TestItself:
    def test_it_is_a_concurrent_future(self, kernel: DataFlowKernel) -> None:
        future = same(1)
        assert isinstance(future, concurrent.futures.Future)
        assert isinstance(future, AppFuture)
        assert concurrent.futures.wait([future], timeout=60).done == {future}

    def test_as_completed_gives_every_one(self, kernel: DataFlowKernel) -> None:
        futures = [same(number) for number in range(100)]
        done = concurrent.futures.as_completed(futures, timeout=60)
        assert sorted(future.result() for future in done) == list(range(100))

    def test_the_exception_is_the_very_object(self, kernel: DataFlowKernel) -> None:
        error = ValueError("x")
        future = fail(error)
        assert future.exception() is error
        with pytest.raises(ValueError) as caught:
            future.result()
        assert caught.value is error

    def test_a_task_that_exits_fails_alone(self, kernel: DataFlowKernel) -> None:
        assert isinstance(fail(SystemExit(2)).exception(), SystemExit)
        assert isinstance(fail(KeyboardInterrupt()).exception(), KeyboardInterrupt)
        assert [same(number).result() for number in range(10)] == list(range(10))

    def test_task_ids_count_up_from_zero(self, kernel: DataFlowKernel) -> None:
        assert [same(None).tid for _ in range(3)] == [0, 1, 2]

    def test_status_and_repr_follow_the_task(self, kernel: DataFlowKernel) -> None:
        event = threading.Event()
        held = hold(event)
        waiting = same(held)
        assert waiting.task_status() == "pending"
        assert held.task_status() == "launched"
        assert repr(waiting) == "<AppFuture task 1 same pending>"
        event.set()
        assert waiting.result() == 1
        assert waiting.task_status() == "exec_done"
        assert repr(held) == "<AppFuture task 0 hold exec_done>"

    def test_running_is_known(self, kernel: DataFlowKernel) -> None:
        started, event = threading.Event(), threading.Event()

        @python_app
        def tell() -> None:
            started.set()
            event.wait(600)

        future = tell()
        waiting = same(future)
        assert started.wait(60)
        assert future.running()
        assert not waiting.running()
        event.set()
        future.result()
        assert not future.running()

    def test_it_does_not_pickle_and_says_what_to_do(self, kernel: DataFlowKernel) -> None:
        with pytest.raises(TypeError, match="a future cannot be sent to another process"):
            pickle.dumps(same(1))

    def test_the_task_name_is_the_functions(self, kernel: DataFlowKernel) -> None:
        record = same(1).task_record
        assert record.func_name == "same"
        assert record["func_name"] == "same"
        with pytest.raises(KeyError):
            record["nothing"]

    def test_callbacks_get_the_app_future(self, kernel: DataFlowKernel) -> None:
        called, seen = threading.Event(), []

        def note(future: Any) -> None:
            seen.append(future)
            called.set()

        future = same(1)
        future.add_done_callback(note)
        assert called.wait(60)
        assert seen == [future]


class TestAwaiting:
    def test_a_result(self, kernel: DataFlowKernel) -> None:
        async def main() -> Any:
            return await same(same(4))

        assert asyncio.run(main()) == 4

    def test_an_exception(self, kernel: DataFlowKernel) -> None:
        async def main() -> Any:
            return await fail(KeyError("k"))

        with pytest.raises(KeyError):
            asyncio.run(main())

    def test_many_at_once(self, kernel: DataFlowKernel) -> None:
        async def main() -> Any:
            return await asyncio.gather(*(same(number) for number in range(50)))

        assert asyncio.run(main()) == list(range(50))

    def test_a_timeout_cancels_what_has_not_begun(self, load: Load) -> None:
        load()
        event = threading.Event()
        waiting = same(hold(event))

        async def main() -> None:
            await asyncio.wait_for(waiting, timeout=0.02)

        with pytest.raises(asyncio.TimeoutError):
            asyncio.run(main())
        assert waiting.cancelled()
        event.set()

    def test_awaiting_in_a_join_body(self, kernel: DataFlowKernel) -> None:
        @join_app
        async def body() -> Any:
            return [same(await same(number)) for number in range(3)]

        assert body().result() == [0, 1, 2]


class TestMemory:
    def test_a_finished_task_keeps_no_argument(self, kernel: DataFlowKernel) -> None:
        class Argument(list[int]):
            pass

        def call() -> tuple[Any, weakref.ref[Any]]:
            argument = Argument([1])
            return consume(argument, keyword=[argument], inputs=[argument]), weakref.ref(argument)

        @python_app
        def consume(argument: Any, keyword: Any, inputs: Any) -> int:
            return len(argument) + len(keyword) + len(inputs)

        gc.collect()
        gc.disable()
        try:
            future, reference = call()
            assert future.result() == 3
            eventually(lambda: reference() is None)  # the thread has gone on
        finally:
            gc.enable()
        assert future.task_record.args == ()

    @pytest.mark.parametrize("app", [python_app, join_app])
    def test_a_failed_task_is_in_no_cycle(self, kernel: DataFlowKernel, app: Any) -> None:
        @app
        def refuse() -> Any:
            raise ValueError

        def call() -> weakref.ref[Any]:
            future = refuse()
            assert isinstance(future.exception(), ValueError)
            return weakref.ref(future)

        gc.collect()
        gc.disable()
        try:
            reference = call()
            eventually(lambda: reference() is None)
        finally:
            gc.enable()

    def test_a_join_keeps_no_inner_future(self, kernel: DataFlowKernel) -> None:
        inner: list[weakref.ref[Any]] = []

        @join_app
        def fan() -> Any:
            futures = [same(number) for number in range(3)]
            inner.extend(map(weakref.ref, futures))
            return futures

        def gone() -> bool:
            gc.collect()
            return [reference() for reference in inner] == [None] * 3

        outer = fan()
        assert outer.result() == [0, 1, 2]
        eventually(gone)
