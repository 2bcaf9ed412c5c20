"""Whatever dies, every future is done with the right result or the right error, and nothing is left."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from flowcore.testing import tasks
from flowcore.testing.gate import Gate
from flowcore_htex.errors import InterchangeLost, ManagerLost, WorkerLost
from flowcore_htex.launch import MANAGER
from htex_rig import stopped
from waiting import PATIENCE, until

pytestmark = pytest.mark.fault


def nap(value, seconds=0.005):
    time.sleep(seconds)
    return value


def outcomes(futures):
    """Return how often each kind of outcome came; a result has to be the place of its future."""
    found = Counter()
    for place, future in enumerate(futures):
        error = future.exception(PATIENCE)
        if error is None:
            assert future.result() == place
        found[type(error)] += 1
    return found


def at_work(rig, count=200):
    """Submit tasks, and return when some of them have run and many have not."""
    futures = [rig.submit(nap, n) for n in range(count)]
    assert until(lambda: sum(future.done() for future in futures) > count // 10)
    return futures


def test_a_killed_worker_costs_the_task_it_ran(start):
    rig = start()
    pid = rig.run(os.getpid)
    futures = at_work(rig)
    os.kill(pid, signal.SIGKILL)
    found = outcomes(futures)
    assert found[type(None)] >= len(futures) - 1
    assert set(found) <= {type(None), WorkerLost}
    assert rig.run(nap, 1) == 1


def test_a_killed_manager_costs_what_it_held_and_is_replaced(start):
    rig = start()
    futures = at_work(rig)
    os.kill(rig.manager(), signal.SIGKILL)
    found = outcomes(futures)
    assert found[type(None)] >= len(futures) // 2
    assert set(found) <= {type(None), ManagerLost}


def test_a_killed_interchange_costs_nothing(start):
    rig = start()
    futures = at_work(rig)
    os.kill(rig.interchange(), signal.SIGKILL)
    assert outcomes(futures) == {type(None): len(futures)}
    assert until(lambda: len(rig.executor.connected_managers()) == 1)


def test_a_killed_zygote_costs_the_running_tasks(start):
    rig = start()
    futures = at_work(rig)
    os.kill(rig.zygote(), signal.SIGKILL)
    found = outcomes(futures)
    assert found[type(None)] >= len(futures) - 2
    assert set(found) <= {type(None), WorkerLost}


def test_interchange_and_manager_killed_at_once_leave_no_future_undone(start):
    rig = start()
    futures = at_work(rig)
    interchange, manager = rig.interchange(), rig.manager()
    os.kill(manager, signal.SIGKILL)
    os.kill(interchange, signal.SIGKILL)
    assert set(outcomes(futures)) <= {type(None), ManagerLost}


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["interchange", "manager", "zygote", "worker"])
def test_it_ends_well_20_times_out_of_20(start, victim):
    allowed = {"interchange": set(), "manager": {ManagerLost}, "zygote": {WorkerLost}, "worker": {WorkerLost}}[victim]
    for _ in range(20):
        rig = start()
        worker = rig.run(os.getpid)
        futures = at_work(rig)
        os.kill(worker if victim == "worker" else getattr(rig, victim)(), signal.SIGKILL)
        assert set(outcomes(futures)) <= {type(None), *allowed}
        rig.close()


@pytest.mark.slow
def test_an_interchange_killed_again_and_again_costs_nothing(start):
    rig = start()
    rig.run(nap, 0)
    runs = Counter()
    futures = [rig.submit(nap, n, 0.002) for n in range(5000)]
    for future in futures:
        future.add_done_callback(lambda future: runs.update([id(future)]))
    undone = futures[-1]
    while not undone.done():
        threading.Event().wait(2)
        before = len(runs)
        os.kill(rig.interchange(), signal.SIGKILL)
        assert until(lambda before=before: len(runs) > before or undone.done())  # the next one has come to serve
    assert outcomes(futures) == {type(None): 5000}
    assert until(lambda: len(runs) == 5000)  # the last callback runs after the last outcome is there
    assert set(runs.values()) == {1}


def test_exit_code_host_and_last_words_of_a_worker_are_told(start):
    rig = start()

    def die():
        print("last words", flush=True)
        os._exit(7)

    error = rig.submit(die).exception(PATIENCE)
    assert type(error) is WorkerLost
    assert error.exit_code == 7
    assert "exit code 7" in str(error)
    assert "last words" in error.stderr
    assert os.uname().nodename in str(error)


def test_a_segmentation_fault_names_its_signal(start):
    rig = start()
    error = rig.submit(ctypes.string_at, 0).exception(PATIENCE)
    assert type(error) is WorkerLost
    assert error.exit_code == -signal.SIGSEGV
    assert "SIGSEGV" in str(error)
    assert "string_at" in error.stderr


def test_a_task_that_exits_ends_its_worker_each_time(start):
    rig = start()
    for _ in range(3):
        error = rig.submit(sys.exit, 2).exception(PATIENCE)
        assert type(error) is WorkerLost
        assert error.exit_code == 2
    assert rig.run(nap, 1) == 1


def test_a_task_that_kills_its_worker_costs_that_task_only(start):
    rig = start()

    def work(n):
        if n % 50 == 49:
            os._exit(1)
        return n

    for n in range(20):
        rig.run(work, n)  # it is known for a short one now, and several are sent ahead
    futures = [rig.submit(work, n) for n in range(200)]
    found = outcomes(futures)
    assert found == {type(None): 196, WorkerLost: 4}


def test_a_stopped_manager_is_lost_by_its_silence(start):
    rig = start(heartbeat_period=0.2, heartbeat_threshold=1, launch_cmd=f"{MANAGER} --heartbeat-threshold 60")
    rig.executor._client._threshold = PATIENCE
    with Gate(PATIENCE) as gate:
        held = [rig.submit(tasks.hold, gate.port) for _ in range(2)]
        gate.wait_for(2)
        with stopped(rig.manager()):
            assert outcomes(held) == {ManagerLost: 2}
            assert all("silent for 1 s" in str(future.exception()) for future in held)
    assert rig.run(nap, 1) == 1


def test_a_stopped_interchange_is_replaced(start):
    rig = start(heartbeat_period=0.2)
    rig.executor._client._threshold = 3  # the managers have more time
    futures = at_work(rig)
    os.kill(rig.interchange(), signal.SIGSTOP)
    assert outcomes(futures) == {type(None): len(futures)}


def test_a_manager_told_to_end_gives_back_what_it_has_not_started(start):
    rig = start(prefetch_capacity=20)
    with Gate(PATIENCE) as gate:
        running = [rig.submit(tasks.hold, gate.port) for _ in range(2)]
        gate.wait_for(2)
        waiting = [rig.submit(nap, n) for n in range(10)]
        assert until(lambda: rig.held() == 12)
        os.kill(rig.manager(), signal.SIGTERM)
        assert outcomes(waiting) == {type(None): 10}
        assert outcomes(running) == {ManagerLost: 2}


def test_grandchildren_die_with_their_worker(start, tmp_path):
    rig = start()

    def spawn(path):
        plain = subprocess.Popen(["sleep", "600"])
        own = subprocess.Popen(["sleep", "600"], start_new_session=True)
        Path(path).write_text(f"{plain.pid} {own.pid}")
        time.sleep(600)

    file = tmp_path / "pids"
    future = rig.submit(spawn, str(file))
    assert until(lambda: file.exists() and len(file.read_text().split()) == 2)
    pids = [int(pid) for pid in file.read_text().split()]
    assert future.cancel()
    assert until(lambda: not any(_runs(pid) for pid in pids))


def test_a_daemon_left_by_a_task_ends_with_the_run(start):
    rig = start()
    pid = rig.run(lambda: subprocess.Popen(["sleep", "600"], start_new_session=True).pid)
    rig.close()
    assert until(lambda: not _runs(pid))


def test_an_interchange_that_cannot_live_fails_everything_at_last(start, tmp_path):
    from flowcore.executors.errors import BadStateException

    command = tmp_path / "interchange"
    command.write_text(
        f"#!/bin/sh\n[ -e {tmp_path}/spoiled ] && exit 3\nexec {sys.executable} -m flowcore_htex.interchange\n"
    )
    command.chmod(0o755)
    rig = start(interchange_launch_cmd=[str(command)])
    assert rig.run(nap, 1) == 1
    (tmp_path / "spoiled").touch()
    future = rig.submit(nap, 1, 600)
    os.kill(rig.interchange(), signal.SIGKILL)
    assert "interchange" in str(future.exception(PATIENCE))
    assert until(lambda: rig.executor.bad_state_is_set)
    with pytest.raises(BadStateException):
        rig.submit(nap, 1)
    assert isinstance(rig.executor.executor_exception, InterchangeLost)


def test_after_a_reset_functions_that_the_lost_interchange_had_run_again(start):
    rig = start()
    assert rig.run(nap, 1) == 1
    lost = rig.submit(nap, 1, 600)
    broker = rig.executor._client._broker
    command, broker._command = broker._command, ["/bin/false"]
    os.kill(rig.interchange(), signal.SIGKILL)
    assert isinstance(lost.exception(PATIENCE), InterchangeLost)
    assert until(lambda: rig.executor.bad_state_is_set)
    descriptors = len(os.listdir("/proc/self/fd"))
    broker._command = command
    rig.executor.reset()
    assert rig.run(nap, 2) == 2
    assert rig.executor.outstanding() == 0
    assert until(lambda: len(os.listdir("/proc/self/fd")) <= descriptors)


def test_a_task_whose_function_the_interchange_has_not_got_is_lost_and_the_manager_free(start):
    rig = start()
    rig.run(nap, 0)
    outbox = rig.executor._client._outbox
    entry = outbox._functions.entry(at_work)
    outbox._sent.add(entry.number)  # which is not true
    lost = rig.submit(at_work, None, None).exception(PATIENCE)
    assert isinstance(lost, ManagerLost)
    assert "its function" in str(lost)
    assert until(lambda: rig.held() == 0)


def test_an_interchange_that_does_not_start_is_an_error_of_start(start, tmp_path):
    from flowcore.executors.errors import ExecutorError

    with pytest.raises(ExecutorError, match=r"no_such_command"):
        start(interchange_launch_cmd=["no_such_command"])
    with pytest.raises(ExecutorError, match=r"exit code 3"):
        start(interchange_launch_cmd=["sh", "-c", "exit 3"])


def test_a_manager_command_that_does_not_exist_fails_the_tasks(start):
    from flowcore.executors.errors import BadStateException

    rig = start(launch_cmd="no_such_manager --config {config}")
    error = None
    try:
        error = rig.submit(nap, 1).exception(PATIENCE)
    except BadStateException as refused:
        error = refused
    assert isinstance(error, BadStateException)
    assert "no_such_manager" in str(error)


def test_workers_that_cannot_live_fail_the_tasks(start, monkeypatch):
    from flowcore.executors.errors import BadStateException

    rig = start(cpu_affinity="list:4000")
    try:
        error = rig.submit(nap, 1).exception(PATIENCE)
    except BadStateException as refused:
        error = refused
    assert isinstance(error, BadStateException)


def _runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
