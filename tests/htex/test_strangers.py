"""Strangers at every socket of a run: they are turned away, nothing of theirs is unpickled, and the run goes on."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import pickle
import random
import re
import socket
import stat
import struct
import sys
import threading
import time
from pathlib import Path

import pytest
import zmq

import htex_tasks as tasks
from flowcore_htex import wire
from flowcore_htex.curve import public_key, read_keys, z85_encode
from flowcore_htex.link import BlockingLink, LinkClosed
from flowcore_htex.version import RELEASE
from htex_rig import Family, Script, executors, memory, outcomes, registration
from waiting import PATIENCE, until

pytestmark = pytest.mark.fault

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00"


def greeting(mechanism):
    """Return what a ZMTP 3.0 peer says first."""
    return GREETING + mechanism.ljust(20, b"\0") + bytes(32)


class Evil:
    """Leaves a file where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def evidence(tmp_path):
    """Provide the path that a pickle would make when it is loaded; it must not be there in the end."""
    path = tmp_path / "unpickled"
    yield path
    assert not path.exists()


@pytest.fixture
def start(tmp_path):
    with executors(tmp_path) as start:
        yield start


@pytest.fixture(params=["inherited sockets", "sockets of its own"])
def target(request, start):
    """Provide a run under attack; its processes, memory and tasks are looked at in the end."""
    options = {} if request.param == "inherited sockets" else {"interchange_port_range": (56000, 58000)}
    yield from guarded(start(**options))


@pytest.fixture
def plain_target(start):
    """Provide the same, of the usual kind only."""
    yield from guarded(start())


def guarded(executor):
    run = Target(executor)
    futures = [executor.submit(tasks.nap, {}, 0.01, number) for number in range(200)]
    yield run
    assert outcomes(futures) == list(range(200))
    run.check()


class Target:
    """A run, with what an attacker may know of it."""

    def __init__(self, executor):
        self.executor = executor
        self.settings = json.loads((Path(executor.logdir) / "manager.json").read_text())
        assert executor.submit(pow, {}, 2, 5).result(PATIENCE) == 32
        self.family = Family()
        assert until(lambda: len(self.family.pids("worker")) >= executor.options.max_workers, PATIENCE)
        self.before = self._state()
        self.memory = memory(self.family.one("interchange"))

    def _state(self):
        return [self.family.pids(role) for role in ("interchange", "manager", "worker")]

    def check(self):
        """See that the run has come to no harm."""
        numbers = [self.executor.submit(pow, {}, number, 2) for number in range(50)]
        assert outcomes(numbers) == [number * number for number in range(50)]
        assert self._state() == self.before
        assert until(lambda: len(self.executor.connected_managers()) == 1)
        assert memory(self.family.one("interchange")) < self.memory + 150

    def keys(self):
        return read_keys(self.settings["cert_dir"])

    def doors(self):
        """Return the addresses of all sockets at which processes of the run listen, this process included."""
        return [*self.tcp_ports(), *self.unix_paths()]

    def tcp_ports(self):
        mine = self._inodes()
        found = set()
        for name in ("tcp", "tcp6"):
            for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and fields[9] in mine:
                    found.add(int(fields[1].rpartition(":")[2], 16))
        return sorted(found)

    def unix_paths(self):
        mine = self._inodes()
        lines = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
        return sorted({line[7] for line in lines if len(line) > 7 and line[3] == "00010000" and line[6] in mine})

    def _inodes(self):
        found = set()
        for pid in [os.getpid(), *itertools.chain(*self._state())]:
            for entry in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    found.update(re.findall(r"^socket:\[(\d+)\]$", str(entry.readlink())))
        return found


def knock(door):
    """Connect to a door."""
    if isinstance(door, int):
        return socket.create_connection(("127.0.0.1", door), timeout=10)
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(10)
    try:
        sock.connect(door)
    except OSError:
        sock.close()
        raise
    return sock


def throw(door, data):
    """Send bytes to a door, and see what it does; it may well hang up."""
    with contextlib.suppress(OSError), knock(door) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        sock.settimeout(0.2)
        while sock.recv(65536):
            pass


def message(kind, head=b"", buffers=()):
    sizes = b"".join(struct.pack("<Q", len(buffer)) for buffer in buffers)
    return wire.prefix(kind, len(head), len(buffers)) + sizes + head + b"".join(buffers)


def outcomes_with(blob):
    """Return messages that claim to be the outcomes of the first tasks."""
    tids = list(range(1, 300))
    statuses = bytearray([wire.VALUE]) * len(tids)
    return [
        (wire.RESULTS, wire.pack_results(tids, [0.0] * len(tids), statuses, [blob] * len(tids)), []),
        (
            wire.RESULTS,
            wire.pack_results(tids, [0.0] * len(tids), bytearray([wire.ERROR]) * len(tids), [blob] * len(tids)),
            [],
        ),
        (wire.BIG_RESULT, wire.pack_big_result(5, 0.0, wire.VALUE), [blob]),
        (wire.LOST, wire.pack_json({"tids": tids, "error": "ManagerLost", "manager": "x", "host": "x"}), []),
    ]


def garbage(evidence):
    """Return what strangers may send."""
    noise = random.Random(7)
    evil = pickle.dumps(Evil(evidence))
    huge = struct.pack("<2sBBIQ", wire.MAGIC, wire.VERSION, wire.BIG_RESULT, 3, 0) + struct.pack("<3Q", *[2**28] * 3)
    ready = b"\x04\x29\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER\x08Identity\x00\x00\x00\x00"
    framed = message(*outcomes_with(evil)[2])
    return {
        "noise": noise.randbytes(100_000),
        "little noise": noise.randbytes(7),
        "nothing": b"",
        "zeros": bytes(100_000),
        "text": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "a pickle": evil,
        "the start of a message": wire.prefix(wire.TASKS, 1000, 0) + b"x",
        "a message cut short": wire.prefix(wire.TASKS, 1000, 0)[:9],
        "another protocol version": struct.pack("<2sBBIQ", wire.MAGIC, 99, wire.REGISTER, 0, 0),
        "an oversized head": struct.pack("<2sBBIQ", wire.MAGIC, wire.VERSION, wire.REGISTER, 0, 2**60),
        "a large head": struct.pack("<2sBBIQ", wire.MAGIC, wire.VERSION, wire.REGISTER, 0, 2**30) + bytes(100_000),
        "oversized buffers": huge + bytes(100_000),
        "messages of managers to nobody": b"".join(message(kind) for kind in range(30)),
        "ZMTP, half a greeting": greeting(b"CURVE")[:20],
        "ZMTP, NULL": greeting(b"NULL") + ready + b"\x00" + bytes([len(framed) % 256]) + framed,
        "ZMTP, PLAIN": greeting(b"PLAIN") + b"\x04\x0b\x05HELLO\x01a\x01b",
        "ZMTP, CURVE and noise": greeting(b"CURVE") + b"\x04\xc8" + noise.randbytes(200),
        "ZMTP, an oversized command": greeting(b"CURVE") + b"\x06" + struct.pack(">Q", 2**40) + bytes(1000),
        "ZMTP, a large message before the handshake": greeting(b"CURVE")
        + b"\x02"
        + struct.pack(">Q", 2**33)
        + bytes(1000),
    }


# -- strangers


def test_garbage_at_every_door_harms_nobody(target, evidence):
    doors = target.doors()
    assert len(target.unix_paths()) >= 1
    assert len(target.tcp_ports()) >= 1
    for _ in range(2):
        for data in garbage(evidence).values():
            for door in doors:
                throw(door, data)


def test_a_flood_of_connections_harms_nobody(target):
    held = []
    try:
        for door in target.doors():
            for _ in range(150):
                held.append(knock(door))
                if len(held) % 3 == 0:
                    held[-1].sendall(b"f")
        target.check()
    finally:
        for sock in held:
            sock.close()


def test_strangers_cannot_keep_managers_out(tmp_path):
    """The interchange runs out of descriptors, drops who says nothing, and burns no time meanwhile."""
    script = Script(
        tmp_path,
        """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
one = executor(heartbeat_threshold=120)
flowcore.load(Config(executors=[one], exit_mode="cleanup", strategy_period=0.5, lost_retries=5))
nap(0).result()
say(one.logdir)
while not os.path.exists("flooded"):
    time.sleep(0.01)
say(nap(0, value="served").result())
while not os.path.exists("killed"):
    time.sleep(0.01)
say(nap(0, value="served again").result())
""",
    )
    held = []
    try:
        settings = json.loads((Path(script.line()) / "manager.json").read_text())
        interchange = script.family.one("interchange")
        for _ in range(200):
            sock = socket.socket(socket.AF_UNIX)
            held.append(sock)
            sock.connect(settings["socket"])
        (tmp_path / "flooded").touch()
        assert script.line() == "served"
        began = time.monotonic()
        before = cpu_seconds(interchange)
        until(lambda: time.monotonic() - began > 1)
        used = cpu_seconds(interchange) - before
        assert used < 0.4 * (time.monotonic() - began)
        script.family.kill("manager")
        (tmp_path / "killed").touch()
        assert script.line() == "served again"
        assert script.end()[0] == 0
    finally:
        for sock in held:
            sock.close()
        left = script.close()
    assert left == {}


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def dealer(port, keys=None, server=None, kind=zmq.DEALER):
    """Provide a ZeroMQ socket that is connected to a port; `keys` are public and secret, `server` is the public one."""
    context = zmq.Context()
    sock = context.socket(kind)
    sock.setsockopt(zmq.LINGER, 0)
    sock.setsockopt(zmq.SNDTIMEO, 1000 * PATIENCE)
    if keys is not None:
        sock.curve_publickey, sock.curve_secretkey = keys
        sock.curve_serverkey = server
    try:
        sock.connect(f"tcp://127.0.0.1:{port}")
        yield sock
    finally:
        sock.close()
        context.term()


def frames(kind, head=b"", buffers=()):
    return [wire.prefix(kind, len(head), len(buffers)) + head, *buffers]


def fresh_keys():
    secret = os.urandom(32)
    return z85_encode(public_key(secret)), z85_encode(secret)


@pytest.mark.parametrize("credentials", ["none", "wrong client", "wrong server", "server public only"])
def test_without_the_keys_nobody_is_heard(target, evidence, credentials):
    evil = pickle.dumps(Evil(evidence))
    keys = target.keys()
    choices = {
        "none": (None, None),
        "wrong client": (fresh_keys(), keys.server_public),
        "wrong server": ((keys.client_public, keys.client_secret), fresh_keys()[0]),
        "server public only": ((keys.client_public, fresh_keys()[1]), keys.server_public),
    }
    for port in target.tcp_ports():
        for kind in (zmq.DEALER, zmq.PAIR):
            with dealer(port, *choices[credentials], kind=kind) as sock:
                said = [(wire.PROBE,), (wire.REGISTER, wire.pack_json(registration())), *outcomes_with(evil)]
                for one in [*said, (wire.END,)]:
                    with contextlib.suppress(zmq.Again):  # a PAIR whose peer has turned it away has nowhere to send to
                        sock.send_multipart(frames(*one), zmq.NOBLOCK)
                assert sock.poll(300) == 0


def test_with_the_keys_one_is_heard(plain_target):
    """What the test before relies on: the same messages do arrive where the keys are right."""
    keys = plain_target.keys()
    (port,) = plain_target.tcp_ports()
    with dealer(port, (keys.client_public, keys.client_secret), keys.server_public) as sock:
        sock.send_multipart(frames(wire.PROBE))
        assert sock.poll(1000 * PATIENCE)
        assert wire.parse_prefix(sock.recv_multipart()[0])[0] == wire.PROBE
        sock.send_multipart(frames(wire.REGISTER, wire.pack_json(registration())))
        assert until(lambda: "77" in [one["block_id"] for one in plain_target.executor.connected_managers()])
    assert until(lambda: "77" not in [one["block_id"] for one in plain_target.executor.connected_managers()])


def test_a_recorded_conversation_cannot_be_replayed(plain_target):
    keys = plain_target.keys()
    (port,) = plain_target.tcp_ports()
    known = plain_target.executor.connected_managers
    with socket.create_server(("127.0.0.1", 0)) as recorder:
        recorded = []
        relay = threading.Thread(target=record, args=(recorder, port, recorded), daemon=True)
        relay.start()
        credentials = (keys.client_public, keys.client_secret), keys.server_public
        with dealer(recorder.getsockname()[1], *credentials) as sock:
            sock.send_multipart(frames(wire.REGISTER, wire.pack_json(registration())))
            assert until(lambda: len(known()) == 2)
        relay.join(PATIENCE)
    assert until(lambda: len(known()) == 1)
    assert sum(map(len, recorded)) > 500
    for _ in range(3):
        with knock(port) as sock, contextlib.suppress(OSError):
            for piece in recorded:
                sock.sendall(piece)
                sock.settimeout(0.1)
                with contextlib.suppress(TimeoutError):
                    sock.recv(65536)
            assert len(known()) == 1
    assert len(known()) == 1


def record(recorder, port, recorded):
    """Relay one connection to the port, and keep what its client says."""
    client, _ = recorder.accept()
    with client, socket.create_connection(("127.0.0.1", port)) as server:
        back = threading.Thread(target=pump, args=(server, client, []), daemon=True)
        back.start()
        pump(client, server, recorded)
        back.join(PATIENCE)


def pump(source, target, kept):
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            kept.append(data)
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@pytest.mark.skipif(os.getuid() != 0, reason="becoming another user needs root")
def test_other_users_cannot_reach_the_socket(plain_target):
    (path,) = plain_target.unix_paths()
    assert stat.S_IMODE(Path(path).parent.stat().st_mode) == 0o700
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(path)
        except PermissionError:
            code = 42
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42


# -- peers of this user that talk nonsense


def say(path, *said):
    """Connect to the Unix socket as a manager does, say something, and return what is answered until it is closed."""
    with contextlib.suppress(LinkClosed, TimeoutError), contextlib.closing(knock(path)) as sock:
        link = BlockingLink(sock)
        sock.settimeout(PATIENCE)
        for one in said:
            link.send(*one)
        sock.shutdown(socket.SHUT_WR)
        return link.receive()
    return []


BENT = {
    "manager": [None, 5, [], {}, ""],
    "worker_count": [None, "x", -1, 1e308, [], 0, 2.5],
    "memory": [None, "x", [], {}, 1e305],
    "disk": [None, "x", [], 10**400],
    "gpus": [None, "x", [], 2**64],
    "cores": [None, "x"],
    "held": [None, 5, "x", [None], [[]], [{}], ["x"], {}, [2**64]],
    "block_id": [None, [], {}, 5],
    "hostname": [None, [], 5],
    "draining": [None, "x", []],
}


@pytest.mark.parametrize("field", BENT)
def test_a_registration_with_bent_fields_is_refused_alone(plain_target, field):
    bent = [registration(**{field: value}) for value in BENT[field]]
    bent.append({key: value for key, value in registration().items() if key != field})
    for one in bent:
        answers = say(plain_target.settings["socket"], (wire.REGISTER, wire.pack_json(one)))
        assert [kind for kind, _, _ in answers] == [wire.REFUSED], one.get(field, "absent")
        assert field in wire.unpack_json(answers[0][1])["reason"]


def test_a_manager_that_talks_nonsense_is_dropped_alone(plain_target):
    noise = random.Random(11)
    heads = [b"", b"{}", b"[]", b"null", b"x" * 7, noise.randbytes(64), b"\xff" * 64, struct.pack("<Q", 2**63)]
    for kind in range(30):
        for head in heads:
            say(
                plain_target.settings["socket"],
                (wire.REGISTER, wire.pack_json(registration(manager=f"nonsense-{kind}"))),
                (kind, head),
            )
    keys = plain_target.keys()
    (port,) = plain_target.tcp_ports()
    with dealer(port, (keys.client_public, keys.client_secret), keys.server_public) as sock:
        sock.send_multipart(frames(wire.PROBE))
        assert sock.poll(1000 * PATIENCE)
        for kind in range(30):
            for head in heads:
                sock.send_multipart(frames(kind, head))
        for parts in ([b""], [b"", b""], [b"fc"], [noise.randbytes(30)] * 3, [wire.prefix(5, 0, 9)]):
            sock.send_multipart(parts)
        sock.send_multipart(frames(wire.PROBE))
        assert until(lambda: sock.poll(1000) and wire.parse_prefix(sock.recv_multipart()[0])[0] == wire.PROBE)


def test_strangers_cannot_speak_for_managers(plain_target, evidence):
    """Outcomes from somebody who never registered are nobody's."""
    futures = [plain_target.executor.submit(tasks.nap, {}, 0.5, number) for number in range(2)]
    for one in outcomes_with(pickle.dumps(Evil(evidence))):
        say(plain_target.settings["socket"], one)
    assert outcomes(futures) == [0, 1]


# -- managers of other versions

VERSIONS = {
    "python": ("3.9", f"{sys.version_info[0]}.{sys.version_info[1]}"),
    "release": ("0.0.9", RELEASE),
    "protocol": (99, str(wire.VERSION)),
}


@pytest.mark.parametrize("field", VERSIONS)
def test_a_manager_of_another_version_is_refused_alone_and_told_both(plain_target, field):
    theirs, ours = VERSIONS[field]
    answers = say(plain_target.settings["socket"], (wire.REGISTER, wire.pack_json(registration(**{field: theirs}))))
    ((kind, head, _),) = answers
    assert kind == wire.REFUSED
    reason = wire.unpack_json(head)["reason"]
    assert str(theirs) in reason
    assert ours in reason


def test_a_refused_manager_that_comes_first_does_not_end_the_run(start):
    from flowcore.providers import LocalProvider

    executor = start(provider=LocalProvider(init_blocks=0, max_blocks=1))
    settings = json.loads((Path(executor.logdir) / "manager.json").read_text())
    assert say(settings["socket"], (wire.REGISTER, wire.pack_json(registration(python="3.9"))))
    executor.scale_out(1)
    assert executor.submit(pow, {}, 2, 5).result(PATIENCE) == 32


# -- keys


def test_keys_are_for_their_owner_and_found_nowhere_else(start):
    executor = start(worker_debug=True)
    target = Target(executor)
    folder = Path(target.settings["cert_dir"])
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    files = [path for path in folder.iterdir() if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    secrets = [target.keys().server_secret, target.keys().client_secret]
    environments = [json.dumps(executor.submit(tasks.environment, {}).result(PATIENCE)).encode()]
    for process in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            with contextlib.suppress(OSError):
                environments.append((process / name).read_bytes())
    run_dir = Path(executor.logdir).parent
    logs = [path.read_bytes() for path in run_dir.rglob("*") if path.is_file() and path.parent != folder]
    for secret in secrets:
        assert not any(secret in text for text in environments + logs)


def test_each_run_has_keys_of_its_own(start):
    keys = [Target(start()).keys() for _ in range(2)]
    assert not set(keys[0]) & set(keys[1])


def test_secrets_are_not_passed_on_as_descriptors(start):
    """A task's process has no descriptor of a socket of the run but the one to its manager."""
    executor = start()
    executor.submit(pow, {}, 1, 1).result(PATIENCE)
    worker, _ = executor.submit(tasks.worker, {}).result(PATIENCE)
    links = [str(entry.readlink()) for entry in Path(f"/proc/{worker}/fd").iterdir()]
    assert sum(link.startswith("socket:") for link in links) == 1
