"""The strategies keep their promises for every snapshot."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcore.errors import ConfigurationError
from flowcore.jobs import strategy
from flowcore.jobs.strategy import Decision, Snapshot

IDLE = 120.0


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    max_blocks = draw(st.integers(0, 12))
    active = draw(st.integers(0, max_blocks))
    tasks = draw(st.one_of(st.just(0), st.integers(0, 500)))
    return Snapshot(
        tasks=tasks,
        stuck=draw(st.integers(0, tasks)),
        active=active,
        coming=draw(st.integers(0, active)),
        draining=draw(st.integers(0, max_blocks - active)),
        ended=draw(st.integers(0, 5)),
        slots_per_block=draw(st.one_of(st.integers(0, 64), st.just(float("inf")), st.just(0.5))),
        unused=0 if tasks else draw(st.floats(0, 1000)),
        min_blocks=draw(st.integers(0, max_blocks)),
        max_blocks=max_blocks,
        parallelism=draw(st.floats(0, 1)),
    )


def after(snapshot: Snapshot, decision: Decision) -> Snapshot:
    """The blocks once it is carried out; those without workers are given back first."""
    return attrs.evolve(
        snapshot,
        active=snapshot.active + decision.scale_out - decision.scale_in,
        coming=max(0, snapshot.coming + decision.scale_out - decision.scale_in),
    )


each = pytest.mark.parametrize("decide", list(strategy.STRATEGIES.values()), ids=list(strategy.STRATEGIES))
each_that_scales = pytest.mark.parametrize("decide", [strategy.simple, strategy.htex_auto_scale])


@each
@given(snapshot=snapshots())
def test_a_decision_is_one_way_and_within_the_limits(decide: strategy.Strategy, snapshot: Snapshot) -> None:
    decision = decide(snapshot, IDLE)
    assert decision.scale_out >= 0
    assert decision.scale_in >= 0
    assert not (decision.scale_out and decision.scale_in)
    then = after(snapshot, decision)
    assert then.active + then.draining <= max(snapshot.max_blocks, snapshot.active + snapshot.draining)
    if decision.scale_in:
        assert then.active >= snapshot.min_blocks


@each
@given(snapshot=snapshots())
def test_what_was_decided_is_not_taken_back(decide: strategy.Strategy, snapshot: Snapshot) -> None:
    assert decide(after(snapshot, decide(snapshot, IDLE)), IDLE) == Decision()


@each_that_scales
@given(snapshot=snapshots())
def test_work_always_has_a_block(decide: strategy.Strategy, snapshot: Snapshot) -> None:
    then = after(snapshot, decide(snapshot, IDLE))
    if snapshot.tasks and snapshot.draining < snapshot.max_blocks:
        assert then.active >= 1


@each_that_scales
@given(snapshot=snapshots())
def test_stuck_tasks_always_have_a_block_to_come(decide: strategy.Strategy, snapshot: Snapshot) -> None:
    then = after(snapshot, decide(snapshot, IDLE))
    if snapshot.stuck and snapshot.active + snapshot.draining < snapshot.max_blocks:
        assert then.coming >= 1


def test_for_stuck_tasks_there_are_as_many_blocks_as_they_fill() -> None:
    snapshot = Snapshot(tasks=5, stuck=5, active=3, coming=1, slots_per_block=2, max_blocks=10)
    assert strategy.simple(snapshot, IDLE) == Decision(scale_out=2)
    assert strategy.simple(attrs.evolve(snapshot, active=5, coming=3), IDLE) == Decision()


@each_that_scales
@given(snapshot=snapshots())
def test_there_are_never_fewer_blocks_than_the_least(decide: strategy.Strategy, snapshot: Snapshot) -> None:
    then = after(snapshot, decide(snapshot, IDLE))
    assert then.active + then.draining >= min(snapshot.min_blocks, snapshot.max_blocks)


@given(snapshot=snapshots())
def test_none_never_does_anything(snapshot: Snapshot) -> None:
    assert strategy.none(snapshot, IDLE) == Decision()


@given(snapshot=snapshots())
def test_simple_gives_nothing_back_while_there_is_work(snapshot: Snapshot) -> None:
    if snapshot.tasks or snapshot.unused < IDLE:
        assert strategy.simple(snapshot, IDLE).scale_in == 0


@each_that_scales
def test_with_parallelism_one_every_task_gets_a_slot(decide: strategy.Strategy) -> None:
    assert decide(Snapshot(tasks=14, active=0, slots_per_block=4, max_blocks=10), IDLE) == Decision(scale_out=4)


@each_that_scales
def test_with_parallelism_one_half_every_other_task_does(decide: strategy.Strategy) -> None:
    snapshot = Snapshot(tasks=16, active=0, slots_per_block=4, max_blocks=10, parallelism=0.5)
    assert decide(snapshot, IDLE) == Decision(scale_out=2)


@each_that_scales
def test_with_parallelism_zero_one_block_does_all_the_work(decide: strategy.Strategy) -> None:
    snapshot = Snapshot(tasks=1000, active=0, slots_per_block=4, max_blocks=10, parallelism=0)
    assert decide(snapshot, IDLE) == Decision(scale_out=1)
    assert decide(attrs.evolve(snapshot, active=1), IDLE) == Decision()


@each_that_scales
def test_fewer_tasks_than_slots_change_nothing(decide: strategy.Strategy) -> None:
    assert decide(Snapshot(tasks=14, active=1, slots_per_block=48, max_blocks=10), IDLE) == Decision()


@each_that_scales
def test_unused_blocks_are_given_back_after_the_idle_time(decide: strategy.Strategy) -> None:
    snapshot = Snapshot(tasks=0, active=3, min_blocks=1, max_blocks=3, unused=IDLE - 1)
    assert decide(snapshot, IDLE) == Decision()
    assert decide(attrs.evolve(snapshot, unused=IDLE), IDLE) == Decision(scale_in=2)


def test_only_auto_scale_gives_back_what_the_work_cannot_use() -> None:
    snapshot = Snapshot(tasks=5, active=4, slots_per_block=4, max_blocks=4)
    assert strategy.simple(snapshot, IDLE) == Decision()
    assert strategy.htex_auto_scale(snapshot, IDLE) == Decision(scale_in=2)


@pytest.mark.parametrize("name", [*strategy.STRATEGIES, None])
def test_strategies_go_by_their_names(name: str | None) -> None:
    assert strategy.named(name) is strategy.STRATEGIES[name or "none"]


def test_an_unknown_strategy_is_told_the_choices() -> None:
    with pytest.raises(ConfigurationError, match="'none', 'simple', 'htex_auto_scale'"):
        strategy.named("sipmle")


@given(failures=st.integers(1, 100), period=st.floats(0.01, 1000))
def test_the_respite_grows_with_the_failures_up_to_the_period(failures: int, period: float) -> None:
    assert strategy.respite(failures, period) <= strategy.respite(failures + 1, period) <= period
    assert strategy.respite(0, period) == 0 < strategy.respite(failures, period)
