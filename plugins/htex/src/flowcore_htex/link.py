"""Links: one ordered, two-way stream of messages to a peer, over a Unix socket or over ZeroMQ."""

from __future__ import annotations

import contextlib
import errno
import mmap
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, islice
from typing import Any, Final, Protocol

from flowcore_htex import parcels, wire
from flowcore_htex.parcels import Carrier, Parcel
from flowcore_htex.wire import ProtocolError

Message = tuple[int, bytes, Sequence[Any]]
"""Kind, head and buffers."""

_CHUNK: Final = 1 << 16
"""Bytes that are read at once, unless they belong to a buffer: a small piece costs no memory map of its own."""

_MAPPED: Final = 1 << 18
"""Bytes from which a buffer has a memory map of its own, which its end gives back."""

_PRIVATE: Final = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
_SEND_BUFFER: Final = 1 << 21
_GREEDY: Final = 1 << 22
_VECTORS: Final = 64
_CLOEXEC: Final = int(socket.MSG_CMSG_CLOEXEC)
_TRUNCATED: Final = int(socket.MSG_CTRUNC)  # as a plain number: a flag of an enumeration takes microseconds to test


class LinkClosed(Exception):
    """The peer is gone."""


class Link(Protocol):
    """What both kinds of link do. One thread receives; sends are serialized by whoever owns the link."""

    heard: float
    """When the peer was last heard, by `time.monotonic`."""

    backlog: int
    """Bytes that are queued because the peer does not read."""

    on_blocked: Callable[[bool], object]
    """Called when a backlog begins, with True, and when it ends, with False."""

    def fileno(self) -> int:
        """Return the descriptor to wait on for reading, and for writing where there is a backlog."""

    def other_filenos(self) -> list[int]:
        """Return further descriptors to wait on for reading."""

    def pending(self) -> bool:
        """Whether there is something to receive that waiting for the descriptor would not tell of."""

    def receive(self) -> list[Message]:
        """Return what has arrived, without waiting; raise `LinkClosed` when the peer is gone."""

    def send(self, kind: int, head: bytes = b"", buffers: Sequence[Any] = ()) -> None:
        """Queue a message and send what can be sent without waiting."""

    def queue(self, kind: int, head: bytes = b"", buffers: Sequence[Any] = ()) -> None:
        """Queue a message until the next `flush`."""

    def flush(self) -> None:
        """Send what can be sent without waiting; raise `LinkClosed` when the peer is gone."""

    def close(self) -> None:
        """Close the link; what is queued is dropped."""


class StreamLink:
    """A link over a connected Unix stream socket, which it owns; large buffers go as parcels.

    `on_blocked` is called with True when something begins to wait for the peer to read, and with False when all is
    sent; meanwhile `flush` is to be called whenever the socket can be written. `limit` is how large a message may be,
    for peers that are not trusted yet.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        self._sock = sock
        self._rest: bytes | bytearray = b""
        self._filling: _Filling | None = None
        self._out: list[Any] = []
        self._waiting: deque[memoryview | Carrier] = deque()
        self._arrivals = parcels.Arrivals()
        self._parcelled = 0
        self._blocked = False
        self.on_blocked: Callable[[bool], object] = bool
        self.limit: int | None = None
        self.backlog = 0
        self.heard = time.monotonic()

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._sock.fileno()

    def other_filenos(self) -> list[int]:
        """See `Link`."""
        return []

    def pending(self) -> bool:
        """See `Link`."""
        return False

    def receive(self) -> list[Message]:
        """Return what has arrived, at most a few MB of it; see `Link`."""
        messages: list[Message] = []
        taken = self._parcelled = 0
        while taken + self._parcelled < _GREEDY:
            try:
                if self._filling is not None:
                    size = self._filling.fill(self._sock)
                    if self._filling.complete:
                        messages.append(self._filling.message)
                        self._filling = None
                else:
                    data = self._read()
                    size = len(data)
                    if size:
                        self._parse(data, messages)
                        if size < _CHUNK and self._filling is None:
                            taken += size
                            break
            except BlockingIOError:
                break
            except OSError as error:
                if messages:
                    break
                raise LinkClosed(str(error)) from error
            if not size:
                if messages:
                    break  # the next call meets the end again
                raise LinkClosed("closed by the peer")
            taken += size
        if taken:
            self.heard = time.monotonic()
        return messages

    def _read(self) -> bytes:
        data, ancillary, flags, _ = self._sock.recvmsg(_CHUNK, parcels.ROOM, _CLOEXEC)
        if ancillary or flags & _TRUNCATED:
            self._arrivals.add(ancillary)
            if self.limit is not None:
                raise ProtocolError("a stranger sends descriptors")
        return data

    def send(self, kind: int, head: bytes = b"", buffers: Sequence[Any] = ()) -> None:
        """See `Link`."""
        self.queue(kind, head, buffers)
        self.flush()

    def queue(self, kind: int, head: bytes = b"", buffers: Sequence[Any] = ()) -> None:
        """See `Link`."""
        if not buffers:
            self._out += (wire.prefix(kind, len(head), 0), head)
            return
        parcel = buffers if isinstance(buffers, Parcel) else parcels.pack(buffers)
        if parcel is None:
            self._out += _laid_out(kind, head, buffers)
            return
        out, self._out = self._out, []
        self._put_off(out)
        self._waiting.append(Carrier(kind, head, parcel))
        self.backlog += len(self._waiting[-1])

    def _put_off(self, out: list[Any]) -> None:
        for view in _grouped(out):
            self._waiting.append(view)
            self.backlog += len(view)

    def flush(self) -> None:
        """See `Link`."""
        if self._out:
            out, self._out = self._out, []
            if not self._waiting and self._send_small(out):
                return  # the usual case: nothing was waiting, and nothing is
            self._put_off(out)
        if self._waiting:
            self._send_waiting()
        if self._blocked != bool(self._waiting):
            self._blocked = bool(self._waiting)
            self.on_blocked(self._blocked)

    def _send_small(self, out: list[Any]) -> bool:
        """Send everything in one call; True where that worked, with `out` emptied of what went."""
        if len(out) > _VECTORS and all(type(part) is bytes for part in out):
            out[:] = [b"".join(out)]
        if len(out) > _VECTORS:
            return False
        try:
            sent = self._sock.sendmsg(out)
        except BlockingIOError:
            return False
        except OSError as error:
            raise LinkClosed(str(error)) from error
        for place, part in enumerate(out):
            size = len(part)
            if sent < size:
                out[: place + 1] = [memoryview(part)[sent:]]
                return False
            sent -= size
        return True

    def _send_waiting(self) -> None:
        waiting = self._waiting
        while waiting:
            first = waiting[0]
            try:
                if isinstance(first, Carrier):
                    sent = self._sock.sendmsg([first.message], first.parcel.rights)
                    waiting[0] = first.message  # the descriptor has gone with the first byte
                else:
                    sent = self._sock.sendmsg(list(_views(waiting)))
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ETOOMANYREFS or not isinstance(first, Carrier):
                    raise LinkClosed(str(error)) from error
                self._unpack_first(first)
                continue
            self.backlog -= sent
            while waiting and sent >= len(waiting[0]):
                sent -= len(waiting.popleft())
            if sent:
                waiting[0] = waiting[0][sent:]  # type: ignore[index]  # of a carrier it is the message by now

    def _unpack_first(self, carrier: Carrier) -> None:
        """Send the bytes instead of the descriptor, too many of which are on their way to slow readers."""
        views = [memoryview(part) for part in _laid_out(carrier.kind, carrier.head, list(carrier.parcel))]
        self.backlog += sum(map(len, views)) - len(carrier)
        self._waiting.popleft()
        self._waiting.extendleft(reversed(views))

    def finish(self) -> None:
        """Say that nothing more will be sent: the peer meets the end, and what it sends still arrives."""
        with contextlib.suppress(OSError):  # the peer is gone
            self._sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """See `Link`."""
        self._sock.close()
        self._arrivals.close()

    def _prefix(self, data: bytes | bytearray, position: int) -> tuple[int, int, int]:
        kind, head_size, count = wire.parse_prefix(data, position)
        if self.limit is not None and (count or head_size > self.limit):
            raise ProtocolError("a message of a stranger is out of bounds")
        return kind, head_size, count

    def _parse(self, data: bytes, messages: list[Message]) -> None:
        if self._rest:
            self._rest += data
            if not isinstance(self._rest, bytearray):
                self._rest = bytearray(self._rest)
            if len(self._rest) < wire.PREFIX_SIZE:
                return
            _, head_size, count = self._prefix(self._rest, 0)
            if len(self._rest) < wire.PREFIX_SIZE + 8 * count + head_size:
                return
            data = bytes(self._rest)
            self._rest = b""
        position = 0
        size = len(data)
        while size - position >= wire.PREFIX_SIZE:
            kind, head_size, count = self._prefix(data, position)
            start = position + wire.PREFIX_SIZE + 8 * count
            end = start + head_size
            if end > size:
                break
            if count:
                filling = _Filling(kind, data[start:end], _sizes(data, start - 8 * count, count))
                end = filling.take(data, end)
                if not filling.complete:
                    self._filling = filling
                    return
                messages.append(filling.message)
            elif kind == wire.PARCEL:
                messages.append(self._received(data[start:end]))
            else:
                messages.append((kind, data[start:end], []))
            position = end
        if position < size:
            self._rest = data[position:]

    def _received(self, head: bytes) -> Message:
        kind, inner, sizes = wire.unpack_parcel(head)
        buffers = self._arrivals.claim(sizes)
        self._parcelled += parcels.weight(buffers)
        return kind, inner, buffers


class _Filling:
    """A message whose buffers are still arriving, read straight into place; each is made when its turn comes."""

    def __init__(self, kind: int, head: bytes, sizes: Iterable[int]) -> None:
        self._buffers: list[Any] = []
        self.message: Message = (kind, head, self._buffers)
        self._sizes = deque(sizes)
        self._view = memoryview(b"")
        self._next()

    @property
    def complete(self) -> bool:
        return not self._view

    def _next(self) -> None:
        while not self._view and self._sizes:
            size = self._sizes.popleft()
            try:
                buffer = mmap.mmap(-1, size, flags=_PRIVATE) if size >= _MAPPED else bytearray(size)
            except (MemoryError, OSError, ValueError, OverflowError) as error:
                raise ProtocolError(f"there is no room for a buffer of {size} bytes") from error
            self._buffers.append(buffer)
            self._view = memoryview(buffer)

    def take(self, data: bytes, start: int) -> int:
        """Copy what `data` holds from `start` on, and return where the next message begins."""
        while self._view and start < len(data):
            part = data[start : start + len(self._view)]
            self._view[: len(part)] = part
            self._advance(len(part))
            start += len(part)
        return start

    def fill(self, sock: socket.socket) -> int:
        size = sock.recv_into(self._view)
        self._advance(size)
        return size

    def _advance(self, size: int) -> None:
        self._view = self._view[size:]
        self._next()


def _sizes(data: bytes, start: int, count: int) -> tuple[int, ...]:
    sizes = struct.unpack_from(f"<{count}Q", data, start)
    if any(size > wire.MAX_BUFFER for size in sizes):
        raise ProtocolError("a buffer is out of bounds")
    return sizes


def _laid_out(kind: int, head: bytes, buffers: Sequence[Any]) -> list[Any]:
    sizes = struct.pack(f"<{len(buffers)}Q", *map(wire.size, buffers))
    return [wire.prefix(kind, len(head), len(buffers)) + sizes, head, *chain.from_iterable(map(wire.views, buffers))]


def _views(waiting: Iterable[memoryview | Carrier]) -> Iterable[memoryview]:
    """Return what can be sent in one call: the bytes before the next carrier."""
    for part in islice(waiting, _VECTORS):
        if isinstance(part, Carrier):
            return
        yield part


def _grouped(parts: list[Any]) -> Iterable[memoryview]:
    """Join small neighbours, leave large parts as they are."""
    small: list[Any] = []
    for part in parts:
        if len(part) < wire.BIG:
            small.append(part)
            continue
        if small:
            yield memoryview(b"".join(small))
            small = []
        yield memoryview(part)
    if small:
        yield memoryview(b"".join(small))


class BlockingLink(StreamLink):
    """A stream link of a process that has nothing else to wait for."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        sock.setblocking(True)

    def receive(self) -> list[Message]:
        """Wait until there is something; see `Link`."""
        messages: list[Message] = []
        try:
            while not messages:
                if self._filling is None:
                    data = self._read()
                    if not data:
                        raise LinkClosed("closed by the peer")
                    self._parse(data, messages)
                    continue
                if not self._filling.fill(self._sock):
                    raise LinkClosed("closed by the peer")
                if self._filling.complete:
                    messages.append(self._filling.message)
                    self._filling = None
        except OSError as error:
            raise LinkClosed(str(error)) from error
        return messages

    def flush(self) -> None:
        """Send everything; see `Link`."""
        super().flush()
        while self._waiting:
            super().flush()
