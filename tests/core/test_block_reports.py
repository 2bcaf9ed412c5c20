"""What a user reads when a block fails: the fault once, the evidence once, and what to do."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flowcore.executors.base import RunContext
from flowcore.executors.early_ends import REMEDIES, early_end
from flowcore.executors.errors import BadStateException, ScalingFailed
from flowcore.jobs.poller import JobStatusPoller
from flowcore.jobs.states import SUMMARY_BYTES, JobState, JobStatus
from flowcore.launchers import SimpleLauncher
from flowcore.providers.errors import SubmitException
from flowcore.testing.blocks import HandRunExecutor
from flowcore.testing.faults import FaultyProvider

BOUND = 60.0

Fail = Callable[..., str]


@pytest.fixture
def failure(tmp_path: Path) -> Iterator[Fail]:
    """Run a task whose only block fails; return the text of the task's error."""
    closing: list[Callable[[], None]] = []

    def failure(command: str = "exit 0", **options: Any) -> str:
        provider = FaultyProvider(**{"init_blocks": 0, "launcher": SimpleLauncher(debug=False), **options})
        executor = HandRunExecutor(provider, command=command)
        poller = JobStatusPoller(strategy_period=0.05)
        closing.extend([poller.close, executor.shutdown])
        executor.start(RunContext(run_id="test", run_dir=tmp_path))
        poller.add(executor)
        return str(executor.submit(pow, {}, 2, 3).exception(BOUND))

    yield failure
    for close in closing:
        close()


def lines(text: str) -> list[str]:
    """Return the lines without their indentation, paths cut to their last part."""
    return [line.strip().partition(": /")[0] for line in text.splitlines()]


def test_of_a_job_that_fails_at_once(failure: Fail) -> None:
    assert lines(failure("echo trying; echo 'ModuleNotFoundError: no module named x' >&2; exit 5")) == [
        "Executor hand failed due to: the only block failed",
        "block 0: MISSING: the job ended before a worker connected: FAILED (its script ended with exit code 5)",
        "job script",
        "standard output: trying",
        "standard error: ModuleNotFoundError: no module named x",
        "mend the provider's worker_init, launcher or options, then call the executor's reset()",
    ]


def test_of_a_job_whose_command_is_not_there(failure: Fail) -> None:
    text = failure("exec no-such-program-at-all")
    assert "its script ended with exit code 127: a command is not there)" in text
    assert text.count("no-such-program-at-all") == 1


def test_of_a_job_that_was_killed(failure: Fail) -> None:
    told = lines(failure("kill -KILL $$"))
    how = "FAILED (killed by signal 9 (SIGKILL), exit code 137)"
    assert told[1] == f"block 0: MISSING: the job ended before a worker connected: {how}; {REMEDIES['SIGKILL']}"
    assert told[3] == "it wrote nothing"


def test_of_a_job_that_ends_well_without_a_worker(failure: Fail) -> None:
    told = lines(failure("echo done"))
    assert told[1].endswith(f"COMPLETED (exit code 0); {REMEDIES['COMPLETED']}")
    assert told[3] == "standard output: done"


def test_of_a_submission_that_is_refused(failure: Fail) -> None:
    refused = "sbatch: it failed with exit code 1\n  command: sbatch job.sh"
    error = SubmitException("job", refused, "", "sbatch: error: invalid partition specified: nowhere\n", 1)
    assert lines(failure(submit_error=error)) == [
        "Executor hand failed due to: the only block failed",
        "block 0: FAILED: cannot submit job job: sbatch: it failed with exit code 1",
        "command: sbatch job.sh",
        "stderr: sbatch: error: invalid partition specified: nowhere",
        "mend the provider's options; `flowcore provider show CONFIG` prints the script they make",
        "when that is mended, call the executor's reset()",
    ]


def test_of_a_first_submission_that_is_refused(tmp_path: Path) -> None:
    error = SubmitException("job", "sbatch: it failed with exit code 1", "", "sbatch: error: invalid partition\n", 1)
    executor = HandRunExecutor(FaultyProvider(submit_error=error))
    with pytest.raises(ScalingFailed) as caught:
        executor.start(RunContext(run_id="test", run_dir=tmp_path))
    assert lines(str(caught.value))[:2] == [
        "Executor hand failed due to: block 0: cannot submit job job: sbatch: it failed with exit code 1",
        "stderr: sbatch: error: invalid partition",
    ]


def test_of_output_of_many_lines_which_is_indented_and_cut(failure: Fail) -> None:
    text = failure("for ((i = 0; i < 5000; i++)); do echo line $i >&2; done; exit 3")
    assert "\n    standard error:\n      line 0\n      line 1\n" in text
    assert "bytes left out" in text
    assert "line 4999" in text
    assert len(text) < SUMMARY_BYTES + 2000


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        (JobStatus(JobState.TIMEOUT, "Slurm says TIMEOUT"), REMEDIES["TIMEOUT"]),
        (JobStatus(JobState.CANCELLED, "Slurm says PREEMPTED"), REMEDIES["CANCELLED"]),
        (JobStatus(JobState.FAILED, "its command was killed by signal 9 (SIGKILL)"), REMEDIES["SIGKILL"]),
        (JobStatus(JobState.FAILED, "killed by signal 15 (SIGTERM)"), None),
        (JobStatus(JobState.FAILED, "its script ended with exit code 1", 1), None),
    ],
)
def test_how_a_job_ended_decides_what_to_do(status: JobStatus, remedy: str | None) -> None:
    told = early_end(status)
    assert told.state is JobState.MISSING
    said = f"the job ended before a worker connected: {status}"
    assert told.message == (said if remedy is None else f"{said}; {remedy}")


def test_output_that_cannot_be_seen_from_here_is_named(tmp_path: Path) -> None:
    status = JobStatus(JobState.FAILED, None, 1, stderr_path=str(tmp_path / "nowhere" / "err"))
    assert status.report().endswith(f"standard error: {tmp_path}/nowhere/err cannot be read here")


@pytest.mark.parametrize("message", [None, "it has ended", "it ended with exit code 7", "it failed\n  exit code: 7"])
def test_an_exit_code_is_told_once(message: str | None) -> None:
    status = JobStatus(JobState.FAILED, message, exit_code=7)
    assert str(status).count("7") == 1
    assert status.report().count("7") == 1


def test_a_short_exit_code_is_not_taken_for_a_longer_one() -> None:
    assert "exit code 1)" in str(JobStatus(JobState.FAILED, "exit code 127", exit_code=1))


def test_reset_after_the_mending_is_all_that_it_takes(tmp_path: Path) -> None:
    executor = HandRunExecutor(FaultyProvider(worker_init="exit 4"))
    executor.start(RunContext(run_id="test", run_dir=tmp_path))
    waiting = executor.submit(pow, {}, 2, 3)
    poller = JobStatusPoller(strategy_period=0.05)
    poller.add(executor)
    try:
        with pytest.raises(BadStateException, match="exit code 4"):
            waiting.result(BOUND)
        assert isinstance(executor.provider, FaultyProvider)
        executor.provider.worker_init = ""
        executor.reset()
        assert not executor.submit(pow, {}, 2, 3).done()
        assert executor.poll()["1"].state is JobState.RUNNING
    finally:
        poller.close()
        executor.shutdown()


def test_the_log_and_the_status_tell_the_same_story(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "flowcore.executors.blocks")
    told: list[str] = []

    def look(executor: HandRunExecutor) -> None:
        told.append(str(executor.poll()["0"]))

    executor = HandRunExecutor(FaultyProvider(max_blocks=2), command="exec sleep 600")
    executor.start(RunContext(run_id="test", run_dir=tmp_path))
    look(executor)
    executor.connected.add("0")
    executor.scale_in(1)
    look(executor)
    executor.shutdown()
    lines = [record.getMessage() for record in caplog.records]
    assert re.fullmatch(r"executor hand: block 0 is job \d+\.0", lines[0])
    assert lines[1:] == ["executor hand: block 0 is RUNNING", "executor hand: block 0 was cancelled"]
    assert told == ["RUNNING", "SCALED_IN (no longer needed)"]
