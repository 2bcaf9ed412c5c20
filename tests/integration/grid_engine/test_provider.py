"""GridEngineProvider beyond the contract, on a real Grid Engine: all ways in which a job ends, and an absent master."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clusters.grid_engine import GridEngineCell
from flowcore.errors import ConfigurationError
from flowcore.jobs.states import TERMINAL_STATES, JobState, JobStatus
from flowcore.launchers import MpiRunLauncher, SimpleLauncher
from flowcore.providers import GridEngineProvider, batch, scripts
from flowcore.providers.errors import SubmitException
from flowcore.testing.blocks import HandRunExecutor
from signs import last_act
from waiting import eventually

PATIENCE = 60

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _tidied(cell: GridEngineCell) -> Iterator[None]:
    yield
    cell.clear()


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., GridEngineProvider]:
    def provider(**options: Any) -> GridEngineProvider:
        return GridEngineProvider(script_dir=str(tmp_path / "scripts"), **options)

    return provider


Make = Callable[..., GridEngineProvider]


def until(provider: GridEngineProvider, job_id: str, *states: JobState, patience: float = PATIENCE) -> JobStatus:
    """Return the job's status when it is in one of the states, or has ended."""
    status = provider.status([job_id])[0]

    def reached() -> bool:
        nonlocal status
        status = provider.status([job_id])[0]
        return status.terminal or status.state in states

    eventually(reached, patience, f"job {job_id} in {states}")
    return status


def ending(provider: GridEngineProvider, job_id: str, patience: float = PATIENCE) -> JobStatus:
    return until(provider, job_id, *TERMINAL_STATES, patience=patience)


def without_script_code(**options: Any) -> dict[str, Any]:
    """Return options for jobs whose scripts leave no exit code, so that only the accounts tell."""
    return {"launcher": SimpleLauncher(), **options}


def test_a_job_waits_in_a_queue_that_starts_none_and_can_be_cancelled(make: Make, cell: GridEngineCell) -> None:
    provider = make(queue="off.q")
    job_id = provider.submit("exit 0", 1)
    assert provider.status([job_id])[0].state is JobState.PENDING
    assert provider.cancel([job_id]) == [True]
    assert ending(provider, job_id).state is JobState.CANCELLED
    assert cell.queue() == []


def test_a_job_on_hold_is_held(make: Make) -> None:
    provider = make(scheduler_options="#$ -h")
    assert provider.status([provider.submit("exit 0", 1)])[0].state is JobState.HELD


def test_a_cancelled_job_is_cancelled_and_its_copies_are_told(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def patient(name: str) -> str:
        text = scripts.read_template(name)
        assert name != "grid_engine.sh" or "i < 50" in text
        return text.replace("i < 50", "i < 900")  # tenths of a second

    monkeypatch.setattr(batch, "read_template", patient)
    provider = make()
    job_id = provider.submit(last_act(tmp_path, "copy"), 1)
    eventually((tmp_path / "up-copy").exists, PATIENCE, "the copy")  # Grid Engine says earlier that the job runs
    assert provider.cancel([job_id]) == [True]
    assert ending(provider, job_id).state is JobState.CANCELLED
    eventually((tmp_path / "told-copy").exists, PATIENCE, "the copy's last act")


@pytest.mark.parametrize(("code", "state"), [(0, JobState.COMPLETED), (7, JobState.FAILED)])
def test_the_accounts_tell_how_a_job_ended_whose_script_did_not(make: Make, code: int, state: JobState) -> None:
    provider = make(**without_script_code())
    status = ending(provider, provider.submit(f"exec /bin/sh -c 'exit {code}'", 1))
    assert (status.state, status.exit_code) == (state, code)


def test_what_a_job_leaves_running_is_ended(make: Make, cell: GridEngineCell) -> None:
    provider = make()
    assert ending(provider, provider.submit("sleep 600 & exit 0", 1)).state is JobState.COMPLETED
    assert cell.await_rest() == []


def test_a_job_beyond_its_walltime_is_a_timeout(make: Make) -> None:
    provider = make(walltime="00:00:02")
    status = ending(provider, provider.submit("sleep 600", 1))
    assert status.state is JobState.TIMEOUT
    assert "walltime" in str(status)


@pytest.mark.parametrize("accounts", ["there are accounts", "the accounts were moved away"])
def test_a_job_whose_script_is_killed_is_failed(make: Make, cell: GridEngineCell, accounts: str) -> None:
    provider = make()
    job_id = provider.submit("sleep 600", 1)
    until(provider, job_id, JobState.RUNNING)
    if "moved" in accounts:
        (cell.folder / "root/default/common/accounting").unlink(missing_ok=True)
    eventually(lambda: cell.pids(".*job_scripts.*"), PATIENCE, "the job's script")
    for pid in cell.pids(".*job_scripts.*"):
        with contextlib.suppress(ProcessLookupError):  # the script's own end ends the others
            os.kill(pid, signal.SIGKILL)
    status = ending(provider, job_id)
    assert (status.state, status.exit_code) == (JobState.FAILED, 137), status


def test_a_job_that_somebody_else_deletes_is_failed(make: Make, cell: GridEngineCell) -> None:
    provider = make()
    job_id = provider.submit("sleep 600", 1)
    eventually(lambda: cell.pids("sleep 600"), PATIENCE, "the job's command")
    cell.call("qdel", job_id)
    status = ending(provider, job_id)
    assert status.state is JobState.FAILED
    assert "Grid Engine says" in str(status)


def test_a_job_in_an_error_state_is_failed_with_the_reason_and_leaves_the_queue(
    make: Make, cell: GridEngineCell
) -> None:
    provider = make(scheduler_options="#$ -o /there/is/no/such/folder/out")
    status = ending(provider, provider.submit("exit 0", 1))
    assert status.state is JobState.FAILED
    assert status.message is not None
    assert "Eqw" in status.message
    assert "/there/is/no/such/folder" in status.message
    eventually(lambda: cell.queue() == [], PATIENCE, "an empty queue")


def test_an_unknown_queue_is_refused_with_the_words_of_grid_engine(make: Make, cell: GridEngineCell) -> None:
    with pytest.raises(SubmitException, match=r'unknown queue "nowhere\.q"') as caught:
        make(queue="nowhere.q").submit("exit 0", 1)
    assert caught.value.retcode == 1
    assert "qsub -terse" in str(caught.value)
    assert cell.queue() == []


def test_a_job_that_nobody_knows_is_missing_and_cannot_be_cancelled(make: Make) -> None:
    provider = make()
    assert provider.status(["99999"])[0].state is JobState.MISSING
    assert provider.cancel(["99999"]) == [False]


def test_a_job_among_those_of_others_is_told_apart(make: Make, cell: GridEngineCell) -> None:
    cell.call("qsub", "-b", "y", "-q", "off.q", "-t", "1-50", "-N", "stranger", "true")
    for _ in range(3):
        cell.call("setpriv", "--reuid=nobody", "--clear-groups", "qsub", "-b", "y", "-q", "off.q", "true")
    provider = make()
    waiting, running = make(queue="off.q"), provider.submit("sleep 600", 1)
    until(provider, running, JobState.RUNNING)
    job_id = waiting.submit("exit 0", 1)
    assert waiting.status([job_id])[0].state is JobState.PENDING
    assert provider.cancel([running]) == [True]
    assert ending(provider, running).state is JobState.CANCELLED
    assert len(cell.queue()) == 3 + 1 + 1


def test_a_master_that_does_not_answer_costs_an_executor_no_block(make: Make, cell: GridEngineCell, run: Any) -> None:
    provider = make()
    executor = HandRunExecutor(provider)
    executor.start(run)
    try:
        eventually(lambda: executor.poll()["0"].state is JobState.RUNNING, PATIENCE, "a running block")
        provider.cmd_timeout = 1
        cell.master.send(signal.SIGSTOP)
        try:
            status = executor.poll()["0"]
            assert status.state is JobState.RUNNING
            assert "qstat: no answer within cmd_timeout=1 s" in (status.message or "")
        finally:
            cell.master.send(signal.SIGCONT)
            provider.cmd_timeout = 30
        assert not executor.bad_state_is_set
        eventually(lambda: executor.poll()["0"].state is JobState.RUNNING, PATIENCE, "an answer")
    finally:
        executor.shutdown()
    assert executor.status()["0"].state is JobState.SCALED_IN


def test_several_slots_without_a_parallel_environment_are_refused() -> None:
    for options in ({"nodes_per_block": 2}, {"cores_per_node": 2}):
        with pytest.raises(ConfigurationError, match="parallel_environment"):
            GridEngineProvider(**options)
    GridEngineProvider(cores_per_node=2, scheduler_options="#$ -pe smp 2")


@pytest.mark.parametrize("launcher", [None, MpiRunLauncher()])
def test_a_block_of_several_nodes_has_a_copy_on_each(
    make: Make, tmp_path: Path, launcher: MpiRunLauncher | None
) -> None:
    chosen = {} if launcher is None else {"launcher": launcher}
    path = f"export PATH={Path(sys.executable).parent}:$PATH"
    provider = make(nodes_per_block=2, parallel_environment="mpi", worker_init=path, **chosen)
    status = ending(provider, provider.submit(f"echo here > {tmp_path}/$(hostname)", 1))
    assert status.state is JobState.COMPLETED, status.stderr
    assert sorted(path.name for path in tmp_path.glob("n*")) == ["n1", "n2"]


def test_the_copies_on_all_nodes_end_with_a_cancelled_block(make: Make, tmp_path: Path, cell: GridEngineCell) -> None:
    path = f"export PATH={Path(sys.executable).parent}:$PATH"
    provider = make(nodes_per_block=2, parallel_environment="mpi", worker_init=path)
    job_id = provider.submit(f"echo here > {tmp_path}/$(hostname); sleep 600", 1)
    eventually(lambda: len(list(tmp_path.glob("n*"))) == 2, PATIENCE, "copies on both nodes")
    assert provider.cancel([job_id]) == [True]
    assert ending(provider, job_id).state is JobState.CANCELLED
    assert cell.await_rest() == []
