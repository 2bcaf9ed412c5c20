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
        deadline = _Deadline(self.seconds)
        try:
            deadline.begin()
            try:
                return self.function(*args, **kwargs)
            finally:
                deadline.end()
        except _WalltimeReachedError:
            deadline.end()  # should it have come in the middle of that
            message = (
                f"{getattr(self.function, '__name__', self.function)} ran longer than its walltime of {self.seconds} s"
            )
            raise AppTimeout(message) from None


class _Deadline:
    """A clock that raises in the thread that began it, and never after that thread has ended it.

    What is raised while a finalizer runs goes no further than that, so it is raised again every `AGAIN` seconds. And
    nothing that was raised is taken back: Python 3.11 hangs in whatever is profiled or traced after that.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._thread = ctypes.c_ulong(threading.get_ident())
        self._lock = threading.Lock()
        self._over = threading.Event()

    def begin(self) -> None:
        """Start the clock."""
        threading.Thread(target=self._run, name="flowcore-walltime", daemon=True).start()

    def end(self) -> None:
        """Stop the clock; what was raised and has not arrived yet arrives in here, or at the call of this."""
        while True:
            try:
                with self._lock:
                    self._over.set()
                for _ in range(3):  # what was raised before arrives here at the latest: where a loop goes back
                    pass
            except _WalltimeReachedError:
                continue
            return

    def _run(self) -> None:
        seconds = self._seconds
        while not self._over.wait(seconds):
            with self._lock:
                if not self._over.is_set():
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(self._thread, ctypes.py_object(_WalltimeReachedError))
            seconds = AGAIN
