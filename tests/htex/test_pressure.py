"""Many tasks, large values and slow consumers: memory stays bounded, nobody starves, every result is right."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import CancelledError

import numpy as np
import pytest

import htex_tasks as tasks
from flowcore import python_app
from flowcore.testing.gate import Gate
from flowcore.testing.tasks import hold
from htex_rig import HEARTBEATS, Family, as_busy_as_plain_workers, executors, memory, outcomes, runs
from waiting import PATIENCE, until

pytestmark = pytest.mark.slow

MB = 1 << 20

ROOMY_HEARTBEATS = {"heartbeat_period": 0.5, "heartbeat_threshold": 30}
"""A process that a busy machine leaves without a core for some seconds is not lost."""


@pytest.fixture
def start(tmp_path):
    with executors(tmp_path) as start:
        yield start


@pytest.fixture
def load(tmp_path):
    with runs(tmp_path) as load:
        yield load


@pytest.fixture
def family():
    return Family()


@pytest.fixture
def gate():
    with Gate(PATIENCE) as gate:
        yield gate


def occupy(executor, gate):
    """Hold both workers until the gate opens: what is submitted meanwhile waits."""
    for _ in range(2):
        executor.submit(hold, {}, gate.port)
    gate.wait_for(2)


class Gauge:
    """Watches the memory of processes while a test runs; `peak` is what each has used at most, in MB."""

    def __init__(self, **pids):
        self.peak = {}
        self._pids = pids
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        while not self._over.wait(0.02):
            for name, pid in self._pids.items():
                self.peak[name] = max(self.peak.get(name, 0), memory(pid))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()


def all_of(family):
    return {role: family.one(role) for role in ("interchange", "manager")}


# -- many tasks


def test_200000_pending_tasks_cost_little_memory(start, family, gate):
    executor = start()
    occupy(executor, gate)
    before = memory(family.root)
    with Gauge(**all_of(family)) as gauge:
        futures = [executor.submit(tasks.nap, {}, 0.001, number) for number in range(200_000)]
        used = memory(family.root) - before
        assert used / len(futures) * 1e6 < 2200  # bytes each, the futures that the test keeps included
        assert executor.outstanding() == 200_002
        gate.open()
        for future in futures[10_000:]:
            future.cancel()
        assert outcomes(futures[:10_000]) == list(range(10_000))
    assert gauge.peak["interchange"] < 120
    assert gauge.peak["manager"] < 80
    assert until(lambda: executor.outstanding() == 0)


def test_half_of_5000_tasks_are_cancelled_and_the_others_are_right(start, gate):
    executor = start()
    occupy(executor, gate)
    futures = [executor.submit(tasks.nap, {}, 0.0005, number) for number in range(5000)]
    chosen = random.Random(3).sample(range(5000), 2500)
    assert all(futures[number].cancel() for number in chosen[:1250])
    gate.open()  # the others are cancelled while all of them run
    cancelled = {*chosen[:1250], *(number for number in chosen[1250:] if futures[number].cancel())}
    for number, future in enumerate(futures):
        if number in cancelled:
            assert future.cancelled()
            with pytest.raises(CancelledError):
                future.result(0)
        else:
            assert future.result(PATIENCE) == number
    assert outcomes([executor.submit(pow, {}, number, 2) for number in range(100)]) == [n * n for n in range(100)]
    assert until(lambda: executor.outstanding() == 0)  # one of those that held the workers may end last


def test_running_tasks_are_cancelled_in_storms(start):
    executor = start()
    for _ in range(5):
        futures = [executor.submit(tasks.nap, {}, 0.01, number) for number in range(60)]
        futures[3].result(PATIENCE)
        cancelled = [number for number in range(60) if number % 3 and futures[number].cancel()]
        assert outcomes([futures[number] for number in range(60) if number not in cancelled]) == [
            number for number in range(60) if number not in cancelled
        ]
    assert outcomes([executor.submit(pow, {}, number, 2) for number in range(100)]) == [n * n for n in range(100)]


def test_eight_threads_submit_and_each_gets_its_own_results(start):
    executor = start()
    found = {}

    def work(name):
        futures = [executor.submit(tasks.echo, {}, (name, number)) for number in range(1500)]
        found[name] = [future.result(PATIENCE) for future in futures]

    threads = [threading.Thread(target=work, args=(name,), daemon=True) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert found == {name: [(name, number) for number in range(1500)] for name in range(8)}


# -- large values


def test_a_megabyte_goes_200_times_there_and_back(start):
    executor = start()
    values = [bytes([number]) * MB for number in range(200)]
    futures = [executor.submit(tasks.echo, {}, value) for value in values]
    for value, future in zip(values, futures, strict=True):
        assert future.result(PATIENCE) == value


def test_arrays_go_out_of_band_and_come_back_equal(start):
    executor = start()
    arrays = [np.arange(250_000, dtype=float) * number for number in range(12)]
    arrays += [
        np.asfortranarray(np.ones((300, 400))),
        arrays[3][::7],
        np.zeros((0, 5)),
        np.array(["a", None], dtype=object),
    ]
    for sent, future in [(array, executor.submit(tasks.echo, {}, array)) for array in arrays]:
        came = future.result(PATIENCE)
        assert (came.dtype, came.shape) == (sent.dtype, sent.shape)
        assert np.array_equal(came, sent)


def test_an_array_that_came_back_may_be_written_to(start):
    executor = start()
    came = executor.submit(tasks.echo, {}, np.zeros(100_000)).result(PATIENCE)
    came[:] = 1
    assert came.sum() == 100_000


def test_huge_results_starve_no_heartbeat(start, family):
    executor = start(**ROOMY_HEARTBEATS)
    executor.submit(pow, {}, 1, 1).result(PATIENCE)
    before = [family.one(role) for role in ("interchange", "manager")]
    futures = [executor.submit(tasks.zeros, {}, 200 * MB)] + [
        executor.submit(tasks.zeros, {}, 8 * MB) for _ in range(60)
    ]
    small = [executor.submit(pow, {}, number, 2) for number in range(200)]
    assert len(futures[0].result(PATIENCE)) == 200 * MB
    for future in futures[1:]:
        assert len(future.result(PATIENCE)) == 8 * MB
    assert outcomes(small) == [number * number for number in range(200)]
    assert [family.one(role) for role in ("interchange", "manager")] == before


def test_large_arguments_do_not_pile_up_in_the_interchange(start, family):
    executor = start()
    executor.submit(pow, {}, 1, 1).result(PATIENCE)
    values = [bytes([number]) * (4 * MB) for number in range(8)]
    with Gauge(**all_of(family)) as gauge:
        futures = [executor.submit(tasks.nap, {}, 0.005, 0)] + [
            executor.submit(tasks.size_of, {}, values[number % 8]) for number in range(300)
        ]
        assert outcomes(futures)[1:] == [4 * MB] * 300
    assert gauge.peak["interchange"] < 600, gauge.peak  # 1,200 MB were sent
    assert gauge.peak["manager"] < 300, gauge.peak


def test_a_slow_consumer_holds_the_workers_back_and_loses_nothing(start, family):
    """The thread that hands results on is held up for longer than the heartbeats' threshold."""
    executor = start(**HEARTBEATS)
    executor.submit(pow, {}, 1, 1).result(PATIENCE)
    before = [family.one(role) for role in ("interchange", "manager")]
    wait = HEARTBEATS["heartbeat_threshold"] + 1
    with Gauge(**all_of(family)) as gauge:
        first = executor.submit(tasks.nap, {}, 0)
        first.add_done_callback(lambda _: time.sleep(wait))  # what a user's callback may do
        futures = [executor.submit(tasks.zeros, {}, 4 * MB) for _ in range(100)]
        sizes = []
        for future in futures:
            future.add_done_callback(lambda done: sizes.append(len(done.result())))
        assert until(lambda: len(sizes) == 100)
    assert sizes == [4 * MB] * 100
    assert [family.one(role) for role in ("interchange", "manager")] == before
    assert gauge.peak["interchange"] < 400, gauge.peak
    assert gauge.peak["manager"] < 400, gauge.peak


def test_large_values_both_ways_with_a_slow_consumer(start, family):
    executor = start(**ROOMY_HEARTBEATS)
    value = bytes(2 * MB)
    seen = []

    def slowly(done):
        time.sleep(0.02)
        seen.append(len(done.result()))

    for _ in range(150):
        executor.submit(tasks.echo, {}, value).add_done_callback(slowly)
    assert until(lambda: len(seen) == 150)
    assert seen == [2 * MB] * 150


@pytest.mark.fault
def test_large_values_survive_the_loss_of_the_interchange(start, family):
    executor = start()
    values = [bytes([number % 256]) * MB for number in range(120)]
    futures = [executor.submit(tasks.echo, {}, value) for value in values]
    for number in (10, 60):
        futures[number].result(PATIENCE)
        family.kill("interchange")
    for value, future in zip(values, futures, strict=True):
        assert future.result(PATIENCE) == value


# -- long and short


def test_short_tasks_do_not_wait_behind_long_ones(start):
    executor = start()
    outcomes([executor.submit(tasks.nap, {}, 0.001) for _ in range(200)])  # now it is known as a short function
    long = executor.submit(tasks.nap, {}, 600, "long")
    short = [executor.submit(tasks.nap, {}, 0.001, number) for number in range(500)]
    assert outcomes(short) == list(range(500))
    assert not long.done()
    assert long.cancel()


@pytest.mark.performance
def test_two_workers_stay_busy_with_tasks_of_100_ms(load):
    load(max_workers=2)
    nap = python_app(tasks.nap)
    outcomes([nap(0) for _ in range(10)])

    def run(lengths):
        assert outcomes([nap(length, value=length) for length in lengths]) == lengths

    assert as_busy_as_plain_workers(run, [0.1] * 60, 2, 0.9) > 0.9


@pytest.mark.performance
def test_long_and_short_tasks_together_keep_both_workers_busy(load):
    load(max_workers=2)
    nap = python_app(tasks.nap)
    outcomes([nap(0.001) for _ in range(50)])
    lengths = random.Random(5).sample([0.1] * 30 + [0.002] * 500, 530)

    def run(lengths):
        assert outcomes([nap(length, value=length) for length in lengths]) == lengths

    assert as_busy_as_plain_workers(run, lengths, 2, 0.75) > 0.75
