"""End the runs that a script leaves behind when it ends, and end them undisturbed."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import signal
import threading
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowcore.dataflow.kernel import DataFlowKernel

logger = logging.getLogger(__name__)

_live: set[DataFlowKernel] = set()
_watching = False


def watch(kernel: DataFlowKernel) -> None:
    """Clean up the kernel when the interpreter ends, unless it was cleaned up before."""
    global _watching
    _live.add(kernel)
    if _watching:
        return
    _watching = True
    os.register_at_fork(after_in_child=_forsake_all)
    # Threads that are no daemons are waited for before `atexit` runs; this hook comes before that.
    register = getattr(threading, "_register_atexit", atexit.register)
    try:
        register(_end_all)
    except RuntimeError:  # the interpreter is ending already
        atexit.register(_end_all)


def forget(kernel: DataFlowKernel) -> None:
    """Leave the kernel alone from now on."""
    _live.discard(kernel)


def _forsake_all() -> None:
    """Own nothing of what the parent has, in a child that was forked."""
    for kernel in _live:
        kernel.forsake()
    _live.clear()


def _end_all() -> None:
    with contextlib.suppress(KeyboardInterrupt), uninterrupted():  # the script is ending anyway
        unfinished = 0
        for kernel in list(_live):
            unfinished += kernel.unfinished_count()
            try:
                kernel.cleanup()
            except BaseException:  # the next one must be cleaned up all the same, should a callback exit
                logger.exception("run %s did not end cleanly", kernel.run_id)
        if unfinished:
            message = (
                f"the script ended while {unfinished} flowcore tasks were unfinished; they were stopped. "
                "Wait for them with flowcore.clear(), or with `with flowcore.load(Config(exit_mode='wait')):`"
            )
            warnings.warn(message, RuntimeWarning, stacklevel=1)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C back while a clean-up runs, which is bounded; it is raised afterwards if it came."""
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    came: list[int] = []

    def note(number: int, _frame: Any) -> None:
        came.append(number)

    try:
        signal.signal(signal.SIGINT, note)
    except ValueError:  # a subinterpreter has no signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if came:
        handler(signal.SIGINT, None)
