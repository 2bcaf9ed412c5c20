"""The interchange alone: what it tells managers, in which order, and what it lets in."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import threading
from pathlib import Path

import pytest
import zmq

from flowcore.serialize.pickling import dumps
from flowcore_htex import wire, zlink
from flowcore_htex.hub import Hub
from flowcore_htex.link import BlockingLink
from flowcore_htex.log import Log
from flowcore_htex.loop import Loop
from flowcore_htex.zlink import from_frames, to_frames
from htex_rig import registration
from interchange_bench import Bench
from waiting import PATIENCE, until

CALL = dumps(((), {}))
A_MOMENT = 0.5
"""Seconds that nothing must come in, where there is no event that could be waited for."""


def forget_context():
    zlink.context().destroy(linger=0)
    zlink.context.cache_clear()


@pytest.fixture
def start(tmp_path):
    """Start interchanges that do not have ZeroMQ in common with anything else in this process."""
    with contextlib.ExitStack() as stack:
        stack.callback(forget_context)

        def start(**options):
            forget_context()
            bench = Bench(tmp_path, **options)
            stack.callback(bench.close)
            return bench

        yield start


@pytest.fixture
def remote():
    """Provide a listening socket, and a manager on another host that speaks to it; it gives up on nothing."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        zmq.Context() as context,
        context.socket(zmq.DEALER) as dealer,
    ):
        dealer.linger = 0
        dealer.rcvtimeo = 1000 * PATIENCE
        dealer.connect(f"tcp://127.0.0.1:{listener.getsockname()[1]}")
        yield listener, dealer


def hear(dealer, wanted):
    """Return the kinds of the messages that come, up to the first one of a kind."""
    kinds = []
    while wanted not in kinds:
        kinds.append(from_frames(dealer.recv_multipart(copy=False))[0])
    return kinds


def heard_in_a_moment(dealer):
    kinds = []
    while dealer.poll(1000 * A_MOMENT):
        kinds.append(from_frames(dealer.recv_multipart(copy=False))[0])
    return kinds


def test_a_manager_that_comes_over_tcp_before_its_tasks_are_known_keeps_them(start, remote, monkeypatch):
    monkeypatch.setattr("flowcore_htex.interchange._RECOVERY", PATIENCE)
    listener, dealer = remote
    bench = start(tcp=[listener], client="its own sockets", expected_managers=["m"])
    mine = registration(manager="m", draining=False, held=[1])
    dealer.send_multipart(to_frames(wire.REGISTER, wire.pack_json(mine), []))
    dealer.send_multipart(to_frames(wire.PROBE, b"", []))
    assert not dealer.poll(1000 * A_MOMENT)
    bench.say((wire.TASKS, wire.pack_tasks([(1, 1, CALL)])), (wire.READY, b""))
    bench.hear(wire.MANAGERS)
    bench.user.send(wire.END)
    assert hear(dealer, wire.END) == [wire.PROBE, wire.END]


def test_managers_that_have_come_are_heard_before_the_recovery_ends(start, monkeypatch):
    monkeypatch.setattr("flowcore_htex.interchange._RECOVERY", 0)  # as if it had been stopped for longer than that
    names = ["m0", "m1", "m2"]
    bench = start(expected_managers=names)
    for tid, name in enumerate(names, start=1):
        mine = registration(manager=name, draining=False, held=[tid])
        BlockingLink(bench.connect()).send(wire.REGISTER, wire.pack_json(mine))
    bench.say((wire.TASKS, wire.pack_tasks([(tid, 1, CALL) for tid in (1, 2, 3)])), (wire.READY, b""))
    records = [wire.unpack_json(bench.hear(wire.MANAGERS)) for _ in names]
    assert {one["event"] for one in records} == {"registered"}
    assert sorted(one["manager"]["manager"] for one in records) == names


def test_nobody_is_taken_for_silent_before_what_has_come_is_read(start):
    bench = start(heartbeat_period=0.05)
    _, link = bench.manager("m")
    interchange, over = bench._interchange, threading.Event()
    keep_time = interchange._keep_time

    def keep_time_late():
        interchange._keep_time = keep_time
        link.send(wire.HEARTBEAT)
        interchange._managers["m"].peer.link.heard -= 1000
        interchange._next_check = 0.0
        keep_time()
        over.set()

    interchange._keep_time = keep_time_late
    assert over.wait(PATIENCE)
    assert list(interchange._managers) == ["m"]


def test_while_results_are_not_taken_in_nobody_gets_more_tasks(start, remote):
    listener, dealer = remote
    bench = start(tcp=[listener])
    dealer.send_multipart(to_frames(wire.REGISTER, wire.pack_json(registration(manager="m", draining=False)), []))
    bench.hear(wire.MANAGERS)
    bench.say((wire.TASKS, wire.pack_tasks([(tid, 0, CALL) for tid in (1, 2)])))
    hear(dealer, wire.TASKS)
    size = 65 << 20
    dealer.send_multipart(to_frames(wire.BIG_RESULT, wire.pack_big_result(1, 0.1, wire.VALUE), [bytes(size)]))
    bench.hear(wire.BIG_RESULT)
    assert wire.TASKS not in heard_in_a_moment(dealer)
    bench.user.send(wire.TAKEN, wire.pack_ids([size]))
    hear(dealer, wire.TASKS)


def test_a_manager_gets_in_when_others_have_closed_the_files_that_were_too_many(start):
    bench = start(heartbeat_period=0.2)
    sock = socket.socket(socket.AF_UNIX)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    fillers = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (sock.fileno() + 1, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                fillers.append(os.dup(sock.fileno()))
        sock.connect(bench.path)
        assert until(lambda: bench.out_of_descriptors)
    finally:
        for descriptor in fillers:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with contextlib.closing(sock):
        BlockingLink(sock).send(wire.REGISTER, wire.pack_json(registration(manager="late")))
        assert b"late" in bench.hear(wire.MANAGERS)


def connections(port):
    """Count the connections at a port of this host that a process has open; one in the backlog is nobody's."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(line[1].endswith(f":{port:04X}") and line[3] != "0A" and line[9] != "0" for line in lines)


def test_a_manager_that_is_gone_before_its_registration_is_read_is_lost_at_once(remote):
    listener, dealer = remote
    port = listener.getsockname()[1]
    events = []
    forget_context()
    hub = Hub(
        [(listener.fileno(), f"tcp://127.0.0.1:{port}")],
        None,
        Loop(),
        lambda _peer, message: events.append(message[0]),
        lambda _peer: events.append("lost"),
        Log(None, None),
    )
    try:
        dealer.send_multipart(to_frames(wire.REGISTER, wire.pack_json(registration()), []))
        assert until(lambda: connections(port) == 1)
        dealer.close(1000 * PATIENCE)  # sends first
        assert until(lambda: connections(port) == 0)
        hub.serve()
        assert events == [wire.REGISTER, "lost"]
    finally:
        hub.close()
        forget_context()


def test_connections_that_nobody_has_looked_at_do_not_keep_a_socket_from_being_closed():
    """More than the 2,000 words that a monitor may leave unread by default."""
    forget_context()
    router = zlink.new_socket(zmq.ROUTER)
    watched = zlink.Connections(router)
    port = router.bind_to_random_port("tcp://127.0.0.1")
    for _ in range(1500):
        socket.create_connection(("127.0.0.1", port), PATIENCE).close()
    assert until(lambda: connections(port) == 0)
    closing = threading.Thread(target=lambda: (watched.close(), router.close(0)), daemon=True)
    closing.start()
    closing.join(PATIENCE)
    assert not closing.is_alive()
    forget_context()
