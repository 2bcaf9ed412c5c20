"""What is known of blocks keeps its promises, whatever a provider says and whoever asks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flowcore.executors.ledger import Ledger
from flowcore.jobs.states import JobState, JobStatus

STATUSES = st.builds(JobStatus, st.sampled_from(JobState), st.none() | st.just("words"))
IDS = st.sampled_from(["0", "1", "2", "3"])
SECONDS = st.floats(0, 1000)


def of_four() -> Ledger:
    """Return a ledger of four submitted blocks, which were started at 0."""
    ledger = Ledger()
    for job in "abcd":
        ledger.submitted(ledger.reserve(0.0), job)
    return ledger


@given(st.lists(st.tuples(IDS, STATUSES)))
def test_a_terminal_state_never_changes(told: list[tuple[str, JobStatus]]) -> None:
    ledger, final = of_four(), dict[str, JobStatus]()
    for block_id, status in told:
        ledger.observe(block_id, status, 0.0)
        if status.terminal:
            final.setdefault(block_id, status)
        assert {i: ledger.statuses()[i] for i in final} == final


@given(st.lists(st.tuples(IDS, STATUSES)), IDS)
def test_a_block_that_was_given_up_stays_so_however_its_job_ends(told: list[tuple[str, JobStatus]], gone: str) -> None:
    ledger = of_four()
    ledger.scaled_in(gone)
    for block_id, status in told:
        ledger.observe(block_id, status, 0.0)
    assert ledger.statuses()[gone].state is JobState.SCALED_IN


@given(st.dictionaries(IDS, SECONDS), st.sets(IDS), SECONDS, SECONDS)
def test_no_block_with_a_task_is_taken_unless_forced(
    idle: dict[str, float], connected: set[str], now: float, min_idle: float
) -> None:
    idle = {block_id: seconds for block_id, seconds in idle.items() if block_id in connected}
    taken = of_four().dispensable(idle, connected, now, min_idle)
    assert all(idle.get(block_id, -1) > min_idle for block_id in taken if block_id in connected)
    assert all(now > min_idle for block_id in taken if block_id not in connected)


@given(st.dictionaries(IDS, SECONDS), st.sets(IDS), SECONDS)
def test_a_forced_choice_takes_those_with_tasks_last(idle: dict[str, float], connected: set[str], now: float) -> None:
    idle = {block_id: seconds for block_id, seconds in idle.items() if block_id in connected}
    taken = of_four().dispensable(idle, connected, now, None)
    assert sorted(taken) == ["0", "1", "2", "3"]
    busy = [block_id in connected and block_id not in idle for block_id in taken]
    assert busy == sorted(busy)


@given(st.lists(st.sampled_from(["reserve", "submit", "refuse", "unheard", "forget"])))
def test_numbers_are_never_given_out_twice_and_the_tally_adds_up(acts: list[str]) -> None:
    ledger, seen = Ledger(), list[str]()
    failed = JobStatus(JobState.FAILED)
    for act in acts:
        if act == "forget":
            ledger.forget_ended()
        else:
            seen.append(ledger.reserve(0.0))
            if act == "submit":
                ledger.submitted(seen[-1], f"job-{seen[-1]}")
            elif act == "refuse":
                ledger.refused(seen[-1], failed)
            elif act == "unheard":
                ledger.unheard(seen[-1], failed)
        tally = ledger.tally()
        assert tally.active + tally.draining + tally.ended == len(ledger.statuses())
        assert sum(block.unanswered > 0 for block in ledger.blocks.values()) <= 1
    assert len(set(seen)) == len(seen)
