"""Tasks that were sent ahead to a worker: called off in time, and taken back where the one before them is long."""

from __future__ import annotations

import builtins
import contextlib
import itertools
import random
import socket
import threading
import time
from functools import partial
from pathlib import Path

import pytest

import htex_tasks as tasks
from flowcore.serialize.pickling import dumps
from flowcore.testing.gate import Gate
from flowcore_htex import wire
from flowcore_htex.errors import WorkerLost
from flowcore_htex.link import BlockingLink
from flowcore_htex.recall import Recall
from flowcore_htex.slots import Slot
from flowcore_htex.worker import Worker
from htex_rig import Family, executions, executors, outcomes, stopped
from waiting import PATIENCE, until


@pytest.fixture
def start(tmp_path):
    with executors(tmp_path) as start:
        yield start


def brief(port=None, value=None):
    """Return at once, or when the gate opens: a short function that may turn out long."""
    if port is not None:
        from flowcore.testing.tasks import hold

        hold(port)
    return value


@contextlib.contextmanager
def kept(calls):
    """Keep functions where `call_kept` finds them, for a worker that is a thread of this process."""
    key = f"flowcore_test_{id(calls)}"
    setattr(builtins, key, calls)
    try:
        yield key
    finally:
        delattr(builtins, key)


def call_kept(key, name):
    """Call one of them; it can be pickled."""
    import builtins

    getattr(builtins, key)[name]()


def known_as_short(executor):
    outcomes([executor.submit(brief, {}) for _ in range(300)])
    return executor


def held(executor):
    """Return how many tasks the managers have."""
    return sum(manager["tasks"] for manager in executor.connected_managers())


def taken_back(executor):
    """Return how often the manager has said that it took tasks from a worker."""
    return sum(path.read_text().count("go elsewhere") for path in Path(executor.logdir).rglob("manager.log"))


# -- tasks that are called off


class Bench:
    """A worker in a thread of this process, and what its manager has of it."""

    def __init__(self):
        ours, self._theirs = socket.socketpair()
        self.link = BlockingLink(ours)
        ours.settimeout(PATIENCE)
        self._ours = ours
        self.cells = memoryview(bytearray(16)).cast("Q")
        self._thread = threading.Thread(target=Worker(self._theirs, self.cells).run, daemon=True)
        self._thread.start()
        self._calls_off = 0

    def send(self, *calls):
        """Send tasks: ids, and what to call."""
        self.link.send(wire.TASKS, wire.pack_tasks([(tid, 0, dumps((call, ((), {})))) for tid, call in calls]))

    def call_off(self, kind, *tids):
        self.link.send(kind, wire.pack_ids(list(tids)))
        self._calls_off += 1
        self.cells[1] = self._calls_off

    def answers(self, count):
        """Return the seconds that tasks took by their ids, and what came back, when there are so many.

        What came back is ids, each with the number of the message that it answers.
        """
        seconds, back = {}, []
        while len(seconds) + len(back) < count:
            for kind, head, _ in self.link.receive():
                if kind == wire.RESULTS:
                    seconds.update(zip(*wire.unpack_result_times(head), strict=True))
                else:
                    back += wire.unpack_refusals(head)
        return seconds, back

    def close(self):
        self._ours.close()
        self._thread.join(PATIENCE)
        self._theirs.close()


@pytest.fixture
def bench():
    bench = Bench()
    yield bench
    bench.close()


@pytest.mark.parametrize("kind", [wire.CANCEL, wire.RECALL])
def test_what_arrives_together_with_the_word_that_calls_it_off_is_not_begun(bench, kind):
    """All of it is read in one piece, when the task before has ended."""
    begun, go_on, ran = threading.Event(), threading.Event(), []
    calls = {"first": lambda: (begun.set(), go_on.wait(PATIENCE)), "second": lambda: ran.append(2), "third": ran.append}
    with kept(calls) as key:
        bench.send((1, partial(call_kept, key, "first")))
        assert begun.wait(PATIENCE)
        bench.send((2, partial(call_kept, key, "second")), (3, partial(call_kept, key, "third")))
        bench.call_off(kind, 3)
        go_on.set()
        seconds, back = bench.answers(3)
    assert ran == [2]
    if kind == wire.CANCEL:
        assert (sorted(seconds), seconds[3], back) == ([1, 2, 3], -1, [])
    else:
        assert (sorted(seconds), back) == ([1, 2], [(3, 1)])


def test_a_recalled_task_that_comes_again_is_run(bench):
    begun, go_on, ran = threading.Event(), threading.Event(), []
    with kept({"first": lambda: (begun.set(), go_on.wait(PATIENCE)), "second": lambda: ran.append(2)}) as key:
        bench.send((1, partial(call_kept, key, "first")))
        assert begun.wait(PATIENCE)
        bench.send((2, partial(call_kept, key, "second")))
        bench.call_off(wire.RECALL, 2)
        bench.send((2, partial(call_kept, key, "second")))
        go_on.set()
        seconds, back = bench.answers(3)
    assert (sorted(seconds), back, ran) == ([1, 2], [(2, 1)], [2])


def test_a_task_that_is_recalled_twice_is_not_run(bench):
    """All of it is read in one piece, when the task before has ended."""
    begun, go_on, ran = threading.Event(), threading.Event(), []
    with kept({"first": lambda: (begun.set(), go_on.wait(PATIENCE)), "second": lambda: ran.append(2)}) as key:
        bench.send((1, partial(call_kept, key, "first")))
        assert begun.wait(PATIENCE)
        for _ in range(2):
            bench.send((2, partial(call_kept, key, "second")))
            bench.call_off(wire.RECALL, 2)
        go_on.set()
        seconds, back = bench.answers(3)
    assert (sorted(seconds), back, ran) == ([1], [(2, 1), (2, 2)], [])


def test_news_of_an_earlier_recall_says_nothing_about_a_later_one():
    slot = Slot(0, "", {}, [], None)
    numbers, put_back = itertools.count(1), []
    cells = memoryview(bytearray(16)).cast("Q")

    def take(slot, tids):
        put_back.extend(tids)
        for tid in tids:
            slot.answered(tid)

    recall = Recall([slot], cells, lambda _slot, _tids: next(numbers), take)
    slot.connect().close()
    for tid in (1, 2):
        slot.take(wire.Task(tid, 0, b""), 1)
    cells[0] = 1
    recall.check(time.monotonic())
    recall.check(time.monotonic())
    assert put_back == [2]
    slot.take(wire.Task(2, 0, b""), 1)
    recall.check(time.monotonic())  # the worker is about to begin it when it is recalled again
    cells[0] = 2
    recall.returned(slot, [(2, 1)])
    recall.check(time.monotonic())
    assert (put_back, list(slot.tasks)) == ([2], [1, 2])
    recall.returned(slot, [(2, 2)])
    assert (put_back, list(slot.tasks)) == ([2, 2], [1])
    slot.close()


@pytest.mark.parametrize("first", ["recalled", "cancelled"])
def test_a_task_that_is_taken_back_and_cancelled_is_not_run(start, tmp_path, first):
    executor = start(max_workers=1)

    def round_of_marks(trace):
        """Cancel every other one of the tasks behind a long one; False where none of them had been sent ahead."""

        def leave_a_mark(number, port=None):
            tasks.mark(str(trace), number)
            return brief(port, number)

        outcomes([executor.submit(leave_a_mark, {}, 0) for _ in range(300)])
        before = taken_back(executor)
        with Gate(PATIENCE) as gate:
            long = executor.submit(leave_a_mark, {}, 1, gate.port)
            behind = [executor.submit(leave_a_mark, {}, number) for number in range(2, 8)]
            gate.wait_for(1)
            if first == "recalled":
                recalled = until(lambda: taken_back(executor) > before, within=2)
            assert all(future.cancel() for future in behind[::2])
            if first == "cancelled":
                recalled = until(lambda: taken_back(executor) > before, within=2)
            assert until(lambda: held(executor) <= 4)
        assert outcomes([long, *behind[1::2]]) == [1, 3, 5, 7]
        assert until(lambda: held(executor) == 0)
        assert {number: count for number, count in executions(trace).items() if number} == {1: 1, 3: 1, 5: 1, 7: 1}
        return recalled

    # on a busy machine a short task may take so long that nothing is sent ahead
    assert any(round_of_marks(tmp_path / f"trace-{number}") for number in range(20))


# -- what has ended before a long one


def test_outcomes_do_not_wait_for_a_task_that_turns_out_long(start, tmp_path):
    executor = known_as_short(start(max_workers=1))
    for _ in range(5):
        with Gate(PATIENCE) as gate:
            futures = [executor.submit(brief, {}, gate.port if number == 12 else None, number) for number in range(20)]
            assert outcomes(futures[:12]) == list(range(12))
            gate.wait_for(1)
            assert not futures[12].done()
        assert outcomes(futures) == list(range(20))


def test_what_was_not_begun_is_told_before_a_task_that_turns_out_long(bench):
    """It all arrives together: the second task is handed back, and the third waits for that."""
    begun, go_on, told = threading.Event(), threading.Event(), threading.Event()
    calls = {
        "first": lambda: (begun.set(), go_on.wait(PATIENCE)),
        "second": lambda: None,
        "third": lambda: told.wait(PATIENCE),
    }
    with kept(calls) as key:
        bench.send((1, partial(call_kept, key, "first")))
        assert begun.wait(PATIENCE)
        bench.send((2, partial(call_kept, key, "second")), (3, partial(call_kept, key, "third")))
        bench.call_off(wire.RECALL, 2)
        go_on.set()
        _, back = bench.answers(2)
        told.set()
        seconds, _ = bench.answers(1)
    assert (back, list(seconds)) == ([(2, 1)], [3])


def end_or_mark(trace, number, last):
    """Leave a mark; the last one waits until the others are known to have ended, and ends its worker."""
    import os

    tasks.mark(trace, number)
    if last is not None:
        from flowcore.testing.tasks import hold

        hold(last)
        os._exit(3)


def test_what_ended_before_the_task_that_ends_its_worker_is_not_run_again(start, tmp_path):
    executor = start(max_workers=1)
    trace = str(tmp_path / "trace")
    outcomes([executor.submit(end_or_mark, {}, trace, -1, None) for _ in range(300)])
    with Gate(PATIENCE) as gate:
        futures = [
            executor.submit(end_or_mark, {}, trace, number, gate.port if number == 12 else None) for number in range(20)
        ]
        assert outcomes(futures[:12]) == [None] * 12
        gate.wait_for(1)
    assert isinstance(futures[12].exception(PATIENCE), WorkerLost)
    assert outcomes(futures[13:]) == [None] * 7
    assert max(count for number, count in executions(trace).items() if number >= 0) == 1


# -- tasks behind a long one


def test_short_tasks_that_were_sent_with_a_long_one_go_to_another_worker(start):
    executor = start(max_workers=2)
    for _ in range(5):
        known_as_short(executor)
        with Gate(PATIENCE) as gate:
            long = executor.submit(brief, {}, gate.port, "long")
            short = [executor.submit(brief, {}, None, number) for number in range(200)]
            assert outcomes(short) == list(range(200))
            gate.wait_for(1)
            assert not long.done()
        assert long.result(PATIENCE) == "long"


def test_what_waits_behind_a_stopped_worker_goes_to_another(start):
    executor = known_as_short(start(max_workers=2))
    with stopped(Family().one("worker")):
        futures = [executor.submit(brief, {}, None, number) for number in range(100)]
        assert until(lambda: sum(future.done() for future in futures) >= 99)
    assert outcomes(futures) == list(range(100))


def test_with_one_worker_what_is_taken_back_runs_once_and_in_order(start, tmp_path):
    executor = start(max_workers=1)

    def round_of_marks(trace):
        """Let a task turn out long; False where nothing had been sent ahead behind it."""

        def leave_a_mark(number, port=None):
            tasks.mark(str(trace), number)
            return brief(port, number)

        outcomes([executor.submit(leave_a_mark, {}, -1) for _ in range(300)])
        before = taken_back(executor)
        with Gate(PATIENCE) as gate:
            futures = [
                executor.submit(leave_a_mark, {}, number, gate.port if number == 3 else None) for number in range(40)
            ]
            gate.wait_for(1)
            recalled = until(lambda: taken_back(executor) > before, within=2)
        assert outcomes(futures) == list(range(40))
        assert [int(line) for line in trace.read_text().split() if line != "-1"] == list(range(40))
        return recalled

    # on a busy machine a short task may take so long that nothing is sent ahead
    assert any(round_of_marks(tmp_path / f"trace-{number}") for number in range(20))


SLOW_TO_KILL = """
import os, time
import flowcore_htex.recall as recall
from flowcore_htex.manager import main
from flowcore_htex.nursery import Nursery

def dawdle(self, slot):
    open('{asked}', 'w').close()
    while not os.path.exists('{go}'):
        time.sleep(0.01)
    kill(self, slot)

kill, Nursery.kill = Nursery.kill, dawdle
recall._STUCK = 600
main()
"""


def test_what_waits_behind_a_task_that_is_cancelled_does_not_begin_before_the_worker_is_killed(start, tmp_path):
    asked, go, trace = tmp_path / "asked", tmp_path / "go", tmp_path / "trace"
    code = SLOW_TO_KILL.format(asked=asked, go=go)
    executor = start(max_workers=1, launch_cmd=f'{{python}} -c "{code}" --config {{config}} --block-id {{block_id}}')

    def leave_a_mark(number, port=None):
        tasks.mark(str(trace), number)
        return brief(port, number)

    outcomes([executor.submit(leave_a_mark, {}, -1) for _ in range(300)])
    with Gate(PATIENCE) as next_gate:
        with Gate(PATIENCE) as gate:
            ports = [gate.port, next_gate.port, None, None]
            futures = [executor.submit(leave_a_mark, {}, number, port) for number, port in enumerate(ports)]
            gate.wait_for(1)
            worker = Family().one("worker")
            assert futures[0].cancel()
            assert until(asked.exists)
        until(lambda: executions(trace)[1], within=0.5)
        go.touch()
        assert until(lambda: worker not in Family().pids("worker"))
        next_gate.wait_for(1)
    assert outcomes(futures[1:]) == [1, 2, 3]
    assert {number: count for number, count in executions(trace).items() if number >= 0} == {0: 1, 1: 1, 2: 1, 3: 1}


HASTY = (
    "import flowcore_htex.recall as r; r._STUCK = r.LATE = 0.0002; r._SEEN = {seen}; "
    "from flowcore_htex.manager import main; main()"
)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2, 5])
def test_no_task_is_lost_or_run_twice_when_tasks_are_taken_back_all_the_time(start, tmp_path, workers):
    code = HASTY.format(seen=0.0005)
    executor = start(
        max_workers=workers, launch_cmd=f'{{python}} -c "{code}" --config {{config}} --block-id {{block_id}}'
    )
    trace = tmp_path / "trace"
    outcomes([executor.submit(tasks.mark, {}, str(trace), number) for number in range(200)])
    choose = random.Random(workers)
    lengths = choose.choices([0, 0, 0, 0, 0.001, 0.003, 0.01], k=3000)
    futures = [executor.submit(tasks.mark, {}, str(trace), 200 + n, length) for n, length in enumerate(lengths)]
    cancelled = {number for number in choose.sample(range(1500, 3000), 300) if futures[number].cancel()}
    kept = [number for number in range(3000) if number not in cancelled]
    assert outcomes([futures[number] for number in kept]) == [200 + number for number in kept]
    counts = executions(trace)
    assert all(counts[200 + number] == 1 for number in kept)
    assert max(counts.values()) == 1
    assert until(lambda: held(executor) == 0)
