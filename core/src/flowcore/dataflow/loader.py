"""The run that apps belong to where nothing else is said: load it, look it up, wait for it, clear it."""

from __future__ import annotations

import threading

from flowcore.config import Config
from flowcore.dataflow.kernel import DataFlowKernel
from flowcore.errors import ConfigurationError, NoDataFlowKernelError

_lock = threading.RLock()  # a signal handler may clear while the thread that it interrupts loads
_loaded: DataFlowKernel | None = None


def load(config: Config | None = None) -> DataFlowKernel:
    """Start a run, and make it the one that apps belong to.

    It ends with the script's main thread at the latest: what other threads still call then is refused, so let the main
    thread join those, or wait for them in another way, before it ends.

    Args:
        config: what the run is made of; None runs tasks in threads, or, where flowcore-threads is not installed, in
            worker processes on this machine.

    Returns:
        The kernel; as a context manager it ends the run as `Config(exit_mode=)` says.

    Raises:
        ConfigurationError: a configuration is loaded already, or this one cannot work.
        ExecutorError: an executor cannot start; nothing of the run is left then.
    """
    global _loaded
    with _lock:
        if _loaded is not None and not _loaded.cleaned:
            message = "Config has already been loaded\n  end that run first, with flowcore.clear()"
            raise ConfigurationError(message)
        _loaded = None  # should this one fail, the one before is not loaded either
        _loaded = DataFlowKernel(config)
        return _loaded


def dfk() -> DataFlowKernel:
    """Return the kernel of the loaded run.

    Raises:
        NoDataFlowKernelError: nothing is loaded.
    """
    kernel = _loaded
    if kernel is None:
        message = "Must first load config\n  call flowcore.load() before apps are called"
        raise NoDataFlowKernelError(message)
    return kernel


def clear(*, wait: bool = True) -> None:
    """End the loaded run and forget it, so that another can be loaded; without effect where nothing is loaded.

    Args:
        wait: whether its tasks are waited for first, those that callbacks submit included; False fails those that are
            unfinished with a `ShutdownError`. A signal handler needs False: what it interrupted may be in the middle of
            sending the tasks that it would wait for.
    """
    kernel = _loaded
    if kernel is None:
        return
    try:
        if wait:  # apps still belong to the run: bodies of join apps and callbacks may call some
            kernel.wait_for_all_tasks()
    finally:
        try:
            kernel.cleanup()
        finally:
            _forget(kernel)


def wait_for_current_tasks() -> None:
    """Wait until all tasks of the loaded run that were submitted before this call are final, however they end."""
    dfk().wait_for_current_tasks()


def _forget(kernel: DataFlowKernel) -> None:
    global _loaded
    with _lock:
        if _loaded is kernel:
            _loaded = None
