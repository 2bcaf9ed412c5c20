"""Any bytes make messages or a ProtocolError, within bounded memory; what is packed comes back."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import tracemalloc

import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st

from flowcore_htex import wire
from flowcore_htex.link import BlockingLink, LinkClosed, StreamLink
from flowcore_htex.wire import ProtocolError, Task
from flowcore_htex.zlink import from_frames, to_frames

pytestmark = pytest.mark.filterwarnings("error")

BOUND = 32 << 20
"""Bytes that a reader may use for what it was not sent."""

ids = st.integers(0, 2**64 - 1)
numbers = st.integers(0, 2**32 - 1)
payloads = st.binary(max_size=200)
seconds = st.floats(width=32, allow_nan=False, allow_infinity=False)
kinds = st.integers(0, 255)
messages = st.tuples(
    kinds.filter(lambda kind: kind != wire.PARCEL),
    st.binary(max_size=300),
    st.lists(st.binary(max_size=300), max_size=4),
)
records = st.dictionaries(
    st.text(max_size=8),
    st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=8), st.lists),
    max_size=5,
)


@st.composite
def damaged(draw, heads):
    """Draw a head with one byte changed, or none."""
    head = bytearray(draw(heads))
    if head and draw(st.booleans()):
        head[draw(st.integers(0, len(head) - 1))] = draw(st.integers(0, 255))
    return bytes(head)


batches = st.lists(st.tuples(ids, numbers, payloads), max_size=4).map(wire.pack_tasks)
outcomes = st.lists(st.tuples(ids, seconds, st.integers(0, 2), payloads), max_size=4).map(
    lambda some: wire.pack_results(
        [one[0] for one in some], [one[1] for one in some], bytearray(one[2] for one in some), [one[3] for one in some]
    )
)
anything = st.binary(max_size=300) | damaged(batches | outcomes | records.map(wire.pack_json))

UNDERSTOOD = {
    wire.unpack_tasks: lambda head, found: wire.pack_tasks(list(zip(*found[:3], strict=True)), found[3]) == head,
    wire.unpack_results: lambda head, found: (
        len(found[0]) == len(found[1]) == len(found[2]) and head.endswith(b"".join([found[1], *found[2]]))
    ),
    wire.unpack_result_times: lambda head, found: (
        len(found[0]) == len(found[1]) and head[8:].startswith(wire.pack_ids(found[0]))
    ),
    wire.unpack_big_task: lambda head, found: wire.pack_big_task(*found) == head,
    wire.unpack_big_result: lambda head, found: head.startswith(wire.pack_ids([found[0]])) and head[12] == found[2],
    wire.unpack_function: lambda head, found: wire.pack_function(*found) == head,
    wire.unpack_ids: lambda head, found: wire.pack_ids(found) == head,
    wire.unpack_refusals: lambda head, found: wire.pack_refusals(found) == head,
    wire.unpack_json: lambda head, found: json.loads(head) == found,
    wire.unpack_parcel: lambda head, found: wire.pack_parcel(*found) == head,
}
"""What unpacks each head, and whether what it gave is what the head says."""


# -- heads


@pytest.mark.parametrize("unpack", UNDERSTOOD, ids=lambda unpack: unpack.__name__)
@given(head=anything)
def test_any_head_is_understood_as_it_is_or_refused(unpack, head):
    with contextlib.suppress(ProtocolError):
        assert UNDERSTOOD[unpack](head, unpack(head))


@given(st.binary(min_size=16, max_size=64) | damaged(messages.map(lambda message: laid_out(*message))))
def test_a_prefix_is_one_of_ours_or_refused(data):
    try:
        kind, size, count = wire.parse_prefix(data)
    except ProtocolError:
        return
    assert data[:3] == wire.MAGIC + bytes([wire.VERSION])
    assert size <= wire.MAX_HEAD
    assert count <= wire.MAX_BUFFERS
    assert 0 <= kind <= 255


@pytest.mark.parametrize("kind", [wire.RESULTS, wire.BIG_RESULT, wire.LOST, wire.DROPPED])
@given(head=st.binary(max_size=300))
def test_the_ids_of_any_outcome_are_found_or_it_is_malformed(kind, head):
    with contextlib.suppress(*wire.MALFORMED):
        assert all(isinstance(tid, int) for tid in wire.outcome_ids(kind, head))


@given(record=st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3)))
def test_an_outcome_of_any_shape_is_understood_or_malformed(record):
    with contextlib.suppress(*wire.MALFORMED):
        assert all(isinstance(tid, int) for tid in wire.outcome_ids(wire.LOST, wire.pack_json({"tids": record})))


@given(
    count=st.sampled_from([2**20, 2**31 - 1, 2**31, 2**32 - 1]),
    rest=st.binary(max_size=64),
    unpack=st.sampled_from([wire.unpack_tasks, wire.unpack_results, wire.unpack_result_times]),
)
def test_a_batch_that_claims_to_be_huge_costs_nothing(count, rest, unpack):
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError):
            unpack(struct.pack("<Q", count) + rest)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@given(batch=st.lists(st.tuples(ids, numbers, payloads), max_size=20), spec=payloads, cut=st.integers(1, 5000))
def test_a_batch_of_tasks_comes_back_and_is_refused_when_cut_short(batch, spec, cut):
    head = wire.pack_tasks(batch, spec)
    tids, functions, blobs, same = wire.unpack_tasks(head)
    assert (list(zip(tids, functions, blobs, strict=True)), same) == (batch, spec)
    assert wire.pack_tasks([Task(*one) for one in batch], spec) == head
    with pytest.raises(ProtocolError):
        wire.unpack_tasks(head[: -min(cut, len(head))])


@given(batch=st.lists(st.tuples(ids, seconds, st.integers(0, 2), payloads), max_size=20), cut=st.integers(1, 5000))
def test_a_batch_of_outcomes_comes_back_and_is_refused_when_cut_short(batch, cut):
    tids, times, statuses, blobs = ([one[place] for one in batch] for place in range(4))
    head = wire.pack_results(tids, times, bytearray(statuses), blobs)
    assert wire.unpack_results(head) == (tids, bytes(statuses), blobs)
    assert wire.unpack_result_times(head) == (tids, times)
    assert wire.outcome_ids(wire.RESULTS, head) == tids
    with pytest.raises(ProtocolError):
        wire.unpack_results(head[: -min(cut, len(head))])


@given(tid=ids, function=numbers, spec=payloads, time=seconds, status=st.integers(0, 2))
def test_the_heads_of_big_messages_come_back(tid, function, spec, time, status):
    assert wire.unpack_big_task(wire.pack_big_task(tid, function, spec)) == (tid, function, spec)
    assert wire.unpack_big_result(wire.pack_big_result(tid, time, status)) == (tid, time, status)


@given(number=ids, blob=payloads, several=st.lists(ids, max_size=50), record=records)
def test_functions_ids_and_records_come_back(number, blob, several, record):
    assert wire.unpack_function(wire.pack_function(number, blob)) == (number, blob)
    assert wire.unpack_ids(wire.pack_ids(several)) == several
    pairs = list(zip(several, several[::-1], strict=True))
    assert wire.unpack_refusals(wire.pack_refusals(pairs)) == pairs
    assert wire.unpack_json(wire.pack_json(record)) == record


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "9" * 100_000, '"\\ud800"', "NaN", "[]", "1", ""])
def test_json_that_is_no_record_is_refused(text):
    with pytest.raises(ProtocolError):
        wire.unpack_json(text.encode())


# -- streams


@contextlib.contextmanager
def pair(kind=StreamLink):
    """Provide a socket and a link at the other end of it."""
    ours, theirs = socket.socketpair()
    link = kind(theirs)
    try:
        yield ours, link
    finally:
        ours.close()
        link.close()


def received(link, found=None):
    """Return all that a link gives, until the peer has closed it; it is added to what was found before."""
    found = [] if found is None else found
    try:
        while True:
            found += link.receive()
    except LinkClosed:
        return found


def send_in_pieces(sock, link, data, sizes, found=None):
    """Send the data in pieces, receiving after each; return what came."""
    found = [] if found is None else found
    for size in [*sizes, len(data)]:
        sock.sendall(data[:size])
        data = data[size:]
        found += link.receive()
    return found


def as_bytes(message):
    kind, head, buffers = message
    return kind, bytes(head), [bytes(buffer) for buffer in buffers]


def laid_out(kind, head, buffers):
    sizes = b"".join(struct.pack("<Q", len(buffer)) for buffer in buffers)
    return wire.prefix(kind, len(head), len(buffers)) + sizes + head + b"".join(buffers)


@given(batch=st.lists(messages, min_size=1, max_size=8), sizes=st.lists(st.integers(1, 400), max_size=12))
def test_messages_arrive_whole_however_the_stream_is_cut(batch, sizes):
    with pair() as (sock, link):
        data = b"".join(laid_out(*message) for message in batch)
        assert [as_bytes(message) for message in send_in_pieces(sock, link, data, sizes)] == batch


@given(batch=st.lists(messages, min_size=1, max_size=8))
def test_what_a_link_sends_a_link_receives(batch):
    with pair() as (sock, link):
        sender = BlockingLink(sock)
        for message in batch:
            sender.queue(*message)
        sender.flush()
        sock.close()
        assert [as_bytes(message) for message in received(link)] == batch


@pytest.mark.parametrize("kind", [StreamLink, BlockingLink])
@given(
    data=st.binary(max_size=600), batch=st.lists(messages, max_size=2), sizes=st.lists(st.integers(1, 50), max_size=5)
)
def test_any_stream_gives_its_messages_and_is_refused_where_none_begins(kind, data, batch, sizes):
    with pair(kind) as (sock, link):
        stream = b"".join(laid_out(*message) for message in batch) + data
        found, refused = [], False
        try:
            if kind is StreamLink:
                send_in_pieces(sock, link, stream, sizes, found)
            else:
                sock.sendall(stream)
            sock.close()
            received(link, found)
        except ProtocolError:
            refused = True
        came = [as_bytes(message) for message in found[: len(batch)]]
        assert came == (batch[: len(came)] if refused else batch)


@given(
    kind=kinds,
    head_size=st.integers(0, 2**64 - 1) | st.sampled_from([wire.MAX_HEAD, wire.MAX_HEAD - 1]),
    sizes=st.lists(st.integers(0, 2**20) | st.integers(2**42, 2**64 - 1) | st.just(2**30), max_size=2),
    more=st.integers(0, 2**32 - 1),
    rest=st.binary(max_size=100),
)
@settings(max_examples=60)
def test_a_message_that_claims_to_be_huge_costs_what_was_sent(kind, head_size, sizes, more, rest):
    count = len(sizes) if more % 2 else more
    start = struct.pack("<2sBBIQ", wire.MAGIC, wire.VERSION, kind, count, head_size)
    stream = start + struct.pack(f"<{len(sizes)}Q", *sizes) + rest
    tracemalloc.start()
    try:
        with pair() as (sock, link), contextlib.suppress(ProtocolError):
            sock.sendall(stream)
            assert link.receive() == [] or head_size <= len(stream) - wire.PREFIX_SIZE
        assert tracemalloc.get_traced_memory()[1] < BOUND
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("sizes", [[2**30], [2**26] * 16, [wire.MAX_BUFFER], [10, 2**30]])
def test_announced_buffers_cost_nothing_until_they_arrive(sizes):
    tracemalloc.start()
    try:
        with pair() as (sock, link):
            stream = wire.prefix(wire.BIG_RESULT, 0, len(sizes)) + struct.pack(f"<{len(sizes)}Q", *sizes) + b"x" * 20
            sock.sendall(stream)
            with contextlib.suppress(ProtocolError):
                assert link.receive() == []
        assert tracemalloc.get_traced_memory()[1] < BOUND
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("size", [wire.BIG - 1, wire.BIG, 3 << 20, 20 << 20])
def test_large_buffers_arrive_in_place(size):
    with pair() as (sock, link):
        sock.setblocking(False)
        sender = StreamLink(sock)
        contents = [bytes([place]) * size for place in range(3)]
        sender.queue(wire.BIG_RESULT, b"head", contents)
        found = []
        while not found:
            sender.flush()
            found = link.receive()
        assert as_bytes(found[0]) == (wire.BIG_RESULT, b"head", contents)


# -- frames of ZeroMQ


def frames_of(parts):
    return [zmq.Frame(bytes(part)) for part in parts]


@given(message=messages)
def test_frames_come_back(message):
    assert as_bytes(from_frames(frames_of(to_frames(*message)))) == message


@given(parts=st.lists(st.binary(max_size=100), min_size=1, max_size=5) | messages.map(lambda one: to_frames(*one)))
def test_any_frames_are_a_message_or_refused(parts):
    with contextlib.suppress(ProtocolError):
        assert to_frames(*from_frames(frames_of(parts))) == parts


@given(message=messages, version=st.integers(0, 255).filter(lambda version: version != wire.VERSION))
def test_another_protocol_version_is_refused_by_name(message, version):
    frames = to_frames(*message)
    frames[0] = frames[0][:2] + bytes([version]) + frames[0][3:]
    with pytest.raises(ProtocolError, match=f"protocol version {version}, this is {wire.VERSION}"):
        from_frames(frames_of(frames))
