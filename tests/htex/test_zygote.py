"""The process that forks workers is killed at the worst moments: another takes its place, and only what ran is lost."""

from __future__ import annotations

import os
import shlex
import signal

import pytest

import htex_tasks as tasks
from flowcore_htex.errors import WorkerLost
from htex_rig import executors, outcomes
from waiting import PATIENCE, until

pytestmark = pytest.mark.fault

START = "--config {config} --block-id {block_id}"


@pytest.fixture
def start(tmp_path):
    with executors(tmp_path) as start:
        yield start


def manager_that(code):
    """Return a `launch_cmd` whose manager runs some code first."""
    code = f"{code}; from flowcore_htex.manager import main; main()".replace("{", "{{").replace("}", "}}")
    return f"{{python}} -c {shlex.quote(code)} {START}"


ANY_NUMBER = manager_that("import flowcore_htex.nursery as n; n._ZYGOTES = 10**6")
"""Managers that go on however many zygotes are killed."""


def end_both(code):
    """Kill the zygote, and die at the same moment: it is dead when a worker is to be replaced."""
    os.kill(os.getppid(), signal.SIGKILL)
    os._exit(code)


def end_worker_then_zygote(code):
    """Die while a process that is left behind kills the zygote, which may or may not order another worker before."""
    zygote = os.getppid()
    if os.fork() == 0:
        os.setsid()
        os.kill(zygote, signal.SIGKILL)
        os._exit(0)
    os._exit(code)


@pytest.mark.slow
@pytest.mark.parametrize("ending", [end_both, end_worker_then_zygote])
def test_a_zygote_killed_when_a_worker_is_to_be_replaced_is_replaced_20_times(start, ending):
    executor = start(max_workers=1, launch_cmd=ANY_NUMBER)
    assert executor.submit(pow, {}, 2, 5).result(PATIENCE) == 32
    (before,) = executor.connected_managers()
    for number in range(20):
        lost = executor.submit(ending, {}, 3)
        after = executor.submit(tasks.nap, {}, 0, number)
        assert isinstance(lost.exception(PATIENCE), WorkerLost)
        if ending is end_both:
            assert after.result(PATIENCE) == number
        else:  # the next worker may have begun it when the zygote was killed
            assert isinstance(after.exception(PATIENCE), (WorkerLost, type(None)))
    assert until(lambda: executor.submit(pow, {}, 2, 5).exception(PATIENCE) is None)
    assert [one["manager"] for one in executor.connected_managers()] == [before["manager"]]


def test_zygotes_that_keep_being_killed_end_the_manager_by_name(start):
    executor = start(max_workers=1)
    errors = outcomes([executor.submit(end_both, {}, 3) for _ in range(6)])
    kinds = [type(error).__name__ for error in errors]
    assert set(kinds) <= {"WorkerLost", "ManagerLost", "BadStateException"}
    assert kinds[0] == "WorkerLost"
    told = [str(error) for error in errors if type(error).__name__ != "WorkerLost"]
    assert told
    assert any("keeps being killed" in text for text in told)


DEAD_ZYGOTE = """
import os
spawn, count = os.posix_spawn, []
def posix_spawn(path, arguments, environment, **options):
    count.append(1)
    if len(count) not in {dead}:
        return spawn(path, arguments, environment, **options)
    pid = spawn('/bin/true', ['true'], environment, **options)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    return pid
os.posix_spawn = posix_spawn
"""


@pytest.mark.parametrize("dead", [[1], [2], [1, 2, 3]], ids=["the first", "the second", "the first three"])
def test_a_zygote_that_is_dead_before_it_is_told_anything_is_replaced(start, tmp_path, dead):
    (tmp_path / "manager.py").write_text(
        DEAD_ZYGOTE.replace("{dead}", repr(dead)) + "from flowcore_htex.manager import main\nmain()\n"
    )
    executor = start(max_workers=12, launch_cmd=f"{{python}} {tmp_path}/manager.py {START}")
    assert outcomes([executor.submit(tasks.nap, {}, 0, number) for number in range(20)]) == list(range(20))
    (manager,) = executor.connected_managers()
    if len(dead) < 3:  # so many may be lost
        assert isinstance(executor.submit(end_both, {}, 3).exception(PATIENCE), WorkerLost)
        assert executor.submit(pow, {}, 2, 5).result(PATIENCE) == 32
    assert [one["manager"] for one in executor.connected_managers()] == [manager["manager"]]
