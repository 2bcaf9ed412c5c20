"""Links over sockets: messages arrive whole, in order and once, however fast either side is; an end is told."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowcore_htex import wire
from flowcore_htex.link import BlockingLink, LinkClosed, StreamLink
from flowcore_htex.parcels import LEAST


def messages(largest):
    """Return lists of messages with buffers of up to so many bytes; some large enough for parcels, or none."""
    buffers = st.binary(max_size=largest // 3) | st.integers(0, largest).map(bytes)
    return st.lists(st.tuples(st.integers(1, 23), st.binary(max_size=300), st.lists(buffers, max_size=3)), max_size=8)


def pair():
    one, other = socket.socketpair()
    return StreamLink(one), StreamLink(other)


@given(messages(300_000))
def test_messages_arrive_in_order_whole_and_once(sent):
    one, other = pair()
    for kind, head, buffers in sent:
        one.queue(kind, head, buffers)
    one.flush()
    received = []
    while len(received) < len(sent):
        received += other.receive()
        one.flush()
    assert [(kind, head, [bytes(b) for b in buffers]) for kind, head, buffers in received] == sent
    assert one.backlog == 0
    one.close()
    other.close()


@settings(max_examples=50)
@given(messages(LEAST // 3), st.lists(st.integers(1, 5000), min_size=1, max_size=50))
def test_messages_arrive_however_the_bytes_are_cut(sent, cuts):
    source, target = socket.socketpair()
    recorder, tap = socket.socketpair()
    writer, reader = StreamLink(recorder), StreamLink(target)
    stream = bytearray()
    tap.setblocking(False)
    for kind, head, buffers in sent:
        writer.queue(kind, head, buffers)
    while True:
        writer.flush()
        try:
            stream += tap.recv(1 << 20)
        except BlockingIOError:
            if not writer.backlog:
                break
    received, place = [], 0
    while stream:
        size = cuts[place % len(cuts)] * (1 + len(stream) // 50_000)
        place += 1
        source.sendall(stream[:size])
        del stream[:size]
        received += reader.receive()
    while len(received) < len(sent):
        received += reader.receive()
    assert [(kind, head, [bytes(b) for b in buffers]) for kind, head, buffers in received] == sent
    for one in (source, tap, writer, reader):
        one.close()


def test_a_backlog_is_told_when_it_begins_and_when_it_ends():
    one, other = pair()
    told = []
    one.on_blocked = told.append
    one.send(1, bytes(10_000_000))
    assert told == [True]
    assert one.backlog > 0
    while one.backlog:
        other.receive()
        one.flush()
    assert told == [True, False]
    one.close()
    other.close()


@pytest.mark.parametrize("buffers", [[bytes(LEAST - 1), b""], [b"", bytes(LEAST - 1)], [b"", bytes(LEAST), b""]])
def test_empty_buffers_get_through_where_the_peer_is_slow(buffers):
    one, other = pair()
    for _ in range(50):
        one.queue(wire.BIG_TASK, b"", buffers)
        one.flush()
    received = []
    while len(received) < 50:
        received += other.receive()
        one.flush()
    assert {tuple(map(len, message[2])) for message in received} == {tuple(map(len, buffers))}
    assert one.backlog == 0
    one.close()
    other.close()


def test_the_end_of_the_peer_is_told_after_what_it_sent():
    one, other = pair()
    one.send(wire.HEARTBEAT, b"last")
    one.close()
    assert other.receive() == [(wire.HEARTBEAT, b"last", [])]
    with pytest.raises(LinkClosed):
        other.receive()
    with pytest.raises(LinkClosed):
        other.send(wire.HEARTBEAT)
    other.close()


def test_a_blocking_link_waits_for_whole_messages():
    one, other = socket.socketpair()
    sender, receiver = StreamLink(one), BlockingLink(other)
    sender.send(3, b"head", [b"x" * 70_000])
    ((kind, head, (buffer,)),) = receiver.receive()
    assert (kind, head, bytes(buffer)) == (3, b"head", b"x" * 70_000)
    sender.close()
    with pytest.raises(LinkClosed):
        receiver.receive()
    receiver.close()
