"""Constructor parameters that say which workers a node has, and what work they are given."""

from __future__ import annotations

import os
import sys
import textwrap

import pytest

from flowcore.errors import ConfigurationError
from flowcore.providers import LocalProvider
from flowcore.testing import tasks
from flowcore.testing.gate import Gate
from flowcore_htex.affinity import worker_cores
from flowcore_htex.executor import HighThroughputExecutor
from flowcore_htex.launch import INTERCHANGE
from flowcore_htex.matching import BlockIdManagerSelector, RandomManagerSelector
from nodes import ClusterProvider, Executors, node, process_with
from waiting import PATIENCE, eventually

CORES = sorted(os.sched_getaffinity(0))

needs_2_cores = pytest.mark.skipif(len(CORES) < 2, reason="this machine has one core")


@pytest.fixture
def start(tmp_path):
    with Executors(tmp_path) as executors:
        yield executors.start


@pytest.fixture
def gate():
    with Gate(PATIENCE) as gate:
        yield gate


def workers(executor):
    """Return how many workers the node has, which the executor, the manager and each worker have to agree on."""
    told = int(executor.submit(os.getenv, {}, "FLOWCORE_WORKER_COUNT").result(PATIENCE))
    assert executor.connected_managers()[0]["worker_count"] == executor.workers_per_node == told
    return told


# -- how many

SHARES = [(1, 4), (2, 2), (3, 1), (0.5, 8), (100, 1)]


@pytest.mark.parametrize(("share", "count"), SHARES)
def test_cores_per_worker_divides_the_node(start, share, count):
    executor = start(cores_per_worker=share, max_workers=float("inf"), provider=node(4))
    assert workers(executor) == count


@pytest.mark.parametrize("prefix", ["FLOWCORE", "PARSL"])
def test_cores_per_worker_divides_what_the_node_says_of_itself(start, monkeypatch, prefix):
    monkeypatch.delenv("FLOWCORE_CORES", raising=False)
    provider = ClusterProvider(worker_init=f"export {prefix}_CORES=3")
    executor = start(cores_per_worker=1, max_workers=float("inf"), provider=provider)
    assert workers(executor) == 3


@pytest.mark.parametrize(("share", "count"), [(250, 4), ("0.5GB", 2), ("1GB", 1), (3000, 1)])
def test_mem_per_worker_in_mb_or_with_a_unit_divides_the_node(start, share, count):
    executor = start(mem_per_worker=share, max_workers=float("inf"), provider=node(6, memory=1))
    assert workers(executor) == count


def test_mem_per_worker_4_is_refused_with_what_to_write():
    with pytest.raises(ConfigurationError, match="4 means 4 MB; write '4GB'"):
        HighThroughputExecutor(mem_per_worker=4)


def test_mem_per_worker_from_64_is_taken_at_its_word():
    assert HighThroughputExecutor(mem_per_worker=64).options.mem_per_worker == 64
    assert HighThroughputExecutor(mem_per_worker="4MB").options.mem_per_worker == 4


@pytest.mark.parametrize(("limit", "count"), [(3, 3), (3.0, 3), (9, 5), (float("inf"), 5)])
def test_max_workers_is_how_many_a_node_has_at_most(start, limit, count):
    executor = start(max_workers=limit, provider=node(5))
    assert workers(executor) == count


def test_max_workers_runs_as_many_tasks_at_once(start, gate):
    executor = start(max_workers=3, provider=node(5))
    futures = [executor.submit(tasks.hold, {}, gate.port) for _ in range(9)]
    gate.wait_for(3)
    assert executor.submit(pow, {}, 2, 3).cancel()
    assert not gate.arrived()
    for future in futures:
        future.cancel()


def test_max_workers_per_node_is_the_same(start):
    executor = start(max_workers=float("inf"), max_workers_per_node=3, provider=node(5))
    assert workers(executor) == 3


def test_max_workers_per_node_may_repeat_max_workers(start):
    executor = start(max_workers=2, max_workers_per_node=2, provider=node(5))
    assert workers(executor) == 2


# -- which cores

AFFINITIES = {
    "none": [[], [], []],
    "block": [[0, 1], [2, 3], [4, 5]],
    "block-reverse": [[5, 6], [3, 4], [1, 2]],
    "alternating": [[0, 3], [1, 4], [2, 5]],
    "list:0-1:4,6": [[0, 1], [4, 6], [0, 1]],
}


@pytest.mark.parametrize("strategy", AFFINITIES)
def test_cpu_affinity_shares_seven_cores_among_three_workers(strategy):
    assert [worker_cores(strategy, rank, 3, range(7)) for rank in range(3)] == AFFINITIES[strategy]


def look(port):
    """Wait until both workers are here, and return what this one sees."""
    tasks.hold(port)
    names = ("OMP_NUM_THREADS", "GOMP_CPU_AFFINITY", "KMP_AFFINITY")
    rank = int(os.environ["FLOWCORE_WORKER_RANK"])
    return rank, sorted(os.sched_getaffinity(0)), [os.environ.get(name) for name in names]


HALF = len(CORES) // 2
SEEN = {
    "none": [CORES, CORES],
    "block": [CORES[:HALF], CORES[HALF : 2 * HALF]],
    "block-reverse": [CORES[-HALF:], CORES[-2 * HALF : -HALF]],
    "alternating": [CORES[: 2 * HALF : 2], CORES[1 : 2 * HALF : 2]],
    f"list:{CORES[-1]}:{CORES[0]}": [CORES[-1:], CORES[:1]],
}


@needs_2_cores
@pytest.mark.parametrize("strategy", SEEN)
def test_cpu_affinity_is_what_a_task_sees(start, gate, monkeypatch, strategy):
    for name in ("OMP_NUM_THREADS", "GOMP_CPU_AFFINITY", "KMP_AFFINITY"):
        monkeypatch.delenv(name, raising=False)
    executor = start(max_workers=2, cpu_affinity=strategy)
    futures = [executor.submit(look, {}, gate.port) for _ in range(2)]
    gate.wait_for(2)
    gate.open()
    seen = sorted(future.result(PATIENCE) for future in futures)
    assert [cores for _, cores, _ in seen] == SEEN[strategy]
    for _, cores, variables in seen:
        if strategy == "none":
            assert variables == [None, None, None]
        else:
            listed = ",".join(map(str, cores))
            assert variables == [str(len(cores)), " ".join(map(str, cores)), f"explicit,proclist=[{listed}]"]


def test_cpu_affinity_to_a_core_that_is_not_there_is_an_error_that_says_so(start):
    executor = start(cpu_affinity="list:4000")
    with pytest.raises(Exception, match="4000"):
        executor.submit(pow, {}, 2, 3).result(PATIENCE)


# -- which accelerators

VARIABLES = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK", "ZE_ENABLE_PCI_ID_DEVICE_ORDER")


def visible(port):
    """Wait until all workers are here, and return what this one is told of accelerators."""
    tasks.hold(port)
    return [os.environ.get(name) for name in VARIABLES]


@pytest.mark.parametrize(
    ("given", "names"), [(2, ["0", "1"]), (["GPU-a", "GPU-b", "GPU-c"], ["GPU-a", "GPU-b", "GPU-c"])]
)
def test_available_accelerators_are_one_for_each_worker_and_cap_their_number(start, gate, given, names):
    executor = start(available_accelerators=given, max_workers=float("inf"), provider=node(8))
    assert workers(executor) == len(names)
    futures = [executor.submit(visible, {}, gate.port) for _ in names]
    gate.wait_for(len(names))
    gate.open()
    assert sorted(future.result(PATIENCE) for future in futures) == [[name, name, name, "1"] for name in names]


@pytest.mark.parametrize("none", [0, (), []])
def test_available_accelerators_none_says_nothing_to_the_tasks(start, monkeypatch, none):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "as it was")
    executor = start(available_accelerators=none)
    assert executor.submit(os.getenv, {}, "CUDA_VISIBLE_DEVICES").result(PATIENCE) == "as it was"


# -- who gets what, and when no more


@pytest.mark.parametrize(("ahead", "held"), [(0, 2), (3, 8)])
def test_prefetch_capacity_is_how_many_more_per_worker_a_manager_holds(start, gate, ahead, held):
    executor = start(prefetch_capacity=ahead, max_workers=2, provider=node(2))
    for _ in range(20):
        executor.submit(tasks.hold, {}, gate.port)
    gate.wait_for(2)
    eventually(lambda: [manager["tasks"] for manager in executor.connected_managers()] == [held])
    assert [manager["tasks"] for manager in executor.connected_managers()] == [held]  # now all 20 are known there
    assert executor.outstanding() == 20


def test_drain_period_ends_a_manager_after_the_task_it_has(start, gate):
    executor = start(drain_period=0.3)
    held = executor.submit(tasks.hold, {}, gate.port)
    gate.wait_for(1)
    eventually(lambda: any(manager["draining"] for manager in executor.connected_managers()))
    assert not executor.connected_managers()[0]["active"]
    later = executor.submit(os.getenv, {}, "FLOWCORE_WORKER_BLOCK_ID")
    assert not held.done()
    gate.open()
    assert held.result(PATIENCE)
    assert later.result(PATIENCE) != "0"  # another block, since the first one took no more


def test_drain_period_none_never_drains(start):
    executor = start(drain_period=None)
    assert executor.submit(pow, {}, 2, 3).result(PATIENCE) == 8
    assert not executor.connected_managers()[0]["draining"]


def blocks_used(executor, count):
    """Run tasks one after the other, and return the blocks that ran them."""
    eventually(lambda: len(executor.connected_managers()) == 3)
    return [executor.submit(os.getenv, {}, "FLOWCORE_BLOCK_ID").result(PATIENCE) for _ in range(count)]


def three_blocks():
    return LocalProvider(init_blocks=3, max_blocks=3)


def test_manager_selector_by_block_fills_the_oldest_first(start):
    executor = start(manager_selector=BlockIdManagerSelector(), provider=three_blocks())
    assert set(blocks_used(executor, 30)) == {"0"}


@pytest.mark.parametrize("selector", [None, RandomManagerSelector()])
def test_manager_selector_by_chance_is_the_default(start, selector):
    executor = start(manager_selector=selector, provider=three_blocks())
    assert set(blocks_used(executor, 100)) == {"0", "1", "2"}  # it fails once in 10**17 times


def test_manager_selector_of_the_users_decides(start):
    class NewestFirst:
        def sort_managers(self, ready, names):
            return sorted(names, key=lambda name: ready[name]["block_id"], reverse=True)

    executor = start(manager_selector=NewestFirst(), provider=three_blocks())
    assert set(blocks_used(executor, 30)) == {"2"}


def test_manager_selector_may_come_from_a_module_beside_the_script(start, tmp_path, monkeypatch):
    (tmp_path / "choosing_managers.py").write_text(
        textwrap.dedent("""
        class SecondFirst:
            def sort_managers(self, ready, names):
                return sorted(names, key=lambda name: ready[name]["block_id"] != "1")
        """)
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir("/")
    import choosing_managers

    try:
        executor = start(manager_selector=choosing_managers.SecondFirst(), provider=three_blocks())
        assert set(blocks_used(executor, 30)) == {"1"}
    finally:
        del sys.modules["choosing_managers"]


def test_manager_selector_may_print_as_much_as_it_likes(start):
    namespace = {}
    exec(
        "class Chatty:\n    def sort_managers(self, ready, names):\n        print('x' * 40_000, flush=True)", namespace
    )
    executor = start(
        manager_selector=namespace["Chatty"](),
        interchange_launch_cmd=list(INTERCHANGE),  # it says on its standard output where it is
        provider=LocalProvider(init_blocks=2, max_blocks=2),
    )
    eventually(lambda: len(executor.connected_managers()) == 2)
    assert [executor.submit(pow, {}, n, 2).result(PATIENCE) for n in range(5)] == [0, 1, 4, 9, 16]


@pytest.mark.parametrize("order", ["raise ValueError('no order today')", "return ['nobody']", "return None"])
def test_manager_selector_that_fails_does_not_end_the_interchange(start, order):
    namespace = {}
    exec(f"class Broken:\n    def sort_managers(self, ready, names):\n        {order}", namespace)
    executor = start(manager_selector=namespace["Broken"](), provider=LocalProvider(init_blocks=2, max_blocks=2))
    eventually(lambda: len(executor.connected_managers()) == 2)
    pid = process_with("flowcore_htex.interchange")
    assert [executor.submit(pow, {}, n, 2).result(PATIENCE) for n in range(5)] == [0, 1, 4, 9, 16]
    assert process_with("flowcore_htex.interchange") == pid
