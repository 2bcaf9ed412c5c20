"""Requests of tasks: packed on nodes, assigned by id, enforced by killing, refused where no node can meet them."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import wait
from itertools import pairwise
from pathlib import Path

import pytest

from flowcore.errors import InvalidResourceSpecification
from flowcore.providers import LocalProvider
from flowcore.testing import tasks
from flowcore.testing.gate import Gate
from flowcore_htex import client, wire
from flowcore_htex.link import StreamLink
from nodes import ClusterProvider, Executors, node
from waiting import PATIENCE, eventually


@pytest.fixture
def start(tmp_path, monkeypatch):
    monkeypatch.setattr(client, "_ANSWER", PATIENCE)  # who has asked the interchange knows what it has been sent
    with Executors(tmp_path) as executors:
        yield lambda **options: executors.start(**{"max_workers": float("inf"), **options})


@pytest.fixture
def gate():
    with Gate(PATIENCE) as gate:
        yield gate


def metered(path, amount, seconds=0.05):
    """Note in a file when the task begins and when it ends, with what it takes."""
    with Path(path).open("ab", buffering=0) as meter:
        meter.write(f"{amount}\n".encode())
        time.sleep(seconds)
        meter.write(f"-{amount}\n".encode())


def levels(path):
    """Return how much was in use after each line of the meter."""
    level, found = 0.0, []
    for line in Path(path).read_text().split():
        level += float(line)
        found.append(level)
    assert found[-1] == pytest.approx(0)
    return found


# -- packing


@pytest.mark.parametrize(
    ("key", "amounts", "size"),
    [
        ("cores", [3, 1, 2, 4, 1, 1, 2, 3, 1, 2], 4),
        ("memory", [600, 400, 300, 1000, 200, 500, 700, 100], 1000),
    ],
)
def test_no_node_is_given_more_than_it_has(start, tmp_path, key, amounts, size):
    executor = start(provider=node(cores=4, memory=1))
    path = tmp_path / "meter"
    futures = [executor.submit(metered, {key: amount}, str(path), amount) for amount in amounts]
    for future in futures:
        assert future.result(PATIENCE) is None
    assert max(levels(path)) <= size


@pytest.mark.parametrize(("demand", "count"), [({"cores": 1}, 4), ({"cores": 2}, 2), ({"memory": "400MB"}, 2), ({}, 4)])
def test_a_node_runs_as_many_tasks_as_fit(start, gate, demand, count):
    executor = start(provider=node(cores=4, memory=1))
    futures = [executor.submit(tasks.hold, demand, gate.port) for _ in range(6)]
    gate.wait_for(count)
    assert executor.connected_managers()[0]["tasks"] == count
    assert not gate.arrived()
    for future in futures:
        future.cancel()


def test_a_task_of_several_cores_leaves_the_rest_to_others(start, gate):
    executor = start(provider=node(cores=4))
    large = executor.submit(tasks.hold, {"cores": 3}, gate.port)
    gate.wait_for(1)
    small = [executor.submit(tasks.hold, {}, gate.port) for _ in range(2)]
    gate.wait_for(1)
    executor.connected_managers()
    assert not gate.arrived()
    gate.open()
    assert large.result(PATIENCE)
    wait(small, PATIENCE)


def test_half_a_core_takes_a_worker_of_half_a_core(start, gate):
    executor = start(provider=node(cores=2), cores_per_worker=0.5)
    futures = [executor.submit(tasks.hold, {"cores": 0.5}, gate.port) for _ in range(5)]
    gate.wait_for(4)
    assert not gate.arrived()
    for future in futures:
        future.cancel()


def test_tasks_go_to_the_node_that_has_room(start, gate):
    executor = start(provider=LocalProvider(cores_per_node=2, init_blocks=2, max_blocks=2))
    eventually(lambda: len(executor.connected_managers()) == 2)
    small = executor.submit(tasks.hold, {"cores": 1}, gate.port)
    gate.wait_for(1)
    large = executor.submit(tasks.hold, {"cores": 2}, gate.port)
    gate.wait_for(1)
    gate.open()
    assert small.result(PATIENCE)
    assert large.result(PATIENCE)


def test_disk_is_shared_like_memory(start, gate):
    executor = start(provider=ClusterProvider(cores_per_node=4))
    eventually(executor.connected_managers)
    room = executor.connected_managers()[0]["disk"]
    futures = [executor.submit(tasks.hold, {"disk": 0.4 * room}, gate.port) for _ in range(4)]
    gate.wait_for(2)
    assert executor.connected_managers()[0]["tasks"] == 2
    assert not gate.arrived()
    for future in futures:
        future.cancel()


# -- accelerators


def use_gpus(folder, seconds=0.02):
    """Take each visible accelerator by making a file that must not be there."""
    names = os.environ["CUDA_VISIBLE_DEVICES"].split(",")
    for name in names:
        os.close(os.open(f"{folder}/{name}", os.O_CREAT | os.O_EXCL))
    time.sleep(seconds)
    for name in names:
        Path(folder, name).unlink()
    return names


def take_gpus(executor, folder, wanted):
    futures = [executor.submit(use_gpus, {"gpus": count}, str(folder)) for count in wanted]
    given = [future.result(PATIENCE) for future in futures]
    assert [len(names) for names in given] == wanted
    assert {name for names in given for name in names} <= {"0", "1", "2", "3"}


WANTED = [1, 1, 2, 4, 1, 3, 1, 2, 2, 1, 1, 4, 1]


def test_an_accelerator_bound_to_a_worker_is_never_shared(start, tmp_path):
    take_gpus(start(available_accelerators=4, provider=node(cores=8)), tmp_path, WANTED)


def test_an_accelerator_that_a_node_finds_is_never_shared(start, tmp_path):
    # the node's manager is started with a Python that sees four devices in /dev
    (tmp_path / "sitecustomize.py").write_text(
        "import os\n"
        "found = os.listdir\n"
        "os.listdir = lambda path='.': found(path) + ([f'nvidia{n}' for n in range(4)] if path == '/dev' else [])\n"
    )
    executor = start(provider=ClusterProvider(cores_per_node=6, worker_init=f"export PYTHONPATH={tmp_path}"))
    (tmp_path / "taken").mkdir()
    take_gpus(executor, tmp_path / "taken", WANTED)


# -- priority


def test_lower_numbers_run_first_then_the_older_and_none_last(start, gate, tmp_path):
    executor = start(max_workers=1)
    path = tmp_path / "order"
    first = executor.submit(tasks.hold, {}, gate.port)
    gate.wait_for(1)
    priorities = [5, None, 1, 5, None, 0, -2.5, 1]
    futures = []
    for number, priority in enumerate(priorities):
        demand = {} if priority is None else {"priority": priority}
        futures.append(executor.submit(note, demand, str(path), number))
    assert executor.connected_managers()  # asks the interchange, which by then has the tasks that were sent before
    gate.open()
    assert first.result(PATIENCE)
    wait(futures, PATIENCE)
    assert [int(line) for line in path.read_text().split()] == [6, 5, 2, 7, 0, 3, 1, 4]


def test_a_question_does_not_overtake_the_tasks_that_were_submitted_before(start, gate, monkeypatch):
    executor = start(max_workers=1)
    first = executor.submit(tasks.hold, {}, gate.port)
    gate.wait_for(1)
    sent = []
    queue = StreamLink.queue
    monkeypatch.setattr(StreamLink, "queue", lambda link, kind, *rest: (sent.append(kind), queue(link, kind, *rest)))
    monkeypatch.setattr(client, "_PAUSE", PATIENCE)  # nothing is sent as it is submitted
    with monkeypatch.context() as asleep:
        write, wake = os.eventfd_write, executor._client._wake
        asleep.setattr(os, "eventfd_write", lambda to, number: None if to == wake else write(to, number))
        futures = [executor.submit(pow, {}, 2, number) for number in range(3)]
    assert executor.connected_managers()
    assert sent.index(wire.TASKS) < sent.index(wire.ASK)
    gate.open()
    assert first.result(PATIENCE)
    assert [future.result(PATIENCE) for future in futures] == [1, 2, 4]


def note(path, number):
    with Path(path).open("a", encoding="utf-8") as stream:
        stream.write(f"{number}\n")


def test_priority_counts_among_tasks_that_ask_for_more(start, gate, tmp_path):
    executor = start(provider=node(cores=2))
    path = tmp_path / "order"
    first = executor.submit(tasks.hold, {"cores": 2}, gate.port)
    gate.wait_for(1)
    futures = [executor.submit(note, {"cores": 2, "priority": priority}, str(path), priority) for priority in (3, 1, 2)]
    assert executor.connected_managers()  # asks the interchange, which by then has the tasks that were sent before
    gate.open()
    assert first.result(PATIENCE)
    wait(futures, PATIENCE)
    assert path.read_text().split() == ["1", "2", "3"]


def test_a_task_may_ask_for_all_of_a_node_whose_size_is_a_fraction(start):
    executor = start(provider=node(memory=2.01))  # 2009.9999999999998 MB, and '2.01GB' is 2010
    assert executor.submit(pow, {"memory": "2.01GB"}, 2, 3).result(PATIENCE) == 8


# -- what can never be

NEVER = [
    ({"cores": 5}, "cores", r"cores=5 is asked for, a node has 4"),
    ({"memory": "2GB"}, "memory", r"memory=2000 MB is asked for, a node has 1000 MB"),
    ({"gpus": 1}, "gpus", r"gpus=1 is asked for, a node has 0"),
    ({"disk": "900PB"}, "disk", r"disk=9e\+11 MB is asked for, a node has"),
]


@pytest.mark.parametrize("provider", [LocalProvider, ClusterProvider])
@pytest.mark.parametrize(("demand", "key", "words"), NEVER, ids=[key for _, key, _ in NEVER])
def test_a_request_that_no_node_can_meet_fails_at_once_by_name(start, provider, demand, key, words):
    executor = start(provider=provider(cores_per_node=4, mem_per_node=1))
    eventually(executor.connected_managers)
    with pytest.raises(InvalidResourceSpecification, match=words) as caught:
        executor.submit(pow, demand, 2, 3).result(PATIENCE)
    assert list(caught.value.invalid_keys) == [key]
    assert executor.submit(pow, {}, 2, 3).result(PATIENCE) == 8


def test_a_request_that_the_first_node_cannot_meet_fails_when_that_is_known(start):
    executor = start(provider=ClusterProvider(cores_per_node=4))
    with pytest.raises(InvalidResourceSpecification, match="cores=5 is asked for"):
        executor.submit(pow, {"cores": 5}, 2, 3).result(PATIENCE)


def test_a_request_that_a_block_not_yet_started_may_meet_waits(start):
    sizes = 'n=$(mktemp -p "$PWD" block.XXXX); export FLOWCORE_CORES=$((2 * $(ls block.* | wc -l)))'
    executor = start(provider=ClusterProvider(init_blocks=1, max_blocks=2, worker_init=sizes))
    eventually(executor.connected_managers)
    large = executor.submit(os.getenv, {"cores": 4}, "FLOWCORE_WORKER_COUNT")
    executor.connected_managers()
    assert not large.done()
    executor.scale_out(1)
    assert large.result(PATIENCE) == "4"


def test_a_key_that_no_htex_honours_is_refused_with_those_it_does(start):
    executor = start()
    keys = "cores, disk, gpus, memory, priority, running_time_min, walltime"
    with pytest.raises(InvalidResourceSpecification, match=keys) as caught:
        executor.submit(pow, {"cores": 1, "num_nodes": 2}, 2, 3)
    assert list(caught.value.invalid_keys) == ["num_nodes"]


# -- fairness


@pytest.mark.parametrize("small", [{}, {"cores": 1}], ids=["tasks without a request", "tasks of one core"])
def test_a_large_request_does_not_starve_behind_small_ones(start, small):
    executor = start(provider=node(cores=2))
    stop, ended = threading.Event(), threading.Semaphore(0)
    count = 4

    def again(_future):
        if stop.is_set():
            ended.release()
        else:
            executor.submit(time.sleep, small, 0.02).add_done_callback(again)

    for _ in range(count):
        executor.submit(time.sleep, small, 0.02).add_done_callback(again)
    try:
        large = executor.submit(pow, {"cores": 2}, 2, 3)
        assert large.result(PATIENCE) == 8
    finally:
        stop.set()
        for _ in range(count):
            assert ended.acquire(timeout=PATIENCE)


def test_small_requests_do_not_starve_behind_large_ones(start):
    executor = start(provider=node(cores=2))
    stop, ended = threading.Event(), threading.Semaphore(0)

    def again(_future):
        if stop.is_set():
            ended.release()
        else:
            executor.submit(time.sleep, {"cores": 2}, 0.02).add_done_callback(again)

    for _ in range(3):
        executor.submit(time.sleep, {"cores": 2}, 0.02).add_done_callback(again)
    try:
        assert executor.submit(pow, {}, 2, 3).result(PATIENCE) == 8
        assert executor.submit(pow, {"cores": 1}, 2, 3).result(PATIENCE) == 8
    finally:
        stop.set()
        for _ in range(3):
            assert ended.acquire(timeout=PATIENCE)


def test_tasks_with_equal_requests_run_in_the_order_of_their_submission(start, tmp_path):
    executor = start(provider=node(cores=2))
    path = tmp_path / "order"
    futures = [executor.submit(note, {"cores": 2}, str(path), number) for number in range(20)]
    wait(futures, PATIENCE)
    order = [int(line) for line in path.read_text().split()]
    assert all(first < second for first, second in pairwise(order))
    assert len(order) == 20
