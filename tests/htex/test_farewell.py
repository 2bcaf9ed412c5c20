"""How an interchange and its managers end: they wait for a bounded time for what matters, and burn none meanwhile."""

from __future__ import annotations

import os
import signal
import socket
import threading
from pathlib import Path

import pytest

import htex_tasks as tasks
from flowcore.testing.gate import Gate
from flowcore_htex import wire
from flowcore_htex.launch import MANAGER
from flowcore_htex.link import LinkClosed
from htex_rig import Family, executions, executors, outcomes, stopped
from interchange_bench import Bench
from nodes import OVER_LOOPBACK
from waiting import PATIENCE, until


@pytest.fixture
def bench(tmp_path):
    bench = Bench(tmp_path)
    yield bench
    bench.close()


def told_to_end(link):
    """Receive until the end; return whether END was among what came."""
    kinds = []
    with pytest.raises(LinkClosed):
        while wire.END not in kinds:
            kinds += [kind for kind, _, _ in link.receive()]
        raise LinkClosed
    return wire.END in kinds


def test_it_ends_at_once_when_its_managers_have(bench):
    managers = [bench.manager(f"m{number}") for number in range(3)]

    def leave(sock, link):
        told_to_end(link)
        sock.close()

    leaving = [threading.Thread(target=leave, args=manager, daemon=True) for manager in managers]
    for one in leaving:
        one.start()
    bench.end()
    for one in leaving:
        one.join()
    assert bench.turns < 30
    assert bench.cpu < 0.3


@pytest.mark.parametrize("way", ["silent", "half closed", "unread"])
def test_a_manager_that_does_not_end_costs_a_second_and_no_time_of_the_processor(bench, way):
    sock, link = bench.manager("m")
    gone, _ = bench.manager("gone")
    gone.close()
    bench.hear(wire.MANAGERS)
    strangers = [bench.connect() for _ in range(3)]
    strangers[0].shutdown(socket.SHUT_WR)
    strangers[1].close()
    if way == "half closed":
        sock.shutdown(socket.SHUT_RD)
    elif way == "unread":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    bench.end()
    assert bench.took < 30
    assert bench.turns < 30
    assert bench.cpu < 0.3
    assert link


def test_when_the_script_is_gone_it_ends_as_well_and_tells_its_managers(bench):
    sock, link = bench.manager("m")
    bench._sockets[0].close()
    assert told_to_end(link)
    sock.close()
    bench.join()
    assert bench.turns < 30
    assert bench.cpu < 0.3


# -- managers


def mark_and_return(path, number, size, port=None):
    if port is not None:
        from flowcore.testing.tasks import hold

        hold(port)
    tasks.mark(path, number)
    return bytes(size)


DRAINING = """
import pathlib, signal, sys, time
from flowcore_htex import manager, pool

heed_signals = manager.Manager.heed_signals

def heed_another(self):
    heed_signals(self)
    signal.signal(signal.SIGUSR1, lambda *_: setattr(self, "_drain_at", 0.0))

manager.Manager.heed_signals = heed_another
"""
"""A manager whose drain period is over when SIGUSR1 comes."""


def manager_that_drains_when_told(folder, way=MANAGER, more=""):
    """Return the template of its command, given that of a usual one."""
    script = folder / "manager.py"
    script.write_text(f"{DRAINING}{more}\nmanager.main()\n")
    changed = way.replace("-c {bare} flowcore_htex.manager", str(script))
    assert changed != way
    return changed


def drain(executor):
    """Have the only manager drain, and return what is known of it."""
    [manager] = executor.connected_managers()
    os.kill(manager["pid"], signal.SIGUSR1)
    assert until(lambda: all(one["draining"] for one in executor.connected_managers()))
    return manager


@pytest.mark.parametrize("end", ["drained", "SIGTERM"])
@pytest.mark.parametrize(("way", "size"), [(MANAGER, 100_000), (OVER_LOOPBACK, 1_000_000)], ids=["local", "TCP"])
def test_a_manager_ends_when_its_last_outcomes_have_arrived(tmp_path, way, size, end):
    """The interchange is stopped meanwhile: they fill what the kernel holds for it, and more."""
    trace = tmp_path / "trace"
    way = manager_that_drains_when_told(tmp_path, way)
    with executors(tmp_path) as start, Gate(PATIENCE) as gate:
        executor = start(max_workers=1, prefetch_capacity=60, launch_cmd=way)
        ports = [gate.port] + [None] * 59
        futures = [executor.submit(mark_and_return, {}, str(trace), n, size, port) for n, port in enumerate(ports)]
        gate.wait_for(1)
        assert until(lambda: [one["tasks"] for one in executor.connected_managers()] == [60])
        manager = executor.connected_managers()[0]["pid"]
        if end == "drained":
            drain(executor)
        with stopped(Family().one("interchange")):
            gate.open()
            assert until(lambda: trace.exists() and len(executions(trace)) == 60)
            if end == "SIGTERM":
                os.kill(manager, signal.SIGTERM)
            until(lambda: not runs(manager), within=2)
        assert {type(outcome) for outcome in outcomes(futures[:59])} == {bytes}  # the last one may still have run
        assert until(lambda: not runs(manager))
        assert list(executions(trace).values())[:59] == [1] * 59


LATE = """
folder, close = pathlib.Path(__file__).parent, pool.WorkerPool.close

def close_late(self):
    (folder / "closing").touch()
    while not (folder / "told").exists():
        time.sleep(0.01)
    return close(self)

pool.WorkerPool.close = close_late
manager._HAND_IN = 600
"""
"""A manager that is told an outcome after the last look at its workers, and before it ends them."""


def test_a_manager_told_to_end_while_it_drains_hands_in_at_once_what_it_holds(tmp_path):
    """Whoever ends the block will not wait."""
    trace = tmp_path / "trace"
    way = manager_that_drains_when_told(tmp_path, more=LATE)
    with executors(tmp_path) as start, Gate(PATIENCE) as gate:
        executor = start(max_workers=1, launch_cmd=way)
        future = executor.submit(mark_and_return, {}, str(trace), 0, 10, gate.port)
        gate.wait_for(1)
        manager = drain(executor)
        os.kill(manager["pid"], signal.SIGTERM)
        assert until((tmp_path / "closing").exists)
        gate.open()
        assert until(trace.exists)
        assert until(lambda: all(asleep(pid) for pid in Family().pids("worker")))
        (tmp_path / "told").touch()
        assert until(lambda: manager["manager"] not in {one["manager"] for one in executor.connected_managers()})
        assert outcomes([future]) == [bytes(10)]


def state(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:  # it has ended
        return "Z"


def runs(pid):
    return state(pid) != "Z"


def asleep(pid):
    return state(pid) == "S"
