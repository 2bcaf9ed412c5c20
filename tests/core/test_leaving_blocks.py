"""Blocks that end by themselves: they make room for others, are not cancelled, and their status says why they ended."""

from __future__ import annotations

import logging

import pytest

from flowcore.executors.blocks import Blocks
from flowcore.executors.ledger import Ledger
from flowcore.jobs.states import JobState, JobStatus
from flowcore.providers import LocalProvider
from flowcore.testing.leftovers import Leftovers
from waiting import eventually

REASON = "its walltime is almost over"


@pytest.fixture
def ledger():
    ledger = Ledger()
    for job in ("a", "b"):
        ledger.submitted(ledger.reserve(0.0), job)
    return ledger


def test_a_leaving_block_is_not_active_and_is_told_of_once(ledger):
    assert ledger.leave(["0", "99"], REASON) == ["0"]
    assert ledger.leave(["0"], REASON) == []
    tally = ledger.tally()
    assert (tally.active, tally.draining, tally.ended) == (1, 1, 0)


def test_a_leaving_block_is_no_candidate_for_cancellation(ledger):
    ledger.leave(["0"], REASON)
    assert ledger.dispensable({}, ["0", "1"], 1.0, None) == ["1"]


def test_a_block_that_has_ended_does_not_leave(ledger):
    ledger.observe("0", JobStatus(JobState.FAILED), 1.0)
    assert ledger.leave(["0"], REASON) == []


@pytest.mark.parametrize("state", [JobState.RUNNING, JobState.FAILED, JobState.TIMEOUT, JobState.COMPLETED])
def test_only_a_block_that_left_in_good_order_is_said_to_have_done_so(ledger, state):
    ledger.leave(["0"], REASON)
    ledger.observe("0", JobStatus(state, "as it was", exit_code=0), 1.0)
    expected = f"ended: {REASON}" if state is JobState.COMPLETED else "as it was"
    assert ledger.statuses()["0"].message == expected
    assert ledger.statuses()["0"].exit_code == 0
    ledger.observe("1", JobStatus(JobState.COMPLETED, "as it was"), 1.0)
    assert ledger.statuses()["1"].message == "as it was"


def test_why_a_block_left_is_told_even_if_it_is_heard_of_after_its_end(ledger):
    for block_id, state in (("0", JobState.COMPLETED), ("1", JobState.FAILED)):
        ledger.observe(block_id, JobStatus(state, "as it was"), 1.0)
    assert ledger.leave(["0", "1"], REASON) == []
    assert ledger.leave(["0", "1"], "another reason") == []
    statuses = ledger.statuses()
    assert (statuses["0"].message, statuses["1"].message) == (f"ended: {REASON}", "as it was")


def test_a_leaving_block_counts_against_max_blocks_until_its_job_ends(tmp_path, caplog):
    caplog.set_level(logging.INFO, "flowcore")
    leftovers = Leftovers()
    end = tmp_path / "end"
    provider = LocalProvider(script_dir=str(tmp_path), max_blocks=1)
    blocks = Blocks("label", provider, lambda _block: f"while ! [ -e {end} ]; do sleep 0.05; done", lambda: ["0", "1"])
    assert list(blocks.submit(1)) == ["0"]
    assert blocks.leave(["0"], REASON)
    assert not blocks.leave(["0"], REASON)
    assert blocks.draining() == []
    assert blocks.submit(1) == {}
    end.touch()
    eventually(lambda: blocks.ask() is None and blocks.statuses()["0"].terminal)
    assert blocks.statuses()["0"].state is JobState.COMPLETED
    lines = [record.getMessage() for record in caplog.records]
    assert f"executor label: block 0 takes no more tasks: {REASON}" in lines
    assert f"executor label: block 0 is COMPLETED (ended: {REASON}, exit code 0)" in lines
    assert list(blocks.submit(1)) == ["1"]
    eventually(lambda: blocks.ask() is None and blocks.statuses()["1"].terminal)
    assert leftovers.after(60) == []
