"""What waits to be sent to the interchange: calls, packed; cancellations; functions that nobody needs any more."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple, Protocol

from flowcore.futures import TaskFuture
from flowcore.serialize import FunctionCache, FunctionEntry, SerializationError
from flowcore.serialize.functions import function_name
from flowcore.serialize.pickling import pieces, pieces_of_call
from flowcore_htex import wire
from flowcore_htex.link import Link
from flowcore_htex.parcels import snapshot


class Call(NamedTuple):
    """One call, packed; kept until its outcome is there, in case it has to be sent again."""

    entry: FunctionEntry | None
    payload: bytes
    buffers: Sequence[Any]
    spec: bytes
    size: int


class Canceller(Protocol):
    """Who is told that nobody wants the outcome of a future any more."""

    def cancelled(self, future: HtexFuture) -> None:
        """Take note."""


class HtexFuture(TaskFuture[Any]):
    """The future of one task. `cancel` takes effect at once and stops the task, even if it runs."""

    __slots__ = ("call", "client", "sent", "tid")

    call: Call | None
    sent: int
    tid: int

    def __init__(self, client: Canceller) -> None:
        super().__init__()
        self.client = client
        self.sent = 0

    def cancel(self) -> bool:
        """Cancel; False only where there already is an outcome."""
        if not self.done() and super().cancel():
            self.client.cancelled(self)
        return self.cancelled()


WINDOW: Final = 20_000
"""Calls that the interchange may have; more wait in the user's process, which keeps them anyway."""

WINDOW_BYTES: Final = 256 << 20
"""The same in bytes."""

_OVERHEAD: Final = 100


class Outbox:
    """Packs calls, in any thread, and sends them in batches.

    All but `pack` and `landed` want the client's lock held; `landed` is called by the receiving thread alone. What
    flies is what was sent, less what has landed, less what was dropped: three counts, each written in one place.

    Attributes:
        size: bytes of the payloads that wait.
    """

    def __init__(self) -> None:
        self.size = 0
        self._cancellations: list[int] = []
        self._futures: deque[HtexFuture] = deque()
        self._released: deque[int] = deque()
        self._functions = FunctionCache(self._released.append)
        self._sent: set[int] = set()
        self._calls_sent = self._calls_landed = self._calls_dropped = 0
        self._bytes_sent = self._bytes_landed = self._bytes_dropped = 0

    def pack(self, func: Callable[..., Any], spec: bytes, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        """Pickle a call, with the arguments as they are now; raises `SerializationError`."""
        buffers: list[Any] = []
        entry: FunctionEntry | None = None
        try:
            entry = self._functions.entry(func)
            pickled = (
                pieces((func, (args, kwargs)), buffers) if entry is None else pieces_of_call(args, kwargs, buffers)
            )
        except Exception as error:
            what = "an argument" if entry is not None else "the function or an argument"
            raise SerializationError(function_name(func), f"{type(error).__name__}: {error}", what) from error
        payload, parts = wire.parted(pickled, buffers)
        size = _OVERHEAD + len(payload) + sum(map(wire.size, parts))
        return Call(entry, payload, snapshot(parts) if buffers else parts, spec, size)

    def add(self, future: HtexFuture, call: Call) -> int:
        """Queue a call; returns how many wait."""
        self._futures.append(future)
        self.size += call.size
        return len(self._futures)

    def landed(self, future: HtexFuture) -> None:
        """Take note that the outcome of a call is there."""
        future.call = None
        if future.sent:
            self._calls_landed += 1
            self._bytes_landed += future.sent

    def drop(self, future: HtexFuture) -> None:
        """Take note that nobody wants the outcome of a call any more."""
        future.call = None
        if future.sent:
            self._calls_dropped += 1
            self._bytes_dropped += future.sent
            self._cancellations.append(future.tid)

    def due(self) -> bool:
        """Whether anything waits."""
        return bool(self._futures or self._cancellations or self._released)

    def restart(self, futures: Iterable[HtexFuture]) -> None:
        """Begin again with a new interchange, which knows nothing: these futures' calls wait, and no other."""
        self._futures = deque(futures)
        for future in self._futures:
            future.sent = 0
        self._cancellations.clear()
        self._sent.clear()
        self._calls_sent = self._calls_landed = self._calls_dropped = 0
        self._bytes_sent = self._bytes_landed = self._bytes_dropped = 0

    def send(self, link: Link) -> None:
        """Send what waits, as far as the interchange may have it; raises `LinkClosed`."""
        self._send_calls(link)
        if self._cancellations:
            cancelled, self._cancellations = self._cancellations, []
            link.queue(wire.CANCEL, wire.pack_ids(cancelled))
        if self._released:
            stale = [number for number in _drained(self._released) if number in self._sent]
            self._sent.difference_update(stale)
            if stale:
                link.queue(wire.FORGET, wire.pack_ids(stale))
        link.flush()

    def _send_calls(self, link: Link) -> None:
        futures = self._futures
        room = WINDOW - (self._calls_sent - self._calls_landed - self._calls_dropped)
        bytes_room = WINDOW_BYTES - (self._bytes_sent - self._bytes_landed - self._bytes_dropped)
        batch: list[tuple[int, int, bytes]] = []
        while futures and room > 0 and bytes_room > 0:
            future = futures.popleft()
            call = future.call
            if call is None:
                continue  # cancelled meanwhile
            room -= 1
            bytes_room -= call.size
            future.sent = call.size
            self._calls_sent += 1
            self._bytes_sent += call.size
            number = 0 if call.entry is None else call.entry.number
            if call.entry is not None and number not in self._sent:
                self._sent.add(number)
                link.queue(wire.FUNCTION, wire.pack_function(number, call.entry.blob))
            if call.buffers:
                link.queue(wire.BIG_TASK, wire.pack_big_task(future.tid, number, call.spec), call.buffers)
            elif call.spec:
                link.queue(wire.TASKS, wire.pack_tasks([(future.tid, number, call.payload)], call.spec))
            else:
                batch.append((future.tid, number, call.payload))
        if batch:
            link.queue(wire.TASKS, wire.pack_tasks(batch))
        self.size = 0


def _drained(ids: deque[int]) -> list[int]:
    found = []
    while ids:
        found.append(ids.popleft())
    return found
