"""How many blocks there are, when tasks ask for more than one slot, or for what no block there is has."""

from __future__ import annotations

import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

import flowcore
from flowcore import Config
from flowcore.errors import InvalidResourceSpecification
from flowcore.providers import LocalProvider
from flowcore.testing import tasks
from flowcore.testing.gate import Gate
from flowcore_htex.demand import BlockTimes, Demand, slots_taken
from flowcore_htex.executor import HighThroughputExecutor
from flowcore_htex.options import Options
from flowcore_htex.outbox import HtexFuture
from htex_rig import Family
from nodes import ClusterProvider
from waiting import PATIENCE, eventually

BLOCK = "FLOWCORE_BLOCK_ID"
LARGER_EACH_TIME = 'n=$(mktemp -p "$PWD" block.XXXX); export FLOWCORE_CORES=$((2 * $(ls block.* | wc -l)))'
"""For `worker_init`: the first block has 2 cores, the second 4, and so on."""


@pytest.fixture
def load(tmp_path):
    """Load a run with one executor, which scales at once."""

    def load(provider, strategy="simple", strategy_period=60, **options):
        executor = HighThroughputExecutor(provider=provider, **options)
        settings = {"strategy": strategy, "strategy_period": strategy_period, "lost_retries": 0}
        flowcore.load(Config(executors=[executor], run_dir=str(tmp_path / "runs"), **settings))
        return executor

    yield load
    flowcore.clear(wait=False)


@pytest.fixture
def gate():
    with Gate(PATIENCE) as gate:
        yield gate


# -- what a task counts for


def options(**values):
    chosen = HighThroughputExecutor(**values).options
    assert isinstance(chosen, Options)
    return chosen


NODE = {"slots": 8, "cores": 8, "memory": 1000.0, "disk": 1000.0, "gpus": 2}


@pytest.mark.parametrize(
    ("size", "slots"),
    [
        ((1, 0, 0, 0), 1),
        ((4, 0, 0, 0), 4),
        ((3, 0, 0, 0), 4),  # two of them to a node, whose last two slots are of no use to a third
        ((8, 0, 0, 0), 8),
        ((0, 250, 0, 0), 2),
        ((0, 0, 400, 0), 4),
        ((0, 0, 500.0000001, 0), 4),  # what fractions lose is no other task's room
        ((0, 0, 0, 1), 4),
        ((1, 0, 0, 2), 8),
        ((9, 0, 0, 0), 8),  # none fits
    ],
)
def test_a_task_counts_for_its_share_of_a_node(size, slots):
    assert slots_taken(size, [NODE], options()) == slots


def test_it_counts_for_its_cores_where_no_node_is_known():
    assert slots_taken((3, 0, 0, 0), [], options()) == 3
    assert slots_taken((3, 0, 0, 0), [], options(cores_per_worker=2)) == 2
    assert slots_taken((0, 0, 0, 2), [], options(available_accelerators=4)) == 2
    assert slots_taken((0, 500, 0, 0), [], options(mem_per_worker=100)) == 5


def test_the_node_with_room_for_most_counts():
    small = {**NODE, "slots": 2, "cores": 2}
    assert slots_taken((4, 0, 0, 0), [small, NODE], options()) in (2, 4)
    assert slots_taken((1, 0, 0, 1), [small, NODE], options()) == 1


@given(st.lists(st.dictionaries(st.sampled_from(["cores", "gpus", "priority"]), st.integers(1, 9)), max_size=20))
def test_what_tasks_take_beyond_a_slot_each_is_counted_while_they_are_not_done(needs):
    nodes = []
    demand = Demand("htex", options(), lambda: nodes)
    futures = []
    for tid, need in enumerate(needs):
        future = HtexFuture(None)
        future.tid = tid
        demand.add(future, need)
        futures.append(future)
    assert demand.surplus == sum(max(1, need.get("cores", 1)) - 1 for need in needs)
    nodes.append(NODE)
    demand.nodes_changed()
    expected = [slots_taken((need.get("cores", 0), 0, 0, need.get("gpus", 0)), [NODE], options()) for need in needs]
    sized = [slots - 1 for need, slots in zip(needs, expected, strict=True) if need.keys() & {"cores", "gpus"}]
    assert demand.surplus == pytest.approx(sum(sized))
    for future in futures:
        future.set_result(None)
    assert demand.surplus == 0


class Refusals:
    """Stands for the client: fails futures."""

    def fail(self, future, error):
        future.set_exception(error)


def test_tasks_are_judged_again_only_where_other_nodes_are_known(monkeypatch):
    demand, refusals, times = Demand("htex", options(), lambda: [NODE]), Refusals(), BlockTimes("htex", None)
    futures = {}
    for tid in range(300):
        futures[tid] = HtexFuture(None)
        futures[tid].tid = tid
        demand.add(futures[tid], {"cores": 1 + tid % 3})
    looks = []
    fault = demand.fault
    monkeypatch.setattr(demand, "fault", lambda need, nodes: looks.append(need) or fault(need, nodes))
    demand.recheck(refusals, [NODE], times)
    demand.recheck(refusals, [NODE], times)
    assert len(looks) == 3
    assert not any(future.done() for future in futures.values())
    demand.recheck(refusals, [{**NODE, "slots": 2, "cores": 2}], times)
    assert {tid % 3 for tid, future in futures.items() if future.done()} == {2}
    assert all("cores=3 is asked for, a node has 2" in str(futures[tid].exception()) for tid in range(2, 300, 3))


def test_the_count_survives_many_threads():
    demand = Demand("htex", options(), lambda: [NODE])

    def use(start):
        for tid in range(start, start + 500):
            future = HtexFuture(None)
            future.tid = tid
            demand.add(future, {"cores": 3})
            demand.nodes_changed() if tid % 50 == 0 else None
            future.set_result(None)

    threads = [threading.Thread(target=use, args=(1000 * number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert demand.surplus == 0


# -- what comes of it


def test_there_are_blocks_for_all_slots_that_tasks_ask_for(load, gate):
    executor = load(LocalProvider(cores_per_node=2, init_blocks=0, max_blocks=3))
    held = [executor.submit(tasks.hold, {"cores": 2}, gate.port) for _ in range(3)]
    assert executor.slots_wanted() == 6
    gate.wait_for(3)  # at once, each on a block of its own
    assert executor.tally().active == 3
    gate.open()
    assert all(future.result(PATIENCE) for future in held)
    eventually(lambda: executor.slots_wanted() == 0)  # a future calls back once it is done


def test_a_task_that_no_block_has_room_for_gets_another_block(load):
    executor = load(ClusterProvider(init_blocks=1, max_blocks=3, worker_init=LARGER_EACH_TIME))
    assert executor.submit(os.getenv, {}, "FLOWCORE_WORKER_COUNT").result(PATIENCE) == "2"
    assert executor.submit(os.getenv, {"cores": 4}, "FLOWCORE_WORKER_COUNT").result(PATIENCE) == "4"
    assert executor.tally().active == 2
    assert executor.stuck_tasks() == 0


def test_a_task_that_no_block_has_time_for_gets_another_block(load, tmp_path):
    flag = tmp_path / "flag"
    ends = f"export FLOWCORE_BLOCK_END=$(($(date +%s) + $([ -e {flag} ] && echo 3600 || echo 600)))"
    executor = load(LocalProvider(max_blocks=2, worker_init=ends), max_workers=1)
    assert executor.submit(os.getenv, {}, BLOCK).result(PATIENCE) == "0"
    flag.touch()
    assert executor.submit(os.getenv, {"running_time_min": 1000}, BLOCK).result(PATIENCE) == "1"
    assert executor.tally().active == 2


def test_a_stuck_task_that_is_cancelled_needs_no_block(load):
    executor = load(ClusterProvider(cores_per_node=2, init_blocks=1, max_blocks=2), strategy="none")
    executor.submit(pow, {}, 2, 3).result(PATIENCE)
    future = executor.submit(pow, {"cores": 4}, 2, 3)
    eventually(lambda: executor.stuck_tasks() == 1)
    assert future.cancel()
    eventually(lambda: executor.stuck_tasks() == 0)


def test_three_blocks_without_room_for_a_task_are_enough_to_refuse_it(load):
    executor = load(ClusterProvider(cores_per_node=2, init_blocks=1, max_blocks=50))
    with pytest.raises(InvalidResourceSpecification, match="cores=4 is asked for, a node has 2"):
        executor.submit(pow, {"cores": 4}, 2, 3).result(PATIENCE)
    assert len(executor.status()) == 3
    with pytest.raises(InvalidResourceSpecification, match="cores=4 is asked for, a node has 2"):
        executor.submit(pow, {"cores": 4}, 2, 3)
    assert executor.submit(pow, {"cores": 2}, 2, 3).result(PATIENCE) == 8


@pytest.mark.fault
def test_any_number_of_blocks_may_fail_that_have_done_some_work(load):
    executor = load(LocalProvider(), strategy_period=0.5, max_workers=1)
    for number in range(5):
        assert executor.submit(os.getenv, {}, BLOCK).result(PATIENCE) == str(number)
        Family().kill("manager")
        eventually(lambda number=number: executor.status()[str(number)].terminal)
    assert not executor.bad_state_is_set
    assert executor.submit(pow, {}, 2, 3).result(PATIENCE) == 8
