"""Whoever does not belong to the run leaves it unharmed: wrong keys, wrong versions, garbage, floods."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import struct
import time
from pathlib import Path

import pytest
import zmq

from flowcore_htex import wire
from flowcore_htex.curve import Keys, read_keys
from flowcore_htex.errors import VersionMismatch
from flowcore_htex.zlink import from_frames, secure_client, to_frames
from waiting import PATIENCE, until

TURNED_AWAY = (
    zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)


@pytest.fixture
def open_run(start):
    """Provide a run whose manager comes over TCP, with its port and its keys."""
    rig = start(
        address="127.0.0.1",
        launch_cmd="{python} -m flowcore_htex.manager --config {config} --block-id {block_id} --socket_host no",
    )
    assert rig.run(pow, 2, 2) == 4
    rig.settings = json.loads((Path(rig.executor.logdir) / "manager.json").read_text())
    rig.port = rig.settings["ports"][0]
    return rig


@pytest.fixture
def dealer():
    """Connect to a port with some keys."""
    socks = []
    with zmq.Context() as context:

        def connect(port, keys, events=0):
            sock = context.socket(zmq.DEALER)
            socks.append(sock)
            if events:  # before it connects: none is to be missed
                socks.append(sock.get_monitor_socket(events))
            secure_client(sock, keys)
            sock.connect(f"tcp://127.0.0.1:{port}")
            return sock

        yield connect
        for sock in socks:
            sock.close(0)


def other_keys(keys):
    public, secret = zmq.curve_keypair()
    return Keys(keys.server_public, b"", public, secret)


def still_works(rig):
    managers = {manager["manager"] for manager in rig.executor.connected_managers()}
    assert [rig.run(pow, n, 2) for n in range(20)] == [n * n for n in range(20)]
    assert {manager["manager"] for manager in rig.executor.connected_managers()} == managers


def test_the_run_key_opens(open_run, dealer):
    sock = dealer(open_run.port, read_keys(open_run.settings["cert_dir"]))
    sock.send_multipart(to_frames(wire.PROBE, b"", ()))
    assert sock.poll(PATIENCE * 1000)
    assert from_frames(sock.recv_multipart(copy=False))[0] == wire.PROBE


@pytest.mark.parametrize("kind", ["another key", "no key"])
def test_a_client_with_the_wrong_key_is_not_heard(open_run, dealer, kind):
    keys = read_keys(open_run.settings["cert_dir"])
    sock = dealer(open_run.port, other_keys(keys) if kind == "another key" else None, TURNED_AWAY)
    with contextlib.suppress(zmq.Again):  # a client that has been turned away already has nowhere to send to
        sock.send_multipart(to_frames(wire.PROBE, b"", ()), zmq.NOBLOCK)
    assert sock.get_monitor_socket().poll(PATIENCE * 1000)
    assert not sock.poll(300)
    sock.disable_monitor()
    if kind == "another key":
        assert until(lambda: "with a wrong key" in open_run.logs())
    still_works(open_run)


MALFORMED = [
    [b""],
    [b"x"],
    [b"fc"],
    [os.urandom(100)],
    [b"", b"", b""],
    [struct.pack("<2sBBIQ", b"fc", 99, wire.RESULTS, 0, 0)],
    [struct.pack("<2sBBIQ", b"fc", wire.VERSION, wire.RESULTS, 5, 0)],
    [struct.pack("<2sBBIQ", b"fc", wire.VERSION, wire.RESULTS, 0, 1 << 60)],
    [wire.prefix(wire.REGISTER, 2, 0) + b"[]"],
    [wire.prefix(wire.REGISTER, 2, 0) + b"{}"],
    [wire.prefix(wire.REGISTER, 7, 0) + b'{"a":1}'],
    [wire.prefix(wire.RESULTS, 8, 0) + struct.pack("<Q", 1 << 40)],
    [wire.prefix(wire.LOST, 4, 0) + b"null"],
    [wire.prefix(wire.DROPPED, 3, 0) + b"abc"],
    [wire.prefix(wire.END, 0, 0)],
    [wire.prefix(200, 0, 0)],
]


@pytest.mark.parametrize("frames", MALFORMED)
def test_malformed_messages_of_an_authenticated_peer_are_dropped(open_run, dealer, frames):
    sock = dealer(open_run.port, read_keys(open_run.settings["cert_dir"]))
    sock.send_multipart(frames)
    sock.send_multipart(to_frames(wire.PROBE, b"", ()))
    assert sock.poll(PATIENCE * 1000)
    still_works(open_run)


def test_a_registration_with_fields_of_the_wrong_kind_is_dropped(open_run, dealer):
    sock = dealer(open_run.port, read_keys(open_run.settings["cert_dir"]))
    record = {"manager": "x", "protocol": wire.VERSION, "release": "0.1.0", "python": _python(), "byteorder": "little"}
    record |= dict.fromkeys(["block_id", "hostname", "held", "draining", "gpus"], 1)
    record |= {name: [[]] for name in ("worker_count", "cores", "memory", "disk")}
    sock.send_multipart(to_frames(wire.REGISTER, wire.pack_json(record), ()))
    sock.send_multipart(to_frames(wire.PROBE, b"", ()))
    assert sock.poll(PATIENCE * 1000)
    still_works(open_run)


def _python():
    import sys

    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def test_replayed_results_count_once(open_run, dealer):
    """A result that comes again, from whomever, finds no future that waits for it."""
    sock = dealer(open_run.port, read_keys(open_run.settings["cert_dir"]))
    head = wire.pack_results([1], [0.1], bytearray([wire.NONE]), [b""])
    for _ in range(3):
        sock.send_multipart(to_frames(wire.RESULTS, head, ()))
    sock.send_multipart(to_frames(wire.PROBE, b"", ()))
    assert sock.poll(PATIENCE * 1000)
    still_works(open_run)


def test_garbage_at_the_tcp_port_does_no_harm(open_run):
    for garbage in (b"GET / HTTP/1.1\r\n\r\n", os.urandom(10_000), b"\xff" * 70, b""):
        with socket.create_connection(("127.0.0.1", open_run.port), timeout=10) as sock:
            sock.sendall(garbage)
            sock.settimeout(0.05)
            try:
                sock.recv(100)
            except OSError:
                pass
    still_works(open_run)


def test_a_flood_of_connections_does_no_harm(open_run):
    socks = [socket.create_connection(("127.0.0.1", open_run.port), timeout=10) for _ in range(200)]
    still_works(open_run)
    for sock in socks:
        sock.close()
    still_works(open_run)


@pytest.mark.parametrize(
    "data",
    [b"\0" * 100, os.urandom(5000), b"fc" + bytes([wire.VERSION]) + b"\xff" * 64, wire.prefix(wire.TASKS, 10, 2)],
    ids=["nothing", "noise", "no kind", "half a message"],
)
def test_garbage_at_the_local_socket_does_no_harm(start, data):
    rig = start()
    assert rig.run(pow, 2, 2) == 4
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(rig.executor._settings["socket"])
        sock.sendall(data)
        still_works(rig)
    still_works(rig)


def test_an_announced_terabyte_does_no_harm(start):
    rig = start()
    assert rig.run(pow, 2, 2) == 4
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(rig.executor._settings["socket"])
        sock.sendall(wire.prefix(wire.BIG_RESULT, 0, 1) + struct.pack("<Q", 1 << 60))
        assert until(lambda: "out of bounds" in rig.logs())
        still_works(rig)


def test_the_local_socket_is_in_a_private_folder(start):
    rig = start()
    folder = Path(rig.executor._settings["socket"]).parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    rig.close()
    assert not folder.exists()


@pytest.mark.parametrize(
    ("field", "value"), [("release", "9.9.9"), ("python", "2.7"), ("protocol", 77), ("byteorder", "middle")]
)
def test_a_manager_of_another_version_is_refused_alone(open_run, dealer, field, value):
    sock = dealer(open_run.port, read_keys(open_run.settings["cert_dir"]))
    record = {
        "manager": "stranger",
        "protocol": wire.VERSION,
        "release": "0.1.0",
        "python": _python(),
        "byteorder": "little",
        "hostname": "elsewhere",
        "block_id": "7",
    }
    sock.send_multipart(to_frames(wire.REGISTER, wire.pack_json({**record, field: value}), ()))
    assert sock.poll(PATIENCE * 1000)
    kind, head, _ = from_frames(sock.recv_multipart(copy=False))
    assert kind == wire.REFUSED
    reason = wire.unpack_json(head)["reason"]
    assert str(value) in reason
    if field != "byteorder":
        assert str(record[field]) in reason
    assert until(lambda: reason in open_run.logs())
    still_works(open_run)


def test_tasks_do_not_wait_for_managers_that_are_all_refused(start):
    code = "import flowcore_htex.version as v; v.RELEASE = '9.9.9'; from flowcore_htex.manager import main; main()"
    command = f'{{python}} -c "{code}" --config {{config}} --block-id {{block_id}}'
    rig = start(launch_cmd=command, block_error_handler=False)  # a block's end may be known before the refusal
    from flowcore.executors.errors import BadStateException

    try:
        error = rig.submit(pow, 2, 2).exception(PATIENCE)
    except BadStateException as refused:
        error = refused
    assert isinstance(error, BadStateException)
    assert isinstance(error.__cause__, VersionMismatch)
    assert "9.9.9" in str(error)
    assert "0.1.0" in str(error)


def test_nobody_can_connect_without_encryption_unless_it_was_asked_for(open_run):
    deadline = time.monotonic() + 1
    with socket.create_connection(("127.0.0.1", open_run.port), timeout=5) as sock:
        null_greeting = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + b"\0" * 32
        sock.sendall(null_greeting)
        sock.settimeout(max(0.1, deadline - time.monotonic()))
        answer = b""
        try:
            while part := sock.recv(1000):
                answer += part
        except OSError:
            pass
    assert b"NULL" not in answer
