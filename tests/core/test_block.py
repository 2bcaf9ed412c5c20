"""BlockExecutor: how blocks come, how they are told about, and how they go."""

from __future__ import annotations

import logging
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from flowcore.errors import ConfigurationError
from flowcore.executors import block as block_module
from flowcore.executors.base import RunContext
from flowcore.executors.errors import BadStateException, ExecutorError, ScalingFailed
from flowcore.jobs.errors import TooManyJobFailuresError
from flowcore.jobs.states import JobState, JobStatus
from flowcore.providers.errors import SubmitException
from flowcore.providers.processes import session_members
from flowcore.testing.blocks import HandRunExecutor
from flowcore.testing.faults import FaultyProvider

BOUND = 60.0
REFUSAL = SubmitException("job", "no such queue", stdout="", stderr="sbatch: error: invalid partition", retcode=1)


@pytest.fixture
def start(tmp_path: Path):
    """Make and start executors, and shut them down in the end."""
    started: list[HandRunExecutor] = []

    def start(*, command: str = "exec sleep 600", **options: Any) -> HandRunExecutor:
        names = {"workers", "block_error_handler", "label"}
        mine = {name: options.pop(name) for name in names & options.keys()}
        executor = HandRunExecutor(FaultyProvider(**{"max_blocks": 4, **options}), command=command, **mine)
        started.append(executor)
        executor.start(RunContext(run_id="test", run_dir=tmp_path))
        return executor

    yield start
    for executor in started:
        faults(executor).cancel_error = faults(executor).status_error = None
        executor.shutdown()


def faults(executor: HandRunExecutor) -> FaultyProvider:
    assert isinstance(executor.provider, FaultyProvider)
    return executor.provider


def until_ended(executor: HandRunExecutor, *block_ids: str) -> dict[str, JobStatus]:
    """Poll whenever a job has ended, until these blocks have."""
    changed = threading.Event()
    executor.attach(changed.set)
    while not all(executor.poll()[block_id].terminal for block_id in block_ids):
        assert changed.wait(BOUND)
        changed.clear()
    return executor.status()


def states(executor: HandRunExecutor) -> dict[str, str]:
    return {block_id: status.status_name for block_id, status in executor.status().items()}


def sessions(executor: HandRunExecutor) -> list[int]:
    return [int(job.partition(".")[0]) for job in executor._provider_blocks.unsettled()]


def test_the_first_blocks_are_submitted_at_once_and_in_a_folder_of_the_run(start, tmp_path: Path) -> None:
    executor = start(init_blocks=2, label="mine")
    assert states(executor) == {"0": "PENDING", "1": "PENDING"}
    scripts = sorted(path.name for path in (tmp_path / "mine" / "submit_scripts").glob("*.sh"))
    assert [name.split(".")[2] for name in scripts] == ["block-0", "block-1"]
    assert set(executor.poll()) == {"0", "1"}
    assert states(executor) == {"0": "RUNNING", "1": "RUNNING"}


def test_a_label_with_odd_characters_makes_no_odd_job_names(start) -> None:
    assert start(label="a b;c").poll()["0"].script_path.rpartition("/")[2].startswith("flowcore.a_b_c.block-0.")


def test_the_script_folder_of_the_user_is_used_and_kept(start, tmp_path: Path) -> None:
    executor = start(script_dir=str(tmp_path / "mine" / "deep"))
    assert len(list((tmp_path / "mine" / "deep").glob("*.sh"))) == 1
    executor.shutdown()
    assert executor.provider.script_dir == str(tmp_path / "mine" / "deep")


def test_the_script_folder_of_a_run_does_not_stay_with_the_provider(start) -> None:
    executor = start()
    executor.shutdown()
    assert executor.provider.script_dir is None


def test_a_script_folder_that_cannot_be_made_is_an_error_of_the_executor(start, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ExecutorError, match="folder for job scripts"):
        start(script_dir=str(tmp_path / "file" / "folder"))


def test_a_refused_first_block_raises_with_the_words_of_the_provider(start) -> None:
    with pytest.raises(ScalingFailed, match="invalid partition") as caught:
        start(submit_error=REFUSAL)
    assert caught.value.__cause__ is REFUSAL


def test_blocks_before_a_refused_one_are_cancelled(tmp_path: Path) -> None:
    class SecondIsRefused(FaultyProvider):
        def submit(self, command: str, tasks_per_node: int, job_name: str = "flowcore") -> str:
            self.submit_error = REFUSAL if self.calls else None
            return super().submit(command, tasks_per_node, job_name)

    executor = HandRunExecutor(SecondIsRefused(init_blocks=2, max_blocks=2))
    with pytest.raises(ScalingFailed, match="block 1"):
        executor.start(RunContext(run_id="test", run_dir=tmp_path))
    assert states(executor) == {"0": "SCALED_IN", "1": "FAILED"}
    assert sessions(executor) == []


def test_a_block_refused_later_is_a_failed_block_with_the_words_of_the_provider(start) -> None:
    executor = start(init_blocks=0)
    faults(executor).submit_error = REFUSAL
    assert executor.scale_out() == ["0"]
    status = executor.status()["0"]
    assert status.state is JobState.FAILED
    assert status.exit_code == 1
    assert "invalid partition" in (status.message or "")


def test_a_block_whose_command_cannot_be_made_is_a_failed_block(start, monkeypatch) -> None:
    executor = start(init_blocks=0)
    monkeypatch.setattr(executor._provider_blocks, "_command", lambda block_id: [][int(block_id)])
    executor.scale_out()
    assert states(executor) == {"0": "FAILED"}


def test_an_interrupted_submission_leaves_no_block(start) -> None:
    executor = start(init_blocks=0, max_blocks=3)
    faults(executor).submit_error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        executor.scale_out(3)
    assert states(executor) == {}
    faults(executor).submit_error = None
    assert len(executor.scale_out(3)) == 3


def test_there_are_never_more_than_max_blocks(start) -> None:
    executor = start(init_blocks=1, max_blocks=3)
    assert executor.scale_out(10) == ["1", "2"]
    assert executor.scale_out() == []


def test_scaling_from_many_threads_keeps_the_limit_and_overlaps_no_calls(start) -> None:
    executor = start(init_blocks=0, max_blocks=4)
    go = threading.Barrier(6)
    found: list[str] = []

    def scale() -> None:
        go.wait()
        found.extend(executor.scale_out(1))
        executor.poll()

    threads = [threading.Thread(target=scale) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(BOUND)
    assert sorted(found) == ["0", "1", "2", "3"]
    assert not any(status.state is JobState.FAILED for status in executor.status().values())


def test_a_job_that_ends_before_a_worker_connects_is_missing_and_says_why(start) -> None:
    executor = start(command="echo no such module >&2; exit 3")
    status = until_ended(executor, "0")["0"]
    assert status.state is JobState.MISSING
    assert status.exit_code == 3
    assert "ended before a worker connected: FAILED (its script ended with exit code 3)" in (status.message or "")
    assert status.report().count("no such module") == 1
    assert f"job script: {status.script_path}" in status.report()


@pytest.mark.fault
def test_a_connected_job_that_is_killed_has_failed_and_names_the_signal(start) -> None:
    executor = start()
    executor.connected.add("0")
    os.killpg(sessions(executor)[0], signal.SIGKILL)
    status = until_ended(executor, "0")["0"]
    assert status.state is JobState.FAILED
    assert "SIGKILL" in (status.message or "")


def test_a_terminal_state_never_changes(start) -> None:
    executor = start(command="exit 3")
    executor.connected.add("0")
    before = until_ended(executor, "0")
    assert executor.scale_in(1) == []
    executor.shutdown()
    assert executor.poll() == before


def test_a_provider_that_does_not_answer_changes_nothing(start, caplog) -> None:
    executor = start()
    executor.poll()
    faults(executor).status_error = OSError("scheduler is down")
    assert executor.poll()["0"].state is JobState.RUNNING
    assert "scheduler is down" in caplog.text
    faults(executor).status_error = None
    assert executor.poll()["0"].state is JobState.RUNNING


def test_a_provider_that_never_answers_puts_an_unconnected_executor_out_of_order(start, monkeypatch) -> None:
    monkeypatch.setattr(block_module, "SILENCE", 0.0)
    executor = start()
    faults(executor).status_error = OSError("scheduler is down")
    future = executor.submit(pow, {}, 2, 3)
    for _ in range(block_module.SILENT_POLLS):
        assert not executor.bad_state_is_set
        executor.poll()
    with pytest.raises(BadStateException, match="scheduler is down"):
        future.result(0)


def test_a_provider_that_never_answers_leaves_connected_workers_alone(start, monkeypatch) -> None:
    monkeypatch.setattr(block_module, "SILENCE", 0.0)
    executor = start()
    executor.connected.add("0")
    faults(executor).status_error = OSError("scheduler is down")
    for _ in range(block_module.SILENT_POLLS + 1):
        executor.poll()
    assert not executor.bad_state_is_set


def test_an_answer_that_is_too_short_is_no_answer(start, monkeypatch) -> None:
    executor = start(init_blocks=2)
    monkeypatch.setattr(FaultyProvider, "status", lambda self, job_ids: [])
    assert {status.state for status in executor.poll().values()} == {JobState.PENDING}
    monkeypatch.undo()
    assert {status.state for status in executor.poll().values()} == {JobState.RUNNING}


def test_scale_in_takes_unconnected_blocks_then_the_longest_idle_then_busy_ones(start) -> None:
    executor = start(init_blocks=4, max_blocks=4)
    executor.connected |= {"0", "1", "2"}
    executor.idle = {"1": 5.0, "2": 50.0}
    assert executor.scale_in(2) == ["3", "2"]
    assert executor.held == ["3", "2"]
    assert executor.scale_in(9) == ["1", "0"]
    assert set(states(executor).values()) == {"SCALED_IN"}


def test_scale_in_with_an_idle_time_spares_busy_and_recently_idle_blocks(start) -> None:
    executor = start(init_blocks=4, max_blocks=4)
    executor.connected |= {"0", "1", "2"}
    executor.idle = {"1": 5.0, "2": 50.0}
    assert executor.scale_in(4, max_idletime=10) == ["2"]
    assert [i for i, name in states(executor).items() if name == "SCALED_IN"] == ["2"]


def test_a_block_that_got_a_task_at_the_last_moment_drains_first(start) -> None:
    executor = start(init_blocks=2, max_blocks=2)
    executor.connected |= {"0", "1"}
    executor.idle, executor.busy = {"0": 50.0}, {"0"}
    assert executor.scale_in(1, max_idletime=10) == []
    executor.poll()
    assert states(executor) == {"0": "RUNNING", "1": "RUNNING"}
    assert (executor.tally().active, executor.tally().draining) == (1, 1)
    assert executor.scale_out() == []
    executor.busy.clear()
    executor.poll()
    assert states(executor) == {"0": "SCALED_IN", "1": "RUNNING"}
    assert executor.scale_out() == ["2"]


def test_a_cancellation_that_fails_is_tried_again(start) -> None:
    executor = start()
    executor.connected.add("0")
    faults(executor).cancel_error = OSError("scheduler is down")
    assert executor.scale_in(1) == []
    assert states(executor) == {"0": "RUNNING"}
    faults(executor).cancel_error = None
    executor.poll()
    assert states(executor) == {"0": "SCALED_IN"}


def test_nothing_to_scale_in_asks_nobody(start) -> None:
    executor = start(init_blocks=0)
    assert executor.scale_in(3) == []
    assert faults(executor).calls == []


@pytest.mark.fault
def test_shutdown_leaves_no_process(start) -> None:
    executor = start(init_blocks=3, command="sleep 600 & sleep 600 & wait")
    found = sessions(executor)
    assert len(found) == 3
    executor.shutdown()
    assert [session_members(session) for session in found] == [[], [], []]
    for session in found:
        with pytest.raises(ProcessLookupError):
            os.kill(session, 0)
    assert set(states(executor).values()) == {"SCALED_IN"}


def test_shutdown_twice_and_shutdown_before_start_are_harmless(start) -> None:
    executor = start()
    executor.shutdown()
    calls = len(faults(executor).calls)
    executor.shutdown()
    assert len(faults(executor).calls) == calls
    HandRunExecutor(FaultyProvider()).shutdown()


def test_shutdown_waits_no_longer_than_its_bound_for_a_provider_that_is_down(start, monkeypatch, caplog) -> None:
    monkeypatch.setattr(block_module, "END_BOUND", 0.2)
    executor = start()
    faults(executor).cancel_error = faults(executor).status_error = OSError("scheduler is down")
    executor.end_blocks()
    assert "did not end in time" in caplog.text


def test_jobs_that_took_long_to_end_are_known_to_have_ended(start, monkeypatch, caplog) -> None:
    monkeypatch.setattr(block_module, "END_BOUND", 0.0)
    executor = start(init_blocks=2)
    executor.end_blocks()
    assert sessions(executor) == []
    assert "did not end in time" not in caplog.text


def test_nothing_is_submitted_after_the_end(start) -> None:
    executor = start()
    executor.shutdown()
    assert executor.scale_out() == []


def test_all_blocks_failing_fails_every_task_with_what_they_said(start) -> None:
    executor = start(command="echo no such module >&2; exit 3", init_blocks=2)
    future = executor.submit(pow, {}, 2, 3)
    until_ended(executor, "0", "1")
    executor.handle_errors()
    with pytest.raises(BadStateException, match="no such module") as caught:
        future.result(0)
    assert isinstance(caught.value.__cause__, TooManyJobFailuresError)
    assert executor.executor_exception is caught.value.__cause__
    with pytest.raises(BadStateException, match="no such module"):
        executor.submit(pow, {}, 2, 3)
    assert executor.scale_out() == []


def test_the_first_reason_to_be_out_of_order_stays(start) -> None:
    executor = start()
    first = OSError("first")
    executor.set_bad_state_and_fail_all(first)
    executor.set_bad_state_and_fail_all(OSError("second"))
    assert executor.executor_exception is first


def test_nothing_is_left_of_a_task_that_is_refused(start) -> None:
    executor = start()
    executor.set_bad_state_and_fail_all(OSError("all nodes are down"))
    with pytest.raises(BadStateException, match="all nodes are down"):
        executor.submit(pow, {}, 2, 3)
    assert executor.outstanding() == 0


def test_a_task_accepted_while_the_executor_goes_out_of_order_fails_with_the_others(start, monkeypatch) -> None:
    executor = start()
    monkeypatch.setattr(
        executor, "raise_if_bad", lambda: executor.set_bad_state_and_fail_all(OSError("all nodes are down"))
    )
    future = executor.submit(pow, {}, 2, 3)
    assert isinstance(future.exception(0), BadStateException)
    assert executor.outstanding() == 0


def test_blocks_of_an_executor_that_is_out_of_order_are_cancelled_by_the_next_poll(start) -> None:
    executor = start(init_blocks=2)
    executor.set_bad_state_and_fail_all(OSError("interchange lost"))
    executor.poll()
    assert set(states(executor).values()) == {"SCALED_IN"}
    assert sessions(executor) == []


def test_reset_makes_the_executor_usable_again(start) -> None:
    executor = start(command="exit 3", init_blocks=2)
    until_ended(executor, "0", "1")
    executor.handle_errors()
    assert executor.bad_state_is_set
    executor.command = "exec sleep 600"
    executor.reset()
    assert not executor.bad_state_is_set
    assert executor.executor_exception is None
    assert set(executor.poll()) == {"2", "3"}
    assert not executor.submit(pow, {}, 2, 3).done()
    executor.handle_errors()
    assert not executor.bad_state_is_set


def test_reset_says_when_the_provider_still_refuses(start) -> None:
    executor = start(command="exit 3")
    until_ended(executor, "0")
    executor.handle_errors()
    faults(executor).submit_error = REFUSAL
    with pytest.raises(ScalingFailed, match="invalid partition"):
        executor.reset()


@pytest.mark.parametrize("handler", [True, False])
def test_the_error_handler_can_be_switched_off(start, handler: bool) -> None:
    executor = start(command="exit 3", block_error_handler=handler)
    until_ended(executor, "0")
    executor.handle_errors()
    assert executor.bad_state_is_set is handler


def test_the_error_handler_may_be_a_function(start) -> None:
    seen: list[Any] = []
    executor = start(command="exit 3", block_error_handler=lambda *told: seen.append(told))
    until_ended(executor, "0")
    executor.handle_errors()
    assert seen == [(executor, executor.status())]


@pytest.mark.parametrize(("options", "words"), [({"provider": "slurm"}, "slurm"), ({"block_error_handler": 3}, "True")])
def test_what_cannot_work_is_refused_at_construction(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        HandRunExecutor(**{"provider": FaultyProvider(), **options})


def test_slots_count_all_the_blocks_there_may_be(start) -> None:
    assert start(max_blocks=3, nodes_per_block=2, workers=5).slots() == 30


class Woken:
    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        self.times += 1


def test_demand_wakes_only_when_another_block_would_help(start) -> None:
    executor = start(init_blocks=1, max_blocks=2, workers=3)
    woken = Woken()
    executor.attach(woken, Woken())
    for _ in range(3):
        executor.submit(pow, {}, 2, 3)
    assert woken.times == 0
    executor.submit(pow, {}, 2, 3)
    assert woken.times == 1
    executor.scale_out()
    for _ in range(10):
        executor.submit(pow, {}, 2, 3)
    assert woken.times == 1


def test_demand_follows_parallelism(start) -> None:
    half, none = start(parallelism=0.5, workers=2, label="half"), start(parallelism=0, label="none")
    woken = Woken()
    for executor in (half, none):
        executor.attach(woken, Woken())
    for _ in range(4):
        half.submit(pow, {}, 2, 3)
        none.submit(pow, {}, 2, 3)
    assert woken.times == 0
    half.submit(pow, {}, 2, 3)
    assert woken.times == 1


def test_demand_wakes_nobody_who_did_not_ask(start) -> None:
    executor, woken = start(init_blocks=0), Woken()
    executor.submit(pow, {}, 2, 3)
    executor.attach(woken, demand=False)
    executor.submit(pow, {}, 2, 3)
    executor.attach(woken)
    executor.detach()
    executor.submit(pow, {}, 2, 3)
    assert woken.times == 0


def test_every_change_of_a_block_is_logged_once(start, caplog) -> None:
    caplog.set_level(logging.INFO, "flowcore")
    executor = start()
    executor.poll()
    executor.poll()
    assert caplog.text.count("block 0 is RUNNING") == 1
