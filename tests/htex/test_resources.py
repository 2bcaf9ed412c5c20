"""Tasks that ask for something get it, wait for it, or are told that there is none."""

from __future__ import annotations

import os
import time
from concurrent.futures import wait

import pytest
from flowcore_htex.errors import MemoryExceeded, TaskWalltimeExceeded

from flowcore.errors import InvalidResourceSpecification
from flowcore.executors.errors import WalltimeExceeded
from flowcore.providers import LocalProvider

PATIENCE = 60.0


@pytest.fixture
def four(start, monkeypatch):
    """Provide an executor whose node has four cores and 8 GB."""
    monkeypatch.setenv("FLOWCORE_CORES", "4")
    monkeypatch.setenv("FLOWCORE_MEMORY_GB", "8")
    return start(max_workers=4, cores_per_worker=1)


def span(seconds):
    begin = time.monotonic()
    time.sleep(seconds)
    return begin, time.monotonic()


def most_at_once(spans):
    return max(sum(other[0] <= one[0] < other[1] for other in spans) for one in spans)


def submit(rig, need, func, *args):
    return rig.executor.submit(func, need, *args)


@pytest.mark.parametrize(
    ("need", "at_once"),
    [({"cores": 2}, 2), ({"cores": 3}, 1), ({"cores": 0.5}, 4), ({"memory": "4GB"}, 2), ({"memory": "3GB"}, 2), ({"cores": 1}, 4)],
)
def test_a_node_runs_as_many_as_fit(four, need, at_once):
    futures = [submit(four, need, span, 0.15) for _ in range(8)]
    spans = [future.result(PATIENCE) for future in futures]
    assert most_at_once(spans) == at_once


def test_a_large_request_does_not_starve_behind_small_ones(four):
    small = [submit(four, {}, time.sleep, 0.03) for _ in range(40)]
    large = submit(four, {"cores": 4}, span, 0)
    more = [submit(four, {}, span, 0.03) for _ in range(60)]
    assert not wait(small, PATIENCE).not_done
    begin, _ = large.result(PATIENCE)
    later = [future.result(PATIENCE)[0] for future in more]
    assert sum(moment > begin for moment in later) > 30


def test_a_large_task_has_the_node_to_itself(four):
    futures = [submit(four, {"cores": 4} if n % 4 == 0 else {}, span, 0.05) for n in range(12)]
    spans = [future.result(PATIENCE) for future in futures]
    large = spans[::4]
    for begin, end in large:
        overlapping = [one for one in spans if one[0] < end and one[1] > begin]
        assert len(overlapping) == 1


def test_lower_priority_numbers_run_sooner_and_none_last(start):
    rig = start(max_workers=1)
    blocker = rig.submit(time.sleep, 0.5)
    order = []
    futures = []
    for name, need in [
        ("none-1", {}),
        ("p5", {"priority": 5}),
        ("none-2", {}),
        ("p1-1", {"priority": 1}),
        ("p1-2", {"priority": 1}),
        ("p-3", {"priority": -3}),
    ]:
        future = rig.executor.submit(span, need, 0.02)
        futures.append((name, future))
    blocker.result(PATIENCE)
    order = [name for _, name in sorted((future.result(PATIENCE)[0], name) for name, future in futures)]
    assert order == ["p-3", "p1-1", "p1-2", "p5", "none-1", "none-2"]


def test_walltime_is_enforced_and_costs_that_task_only(four, wait_for):
    begin = time.monotonic()
    over = submit(four, {"walltime": 0.3}, time.sleep, 600)
    under = submit(four, {"walltime": "00:00:30"}, span, 0.5)
    error = over.exception(PATIENCE)
    assert type(error) is TaskWalltimeExceeded
    assert isinstance(error, (WalltimeExceeded, TimeoutError))
    assert "walltime of 0.3 s" in str(error)
    assert time.monotonic() - begin < 20
    assert under.exception(PATIENCE) is None
    assert wait_for(lambda: four.held() == 0)
    assert len({submit(four, {}, pow, 2, n).result(PATIENCE) for n in range(10)}) == 10


def test_memory_is_enforced(four):
    def gobble(megabytes):
        block = bytearray(megabytes * 1_000_000)
        for place in range(0, len(block), 4096):
            block[place] = 1
        time.sleep(600 if megabytes > 100 else 0)
        return len(block)

    error = submit(four, {"memory": 150}, gobble, 400).exception(PATIENCE)
    assert type(error) is MemoryExceeded
    assert isinstance(error, MemoryError)
    assert error.limit == 150
    assert error.used > 150
    assert submit(four, {"memory": 500}, gobble, 50).result(PATIENCE) == 50_000_000


@pytest.mark.parametrize(
    ("need", "words"),
    [
        ({"cores": 5}, "cores=5 is asked for, a node has 4"),
        ({"memory": "9GB"}, "memory=9000 MB"),
        ({"gpus": 1}, "gpus=1"),
        ({"cores": 2, "gpus": 3}, "gpus=3"),
    ],
)
def test_a_request_that_no_node_can_meet_fails_at_once_by_name(four, need, words):
    with pytest.raises(InvalidResourceSpecification) as caught:
        submit(four, need, pow, 2, 2)
    assert words in str(caught.value)


@pytest.mark.parametrize("need", [{"num_nodes": 2}, {"ranks_per_node": 1}, {"coers": 1}, {"cores": "many"}, {"walltime": -1}])
def test_a_request_with_a_bad_key_or_value_is_refused(rig, need):
    with pytest.raises(InvalidResourceSpecification, match=next(iter(need))):
        submit(rig, need, pow, 2, 2)


class Elsewhere(LocalProvider):
    """A provider of which nobody knows that its nodes are this machine."""

    @property
    def label(self):
        return "elsewhere"


def test_a_request_waits_as_long_as_another_block_may_meet_it(start, monkeypatch, wait_for):
    monkeypatch.setenv("FLOWCORE_CORES", "2")
    rig = start(provider=Elsewhere(init_blocks=1, max_blocks=2), max_workers=4, cores_per_worker=1)
    assert rig.run(pow, 2, 2) == 4
    waiting = submit(rig, {"cores": 3}, pow, 2, 3)
    assert rig.run(pow, 2, 2) == 4
    assert not waiting.done()
    monkeypatch.setenv("FLOWCORE_CORES", "4")
    rig.executor.scale_out(1)
    assert waiting.result(PATIENCE) == 8


def test_a_waiting_request_fails_when_the_last_block_cannot_meet_it(start, monkeypatch, wait_for):
    monkeypatch.setenv("FLOWCORE_CORES", "2")
    rig = start(provider=Elsewhere(init_blocks=0, max_blocks=1), max_workers=4, cores_per_worker=1)
    waiting = submit(rig, {"cores": 3}, pow, 2, 3)
    rig.executor.scale_out(1)
    error = waiting.exception(PATIENCE)
    assert type(error) is InvalidResourceSpecification
    assert "cores=3 is asked for, a node has 2" in str(error)


def test_gpus_are_assigned_by_their_names(start):
    def visible(seconds):
        time.sleep(seconds)
        return os.environ.get("CUDA_VISIBLE_DEVICES")

    rig = start(available_accelerators=["a", "b", "c"], max_workers=3)
    one = [submit(rig, {"gpus": 1}, visible, 0.2) for _ in range(3)]
    assert sorted(future.result(PATIENCE) for future in one) == ["a", "b", "c"]
    two = submit(rig, {"gpus": 2}, visible, 0.2).result(PATIENCE)
    assert len(set(two.split(",")) & {"a", "b", "c"}) == 2
    assert rig.run(visible, 0) in ("a", "b", "c")
    with pytest.raises(InvalidResourceSpecification, match="gpus=4"):
        submit(rig, {"gpus": 4}, visible, 0)


def test_what_was_taken_is_free_again_after_a_task_was_cancelled_or_killed(four, wait_for):
    running = [submit(four, {"cores": 2}, time.sleep, 600) for _ in range(2)]
    assert wait_for(lambda: four.held() == 2)
    running[0].cancel()
    assert submit(four, {"cores": 2}, pow, 2, 2).result(PATIENCE) == 4
    running[1].cancel()
    assert submit(four, {"cores": 4}, pow, 2, 2).result(PATIENCE) == 4
    assert type(submit(four, {"cores": 4}, os._exit, 1).exception(PATIENCE)).__name__ == "WorkerLost"
    assert submit(four, {"cores": 4}, pow, 2, 2).result(PATIENCE) == 4


def test_demanding_tasks_survive_a_new_interchange(four, wait_for):
    import signal

    futures = [submit(four, {"cores": 2, "priority": n}, span, 0.05) for n in range(20)]
    assert wait_for(lambda: futures[0].done())
    os.kill(four.interchange(), signal.SIGKILL)
    spans = [future.result(PATIENCE) for future in futures]
    assert most_at_once(spans) == 2


def test_blocks_can_be_held_and_scaled_in(start, wait_for):
    rig = start(provider=LocalProvider(init_blocks=2, max_blocks=2), max_workers=1)
    assert wait_for(lambda: len(rig.executor.connected_managers()) == 2)
    assert sorted(rig.executor.hold_blocks(["0"])) == ["0"]
    assert [manager["active"] for manager in rig.executor.connected_managers() if manager["block_id"] == "0"] == [False]
    for _ in range(6):
        assert rig.run(os.environ.get, "FLOWCORE_WORKER_BLOCK_ID") == "1"
    assert rig.executor.scale_in(1) == ["0"]
    assert wait_for(lambda: len(rig.executor.connected_managers()) == 1)
    assert rig.run(pow, 2, 2) == 4
    assert rig.executor.status()["0"].status_name == "SCALED_IN"
