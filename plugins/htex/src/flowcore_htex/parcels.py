"""Parcels: the large buffers of one message, in sealed memory that goes from process to process by its descriptor."""

from __future__ import annotations

import array
import errno
import functools
import mmap
import os
import resource
import socket
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Final, overload

from flowcore_htex import wire
from flowcore_htex.memory import is_sealed, memory_file, seal
from flowcore_htex.wire import ProtocolError

LEAST: Final = 1 << 17
"""Bytes from which a memory file costs less than copying them through sockets."""

ROOM: Final = socket.CMSG_LEN(array.array("i").itemsize)
"""Room for what comes beside the bytes of one read: one descriptor, as each message has one at most."""

_ALIGNED: Final = 64
_LOST: Final = -1
_RESERVED: Final = 512
"""Descriptors from which on those are left to the user's process that it can still wait for with select(2)."""

_UNCLAIMED: Final = 2
"""Descriptors that may have arrived before the last byte of their message has."""

LAMENT: Final = b"cflowcore_htex.parcels\nlament\n)R."
"""What is in the place of a parcel for which no descriptor was free: a pickle that says so where it is loaded."""


class Parcel(Sequence[memoryview]):
    """Buffers in a sealed memory file, which closes when nobody refers to the parcel any more.

    Processes that pass a parcel on do not look at the buffers. Whoever does, by taking them out or going over them,
    maps the file: what is written to the buffers stays in that process, and the mapping outlives the parcel. That
    raises `OSError` where there is no room in the address space.
    """

    __slots__ = ("_descriptor", "extent", "sizes")

    def __init__(self, descriptor: int, sizes: Sequence[int]) -> None:
        """Take over a descriptor."""
        self._descriptor = descriptor
        self.sizes = sizes
        self.extent = sum(map(_aligned, sizes))

    def __del__(self) -> None:
        os.close(self._descriptor)

    def __len__(self) -> int:
        return len(self.sizes)

    def __iter__(self) -> Iterator[memoryview]:
        return iter(self._views())

    @overload
    def __getitem__(self, place: int) -> memoryview: ...
    @overload
    def __getitem__(self, place: slice) -> list[memoryview]: ...
    def __getitem__(self, place: int | slice) -> memoryview | list[memoryview]:
        return self._views()[place]

    def _views(self) -> list[memoryview]:
        area = memoryview(_mapped(self._descriptor, self.extent))
        views, start = [], 0
        for size in self.sizes:
            views.append(area[start : start + size])
            start += _aligned(size)
        return views

    @property
    def rights(self) -> list[tuple[int, int, array.array[int]]]:
        """What is sent beside a message to pass the descriptor on."""
        return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [self._descriptor]))]


class Lost(list[bytes]):
    """What is in the place of a parcel for which no descriptor was free.

    Attributes:
        size: bytes that were in the parcel, which who has sent it has counted.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__([LAMENT])
        self.size = sum(sizes)


def weight(buffers: Sequence[Any]) -> int:
    """Return how many bytes there are in buffers, parcel or not."""
    return sum(buffers.sizes if isinstance(buffers, Parcel) else map(len, buffers))


def weight_sent(buffers: Sequence[Any]) -> int:
    """Return how many bytes there were in buffers when they were sent here, even if they were lost."""
    return buffers.size if isinstance(buffers, Lost) else weight(buffers)


def pack(buffers: Sequence[Any], *, sparing: bool = False) -> Parcel | None:
    """Copy buffers into a parcel; None where that does not pay, or where there is no descriptor or memory for it.

    Args:
        buffers: what to copy.
        sparing: whether the parcel is to be kept, so that there is none where many descriptors are in use.
    """
    sizes = [wire.size(buffer) for buffer in buffers]
    if sum(sizes) < LEAST:
        return None
    try:
        descriptor = memory_file("flowcore-parcel")
        parcel = Parcel(descriptor, sizes)
        if sparing and (descriptor >= _RESERVED or _is_high(descriptor)):
            return None
        _fill(parcel, buffers)
    except OSError:
        return None
    return parcel


def snapshot(buffers: Sequence[Any]) -> Sequence[Any]:
    """Copy what may still change, for as long as it takes: into a parcel, or to bytes where many files are open.

    A list of pieces, which is a pickle, changes no more.
    """
    return pack(buffers, sparing=True) or [
        buffer if type(buffer) is list else b"".join(wire.views(buffer)) for buffer in buffers
    ]


def _fill(parcel: Parcel, buffers: Sequence[Any]) -> None:
    descriptor = parcel._descriptor
    os.ftruncate(descriptor, parcel.extent)
    place = 0
    for buffer in buffers:
        for view in wire.views(buffer):
            done = 0
            while done < len(view):
                done += os.pwrite(descriptor, view[done:], place + done)
            place += done
        place = _aligned(place)
    seal(descriptor)


class Carrier:
    """A message that is to go with the descriptor of its parcel."""

    __slots__ = ("head", "kind", "message", "parcel")

    def __init__(self, kind: int, head: bytes, parcel: Parcel) -> None:
        self.kind = kind
        self.head = head
        self.parcel = parcel
        body = wire.pack_parcel(kind, head, parcel.sizes)
        self.message = memoryview(wire.prefix(wire.PARCEL, len(body), 0) + body)

    def __len__(self) -> int:
        return len(self.message)


class Arrivals:
    """The descriptors that came over one connection and that no message has claimed yet."""

    def __init__(self) -> None:
        self._descriptors: deque[int] = deque()

    def add(self, ancillary: list[tuple[int, int, bytes]]) -> None:
        """Take what came beside some bytes; nothing at all came where there was no descriptor free for it."""
        found = array.array("i")
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                found.frombytes(data[: len(data) - len(data) % found.itemsize])
        self._descriptors.extend(found or [_LOST])
        if len(self._descriptors) > _UNCLAIMED:
            raise ProtocolError("descriptors come without messages")

    def claim(self, sizes: Sequence[int]) -> Sequence[Any]:
        """Return the buffers of the oldest message that has claimed none: a parcel, or a copy where few are free.

        Nobody can cut off, or write to, what is in a parcel: a file without the seals is refused.
        """
        if not self._descriptors:
            raise ProtocolError("a parcel came without its descriptor")
        descriptor = self._descriptors.popleft()
        if descriptor == _LOST:
            return Lost(sizes)
        parcel = Parcel(descriptor, sizes)
        if not parcel.extent or not _is_sealed(descriptor, parcel.extent):
            raise ProtocolError("a parcel is not sealed, or not as large as it should be")
        return _copied(parcel) if _is_high(descriptor) else parcel

    def close(self) -> None:
        """Close what nobody has claimed."""
        while self._descriptors:
            descriptor = self._descriptors.popleft()
            if descriptor != _LOST:
                os.close(descriptor)


def _is_high(descriptor: int) -> bool:
    """Whether many descriptors are in use: all below this one are, since the lowest free one is given out."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 0 < limit <= 2 * descriptor


def _copied(parcel: Parcel) -> Sequence[Any]:
    try:
        return [bytearray(view) for view in parcel]
    except (OSError, MemoryError):
        return parcel


def lament() -> None:
    """Say what became of a parcel, where it is looked for."""
    raise OSError(
        errno.EMFILE,
        "no file descriptor was free in a process that had to pass this on\n"
        "  raise the limit on open files (ulimit -n), or close some",
    )


def _aligned(size: int) -> int:
    return -(-size // _ALIGNED) * _ALIGNED


def _is_sealed(descriptor: int, extent: int) -> bool:
    try:
        return is_sealed(descriptor) and os.fstat(descriptor).st_size == extent
    except OSError:
        return False


def _mapped(descriptor: int, size: int) -> mmap.mmap:
    """Map a file for this process alone.

    Python's own mapping of a file would hold a descriptor for as long as somebody refers to the buffers, which are the
    user's. So the file takes the place of memory that Python has mapped without one, and gives back in the end.
    """
    import ctypes

    area = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    address = ctypes.addressof(ctypes.c_char.from_buffer(area))
    flags = mmap.MAP_PRIVATE | _MAP_FIXED
    if _libc().mmap(address, size, mmap.PROT_READ | mmap.PROT_WRITE, flags, descriptor, 0) != address:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return area


_MAP_FIXED: Final = 0x10


@functools.cache
def _libc() -> Any:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    return libc
