"""Runs tasks on Acme, which is a few threads of this process."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import InvalidStateError
from contextlib import suppress
from typing import Any

import attrs
from flowcore.errors import ShutdownError
from flowcore.executors.base import Executor, RunContext
from flowcore.executors.errors import ExecutorError
from flowcore.futures import TaskFuture
from flowcore.parameters import label, whole


@attrs.define(eq=False)
class AcmeExecutor(Executor):
    """Runs up to `max_workers` tasks at once."""

    max_workers: int = attrs.field(default=2, validator=whole(1))
    label: str = attrs.field(default="acme", validator=label())

    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False)
    _closed: bool = attrs.field(default=False, init=False)
    _workers: list[threading.Thread] = attrs.field(factory=list, init=False)
    _tasks: queue.SimpleQueue[Any] = attrs.field(factory=queue.SimpleQueue, init=False)
    _unfinished: set[TaskFuture[Any]] = attrs.field(factory=set, init=False)

    def start(self, run: RunContext) -> None:  # noqa: ARG002 - Acme needs no folder
        """Start the workers; one executor object serves one run."""
        with self._lock:
            if self._workers or self._closed:
                raise ExecutorError(self, "it was started before; make a new one for every run")
            for number in range(self.max_workers):
                name = f"flowcore-worker-{self.label}-{number}"
                self._workers.append(threading.Thread(target=self._work, name=name, daemon=True))
                self._workers[-1].start()

    def submit(
        self, func: Callable[..., Any], resource_specification: Mapping[str, Any], /, *args: Any, **kwargs: Any
    ) -> TaskFuture[Any]:
        """Queue a call, and return the future of its outcome at once."""
        self.check_resources(resource_specification)
        future: TaskFuture[Any] = TaskFuture()
        with self._lock:
            if self._closed:
                raise ShutdownError(f"executor {self.label!r} has been shut down")
            if not self._workers:
                raise ExecutorError(self, "it has not been started")
            self._unfinished.add(future)
            self._tasks.put((future, func, args, kwargs))
        future.add_done_callback(self._unfinished.discard)
        return future

    def shutdown(self) -> None:
        """Leave no future without an outcome, and no idle worker."""
        with self._lock:
            self._closed = True
        for future in tuple(self._unfinished):
            with suppress(InvalidStateError):  # it finished by itself just now
                future.set_exception(ShutdownError(f"executor {self.label!r} was shut down before this task finished"))
        for _ in self._workers:
            self._tasks.put(None)

    def outstanding(self) -> int:
        """Count the futures that are not done."""
        return len(self._unfinished)

    def slots(self) -> float:
        """Tell how many tasks run at once."""
        return self.max_workers

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            with suppress(InvalidStateError):  # `shutdown` has failed the future in the meantime
                _run(*task)


def _run(future: TaskFuture[Any], func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = func(*args, **kwargs)
    except BaseException as error:  # noqa: BLE001 - whatever a task raises is its outcome
        future.set_exception(error)
    else:
        future.set_result(result)
