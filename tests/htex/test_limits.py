"""Walltime and memory of tasks: whoever goes over them is killed, alone, and gives back what it had."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest

import flowcore
from flowcore import Config, python_app
from flowcore.app.errors import AppTimeout
from flowcore.executors.errors import WalltimeExceeded
from flowcore.testing import tasks
from flowcore.testing.gate import Gate
from flowcore_htex.enforcement import Enforcement
from flowcore_htex.errors import MemoryExceeded
from flowcore_htex.executor import HighThroughputExecutor
from flowcore_htex.lineage import families
from flowcore_htex.slots import Slot
from nodes import PATIENCE, Executors, node


@pytest.fixture
def start(tmp_path):
    with Executors(tmp_path) as executors:
        yield lambda **options: executors.start(**{"max_workers": float("inf"), **options})


@pytest.fixture
def gate():
    with Gate(PATIENCE) as gate:
        yield gate


def test_a_task_over_its_walltime_is_killed_in_the_midst_of_c_code(start):
    executor = start(max_workers=1)
    began = time.monotonic()
    late = executor.submit(time.sleep, {"walltime": 0.3}, 600)
    with pytest.raises(WalltimeExceeded, match=r"longer than its walltime of 0\.3 s") as caught:
        late.result(PATIENCE)
    assert time.monotonic() - began < 30
    assert isinstance(caught.value, TimeoutError)
    assert executor.submit(pow, {}, 2, 3).result(PATIENCE) == 8


def test_walltime_begins_when_the_task_does(start, gate):
    executor = start(max_workers=1)
    first = executor.submit(tasks.hold, {}, gate.port)
    gate.wait_for(1)
    waiting = executor.submit(time.sleep, {"walltime": 1.5}, 0.01)
    threading.Event().wait(1.7)  # longer than the walltime of the one that waits
    gate.open()
    assert first.result(PATIENCE)
    assert waiting.result(PATIENCE) is None


SLOW_ZYGOTE = """
import os
spawn = os.posix_spawn
def posix_spawn(path, arguments, environment, **options):
    words = ['sh', '-c', 'sleep 2; exec "$@"', 'sh', *arguments]
    return spawn('/bin/sh', words, environment, **options)
os.posix_spawn = posix_spawn
from flowcore_htex.manager import main
main()
"""


def test_walltime_begins_when_there_is_a_worker(start, tmp_path):
    (tmp_path / "manager.py").write_text(SLOW_ZYGOTE)
    command = f"{{python}} {tmp_path}/manager.py --config {{config}} --block-id {{block_id}}"
    executor = start(max_workers=2, cores_per_worker=0.1, launch_cmd=command)
    short, long = (executor.submit(time.sleep, {"walltime": 1.5}, seconds) for seconds in (0.01, 600))
    assert short.result(PATIENCE) is None
    assert isinstance(long.exception(PATIENCE), WalltimeExceeded)


def test_a_walltime_that_is_kept_harms_nobody(start):
    executor = start(max_workers=2, cores_per_worker=0.1)
    pids = {executor.submit(os.getpid, {"walltime": "00:00:30"}).result(PATIENCE) for _ in range(20)}
    assert len(pids) <= 2


def test_the_neighbours_of_a_killed_task_go_on(start, gate):
    executor = start(provider=node(cores=2))
    neighbour = executor.submit(tasks.hold, {}, gate.port)
    gate.wait_for(1)
    with pytest.raises(WalltimeExceeded):
        executor.submit(time.sleep, {"walltime": 0.2}, 600).result(PATIENCE)
    gate.open()
    assert neighbour.result(PATIENCE)


def test_a_killed_task_gives_back_what_it_had(start):
    executor = start(provider=node(cores=3, memory=1))
    for _ in range(3):
        with pytest.raises(WalltimeExceeded):
            executor.submit(time.sleep, {"walltime": 0.1, "cores": 3, "memory": 900}, 600).result(PATIENCE)
    assert executor.submit(pow, {"cores": 3, "memory": 900}, 2, 3).result(PATIENCE) == 8


def test_a_cancelled_task_gives_back_what_it_had(start, gate):
    executor = start(provider=node(cores=3, memory=1))
    for _ in range(3):
        held = executor.submit(tasks.hold, {"cores": 3, "memory": 900}, gate.port)
        gate.wait_for(1)
        assert held.cancel()
    assert executor.submit(pow, {"cores": 3, "memory": 900}, 2, 3).result(PATIENCE) == 8


def grow(megabytes):
    kept = bytearray(megabytes * 10**6)
    for place in range(0, len(kept), 4096):
        kept[place] = 1
    time.sleep(600)


def test_a_task_over_its_memory_is_killed_with_both_numbers(start):
    executor = start(max_workers=1)
    with pytest.raises(MemoryExceeded, match=r"asked for 150 MB of memory, used \d+ MB(.|\n)*ask for more") as caught:
        executor.submit(grow, {"memory": "150MB"}, 400).result(PATIENCE)
    assert caught.value.used > 150
    assert isinstance(caught.value, MemoryError)
    assert executor.submit(pow, {}, 2, 3).result(PATIENCE) == 8


def grow_in_a_child(megabytes):
    import subprocess
    import sys

    text = (
        f"b = bytearray({megabytes} * 10**6)\nfor n in range(0, len(b), 4096): b[n] = 1\nimport time; time.sleep(600)"
    )
    subprocess.run([sys.executable, "-c", text], check=True)


def test_the_memory_of_the_processes_that_a_task_starts_counts(start):
    executor = start(max_workers=1)
    with pytest.raises(MemoryExceeded):
        executor.submit(grow_in_a_child, {"memory": "150MB"}, 400).result(PATIENCE)


def keep(megabytes):
    import builtins

    builtins.kept = bytearray(megabytes * 10**6)
    for place in range(0, megabytes * 10**6, 4096):
        builtins.kept[place] = 1


def test_what_an_earlier_task_left_in_the_worker_is_not_the_fault_of_the_next(start):
    executor = start(max_workers=1)
    assert executor.submit(keep, {}, 300).result(PATIENCE) is None
    assert executor.submit(time.sleep, {"memory": "150MB"}, 0.5).result(PATIENCE) is None


@pytest.fixture
def watch():
    """Return what has the enforcement of limits watch so many tasks of one real process."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:

        def watch(tasks):
            enforcement = Enforcement(lambda *_: pytest.fail("nobody is over a limit"))
            for tid in range(tasks):
                slot = Slot(tid, "", {}, [], None)
                slot.pid = process.pid
                enforcement.begin(tid, slot, {"memory": 1e6})
            return enforcement

        yield watch
        process.kill()


def test_what_a_task_took_before_the_birth_of_its_worker_was_told_counts():
    grow = "b = bytearray(200 * 10**6)\nfor n in range(0, len(b), 4096): b[n] = 1\nprint(flush=True); input()"
    doomed = []
    with (
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as zygote,
        subprocess.Popen([sys.executable, "-c", grow], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker,
    ):
        worker.stdout.readline()
        slot = Slot(0, "", {}, [], None)
        slot.pid = worker.pid
        enforcement = Enforcement(lambda _slot, tid, _record: doomed.append(tid))
        enforcement.begin(1, slot, {"memory": 100.0})
        enforcement.begin(2, slot, {"memory": 100.0}, born_of=zygote.pid)
        enforcement.check(time.monotonic())
        for process in (zygote, worker):
            process.kill()
    assert doomed == [2]


def cost_of_a_look(watch, tasks):
    """Return the processor time that a look at so many tasks takes, and when the next one is due, each at its best."""
    costs, pauses = [], []
    for _ in range(5):
        enforcement = watch(tasks)
        began = time.thread_time()
        enforcement.check(time.monotonic())
        costs.append(time.thread_time() - began)
        pauses.append(enforcement.deadline() - time.monotonic())
    return min(costs), max(pauses)  # the machine may be busy between the look and the question when the next one is


def test_a_look_at_the_memory_of_many_tasks_looks_through_the_processes_once(watch, monkeypatch):
    looks = []
    monkeypatch.setattr("flowcore_htex.enforcement.families", lambda: looks.append(1) or families())
    monkeypatch.setattr("flowcore_htex.lineage.families", lambda: pytest.fail("that is another look"))
    watch(64).check(time.monotonic())
    assert len(looks) == 1


def test_looks_at_the_memory_of_tasks_take_a_tenth_of_a_core_at_most(watch):
    """So many tasks stand for so many processes: either makes looks dear."""
    cost, pause = cost_of_a_look(watch, 2000)
    assert pause > 9 * cost


def test_through_the_kernel_a_walltime_is_an_app_timeout():
    flowcore.load(Config(executors=[HighThroughputExecutor(max_workers=1)]))

    @python_app
    def nap(seconds):
        time.sleep(seconds)

    with pytest.raises(AppTimeout) as caught:
        nap(600, resource_specification={"walltime": 0.3}).result(PATIENCE)
    assert isinstance(caught.value.__cause__, WalltimeExceeded)
