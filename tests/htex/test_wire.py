"""Frames: what is packed comes out again, and nothing else does harm."""

from __future__ import annotations

import math
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowcore_htex import wire
from flowcore_htex.link import BlockingLink, LinkClosed, StreamLink
from flowcore_htex.parcels import LEAST
from flowcore_htex.wire import MALFORMED, ProtocolError, Task

ids = st.integers(0, 2**64 - 1)
numbers = st.integers(0, 2**32 - 1)
blobs = st.binary(max_size=200)
floats = st.floats(width=32, allow_nan=False)


@given(st.lists(st.tuples(ids, numbers, blobs)), blobs)
def test_tasks_come_out_as_they_went_in(tasks, spec):
    tids, functions, payloads, told = wire.unpack_tasks(wire.pack_tasks([Task(*task) for task in tasks], spec))
    assert list(zip(tids, functions, payloads, strict=True)) == tasks
    assert told == spec


@given(st.lists(st.tuples(ids, floats, st.integers(0, 2), blobs)))
def test_results_come_out_as_they_went_in(results):
    columns = [list(column) for column in zip(*results, strict=True)] or [[], [], [], []]
    head = wire.pack_results(columns[0], columns[1], bytearray(columns[2]), columns[3])
    tids, statuses, payloads = wire.unpack_results(head)
    assert (tids, list(statuses), payloads) == (columns[0], columns[2], columns[3])
    assert wire.unpack_result_times(head) == (columns[0], columns[1])
    assert wire.outcome_ids(wire.RESULTS, head) == columns[0]


@given(ids, numbers, blobs)
def test_single_heads_come_out_as_they_went_in(tid, number, blob):
    assert wire.unpack_big_task(wire.pack_big_task(tid, number, blob)) == (tid, number, blob)
    assert wire.unpack_function(wire.pack_function(number, blob)) == (number, blob)
    assert wire.unpack_ids(wire.pack_ids([tid, number])) == [tid, number]
    found = wire.unpack_big_result(wire.pack_big_result(tid, 0.5, wire.ERROR))
    assert (found[0], found[2]) == (tid, wire.ERROR)
    assert math.isclose(found[1], 0.5)


UNPACKERS = [
    wire.unpack_tasks,
    wire.unpack_results,
    wire.unpack_result_times,
    wire.unpack_big_task,
    wire.unpack_big_result,
    wire.unpack_function,
    wire.unpack_ids,
    wire.unpack_json,
    *[
        lambda head, kind=kind: wire.outcome_ids(kind, head)
        for kind in (wire.RESULTS, wire.BIG_RESULT, wire.LOST, wire.DROPPED)
    ],
]


@given(st.binary(max_size=400))
def test_garbage_is_refused_or_read_but_never_breaks_anything(head):
    for unpack in UNPACKERS:
        try:
            unpack(head)
        except MALFORMED:
            pass


@given(st.lists(st.tuples(ids, numbers, blobs), min_size=1), st.data())
def test_a_truncated_batch_is_refused(tasks, data):
    head = wire.pack_tasks([Task(*task) for task in tasks])
    cut = data.draw(st.integers(0, len(head) - 1))
    with pytest.raises(ProtocolError):
        wire.unpack_tasks(head[:cut])


@given(st.binary(min_size=16, max_size=64))
def test_a_prefix_is_one_of_ours_or_refused(data):
    try:
        kind, size, count = wire.parse_prefix(data)
    except ProtocolError:
        return
    assert data[:3] == wire.MAGIC + bytes([wire.VERSION])
    assert size <= wire.MAX_HEAD
    assert count <= wire.MAX_BUFFERS
    assert 0 <= kind <= 255


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


@given(st.binary(min_size=1, max_size=500))
def test_garbage_on_a_stream_is_refused_or_waits_for_more(data):
    source, target = socket.socketpair()
    link = StreamLink(target)
    source.sendall(data)
    try:
        link.receive()
    except ProtocolError:
        pass
    source.close()
    link.close()


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
