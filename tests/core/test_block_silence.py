"""A resource manager that gives no answer for a while: no block is lost, nothing fails too soon, and it is told."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from flowcore.errors import FlowcoreError
from flowcore.executors import block as block_module
from flowcore.executors.base import RunContext
from flowcore.executors.errors import BadStateException, ScalingFailed
from flowcore.jobs.poller import JobStatusPoller
from flowcore.jobs.states import JobState
from flowcore.providers.errors import ProviderSilent, SchedulerError, SubmitException
from flowcore.testing.blocks import HandRunExecutor
from flowcore.testing.faults import FaultyProvider
from waiting import eventually

BOUND = 60.0
WORDS = "Unable to contact slurm controller (connect failure)"
NO_STATUS = SchedulerError(["squeue"], "it failed with exit code 1", "", f"slurm_load_jobs error: {WORDS}", 1)
NO_SUBMISSION = SubmitException("job", "sbatch: it failed", "", f"sbatch: error: {WORDS}", 1, unanswered=True)
REFUSAL = SubmitException("job", "sbatch: it failed", "", "sbatch: error: invalid partition", 1)

Start = Callable[..., HandRunExecutor]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start executors, and shut them down in the end."""
    started: list[HandRunExecutor] = []

    def start(**options: Any) -> HandRunExecutor:
        handler = options.pop("handler", True)
        provider = FaultyProvider(**{"init_blocks": 0, "max_blocks": 4, **options})
        executor = HandRunExecutor(provider, block_error_handler=handler)
        started.append(executor)
        executor.start(RunContext(run_id="test", run_dir=tmp_path))
        return executor

    yield start
    for executor in started:
        mend(executor)
        executor.shutdown()


def fail(executor: HandRunExecutor, *, status: Exception | None = None, submit: Exception | None = None) -> None:
    assert isinstance(executor.provider, FaultyProvider)
    executor.provider.status_error, executor.provider.submit_error = status, submit


mend = fail


def task(executor: HandRunExecutor) -> Future[Any]:
    return executor.submit(pow, {}, 2, 3)


def names(executor: HandRunExecutor) -> dict[str, str]:
    return {block_id: status.status_name for block_id, status in executor.status().items()}


def test_many_polls_in_vain_within_a_short_time_put_nothing_out_of_order(start: Start) -> None:
    executor = start(init_blocks=1)
    fail(executor, status=NO_STATUS)
    for _ in range(20 * block_module.SILENT_POLLS):
        executor.poll()
    assert not executor.bad_state_is_set
    mend(executor)
    assert executor.poll()["0"].state is JobState.RUNNING


def test_a_few_polls_in_vain_over_a_long_time_put_nothing_out_of_order(start: Start, monkeypatch: Any) -> None:
    monkeypatch.setattr(block_module, "SILENCE", 0.0)
    executor = start(init_blocks=1)
    fail(executor, status=NO_STATUS)
    for _ in range(block_module.SILENT_POLLS - 1):
        executor.poll()
    assert not executor.bad_state_is_set


def test_the_default_patience_is_longer_than_a_scheduler_needs_for_a_restart() -> None:
    assert 120 <= block_module.SILENCE <= 600


def test_an_answer_ends_the_silence(start: Start, monkeypatch: Any) -> None:
    monkeypatch.setattr(block_module, "SILENCE", 0.0)
    executor = start(init_blocks=1)
    for _ in range(3):
        fail(executor, status=NO_STATUS)
        for _ in range(block_module.SILENT_POLLS - 1):
            executor.poll()
        mend(executor)
        executor.poll()
    assert not executor.bad_state_is_set


def test_the_status_of_a_block_says_that_nobody_answers_and_what_was_said(start: Start) -> None:
    executor = start(init_blocks=1)
    executor.poll()
    fail(executor, status=NO_STATUS)
    status = executor.poll()["0"]
    assert status.state is JobState.RUNNING
    assert re.match(rf"no answer for \d+ s: .*{re.escape(WORDS)}", status.message or "")
    mend(executor)
    assert executor.poll()["0"].message is None


def test_what_is_given_up_says_how_long_it_was_waited_for_and_what_to_do(start: Start, monkeypatch: Any) -> None:
    monkeypatch.setattr(block_module, "SILENCE", 0.0)
    executor = start(init_blocks=1)
    waiting = task(executor)
    fail(executor, status=NO_STATUS)
    for _ in range(block_module.SILENT_POLLS):
        executor.poll()
    with pytest.raises(BadStateException) as caught:
        waiting.result(0)
    assert isinstance(caught.value.__cause__, ProviderSilent)
    assert caught.value.__cause__.__cause__ is NO_STATUS
    text = str(caught.value)
    assert re.search(rf"has not answered for \d+ s, {block_module.SILENT_POLLS} times in a row", text)
    assert WORDS in text
    assert "command: squeue" in text
    assert text.endswith("see whether its commands work in a shell here, then call the executor's reset()")


def test_a_submission_that_nobody_answers_is_no_failed_block_to_the_error_handler(start: Start) -> None:
    seen: list[dict[str, Any]] = []
    executor = start(handler=lambda _, blocks: seen.append(blocks))
    fail(executor, submit=NO_SUBMISSION)
    executor.scale_out()
    executor.handle_errors()
    assert seen == [{}]
    assert names(executor) == {"0": "FAILED"}
    assert WORDS in (executor.status()["0"].message or "")


def test_a_submission_that_is_refused_is_one(start: Start) -> None:
    executor = start()
    fail(executor, submit=REFUSAL)
    executor.scale_out()
    executor.handle_errors()
    assert executor.bad_state_is_set


def test_after_the_first_submission_that_nobody_answers_no_other_is_tried(start: Start) -> None:
    executor = start()
    fail(executor, submit=NO_SUBMISSION)
    assert executor.scale_out(4) == ["0"]
    assert isinstance(executor.provider, FaultyProvider)
    assert executor.provider.calls == ["submit"]


def test_a_long_silence_leaves_one_block_behind_and_slows_down_the_tries(start: Start) -> None:
    executor = start()
    fail(executor, submit=NO_SUBMISSION)
    for _ in range(7):
        executor.scale_out()
    assert len(executor.status()) == 1
    assert executor.tally().failed_in_row == 7
    mend(executor)
    [good] = executor.scale_out()
    assert executor.tally().failed_in_row == 0
    fail(executor, submit=NO_SUBMISSION)
    executor.scale_out()
    assert executor.tally().failed_in_row == 1
    assert names(executor)[good] in {"PENDING", "RUNNING"}


def test_submissions_that_nobody_ever_answers_put_the_executor_out_of_order(start: Start, monkeypatch: Any) -> None:
    monkeypatch.setattr(block_module, "SILENCE", 0.0)
    executor = start()
    waiting = task(executor)
    fail(executor, submit=NO_SUBMISSION)
    for _ in range(block_module.SILENT_POLLS):
        assert not waiting.done()
        executor.scale_out()
    with pytest.raises(BadStateException, match="sbatch: error: Unable to contact"):
        waiting.result(0)


def test_a_first_block_that_nobody_answers_about_raises_at_once(start: Start) -> None:
    with pytest.raises(ScalingFailed) as caught:
        start(init_blocks=1, submit_error=NO_SUBMISSION)
    assert WORDS in str(caught.value)
    assert "the same may work later" in str(caught.value)


def test_reset_forgets_the_silence(start: Start, monkeypatch: Any) -> None:
    monkeypatch.setattr(block_module, "SILENCE", 0.0)
    executor = start(init_blocks=1)
    fail(executor, status=NO_STATUS)
    for _ in range(block_module.SILENT_POLLS):
        executor.poll()
    assert executor.bad_state_is_set
    mend(executor)
    executor.reset()
    fail(executor, status=NO_STATUS)
    executor.poll()
    assert not executor.bad_state_is_set


def test_demand_that_comes_during_a_silence_gets_its_block_after_it(start: Start, caplog: Any) -> None:
    executor = start(interval=0.05)
    fail(executor, submit=NO_SUBMISSION)
    poller = JobStatusPoller(strategy_period=0.05)
    poller.add(executor)
    try:
        waiting = task(executor)
        for _ in range(3 * 3):  # more than any error handler forgives
            executor.grown.clear()
            assert executor.grown.wait(BOUND)
        assert not waiting.done()
        mend(executor)
        eventually(lambda: "RUNNING" in names(executor).values())
    finally:
        poller.close()
    assert not executor.bad_state_is_set
    assert "was not submitted: cannot submit job job: sbatch" in caplog.text
    assert WORDS in caplog.text


@pytest.mark.parametrize("error", [NO_STATUS, OSError("no such command"), FlowcoreError("odd\nlines")])
def test_whatever_a_status_call_raises_is_told_in_one_line(start: Start, error: Exception) -> None:
    executor = start(init_blocks=1)
    fail(executor, status=error)
    message = executor.poll()["0"].message or ""
    assert "\n" not in message


def test_a_block_that_runs_without_a_worker_is_told_once_with_what_its_job_said(
    start: Start, monkeypatch: Any, caplog: Any
) -> None:
    from flowcore.executors import blocks

    monkeypatch.setattr(blocks, "UNCONNECTED", 0.0)
    caplog.set_level(logging.WARNING, "flowcore")
    executor = start()
    executor.command = "echo waiting for a licence >&2; touch started; exec sleep 600"
    executor.scale_out()
    eventually(Path("started").exists)
    for _ in range(3):
        executor.poll()
    assert caplog.text.count("block 0 has sent no worker for 0 s; it is RUNNING") == 1
    assert "waiting for a licence" in caplog.text


def test_a_block_that_was_to_go_and_ended_by_itself_has_not_failed(start: Start) -> None:
    executor = start(init_blocks=1)
    assert isinstance(executor.provider, FaultyProvider)
    executor.poll()
    executor.provider.cancel_error = OSError("scheduler is down")
    assert executor.scale_in(1) == []
    executor.provider.cancel_error = None
    [job_id] = executor._provider_blocks.unsettled()
    executor.provider.cancel([job_id])  # as the withdrawn script of a job that had not started would end
    assert executor.poll()["0"].state is JobState.SCALED_IN
    executor.handle_errors()
    assert not executor.bad_state_is_set
