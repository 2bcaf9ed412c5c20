"""Decisions about who gets what: pure functions, and the queues of the interchange with managers that only listen."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcore_htex import wire
from flowcore_htex.log import Log
from flowcore_htex.matching import (
    UNITS,
    BlockIdManagerSelector,
    RandomManagerSelector,
    Room,
    Rooms,
    fits,
    learn,
    reserve,
    units,
    units_ahead,
)
from flowcore_htex.peers import Manager
from flowcore_htex.pending import Pending
from flowcore_htex.wire import Task

times = st.floats(1e-7, 1e4)
sizes = st.floats(0, 1e6)
rooms = st.builds(Room, st.integers(0, 64), sizes, sizes, st.integers(0, 8), sizes | st.just(float("inf")))
needs = st.fixed_dictionaries(
    {}, optional={"memory": st.floats(1, 1e6), "disk": st.floats(1, 1e6), "gpus": st.integers(0, 8)}
)


@given(times)
def test_a_task_counts_for_a_whole_worker_unless_it_is_short(seconds):
    assert 1 <= units(seconds) <= UNITS
    assert (units(seconds) == UNITS) == (seconds >= 0.005)
    assert units_ahead(seconds) <= UNITS
    assert units(None) == units_ahead(None) == UNITS


@given(times, times)
def test_shorter_tasks_never_count_more(one, other):
    shorter, longer = sorted((one, other))
    assert units(shorter) <= units(longer)
    assert units_ahead(shorter) <= units_ahead(longer)


@given(st.none() | times, times)
def test_an_estimate_stays_between_what_was_known_and_what_was_seen(known, seen):
    learned = learn(known, seen)
    assert min(known or seen, seen) <= learned * (1 + 1e-9)
    assert learned <= max(known or seen, seen) * (1 + 1e-9)


def test_an_estimate_rises_at_once_and_falls_slowly():
    assert learn(0.0001, 1.0) > 0.5
    assert learn(1.0, 0.0001) > 0.9


names = st.text(max_size=3)


@given(st.dictionaries(names, rooms, max_size=6), needs, st.integers(1, 8))
def test_a_chosen_manager_has_room_and_one_that_has_room_is_found(free, need, count):
    name = Rooms(free).choose(b"", need, count)
    able = [one for one in free if fits(free[one], need, count)]
    assert (name is None) == (not able)
    if name is not None:
        assert name in able
        assert free[name].slots == min(free[one].slots for one in able)  # the one it fills best


@given(st.dictionaries(names, rooms, max_size=6), st.lists(st.tuples(needs, st.integers(1, 8))), st.data())
def test_as_long_as_there_is_room_it_is_found_whatever_was_asked_for_before(free, requests, data):
    rooms = Rooms(free)
    for _ in range(20 if requests else 0):
        place = data.draw(st.integers(0, len(requests) - 1))
        need, count = requests[place]
        name = rooms.choose(bytes([place]), need, count)
        able = [one for one in free if fits(free[one], need, count)]
        assert (name is None) == (not able)
        if name is not None:
            assert name in able
            assert not rooms.full
            slots, memory, disk, gpus, seconds = free[name]
            memory, disk = memory - need.get("memory", 0), disk - need.get("disk", 0)
            free[name] = Room(slots - count, memory, disk, gpus - need.get("gpus", 0), seconds)


@given(st.dictionaries(names, rooms, min_size=1, max_size=6), needs, st.integers(1, 8))
def test_a_reserved_manager_can_ever_have_room(total, need, count):
    free = {name: Room(0, 0, 0, 0) for name in total}
    name = reserve(total, free, need, count)
    assert (name is None) == (not any(fits(room, need, count) for room in total.values()))
    assert name is None or fits(total[name], need, count)


@given(st.sets(st.text(max_size=4)))
def test_the_random_selector_names_everybody_once(names):
    order = RandomManagerSelector().sort_managers({}, names)
    assert sorted(order) == sorted(names)


def test_the_block_selector_takes_the_oldest_blocks_first():
    ready = {"a": {"block_id": "10"}, "b": {"block_id": "9"}, "c": {"block_id": "x"}, "d": {"block_id": "0"}}
    assert BlockIdManagerSelector().sort_managers(ready, set(ready)) == ["d", "b", "a", "c"]


class Listener:
    """A peer that remembers the ids of the tasks it was sent."""

    def __init__(self):
        self.sent = []
        self.functions = []

    def queue(self, kind, head=b"", buffers=()):
        if kind == wire.TASKS:
            self.sent += wire.unpack_tasks(head)[0]
        elif kind == wire.BIG_TASK:
            self.sent.append(wire.unpack_big_task(head)[0])
        elif kind == wire.FUNCTION:
            self.functions.append(wire.unpack_function(head)[0])

    def flush(self):
        pass


SETTINGS = {"cores_per_worker": 1, "mem_per_worker": None, "accelerators": []}


def managers(*workers):
    found = {}
    for place, count in enumerate(workers):
        info = {"manager": f"m{place}", "block_id": str(place), "worker_count": count, "memory": 1000, "disk": 1000}
        info |= {"gpus": 2, "draining": False, "release": "", "python": ""}
        found[f"m{place}"] = Manager(Listener(), info, SETTINGS)
    return found


def task(tid, need=None, function=1):
    return Task(tid, function, b"", (), json.dumps(need).encode() if need else b"")


def pending(tasks, prefetch=0):
    waiting = Pending(BlockIdManagerSelector(), prefetch, Log(None, None))
    for one in tasks:
        if one.spec:
            waiting.add_special(one)
        else:
            waiting.add([one])
    return waiting


def test_unknown_tasks_fill_each_worker_once():
    known = managers(2, 3)
    waiting = pending([task(n) for n in range(10)])
    waiting.give_out(known, {1: b"f"})
    assert known["m0"].peer.sent == [0, 1]
    assert known["m1"].peer.sent == [2, 3, 4]
    assert known["m0"].peer.functions == [1]
    assert len(waiting) == 5


def test_prefetched_tasks_come_after_every_worker_has_one():
    known = managers(2, 2)
    waiting = pending([task(n) for n in range(8)], prefetch=1)
    waiting.give_out(known, {})
    assert known["m0"].peer.sent == [0, 1, 4, 5]
    assert known["m1"].peer.sent == [2, 3, 6, 7]


def test_short_tasks_are_sent_many_at_a_time():
    known = managers(2)
    waiting = pending([task(n) for n in range(1000)])
    waiting.estimates[1] = 0.00001
    waiting.give_out(known, {})
    assert len(known["m0"].peer.sent) == 2 * UNITS


def test_a_held_or_draining_manager_gets_nothing():
    known = managers(2, 2)
    known["m0"].held = True
    known["m1"].draining = True
    waiting = pending([task(1)])
    waiting.give_out(known, {})
    assert len(waiting) == 1


def test_room_that_was_taken_is_free_after_the_answer():
    (manager,) = managers(4).values()
    waiting = pending([task(1, {"cores": 3, "memory": 700, "gpus": 2})])
    waiting.give_out({"m0": manager}, {})
    assert manager.free() == Room(1, 300, 1000, 0)
    assert manager.answered(1) is not None
    assert manager.answered(1) is None
    assert manager.free() == manager.total


GIB = 1073.741824


@given(st.data())
def test_a_manager_is_as_free_after_any_tasks_as_it_was_before(data):
    (manager,) = managers(10**9).values()
    for tid in range(data.draw(st.integers(0, 40))):
        amounts = st.sampled_from([GIB, 1.5 * GIB, 0.5 * GIB, 3 * GIB, 0.1, 0.7])
        manager.take(task(tid), UNITS, {"memory": data.draw(amounts), "disk": data.draw(amounts)})
    while manager.tasks:
        manager.answered(data.draw(st.sampled_from(sorted(manager.tasks))))
    assert manager.free() == manager.total


@pytest.mark.parametrize("count", range(1, 65))
def test_equal_shares_fill_a_manager_and_leave_room_for_a_task_that_asks_for_no_memory(count):
    (manager,) = managers(65).values()
    share = {"memory": 1000 / count}
    for tid in range(count):
        assert fits(manager.free(), share, 1)
        manager.take(task(tid), UNITS, share)
    assert not fits(manager.free(), share, 1)
    assert fits(manager.free(), {"cores": 1}, 1)


def test_a_task_gets_all_that_others_leave_though_nobody_counts_in_whole_megabytes():
    (manager,) = managers(4).values()
    for tid, memory in enumerate((0.1, 0.2, 999.4)):
        manager.take(task(tid), UNITS, {"memory": memory})
    assert fits(manager.free(), {"memory": 1000 - (0.1 + 0.2 + 999.4)}, 1)
    assert not fits(manager.free(), {"memory": 0.301}, 1)


def test_tasks_that_ask_for_the_same_cost_one_look_at_the_managers(monkeypatch):
    looks = []

    def look(*what):
        looks.append(what)
        return fits(*what)

    monkeypatch.setattr("flowcore_htex.matching.fits", look)
    known = managers(*[64] * 100)
    waiting = pending([task(tid, {"memory": 600}) for tid in range(1000)])
    waiting.give_out(known, {})
    assert all(len(manager.tasks) == 1 for manager in known.values())
    assert len(looks) < 600  # to find the room, to take it, to see that there is no more, to reserve a manager
    looks.clear()
    known["m7"].answered(known["m7"].peer.sent[0])
    waiting.give_out(known, {})
    assert len(known["m7"].tasks) == 1
    assert len(looks) < 600


def test_put_back_tasks_go_first():
    known = managers(1)
    waiting = pending([task(5)])
    waiting.put_back([task(2), task(3)])
    waiting.give_out(known, {})
    assert known["m0"].peer.sent == [2]


def test_put_back_tasks_go_before_all_others_that_ask_for_something_or_for_nothing():
    known = managers(1)
    first, second = task(7, {"cores": 1, "priority": 5}), task(8, {"cores": 1})
    waiting = pending([task(1), first, second, task(4, {"cores": 1, "priority": -9}), task(5)])
    for tid in (4, 7, 1, 5):
        waiting.give_out(known, {})
        assert known["m0"].peer.sent[-1] == tid
        known["m0"].answered(tid)
    again = [task(9, {"cores": 1, "priority": -9}), task(2), task(3), task(6, {"cores": 1, "priority": -99})]
    for one in (again[0], again[3]):
        waiting.add_special(one)
    waiting.add(again[1:3])
    waiting.put_back([task(4, {"cores": 1}), task(1), task(5), task(7, {"cores": 1})])  # as managers had them
    known["m0"].peer.sent.clear()
    for _ in range(9):
        waiting.give_out(known, {})
        for tid in list(known["m0"].tasks):
            known["m0"].answered(tid)
    assert known["m0"].peer.sent == [4, 7, 6, 9, 1, 5, 2, 3, 8]


def test_dropped_tasks_are_not_given_out():
    known = managers(9)
    waiting = pending([task(1), task(2), task(3, {"cores": 1}), task(4, {"cores": 1})])
    assert waiting.drop({1, 3, 99}) == {1, 3}
    waiting.give_out(known, {})
    assert sorted(known["m0"].peer.sent) == [2, 4]


@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=4),
    st.lists(
        st.none() | st.fixed_dictionaries({}, optional={"cores": st.integers(1, 6), "priority": st.integers(-3, 3)})
    ),
    st.randoms(use_true_random=False),
)
def test_every_task_that_fits_somewhere_runs_once_and_no_manager_is_overfull(workers, requests, random):
    known = managers(*workers)
    tasks = [task(n, need) for n, need in enumerate(requests)]
    waiting = pending(tasks)
    feasible = {
        one.tid for one, need in zip(tasks, requests, strict=True) if (need or {}).get("cores", 1) <= max(workers)
    }
    done = []
    while True:
        waiting.give_out(known, {})
        for manager in known.values():
            assert manager.used <= UNITS * manager.workers
        running = [(manager, tid) for manager in known.values() for tid in manager.tasks]
        if not running:
            break
        manager, tid = random.choice(running)
        manager.answered(tid)
        done.append(tid)
    assert sorted(done) == sorted(feasible)
    assert len(waiting) == len(tasks) - len(feasible)
