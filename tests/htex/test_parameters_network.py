"""Constructor parameters that say who connects to whom: addresses, ports, keys, heartbeats."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shlex
import signal
import socket
import stat
import sys
import time
from pathlib import Path

import pytest

from flowcore.errors import ConfigurationError
from flowcore.executors.errors import BadStateException, ExecutorError
from flowcore.providers import LocalProvider
from flowcore.testing import tasks
from flowcore.testing.gate import Gate
from flowcore_htex import wire
from flowcore_htex.client import Client
from flowcore_htex.errors import ManagerLost
from flowcore_htex.executor import HighThroughputExecutor
from flowcore_htex.launch import INTERCHANGE, MANAGER
from flowcore_htex.link import StreamLink
from flowcore_htex.log import Log
from flowcore_htex.probe import probe
from flowcore_htex.version import RELEASE
from nodes import OVER_LOOPBACK, OVER_TCP, Executors, free_ports, has_ipv6, listening, ports, process_with
from waiting import PATIENCE, eventually, until

needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


@pytest.fixture
def start(tmp_path):
    with Executors(tmp_path) as executors:
        yield executors.start


@pytest.fixture
def gate():
    with Gate(PATIENCE) as gate:
        yield gate


def interchange():
    """Return the process id of the interchange that this process has started."""
    return process_with("flowcore_htex.interchange")


def manager_log(executor):
    (path,) = Path(executor.logdir).glob("block-0/*/manager.log")
    return path.read_text()


def answers(executor, cert_dir=None, patience=PATIENCE):
    """Whether the interchange answers somebody who comes over TCP with these keys, or without."""
    settings = {"addresses": ["127.0.0.1"], "ports": sorted(ports(interchange())), "cert_dir": cert_dir}
    link = probe(settings, time.monotonic() + patience, Log(None, None))
    if link is not None:
        link.close()
    return link is not None


@pytest.fixture
def occupied():
    """A port that is taken."""
    family = socket.AF_INET6 if has_ipv6() else socket.AF_INET
    with socket.create_server(("", 0), family=family, dualstack_ipv6=has_ipv6()) as taken:
        yield taken.getsockname()[1]


# -- address


def test_address_that_is_no_address_and_names_no_host_is_refused():
    with pytest.raises(ConfigurationError, match=r"no-such-host\.invalid.*no host of that name"):
        HighThroughputExecutor(address="no-such-host.invalid")


def test_address_may_be_the_name_of_a_host(start):
    executor = start(address="localhost", launch_cmd=OVER_TCP)
    assert executor.submit(pow, {}, 2, 3).result(PATIENCE) == 8
    assert executor.options.address in {"127.0.0.1", "::1"}
    assert f"connected to tcp://{'[::1]' if has_ipv6() and executor.options.address == '::1' else '127.0.0.1'}:" in (
        manager_log(executor)
    )


@pytest.mark.parametrize("address", ["127.0.0.1", pytest.param("::1", marks=needs_ipv6)])
def test_address_is_where_managers_are_listened_for_and_go_to(start, address):
    executor = start(address=address, launch_cmd=OVER_TCP)
    assert executor.submit(pow, {}, 2, 3).result(PATIENCE) == 8
    ((where, port),) = listening(interchange())
    assert where == address
    assert f"connected to tcp://{f'[{address}]' if ':' in address else address}:{port}" in manager_log(executor)


def test_address_none_offers_all_addresses_of_this_host(start):
    executor = start(launch_cmd=OVER_TCP)
    assert executor.submit(pow, {}, 2, 3).result(PATIENCE) == 8
    ((where, _),) = listening(interchange())
    assert where in {"::", "0.0.0.0"}


def test_address_of_another_host_is_offered_and_all_interfaces_are_listened_on(start):
    executor = start(address="192.0.2.1", launch_cmd=f"{OVER_TCP} --addresses '[\"127.0.0.1\"]'")
    assert executor.submit(pow, {}, 2, 3).result(PATIENCE) == 8
    ((where, _),) = listening(interchange())
    assert where in {"::", "0.0.0.0"}


# -- the connection between the user's process and the interchange


@pytest.mark.parametrize("address", ["127.0.0.2", pytest.param("::1", marks=needs_ipv6)])
def test_loopback_address_is_where_the_interchange_is_reached(start, address):
    executor = start(loopback_address=address)
    assert executor.submit(pow, {}, 2, 3).result(PATIENCE) == 8
    assert [port for where, port in listening(interchange()) if where == address and 55000 <= port < 56000]


def test_loopback_address_by_default_is_not_listened_on_at_all(start):
    executor = start()
    assert executor.submit(pow, {}, 2, 3).result(PATIENCE) == 8
    assert not [port for port in ports(interchange()) if 55000 <= port < 56000]


def test_interchange_port_range_has_the_port_of_that_connection(start):
    low = free_ports(1)[0]
    executor = start(interchange_port_range=(low, low + 1))
    assert executor.submit(pow, {}, 2, 3).result(PATIENCE) == 8
    assert low in ports(interchange())


def test_interchange_port_range_without_a_free_port_is_an_error(start, occupied):
    with pytest.raises(ExecutorError, match=f"no port from {occupied} to {occupied} is free"):
        start(interchange_port_range=(occupied, occupied + 1))


# -- the ports of managers


def test_worker_ports_are_both_listened_on(start):
    pair = free_ports(2)
    executor = start(worker_ports=tuple(pair), launch_cmd=f"{OVER_TCP} --ports '[{pair[1]}]'")
    assert ports(interchange()) == set(pair)
    assert executor.submit(pow, {}, 2, 3).result(PATIENCE) == 8
    assert f":{pair[1]}" in manager_log(executor)


def test_worker_ports_that_are_taken_are_an_error(start, occupied):
    with pytest.raises(ExecutorError, match=f"port {occupied} cannot be listened on"):
        start(worker_ports=(free_ports(1)[0], occupied))


def test_worker_port_is_the_one_that_is_listened_on(start):
    (port,) = free_ports(1)
    executor = start(worker_port=port, launch_cmd=OVER_LOOPBACK)
    assert executor.submit(pow, {}, 2, 3).result(PATIENCE) == 8
    assert ports(interchange()) == {port}
    assert f":{port}" in manager_log(executor)


def test_worker_port_that_is_taken_is_an_error(start, occupied):
    with pytest.raises(ExecutorError, match=f"port {occupied} cannot be listened on"):
        start(worker_port=occupied)


def test_worker_port_range_has_the_port_that_is_listened_on(start):
    start(worker_port_range=(41000, 41100))
    (port,) = ports(interchange())
    assert 41000 <= port < 41100


def test_worker_port_range_without_a_free_port_is_an_error(start, occupied):
    with pytest.raises(ExecutorError, match=f"no port from {occupied} to {occupied} is free"):
        start(worker_port_range=(occupied, occupied + 1))


# -- how long to wait for whom


def manager_with(code, launch_cmd):
    """Return a `launch_cmd` whose managers are started by this code."""
    return launch_cmd.replace("{bare} flowcore_htex.manager", shlex.quote(code.replace("{", "{{").replace("}", "}}")))


def searching(seconds):
    """Return code that starts a manager: it may take long to find the first interchange, and so long to find another.

    Args:
        seconds: Python that may use `timeout`, what the manager itself would allow.
    """
    return f"""
import flowcore_htex.manager as module

def connect(self, handler, registration, timeout):
    return plain(self, handler, registration, {seconds} if self._reached else {PATIENCE})

plain, module.Upstream.connect = module.Upstream.connect, connect
module.main()
"""


def test_address_probe_timeout_is_when_a_manager_gives_up(start):
    tell = """
import sys, time
import flowcore_htex.manager
import flowcore_htex.probe as module

def told(settings, deadline, journal):
    sys.stderr.write(f"it has {deadline - time.monotonic()} s\\n")
    return probe(settings, deadline, journal)

probe, module.probe = module.probe, told
flowcore_htex.manager.main()
"""
    executor = start(
        address="127.0.0.1", address_probe_timeout=0.5, launch_cmd=f"{manager_with(tell, OVER_TCP)} --ports '[1]'"
    )
    with pytest.raises(BadStateException, match=r"no interchange answered at 127\.0\.0\.1(.|\n)*address=") as caught:
        executor.submit(pow, {}, 2, 3).result(PATIENCE)
    assert "ports [1]" in str(caught.value)
    (seconds,) = re.findall(r"it has (\S+) s", str(caught.value))
    assert float(seconds) <= 0.5


def test_address_probe_timeout_none_means_30_seconds(start):
    executor = start(address_probe_timeout=None)
    assert executor.submit(pow, {}, 2, 3).result(PATIENCE) == 8


@pytest.fixture
def start_with_late_successor(start, tmp_path, monkeypatch):
    """Start executors whose first interchange starts at once, and each later one when there is a file named "go"."""
    monkeypatch.setattr("flowcore_htex.broker._START", 2 * PATIENCE)
    first, second, go = (shlex.quote(str(tmp_path / name)) for name in ("first", "second", "go"))
    wait = f"for _ in $(seq 1200); do [ ! -e {go} ] || break; sleep 0.05; done"  # a minute: nobody tells it of the end
    words = f'mkdir {first} 2>/dev/null || {{ touch {second}; {wait}; }}; exec "$0" "$@"'
    return lambda **options: start(interchange_launch_cmd=["/bin/sh", "-c", words, *INTERCHANGE], **options)


@pytest.mark.slow
@pytest.mark.fault
def test_a_new_interchange_may_take_longer_to_answer_than_the_first(start_with_late_successor, tmp_path):
    executor = start_with_late_successor(
        address_probe_timeout=2, launch_cmd=manager_with(searching("timeout"), OVER_LOOPBACK)
    )
    begun, end = str(tmp_path / "begun"), str(tmp_path / "end")
    held = executor.submit(begin_and_wait, {}, begun, end)
    eventually(Path(begun).exists)
    eventually(executor.connected_managers)
    (manager,) = executor.connected_managers()
    (log,) = Path(executor.logdir).rglob("manager.log")
    os.kill(process_with("flowcore_htex.interchange"), signal.SIGKILL)
    until(lambda: "ended" in log.read_text(), 12)
    (tmp_path / "go").touch()
    eventually(lambda: [one["manager"] for one in executor.connected_managers()] == [manager["manager"]])
    Path(end).touch()
    assert held.result(PATIENCE)


@pytest.mark.slow
@pytest.mark.fault
def test_the_port_of_an_interchange_that_makes_its_own_is_kept_for_the_next(start_with_late_successor, tmp_path):
    (port,) = free_ports(1)
    executor = start_with_late_successor(worker_port=port)
    assert executor.submit(pow, {}, 2, 3).result(PATIENCE) == 8
    os.kill(interchange(), signal.SIGKILL)
    eventually((tmp_path / "second").exists)
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("", port))
    (tmp_path / "go").touch()
    assert executor.submit(pow, {}, 3, 3).result(PATIENCE) == 27
    assert port in ports(interchange())


def begin_and_wait(begun, end):
    """Make one file, and wait until there is another."""
    Path(begun).touch()
    while not Path(end).exists():
        time.sleep(0.01)
    return True


@pytest.mark.fault
def test_a_manager_that_finds_no_other_interchange_says_that_it_was_lost(start_with_late_successor, tmp_path):
    """No advice on addresses: this one was right."""
    executor = start_with_late_successor(launch_cmd=manager_with(searching("1"), OVER_LOOPBACK))
    assert executor.submit(pow, {}, 2, 3).result(PATIENCE) == 8
    (log,) = Path(executor.logdir).rglob("manager.log")
    os.kill(process_with("flowcore_htex.interchange"), signal.SIGKILL)
    eventually(lambda: "ended" in log.read_text())
    (tmp_path / "go").touch()
    assert "the interchange was lost, and no other has answered at" in log.read_text()
    assert "address=" not in log.read_text()


@contextlib.contextmanager
def pretended_manager(executor):
    """Register at the interchange, and provide the link to it and its socket."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(executor._settings["socket"])
        link = StreamLink(sock)
        link.send(wire.REGISTER, wire.pack_json(registration()))
        yield link, sock


@pytest.mark.fault
def test_heartbeat_threshold_is_the_silence_after_which_a_manager_is_lost(start, monkeypatch):
    monkeypatch.setattr(Client, "_patience", 10 * PATIENCE)  # it is not the interchange that is to be lost
    executor = start(heartbeat_period=0.5, heartbeat_threshold=2.5, launch_cmd="exec sleep 600")
    given = executor.submit(pow, {}, 2, 3)
    with pretended_manager(executor) as (link, sock):
        for kind in kinds(link, sock):
            if kind == wire.TASKS:
                break
            if kind == wire.REGISTER:  # it was given up before it had anything
                link.send(wire.REGISTER, wire.pack_json(registration()))
        with pytest.raises(ManagerLost, match=r"was silent for 2\.5 s"):
            given.result(PATIENCE)


def test_heartbeat_period_is_how_often_a_manager_is_told_that_the_interchange_lives(start):
    executor = start(heartbeat_period=0.1, launch_cmd="exec sleep 600")
    with pretended_manager(executor) as (link, sock):
        began = time.monotonic()
        assert heartbeats(link, sock, 3) == 3
        assert time.monotonic() - began < 60  # three default periods are 90


def test_heartbeat_period_is_how_often_a_manager_says_that_it_lives(start, tmp_path):
    path = tmp_path / "mine"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(PATIENCE)
        start(heartbeat_period=0.1, launch_cmd=f"{MANAGER} --socket {shlex.quote(str(path))}")
        sock, _ = listener.accept()
        with sock:
            began = time.monotonic()
            assert heartbeats(StreamLink(sock), sock, 3) == 3
            assert time.monotonic() - began < 60


def kinds(link, sock):
    """Yield the kinds of the messages that arrive."""
    while True:
        sock.settimeout(PATIENCE)
        sock.recv(1, socket.MSG_PEEK)
        sock.setblocking(False)
        yield from [kind for kind, _, _ in link.receive()]


def heartbeats(link, sock, count):
    """Receive until so many heartbeats have arrived."""
    beats = (kind for kind in kinds(link, sock) if kind == wire.HEARTBEAT)
    return sum(1 for _ in itertools.islice(beats, count))


def registration():
    """Return what a manager with one worker says first."""
    return {
        "manager": "pretended",
        "protocol": wire.VERSION,
        "release": RELEASE,
        "python": f"{sys.version_info[0]}.{sys.version_info[1]}",
        "byteorder": sys.byteorder,
        "hostname": "elsewhere",
        "pid": 1,
        "block_id": "0",
        "cores": 1,
        "memory": 1000,
        "disk": 1000,
        "gpus": 0,
        "worker_count": 1,
        "start": time.time(),
        "draining": False,
        "held": [],
    }


def test_poll_period_is_how_long_an_outcome_may_wait_for_others(start, gate):
    # a heartbeat would take along what waits
    executor = start(
        poll_period=600_000, heartbeat_period=600, heartbeat_threshold=1200, prefetch_capacity=4, max_workers=2
    )
    held = [executor.submit(tasks.hold, {}, gate.port)]
    gate.wait_for(1)
    with Gate(PATIENCE) as other_worker:
        executor.submit(tasks.hold, {}, other_worker.port)
        other_worker.wait_for(1)
        quick = executor.submit(pow, {}, 2, 3)
        held += [executor.submit(tasks.hold, {}, gate.port) for _ in range(3)]
        eventually(lambda: [manager["tasks"] for manager in executor.connected_managers()] == [6])
    gate.wait_for(1)
    assert not quick.done()  # every worker has a next task, two outcomes are few, and the manager may still wait
    gate.open()
    assert quick.result(PATIENCE) == 8
    for future in held:
        future.exception(PATIENCE)  # raises where one is never done


def test_poll_period_0_sends_each_outcome_at_once(start, gate):
    executor = start(poll_period=0, prefetch_capacity=3)
    quick, *_held = [executor.submit(pow, {}, 2, 3), *(executor.submit(tasks.hold, {}, gate.port) for _ in range(3))]
    gate.wait_for(1)
    assert quick.result(PATIENCE) == 8


# -- keys


def test_encrypted_by_default_turns_away_whoever_has_no_key(start):
    executor = start(encrypted=None)
    assert answers(executor, cert_dir=executor._settings["cert_dir"])
    assert not answers(executor, patience=1)


def test_encrypted_tasks_run_over_tcp(start):
    executor = start(encrypted=True, launch_cmd=OVER_LOOPBACK)
    assert executor.submit(pow, {}, 2, 3).result(PATIENCE) == 8


def test_encrypted_false_makes_no_keys_and_asks_for_none(start):
    executor = start(encrypted=False, launch_cmd=OVER_LOOPBACK)
    assert executor.submit(pow, {}, 2, 3).result(PATIENCE) == 8
    assert answers(executor)
    assert not list(Path(executor.logdir).rglob("*secret*"))


def test_encrypted_0_is_false():
    assert HighThroughputExecutor(encrypted=0).options.encrypted is False


def test_cert_dir_is_made_private_and_holds_the_keys(start, tmp_path):
    folder = tmp_path / "keys"
    executor = start(cert_dir=str(folder), launch_cmd=OVER_LOOPBACK)
    assert executor.submit(pow, {}, 2, 3).result(PATIENCE) == 8
    (own,) = folder.iterdir()
    assert {stat.S_IMODE(path.stat().st_mode) for path in (folder, own)} == {0o700}
    files = list(own.iterdir())
    assert {"server_secret", "client_secret"} <= {path.name for path in files}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert answers(executor, cert_dir=str(own))
    executor.shutdown()
    assert list(folder.iterdir()) == []


def test_executors_with_one_cert_dir_do_not_cut_off_each_other(start, tmp_path):
    options = {"cert_dir": tmp_path / "keys", "launch_cmd": OVER_LOOPBACK}
    first = start(label="first", provider=LocalProvider(max_blocks=2), **options)
    assert first.submit(pow, {}, 2, 3).result(PATIENCE) == 8
    second = start(label="second", **options)
    assert second.submit(pow, {}, 2, 3).result(PATIENCE) == 8
    (block,) = first.scale_out(1)
    eventually(lambda: block in {manager["block_id"] for manager in first.connected_managers()})


@pytest.mark.parametrize("mode", [0o755, 0o710, 0o701])
def test_cert_dir_that_others_can_enter_is_refused(start, tmp_path, mode):
    folder = tmp_path / "keys"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(ExecutorError, match=r"can be read by others(.|\n)*chmod 700"):
        start(cert_dir=folder)
    assert list(folder.iterdir()) == []


def test_cert_dir_that_is_private_already_is_used(start, tmp_path):
    folder = tmp_path / "keys"
    folder.mkdir(mode=0o700)
    executor = start(cert_dir=folder, launch_cmd=OVER_LOOPBACK)
    assert executor.submit(pow, {}, 2, 3).result(PATIENCE) == 8


def test_cert_dir_none_is_in_the_folder_of_the_run(start):
    executor = start()
    folder = Path(executor.logdir) / "certificates"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
