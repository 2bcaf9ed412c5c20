"""Whole runs of worker processes on a real Slurm."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path

import pytest

import flowcore
from bursts import bursts, watched
from clusters.slurm import SlurmCluster
from flowcore import Config, bash_app, python_app
from flowcore.executors import HighThroughputExecutor
from flowcore.jobs.states import JobState
from flowcore.launchers import SimpleLauncher, SrunLauncher
from flowcore.providers import LocalProvider, SlurmProvider
from page_example import held, page, run_example
from waiting import eventually

BOUND = 90.0


@python_app
def where(seconds: float) -> str:
    import socket
    import time

    time.sleep(seconds)
    return socket.gethostname()


def test_the_example_of_the_manual_runs_on_every_node(slurm: SlurmCluster, tmp_path: Path) -> None:
    provider = SlurmProvider(partition="compute", nodes_per_block=2, init_blocks=1, max_blocks=10, walltime="02:00:00")
    assert repr(page("slurm").executors[0].provider) == repr(provider)
    hosts, blocks = run_example(provider, tmp_path, 4)
    assert hosts == set(slurm.nodes)
    assert [status.state for status in blocks].count(JobState.RUNNING) == 2
    assert len(blocks) <= 10


def test_a_local_block_within_an_allocation_uses_all_of_its_nodes(
    slurm: SlurmCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: set[str] = set()

    def all_seen() -> bool:
        names.update([future.result(BOUND) for future in [where(0.1) for _ in range(6)]])
        return len(names) == 3

    slurm.call("salloc", "--no-shell", "--nodes=3", "--job-name=mine")
    [job_id] = slurm.call("squeue", "--noheader", "--name=mine", "--format=%i").split()
    try:
        monkeypatch.setenv("SLURM_JOB_ID", job_id)
        provider = LocalProvider(nodes_per_block=3, launcher=SrunLauncher())
        with flowcore.load(Config(executors=[HighThroughputExecutor(max_workers=1, provider=provider)])):
            eventually(all_seen, BOUND, "tasks on three nodes")
    finally:
        slurm.call("scancel", job_id)
    assert names <= set(slurm.nodes)


@pytest.mark.parametrize("starter", ["srun", "mpiexec"])
def test_a_task_may_start_a_program_on_all_nodes_of_its_block(slurm: SlurmCluster, starter: str) -> None:
    @bash_app
    def names(stdout: str = "names") -> str:
        return f"{starter} -n 2 hostname"

    path = f"export PATH={Path(sys.executable).parent}:$PATH"
    provider = SlurmProvider(nodes_per_block=2, launcher=SimpleLauncher(), worker_init=path)
    with flowcore.load(Config(executors=[HighThroughputExecutor(max_workers=1, provider=provider)])):
        assert names().result(BOUND) == 0
    found = Path("names").read_text().split()
    assert len(set(found)) == 2
    assert set(found) <= set(slurm.nodes)


def test_a_node_that_dies_in_the_middle_of_200_tasks_costs_no_result(slurm: SlurmCluster, tmp_path: Path) -> None:
    executor = HighThroughputExecutor(
        max_workers=2,
        heartbeat_period=1,
        heartbeat_threshold=4,
        provider=SlurmProvider(nodes_per_block=2, init_blocks=2, max_blocks=2),
    )
    with flowcore.load(Config(executors=[executor], strategy_period=1, lost_retries=20)):
        futures = [held(n, str(tmp_path)) for n in range(200)]
        eventually(lambda: len(list(tmp_path.glob("at-*"))) == 4, BOUND, "tasks on four nodes")
        slurm.kill_node("n2")
        (tmp_path / "gate").touch()
        try:
            outcomes = [future.result(BOUND) for future in futures]
            again = held(200, str(tmp_path)).result(BOUND)
        finally:
            slurm.start_node("n2")
            slurm.await_nodes(beside_jobs=True)
    assert [n for n, _ in outcomes] == list(range(200))
    assert again[0] == 200
    assert {name for _, name in outcomes} <= set(slurm.nodes) - {"n2"}


def test_a_scheduler_that_is_away_loses_no_block_and_hangs_nothing(slurm: SlurmCluster) -> None:
    provider = SlurmProvider()
    executor = HighThroughputExecutor(max_workers=1, provider=provider)
    with flowcore.load(Config(executors=[executor], strategy_period=0.5)):
        where(0).result(BOUND)
        provider.cmd_timeout = 1
        slurm.master.send(signal.SIGSTOP)
        try:
            polls = threading.Event()
            for _ in range(3):
                executor.poll()
                polls.wait(0.1)
            assert where(0).result(BOUND) in slurm.nodes
            assert [status.state for status in executor.status().values()] == [JobState.RUNNING]
        finally:
            slurm.master.send(signal.SIGCONT)
            provider.cmd_timeout = 30
        slurm.await_master()
        executor.poll()
        assert [status.state for status in executor.status().values()] == [JobState.RUNNING]
        assert where(0).result(BOUND) in slurm.nodes


def test_a_wrong_partition_is_told_in_the_words_of_slurm(slurm: SlurmCluster) -> None:
    executor = HighThroughputExecutor(provider=SlurmProvider(partition="nowhere"))
    with pytest.raises(flowcore.executors.errors.ExecutorError, match="invalid partition specified: nowhere"):
        flowcore.load(Config(executors=[executor]))


def test_a_script_that_connects_no_worker_is_reported_to_every_task_and_mended_by_reset(slurm: SlurmCluster) -> None:
    provider = SlurmProvider(worker_init="echo 'no such module' >&2; exit 5")
    executor = HighThroughputExecutor(provider=provider)
    with flowcore.load(Config(executors=[executor], strategy_period=0.5)):
        for error in [future.exception(BOUND) for future in [where(0) for _ in range(3)]]:
            said = str(error)
            assert said.count("no such module") == 1
            assert "ended before a worker connected: FAILED (its script ended with exit code 5)" in said
            assert "job script: /" in said
            assert "submit_scripts" in said
        provider.worker_init = ""
        executor.reset()
        assert where(0).result(BOUND) in slurm.nodes


@pytest.mark.slow
def test_blocks_follow_a_bursty_load_at_once(slurm: SlurmCluster, tmp_path: Path) -> None:
    provider = watched(SlurmProvider)(init_blocks=0, max_blocks=3)
    bursts(provider, tmp_path)
    assert provider.asked == 9
