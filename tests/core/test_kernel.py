"""The kernel: its face, its executors and how it chooses, and what threads, callbacks and observers may do to it."""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.core.conftest import Load

import flowcore
from flowcore import Config, DataFlowKernel, File, join_app, python_app
from flowcore.data_provider.staging import Staging
from flowcore.dataflow.errors import DependencyError
from flowcore.dataflow.tasks import FINAL_STATES, SUCCESSORS, States
from flowcore.errors import ConfigurationError, FlowcoreError, InvalidResourceSpecification, NoDataFlowKernelError
from flowcore.executors import ThreadPoolExecutor
from flowcore.executors.base import Executor, RunContext
from flowcore.executors.errors import ExecutorError
from flowcore.futures import TaskFuture
from flowcore.providers import LocalProvider
from flowcore.testing.blocks import HandRunExecutor


@python_app
def same(value: Any) -> Any:
    return value


@python_app
def where() -> str:
    return threading.current_thread().name.rpartition("-")[0]


told = python_app(lambda value: value, executors=["threads"])
remembered = python_app(lambda value: value, executors=["threads"], cache=True)


class Inline(Executor):
    """Runs a task inside `submit`."""

    def __init__(self, label: str = "inline", keys: frozenset[str] = frozenset()) -> None:
        self.label = label
        self.resource_keys = keys
        self.events: list[str] = []
        self.load = 0

    def start(self, run: RunContext) -> None:
        self.run = run
        self.events.append("start")

    def submit(
        self, func: Callable[..., Any], resource_specification: Mapping[str, Any], /, *args: Any, **kwargs: Any
    ) -> TaskFuture[Any]:
        future: TaskFuture[Any] = TaskFuture()
        try:
            future.set_result(func(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future

    def shutdown(self) -> None:
        self.events.append("shutdown")

    def outstanding(self) -> int:
        return self.load


class Broken(Inline):
    def __init__(self, error: BaseException, label: str = "broken") -> None:
        super().__init__(label)
        self.error = error

    def start(self, run: RunContext) -> None:
        super().start(run)
        raise self.error


class Refusing(Inline):
    def submit(self, *_: Any, **__: Any) -> Any:
        raise ExecutorError(self, "it refuses")


class TestFace:
    def test_attributes(self, kernel: DataFlowKernel) -> None:
        assert flowcore.dfk() is kernel
        assert str(uuid.UUID(kernel.run_id)) == kernel.run_id
        assert kernel.run_dir == Path("runinfo/000").absolute()
        assert isinstance(kernel.config, Config)
        assert list(kernel.executors) == ["threads"]
        assert kernel.executors["threads"].status() == {}
        assert (kernel.task_count, kernel.tasks, kernel.monitoring, kernel.job_status_poller) == (0, {}, None, None)
        assert kernel.workflow_name
        assert kernel.workflow_version
        assert kernel.memoizer is not None
        assert kernel.data_manager is not None
        assert not kernel.cleaned

    def test_submit(self, kernel: DataFlowKernel) -> None:
        future = kernel.submit(pow, [2, 3])
        assert future.result() == 8
        named = kernel.submit(dict, (), executors=["threads"], app_kwargs={"a": 1})
        assert named.result() == {"a": 1}
        assert kernel.submit(lambda: [same(1)], (), join=True).result() == [1]

    def test_submit_changes_nothing_it_was_given(self, kernel: DataFlowKernel) -> None:
        args, kwargs = [same(1)], {"inputs": [same(2)], "walltime": 60}
        copies = (list(args), dict(kwargs))
        kernel.submit(lambda *_, **__: None, args, app_kwargs=kwargs).result()
        assert (args, kwargs) == copies

    def test_counts(self, load: Load) -> None:
        kernel = load()
        same(1).result()
        same(same(2)).result()
        event = threading.Event()
        held = python_app(event.wait)(90)
        waiting = same(held)
        assert kernel.task_count == 5
        counts = {state: count for state, count in kernel.task_state_counts.items() if count}
        assert counts == {States.exec_done: 3, States.launched: 1, States.pending: 1}
        assert set(kernel.tasks) == {held.tid, waiting.tid}
        assert kernel.unfinished_count() == 2
        event.set()

    def test_a_task_is_finished_before_those_who_wait_for_it_are_told(self, kernel: DataFlowKernel) -> None:
        run, called, leave = threading.Event(), threading.Event(), threading.Event()
        future = python_app(run.wait)(90)
        future.add_done_callback(lambda _: (called.set(), leave.wait(90)))
        run.set()
        try:
            assert called.wait(90)
            kernel.wait_for_current_tasks()
            assert kernel.unfinished_count() == 0
        finally:
            leave.set()

    def test_tasks_can_be_listed_while_they_come_and_go(self, kernel: DataFlowKernel) -> None:
        stop = threading.Event()

        def submit() -> None:
            while not stop.is_set():
                same(1)

        thread = threading.Thread(target=submit)
        thread.start()
        for _ in range(20):
            kernel.wait_for_current_tasks()
            kernel.log_task_states()
            dict(kernel.task_state_counts)
        stop.set()
        thread.join()
        kernel.wait_for_current_tasks()
        assert kernel.unfinished_count() == 0

    def test_a_wiped_task_goes_on(self, kernel: DataFlowKernel) -> None:
        event = threading.Event()
        future = python_app(event.wait)(90)
        kernel.wipe_task(future.tid)
        assert kernel.tasks == {}
        event.set()
        assert future.result() is True
        kernel.wipe_task(99)

    def test_a_record_is_a_mapping_of_its_fields(self, load: Load) -> None:
        load(garbage_collect=False)
        future = same(1)
        future.result()
        record = dict(future.task_record)
        assert record["app_fu"] is future
        assert (record["status"], record["func_name"], record["id"]) == (States.exec_done, "same", 0)
        assert record["executor"] == "threads"
        times = [record[name] for name in ("time_invoked", "try_time_launched", "try_time_returned", "time_returned")]
        assert times == sorted(times)

    def test_futures_are_described_as_in_errors(self, kernel: DataFlowKernel) -> None:
        assert kernel.render_future_description(same(1)) == "task 0"
        assert kernel.render_future_description(TaskFuture()).startswith("<TaskFuture at")

    def test_every_state_leads_to_a_final_one(self) -> None:
        assert [state for state in FINAL_STATES if SUCCESSORS[state]] == []
        for state, following in SUCCESSORS.items():
            assert state in FINAL_STATES or States.failed in following


class TestChoice:
    @pytest.fixture(autouse=True)
    def several(self, load: Load) -> DataFlowKernel:
        return load(executors=[ThreadPoolExecutor(2, "one", "one"), ThreadPoolExecutor(2, "two", "two")])

    def test_by_label(self) -> None:
        for label in ("one", "two"):
            app = python_app(executors=[label])(where.func)
            assert {app().result() for _ in range(20)} == {label}

    def test_by_one_of_several_labels(self) -> None:
        app = python_app(executors=["two", "one"])(where.func)
        assert {app().result() for _ in range(5)} <= {"one", "two"}

    def test_an_unknown_label_is_refused_at_the_call_with_those_there_are(self) -> None:
        app = python_app(executors=["three"])(lambda: 1)
        with pytest.raises(ValueError, match=r"invalid executor 'three'\n  .*: 'one', 'two'"):
            app()

    def test_one_unknown_label_among_several_is_refused(self) -> None:
        with pytest.raises(ValueError, match="'three'"):
            python_app(executors=["one", "three"])(lambda: 1)()

    def test_a_label_alone_is_a_label(self, several: DataFlowKernel) -> None:
        assert several.submit(where.func, (), executors="two").result() == "two"
        with pytest.raises(ValueError, match="invalid executor 'on'"):
            several.submit(where.func, (), executors="on")

    def test_by_load(self) -> None:
        event = threading.Event()
        held = [python_app(executors=["one"])(event.wait)(90) for _ in range(4)]
        assert {where().result() for _ in range(10)} == {"two"}
        event.set()
        assert all(future.result() for future in held)

    def test_by_load_for_each_slot(self, load: Load) -> None:
        flowcore.clear()
        load(executors=[ThreadPoolExecutor(1, "small", "small"), ThreadPoolExecutor(9, "big", "big")])
        event = threading.Event()
        futures = [python_app(event.wait)(90) for _ in range(20)]
        assert Counter(future.task_record.executor for future in futures) == {"big": 18, "small": 2}
        event.set()

    @pytest.mark.parametrize("files", [(), (File("/etc/hostname"),)])
    def test_one_that_is_out_of_order_comes_last(self, load: Load, files: Sequence[File]) -> None:
        flowcore.clear()
        broken = HandRunExecutor(LocalProvider(init_blocks=0), label="broken")
        load(executors=[broken, ThreadPoolExecutor(1, "threads", "threads")])
        broken.set_bad_state_and_fail_all(OSError("all nodes are down"))
        event = threading.Event()
        held = python_app(executors=["threads"])(event.wait)(90)
        future = python_app(lambda value, inputs: value)(1, inputs=files)
        assert future.task_record.executor == "threads"
        event.set()
        assert (held.result(), future.result()) == (True, 1)

    def test_late_where_the_task_waits(self) -> None:
        plain: TaskFuture[int] = TaskFuture()
        future = python_app(lambda _: where.func())(plain)
        event = threading.Event()
        held = [python_app(executors=["one"])(event.wait)(90) for _ in range(4)]
        plain.set_result(1)
        assert future.result() == "two"
        event.set()
        assert all(one.result() for one in held)

    def test_the_kernels_own_threads_are_no_choice(self, several: DataFlowKernel) -> None:
        assert same({"a": 1})["a"].result() == 1
        assert list(several.executors) == ["one", "two"]
        with pytest.raises(ValueError, match="invalid executor 'internal'"):
            several.submit(pow, (1, 2), executors=["internal"])


class TestChoiceByResources:
    def test_the_task_goes_where_all_its_keys_are_honoured(self, load: Load) -> None:
        cores = Inline("cores", frozenset({"cores"}))
        both = Inline("both", frozenset({"cores", "memory"}))
        load(executors=[Inline("none"), cores, both])
        future = same(1, resource_specification={"cores": 1, "memory": "1GB"})
        future.result()
        assert future.task_record.executor == "both"
        assert future.task_record.resource_specification == {"cores": 1, "memory": 1000}

    def test_keys_that_nobody_honours_together(self, load: Load) -> None:
        load(executors=[Inline("a", frozenset({"cores"})), Inline("b", frozenset({"memory"}))])
        with pytest.raises(InvalidResourceSpecification, match="together: a honours cores; b honours memory"):
            same(1, resource_specification={"cores": 1, "memory": 1})


class TestExecutors:
    def test_they_are_told_the_run(self, load: Load) -> None:
        executor = Inline()
        kernel = load(executors=[executor])
        assert (executor.run.run_id, executor.run.run_dir) == (kernel.run_id, kernel.run_dir)

    def test_they_can_be_added_at_run_time(self, kernel: DataFlowKernel) -> None:
        app = python_app(executors=["late"])(lambda: 1)
        with pytest.raises(ValueError):
            app()
        late = Inline("late")
        kernel.add_executors([late])
        assert app().result() == 1
        assert list(kernel.executors) == ["threads", "late"]
        kernel.cleanup()
        assert late.events == ["start", "shutdown"]

    def test_one_that_is_added_is_a_choice_for_all(self, load: Load) -> None:
        busy = Inline("busy")
        kernel = load(executors=[busy])
        assert same(1).task_record.executor == "busy"
        busy.load = 100
        kernel.add_executors([Inline("free")])
        assert same(1).task_record.executor == "free"

    def test_a_taken_label_is_refused_before_it_starts(self, kernel: DataFlowKernel) -> None:
        executor = Inline("threads")
        with pytest.raises(ConfigurationError, match=r"unique labels \(label='threads'\)"):
            kernel.add_executors([executor])
        assert executor.events == []

    def test_one_that_is_not_in_a_list_is_refused_with_a_remedy(self, kernel: DataFlowKernel) -> None:
        alone: Any = ThreadPoolExecutor(label="alone")
        with pytest.raises(ConfigurationError, match=r"write add_executors\(\[...\]\)"):
            kernel.add_executors(alone)

    def test_none_is_added_when_the_run_is_over(self, kernel: DataFlowKernel) -> None:
        kernel.cleanup()
        executor = Inline("late")
        with pytest.raises(NoDataFlowKernelError, match="the run is over"):
            kernel.add_executors([executor])
        assert executor.events in ([], ["start", "shutdown"])

    def test_one_that_cannot_start_stops_those_that_had(self) -> None:
        before, cause = Inline("before"), OSError("no space")
        broken, after = Broken(cause), Inline("after")
        with pytest.raises(ExecutorError) as caught:
            flowcore.load(Config(executors=[before, broken, after]))
        assert str(caught.value) == "Executor broken failed due to: OSError: no space"
        assert caught.value.__cause__ is cause
        assert (before.events, broken.events, after.events) == (["start", "shutdown"], ["start", "shutdown"], [])
        with pytest.raises(NoDataFlowKernelError):
            flowcore.dfk()
        with flowcore.load(Config(executors=[Inline()])):
            assert same(1).result() == 1

    def test_its_own_executor_error_comes_unchanged(self) -> None:
        error = ExecutorError("broken", "the interchange did not start")
        with pytest.raises(ExecutorError) as caught:
            flowcore.load(Config(executors=[Broken(error)]))
        assert caught.value is error

    def test_ctrl_c_while_one_starts_stops_all(self) -> None:
        before, broken = Inline("before"), Broken(KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            flowcore.load(Config(executors=[before, broken]))
        assert (before.events, broken.events) == (["start", "shutdown"], ["start", "shutdown"])

    def test_one_that_cannot_shut_down_hinders_nobody(self, load: Load, caplog: pytest.LogCaptureFixture) -> None:
        class Stuck(Inline):
            def shutdown(self) -> None:
                raise OSError("stuck")

        last = Inline("last")
        kernel = load(executors=[Stuck("stuck"), last])
        kernel.cleanup()
        assert last.events == ["start", "shutdown"]
        assert "executor stuck did not shut down cleanly" in caplog.text

    def test_a_submit_that_raises_fails_that_task(self, load: Load) -> None:
        class Picky(Inline):
            def submit(self, func: Any, resource_specification: Any, /, *args: Any, **kwargs: Any) -> Any:
                if args == ("bad",):
                    raise TypeError("cannot pickle")
                return super().submit(func, resource_specification, *args, **kwargs)

        load(executors=[Picky()])
        assert str(same("bad").exception()) == "cannot pickle"
        assert same("good").result() == "good"

    @pytest.mark.parametrize("returned", [None, 5])
    def test_a_submit_that_gives_no_future_fails_that_task(self, load: Load, returned: Any) -> None:
        class Wrong(Inline):
            def submit(self, func: Any, resource_specification: Any, /, *args: Any, **kwargs: Any) -> Any:
                return returned

        kernel = load(executors=[Wrong()])
        assert isinstance(same(1).exception(timeout=90), AttributeError)
        assert kernel.unfinished_count() == 0

    def test_a_load_that_cannot_be_told_fails_that_task(self, load: Load) -> None:
        class Silent(Inline):
            def outstanding(self) -> int:
                raise OSError("silent")

        load(executors=[Silent(), Inline("other")])
        assert isinstance(same(1).exception(timeout=90), OSError)


class TestTasksThatEndInsideSubmit:
    def test_a_chain(self, load: Load) -> None:
        load(executors=[Inline()])
        plain: TaskFuture[int] = TaskFuture()
        future: Any = plain
        for _ in range(5000):
            future = python_app(lambda x: x + 1)(future)
        plain.set_result(0)
        assert future.result() == 5000

    def test_a_chain_of_failures(self, load: Load) -> None:
        load(executors=[Inline()])
        plain: TaskFuture[int] = TaskFuture()
        future: Any = plain
        for _ in range(5000):
            future = same(future)
        plain.set_exception(ValueError("root"))
        assert "ValueError: root" in str(future.exception())

    def test_nested_joins(self, load: Load) -> None:
        load(executors=[Inline()])

        @join_app
        def down(depth: int) -> Any:
            return same(depth) if depth == 0 else down(depth - 1)

        assert down(300).result(timeout=60) == 0


class TestManyThreads:
    def test_submitting_at_once_loses_nothing(self, kernel: DataFlowKernel) -> None:
        barrier, found = threading.Barrier(8), []

        def submit(base: int) -> None:
            barrier.wait()
            futures = [same(base + number) for number in range(300)]
            found.extend(future.result() for future in futures)

        threads = [threading.Thread(target=submit, args=(1000 * number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(found) == sorted(1000 * number + item for number in range(8) for item in range(300))
        assert kernel.task_count == 2400
        assert kernel.task_state_counts[States.exec_done] == 2400

    def test_from_tasks(self, kernel: DataFlowKernel) -> None:
        @python_app
        def outer(x: int) -> Any:
            return same(x)

        futures = [outer(number) for number in range(50)]
        assert [future.result().result() for future in futures] == list(range(50))

    def test_from_callbacks(self, kernel: DataFlowKernel) -> None:
        done, made = threading.Event(), []

        def further(future: Any) -> None:
            made.append(same(future.result() + 1))
            if future.result() == 100:
                done.set()
            else:
                made[-1].add_done_callback(further)

        same(0).add_done_callback(further)
        assert done.wait(90)
        assert [future.result() for future in made] == list(range(1, 102))

    @pytest.mark.parametrize("kind", ["join", "failed", "plain"])
    def test_a_callback_may_wait_for_a_task_that_it_submits(self, load: Load, kind: str) -> None:
        load(executors=[ThreadPoolExecutor(max_threads=3)])
        done, found = threading.Event(), []

        def wait(_: Any) -> None:
            found.append(same(same(7)).result(timeout=60))
            done.set()

        if kind == "join":
            future = join_app(lambda: [same(1)])()
        elif kind == "failed":
            future = same(python_app(lambda: 1 / 0)())
        else:
            future = same(1)
        future.add_done_callback(wait)
        assert done.wait(90)
        assert found == [7]

    @pytest.mark.parametrize("kind", ["remembered", "dependency failed", "refused", "plain"])
    def test_a_callback_may_pass_its_future_on_and_wait(self, load: Load, kind: str) -> None:
        load(executors=[ThreadPoolExecutor(max_threads=3), Refusing("refusing")], lost_retries=0)
        hold, done, found = threading.Event(), threading.Event(), []
        held = python_app(hold.wait, executors=["threads"])(90)

        def wait(future: Any) -> None:
            found.append(told(future).exception(timeout=60))
            done.set()

        if kind == "remembered":
            remembered(True).result()
            future = remembered(held)
        elif kind == "dependency failed":
            future = told(python_app(lambda _: 1 / 0, executors=["threads"])(held))
        elif kind == "refused":
            future = python_app(lambda _: 1, executors=["refusing"])(held)
        else:
            future = told(held)
        future.add_done_callback(wait)
        hold.set()
        assert done.wait(90)
        assert not isinstance(found[0], TimeoutError)

    @pytest.mark.parametrize("kind", ["remembered", "dependency failed", "plain"])
    def test_a_callback_may_wait_for_what_depends_on_its_future(self, load: Load, kind: str) -> None:
        load(executors=[ThreadPoolExecutor(max_threads=3)])
        hold, done, found = threading.Event(), threading.Event(), []
        held = python_app(hold.wait)(90)

        def wait(_: Any) -> None:
            found.append(dependent.exception(timeout=60))
            done.set()

        if kind == "remembered":
            remembered(True).result()
            future = remembered(held)
        elif kind == "dependency failed":
            future = told(python_app(lambda _: 1 / 0)(held))
        else:
            future = told(held)
        dependent = told(future)
        future.add_done_callback(wait)
        hold.set()
        assert done.wait(90)
        assert isinstance(found[0], DependencyError if kind == "dependency failed" else type(None))

    def test_callbacks_that_raise_hinder_nobody(self, kernel: DataFlowKernel) -> None:
        plain: TaskFuture[int] = TaskFuture()
        first = same(plain)
        first.add_done_callback(lambda _: 1 / 0)
        second = same(first)
        third = same(first)
        for kind in (SystemExit, KeyboardInterrupt):

            def leave(_: Any, kind: type[BaseException] = kind) -> None:
                raise kind

            first.add_done_callback(leave)
        fourth = same(first)
        plain.set_result(1)
        assert [future.result(timeout=90) for future in (first, second, third, fourth)] == [1] * 4
        assert [same(number).result(timeout=90) for number in range(20)] == list(range(20))


class TestWaiting:
    def test_for_current_tasks_however_they_end(self, kernel: DataFlowKernel) -> None:
        event = threading.Event()
        held = python_app(event.wait)(90)
        bad = python_app(lambda _: 1 / 0)(held)
        cancelled = same(held)
        cancelled.cancel()
        threading.Timer(0.05, event.set).start()
        flowcore.wait_for_current_tasks()
        assert held.done()
        assert bad.done()
        assert cancelled.done()

    def test_not_for_later_ones(self, kernel: DataFlowKernel) -> None:
        stop = threading.Event()

        def again(_: Any) -> None:
            if not stop.is_set():
                same(1).add_done_callback(again)

        again(None)
        start = time.monotonic()
        kernel.wait_for_current_tasks()
        assert time.monotonic() - start < 60
        stop.set()
        kernel.wait_for_current_tasks()

    def test_what_a_refused_call_had_staged_by_then_fails_with_it(self, load: Load) -> None:
        class Outgoing(Staging):
            def can_stage_out(self, file: File) -> bool:
                return file.scheme == "outgoing"

            def stage_out(self, dm: Any, executor: str, file: File, app_fu: Any) -> Any:
                staged.append(dm.submit(executor, lambda _: None, app_fu))
                return staged[-1]

        staged: list[Any] = []
        kernel = load(executors=[ThreadPoolExecutor(storage_access=[Outgoing()])])
        write = python_app(lambda outputs: None)
        with pytest.raises(ValueError, match="cannot stage file"):
            write(outputs=[File("outgoing://host/a"), File("other://host/b")])
        error = staged[0].exception(timeout=90)
        assert isinstance(error, DependencyError)
        assert isinstance(error.__cause__, ValueError)
        kernel.wait_for_current_tasks()
        assert kernel.unfinished_count() == 0

    def test_for_none(self, kernel: DataFlowKernel) -> None:
        kernel.wait_for_current_tasks()
        assert kernel.task_count == kernel.unfinished_count() == 0

    def test_before_a_load(self) -> None:
        with pytest.raises(NoDataFlowKernelError):
            flowcore.wait_for_current_tasks()


class Watcher:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []

    def flowcore_run_started(self, kernel: Any) -> None:
        self.seen.append(("started", list(kernel.executors)))

    def flowcore_task_changed(self, task: Any, state: Any, when: float) -> None:
        assert abs(when - time.time()) < 60
        assert task.dfk.task_state_counts  # needs the lock that must not be held here
        self.seen.append((task.func_name, state.name))

    def flowcore_run_finished(self, kernel: Any) -> None:
        self.seen.append(("finished", kernel.unfinished_count()))


class TestObservers:
    def test_one_sees_everything(self, load: Load) -> None:
        watcher = Watcher()
        kernel = load(monitoring=watcher, retries=1)
        assert kernel.monitoring is watcher
        same(1).result()
        python_app(lambda: 1 / 0)().exception()
        kernel.cleanup()
        assert watcher.seen[0] == ("started", ["threads"])
        assert watcher.seen[1:4] == [("same", "pending"), ("same", "launched"), ("same", "exec_done")]
        assert [state for name, state in watcher.seen if name == "<lambda>"] == [
            "pending",
            "launched",
            "fail_retryable",
            "launched",
            "failed",
        ]
        assert watcher.seen[-1] == ("finished", 0)

    def test_of_a_run_that_cannot_begin_one_sees_neither_beginning_nor_end(self, load: Load) -> None:
        watcher = Watcher()
        with pytest.raises(ExecutorError, match="no machine"):
            load(monitoring=watcher, executors=[Broken(OSError("no machine"))])
        assert watcher.seen == []

    def test_a_join_and_its_parts(self, load: Load) -> None:
        watcher = Watcher()
        load(monitoring=watcher)
        join_app(lambda: [same(1)])().result()
        assert [state for name, state in watcher.seen if name == "<lambda>"] == [
            "pending",
            "launched",
            "joining",
            "exec_done",
        ]

    def test_one_that_raises_disturbs_nothing(self, load: Load, caplog: pytest.LogCaptureFixture) -> None:
        class Clumsy:
            def flowcore_task_changed(self, **_: Any) -> None:
                raise KeyError("clumsy")

        load(monitoring=Clumsy())
        assert [same(number).result() for number in range(5)] == list(range(5))
        assert caplog.text.count("is told nothing more") == 1


class TestInterrupts:
    def test_ctrl_c_inside_a_call_leaves_no_unfinished_task(self, load: Load) -> None:
        class Interrupted(Inline):
            def submit(self, *_: Any, **__: Any) -> Any:
                raise KeyboardInterrupt

        kernel = load(executors=[Interrupted()])
        with pytest.raises(KeyboardInterrupt):
            same(1)
        kernel.wait_for_current_tasks()
        assert kernel.unfinished_count() == 0

    def test_ctrl_c_while_dependents_are_launched_fails_that_one_alone(self, load: Load) -> None:
        class Once(Inline):
            left = 1

            def submit(self, *args: Any, **kwargs: Any) -> Any:
                if self.left:
                    self.left -= 1
                    raise KeyboardInterrupt
                return super().submit(*args, **kwargs)

        load(executors=[Once()])
        plain: TaskFuture[int] = TaskFuture()
        futures = [same(plain) for _ in range(3)]
        with pytest.raises(KeyboardInterrupt):
            plain.set_result(5)
        first = futures[0].exception(timeout=90)
        assert isinstance(first, FlowcoreError)
        assert "task 0 was interrupted on its way to an executor by KeyboardInterrupt()" in str(first)
        assert [future.result(timeout=90) for future in futures[1:]] == [5, 5]
