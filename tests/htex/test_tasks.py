"""Tasks, there and back: arguments, results, functions and exceptions of all kinds."""

from __future__ import annotations

import functools
import os
import socket
import sys
import threading
import traceback
from pathlib import Path

import numpy as np
import pytest

from flowcore.serialize import DeserializationError, RemoteExceptionError, SerializationError
from flowcore.testing import tasks
from flowcore.testing.gate import Gate
from waiting import PATIENCE, until

FACTOR = 2


def double(number):
    return FACTOR * number


class Point:
    """A class that workers cannot import."""

    def __init__(self, x):
        self.x = x

    def moved(self, by):
        return Point(self.x + by)


class OddError(Exception):
    """Its arguments are not those of its constructor."""

    def __init__(self, one, *, two):
        super().__init__(f"{one} and {two}")
        self.one = one


class Unwilling(Exception):
    def __reduce__(self):
        raise TypeError("never")


class Treacherous:
    """Pickles, and does not unpickle anywhere but here."""

    def __reduce__(self):
        return (_only_in, (os.getpid(),))


def _only_in(pid):
    if pid != os.getpid():
        raise RuntimeError("not here")
    return Treacherous()


def raise_chain():
    try:
        raise KeyError("first")
    except KeyError as first:
        error = OddError("a", two="b")
        if sys.version_info >= (3, 11):
            error.add_note("a note")
        raise error from first


def raise_unwilling():
    error = Unwilling("words")
    error.lock = threading.Lock()
    raise error


def test_arguments_and_results_of_many_kinds(rig):
    assert rig.run(double, 21) == 42
    assert rig.run(lambda *args, **kwargs: (args, kwargs), 1, [2], x={3}) == ((1, [2]), {"x": {3}})
    assert rig.run(functools.partial(pow, 3), 2) == 9
    assert rig.run("a-b".split, "-") == ["a", "b"]
    assert rig.run(dict, a=1) == {"a": 1}
    assert rig.run(print) is None


def test_classes_that_workers_cannot_import_keep_their_identity(rig):
    moved = rig.run(Point(1).moved, 4)
    assert type(moved) is Point
    assert moved.x == 5
    assert rig.run(type, Point(1)) is Point


def test_a_closure_takes_its_variables_along(rig):
    offset = 10

    def shifted(number):
        return double(number) + offset

    assert rig.run(shifted, 1) == 12


def test_a_rebound_global_counts_for_the_next_call(rig):
    namespace = {"factor": 2}
    exec("def scaled(x): return factor * x", namespace)
    scaled = namespace["scaled"]
    assert rig.run(scaled, 3) == 6
    namespace["factor"] = 5
    assert rig.run(scaled, 3) == 15


def test_many_short_lived_functions_are_forgotten_again(rig):
    for number in range(300):
        assert rig.submit(lambda number=number: number).result(PATIENCE) == number
    rig.run(double, 1)
    assert len(rig.executor._client._outbox._sent) < 50


@pytest.mark.parametrize("size", [0, 1_000, 65_535, 65_536, 262_144, 5_000_000])
def test_values_of_any_size_go_there_and_back(rig, size):
    assert rig.run(bytes.__add__, bytes(size), b"x") == bytes(size) + b"x"


def test_arrays_travel_beside_the_pickle_and_can_be_written_to(rig):
    array = np.arange(500_000, dtype=float)
    back = rig.run(np.multiply, array, 2)
    assert np.array_equal(back, array * 2)
    back += 1
    assert rig.run(lambda a: (a.__setitem__(0, 7), a[0])[1], array) == 7


def test_large_and_small_tasks_mix(rig):
    futures = [rig.submit(len, bytes(300_000 * (n % 3))) for n in range(60)]
    assert [future.result(PATIENCE) for future in futures] == [300_000 * (n % 3) for n in range(60)]


@pytest.mark.slow
def test_a_result_of_200_MB_arrives_and_others_meanwhile(rig):
    huge = rig.submit(bytes, 200_000_000)
    small = [rig.submit(double, n) for n in range(50)]
    assert [future.result(PATIENCE) for future in small] == [2 * n for n in range(50)]
    assert len(huge.result(PATIENCE)) == 200_000_000


def test_an_exception_keeps_type_arguments_causes_notes_and_traceback(rig):
    error = rig.submit(raise_chain).exception(PATIENCE)
    assert type(error) is OddError
    assert error.args == ("a and b",)
    assert error.one == "a"
    assert type(error.__cause__) is KeyError
    assert error.__context__ is error.__cause__
    if sys.version_info >= (3, 11):
        assert error.__notes__ == ["a note"]
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    assert 'raise KeyError("first")' in text
    assert "in raise_chain" in text
    assert "worker.py" not in text


def test_an_exception_that_does_not_pickle_is_described(rig):
    error = rig.submit(raise_unwilling).exception(PATIENCE)
    assert type(error) is RemoteExceptionError
    assert error.type_name.endswith("Unwilling")
    assert error.message == "words"
    assert "in raise_unwilling" in error.traceback
    assert "Unwilling: words" in str(error)


def test_an_exception_that_would_end_this_process_is_described(rig):
    def interrupt():
        raise KeyboardInterrupt("here")

    error = rig.submit(interrupt).exception(PATIENCE)
    assert type(error) is RemoteExceptionError
    assert error.type_name == "KeyboardInterrupt"


def test_an_argument_that_does_not_pickle_fails_the_call_alone(rig):
    with pytest.raises(SerializationError, match="argument of double"):
        rig.submit(double, threading.Lock())
    with pytest.raises(SerializationError, match="generator"):
        rig.submit(double, (n for n in ()))
    assert rig.run(double, 1) == 2


def test_a_result_that_does_not_pickle_fails_its_task_alone(rig):
    others = [rig.submit(double, n) for n in range(5)]
    error = rig.submit(threading.Lock).exception(PATIENCE)
    assert type(error) is SerializationError
    assert "the result of" in str(error)
    assert [future.result(PATIENCE) for future in others] == [0, 2, 4, 6, 8]


def test_an_argument_that_cannot_be_rebuilt_fails_its_task_alone(rig):
    error = rig.submit(double, Treacherous()).exception(PATIENCE)
    assert type(error) is DeserializationError
    assert "not here" in str(error)


def test_a_result_that_cannot_be_rebuilt_fails_its_task_alone(rig):
    error = rig.submit(Treacherous).exception(PATIENCE)
    assert type(error) is DeserializationError
    assert rig.run(double, 2) == 4


def test_a_task_knows_its_worker(rig):
    def environment():
        return {name: value for name, value in os.environ.items() if "_WORKER_" in name}

    found = rig.run(environment)
    (manager,) = rig.executor.connected_managers()
    for prefix in ("FLOWCORE", "PARSL"):
        assert found[f"{prefix}_WORKER_RANK"] in ("0", "1")
        assert found[f"{prefix}_WORKER_COUNT"] == "2"
        assert found[f"{prefix}_WORKER_POOL_ID"] == manager["manager"]
        assert found[f"{prefix}_WORKER_BLOCK_ID"] == "0"


def test_no_key_is_in_the_environment_or_on_a_command_line(rig):
    keys = [path.read_text() for path in _certificates(rig).iterdir()]
    assert len(keys) == 4
    exposed = rig.run(lambda: str(dict(os.environ)))
    for pid in rig.processes():
        exposed += Path(f"/proc/{pid}/cmdline").read_bytes().decode()
    assert not any(key in exposed for key in keys)


def _certificates(rig):
    return Path(rig.executor.logdir) / "certificates"


def test_what_a_task_prints_is_in_its_workers_log(rig):
    rig.run(print, "printed by a task")
    assert until(lambda: "printed by a task" in rig.logs())


def test_a_task_that_forks_gives_one_result(rig):
    def fork():
        if os.fork() == 0:
            return "from the child"
        return "from the parent"

    assert rig.run(fork) == "from the parent"
    assert [rig.run(double, n) for n in range(10)] == [2 * n for n in range(10)]


def test_tasks_sent_by_callbacks_run(rig):
    done = threading.Event()
    results = []

    def again(future):
        results.append(future.result())
        if len(results) == 100:
            done.set()
        else:
            rig.submit(double, len(results)).add_done_callback(again)

    rig.submit(double, 0).add_done_callback(again)
    assert done.wait(PATIENCE)
    assert results == [2 * n for n in range(100)]


def test_a_callback_that_raises_hurts_nobody(rig, caplog):
    def fail(_future):
        raise ValueError("in a callback")

    future = rig.submit(double, 1)
    future.add_done_callback(fail)
    assert future.result(PATIENCE) == 2
    assert rig.run(double, 2) == 4


def test_tasks_from_many_threads_keep_their_results_apart(rig):
    results = {}

    def work(first):
        futures = [(n, rig.submit(double, n)) for n in range(first, first + 200)]
        results.update({n: future.result(PATIENCE) for n, future in futures})

    threads = [threading.Thread(target=work, args=(200 * n,)) for n in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert results == {n: 2 * n for n in range(1000)}


def test_the_managers_tell_the_truth(rig):
    assert until(rig.executor.connected_managers)
    (manager,) = rig.executor.connected_managers()
    assert manager["worker_count"] == 2
    assert manager["block_id"] == "0"
    assert manager["active"] is True
    assert manager["draining"] is False
    assert manager["hostname"] == socket.gethostname()
    assert manager["python_version"] == f"{sys.version_info[0]}.{sys.version_info[1]}"
    with Gate(PATIENCE) as gate:
        running = [rig.submit(tasks.hold, gate.port) for _ in range(2)]
        assert until(lambda: rig.executor.connected_managers()[0]["tasks"] == 2)
        assert rig.executor.outstanding() == 2
        assert rig.executor.idle_blocks() == {}
        gate.wait_for(2)
    for future in running:
        future.result(PATIENCE)
    assert until(lambda: rig.executor.idle_blocks().get("0", -1) >= 0)
    assert rig.executor.connected_blocks() == ["0"]
    assert rig.executor.outstanding() == 0
    assert rig.executor.status()["0"].status_name == "RUNNING"


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_of_this_process_does_not_disturb_the_run(rig):
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    assert rig.run(double, 4) == 8
