"""Parcels: buffers come out as they went in; where there can be none the bytes go; forgeries are refused."""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcore_htex import parcels, wire
from flowcore_htex.link import BlockingLink, StreamLink
from flowcore_htex.parcels import LEAST, Arrivals, Parcel
from flowcore_htex.wire import ProtocolError
from waiting import PATIENCE

SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
LARGE = bytes(range(256)) * (LEAST // 256)


@contextlib.contextmanager
def links(kind=StreamLink):
    """Provide two ends of a connection, the second of the kind that is asked for."""
    one, other = socket.socketpair()
    with contextlib.closing(StreamLink(one)) as sender, contextlib.closing(kind(other)) as receiver:
        yield sender, receiver


def received(link, count, sender=None):
    """Receive so many messages."""
    found = []
    while len(found) < count:
        if sender is not None:
            sender.flush()
        found += link.receive()
    return [(kind, head, [bytes(buffer) for buffer in buffers]) for kind, head, buffers in found]


def open_files():
    return sorted(str(entry.readlink()) for entry in Path("/proc/self/fd").iterdir() if entry.exists())


def held():
    """Count the descriptors of parcels that this process has."""
    return sum("flowcore-parcel" in name for name in open_files())


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


buffers = st.one_of(
    st.binary(max_size=300),
    st.integers(0, 2 * LEAST).map(bytes),
    st.lists(st.binary(max_size=300) | st.integers(0, LEAST).map(bytes), min_size=1, max_size=4),
)


def joined(buffer):
    return b"".join(buffer) if isinstance(buffer, list) else buffer


@given(
    batch=st.lists(st.tuples(st.integers(1, 23), st.binary(max_size=300), st.lists(buffers, max_size=4)), max_size=8),
    kind=st.sampled_from([StreamLink, BlockingLink]),
)
def test_messages_large_and_small_arrive_in_order(batch, kind):
    with links(kind) as (sender, receiver):
        for message in batch:
            sender.queue(*message)
        sender.flush()
        expected = [(kind, head, [joined(buffer) for buffer in parts]) for kind, head, parts in batch]
        assert received(receiver, len(batch), sender) == expected
        assert sender.backlog == 0
    assert held() == 0


@given(st.lists(buffers, min_size=1, max_size=6).filter(lambda parts: sum(map(wire.size, parts)) >= LEAST))
def test_buffers_come_out_as_they_went_in_and_aligned(parts):
    parcel = parcels.pack(parts)
    assert [bytes(view) for view in parcel] == [joined(part) for part in parts]
    assert parcels.weight(parcel) == sum(map(wire.size, parts))
    for view in parcel:
        if view:
            assert address(view) % 64 == 0


def address(view):
    import ctypes

    return ctypes.addressof(ctypes.c_char.from_buffer(view))


def test_what_is_written_to_a_buffer_stays_where_it_was_written():
    parcel = parcels.pack([LARGE])
    (mine,) = parcel
    mine[:5] = b"mine!"
    (other,) = parcel
    assert bytes(other) == LARGE
    assert bytes(mine[:5]) == b"mine!"


def test_buffers_live_on_without_the_parcel_and_without_a_descriptor():
    before = descriptors()
    kept = [list(parcels.pack([LARGE])) for _ in range(50)]
    assert descriptors() <= before
    assert all(bytes(buffer) == LARGE for (buffer,) in kept)


def test_what_is_small_is_no_parcel():
    assert parcels.pack([bytes(LEAST - 1)]) is None
    assert isinstance(parcels.pack([bytes(LEAST)]), Parcel)
    assert isinstance(parcels.pack([bytes(LEAST // 2), [bytes(LEAST // 4), bytes(LEAST // 4)]]), Parcel)


def test_a_snapshot_does_not_change():
    for size in (10, LEAST):
        pickled, array_ = [b"pickle"], bytearray(size)
        kept = parcels.snapshot([pickled, pickle.PickleBuffer(array_)])
        array_[:] = b"x" * size
        assert [joined(buffer) for buffer in kept] == [b"pickle", bytes(size)]


def test_snapshots_leave_descriptors_to_others():
    in_a_child("""
from flowcore_htex.parcels import snapshot
for limit, most in ((1024, 512), (200, 100), (4096, 512)):
    allow(limit)
    kept = [snapshot([bytearray(LEAST)]) for _ in range(600)]
    assert all(bytes(buffer) == bytes(LEAST) for (buffer,) in kept)
    assert most - free <= sum(type(one) is Parcel for one in kept) + 1 <= most
    again = os.dup(0)
    os.close(again)
    assert again <= most
    del kept
""")


def test_nobody_can_write_to_a_parcel_or_cut_it_off():
    parcel = parcels.pack([LARGE])
    with links() as (sender, receiver):
        sender.send(wire.BIG_TASK, b"", parcel)
        ((_, _, same),) = receiver.receive()
        (descriptor,) = same.rights[0][2]
        for harm in (
            lambda: os.pwrite(descriptor, b"x", 0),
            lambda: os.ftruncate(descriptor, 1),
            lambda: os.ftruncate(descriptor, 1 << 30),
        ):
            with pytest.raises(PermissionError):
                harm()


# -- what cannot be had


def test_without_memory_files_the_bytes_themselves_go(monkeypatch):
    def refuse(*_):
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(os, "memfd_create", refuse)
    with links() as (sender, receiver):
        sender.queue(wire.BIG_TASK, b"head", [LARGE, [LARGE, b"and more"], b""])
        assert received(receiver, 1, sender) == [(wire.BIG_TASK, b"head", [LARGE, LARGE + b"and more", b""])]


class Crowded(socket.socket):
    """A socket of somebody who has too many descriptors on their way; root is never told so, hence this."""

    def sendmsg(self, pieces, ancillary=(), *rest):
        if ancillary:
            raise OSError(errno.ETOOMANYREFS, "Too many references: cannot splice")
        return super().sendmsg(pieces, ancillary, *rest)


def test_with_too_many_descriptors_on_their_way_the_bytes_themselves_go():
    one, other = socket.socketpair()
    sender, receiver = StreamLink(Crowded(fileno=one.detach())), StreamLink(other)
    with contextlib.closing(sender), contextlib.closing(receiver):
        sender.queue(wire.HEARTBEAT, b"before")
        sender.queue(wire.BIG_TASK, b"head", [LARGE, b"little"])
        sender.queue(wire.HEARTBEAT, b"after")
        assert received(receiver, 3, sender) == [
            (wire.HEARTBEAT, b"before", []),
            (wire.BIG_TASK, b"head", [LARGE, b"little"]),
            (wire.HEARTBEAT, b"after", []),
        ]
        assert sender.backlog == 0


IN_A_CHILD = """
import os, pickle, resource, socket
from flowcore_htex import wire
from flowcore_htex.link import StreamLink
from flowcore_htex.parcels import LEAST, Parcel

one, other = map(StreamLink, socket.socketpair())
free = os.dup(0)
os.close(free)

def allow(number):
    resource.setrlimit(resource.RLIMIT_NOFILE, (number, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))

def pass_on():
    for tag in (b"one", b"two"):
        one.queue(wire.BIG_TASK, tag, [bytes(LEAST)])
    one.flush()
    found = []
    while len(found) < 2:
        found += other.receive()
    return found
"""


def in_a_child(body):
    """Run a script that has few descriptors."""
    done = subprocess.run(
        [sys.executable, "-c", IN_A_CHILD + body], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr


def test_where_few_descriptors_are_left_parcels_are_copied():
    in_a_child("""
assert all(type(buffers) is Parcel for _, _, buffers in pass_on())
allow(2 * free)
for _, _, buffers in pass_on():
    assert [type(buffer) for buffer in buffers] == [bytearray]
    assert buffers[0] == bytes(LEAST)
again = os.dup(0)
assert again == free, "a parcel was kept"
""")


def test_a_parcel_for_which_there_is_no_descriptor_says_so_where_it_is_opened():
    in_a_child("""
for tag in (b"one", b"two"):
    one.queue(wire.BIG_TASK, tag, [bytes(LEAST)])
one.flush()
allow(free)
found = []
while len(found) < 2:
    found += other.receive()
for (_, tag, buffers), expected in zip(found, (b"one", b"two"), strict=True):
    assert tag == expected
    try:
        pickle.loads(buffers[0])
    except OSError as error:
        assert "ulimit -n" in str(error), error
    else:
        raise AssertionError(buffers)
allow(100)
assert all(bytes(buffers[0]) == bytes(LEAST) for _, _, buffers in pass_on()), "the next ones are as they should be"
""")


# -- forgeries


def memory_file(size=LEAST, seals=SEALS):
    descriptor = os.memfd_create("forged", os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, size)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


def a_pipe():
    reader, writer = os.pipe()
    os.close(writer)
    return reader


FORGERIES = {
    "not sealed": lambda: memory_file(seals=0),
    "may shrink": lambda: memory_file(seals=SEALS & ~fcntl.F_SEAL_SHRINK),
    "may be written to": lambda: memory_file(seals=SEALS & ~fcntl.F_SEAL_WRITE),
    "too small": lambda: memory_file(LEAST - 4096),
    "too large": lambda: memory_file(LEAST + 4096),
    "empty": lambda: memory_file(0),
    "a pipe": a_pipe,
    "a device": lambda: os.open("/dev/zero", os.O_RDWR),
    "a folder": lambda: os.open("/", os.O_RDONLY),
    "a socket": lambda: socket.socket(socket.AF_UNIX).detach(),
}


def carrier(sizes=(LEAST,), kind=wire.BIG_TASK):
    body = wire.pack_parcel(kind, b"head", sizes)
    return wire.prefix(wire.PARCEL, len(body), 0) + body


@pytest.fixture
def stream():
    """Provide a bare socket and the link at its other end; all descriptors must be closed in the end."""
    before = descriptors()
    one, other = socket.socketpair()
    link = StreamLink(other)
    with one:
        yield one, link
        link.close()
    del link, other
    assert descriptors() <= before  # what other tests have left may be collected meanwhile


def pass_on(sock, data, *files):
    """Send bytes with descriptors, which are closed here."""
    sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))] if files else [])
    for descriptor in files:
        os.close(descriptor)


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES.keys())
def test_a_file_that_is_no_parcel_is_refused(stream, forge):
    sock, link = stream
    pass_on(sock, carrier(), forge())
    with pytest.raises(ProtocolError, match="not sealed, or not as large"):
        link.receive()


@pytest.mark.parametrize("sizes", [(), (0,), (2**63,), (LEAST, 1), (LEAST - 64,), (2**64 - 1, 65)])
def test_sizes_that_do_not_add_up_to_the_file_are_refused(stream, sizes):
    sock, link = stream
    pass_on(sock, carrier(sizes), memory_file())
    with pytest.raises(ProtocolError, match="not sealed, or not as large"):
        link.receive()


def test_a_parcel_without_its_descriptor_is_refused(stream):
    sock, link = stream
    sock.sendall(carrier())
    with pytest.raises(ProtocolError, match="without its descriptor"):
        link.receive()


def test_descriptors_without_messages_are_refused(stream):
    sock, link = stream
    with pytest.raises(ProtocolError, match="without messages"):
        for _ in range(10):
            pass_on(sock, b"f", memory_file())
            link.receive()


def test_more_than_one_descriptor_at_once_is_not_taken(stream):
    sock, link = stream
    pass_on(sock, carrier(), *[memory_file() for _ in range(20)])
    ((_, _, buffers),) = link.receive()
    assert isinstance(buffers, Parcel)
    assert held() == 0
    assert sum("forged" in name for name in open_files()) == 1
    del buffers


def test_strangers_may_not_send_descriptors_at_all(stream):
    sock, link = stream
    link.limit = 1 << 20
    pass_on(sock, carrier(), memory_file())
    with pytest.raises(ProtocolError, match="stranger"):
        link.receive()


def test_descriptors_within_the_buffers_of_a_message_are_dropped(stream):
    sock, link = stream
    data = wire.prefix(wire.BIG_TASK, 0, 1) + (100_000).to_bytes(8, "little") + bytes(50_000)
    sock.sendall(data)
    assert link.receive() == []
    pass_on(sock, bytes(50_000), memory_file())
    assert received(link, 1) == [(wire.BIG_TASK, b"", [bytes(100_000)])]


@given(head=st.binary(max_size=100))
def test_any_head_of_a_parcel_is_understood_or_refused(head):
    with contextlib.suppress(ProtocolError):
        kind, inner, sizes = wire.unpack_parcel(head)
        assert wire.pack_parcel(kind, inner, sizes) == head


def test_what_was_not_claimed_is_closed_with_the_connection():
    arrivals = Arrivals()
    descriptor = memory_file()
    arrivals.add([(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]).tobytes())])
    arrivals.add([])
    arrivals.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_the_lament_is_a_pickle_that_raises():
    with pytest.raises(OSError, match="no file descriptor was free") as caught:
        pickle.loads(parcels.LAMENT)
    assert caught.value.errno == errno.EMFILE
