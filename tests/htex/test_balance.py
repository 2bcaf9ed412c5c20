"""Load balance among managers: nobody waits in line at one while another has nothing to do."""

from __future__ import annotations

import os
import random
from collections import Counter

import pytest

import htex_tasks as tasks
from flowcore.providers import LocalProvider
from flowcore.testing.gate import Gate
from flowcore_htex import wire
from flowcore_htex.balance import Balance
from flowcore_htex.log import Log
from flowcore_htex.matching import UNITS, BlockIdManagerSelector, RandomManagerSelector
from flowcore_htex.peers import Manager
from flowcore_htex.pending import Pending
from flowcore_htex.wire import Task
from htex_rig import as_busy_as_plain_workers, executions, executors, outcomes
from waiting import PATIENCE, until

# -- the queues of the interchange, with managers that only listen


class Listener:
    """A peer that remembers what it was sent."""

    def __init__(self):
        self.tasks = []
        self.wanted_back = []

    def queue(self, kind, head=b"", buffers=()):
        if kind == wire.TASKS:
            self.tasks += wire.unpack_tasks(head)[0]
        elif kind == wire.RECALL:
            self.wanted_back += wire.unpack_ids(head)

    def flush(self):
        pass


def managers(*workers):
    found = {}
    for place, count in enumerate(workers):
        info = {"manager": f"m{place}", "block_id": str(place), "worker_count": count, "memory": 1000, "disk": 1000}
        info |= {"gpus": 2, "draining": False, "release": "", "python": ""}
        settings = {"cores_per_worker": 1, "mem_per_worker": None, "accelerators": []}
        found[f"m{place}"] = Manager(Listener(), info, settings)
    return found


def plain(*tids):
    return [Task(tid, 1, b"") for tid in tids]


def shares(known):
    return [len(manager.peer.tasks) for manager in known.values()]


@pytest.mark.parametrize("selector", [RandomManagerSelector, BlockIdManagerSelector])
@pytest.mark.parametrize("prefetch", [0, 5])
@pytest.mark.parametrize("seconds", [None, 0.2, 0.004, 0.00001])
def test_nobody_gets_a_second_task_before_every_worker_has_one(selector, prefetch, seconds):
    known = managers(2, 2, 2)
    waiting = Pending(selector(), prefetch, Log(None, None))
    if seconds is not None:
        waiting.estimates[1] = seconds
    waiting.add(plain(*range(6)))
    waiting.give_out(known, {})
    assert shares(known) == [2, 2, 2]


def test_an_idle_worker_comes_before_the_second_task_of_a_busy_one():
    known = managers(2, 4)
    waiting = Pending(BlockIdManagerSelector(), 0, Log(None, None))
    waiting.estimates[1] = 0.1
    waiting.add(plain(1, 2))
    waiting.give_out(known, {})
    assert shares(known) == [2, 0]
    waiting.add(plain(3, 4, 5, 6))
    waiting.give_out(known, {})
    assert shares(known) == [2, 4]
    waiting.add(plain(7))
    waiting.give_out(known, {})
    assert shares(known) == [3, 4]


LATER = 1e9
"""A time at which all that was given has long settled."""


def give(manager, *tids, weight=UNITS):
    for task in plain(*tids):
        manager.take(task, weight)


def test_a_manager_with_tasks_in_line_is_asked_for_as_many_as_others_can_begin():
    known = managers(2, 2, 3)
    give(known["m0"], *range(10))
    give(known["m1"], 10)
    Balance(known).look(LATER)
    assert [manager.peer.wanted_back for manager in known.values()] == [[4], [], []]


def test_nobody_is_asked_where_nobody_is_idle_or_nobody_waits():
    for counts in ((5, 2), (2, 0), (1, 1)):
        known = managers(2, 2)
        for number, (manager, count) in enumerate(zip(known.values(), counts, strict=True)):
            give(manager, *range(10 * number, 10 * number + count))
        balance = Balance(known)
        balance.look(LATER)
        assert [manager.peer.wanted_back for manager in known.values()] == [[], []]
        assert balance.due is None


def test_a_manager_that_takes_no_tasks_is_not_taken_for_idle():
    known = managers(2, 2)
    give(known["m0"], *range(6))
    known["m1"].held = True
    Balance(known).look(LATER)
    assert known["m0"].peer.wanted_back == []


def test_a_task_of_several_slots_leaves_nobody_idle():
    known = managers(2, 2)
    give(known["m0"], *range(6))
    known["m1"].take(Task(7, 1, b""), 0, {"cores": 2})
    Balance(known).look(LATER)
    assert known["m0"].peer.wanted_back == []


def test_what_was_given_a_moment_ago_is_left_where_it_is_and_looked_at_again():
    known = managers(2, 2)
    give(known["m0"], *range(6))
    balance = Balance(known)
    now = known["m0"].told
    balance.look(now)
    assert known["m0"].peer.wanted_back == []
    assert now < balance.due < now + 1
    balance.look(balance.due + 0.001)
    assert known["m0"].peer.wanted_back == [2]


def test_a_manager_that_gives_nothing_back_is_asked_less_and_less_often():
    known = managers(2, 2)
    give(known["m0"], *range(6))
    balance = Balance(known)
    balance.stir(LATER)
    pauses = []
    for _ in range(10):
        now = balance.due
        balance.look(now)
        pauses.append(balance.due - now)
    assert pauses == sorted(pauses)
    assert pauses[0] < 0.1
    assert pauses[-1] >= 1


# -- managers with workers


@pytest.fixture
def start(tmp_path):
    """Start an executor with some blocks, and wait for their managers."""
    with executors(tmp_path) as start:

        def start_blocks(count, **options):
            executor = start(provider=LocalProvider(init_blocks=count, max_blocks=3), **options)
            assert until(lambda: len(executor.connected_managers()) == count)
            return executor

        yield start_blocks


def where(seconds):
    """Take some time, and return block and process."""
    tasks.nap(seconds)
    return os.environ["FLOWCORE_BLOCK_ID"], os.getpid()


def run(executor, lengths):
    """Run tasks, and return how many each block and how many each worker got."""
    came = outcomes([executor.submit(where, {}, length) for length in lengths])
    return Counter(block for block, _ in came), Counter(pid for _, pid in came)


@pytest.mark.slow
def test_a_burst_of_tasks_is_spread_over_all_managers(start):
    executor = start(3)
    run(executor, [0.2] * 6)
    for _ in range(3):
        blocks, workers = run(executor, [0.2] * 12)
        assert len(blocks) == 3
        assert min(blocks.values()) >= 2  # 4 each, where nothing else keeps the machine busy
        assert max(workers.values()) <= 5


def test_as_many_tasks_as_workers_leave_no_worker_idle(start):
    executor = start(3)
    run(executor, [0.2] * 6)
    with Gate(PATIENCE) as gate:
        outcomes([executor.submit(at_gate_or_not, {}) for _ in range(200)])
        held = [executor.submit(at_gate_or_not, {}, gate.port) for _ in range(6)]
        gate.wait_for(6)
    assert len(set(outcomes(held))) == 6


def at_gate_or_not(port=None):
    """Return at once, or when the gate opens: a short function that may turn out long."""
    if port is not None:
        from flowcore.testing.tasks import hold

        hold(port)
    return os.getpid()


@pytest.mark.slow
def test_a_function_that_turns_long_is_spread_over_all_workers(start):
    """It was known as a short one, of which a manager is sent many."""
    executor = start(3)
    for _ in range(2):
        outcomes([executor.submit(at_gate_or_not, {}) for _ in range(600)])
        with Gate(PATIENCE) as gate:
            futures = [executor.submit(at_gate_or_not, {}, gate.port) for _ in range(24)]
            gate.wait_for(6)
            for future in futures:
                future.cancel()
        assert until(lambda: sum(one["tasks"] for one in executor.connected_managers()) == 0)


def test_all_workers_of_all_managers_work_though_one_was_given_everything(start):
    executor = start(1, prefetch_capacity=20)
    with Gate(PATIENCE) as gate:
        futures = [executor.submit(tasks_hold, {}, gate.port) for _ in range(20)]
        gate.wait_for(2)
        assert until(lambda: executor.connected_managers()[0]["tasks"] == 20)
        executor.scale_out(2)
        gate.wait_for(4)
        for future in futures:
            future.cancel()
    assert until(lambda: sum(one["tasks"] for one in executor.connected_managers()) == 0)


def tasks_hold(port):
    from flowcore.testing.tasks import hold

    return hold(port)


@pytest.mark.slow
def test_tasks_of_mixed_length_keep_all_workers_busy_and_run_once(start, tmp_path):
    executor = start(3, prefetch_capacity=2)
    trace = tmp_path / "trace"
    outcomes([executor.submit(tasks.mark, {}, str(trace), number) for number in range(300)])
    lengths = random.Random(4).choices([0, 0.001, 0.02, 0.1, 0.4], [5, 5, 3, 2, 1], k=500)
    futures = [executor.submit(tasks.mark, {}, str(trace), 300 + n, length) for n, length in enumerate(lengths)]
    assert outcomes(futures) == list(range(300, 800))
    assert executions(trace) == dict.fromkeys(range(800), 1)


EAGER = (
    "import flowcore_htex.balance as b; b._SETTLED = 0.0005; b._LONGEST = 0.002; "
    "from flowcore_htex.interchange import main; main()"
)


@pytest.mark.slow
def test_no_task_is_lost_or_run_twice_when_tasks_are_handed_back_all_the_time(start, tmp_path):
    executor = start(3, prefetch_capacity=10, interchange_launch_cmd=["{python}", "-c", EAGER])
    trace = tmp_path / "trace"
    outcomes([executor.submit(tasks.mark, {}, str(trace), number) for number in range(300)])
    choose = random.Random(9)
    futures = []
    for number in range(300, 2300):
        futures.append(executor.submit(tasks.mark, {}, str(trace), number, choose.choice([0, 0, 0.001, 0.01])))
        if number % 40 == 0:
            outcomes(futures[-5:])  # so that now and then some manager has nothing to do
    assert outcomes(futures) == list(range(300, 2300))
    assert executions(trace) == dict.fromkeys(range(2300), 1)
    assert until(lambda: sum(one["tasks"] for one in executor.connected_managers()) == 0)


@pytest.mark.slow
@pytest.mark.performance
@pytest.mark.parametrize(("blocks", "enough"), [(1, 0.95), (3, 0.9)])
def test_tasks_of_100_ms_keep_all_workers_busy(start, blocks, enough):
    executor, workers = start(blocks), 2 * blocks
    run(executor, [0.1] * workers)
    lengths = [0.1] * (30 * workers)
    assert as_busy_as_plain_workers(lambda them: run(executor, them), lengths, workers, enough) > enough
