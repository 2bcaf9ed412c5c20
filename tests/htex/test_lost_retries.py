"""The budget for tasks that are lost with a process: used up by them alone, and the error is that of the last loss."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

import htex_tasks as tasks
from flowcore import python_app
from flowcore_htex.errors import ManagerLost
from htex_rig import executions, outcomes, runs
from waiting import PATIENCE

pytestmark = pytest.mark.fault


@pytest.fixture
def load(tmp_path):
    with runs(tmp_path) as load:
        yield load


def mark_and_end_the_manager(path, number):
    """Leave a line in a file, and kill the manager of this worker; its own end follows."""
    tasks.mark(path, number)
    zygote = Path(f"/proc/{os.getppid()}/stat").read_text().rpartition(")")[2].split()
    os.kill(int(zygote[1]), signal.SIGKILL)
    signal.pause()


@pytest.mark.parametrize("budget", [0, 1])
def test_a_task_that_always_takes_its_manager_along_fails_as_lost_when_the_budget_is_used_up(load, tmp_path, budget):
    load(lost_retries=budget)
    trace = tmp_path / "trace"
    error = python_app(mark_and_end_the_manager)(str(trace), 1).exception(PATIENCE)
    assert isinstance(error, ManagerLost)
    assert "closed its connection" in str(error)
    assert executions(trace) == {1: 1 + budget}
    assert python_app(tasks.nap)(0, value=7).result(PATIENCE) == 7


def test_neighbors_of_such_a_task_are_done_within_their_own_budgets(load, tmp_path):
    load(lost_retries=1)
    trace = tmp_path / "trace"
    victim = python_app(mark_and_end_the_manager)(str(trace), 1)
    mark = python_app(tasks.mark)
    assert isinstance(victim.exception(PATIENCE), ManagerLost)
    assert outcomes([mark(str(trace), number) for number in range(10, 30)]) == list(range(10, 30))
