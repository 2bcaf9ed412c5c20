"""The thread executor: its parameters, its threads, and what shutdown does to running tasks."""

from __future__ import annotations

import gc
import tempfile
import threading
import time
import traceback
import weakref
from concurrent.futures import as_completed, wait

import pytest

from flowcore.errors import ConfigurationError, ShutdownError
from flowcore.executors.base import RunContext
from flowcore.executors.errors import ExecutorError
from flowcore_threads import plugin
from flowcore_threads.executor import ThreadPoolExecutor

PATIENCE = 60


@pytest.fixture
def start(tmp_path):
    started = []

    def start(*args, **kwargs):
        executor = ThreadPoolExecutor(*args, **kwargs)
        executor.start(RunContext(run_id="test", run_dir=tmp_path))
        started.append(executor)
        return executor

    yield start
    for executor in started:
        executor.shutdown()


def thread_name():
    return threading.current_thread().name


def test_the_manifest_announces_the_executor():
    (component,) = plugin.flowcore_executors()
    assert component.name == "ThreadPoolExecutor"
    assert component.target == f"{ThreadPoolExecutor.__module__}:{ThreadPoolExecutor.__qualname__}"


def test_positional_order_is_threads_prefix_label():
    executor = ThreadPoolExecutor(3, "io", "mine")
    assert (executor.max_threads, executor.thread_name_prefix, executor.label) == (3, "io", "mine")
    assert executor.slots() == 3


def test_the_defaults_are_the_specified_ones():
    executor = ThreadPoolExecutor()
    assert (executor.max_threads, executor.thread_name_prefix, executor.label) == (2, "", "threads")
    assert (executor.storage_access, executor.working_dir) == (None, None)


def test_a_label_where_the_number_goes_is_a_type_error_that_says_so():
    with pytest.raises(TypeError, match="max_threads comes first"):
        ThreadPoolExecutor("threads", 4)


@pytest.mark.parametrize("bad", [0, -1, True, 2.0, None])
def test_a_bad_number_of_threads_is_refused_at_construction(bad):
    with pytest.raises(
        ConfigurationError, match=rf"ThreadPoolExecutor\(max_threads={bad}\): a whole number, 1 or more"
    ):
        ThreadPoolExecutor(bad)


@pytest.mark.parametrize("wrong", [{"label": ""}, {"label": "a/b"}, {"label": 5}, {"thread_name_prefix": None}])
def test_a_bad_label_or_prefix_is_refused_at_construction(wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(ConfigurationError, match=rf"ThreadPoolExecutor\({name}={value!r}\): a text"):
        ThreadPoolExecutor(**wrong)


def test_its_repr_is_its_construction():
    assert repr(ThreadPoolExecutor(4, label="io")) == (
        "ThreadPoolExecutor(max_threads=4, thread_name_prefix='', label='io', storage_access=None, working_dir=None)"
    )


def test_threads_are_named_after_label_or_prefix(start):
    assert start(label="mine").submit(thread_name, {}).result(PATIENCE).startswith("flowcore-worker-mine")
    assert start(thread_name_prefix="io").submit(thread_name, {}).result(PATIENCE).startswith("io")


def test_threads_are_started_as_tasks_come_and_no_more_than_asked(start):
    executor = start(3, thread_name_prefix="on-demand")

    def mine():
        return [thread for thread in threading.enumerate() if thread.name.startswith("on-demand")]

    assert mine() == []
    barrier = threading.Barrier(4)
    running = [executor.submit(barrier.wait, {}, PATIENCE) for _ in range(3)]
    queued = [executor.submit(pow, {}, 2, 3) for _ in range(20)]
    assert len(mine()) == 3
    barrier.wait(PATIENCE)
    assert not wait(running + queued, PATIENCE).not_done
    assert len(mine()) == 3
    assert all(thread.daemon for thread in mine())


def test_a_thread_that_cannot_be_started_costs_that_task_alone(start, monkeypatch):
    executor = start(1)
    begin = threading.Thread.start

    def refuse(_thread):
        monkeypatch.setattr(threading.Thread, "start", begin)
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        executor.submit(pow, {}, 2, 3)
    assert executor.outstanding() == 0
    assert executor.submit(pow, {}, 2, 3).result(PATIENCE) == 8


@pytest.mark.parametrize("queued", [False, True])
def test_an_interrupt_of_a_submission_leaves_nothing_of_it(start, monkeypatch, queued):
    executor = start(1)
    assert executor.submit(pow, {}, 2, 3).result(PATIENCE) == 8
    work = executor._pool._work

    class Interrupted:
        def put(self, call):
            if queued:
                work.put(call)
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(executor._pool, "_work", Interrupted())
        executor.submit(pow, {}, 2, 4)
    assert executor.outstanding() == 0
    assert executor.submit(pow, {}, 2, 5).result(PATIENCE) == 32


def test_shutdown_does_not_wait_for_a_thread_that_could_not_be_started(start, monkeypatch):
    executor = start(1)

    def refuse(_thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError):
        executor.submit(pow, {}, 2, 3)
    executor.shutdown()
    with pytest.raises(ShutdownError):
        executor.submit(pow, {}, 2, 3)


@pytest.mark.parametrize("exit", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_an_exit_in_a_task_is_its_outcome_and_costs_no_thread(start, exit):
    executor = start(1)

    def leave():
        raise exit(3)

    name = executor.submit(thread_name, {}).result(PATIENCE)
    assert type(executor.submit(leave, {}).exception(PATIENCE)) is exit
    assert executor.submit(thread_name, {}).result(PATIENCE) == name


def test_an_exit_in_a_callback_costs_no_thread(start, caplog):
    executor = start(1)
    hold = threading.Event()
    future = executor.submit(hold.wait, {}, PATIENCE)
    future.add_done_callback(lambda _: (_ for _ in ()).throw(SystemExit))
    hold.set()
    assert executor.submit(pow, {}, 2, 3).result(PATIENCE) == 8
    assert "a callback of a task raised" in caplog.text


def test_the_traceback_shows_the_tasks_frames_only(start):
    def broken():
        return 1 / 0

    error = start().submit(broken, {}).exception(PATIENCE)
    assert [frame.name for frame in traceback.extract_tb(error.__traceback__)] == ["broken"]


def test_callbacks_run_in_the_thread_that_ran_the_task(start):
    executor = start(1, thread_name_prefix="worker")
    hold = threading.Event()
    names = []
    future = executor.submit(hold.wait, {}, PATIENCE)
    future.add_done_callback(lambda _: names.append(thread_name()))
    hold.set()
    executor.submit(pow, {}, 2, 3).result(PATIENCE)
    assert names == ["worker-0"]


def test_futures_work_with_the_standard_library(start):
    executor = start(2)
    futures = [executor.submit(pow, {}, n, 2) for n in range(50)]
    assert sorted(future.result() for future in as_completed(futures, PATIENCE)) == [n * n for n in range(50)]


def test_a_task_that_runs_cannot_be_cancelled(start):
    executor = start(1)
    begun, hold = threading.Event(), threading.Event()

    def work():
        begun.set()
        return hold.wait(PATIENCE)

    future = executor.submit(work, {})
    assert begun.wait(PATIENCE)
    assert future.running()
    assert not future.cancel()
    hold.set()
    assert future.result(PATIENCE) is True


def test_shutdown_fails_a_running_task_without_waiting_for_it(start):
    executor = start(1)
    begun, hold, ended = threading.Event(), threading.Event(), threading.Event()

    def work():
        begun.set()
        hold.wait(PATIENCE)
        ended.set()

    future = executor.submit(work, {})
    assert begun.wait(PATIENCE)
    executor.shutdown()
    assert not ended.is_set()
    assert isinstance(future.exception(0), ShutdownError)
    hold.set()
    assert ended.wait(PATIENCE)
    assert isinstance(future.exception(0), ShutdownError)


def test_shutdown_may_be_called_from_a_callback(start):
    executor = start(1)
    done = threading.Event()

    def stop(_future):
        executor.shutdown()
        done.set()

    executor.submit(pow, {}, 2, 3).add_done_callback(stop)
    assert done.wait(PATIENCE)


def test_shutdown_races_with_submit_and_no_future_is_forgotten(start):
    for _ in range(20):
        executor = start(2)
        futures, refused = [], threading.Event()

        def flood(executor=executor, futures=futures, refused=refused):
            try:
                while True:
                    futures.append(executor.submit(pow, {}, 2, 3))
            except ShutdownError:
                refused.set()

        thread = threading.Thread(target=flood, daemon=True)
        thread.start()
        while not futures and thread.is_alive():
            thread.join(0.001)
        executor.shutdown()
        assert refused.wait(PATIENCE)
        thread.join(PATIENCE)
        assert not wait(futures, PATIENCE).not_done


def test_it_takes_no_task_before_it_is_started():
    with pytest.raises(ExecutorError, match="not been started"):
        ThreadPoolExecutor().submit(pow, {}, 2, 3)


def test_an_idle_thread_keeps_no_argument_and_no_result_alive(start):
    class Thing:
        pass

    executor = start(1)
    thing = Thing()
    watched = weakref.ref(thing)
    executor.submit(lambda it: it, {}, thing).result(PATIENCE)
    executor.submit(pow, {}, 2, 3).result(PATIENCE)
    del thing
    gc.collect()
    assert watched() is None


def test_an_error_is_freed_with_its_future(start):
    class Oops(Exception):
        pass

    def fail():
        raise Oops

    executor = start(1)
    gc.disable()
    try:
        watched = weakref.ref(executor.submit(fail, {}).exception(PATIENCE))
        executor.submit(pow, {}, 2, 3).result(PATIENCE)
        assert watched() is None
    finally:
        gc.enable()


def test_its_folder_goes_with_it_where_there_is_no_kernel_unless_its_block_raises(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with ThreadPoolExecutor():
        assert len(list(tmp_path.iterdir())) == 1
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ZeroDivisionError), ThreadPoolExecutor():
        _ = 1 / 0
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.performance
def test_a_task_costs_microseconds(start):
    """In the CPU time of its thread: how much of that it gets is for others to say."""
    executor = start(1)
    begin = threading.Event()
    executor.submit(begin.wait, {}, PATIENCE)
    before = executor.submit(time.thread_time, {})
    futures = [executor.submit(pow, {}, 2, 3) for _ in range(20_000)]
    after = executor.submit(time.thread_time, {})
    begin.set()
    assert after.result(PATIENCE) - before.result(PATIENCE) < 20_000 * 100e-6
    assert all(future.done() for future in futures)
