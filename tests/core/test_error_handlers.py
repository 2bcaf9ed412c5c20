"""When block error handlers put an executor out of order, and what they say."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import SimpleNamespace

import pytest

from flowcore.jobs.error_handlers import noop_error_handler, simple_error_handler, windowed_error_handler
from flowcore.jobs.errors import TooManyJobFailuresError
from flowcore.jobs.states import JobState, JobStatus

FAILED, MISSING, PENDING, RUNNING = map(
    JobStatus, (JobState.FAILED, JobState.MISSING, JobState.PENDING, JobState.RUNNING)
)
COMPLETED, SCALED_IN, TIMEOUT, CANCELLED = map(
    JobStatus, (JobState.COMPLETED, JobState.SCALED_IN, JobState.TIMEOUT, JobState.CANCELLED)
)


class Executor:
    def __init__(self, init_blocks: int = 1, connected: str = "", proven: str = "") -> None:
        self.provider = SimpleNamespace(init_blocks=init_blocks)
        self.error: Exception | None = None
        self._connected = set(connected + proven)
        self._proven = set(proven)

    def connected_blocks(self) -> set[str]:
        return self._connected

    def proven_blocks(self) -> set[str]:
        return self._proven

    def set_bad_state_and_fail_all(self, error: Exception) -> None:
        self.error = error


def numbered(*statuses: JobStatus) -> dict[str, JobStatus]:
    return {str(number): status for number, status in enumerate(statuses)}


def is_bad(
    handler, *statuses: JobStatus, init_blocks: int = 1, connected: str = "", proven: str = "", **options: int
) -> bool:
    executor = Executor(init_blocks, connected, proven)
    handler(executor, numbered(*statuses), **options)
    return executor.error is not None


def test_noop_never_minds() -> None:
    assert not is_bad(noop_error_handler, *[FAILED] * 100)


def test_simple_minds_that_nothing_ever_connected() -> None:
    assert is_bad(simple_error_handler, MISSING)
    assert is_bad(simple_error_handler, FAILED)
    assert is_bad(simple_error_handler, MISSING, FAILED, init_blocks=2)


def test_simple_waits_for_all_initial_blocks_but_not_for_more_than_its_threshold() -> None:
    assert not is_bad(simple_error_handler, MISSING, init_blocks=2)
    assert not is_bad(simple_error_handler, MISSING, MISSING, init_blocks=10)
    assert is_bad(simple_error_handler, MISSING, MISSING, MISSING, init_blocks=10)
    assert is_bad(simple_error_handler, MISSING, MISSING, init_blocks=10, threshold=2)


def test_simple_forgives_blocks_that_did_connect_until_the_threshold() -> None:
    assert not is_bad(simple_error_handler, FAILED, connected="0")
    assert not is_bad(simple_error_handler, FAILED, FAILED, connected="0")
    assert is_bad(simple_error_handler, FAILED, FAILED, FAILED, connected="0")


def test_simple_forgives_blocks_that_did_work_and_counts_those_after_them() -> None:
    assert not is_bad(simple_error_handler, *[FAILED] * 10, proven="9")
    assert not is_bad(simple_error_handler, FAILED, FAILED, FAILED, proven="0", connected="12")
    assert not is_bad(simple_error_handler, *[FAILED] * 6, proven="03")
    assert is_bad(simple_error_handler, FAILED, FAILED, FAILED, FAILED, proven="0")


def test_simple_names_the_blocks_that_did_nothing() -> None:
    executor = Executor(proven="1")
    simple_error_handler(executor, numbered(*[FAILED] * 5))
    assert isinstance(executor.error, TooManyJobFailuresError)
    assert "the last 3 blocks failed" in str(executor.error)
    assert "block 1" not in str(executor.error)


@pytest.mark.parametrize("live", [PENDING, RUNNING])
def test_simple_is_content_with_one_live_block(live: JobStatus) -> None:
    assert not is_bad(simple_error_handler, live, *[FAILED] * 10)
    assert not is_bad(simple_error_handler, *[FAILED] * 10, live)


@pytest.mark.parametrize("ended", [COMPLETED, SCALED_IN, TIMEOUT, CANCELLED])
def test_simple_counts_the_failed_blocks_after_the_last_that_ended_well(ended: JobStatus) -> None:
    assert not is_bad(simple_error_handler, ended, connected="0")
    assert not is_bad(simple_error_handler, ended, FAILED, FAILED, connected="0")
    assert is_bad(simple_error_handler, ended, FAILED, FAILED, FAILED, connected="0")
    assert is_bad(simple_error_handler, ended, FAILED, MISSING, FAILED, proven="0")
    assert not is_bad(simple_error_handler, FAILED, FAILED, ended, FAILED, FAILED, connected="2")


def test_simple_learns_nothing_from_blocks_that_were_given_back_before_they_connected() -> None:
    assert not is_bad(simple_error_handler, SCALED_IN)
    assert is_bad(simple_error_handler, SCALED_IN, MISSING)
    assert is_bad(simple_error_handler, FAILED, SCALED_IN, FAILED, SCALED_IN, FAILED, connected="0")


def test_simple_says_how_many_blocks_failed_last() -> None:
    executor = Executor(proven="0")
    simple_error_handler(executor, numbered(SCALED_IN, FAILED, SCALED_IN, FAILED, FAILED))
    assert "the last 3 blocks failed" in str(executor.error)


def test_simple_has_nothing_to_say_without_blocks() -> None:
    assert not is_bad(simple_error_handler)


def test_windowed_looks_at_the_newest_blocks_by_number() -> None:
    assert is_bad(windowed_error_handler, COMPLETED, FAILED, MISSING, FAILED)
    assert not is_bad(windowed_error_handler, FAILED, FAILED, FAILED, RUNNING)
    assert not is_bad(windowed_error_handler, FAILED, FAILED)
    assert is_bad(windowed_error_handler, COMPLETED, FAILED, threshold=1)
    assert not is_bad(windowed_error_handler, *[FAILED] * 9, RUNNING, FAILED, FAILED)


def test_the_error_carries_what_each_block_said(tmp_path: Path) -> None:
    (tmp_path / "err").write_text("no module named flowcore\n")
    (tmp_path / "out").write_text("hello\n")
    block = JobStatus(
        JobState.FAILED, "killed by signal 9 (SIGKILL)", 137, str(tmp_path / "out"), str(tmp_path / "err"), "/x/job.sh"
    )
    executor = Executor()
    simple_error_handler(executor, {"0": block})
    assert isinstance(executor.error, TooManyJobFailuresError)
    text = str(executor.error)
    for words in ["block 0", "SIGKILL", "137", "no module named flowcore", "hello", "/x/job.sh", "reset()"]:
        assert words in text
    (tmp_path / "err").unlink()
    assert str(pickle.loads(pickle.dumps(executor.error))) == text


def test_a_long_list_of_blocks_is_cut_short() -> None:
    error = TooManyJobFailuresError("all failed", numbered(*[JobStatus(JobState.FAILED, "refused")] * 50))
    assert str(error).count("refused") == 10
    assert "block 49: FAILED" in str(error)
