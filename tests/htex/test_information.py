"""What the executor tells of itself is true before, during and after tasks, losses and shutdown."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from concurrent.futures import wait
from pathlib import Path

import pytest

from flowcore.errors import ShutdownError
from flowcore.executors.errors import ExecutorError
from flowcore.jobs.states import JobState
from flowcore.providers import LocalProvider, SlurmProvider
from flowcore.testing import tasks
from flowcore.testing.gate import Gate
from flowcore_htex.errors import ManagerLost
from flowcore_htex.executor import HighThroughputExecutor
from nodes import Executors, below
from waiting import PATIENCE, eventually


@pytest.fixture
def start(tmp_path):
    with Executors(tmp_path) as executors:
        yield executors.start


@pytest.fixture
def gate():
    with Gate(PATIENCE) as gate:
        yield gate


def two_blocks():
    return LocalProvider(init_blocks=2, max_blocks=2)


def told(executor):
    """Return what the interchange tells of its managers, however long that takes; the executor does not wait for it."""
    answers = []
    eventually(lambda: answers.append(executor._client.ask("managers")) or answers[-1] is not None)
    return answers[-1]


# -- before


def test_before_it_is_started_there_is_nothing_to_tell():
    executor = HighThroughputExecutor()
    assert executor.connected_managers() == []
    assert list(executor.connected_blocks()) == []
    assert executor.outstanding() == 0
    assert executor.status() == {}
    with pytest.raises(ExecutorError, match="not been started"):
        _ = executor.logdir
    with pytest.raises(ExecutorError, match="not been started"):
        executor.submit(pow, {}, 2, 3)


def test_as_soon_as_it_is_started_it_knows_its_blocks(start):
    executor = start(provider=two_blocks(), launch_cmd="exec sleep 600")
    assert {block: status.terminal for block, status in executor.status().items()} == {"0": False, "1": False}


def test_a_block_whose_manager_has_connected_runs(start):
    executor = start(provider=two_blocks())
    eventually(lambda: len(executor.connected_managers()) == 2)
    assert [status.state for status in executor.status().values()] == [JobState.RUNNING] * 2


def test_a_block_without_a_manager_is_not_connected(start):
    executor = start(launch_cmd="exec sleep 600")
    assert list(executor.connected_blocks()) == []
    assert executor.connected_managers() == []
    assert executor.poll()["0"].state is JobState.RUNNING  # its job is


# -- managers


def test_a_manager_is_described_as_it_is(start):
    began = time.time()
    executor = start(max_workers=3, provider=LocalProvider(cores_per_node=5, mem_per_node=2))
    eventually(executor.connected_managers)
    (manager,) = executor.connected_managers()
    expected = {
        "block_id": "0",
        "worker_count": 3,
        "tasks": 0,
        "active": True,
        "draining": False,
        "hostname": socket.gethostname(),
        "cores": 5,
        "memory": 2000,
        "python_version": f"{sys.version_info[0]}.{sys.version_info[1]}",
    }
    assert {key: manager[key] for key in expected} == expected
    assert f"flowcore_htex.manager --config {executor.logdir}" in below()[manager["pid"]]
    assert began <= manager["start"] <= time.time()
    assert (Path(executor.logdir) / "block-0" / manager["manager"] / "manager.log").exists()


def test_a_manager_has_the_keys_that_people_are_used_to(start):
    executor = start()
    eventually(executor.connected_managers)
    known = {"manager", "block_id", "worker_count", "tasks", "idle_duration", "active", "python_version", "draining"}
    assert known <= executor.connected_managers()[0].keys()


def test_tasks_of_a_manager_are_those_it_holds_now(start, gate):
    executor = start(max_workers=3, cores_per_worker=0.1)
    futures = [executor.submit(tasks.hold, {}, gate.port) for _ in range(2)]
    gate.wait_for(2)
    (manager,) = told(executor)
    assert (manager["tasks"], manager["idle_duration"]) == (2, 0)
    gate.open()
    wait(futures, PATIENCE)
    eventually(lambda: executor.connected_managers()[0]["tasks"] == 0)


@pytest.mark.parametrize("options", [{}, {"loopback_address": "127.0.0.2"}], ids=["a Unix socket", "TCP"])
def test_questions_of_other_threads_hold_up_no_outcome(start, options):
    executor = start(**options)
    over, answers = threading.Event(), []

    def ask():
        while not over.is_set():
            answers.append(len(executor.connected_managers()))

    askers = [threading.Thread(target=ask) for _ in range(2)]
    for asker in askers:
        asker.start()
    try:
        results = [executor.submit(pow, {}, number, 2).result(PATIENCE) for number in range(400)]
    finally:
        over.set()
        for asker in askers:
            asker.join(PATIENCE)
    assert results == [number**2 for number in range(400)]
    assert set(answers[-10:]) == {1}


def test_idle_duration_grows_while_there_is_nothing_to_do(start):
    executor = start()
    assert executor.submit(pow, {}, 2, 3).result(PATIENCE) == 8
    eventually(lambda: executor.connected_managers()[0]["tasks"] == 0)
    asked = time.monotonic()
    first = told(executor)[0]["idle_duration"]
    threading.Event().wait(0.2)
    second = told(executor)[0]["idle_duration"]
    assert 0 <= first < second
    assert 0.15 <= second - first <= time.monotonic() - asked + 0.05


def test_a_held_block_is_not_active(start):
    executor = start(provider=two_blocks())
    eventually(lambda: len(executor.connected_managers()) == 2)
    eventually(lambda: list(executor.hold_blocks(["1"])) == ["1"])
    assert {one["block_id"]: one["active"] for one in told(executor)} == {"0": True, "1": False}
    seen = {executor.submit(os.getenv, {}, "FLOWCORE_BLOCK_ID").result(PATIENCE) for _ in range(20)}
    assert seen == {"0"}


def test_questions_may_be_asked_from_many_threads_while_tasks_run(start):
    executor = start(max_workers=2, cores_per_worker=0.1)
    futures = [executor.submit(pow, {}, n, 2) for n in range(2000)]
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.extend(executor.connected_managers() for _ in range(20)), daemon=True)
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(answers) == 160
    assert all(len(answer) <= 1 for answer in answers)
    assert [future.result(PATIENCE) for future in futures] == [n * n for n in range(2000)]


# -- blocks


def test_a_connected_block_stays_known_after_it_has_ended(start):
    executor = start(provider=two_blocks())
    eventually(lambda: len(executor.connected_managers()) == 2)
    assert sorted(executor.connected_blocks()) == ["0", "1"]
    executor.scale_in(1)
    eventually(lambda: len(executor.connected_managers()) == 1)
    assert sorted(executor.connected_blocks()) == ["0", "1"]
    states = sorted(status.state.name for status in executor.poll().values())
    assert states == ["RUNNING", "SCALED_IN"]


def test_idle_blocks_are_those_without_a_task(start, gate):
    executor = start(provider=two_blocks())
    eventually(lambda: len(executor.connected_managers()) == 2)
    held = executor.submit(tasks.hold, {}, gate.port)
    gate.wait_for(1)
    (busy,) = [one["block_id"] for one in told(executor) if one["tasks"]]
    answers = []
    eventually(lambda: answers.append(executor.idle_blocks()) or answers[-1])
    (idle,) = answers[-1].items()
    assert idle[0] != busy
    assert idle[1] >= 0
    gate.open()
    assert held.result(PATIENCE)


@pytest.mark.fault
def test_the_loss_of_a_block_is_known_at_once(start, gate):
    executor = start(provider=two_blocks())
    eventually(lambda: len(executor.connected_managers()) == 2)
    held = [executor.submit(tasks.hold, {}, gate.port) for _ in range(2)]
    gate.wait_for(2)
    victim = executor.connected_managers()[0]
    os.kill(victim["pid"], signal.SIGKILL)
    (lost,) = wait(held, PATIENCE, return_when="FIRST_COMPLETED").done
    with pytest.raises(ManagerLost, match=victim["manager"]) as caught:
        lost.result()
    assert (caught.value.block_id, caught.value.hostname) == (victim["block_id"], socket.gethostname())
    assert executor.outstanding() == 1
    assert victim["manager"] not in {one["manager"] for one in executor.connected_managers()}
    eventually(lambda: executor.status()[victim["block_id"]].terminal)
    assert victim["block_id"] in executor.connected_blocks()
    gate.open()
    wait(held, PATIENCE)


@pytest.mark.fault
def test_what_is_told_survives_the_loss_of_the_interchange(start, gate):
    executor = start(max_workers=2, cores_per_worker=0.1)
    held = executor.submit(tasks.hold, {}, gate.port)
    gate.wait_for(1)
    (before,) = executor.connected_managers()
    (pid,) = [pid for pid, line in below().items() if "flowcore_htex.interchange" in line]
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: pid not in below())
    eventually(lambda: [one["tasks"] for one in executor.connected_managers()] == [1])
    assert executor.connected_managers()[0]["manager"] == before["manager"]
    assert executor.outstanding() == 1
    gate.open()
    assert held.result(PATIENCE)


# -- tasks


def test_outstanding_counts_what_waits_runs_and_was_cancelled(start, gate):
    executor = start()
    futures = [executor.submit(tasks.hold, {}, gate.port) for _ in range(5)]
    gate.wait_for(1)
    assert executor.outstanding() == 5
    futures[4].cancel()
    assert executor.outstanding() == 4
    gate.open()
    wait(futures, PATIENCE)
    assert executor.outstanding() == 0


def test_workers_per_node_of_a_cluster_are_no_more_than_accelerators():
    cluster = SlurmProvider(cores_per_node=64)
    executor = HighThroughputExecutor(available_accelerators=4, provider=cluster)
    assert executor.workers_per_node == 4


def test_workers_per_node_is_estimated_first_and_counted_later(start):
    executor = HighThroughputExecutor(max_workers=3, provider=LocalProvider(cores_per_node=2))
    assert executor.workers_per_node == 2
    started = start(max_workers=3, provider=LocalProvider(cores_per_node=2), launch_cmd=None)
    eventually(started.connected_managers)
    assert started.workers_per_node == 2


# -- after


def test_after_shutdown_it_still_answers_and_has_nothing(start, gate):
    executor = start(provider=two_blocks())
    eventually(lambda: len(executor.connected_managers()) == 2)
    held = executor.submit(tasks.hold, {}, gate.port)
    gate.wait_for(1)
    logdir = executor.logdir
    executor.shutdown()
    with pytest.raises(ShutdownError):
        held.result(0)
    assert executor.outstanding() == 0
    assert executor.connected_managers() == []
    assert sorted(executor.connected_blocks()) == ["0", "1"]
    assert all(status.terminal for status in executor.status().values())
    assert (executor.logdir, executor.worker_logdir) == (logdir, logdir)
    assert executor.idle_blocks() == {}


def test_logdir_is_in_the_folder_of_the_run_and_is_there(start, tmp_path):
    executor = start()
    assert Path(executor.logdir) == tmp_path / "run-0" / executor.label
    assert executor.submit(pow, {}, 2, 3).result(PATIENCE) == 8
    assert {"interchange.log", "manager.json"} <= {path.name for path in Path(executor.logdir).iterdir()}
    assert Path(executor.worker_logdir).is_dir()
