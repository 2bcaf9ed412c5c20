"""Whole runs of worker processes on a real Grid Engine."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import flowcore
from clusters.grid_engine import GridEngineCell
from flowcore import Config, bash_app
from flowcore.executors import HighThroughputExecutor
from flowcore.jobs.states import JobState
from flowcore.providers import GridEngineProvider
from page_example import hosts_met, page, run_example

WORKER_INIT = f"export PATH={Path(sys.executable).parent}:$PATH"

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _tidied(cell: GridEngineCell) -> Iterator[None]:
    yield
    flowcore.clear(wait=False)
    cell.clear()


@bash_app
def greet(name: str, stdout: str = "greeting") -> str:
    return f"echo hello {name}"


def run_with(config: Config, folder: Path) -> set[str]:
    with flowcore.load(config):
        hosts = hosts_met(folder, 2, 12)
        assert greet("you", stdout="greeting").result(timeout=60) == 0
    assert Path("greeting").read_text() == "hello you\n"
    return hosts


def test_the_example_of_the_manual_runs_on_every_node(cell: GridEngineCell, tmp_path: Path) -> None:
    hosts, blocks = run_example(
        GridEngineProvider(
            nodes_per_block=2,
            init_blocks=1,
            max_blocks=2,
            walltime="02:00:00",
            parallel_environment="mpi",
            worker_init=WORKER_INIT,
        ),
        tmp_path,
        2,
    )
    assert hosts == set(cell.nodes)
    assert JobState.RUNNING in {status.state for status in blocks} <= {JobState.RUNNING, JobState.PENDING}


def test_tasks_run_in_two_blocks_of_one_node(cell: GridEngineCell, tmp_path: Path) -> None:
    provider = GridEngineProvider(
        init_blocks=2, max_blocks=2, queue="all.q", scheduler_options="#$ -pe smp 4", worker_init=WORKER_INIT
    )
    executor = HighThroughputExecutor(address=cell.hosts.head, max_workers=2, provider=provider)
    assert run_with(Config(executors=[executor]), tmp_path) == set(cell.nodes)


@pytest.mark.usefixtures("cell")
def test_the_configuration_of_the_page(tmp_path: Path) -> None:
    config = page("grid_engine", {"source ~/venv/bin/activate": WORKER_INIT})
    assert run_with(config, tmp_path) == {"n1", "n2"}
