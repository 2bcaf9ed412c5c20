"""One worker process: receive a batch, call, collect outcomes, send them soon."""

from __future__ import annotations

import _thread
import contextlib
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from flowcore.serialize.exceptions import pack_exception
from flowcore.serialize.pickling import loads, pieces
from flowcore_htex import wire
from flowcore_htex.link import BlockingLink, LinkClosed, Message
from flowcore_htex.matching import learn

_KEEP_AT_MOST: Final = 0.004
"""Seconds that a finished outcome may wait for its neighbours, as far as the lengths of tasks can be foretold."""

_LOOK: Final = 0.02
"""Seconds after which outcomes are looked for that wait all the same, behind a task that turns out long."""


class Worker:
    """Runs the tasks that its manager sends over `sock`, one after the other, until the manager closes it."""

    def __init__(self, sock: socket.socket, cells: memoryview) -> None:
        """Make a worker.

        Args:
            sock: the connection to the manager.
            cells: two 64-bit cells shared with the manager. The worker writes the id of each task that it starts to
                the first, where the manager finds it when the worker has died; the manager counts the messages that
                call tasks off in the second, so that the worker looks for them before it starts another task.
        """
        self._link = BlockingLink(sock)
        self._cells = cells
        self._inbox: deque[Message] = deque()
        self._heeded = 0
        self._cancelled: set[int] = set()
        self._recalled: dict[int, deque[int]] = {}
        self._returned: list[tuple[int, int]] = []
        self._pid = os.getpid()
        self._blobs: dict[int, bytes] = {}
        self._functions: dict[int, Callable[..., Any]] = {}
        self._estimates: dict[int, float] = {}
        self._oldest = 0.0
        self._turn = _thread.allocate_lock()  # who has it may touch what is kept, and send
        self._watched = False
        self._clear()

    def run(self) -> None:
        """Serve until the connection ends."""
        inbox = self._inbox
        try:
            while True:
                self._receive()
                self._turn.acquire()
                while inbox:
                    self._handle(*inbox.popleft())
                self._cancelled.clear()  # the tasks that are called off come before the message that does it
                self._recalled.clear()
                self._flush()
                self._turn.release()
        except LinkClosed:
            return

    def _receive(self) -> None:
        """Wait for what the manager sends; what calls tasks off counts at once, before the tasks that came with it."""
        for message in self._link.receive():
            if message[0] == wire.CANCEL:
                self._heeded += 1
                self._cancelled.update(wire.unpack_ids(message[1]))
            elif message[0] == wire.RECALL:
                self._heeded += 1
                for tid in wire.unpack_ids(message[1]):
                    self._recalled.setdefault(tid, deque()).append(self._heeded)
            else:
                self._inbox.append(message)

    def _begins(self, tid: int) -> bool:
        """Say that a task begins, and see whether it has been called off: in this order, see `Recall`."""
        self._cells[0] = tid
        while self._heeded < self._cells[1]:
            self._receive()
        if tid in self._cancelled:
            self._keep(tid, -1.0, wire.NONE, b"", [])
            return False
        if self._recalled.get(tid):
            self._returned.append((tid, self._recalled[tid].popleft()))  # it may come here again, and be recalled again
            return False
        return True

    def _handle(self, kind: int, head: bytes, buffers: Sequence[Any]) -> None:
        if kind == wire.TASKS:
            tids, functions, payloads, spec = wire.unpack_tasks(head)
            for tid, number, payload in zip(tids, functions, payloads):  # noqa: B905 - one length, by construction
                self._task(tid, number, payload, (), spec)
        elif kind == wire.BIG_TASK:
            tid, number, spec = wire.unpack_big_task(head)
            self._task(tid, number, b"", buffers, spec)
        elif kind == wire.FUNCTION:
            number, blob = wire.unpack_function(head)
            self._blobs[number] = blob
        elif kind == wire.FORGET:
            for number in wire.unpack_ids(head):
                self._blobs.pop(number, None)
                self._functions.pop(number, None)
                self._estimates.pop(number, None)

    def _task(self, tid: int, number: int, payload: bytes, buffers: Sequence[Any], spec: bytes) -> None:
        estimate = self._estimates.get(number)
        if self._tids and (estimate is None or time.perf_counter() - self._oldest + estimate > _KEEP_AT_MOST):
            self._flush()  # before the next one begins: what a worker keeps that dies then would run again
        if not self._begins(tid):
            return
        begin = time.perf_counter()
        restore = _set_environment(spec) if spec else None
        large: list[Any] = []
        if not self._watched and (self._tids or self._returned):
            self._watch()
        self._turn.release()
        try:
            function, args, kwargs = self._call(number, payload, buffers)
            result = function(*args, **kwargs)
            if self._pid != os.getpid():
                os._exit(0)  # the task forked, and this is the child: it must not speak for its parent
            status, blob = wire.NONE, b""
            if result is not None:
                status = wire.VALUE
                blob, large = _packed(result, function)
        except SystemExit:
            if self._pid == os.getpid():
                self._turn.acquire()
                self._flush()
            raise
        except BaseException as error:  # noqa: BLE001 - whatever a task raises is its outcome
            if self._pid != os.getpid():
                os._exit(1)
            status, blob = wire.ERROR, pack_exception(error, skip=1)
        self._turn.acquire()
        if restore is not None:
            restore()
        seconds = time.perf_counter() - begin
        self._estimates[number] = learn(estimate, seconds)
        self._keep(tid, seconds, status, blob, large)

    def _watch(self) -> None:
        """Have a thread send what is kept if the task that is about to run turns out long.

        It ends with what it was started for: most tasks have the process to themselves, also those that fork. A task
        that keeps the interpreter's lock delays it.
        """
        try:
            _thread.start_new_thread(self._send_what_waits, ())
        except RuntimeError:  # too many threads
            self._flush()
        else:
            self._watched = True

    def _send_what_waits(self) -> None:
        while True:
            time.sleep(_LOOK)
            with self._turn:
                if self._tids and time.perf_counter() - self._oldest <= _KEEP_AT_MOST:
                    continue
                self._watched = False
                with contextlib.suppress(LinkClosed):  # which is noticed when the task has ended
                    self._flush()
                return

    def _keep(self, tid: int, seconds: float, status: int, blob: bytes, large: list[Any]) -> None:
        if large or len(blob) >= wire.BIG:
            self._flush()
            self._link.send(wire.BIG_RESULT, wire.pack_big_result(tid, seconds, status), large or [blob])
            return
        if not self._tids:
            self._oldest = time.perf_counter()
        self._tids.append(tid)
        self._seconds.append(seconds)
        self._statuses.append(status)
        self._payloads.append(blob)
        self._bytes += len(blob)
        if self._bytes > wire.BIG:
            self._flush()

    def _flush(self) -> None:
        if self._returned:
            returned, self._returned = self._returned, []
            self._link.send(wire.RECALL, wire.pack_refusals(returned))
        if self._tids:
            head = wire.pack_results(self._tids, self._seconds, self._statuses, self._payloads)
            self._clear()
            self._link.send(wire.RESULTS, head)

    def _clear(self) -> None:
        self._tids: list[int] = []
        self._seconds: list[float] = []
        self._statuses = bytearray()
        self._payloads: list[bytes] = []
        self._bytes = 0

    def _call(self, number: int, payload: bytes, buffers: Sequence[Any]) -> tuple[Callable[..., Any], Any, Any]:
        """Return the function and the arguments; number 0 stands for a callable that travels with its arguments."""
        if number == 0:
            function, (args, kwargs) = _unpacked("a call", payload, buffers)
            return function, args, kwargs
        function = self._functions.get(number)
        if function is None:
            blob = self._blobs[number]
            function = self._functions[number] = _unpacked("the function of a task", blob, ())
        args, kwargs = _unpacked("the arguments of a task", payload, buffers)
        return function, args, kwargs


def _unpacked(what: str, payload: Any, buffers: Sequence[Any]) -> Any:
    """Unpickle; what is big has its pickle before its other buffers."""
    try:
        if buffers:
            payload, *buffers = buffers
        return loads(payload, buffers)
    except Exception as error:
        from flowcore.serialize.errors import DeserializationError

        raise DeserializationError(what, f"{type(error).__name__}: {error}") from error


def _packed(result: Any, function: Callable[..., Any]) -> tuple[bytes, list[Any]]:
    large: list[Any] = []
    try:
        return wire.parted(pieces(result, large), large)
    except Exception as error:
        from flowcore.serialize.errors import SerializationError

        name = getattr(function, "__name__", type(function).__name__)
        reason = f"{type(result).__name__}: {type(error).__name__}: {error}"
        raise SerializationError(name, reason, "the result") from error


def _set_environment(spec: bytes) -> Callable[[], None]:
    """Set the environment variables that a task asks for, and return what takes them back."""
    wanted = wire.unpack_json(spec).get("env", {})
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)

    def restore() -> None:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    return restore
