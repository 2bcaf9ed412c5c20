"""A `concurrent.futures.Future` that is cheap to make, for those who make one per task."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, InvalidStateError
from concurrent.futures import _base as states  # the state names are shared with `concurrent.futures.wait`
from typing import Any, Final, NoReturn, TypeVar

T = TypeVar("T")
Callback = Callable[[Future[T]], object]

logger = logging.getLogger(__name__)

PENDING: Final = states.PENDING
RUNNING: Final = states.RUNNING
CANCELLED: Final = states.CANCELLED
CANCELLED_AND_NOTIFIED: Final = states.CANCELLED_AND_NOTIFIED
FINISHED: Final = states.FINISHED
DONE: Final = frozenset({CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED})


LOOK: Final = 1.0
"""Seconds after which the main thread looks for signals: one that comes just before a wait does not end it."""


def pass_gate(gate: threading.Lock, timeout: float | None = None) -> bool:
    """Take a lock that another thread releases; False where `timeout` seconds were not enough.

    In the main thread Python's signal handlers run meanwhile, after `LOOK` at the latest.
    """
    if threading.get_ident() != threading.main_thread().ident:
        return gate.acquire(timeout=-1 if timeout is None else max(timeout, 0))
    deadline = None if timeout is None else time.monotonic() + timeout
    left = LOOK
    while left > 0:
        if deadline is not None:
            left = max(min(LOOK, deadline - time.monotonic()), 0)
        if gate.acquire(timeout=left):
            return True
    return False


class TaskFuture(Future[T]):
    """A future that is small, and that an interrupt leaves whole.

    The standard library's future allocates a condition, a reentrant lock, a deque and two lists, 1.7 microseconds and
    1 kB; this one allocates a reentrant lock. Ctrl-C while somebody waits for that one may leave its lock taken for
    ever, since a condition takes it in Python code; here who waits has a lock of their own. In all else it behaves as
    its base class does, `concurrent.futures.wait` and `as_completed` included, except that `cancel` takes effect at
    once: there is no notification to wait for.
    """

    __slots__ = ("_callbacks", "_cond", "_exception", "_gates", "_lock", "_result", "_state", "_waiter_list")

    def __init__(self) -> None:  # the base class's __init__ is what this class replaces
        self._lock = threading.RLock()  # a signal handler may set the future while the thread it interrupts looks at it
        self._cond: threading.Condition | None = None
        self._state: str = PENDING
        self._result: T | None = None
        self._exception: BaseException | None = None
        self._callbacks: Callback[T] | list[Callback[T]] | None = None  # a list where there are several
        self._waiter_list: list[Any] | None = None
        self._gates: list[threading.Lock] | None = None  # released when there is an outcome

    @property
    def _condition(self) -> threading.Condition:  # type: ignore[override]  # the base class has a plain attribute
        condition = self._cond
        if condition is None:
            with self._lock:
                condition = self._cond
                if condition is None:
                    condition = self._cond = threading.Condition(self._lock)
        return condition

    @property
    def _waiters(self) -> list[Any]:  # type: ignore[override]  # the base class has a plain attribute
        if self._waiter_list is None:
            self._waiter_list = []
        return self._waiter_list

    def done(self) -> bool:
        """Whether there is an outcome: a result, an exception or a cancellation."""
        return self._state in DONE

    def cancelled(self) -> bool:
        """Whether the future was cancelled."""
        return self._state in (CANCELLED, CANCELLED_AND_NOTIFIED)

    def running(self) -> bool:
        """Whether the task is known to be running."""
        return self._state == RUNNING

    def cancel(self) -> bool:
        """Cancel unless running or done; callbacks and waiters learn of it before this returns."""
        with self._lock:
            if self._state in (CANCELLED, CANCELLED_AND_NOTIFIED):
                return True
            if self._state != PENDING:
                return False
            self._state = CANCELLED_AND_NOTIFIED
            callbacks = self._wake("add_cancelled")
        self._run(callbacks)
        return True

    def set_running_or_notify_cancel(self) -> bool:
        """Mark the task as running; False where it was cancelled before that."""
        with self._lock:
            if self._state in (CANCELLED, CANCELLED_AND_NOTIFIED):
                return False
            if self._state != PENDING:
                message = f"future in unexpected state: {self._state}"
                raise InvalidStateError(message)
            self._state = RUNNING
            return True

    def set_result(self, result: T) -> None:
        """Finish with a result; an `InvalidStateError` where there already is an outcome."""
        with self._lock:
            if self._state in DONE:
                message = f"future already {self._state.lower()}"
                raise InvalidStateError(message)
            self._result = result
            self._state = FINISHED
            callbacks = self._wake("add_result")
        self._run(callbacks)

    def set_exception(self, exception: BaseException | None) -> None:
        """Finish with an exception; an `InvalidStateError` where there already is an outcome."""
        with self._lock:
            if self._state in DONE:
                message = f"future already {self._state.lower()}"
                raise InvalidStateError(message)
            self._exception = exception
            self._state = FINISHED
            callbacks = self._wake("add_exception")
        self._run(callbacks)

    def add_done_callback(self, fn: Callback[T]) -> None:
        """Call `fn(self)` when there is an outcome, at once if there is one already."""
        with self._lock:
            if self._state not in DONE:
                callbacks = self._callbacks
                if callbacks is None:
                    self._callbacks = fn
                elif isinstance(callbacks, list):
                    callbacks.append(fn)
                else:
                    self._callbacks = [callbacks, fn]
                return
        self._run([fn])

    def result(self, timeout: float | None = None) -> T:
        """Wait for the result and return it, or raise the task's exception.

        Args:
            timeout: seconds to wait before `TimeoutError`; None waits without a bound.
        """
        self._wait(timeout)
        if self._state != FINISHED:
            raise CancelledError
        if self._exception is not None:
            try:
                raise self._exception
            finally:
                self = None  # type: ignore[assignment]  # noqa: PLW0642 - no cycle through the traceback
        return self._result  # type: ignore[return-value]  # FINISHED without an exception has a result

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the outcome and return the task's exception, None where it has a result."""
        self._wait(timeout)
        if self._state != FINISHED:
            raise CancelledError
        return self._exception

    def __reduce__(self) -> NoReturn:
        message = (
            "a future cannot be sent to another process\n  pass it to an app as an argument, or inside lists, tuples, "
            "sets and dicts: there it is replaced by its result"
        )
        raise TypeError(message)

    def _wait(self, timeout: float | None) -> None:
        """Wait until there is an outcome; `with` takes and leaves a lock without a place for an interrupt between."""
        if self._state in DONE:
            return
        gate = threading.Lock()
        gate.acquire()
        try:
            with self._lock:
                gates = self._gates
                if gates is None:
                    gates = self._gates = []
                gates.append(gate)  # before the look: a signal handler that sets the future may come in between
            if self._state not in DONE and not pass_gate(gate, timeout):
                raise states.TimeoutError
        finally:
            with self._lock:
                if self._gates is not None and gate in self._gates:
                    self._gates.remove(gate)

    def _wake(self, told: str) -> list[Callback[T]]:
        """Wake whoever waits, the lock being held, and hand over the callbacks."""
        if self._waiter_list:
            for waiter in self._waiter_list:
                getattr(waiter, told)(self)
        gates, self._gates = self._gates, None
        for gate in gates or ():
            gate.release()
        callbacks, self._callbacks = self._callbacks, None
        if isinstance(callbacks, list):
            return callbacks
        return [] if callbacks is None else [callbacks]

    def _run(self, callbacks: list[Callback[T]]) -> None:
        interruption: BaseException | None = None
        for callback in callbacks:
            try:
                callback(self)
            except Exception:  # a callback is foreign code, and its failure is not the task's
                logger.exception("a callback of %r raised", self)
            except BaseException as error:  # noqa: BLE001 - raised below: the other callbacks must be called all the same
                interruption = error
        if interruption is not None:
            raise interruption
