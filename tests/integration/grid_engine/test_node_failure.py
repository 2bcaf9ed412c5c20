"""A host of a real Grid Engine that is switched off while it works."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import flowcore
from clusters.grid_engine import GridEngineCell
from flowcore import Config, python_app
from flowcore.executors import HighThroughputExecutor
from flowcore.jobs.states import JobState
from flowcore.providers import GridEngineProvider, batch, grid_engine
from page_example import held
from waiting import eventually

BOUND = 90.0
WORKER_INIT = f"export PATH={Path(sys.executable).parent}:$PATH"

pytestmark = [pytest.mark.slow, pytest.mark.fault]


@pytest.fixture(autouse=True)
def _tidied(cell: GridEngineCell) -> Iterator[None]:
    yield
    flowcore.clear(wait=False)
    cell.clear()


def make_executor(cell: GridEngineCell, **options: int) -> HighThroughputExecutor:
    provider = GridEngineProvider(scheduler_options="#$ -pe smp 3", worker_init=WORKER_INIT, **options)  # one on a host
    return HighThroughputExecutor(
        address=cell.hosts.head, max_workers=2, heartbeat_period=1, heartbeat_threshold=4, provider=provider
    )


@python_app
def number(n: int) -> tuple[int, str]:
    import socket

    return n, socket.gethostname()


def test_a_host_that_dies_in_the_middle_of_200_tasks_costs_no_result(cell: GridEngineCell, tmp_path: Path) -> None:
    """Two blocks on two hosts; one of these is switched off: its sge_execd, the job and all its processes."""
    executor = make_executor(cell, init_blocks=2, max_blocks=2)
    with flowcore.load(Config(executors=[executor], strategy_period=1, lost_retries=20)):
        futures = [held(n, str(tmp_path)) for n in range(200)]
        eventually(lambda: len(list(tmp_path.glob("at-*"))) == 2, BOUND, "tasks on both hosts")
        cell.kill_node("n2")
        (tmp_path / "gate").touch()
        try:
            outcomes = [future.result(BOUND) for future in futures]
            again = held(200, str(tmp_path)).result(BOUND)
        finally:
            cell.start_node("n2")
            cell.await_nodes(beside_jobs=True)
    assert [n for n, _ in outcomes] == list(range(200))
    assert again[0] == 200
    assert {name for _, name in outcomes} == {"n1"}
    assert not executor.bad_state_is_set


def test_a_block_on_a_host_that_does_not_come_back_has_failed_and_another_takes_its_place(
    cell: GridEngineCell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Grid Engine itself says for ever that its job runs; the time until that is no longer believed is shortened."""
    monkeypatch.setattr(grid_engine, "UNHEARD", 4.0)
    monkeypatch.setattr(batch, "LONGEST_INTERVAL", 2.0)
    executor = make_executor(cell)
    with flowcore.load(Config(executors=[executor], strategy_period=1, lost_retries=20)):
        victim = number(0).result(BOUND)[1]
        cell.kill_node(victim)
        try:
            assert number(1).result(2 * BOUND)[1] in set(cell.nodes) - {victim}
            lost, *_ = executor.status().values()
        finally:
            cell.start_node(victim)
            cell.await_nodes(beside_jobs=True)
    assert lost.state is JobState.FAILED
    assert lost.message == "Grid Engine has not heard of its host for 4 s"
