"""The submit side: calls out in batches, outcomes in by one thread, and a new interchange when the old one dies."""

from __future__ import annotations

import itertools
import logging
import os
import select
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Final

from flowcore.errors import ShutdownError
from flowcore.serialize import DeserializationError
from flowcore.serialize.exceptions import unpack_exception
from flowcore.serialize.pickling import loads
from flowcore_htex import wire
from flowcore_htex.broker import Broker
from flowcore_htex.errors import InterchangeLost, from_record
from flowcore_htex.link import Link, LinkClosed
from flowcore_htex.outbox import Call, HtexFuture, Outbox
from flowcore_htex.parcels import weight_sent

logger = logging.getLogger(__name__)

_BATCH: Final = 64
_BATCH_BYTES: Final = 1 << 18
_PAUSE: Final = 0.0005
"""Seconds since the last send after which a task is sent at once, whatever is in flight."""

_MOUTHFUL: Final = 16 << 20
"""Bytes of big outcomes after which the interchange is told that they have been taken in."""

_FAREWELL: Final = 3.0
_ANSWER: Final = 5.0
_BIRTH: Final = 30.0
"""Seconds that an interchange may take to say its first word, on a busy machine."""

_SHORT_LIFE: Final = 0.3
_SHORT_LIVES: Final = 4
"""So many interchanges in a row that die within `_SHORT_LIFE` of their greeting, or before, and there is no next."""

_clients: weakref.WeakSet[Client] = weakref.WeakSet()


class Client:
    """Owns the link to the interchange, and the futures.

    `submit` may be called from any thread and never waits. Everything that arrives is handled by one thread,
    `flowcore-htex-client-LABEL`; it writes `_link` and `managers`. `_lock` guards the outbox, the
    futures' ids and sending; no callback and no user code runs while it is held, but for signal handlers: one that
    shuts down may come in the middle of anything.

    Args:
        label: the executor's label.
        broker: starts the interchange.
        heartbeat_threshold: seconds of silence after which the interchange is taken for dead.
        changed: called with each record about a manager that came, went or was refused.
        broken: called with the error when there can be no interchange any more.
        stuck_changed: called when the answer of `stuck` has changed.
    """

    def __init__(
        self,
        label: str,
        broker: Broker,
        heartbeat_threshold: float,
        changed: Callable[[dict[str, Any]], None],
        broken: Callable[[Exception], None],
        stuck_changed: Callable[[], None],
    ) -> None:
        self.managers: dict[str, dict[str, Any]] = {}
        self._label = label
        self._broker = broker
        self._threshold = heartbeat_threshold
        self._changed = changed
        self._broken = broken
        self._stuck_changed = stuck_changed
        self._lock = threading.RLock()
        self._futures: dict[int, HtexFuture] = {}
        self._outbox = Outbox()
        self._numbers = itertools.count(1)
        self._last_send = 0.0
        self._taken = 0
        self._stuck: list[int] = []
        self._closing = False
        self._sending = False
        self._broken_off = False  # what was being sent, by a signal handler: nobody knows how much of it has gone
        self._ending = threading.RLock()
        self._ended = self._abandoned = False
        self._short_lives = 0
        self._greeting: float | None = None
        self.failure: InterchangeLost | None = None
        self._questions: dict[int, tuple[threading.Event, list[Any]]] = {}
        self._question_numbers = itertools.count(1)
        self._greeted = threading.Event()
        self._link: Link | None = None
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._close_wake = weakref.finalize(self, os.close, self._wake)
        self._receiver_id = 0
        self._thread: threading.Thread | None = None

    # -- life

    def start(self) -> None:
        """Start the interchange and the thread, also again after a failure; raises `InterchangeFailed` or `OSError`."""
        self.failure = None
        self._short_lives = 0
        self._greeting = None
        self._greeted.clear()
        link = self._broker.launch([])
        with self._lock:
            self._begin_with(link)
        _clients.add(self)
        self._thread = threading.Thread(target=self._run, name=f"flowcore-htex-client-{self._label}", daemon=True)
        self._thread.start()

    def _begin_with(self, link: Link) -> None:
        """Turn to an interchange that knows nothing: all that is outstanding waits to be sent; the lock is held."""
        old, self._link = self._link, link
        if old is not None:
            old.close()
        self._broken_off = False
        self._outbox.restart(self._futures.values())
        self._taken = 0
        self._stuck = []

    def wait_until_greeted(self, timeout: float) -> bool:
        """Wait until the interchange has said that it serves; `failure` tells where it never will."""
        return self._greeted.wait(timeout) and self.failure is None and not self._closing

    def shutdown(self) -> None:
        """End the interchange and with it the managers; every future is done afterwards. Idempotent."""
        within = self._lock._is_owned()  # type: ignore[attr-defined]  # `Condition` uses it, too
        with self._lock:
            first = not self._closing
            self._closing = True
            if first:
                self._say(wire.END)
        self.fail_all(ShutdownError(f"executor {self._label} was shut down before this task ended"))
        if within or threading.get_ident() == self._receiver_id:  # a signal handler, or called back by a future
            self._abandoned = True  # the thread, which is not to be waited for, closes the rest when it ends
            self._broker.reap(0.0 if self._sending else _FAREWELL)
            if self._thread is None or not self._thread.is_alive():
                self._close()
            return
        with self._ending:
            if not self._ended:
                self._end_thread()
                self._close()
                self._close_wake()  # never by the thread, since others may be about to wake it; else with this object

    def _end_thread(self) -> None:
        thread = self._thread
        if thread is not None:
            os.eventfd_write(self._wake, 1)
            thread.join(_FAREWELL)
        self._broker.reap(_FAREWELL)
        while thread is not None and thread.is_alive():  # it has started another interchange, or a callback goes on
            thread.join(_FAREWELL)
            self._broker.reap(_FAREWELL)

    def _close(self) -> None:
        with self._lock:
            if self._ended:
                return
            self._ended = True
            link, self._link = self._link, None
            if link is not None:
                link.close()
        self.managers.clear()
        self._broker.close()
        _clients.discard(self)

    # -- tasks out

    def submit(
        self, func: Callable[..., Any], spec: bytes, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> HtexFuture:
        """Send a task, soon; raises `SerializationError` and `ShutdownError`."""
        call = self._outbox.pack(func, spec, args, kwargs)
        future = HtexFuture(self)
        future.call = call
        future.tid = next(self._numbers)
        try:
            self._enqueue(future, call)
            self._refuse_when_closing()  # a signal handler may have shut down in the middle of that
        except BaseException:  # an interrupt: nobody has the future
            self.cancelled(future)
            raise
        return future

    def _refuse_when_closing(self) -> None:
        if self._closing:
            raise ShutdownError(f"executor {self._label} has been shut down")

    def _enqueue(self, future: HtexFuture, call: Call) -> None:
        with self._lock:
            self._refuse_when_closing()
            self._futures[future.tid] = future
            waiting = self._outbox.add(future, call)
            if threading.get_ident() == self._receiver_id:
                if waiting >= _BATCH:
                    self._flush()  # the rest goes at the end of the batch of outcomes
            elif (
                waiting == len(self._futures)
                or waiting >= _BATCH
                or self._outbox.size >= _BATCH_BYTES
                or time.perf_counter() - self._last_send > _PAUSE
            ):
                self._flush()
            elif waiting == 1:
                os.eventfd_write(self._wake, 1)

    def blocks(self) -> set[str]:
        """Return the ids of the blocks that have a manager now."""
        return {manager["block_id"] for manager in list(self.managers.values())}

    def outstanding(self) -> int:
        """Count the futures that are not done."""
        return len(self._futures)

    def stuck(self) -> int:
        """Count the tasks that wait, and that no manager there is will ever have room, or time, for; at least some."""
        return sum(tid in self._futures for tid in self._stuck)

    def cancelled(self, future: HtexFuture) -> None:
        """Tell everybody that nobody wants the outcome any more."""
        with self._lock:
            if self._futures.pop(future.tid, None) is None:
                return
            self._outbox.drop(future)
            if not self._closing and self._receiver_id != threading.get_ident():
                self._flush()

    def _flush(self) -> None:
        """Send what is in the outbox, as far as the interchange may have it; the lock is held."""
        self._last_send = time.perf_counter()
        self._use(self._outbox.send)

    def _say(self, kind: int, head: bytes = b"") -> None:
        """Send a message that is no call; the lock is held."""
        self._use(lambda link: link.send(kind, head))

    def _use(self, send: Callable[[Link], None]) -> None:
        """Send over the link, if it is whole; the lock is held."""
        link = self._link
        if link is None or self._broken_off:
            return
        if self._sending:  # this is a signal handler, in the middle of it; the thread sends what waits
            os.eventfd_write(self._wake, 1)
            return
        self._sending = True
        try:
            send(link)
            self._wake_after_sending(link)
        except LinkClosed:
            pass  # the thread notices, and sends everything again to the next interchange
        except BaseException:  # a signal handler's, as for Ctrl-C: the thread turns to another interchange, too
            self._broken_off = True
            os.eventfd_write(self._wake, 1)
            raise
        finally:
            self._sending = False

    def _wake_after_sending(self, link: Link) -> None:
        """Wake the thread if there is something to receive; the lock is held.

        Where the link's descriptor is edge-triggered, sending from another thread takes away what would wake it.
        """
        if self._receiver_id != threading.get_ident() and link.pending():
            os.eventfd_write(self._wake, 1)

    # -- outcomes in

    def _run(self) -> None:
        self._receiver_id = threading.get_ident()
        while True:
            try:
                self._receive()
            except LinkClosed as error:
                if self._closing or not self._restart(str(error)):
                    break
            except Exception:
                logger.exception("executor %s: the interchange is not understood; it is started again", self._label)
                if self._closing or not self._restart("it sent what is no message"):
                    break
        self._greeted.set()
        for event, _ in list(self._questions.values()):
            event.set()
        if self._abandoned:
            self._close()

    def _receive(self) -> None:
        """Handle what arrives, until the link breaks."""
        link = self._link
        assert link is not None
        poller = select.poll()
        poller.register(self._wake, select.POLLIN)
        for descriptor in link.other_filenos():
            poller.register(descriptor, select.POLLIN)
        death = self._broker.death
        if death is not None:
            poller.register(death, select.POLLIN)
        watched = select.POLLIN
        poller.register(link.fileno(), watched)
        link.on_blocked = lambda _blocked: os.eventfd_write(self._wake, 1)
        while True:
            wanted = select.POLLIN | select.POLLOUT if link.backlog else select.POLLIN
            if wanted != watched:
                poller.modify(link.fileno(), wanted)
                watched = wanted
            dead = False
            with self._lock:
                pending = link.pending()
            if not pending:
                left = link.heard + self._patience - time.monotonic()
                ready = [descriptor for descriptor, _ in poller.poll(1000 * max(0.0, left))]
                if self._wake in ready:
                    os.eventfd_read(self._wake)
                dead = death in ready
            with self._lock:
                messages = link.receive()
            silent = not messages
            messages.reverse()
            while messages:  # what is handled is not kept until something else comes: it may be large
                try:
                    self._handle(*messages.pop())
                except wire.MALFORMED as error:
                    logger.warning("executor %s: a message is not understood: %s", self._label, error)
            if self._outbox.due() or link.backlog:
                with self._lock:
                    self._flush()
            if fault := self._fault(link, dead=dead, silent=silent):
                raise LinkClosed(fault)

    def _fault(self, link: Link, *, dead: bool, silent: bool) -> str | None:
        """Tell why there has to be another interchange, None where there is no reason."""
        if self._broken_off:
            return "an interrupt broke off what was being sent to it"
        if dead and silent:
            return "its process has ended"
        if silent and time.monotonic() - link.heard > self._patience:
            return f"it was silent for {self._patience:g} s"
        return None

    @property
    def _patience(self) -> float:
        """Seconds of silence after which the interchange is taken for dead."""
        return self._threshold if self._greeting is not None else max(self._threshold, _BIRTH)

    def _handle(self, kind: int, head: bytes, buffers: Sequence[Any]) -> None:
        if kind == wire.RESULTS:
            self._results(head)
        elif kind == wire.BIG_RESULT:
            tid, _, status = wire.unpack_big_result(head)
            future = self._futures.pop(tid, None)
            if future is not None:
                self._settle(future, status, b"", buffers)
            self._took(weight_sent(buffers))
        elif kind == wire.LOST:
            record = wire.unpack_json(head)
            for tid in record["tids"]:
                future = self._futures.pop(tid, None)
                if future is not None:
                    self._outbox.landed(future)
                    _fail(future, from_record(record))
        elif kind == wire.MANAGERS:
            self._manager_changed(wire.unpack_json(head))
        elif kind == wire.ANSWER:
            answer = wire.unpack_json(head)
            self.managers.update((one["manager"], one) for one in answer["managers"] if one["manager"] in self.managers)
            question = self._questions.pop(answer["id"], None)
            if question is not None:
                question[1].append(answer["managers"])
                question[0].set()
        elif kind == wire.STUCK:
            self._stuck = wire.unpack_ids(head)
            self._stuck_changed()
        elif kind == wire.HELLO:
            self._greeting = time.monotonic()
            self._greeted.set()

    def _results(self, head: bytes) -> None:
        tids, statuses, payloads = wire.unpack_results(head)
        pop = self._futures.pop
        for tid, status, payload in zip(tids, statuses, payloads):  # noqa: B905 - one length, by construction
            future = pop(tid, None)
            if future is not None:
                self._settle(future, status, payload, ())

    def _took(self, size: int) -> None:
        """Tell the interchange, now and then, how much of the big outcomes has been taken in."""
        self._taken += size
        if self._taken < _MOUTHFUL:
            return
        taken, self._taken = self._taken, 0
        with self._lock:
            self._say(wire.TAKEN, wire.pack_ids([taken]))

    def _settle(self, future: HtexFuture, status: int, payload: Any, buffers: Sequence[Any]) -> None:
        self._outbox.landed(future)
        try:
            if buffers:
                payload, *buffers = buffers
            if status == wire.NONE:
                future.set_result(None)
            elif status == wire.VALUE:
                future.set_result(loads(payload, buffers))
            else:
                future.set_exception(unpack_exception(payload))
        except BaseException as error:  # noqa: BLE001 - unpickling and callbacks are foreign code; the thread goes on
            _fail(future, DeserializationError("the result of a task", f"{type(error).__name__}: {error}"))

    def _manager_changed(self, record: dict[str, Any]) -> None:
        manager = record["manager"]
        if record["event"] == "lost":
            known = self.managers.pop(manager["manager"], {})  # an interchange knows less of those of the one before
            record = {**record, "manager": {**known, **manager}}
        elif record["event"] != "refused":
            self.managers[manager["manager"]] = manager
        self._changed(record)

    # -- the interchange dies

    def _restart(self, why: str) -> bool:
        """Start another interchange and tell it everything; False where that is hopeless."""
        ending = self._broker.reap()
        error = InterchangeLost(self._label, f"{why}; {ending}")
        lived = 0.0 if self._greeting is None else time.monotonic() - self._greeting
        if not self._broken_off:
            self._short_lives = self._short_lives + 1 if lived < _SHORT_LIFE else 0
        self._greeting = None
        if self._greeted.is_set() and self._short_lives < _SHORT_LIVES:
            logger.warning("executor %s: the interchange is started again: %s; %s", self._label, why, ending)
            try:
                self._resend(self._broker.launch(list(self.managers)))
                return True
            except Exception as failure:  # noqa: BLE001 - whatever it is, nobody must wait for ever
                error = InterchangeLost(self._label, f"it cannot be started again: {failure}")
        self.failure = error
        self.managers.clear()
        self.fail_all(error)
        if self._greeted.is_set() and not self._closing:
            self._broken(error)
        return False

    def _resend(self, link: Link) -> None:
        """Send all that is outstanding over a new link, or that nothing is wanted any more."""
        with self._lock:
            self._begin_with(link)
            self._flush()
            self._say(wire.END if self._closing else wire.READY)
        for event, _ in list(self._questions.values()):
            event.set()

    def fail_all(self, error: Exception) -> None:
        """Fail every future that is not done."""
        with self._lock:  # the thread takes futures out without it: each belongs to whoever has taken it out
            taken = [self._futures.pop(tid, None) for tid in list(self._futures)]
            futures = [future for future in taken if future is not None]
            for future in futures:
                self._outbox.drop(future)
        for future in futures:
            _fail(future, error)
        if futures and not self._ended:
            os.eventfd_write(self._wake, 1)

    def fail(self, future: HtexFuture, error: Exception) -> None:
        """Fail one task, and tell everybody that nobody wants its outcome."""
        with self._lock:
            known = self._futures.pop(future.tid, None) is not None
            if known:
                self._outbox.drop(future)
                self._flush()
        if known:
            _fail(future, error)

    # -- questions

    def ask(self, what: str, blocks: list[str] | None = None) -> list[dict[str, Any]] | None:
        """Ask the interchange about its managers, and the next one if it dies; None if there is no answer in time."""
        deadline = time.monotonic() + _ANSWER
        while not self._closing and self.failure is None and threading.get_ident() != self._receiver_id:
            left = deadline - time.monotonic()
            if left <= 0 or self._link is None:
                break
            answer = self._ask_once(what, blocks, left)
            if answer is not None:
                return answer
        return None

    def _ask_once(self, what: str, blocks: list[str] | None, timeout: float) -> list[dict[str, Any]] | None:
        number = next(self._question_numbers)
        event, answer = self._questions[number] = (threading.Event(), [])
        try:
            with self._lock:
                self._flush()  # what was submitted before the question has been sent before it
                self._say(wire.ASK, wire.pack_json({"id": number, "what": what, "blocks": blocks or []}))
            event.wait(timeout)  # where the link is closed, the thread sets it when there is another, or will be none
        finally:
            self._questions.pop(number, None)
        return answer[0] if answer else None

    def drop_after_fork(self) -> None:
        """Close what a forked child has inherited, so that it does not keep the run alive."""
        self._closing = True
        if self._link is not None:
            self._link.close()
        self._broker.close_sockets()


def _fail(future: HtexFuture, error: Exception) -> None:
    try:
        future.set_exception(error)
    except BaseException as failure:  # noqa: BLE001 - it was cancelled, or a callback raised; neither concerns others
        logger.debug("the error of task %s came too late: %s", future.tid, failure)


def _after_fork() -> None:
    for client in list(_clients):
        client.drop_after_fork()


os.register_at_fork(after_in_child=_after_fork)
