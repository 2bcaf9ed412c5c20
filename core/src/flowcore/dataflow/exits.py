"""End the runs that a script leaves behind when it ends, and end them undisturbed."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import threading
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowcore.dataflow.kernel import DataFlowKernel

_live: set[DataFlowKernel] = set()
_pid: int | None = None


def watch(kernel: DataFlowKernel) -> None:
    """Clean up the kernel when the interpreter ends, unless it was cleaned up before."""
    global _pid
    _live.add(kernel)
    if _pid is None:
        # Threads that are no daemons are waited for before `atexit` runs; this hook comes before that.
        register = getattr(threading, "_register_atexit", atexit.register)
        register(_end_all)
    _pid = os.getpid()


def forget(kernel: DataFlowKernel) -> None:
    """Leave the kernel alone from now on."""
    _live.discard(kernel)


def _end_all() -> None:
    if os.getpid() != _pid:
        return  # a child that was forked owns nothing of what it sees
    for kernel in list(_live):
        unfinished = kernel.unfinished_count()
        with uninterrupted():
            kernel.cleanup()
        if unfinished:
            message = (
                f"the script ended while {unfinished} flowcore tasks were unfinished; they were stopped. "
                "Wait for them with flowcore.clear(), or with `with flowcore.load(Config(exit_mode='wait')):`"
            )
            warnings.warn(message, RuntimeWarning, stacklevel=1)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C back while a clean-up runs, which is bounded; it is raised afterwards if it came."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def note(number: int, _frame: Any) -> None:
        came.append(number)

    try:
        before = signal.signal(signal.SIGINT, note)
    except ValueError:  # a subinterpreter has no signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came and callable(before):
        before(signal.SIGINT, None)
