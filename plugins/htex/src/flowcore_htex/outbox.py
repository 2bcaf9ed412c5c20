"""What waits to be sent to the interchange: calls, packed; cancellations; functions that nobody needs any more."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol

from flowcore.futures import TaskFuture
from flowcore.serialize import FunctionCache, FunctionEntry, SerializationError
from flowcore.serialize.functions import function_name
from flowcore.serialize.pickling import dumps, dumps_call
from flowcore_htex import wire
from flowcore_htex.link import Link


class Call(NamedTuple):
    """One call, packed; kept until its outcome is there, in case it has to be sent again."""

    entry: FunctionEntry | None
    payload: bytes
    buffers: list[Any]
    spec: bytes


class Canceller(Protocol):
    """Who is told that nobody wants the outcome of a future any more."""

    def cancelled(self, future: HtexFuture) -> None:
        """Take note."""


class HtexFuture(TaskFuture[Any]):
    """The future of one task. `cancel` takes effect at once and stops the task, even if it runs."""

    __slots__ = ("call", "client", "tid")

    call: Call | None
    tid: int

    def __init__(self, client: Canceller) -> None:
        super().__init__()
        self.client = client

    def cancel(self) -> bool:
        """Cancel; False only where there already is an outcome."""
        if not self.done() and super().cancel():
            self.client.cancelled(self)
        return self.cancelled()


class Outbox:
    """Packs calls, in any thread, and sends them in batches; all but `pack` wants the client's lock held.

    Attributes:
        size: bytes of the payloads that wait.
        cancellations: ids of tasks whose outcome nobody wants; may be appended to without a lock.
    """

    def __init__(self) -> None:
        self.size = 0
        self.cancellations: deque[int] = deque()
        self._futures: deque[HtexFuture] = deque()
        self._released: deque[int] = deque()
        self._functions = FunctionCache(self._released.append)
        self._sent: set[int] = set()

    def pack(self, func: Callable[..., Any], spec: bytes, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        """Pickle a call; raises `SerializationError`."""
        buffers: list[Any] = []
        entry: FunctionEntry | None = None
        try:
            entry = self._functions.entry(func)
            payload = dumps((func, (args, kwargs)), buffers) if entry is None else dumps_call(args, kwargs, buffers)
        except Exception as error:
            what = "an argument" if entry is not None else "the function or an argument"
            raise SerializationError(function_name(func), f"{type(error).__name__}: {error}", what) from error
        if buffers or len(payload) >= wire.BIG:
            return Call(entry, b"", [payload, *buffers], spec)
        return Call(entry, payload, buffers, spec)

    def add(self, future: HtexFuture, call: Call) -> int:
        """Queue a call; returns how many wait."""
        self._futures.append(future)
        self.size += len(call.payload) + (sum(map(_size, call.buffers)) if call.buffers else 0)
        return len(self._futures)

    def due(self) -> bool:
        """Whether anything waits."""
        return bool(self._futures or self.cancellations or self._released)

    def restart(self, futures: Iterable[HtexFuture]) -> None:
        """Begin again with a new interchange, which knows nothing: these futures' calls wait, and no other."""
        self._futures = deque(futures)
        self.cancellations.clear()
        self._sent.clear()

    def send(self, link: Link, room: int) -> None:
        """Send what waits; raises `LinkClosed`.

        Args:
            link: where to.
            room: calls that may be sent, those that wait not yet counted off.
        """
        self._send_calls(link, room + len(self._futures))
        if self.cancellations:
            link.queue(wire.CANCEL, wire.pack_ids(_drained(self.cancellations)))
        if self._released:
            stale = [number for number in _drained(self._released) if number in self._sent]
            self._sent.difference_update(stale)
            if stale:
                link.queue(wire.FORGET, wire.pack_ids(stale))
        link.flush()

    def _send_calls(self, link: Link, room: int) -> None:
        futures = self._futures
        batch: list[tuple[int, int, bytes]] = []
        while futures and room > 0:
            future = futures.popleft()
            call = future.call
            if call is None:
                continue  # cancelled meanwhile
            room -= 1
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


def _size(buffer: Any) -> int:
    return memoryview(buffer).nbytes


def _drained(ids: deque[int]) -> list[int]:
    found = []
    while ids:
        found.append(ids.popleft())
    return found
