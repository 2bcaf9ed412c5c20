"""What dies, stops or goes astray while tasks run: every future is done, with the right result or the right error."""

from __future__ import annotations

import contextlib
import itertools
import json
import operator
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import as_completed
from pathlib import Path

import pytest

import htex_tasks as tasks
from flowcore import python_app
from flowcore.executors.errors import BadStateException
from flowcore.providers import LocalProvider
from flowcore.testing.gate import Gate
from flowcore.testing.tasks import hold
from flowcore_htex import wire
from flowcore_htex.errors import ManagerLost, WorkerLost
from flowcore_htex.link import BlockingLink, LinkClosed
from htex_rig import HEARTBEATS, REPEATS, Family, executions, executors, outcomes, patient, registration, runs, stopped
from waiting import PATIENCE, until

pytestmark = pytest.mark.fault

VICTIMS = {
    "worker": (WorkerLost, 1),
    "zygote": (WorkerLost, 2),
    "manager": (ManagerLost, 200),
    "interchange": ((), 0),
}
"""Which error the loss of a process may cost, and how many tasks at most, with two workers."""


@pytest.fixture
def start(tmp_path):
    with executors(tmp_path) as start:
        yield start


@pytest.fixture
def load(tmp_path):
    with runs(tmp_path) as load:
        yield load


@pytest.fixture
def family():
    return Family()


# -- processes are killed


@pytest.mark.parametrize("attempt", range(REPEATS))
@pytest.mark.parametrize("victim", VICTIMS)
def test_a_killed_process_costs_the_tasks_it_ran_and_no_other(start, family, tmp_path, victim, attempt):
    executor = patient(start())
    trace = tmp_path / "trace"
    futures = [executor.submit(tasks.mark, {}, str(trace), number, 0.03) for number in range(200)]
    futures[15].result(PATIENCE)
    family.kill(victim)
    came = outcomes(futures)
    allowed, cost = VICTIMS[victim]
    lost = [outcome for number, outcome in enumerate(came) if outcome != number]
    assert all(isinstance(error, allowed) for error in lost), lost
    assert len(lost) <= cost
    assert max(executions(trace).values()) == 1
    assert executor.submit(pow, {}, 2, 5).result(PATIENCE) == 32


@pytest.mark.parametrize("victim", VICTIMS)
def test_a_killed_process_costs_each_task_that_ran_in_it(start, family, tmp_path, victim):
    """The test before cannot tell how many: at a given moment, a worker may be between two tasks."""
    executor = patient(start())
    trace = tmp_path / "trace"
    with Gate(PATIENCE) as gate:
        held = [executor.submit(hold, {}, gate.port) for _ in range(2)]
        gate.wait_for(2)
        queued = [executor.submit(tasks.mark, {}, str(trace), number) for number in range(200)]
        family.kill(victim)
        error, cost = VICTIMS[victim]
        ended = [future.exception(PATIENCE) for future in itertools.islice(as_completed(held, PATIENCE), min(cost, 2))]
        assert [type(one) for one in ended] == [error] * min(cost, 2)
    assert sum(future.exception(PATIENCE) is None for future in held) == 2 - len(ended)
    came = outcomes(queued)
    assert all(outcome == number or type(outcome) is ManagerLost for number, outcome in enumerate(came))
    assert victim == "manager" or came == list(range(200))
    assert max(executions(trace).values(), default=0) <= 1


@pytest.mark.parametrize("attempt", range(REPEATS))
@pytest.mark.parametrize("victim", VICTIMS)
def test_through_the_kernel_a_killed_process_costs_nothing(load, family, victim, attempt):
    load()
    nap = python_app(tasks.nap)
    futures = [nap(0.01, value=number) for number in range(200)]
    futures[15].result(PATIENCE)
    family.kill(victim)
    assert outcomes(futures) == list(range(200))


@pytest.mark.slow
@pytest.mark.parametrize("attempt", range(REPEATS))
def test_an_interchange_killed_again_and_again_loses_nothing(load, family, tmp_path, monkeypatch, attempt):
    monkeypatch.setattr("flowcore_htex.client._SHORT_LIVES", 100)  # the tasks may be done before it is killed again
    patient(load())
    mark = python_app(tasks.mark)
    trace = tmp_path / "trace"
    futures = [mark(str(trace), number, 0.005) for number in range(5000)]
    for number in range(800, 5000, 800):
        futures[number].result(PATIENCE)
        victim = family.kill("interchange")
        assert until(lambda: victim not in family.pids("interchange"))  # noqa: B023
    assert outcomes(futures, 3 * PATIENCE) == list(range(5000))
    counts = executions(trace)
    assert sorted(counts) == list(range(5000))
    assert set(counts.values()) == {1}


def test_when_the_only_manager_is_lost_the_run_gets_another_block(load, family):
    executor = load()
    nap = python_app(tasks.nap)
    nap(0).result(PATIENCE)
    family.kill("manager")
    assert nap(0, value=7).result(PATIENCE) == 7
    assert [manager["block_id"] for manager in executor.connected_managers()] == ["1"]


# -- tasks that kill their worker

DEATHS = {
    "segfault": (tasks.segfault, (), -signal.SIGSEGV, "it was ended by SIGSEGV"),
    "os._exit": (tasks.leave, (7,), 7, "it ended with exit code 7"),
    "os._exit(0)": (tasks.leave, (0,), 0, "it ended with exit code 0"),
    "SIGKILL": (tasks.send_self, (signal.SIGKILL,), -signal.SIGKILL, "it was ended by SIGKILL"),
    "SIGTERM": (tasks.send_self, (signal.SIGTERM,), -signal.SIGTERM, "it was ended by SIGTERM"),
    "SIGABRT": (tasks.send_self, (signal.SIGABRT,), -signal.SIGABRT, "it was ended by SIGABRT"),
    "SystemExit": (tasks.exit_with, (3,), 3, "it ended with exit code 3"),
    "SystemExit with a text": (tasks.exit_with, ("that was it",), 1, "it ended with exit code 1"),
}


@pytest.mark.parametrize("death", DEATHS)
def test_a_task_that_kills_its_worker_costs_that_task_only(start, tmp_path, death):
    function, arguments, code, words = DEATHS[death]
    executor = start()
    trace = tmp_path / "trace"
    before = [executor.submit(tasks.mark, {}, str(trace), number, 0.005) for number in range(20)]
    victim = executor.submit(function, {}, *arguments)
    after = [executor.submit(tasks.mark, {}, str(trace), number, 0.005) for number in range(20, 40)]
    error = victim.exception(PATIENCE)
    assert isinstance(error, WorkerLost)
    assert (error.hostname, error.exit_code) == (socket.gethostname(), code)
    for evidence in (words, socket.gethostname(), "these are my last words"):
        assert evidence in str(error)
    if death == "segfault":
        assert "Segmentation fault" in error.stderr
    if death == "SystemExit with a text":
        assert "that was it" in error.stderr
    assert outcomes(before + after) == list(range(40))
    assert executions(trace) == dict.fromkeys(range(40), 1)


def test_a_task_that_uses_up_its_memory_costs_that_task_only(start, tmp_path):
    executor = start()
    trace = tmp_path / "trace"
    victim = executor.submit(tasks.exhaust, {}, 64 << 20)
    others = [executor.submit(tasks.mark, {}, str(trace), number, 0.005) for number in range(40)]
    assert isinstance(victim.exception(PATIENCE), (MemoryError, WorkerLost))
    assert outcomes(others) == list(range(40))
    assert executions(trace) == dict.fromkeys(range(40), 1)


def test_each_error_tells_of_its_own_worker(start):
    executor = start()
    errors = outcomes([executor.submit(tasks.leave, {}, code) for code in (1, 2, 3, 4)])
    assert [error.exit_code for error in errors] == [1, 2, 3, 4]


def test_many_losses_in_a_row_do_not_put_the_executor_out_of_order(start):
    executor = start(max_workers=1)
    errors = outcomes([executor.submit(tasks.leave, {}, 9) for _ in range(12)])
    assert [type(error) for error in errors] == [WorkerLost] * 12
    assert executor.submit(pow, {}, 2, 5).result(PATIENCE) == 32


def test_a_task_that_always_kills_its_worker_fails_when_the_budget_is_used_up(load, tmp_path):
    load(lost_retries=2)
    trace = tmp_path / "trace"
    others = tmp_path / "others"
    victim = python_app(tasks.mark_and_die)(str(trace), 1)
    mark = python_app(tasks.mark)
    neighbours = [mark(str(others), number, 0.01) for number in range(60)]
    assert isinstance(victim.exception(PATIENCE), WorkerLost)
    assert executions(trace) == {1: 3}
    assert outcomes(neighbours) == list(range(60))
    assert executions(others) == dict.fromkeys(range(60), 1)


def test_three_worker_losses_in_a_row_cost_nothing(load, family):
    load(lost_retries=3)
    nap = python_app(tasks.nap)
    futures = [nap(0.02, value=number) for number in range(150)]
    futures[5].result(PATIENCE)
    killed = set()
    for _ in range(3):
        victim = until(lambda: [pid for pid in family.pids("worker") if pid not in killed])[-1]
        os.kill(victim, signal.SIGKILL)
        killed.add(victim)
    assert outcomes(futures) == list(range(150))


# -- processes that stop, and come back late


def test_a_stopped_manager_is_given_up_and_taken_back(start, family, tmp_path):
    executor = start(max_workers=1, provider=LocalProvider(init_blocks=2, max_blocks=2), **HEARTBEATS)
    executor._client._threshold = PATIENCE
    managers = until(lambda: len(found := executor.connected_managers()) == 2 and found)
    interchange = family.one("interchange")
    trace = tmp_path / "trace"
    futures = [executor.submit(tasks.mark, {}, str(trace), number, 0.5) for number in range(2)]
    until(lambda: trace.exists() and len(executions(trace)) == 2)
    with stopped(managers[0]["pid"]):
        more = [executor.submit(tasks.mark, {}, str(trace), number, 0.05) for number in range(2, 20)]
        came = outcomes(futures + more)
        lost = [outcome for number, outcome in enumerate(came) if outcome != number]
        assert lost
        assert all(isinstance(error, ManagerLost) and error.manager == managers[0]["manager"] for error in lost)
        assert all("silent" in str(error) for error in lost)
        assert len(lost) < 5
        assert managers[1]["manager"] in [manager["manager"] for manager in executor.connected_managers()]
        assert managers[0]["manager"] not in [manager["manager"] for manager in executor.connected_managers()]
    assert until(lambda: len(executor.connected_managers()) == 2)
    assert outcomes([executor.submit(pow, {}, number, 2) for number in range(20)]) == [n * n for n in range(20)]
    assert family.one("interchange") == interchange
    assert max(executions(trace).values()) == 1


def test_a_manager_that_is_given_up_is_asked_to_come_again(start):
    executor = start(max_workers=1, **HEARTBEATS)
    executor._client._threshold = PATIENCE
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as sock:
        sock.settimeout(PATIENCE)
        settings = json.loads((Path(executor.logdir) / "manager.json").read_text())
        sock.connect(settings["socket"])
        link = BlockingLink(sock)
        link.send(wire.REGISTER, wire.pack_json(registration()))
        kinds = []
        while wire.REGISTER not in kinds:
            kinds += [kind for kind, _, _ in link.receive()]
    assert set(kinds) <= {wire.HEARTBEAT, wire.REGISTER}


def test_a_manager_that_is_asked_to_come_again_does_so(start):
    """The test is the interchange."""
    executor = start(provider=LocalProvider(init_blocks=0, min_blocks=0, max_blocks=1))
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(socket.socket(socket.AF_UNIX)) as listener:
        path = str(Path(folder) / "i")
        listener.settimeout(PATIENCE)
        listener.bind(path)
        listener.listen()
        config = str(Path(executor.logdir) / "manager.json")
        words = [sys.executable, "-m", "flowcore_htex.manager", "--config", config, "--block-id", "7", "--socket", path]
        with subprocess.Popen(words) as process:
            names = []
            for answer in (wire.REGISTER, wire.END):
                sock, _ = listener.accept()
                with contextlib.closing(sock):
                    sock.settimeout(PATIENCE)
                    link = BlockingLink(sock)
                    ((kind, head, _),) = link.receive()
                    assert kind == wire.REGISTER
                    names.append(wire.unpack_json(head)["manager"])
                    link.send(answer)
                    with contextlib.suppress(LinkClosed):
                        while True:
                            link.receive()
            assert process.wait(PATIENCE) == 0
    assert names[0] == names[1]


def test_through_the_kernel_results_that_come_late_do_not_count_twice(load, tmp_path):
    executor = load(max_workers=1, provider=LocalProvider(init_blocks=2, max_blocks=2), **HEARTBEATS)
    executor._client._threshold = PATIENCE
    managers = until(lambda: len(found := executor.connected_managers()) == 2 and found)
    trace = tmp_path / "trace"
    mark = python_app(tasks.mark)
    futures = [mark(str(trace), number, 0.1) for number in range(40)]
    until(trace.exists)
    with stopped(managers[0]["pid"]):
        assert outcomes(futures) == list(range(40))
    again = [mark(str(trace), number, 0.01) for number in range(40, 80)]
    assert until(lambda: len(executor.connected_managers()) == 2)
    assert outcomes(again) == list(range(40, 80))
    counts = executions(trace)
    assert all(counts[number] == 1 for number in range(40, 80))
    assert sum(counts[number] - 1 for number in range(40)) <= 4  # what the stopped one held was run by the other too


def test_a_manager_that_stays_stopped_is_replaced(load):
    executor = load(**HEARTBEATS)
    nap = python_app(tasks.nap)
    nap(0).result(PATIENCE)
    (manager,) = executor.connected_managers()
    futures = [nap(0.05, value=number) for number in range(20)]
    futures[2].result(PATIENCE)
    with stopped(manager["pid"]):
        assert outcomes(futures) == list(range(20))
        assert nap(0, value=3).result(PATIENCE) == 3


def test_a_stopped_worker_loses_nothing(start, family, tmp_path):
    executor = start(**HEARTBEATS)
    executor._client._threshold = PATIENCE
    trace = tmp_path / "trace"
    executor.submit(pow, {}, 1, 1).result(PATIENCE)
    with stopped(family.one("worker")):
        futures = [executor.submit(tasks.mark, {}, str(trace), number, 0.05) for number in range(40)]
        over = time.monotonic() + HEARTBEATS["heartbeat_threshold"] + 0.5
        until(lambda: time.monotonic() > over)
        assert any(not future.done() for future in futures)
    assert outcomes(futures) == list(range(40))
    assert executions(trace) == dict.fromkeys(range(40), 1)


def test_a_stopped_interchange_is_replaced_and_nothing_runs_twice(start, family, tmp_path):
    executor = patient(start(heartbeat_period=HEARTBEATS["heartbeat_period"]))
    executor._client._threshold = HEARTBEATS["heartbeat_threshold"]  # the managers have more time
    trace = tmp_path / "trace"
    futures = [executor.submit(tasks.mark, {}, str(trace), number, 0.05) for number in range(120)]
    futures[3].result(PATIENCE)
    first = family.one("interchange")
    with stopped(first):
        assert outcomes(futures) == list(range(120))
        assert until(lambda: family.one("interchange") != first)
    assert executions(trace) == dict.fromkeys(range(120), 1)


HEARING = """
import pathlib, sys
from flowcore_htex import interchange, manager, wire

heard = pathlib.Path(__file__).with_name("heard-" + sys.argv[1])
sent_to_manager, from_manager = manager.Manager._handle, interchange.Interchange._from_peer

def note(kind):
    if kind == wire.HEARTBEAT:
        with heard.open("a") as stream:
            stream.write(".")

def to_manager(self, kind, head, buffers):
    note(kind)
    sent_to_manager(self, kind, head, buffers)

def to_interchange(self, peer, message):
    note(message[0])
    from_manager(self, peer, message)

manager.Manager._handle, interchange.Interchange._from_peer = to_manager, to_interchange
globals()[sys.argv.pop(1)].main()
"""
"""An interchange, or a manager, that leaves a trace of each heartbeat that it hears."""


def test_an_idle_run_keeps_its_interchange_and_its_manager_by_heartbeats(start, tmp_path):
    script = tmp_path / "hearing.py"
    script.write_text(HEARING)
    executor = start(
        max_workers=1,
        heartbeat_period=0.2,
        interchange_launch_cmd=f"{{python}} {script} interchange",
        launch_cmd=f"{{python}} {script} manager --config {{config}} --block-id {{block_id}}",
    )
    executor.submit(pow, {}, 1, 1).result(PATIENCE)
    link = executor._client._link
    traces = [tmp_path / f"heard-{role}" for role in ("interchange", "manager")]

    def heard():
        return [link.heard, *(trace.exists() and trace.stat().st_size for trace in traces)]

    for _ in range(3):
        before = heard()
        assert until(lambda: all(map(operator.lt, before, heard())))  # noqa: B023
    assert executor._client._link is link
    assert executor.submit(pow, {}, 2, 5).result(PATIENCE) == 32


# -- managers come and go


def test_a_block_that_is_given_back_harms_nobody(start, family):
    executor = start(max_workers=1)
    executor.submit(pow, {}, 1, 1).result(PATIENCE)
    interchange = family.one("interchange")
    assert executor.scale_in(1) == ["0"]
    assert executor.submit(pow, {}, 2, 5).result(PATIENCE) == 32
    assert family.one("interchange") == interchange


def test_a_manager_told_to_terminate_loses_only_what_runs(start, family, tmp_path):
    executor = start()
    trace = tmp_path / "trace"
    futures = [executor.submit(tasks.mark, {}, str(trace), number, 0.05) for number in range(60)]
    futures[4].result(PATIENCE)
    interchange = family.one("interchange")
    family.kill("manager", signal.SIGTERM)
    came = outcomes(futures)
    lost = [outcome for number, outcome in enumerate(came) if outcome != number]
    assert all(isinstance(error, ManagerLost) for error in lost)
    assert len(lost) <= 2
    assert max(executions(trace).values()) == 1
    assert family.one("interchange") == interchange


def test_a_block_that_dies_at_once_is_a_clear_error(start):
    executor = start(launch_cmd="echo there is no such luck >&2; false")
    try:
        error = executor.submit(pow, {}, 2, 5).exception(PATIENCE)
    except BadStateException as raised:
        error = raised
    assert isinstance(error, BadStateException)
    assert "there is no such luck" in str(error)


def test_a_task_that_is_refused_out_of_order_never_runs(start, tmp_path):
    trace = tmp_path / "trace"
    executor = start()
    executor.submit(tasks.nap, {}, 0).result(PATIENCE)
    executor.set_bad_state_and_fail_all(OSError("all nodes are down"))
    for number in range(20):
        with pytest.raises(BadStateException, match="all nodes are down"):
            executor.submit(tasks.mark, {}, str(trace), number, 0)
    assert executor.outstanding() == 0
    executor.reset()
    executor.submit(tasks.mark, {}, str(trace), 20, 0).result(PATIENCE)
    assert executions(trace) == {20: 1}


def test_through_the_kernel_a_block_that_dies_at_once_is_a_clear_error(load):
    load(launch_cmd="echo there is no such luck >&2; false")
    error = python_app(tasks.nap)(0).exception(PATIENCE)
    assert isinstance(error, BadStateException)
    assert "there is no such luck" in str(error)
