"""Processes that are stopped, not dead: what each costs, that a run ends all the same, and what is told of it."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

import htex_tasks as tasks
from flowcore import python_app
from flowcore.executors.errors import WalltimeExceeded
from flowcore.providers import LocalProvider
from flowcore.testing.gate import Gate
from flowcore_htex.errors import ManagerLost
from htex_rig import HEARTBEATS, Family, Script, executions, executors, memory, outcomes, patient, runs, stopped
from waiting import PATIENCE, until

pytestmark = pytest.mark.fault


@pytest.fixture
def start(tmp_path):
    with executors(tmp_path) as start:
        yield start


@pytest.fixture
def load(tmp_path):
    with runs(tmp_path) as load:
        yield load


@pytest.fixture
def gate():
    with Gate(PATIENCE) as gate:
        yield gate


@pytest.fixture
def family():
    return Family()


# -- a worker, which is no peer: nobody takes it for dead, since who stops it may want to look at it


def test_a_stopped_worker_costs_nothing_but_the_time_it_is_stopped(start, gate, tmp_path):
    executor = start(**HEARTBEATS)
    executor._client._threshold = PATIENCE
    path = tmp_path / "pid"
    held = executor.submit(tell_and_hold, {}, str(path), gate.port)
    gate.wait_for(1)
    worker = int(path.read_text())
    with stopped(worker):
        gate.open()
        others = [executor.submit(tasks.nap, {}, 0.1, number) for number in range(40)]  # longer than the heartbeats'
        assert outcomes(others) == list(range(40))
        assert not held.done()
        assert executor.outstanding() == 1
        assert until(lambda: executor.connected_managers()[0]["tasks"] == 1)
    assert held.result(PATIENCE) == worker


def tell_and_hold(path, port):
    """Write the process id to a file, and wait at the gate."""
    from flowcore.testing.tasks import hold

    Path(path).write_text(str(os.getpid()))
    return hold(port)


def tasks_hold(port):
    """Wait at the gate."""
    from flowcore.testing.tasks import hold

    return hold(port)


def test_the_walltime_of_its_task_ends_a_stopped_worker(start, family):
    executor = start(max_workers=1)
    executor.submit(pow, {}, 1, 1).result(PATIENCE)
    os.kill(family.one("worker"), signal.SIGSTOP)
    with pytest.raises(WalltimeExceeded):
        executor.submit(tasks.nap, {"walltime": 0.5}, 0).result(PATIENCE)
    assert executor.submit(pow, {}, 2, 5).result(PATIENCE) == 32


def test_cancelling_its_task_ends_a_stopped_worker(start, family, gate):
    executor = start(max_workers=1)
    held = executor.submit(tasks_hold, {}, gate.port)
    gate.wait_for(1)
    victim = family.one("worker")
    os.kill(victim, signal.SIGSTOP)
    assert held.cancel()
    assert executor.submit(pow, {}, 2, 5).result(PATIENCE) == 32
    assert victim not in family.pids("worker")


# -- the end of a run

ROLES = ["worker", "zygote", "manager", "interchange"]


@pytest.mark.parametrize("role", ROLES)
def test_shutdown_ends_a_stopped_process_too(start, family, gate, role):
    executor = start()
    held = [executor.submit(tasks_hold, {}, gate.port) for _ in range(2)]
    gate.wait_for(2)
    os.kill(family.one(role), signal.SIGSTOP)
    began = time.monotonic()
    executor.shutdown()
    assert time.monotonic() - began < PATIENCE
    assert all(future.done() for future in held)  # that nothing is left is seen when the executors are ended


@pytest.mark.parametrize("role", ["worker", "zygote"])
def test_a_process_that_is_stopped_does_not_outlive_a_script_that_is_killed(tmp_path, role):
    script = Script(
        tmp_path, "flowcore.load(Config(executors=[executor()]))\nnap(0).result()\nsay('up')\nnap(600).result()"
    )
    try:
        assert script.line() == "up"
        os.kill(script.family.one(role), signal.SIGSTOP)
        script.process.kill()
        script.process.wait()
        assert script.marked.gone(PATIENCE) == {}
    finally:
        script.close()


# -- an interchange that does not answer


def test_tasks_are_accepted_while_the_interchange_is_stopped_at_a_bounded_cost_each(start, family):
    executor = start()
    executor.submit(tasks.nap, {}, 0).result(PATIENCE)
    before = memory(family.root)
    count = 60_000  # three times what an interchange may have at once
    with stopped(family.one("interchange")):
        slowest = 0.0
        futures = []
        for number in range(count):
            began = time.monotonic()
            futures.append(executor.submit(tasks.nap, {}, 0, number))
            slowest = max(slowest, time.monotonic() - began)
        assert slowest < PATIENCE / 2  # it waits for nobody: the interchange would be given up after twice PATIENCE
        assert (memory(family.root) - before) / count * 1e6 < 2500  # bytes, the futures that the test keeps included
        assert executor.outstanding() == count
        assert sum(future.done() for future in futures) == 0
    assert outcomes(futures, 3 * PATIENCE) == list(range(count))
    assert executor.outstanding() == 0


def test_large_arguments_wait_in_the_script_while_the_interchange_is_stopped(start, family):
    executor = start()
    executor.submit(tasks.nap, {}, 0).result(PATIENCE)
    value = bytes(4 << 20)
    with stopped(family.one("interchange")):
        futures = [executor.submit(tasks.size_of, {}, value) for _ in range(100)]
        assert memory(family.one("interchange")) < 200
    assert outcomes(futures, 3 * PATIENCE) == [4 << 20] * 100


def test_while_the_interchange_does_not_answer_it_is_told_what_was_last_heard(start, family, gate):
    executor = start(max_workers=1, provider=LocalProvider(init_blocks=2, max_blocks=2))
    assert until(lambda: len(executor.connected_managers()) == 2)
    held = [executor.submit(tasks_hold, {}, gate.port) for _ in range(2)]
    gate.wait_for(2)
    assert until(lambda: [one["tasks"] for one in executor.connected_managers()] == [1, 1])
    with stopped(family.one("interchange")):
        began = time.monotonic()
        assert [one["tasks"] for one in executor.connected_managers()] == [1, 1]
        assert time.monotonic() - began < 30
        assert executor.outstanding() == 2
        assert sorted(executor.connected_blocks()) == ["0", "1"]
        assert {block: status.terminal for block, status in executor.status().items()} == {"0": False, "1": False}
        assert executor.idle_blocks() == {}  # nobody knows, so none is
        assert list(executor.hold_blocks(["0", "1"])) == []
    gate.open()
    outcomes(held)


def test_no_busy_block_is_given_back_while_the_interchange_is_replaced(start, family, gate):
    executor = patient(start(max_workers=1, provider=LocalProvider(init_blocks=2, max_blocks=2)))
    assert until(lambda: len(executor.connected_managers()) == 2)
    held = [executor.submit(tasks_hold, {}, gate.port) for _ in range(2)]
    gate.wait_for(2)
    answers, over = [], threading.Event()

    def ask():
        while not over.is_set():
            answers.append((dict(executor.idle_blocks()), list(executor.hold_blocks(["0", "1"]))))

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    try:
        assert until(lambda: answers)
        for _ in range(3):
            victim = family.kill("interchange")
            assert until(lambda: family.pids("interchange") not in ([], [victim]))  # noqa: B023
            assert until(lambda: [one["tasks"] for one in executor.connected_managers()] == [1, 1])
    finally:
        over.set()
        asking.join(PATIENCE)
    assert answers
    assert all(answer == ({}, []) for answer in answers)
    gate.open()
    assert len(outcomes(held)) == 2
    assert not any(isinstance(future.exception(), ManagerLost) for future in held)


# -- a manager that is silent: what is told of it


def test_while_a_manager_is_stopped_the_truth_is_told_of_it(start, gate):
    executor = start(max_workers=1, provider=LocalProvider(init_blocks=2, max_blocks=2), **HEARTBEATS)
    assert until(lambda: len(executor.connected_managers()) == 2)
    held = [executor.submit(tasks_hold, {}, gate.port) for _ in range(2)]
    gate.wait_for(2)
    executor._client._threshold = PATIENCE
    victim, other = executor.connected_managers()
    with stopped(victim["pid"]):
        assert until(lambda: any(future.done() for future in held))
        assert executor.outstanding() == 1
        assert until(lambda: [one["manager"] for one in executor.connected_managers()] == [other["manager"]])
        assert sorted(executor.connected_blocks()) == ["0", "1"]
        lost = [future.exception() for future in held if future.done()]
        assert [error.manager for error in lost] == [victim["manager"]]
    assert until(lambda: len(executor.connected_managers()) == 2)
    gate.open()
    outcomes(held)
    assert executor.outstanding() == 0


def test_a_silent_interchange_is_replaced_after_the_threshold_whatever_is_submitted_meanwhile(start, family):
    executor = start(heartbeat_period=HEARTBEATS["heartbeat_period"])
    executor._client._threshold = HEARTBEATS["heartbeat_threshold"]  # the managers have more time
    executor.submit(pow, {}, 2, 2).result(PATIENCE)
    broker, futures = executor._client._broker, []
    with stopped(family.one("interchange")):
        pid = broker.process.pid

        def replaced():  # each task wakes the thread that waits
            futures.append(executor.submit(pow, {}, 2, len(futures)))
            return broker.process.pid != pid

        assert until(replaced)
    assert outcomes(futures) == [2**number for number in range(len(futures))]


# -- several at once


def test_a_block_whose_manager_is_silent_when_the_interchange_dies_is_replaced(start, family, monkeypatch):
    monkeypatch.setattr("flowcore_htex.executor._COME_BACK", 1.0)
    executor = start(provider=LocalProvider(init_blocks=1, max_blocks=1), **HEARTBEATS)
    executor._client._threshold = PATIENCE
    executor.submit(pow, {}, 2, 2).result(PATIENCE)
    with stopped(family.one("manager")):
        family.kill("interchange")
        assert executor.submit(pow, {}, 2, 3).result(PATIENCE) == 8
    assert executor.status()["0"].terminal


@pytest.mark.parametrize("order", [["interchange", "manager"], ["manager", "interchange"], ["interchange", "zygote"]])
def test_processes_that_die_together_cost_no_result_and_a_bounded_wait(load, family, tmp_path, order):
    load()
    trace = tmp_path / "trace"
    mark = python_app(tasks.mark)
    futures = [mark(str(trace), number, 0.02) for number in range(150)]
    futures[15].result(PATIENCE)
    victims = [family.one(role) for role in order]
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
    assert outcomes(futures) == list(range(150))
    counts = executions(trace)
    assert sorted(counts) == list(range(150))
    assert sum(count - 1 for count in counts.values()) <= 10  # what ran, and what was sent ahead and not yet told of


def test_an_interchange_that_dies_again_while_it_recovers_loses_nothing(load, family):
    load()
    nap = python_app(tasks.nap)
    futures = [nap(0.02, value=number) for number in range(150)]
    futures[15].result(PATIENCE)
    manager = family.one("manager")
    os.kill(family.one("interchange"), signal.SIGSTOP)
    os.kill(manager, signal.SIGKILL)  # the next interchange waits for this one
    killed = {family.kill("interchange")}
    for _ in range(2):
        newest = until(lambda: [pid for pid in family.pids("interchange") if pid not in killed])[-1]
        over = time.monotonic() + 0.5  # longer than what counts as a life too short, and well within the recovery
        until(lambda: time.monotonic() > over)  # noqa: B023
        os.kill(newest, signal.SIGKILL)
        killed.add(newest)
    assert outcomes(futures) == list(range(150))


def test_an_interchange_that_dies_before_it_is_told_everything_loses_nothing(load, family, monkeypatch):
    executor = load()
    broker = executor._client._broker
    launch, lives = broker.launch, []

    def launch_and_kill(expected):
        link = launch(expected)
        lives.append(broker.process.pid)
        if len(lives) == 1:
            broker.process.kill()
            broker.process.wait()
        return link

    nap = python_app(tasks.nap)
    futures = [nap(0.02, value=number) for number in range(150)]
    futures[15].result(PATIENCE)
    monkeypatch.setattr(broker, "launch", launch_and_kill)
    family.kill("interchange")
    assert outcomes(futures) == list(range(150))
    assert len(lives) == 2
