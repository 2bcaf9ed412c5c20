"""Hosts in network namespaces: managers over TCP with CURVE, and what happens when the network is cut."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
import threading
import time

import pytest

import htex_tasks as tasks
from flowcore import python_app
from flowcore.providers import LocalProvider
from flowcore_htex.errors import ManagerLost
from htex_rig import HEARTBEATS, Family, executions, executors, outcomes, patient, runs
from waiting import PATIENCE, until

pytestmark = [
    pytest.mark.fault,
    pytest.mark.slow,
    pytest.mark.skipif(os.getuid() != 0, reason="network namespaces need root"),
    pytest.mark.skipif(
        any(shutil.which(word) is None for word in ("ip", "nsenter", "unshare", "hostname")),
        reason="network namespaces need iproute2 and util-linux",
    ),
]

NETWORK = "203.0.113"
"""Reserved for documentation (RFC 5737), so nobody's; each test takes sixteen of its addresses."""


def ip(*words, check=True):
    return subprocess.run(["ip", *words], check=check, capture_output=True, text=True)


class Hosts:
    """Two hosts of this machine with a network of their own: other names, other addresses, the same files."""

    def __init__(self, place):
        self.tag = f"fc{os.getpid()}"
        self.address = f"{NETWORK}.{16 * place + 1}"
        self._addresses = [f"{NETWORK}.{16 * place + 2 + number}" for number in range(2)]
        self.names = [f"{self.tag}n{number}" for number in range(2)]

    def make(self):
        ip("link", "add", self.tag, "type", "bridge")
        ip("addr", "add", f"{self.address}/28", "dev", self.tag)
        ip("link", "set", self.tag, "up")
        for name, address in zip(self.names, self._addresses, strict=True):
            ip("netns", "add", name)
            ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("link", "set", name, "master", self.tag, "up")
            ip("-n", name, "addr", "add", f"{address}/28", "dev", "eth0")
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "set", "eth0", "up")

    def remove(self):
        for name in self.names:
            ip("link", "del", name, check=False)
            ip("netns", "del", name, check=False)
        ip("link", "del", self.tag, check=False)

    @property
    def launch_cmd(self):
        """The template of a command that starts managers, of even blocks on one host, of odd ones on the other."""
        inner = f'hostname {self.tag}n$1; shift; exec "$@"'
        return (
            f"H=$(({{block_id}} % 2)); exec nsenter --net=/run/netns/{self.tag}n$H "
            f"unshare --uts sh -c '{inner}' host $H "
            "{python} -m flowcore_htex.manager --config {config} --block-id {block_id}"
        )

    def cut(self, name):
        """Let nothing reach a host, nor anything leave it, without anybody being told."""
        ip("link", "set", name, "down")

    def mend(self, name):
        ip("link", "set", name, "up")

    @contextlib.contextmanager
    def cut_off(self, name):
        self.cut(name)
        try:
            yield
        finally:
            self.mend(name)

    def run(self, name, *words):
        """Start a command on a host."""
        return subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{name}", *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )


@contextlib.contextmanager
def part_of_the_network():
    """Provide the number of a part that nobody uses, and keep others from using it."""
    if f" {NETWORK}.0/24" in ip("-4", "route").stdout:
        pytest.skip(f"{NETWORK}.0/24 is in use here")
    for place in range(16):
        with socket.socket(socket.AF_UNIX) as claim:  # an abstract name, which is free again when this process ends
            try:
                claim.bind(f"\0flowcore-test-network-{place}")
            except OSError:
                continue
            if f"{NETWORK}.{16 * place}/28" in ip("-4", "route").stdout:
                continue
            yield place
            return
    pytest.skip(f"all of {NETWORK}.0/24 is in use here")


@pytest.fixture
def hosts():
    with part_of_the_network() as place:
        hosts = Hosts(place)
        try:
            try:
                hosts.make()
            except subprocess.CalledProcessError as error:
                pytest.skip(f"no network namespaces here: {error.stderr}")
            yield hosts
        finally:
            hosts.remove()


def options(hosts, blocks=2, **more):
    provider = LocalProvider(init_blocks=blocks, max_blocks=blocks)
    return {
        "address": hosts.address,
        "launch_cmd": hosts.launch_cmd,
        "max_workers": 1,
        "provider": provider,
        **HEARTBEATS,
        **more,
    }


@pytest.fixture
def start(hosts, tmp_path):
    """Start an executor on both hosts, or on one, and wait until it has all its managers."""
    with executors(tmp_path) as start:

        def start_there(blocks=2, **more):
            executor = start(**options(hosts, blocks, **more))
            executor._client._threshold = PATIENCE
            assert until(lambda: len(executor.connected_managers()) == blocks)
            return executor

        yield start_there


@pytest.fixture
def load(hosts, tmp_path):
    with runs(tmp_path) as load:

        def load_there(blocks=2, **more):
            executor = load(**options(hosts, blocks, **more))
            executor._client._threshold = PATIENCE
            assert until(lambda: len(executor.connected_managers()) == blocks)
            return executor

        yield load_there


def on(executor, name):
    """Return the manager on a host."""
    (found,) = [one for one in executor.connected_managers() if one["hostname"] == name]
    return found


def test_managers_on_other_hosts_serve_over_tcp(start, hosts):
    executor = start(heartbeat_threshold=PATIENCE)
    futures = [executor.submit(tasks.echo, {}, bytes([number]) * 1_000_000) for number in range(20)]
    assert [future.result(PATIENCE) for future in futures] == [bytes([number]) * 1_000_000 for number in range(20)]
    names = outcomes([executor.submit(tasks.where, {}, 0.3) for _ in range(6)])
    assert set(names) == set(hosts.names)
    assert outcomes([executor.submit(pow, {}, number, 2) for number in range(500)]) == [n * n for n in range(500)]


@contextlib.contextmanager
def wire_tap(device, kept):
    """Keep what goes over a network device."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as tap:
        tap.bind((device, 0))
        over, ended = os.pipe()

        def listen():
            goes_on = True
            while goes_on:
                goes_on = over not in select.select([tap, over], [], [])[0]
                while select.select([tap], [], [], 0)[0]:
                    kept.append(tap.recv(65536))

        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        try:
            yield
        finally:
            os.close(ended)
            listener.join()
            os.close(over)


@pytest.mark.parametrize("encrypted", [True, False])
def test_what_goes_over_the_network_is_encrypted(start, hosts, encrypted):
    executor = start(blocks=1, encrypted=encrypted, heartbeat_threshold=PATIENCE)
    kept: list[bytes] = []
    word = "the word that nobody is to read"
    with wire_tap(hosts.tag, kept):
        assert executor.submit(tasks.echo, {}, word).result(PATIENCE) == word
    assert sum(map(len, kept)) > 100
    assert any(word.encode() in packet for packet in kept) is not encrypted


def test_a_host_that_is_cut_off_costs_its_tasks_and_comes_back(start, hosts, tmp_path):
    executor = start()
    lost_name, other_name = hosts.names
    interchange = Family().one("interchange")
    trace = tmp_path / "trace"
    futures = [executor.submit(tasks.mark, {}, str(trace), number, 1) for number in range(2)]
    assert until(lambda: trace.exists() and len(executions(trace)) == 2)
    with hosts.cut_off(lost_name):
        more = [executor.submit(tasks.mark, {}, str(trace), number, 0.05) for number in range(2, 20)]
        came = outcomes(futures + more)
        lost = [outcome for number, outcome in enumerate(came) if outcome != number]
        assert lost
        assert all(isinstance(error, ManagerLost) and error.hostname == lost_name for error in lost)
        assert all("silent" in str(error) for error in lost)
        assert [one["hostname"] for one in executor.connected_managers()] == [other_name]
    assert until(lambda: len(executor.connected_managers()) == 2)
    assert set(outcomes([executor.submit(socket.gethostname, {}) for _ in range(40)])) == set(hosts.names)
    assert max(executions(trace).values()) == 1
    assert Family().one("interchange") == interchange


def test_through_the_kernel_a_host_that_is_cut_off_costs_nothing_and_counts_once(load, hosts, tmp_path):
    executor = load()
    trace = tmp_path / "trace"
    mark = python_app(tasks.mark)
    futures = [mark(str(trace), number, 0.2) for number in range(40)]
    done = []
    for number, future in enumerate(futures):
        future.add_done_callback(lambda _, number=number: done.append(number))
    assert until(lambda: len(done) > 3)
    with hosts.cut_off(hosts.names[0]):
        assert outcomes(futures) == list(range(40))
    assert until(lambda: len(executor.connected_managers()) == 2)
    assert outcomes([mark(str(trace), number) for number in range(40, 60)]) == list(range(40, 60))
    assert sorted(done) == list(range(40))
    counts = executions(trace)
    assert all(counts[number] == 1 for number in range(40, 60))
    assert sum(counts[number] - 1 for number in range(40)) <= 4


def test_a_short_cut_costs_nothing(start, hosts, tmp_path):
    executor = start(heartbeat_threshold=PATIENCE)
    trace = tmp_path / "trace"
    futures = [executor.submit(tasks.mark, {}, str(trace), number, 0.1) for number in range(40)]
    futures[4].result(PATIENCE)
    over = time.monotonic() + 1.5
    for name in hosts.names:
        hosts.cut(name)
    until(lambda: time.monotonic() > over)
    for name in hosts.names:
        hosts.mend(name)
    assert outcomes(futures) == list(range(40))
    assert executions(trace) == dict.fromkeys(range(40), 1)


def test_a_host_that_loses_its_power_is_replaced(load, hosts):
    """Nothing is closed: the network is cut first, then all processes there are killed."""
    executor = load(blocks=1)
    nap = python_app(tasks.nap)
    futures = [nap(0.2, value=number) for number in range(20)]
    futures[2].result(PATIENCE)
    victim = on(executor, hosts.names[0])["pid"]
    with hosts.cut_off(hosts.names[0]):
        os.kill(victim, signal.SIGKILL)
        assert outcomes(futures) == list(range(20))
        assert [one["hostname"] for one in executor.connected_managers()] == [hosts.names[1]]


def test_a_host_that_stays_cut_off_is_replaced(load, hosts):
    executor = load(blocks=1)
    nap = python_app(tasks.nap)
    futures = [nap(0.1, value=number) for number in range(20)]
    futures[2].result(PATIENCE)
    with hosts.cut_off(hosts.names[0]):
        assert outcomes(futures) == list(range(20))
        assert on(executor, hosts.names[1])


def test_the_interchange_dies_while_a_host_is_cut_off(load, hosts, tmp_path):
    executor = load()
    trace = tmp_path / "trace"
    mark = python_app(tasks.mark)
    futures = [mark(str(trace), number, 0.1) for number in range(40)]
    futures[4].result(PATIENCE)
    with hosts.cut_off(hosts.names[0]):
        Family().kill("interchange")
        assert outcomes(futures) == list(range(40))
    assert until(lambda: len(executor.connected_managers()) == 2)


def test_an_interchange_killed_again_and_again_loses_nothing_over_tcp(load, hosts, tmp_path):
    patient(load(heartbeat_threshold=PATIENCE))
    trace = tmp_path / "trace"
    mark = python_app(tasks.mark)
    futures = [mark(str(trace), number, 0.01) for number in range(600)]
    for number in (50, 200, 350):
        futures[number].result(PATIENCE)
        Family().kill("interchange")
    assert outcomes(futures) == list(range(600))
    assert executions(trace) == dict.fromkeys(range(600), 1)


def test_half_open_connections_harm_nobody(start, hosts):
    executor = start(blocks=1, heartbeat_threshold=PATIENCE)
    (port,) = {
        int(line.split()[3].rpartition(":")[2])
        for line in subprocess.run(["ss", "-Htln"], capture_output=True, text=True, check=True).stdout.splitlines()
        if line.split()[3].startswith(f"{hosts.address}:")
    }
    code = (
        "import socket, sys; "
        f"held = [socket.create_connection(({hosts.address!r}, {port})) for _ in range(50)]; "
        "[one.sendall(bytes(3)) for one in held]; print('held', flush=True); sys.stdin.read()"
    )
    stranger = hosts.run(hosts.names[1], shutil.which("python3"), "-c", code)
    try:
        assert stranger.stdout.readline() == b"held\n"
        with hosts.cut_off(hosts.names[1]):
            stranger.kill()
            stranger.wait()
            futures = [executor.submit(pow, {}, number, 2) for number in range(200)]
            assert outcomes(futures) == [number * number for number in range(200)]
    finally:
        stranger.kill()
        stranger.communicate()
