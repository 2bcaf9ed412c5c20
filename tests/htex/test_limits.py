"""Walltime and memory of tasks: whoever goes over them is killed, alone, and gives back what it had."""

from __future__ import annotations

import os
import subprocess
import sys
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
from nodes import Executors, node
from waiting import PATIENCE, eventually


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
    late = executor.submit(time.sleep, {"walltime": 0.3}, 600)
    with pytest.raises(WalltimeExceeded, match=r"longer than its walltime of 0\.3 s") as caught:
        late.result(PATIENCE)
    assert isinstance(caught.value, TimeoutError)
    assert executor.submit(pow, {}, 2, 3).result(PATIENCE) == 8


TELLING = """
import os, pathlib
from flowcore_htex import manager, pool

folder, spawn = pathlib.Path(__file__).parent, os.posix_spawn

class Telling(pool.Enforcement):
    def begin(self, tid, slot, need, **options):
        with (folder / "begun").open("a") as begun:
            begun.write(f"{slot.pid}\\n")
        super().begin(tid, slot, need, **options)

def posix_spawn(path, arguments, environment, **options):
    words = ["sh", "-c", f'until [ -e {folder}/go ]; do sleep 0.02; done; exec "$@"', "sh", *arguments]
    return spawn("/bin/sh", words, environment, **options)

pool.Enforcement = Telling
os.posix_spawn = posix_spawn
manager.main()
"""
"""A manager that tells for which worker a limit begins to count, and starts its workers when it may."""


@pytest.fixture
def telling(tmp_path):
    """Provide the command of such a manager, which finds the folder of the test beside itself."""
    (tmp_path / "manager.py").write_text(TELLING)
    return f"{{python}} {tmp_path}/manager.py --config {{config}} --block-id {{block_id}}"


def begun(folder):
    """Return the pids of the workers for which a limit began to count."""
    file = folder / "begun"
    return file.read_text().split() if file.exists() else []


def test_walltime_begins_when_the_task_does(start, gate, tmp_path, telling):
    (tmp_path / "go").touch()
    executor = start(max_workers=1, launch_cmd=telling)
    first = executor.submit(tasks.hold, {}, gate.port)
    gate.wait_for(1)
    with Gate(PATIENCE) as later:
        waiting = executor.submit(tasks.hold, {"walltime": 600}, later.port)
        eventually(executor.connected_managers)
        assert not begun(tmp_path)
        gate.open()
        later.wait_for(1)
        eventually(lambda: begun(tmp_path))
    assert first.result(PATIENCE) == waiting.result(PATIENCE)
    assert begun(tmp_path) == [str(first.result())]


def test_walltime_begins_when_there_is_a_worker(start, gate, tmp_path, telling):
    executor = start(max_workers=2, cores_per_worker=0.1, launch_cmd=telling)
    kept = executor.submit(tasks.hold, {"walltime": 600}, gate.port)
    broken = executor.submit(time.sleep, {"walltime": 0.5}, 600)
    eventually(lambda: [one["tasks"] for one in executor.connected_managers()] == [2])
    assert not begun(tmp_path)
    (tmp_path / "go").touch()
    assert isinstance(broken.exception(PATIENCE), WalltimeExceeded)
    gate.wait_for(1)
    eventually(lambda: len(begun(tmp_path)) == 2)
    gate.open()
    assert str(kept.result(PATIENCE)) in begun(tmp_path)
    assert "0" not in begun(tmp_path)


def test_a_walltime_that_is_kept_harms_nobody(start):
    executor = start(max_workers=2, cores_per_worker=0.1)
    pids = {executor.submit(os.getpid, {"walltime": "00:10:00"}).result(PATIENCE) for _ in range(20)}
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
