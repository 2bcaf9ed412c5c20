"""Hold a Python app to its walltime; runs where the task runs."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import Any, Final

from flowcore.app.errors import AppTimeout

AGAIN: Final = 3.0
"""Seconds that an app has to end once it is interrupted, for what it does finally; then it is interrupted again."""


class _WalltimeReachedError(BaseException):
    """Raised inside the app's thread; no `except Exception` of the app's own may swallow it."""


class TimedCall:
    """A function that is interrupted when it has run for its walltime.

    The interruption is an exception raised in the function's thread, so it comes as soon as the interpreter runs
    Python code there, and again `AGAIN` seconds later if the function has not ended by then. A function inside a long
    call of C code ends late; executors that honour `walltime` kill it.

    Args:
        function: what is called.
        seconds: its walltime.
    """

    def __init__(self, function: Callable[..., Any], seconds: float) -> None:
        self.function = function
        self.seconds = seconds
        self.__name__: str = getattr(function, "__name__", type(function).__name__)

    def __reduce__(self) -> tuple[Any, ...]:
        return TimedCall, (self.function, self.seconds)

    @property
    def untimed(self) -> Callable[..., Any]:
        """What is called where no walltime is given."""
        return self.function

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Return the function's result, or raise `AppTimeout`."""
        clock = _Clock(self.seconds)
        try:
            try:
                clock.start()
                return self.function(*args, **kwargs)
            finally:  # an exception of the clock's arrives after a call or where a loop goes back, and nowhere else
                try:  # but in Python 3.10 where another one is caught, too, unless that place begins a `try`
                    clock.over = True  # so this is done, whatever comes
                finally:
                    clock.bell.release()  # and this
                    for _ in range(3):  # and what was raised before arrives here at the latest
                        pass
        except BaseException as error:
            if not (clock.fired and _is_interruption(error)):
                raise
            message = (
                f"{getattr(self.function, '__name__', self.function)} ran longer than its walltime of {self.seconds} s"
            )
            raise AppTimeout(message) from (None if isinstance(error, _WalltimeReachedError) else error)


class _Clock:
    """Raises in the thread that made it, until it is over.

    What is raised while a finalizer runs goes no further than that, so it is raised again every `AGAIN` seconds. And
    nothing that was raised is taken back: Python 3.11 hangs in whatever is profiled or traced after that.

    Attributes:
        over: set by the thread when the call has ended; nothing is raised after that.
        bell: released with it, so that the clock's own thread ends.
        fired: whether anything was raised.
    """

    def __init__(self, seconds: float) -> None:
        self.over = self.fired = False
        self.bell = threading.Lock()
        self.bell.acquire()
        self._seconds = seconds
        self._thread = ctypes.c_ulong(threading.get_ident())

    def start(self) -> None:
        """Let the time run."""
        threading.Thread(target=self._run, name="flowcore-walltime", daemon=True).start()

    def _run(self) -> None:
        seconds = min(self._seconds, threading.TIMEOUT_MAX)
        looks = 0
        while not self.bell.acquire(timeout=seconds):
            # Nothing is called between the two looks and the end of the raising, and no test jumps there (which is
            # enough for Python 3.10 to let other threads run): so none runs.
            patient = looks < _LOOKS + _SLOW_LOOKS
            if not (patient and _starting) and not self.over:
                self.fired = True
                _raise_in(self._thread, _REACHED)
                seconds = AGAIN
                looks = 0
            else:
                seconds = _SOON if looks < _LOOKS else _LATER
                looks += 1


# A thread that is starting another one is not interrupted. The other might be stuck for ever; and up to Python 3.11 it
# goes by the number of the one that starts it until it runs, so that it may get the exception, and end: nobody would
# tell the one that waits for it. `_starting` has those that are being started; one that is stuck is waited for as long
# as a busy machine may take to start one: a minute.
_starting: Final[dict[threading.Thread, threading.Thread]] = getattr(threading, "_limbo", {})
_SOON: Final = 0.00001
_LATER: Final = 0.01
_LOOKS: Final = 10_000
_SLOW_LOOKS: Final = 6_000
_REACHED: Final = ctypes.py_object(_WalltimeReachedError)
_raise_in: Final = ctypes.pythonapi.PyThreadState_SetAsyncExc


def _is_interruption(error: BaseException) -> bool:
    """Tell whether an error is the clock's, or came of it: as where a lock was not held any more."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen and not isinstance(link, AppTimeout):
        if isinstance(link, _WalltimeReachedError):
            return True
        seen.add(id(link))
        link = link.__context__
    return False
