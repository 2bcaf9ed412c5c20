"""Large values: right on every way, writable, unharmed by whatever dies on the way, and nothing of them is left."""

from __future__ import annotations

import array
import contextlib
import fcntl
import json
import os
import re
import resource
import signal
import socket
import threading
from pathlib import Path

import numpy as np
import pytest

import htex_tasks as tasks
from flowcore import python_app
from flowcore.providers import LocalProvider
from flowcore.serialize.pickling import OUT_OF_BAND
from flowcore.testing.gate import Gate
from flowcore.testing.tasks import hold
from flowcore_htex import wire
from flowcore_htex.link import BlockingLink, LinkClosed
from flowcore_htex.parcels import LEAST
from htex_rig import Family, Script, executions, executors, outcomes, registration, runs, stopped
from waiting import PATIENCE, until

MB = 1 << 20

REMOTE = {
    "launch_cmd": "{python} -m flowcore_htex.manager --config {config} --block-id {block_id} --socket-host elsewhere",
    "address": "127.0.0.1",
}
"""A manager that takes itself to be on another host comes over TCP."""

TCP_CLIENT = {"interchange_port_range": (57000, 59000)}
WAYS = {
    "here": {},
    "manager elsewhere": REMOTE,
    "interchange elsewhere": TCP_CLIENT,
    "both elsewhere": {**REMOTE, **TCP_CLIENT},
}


@pytest.fixture
def start(tmp_path):
    with executors(tmp_path) as start:
        yield start


@pytest.fixture
def family():
    return Family()


@pytest.fixture(scope="class", params=WAYS.values(), ids=WAYS.keys())
def way(request, tmp_path_factory):
    """Provide an executor for each way that values may take."""
    with executors(tmp_path_factory.mktemp("runs")) as start:
        yield start(**request.param)


# -- values

SIZES = sorted(
    {0, 1, 3 * MB, 5_000_011}
    | {edge + step for edge in (wire.BIG, OUT_OF_BAND, LEAST, 2 * LEAST) for step in (-200, -1, 0, 1)}
)


ARRAYS = {
    "one-dimensional": lambda: np.arange(300_000, dtype=float),
    "Fortran's order": lambda: np.asfortranarray(np.arange(250_000.0).reshape(500, 500)),
    "not contiguous": lambda: np.arange(600_000)[::3],
    "a part": lambda: np.arange(1_000_000.0).reshape(1000, 1000)[100:900, 100:900],
    "empty": lambda: np.zeros((0, 5)),
    "at the threshold": lambda: np.zeros(LEAST, dtype=np.uint8),
    "below the threshold": lambda: np.zeros(OUT_OF_BAND - 1, dtype=np.uint8),
    "objects": lambda: np.array(["a", None, b"x" * 200_000], dtype=object),
    "structured": lambda: np.ones(50_000, dtype=[("a", "<i8"), ("b", "<f4")]),
    "one number": lambda: np.float64(2.5),
}


def fill(values, number):
    """Write to the argument, and return it."""
    values[:] = number
    return values


def complain(size):
    """Raise a large error."""
    raise ValueError("x" * size)


class TestOnEachWay:
    @pytest.mark.parametrize("size", SIZES)
    def test_bytes_of_any_size_come_back(self, way, size):
        data = os.urandom(size)
        values = [data, bytearray(data), {"key": [data, 5, data[::-1]]}, (data.hex(), data)]
        futures = [way.submit(tasks.echo, {}, value) for value in values]
        for value, came in zip(values, outcomes(futures), strict=True):
            assert type(came) is type(value)
            assert came == value

    @pytest.mark.parametrize("make", ARRAYS.values(), ids=ARRAYS.keys())
    def test_arrays_of_any_kind_come_back_equal_and_writable(self, way, make):
        sent = make()
        came = way.submit(tasks.echo, {}, sent).result(PATIENCE)
        assert (came.dtype, came.shape) == (sent.dtype, sent.shape)
        assert np.array_equal(came, sent)
        if came.shape:
            assert came.flags.writeable
            came[...] = np.zeros((), dtype=came.dtype)
            assert not np.any(came != np.zeros((), dtype=came.dtype))

    def test_many_buffers_in_one_value_come_back(self, way):
        rng = np.random.default_rng(3)
        arrays = {f"a{number}": rng.bytes(number * 1000) for number in range(300)}
        arrays |= {f"n{number}": rng.random(int(size)) for number, size in enumerate(rng.integers(0, 30_000, 300))}
        came = way.submit(tasks.echo, {}, arrays).result(PATIENCE)
        assert came.keys() == arrays.keys()
        assert all(np.array_equal(came[key], arrays[key]) for key in arrays)

    def test_a_task_may_write_to_its_arguments_and_the_caller_does_not_see_it(self, way):
        values = np.zeros(500_000)
        for number, came in enumerate(outcomes([way.submit(fill, {}, values, number) for number in range(8)])):
            assert np.array_equal(came, np.full(500_000, float(number)))
        assert not values.any()

    def test_what_cannot_be_written_to_stays_so(self, way):
        values = np.arange(500_000)
        values.flags.writeable = False
        assert not way.submit(tasks.echo, {}, values).result(PATIENCE).flags.writeable

    def test_large_errors_come_back(self, way):
        error = way.submit(complain, {}, MB).exception(PATIENCE)
        assert isinstance(error, ValueError)
        assert str(error) == "x" * MB

    def test_a_large_function_travels_with_its_arguments(self, way):
        large = os.urandom(MB)
        came = way.submit(lambda more: large + more, {}, b"more").result(PATIENCE)
        assert came == large + b"more"


@pytest.mark.parametrize("size", [3 * OUT_OF_BAND // 2, 2 * LEAST, MB], ids=["bytes", "parcels", "beyond the window"])
@pytest.mark.parametrize(
    ("end", "options"),
    [(signal.SIGCONT, {}), (signal.SIGCONT, TCP_CLIENT), (signal.SIGKILL, {})],
    ids=["late", "late over TCP", "sent again"],
)
def test_a_task_gets_its_arguments_as_they_were_when_it_was_submitted(start, family, size, end, options):
    executor = start(**options)
    executor.submit(pow, {}, 2, 2).result(PATIENCE)
    interchange = family.one("interchange")
    values = np.zeros(size, dtype=np.uint8)
    with stopped(interchange):
        futures = []
        for number in range(300):
            values[:] = number % 251
            futures.append(executor.submit(tasks.ends_of, {}, values))
        values[:] = 255
        os.kill(interchange, end)
        assert outcomes(futures) == [(number % 251, number % 251) for number in range(300)]


def test_results_outlive_the_executor(start):
    executor = start()
    came = executor.submit(tasks.echo, {}, np.arange(500_000)).result(PATIENCE)
    executor.shutdown()
    came += 1
    assert np.array_equal(came, np.arange(1, 500_001))


# -- descriptors and memory


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def parcels_of(pid):
    """Count the parcels that a process refers to, by descriptors and by mappings."""
    count = 0
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            count += "flowcore-parcel" in str(entry.readlink())
    return count + Path(f"/proc/{pid}/maps").read_text().count("flowcore-parcel")


def test_no_descriptor_and_no_memory_is_left_of_500_large_tasks(start, family):
    executor = start()
    with Gate(PATIENCE) as gate:
        both = [executor.submit(echo_and_hold, {}, bytes(LEAST), gate.port) for _ in range(2)]
        gate.wait_for(2)
    outcomes(both)
    everybody = [os.getpid(), *(pid for role in ("interchange", "manager", "zygote") for pid in family.pids(role))]
    everybody += family.pids("worker")
    assert len(everybody) == 6
    assert until(lambda: not any(parcels_of(pid) for pid in everybody))
    before = {pid: descriptors(pid) for pid in everybody}
    values = [os.urandom(300_000) for _ in range(10)]
    futures = [executor.submit(tasks.echo, {}, values[number % 10]) for number in range(500)]
    assert [values.index(came) for came in outcomes(futures)] == [number % 10 for number in range(500)]
    executor.submit(pow, {}, 2, 3).result(PATIENCE)
    assert until(lambda: not any(parcels_of(pid) for pid in everybody))
    assert until(lambda: all(descriptors(pid) <= before[pid] for pid in everybody))


def echo_and_hold(value, port):
    """Return the argument when the gate opens."""
    hold(port)
    return value


def test_results_that_are_kept_hold_no_descriptors(start):
    executor = start()
    executor.submit(tasks.echo, {}, np.zeros(LEAST)).result(PATIENCE)
    before = descriptors(os.getpid())
    kept = outcomes([executor.submit(tasks.echo, {}, np.full(LEAST, float(number))) for number in range(200)])
    assert until(lambda: descriptors(os.getpid()) <= before)
    assert [came[-1] for came in kept] == list(range(200))


def test_results_that_are_lost_for_want_of_a_descriptor_do_not_stop_those_that_follow(tmp_path):
    script = Script(
        tmp_path,
        """
import resource, uuid
from concurrent.futures import wait
from pathlib import Path
from flowcore.executors.base import RunContext

it = executor(heartbeat_period=30, heartbeat_threshold=120)
it.start(RunContext(run_id=str(uuid.uuid4()), run_dir=Path.cwd()))
it.submit(htex_tasks.zeros, {}, 1 << 20).result()
it.submit(pow, {}, 2, 2).result()  # now what came is closed
limit = resource.getrlimit(resource.RLIMIT_NOFILE)
free = os.dup(0)
os.close(free)
resource.setrlimit(resource.RLIMIT_NOFILE, (free, limit[1]))
lost, _ = wait([it.submit(htex_tasks.zeros, {}, 1 << 20) for _ in range(100)], 60)
resource.setrlimit(resource.RLIMIT_NOFILE, limit)
say(sum("no file descriptor was free" in str(future.exception()) for future in lost))
say(len(it.submit(htex_tasks.zeros, {}, 1 << 20).result(60)))
it.shutdown()
""",
    )
    try:
        assert script.line() == "100"
        assert script.line() == str(1 << 20)
        assert script.end()[0] == 0
    finally:
        assert not script.close()


def test_with_few_descriptors_large_tasks_end_all_the_same(tmp_path):
    script = Script(
        tmp_path,
        """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
flowcore.load(Config(executors=[executor(heartbeat_period=30, heartbeat_threshold=120)], exit_mode="cleanup"))
values = [bytes([number]) * 600_000 for number in range(250)]
futures = [python_app(htex_tasks.echo)(value) for value in values]
say(sum(future.result() == value for value, future in zip(values, futures)))
arrays = [memoryview(bytearray(value)) for value in values[:50]]
say(len(os.listdir("/proc/self/fd")) < 40)
""",
    )
    try:
        assert script.line() == "250"
        assert script.line() == "True"
        assert script.end()[0] == 0
    finally:
        left = script.close()
    assert left == {}


def test_where_files_must_be_small_large_values_go_all_the_same(tmp_path):
    """The limit on the size of files holds for memory files as well."""
    script = Script(
        tmp_path,
        """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
flowcore.load(Config(executors=[executor(heartbeat_period=30, heartbeat_threshold=120)], exit_mode="cleanup"))
value = os.urandom(5_000_000)
say(all(future.result() == value for future in [python_app(htex_tasks.echo)(value) for _ in range(10)]))
""",
    )
    try:
        assert script.line() == "True"
        assert script.end()[0] == 0
    finally:
        left = script.close()
    assert left == {}


def limit_memory(more):
    """Allow this worker so many bytes more."""
    with open("/proc/self/statm", encoding="ascii") as stream:
        used = int(stream.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + more, used + more))


def test_an_argument_for_which_there_is_no_memory_is_the_error_of_its_task(start, family):
    executor = start(max_workers=1)
    executor.submit(limit_memory, {}, 100 * MB).result(PATIENCE)
    worker = family.one("worker")
    large = executor.submit(tasks.size_of, {}, bytes(300 * MB))
    fits = executor.submit(tasks.size_of, {}, bytes(MB))
    assert re.search("the arguments of a task.*Cannot allocate memory", str(large.exception(PATIENCE)))
    assert fits.result(PATIENCE) == MB
    assert family.one("worker") == worker


@pytest.mark.slow
def test_results_that_nobody_takes_in_hold_the_workers_back(start, tmp_path):
    """Parcels fit into any socket: what the user's process has not taken in is counted all the same."""
    executor = start()
    log, gate = tmp_path / "begun", tmp_path / "gate"
    going = threading.Event()
    first = executor.submit(until, {}, Path(gate).exists)
    first.add_done_callback(lambda _: going.wait(10 * PATIENCE))  # in the thread that takes the results in
    gate.touch()
    try:
        futures = [executor.submit(marked_zeros, {}, str(log), number, 4 * MB) for number in range(200)]
        assert until(lambda: log.exists() and len(executions(log)) >= 16)
        count = 0
        while (now := settled(log, count)) != count:
            count = now
        assert count < 80  # 64 MB, and what was on its way
    finally:
        going.set()
    assert [len(came) for came in outcomes(futures)] == [4 * MB] * 200
    assert set(executions(log).values()) == {1}


def settled(log, count):
    """Wait for another line in a log, for a second at most; return how many there are."""
    until(lambda: len(executions(log)) != count, 1)
    return len(executions(log))


def marked_zeros(path, number, size):
    """Leave a trace, and return so many bytes."""
    tasks.mark(path, number)
    return bytes(size)


# -- losses


@pytest.fixture
def load(tmp_path):
    with runs(tmp_path) as load:
        yield load


def numbered(number):
    return np.full(200_000, float(number))


@pytest.mark.fault
def test_a_worker_that_dies_takes_no_other_large_task_with_it(start, tmp_path):
    executor = start()
    futures = [executor.submit(tasks.echo, {}, numbered(number)) for number in range(40)]
    deaths = [executor.submit(die_with, {}, numbered(number)) for number in range(5)]
    futures += [executor.submit(tasks.echo, {}, numbered(number)) for number in range(40, 80)]
    for number, came in enumerate(outcomes(futures)):
        assert np.array_equal(came, numbered(number))
    assert {type(error).__name__ for error in outcomes(deaths)} == {"WorkerLost"}


def die_with(values):
    """Kill the worker, with a large value in its hands."""
    assert len(values)
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.fault
@pytest.mark.slow
@pytest.mark.parametrize("role", ["interchange", "manager", "zygote"])
def test_large_tasks_survive_the_loss_of_any_process(load, family, role):
    load(provider=LocalProvider(min_blocks=1))  # there is a manager to kill even when all is done
    echo = python_app(tasks.echo)
    echo(1).result(PATIENCE)
    futures = [echo(numbered(number)) for number in range(150)]
    for number in (20, 80):
        futures[number].result(PATIENCE)
        family.kill(role)
    for number, future in enumerate(futures):
        assert np.array_equal(future.result(PATIENCE), numbered(number))


# -- strangers


def forged(size=LEAST, seals=fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE):
    descriptor = os.memfd_create("forged", os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, size)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


def hang_up_after(path, register, files):
    """Connect as a manager does, send a parcel with these files, and wait until the other side hangs up."""
    body = wire.pack_parcel(wire.BIG_RESULT, wire.pack_big_result(3, 0.0, wire.VALUE), [LEAST])
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        sock.settimeout(PATIENCE)
        link = BlockingLink(sock)
        with contextlib.suppress(OSError, LinkClosed):
            if register:
                link.send(wire.REGISTER, wire.pack_json(registration(manager=f"forger-{os.getpid()}")))
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))] if files else []
            sock.sendmsg([wire.prefix(wire.PARCEL, len(body), 0) + body], rights)
            while True:
                link.receive()
        for descriptor in files:
            os.close(descriptor)


@pytest.mark.fault
@pytest.mark.parametrize("register", [False, True], ids=["unknown", "registered"])
def test_who_sends_forged_parcels_is_dropped_alone(start, family, register):
    executor = start()
    futures = [executor.submit(tasks.nap, {}, 0.05, number) for number in range(40)]
    executor.submit(tasks.echo, {}, bytes(LEAST)).result(PATIENCE)
    pids = [family.one(role) for role in ("interchange", "manager")]
    before = descriptors(pids[0])
    path = json.loads((Path(executor.logdir) / "manager.json").read_text())["socket"]
    hang_up_after(path, register, [])
    hang_up_after(path, register, [forged(seals=0)])
    hang_up_after(path, register, [forged(LEAST // 2)])
    hang_up_after(path, register, [os.open("/dev/zero", os.O_RDWR)])
    if not register:
        hang_up_after(path, register, [forged() for _ in range(50)])
    assert outcomes(futures) == list(range(40))
    assert executor.submit(tasks.size_of, {}, bytes(3 * MB)).result(PATIENCE) == 3 * MB
    assert [family.one(role) for role in ("interchange", "manager")] == pids
    assert until(lambda: descriptors(pids[0]) <= before)
