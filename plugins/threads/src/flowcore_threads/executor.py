"""Runs tasks in threads of the user's own process."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import InvalidStateError
from typing import Any, Final, TypeAlias

import attrs

from flowcore.errors import ShutdownError
from flowcore.executors.base import Executor, RunContext
from flowcore.executors.errors import ExecutorError
from flowcore.futures import TaskFuture

logger = logging.getLogger(__name__)

JOIN_SECONDS: Final = 5.0
"""How long `shutdown` waits for threads that run no task to end; they need microseconds."""

_Task: TypeAlias = tuple[TaskFuture[Any], Callable[..., Any], tuple[Any, ...], dict[str, Any]]


def _at_least_one(_executor: object, _attribute: object, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        example = "ThreadPoolExecutor(max_threads=2, label='threads')"
        raise TypeError(f"max_threads comes first and is an int, not {value!r}; write {example}")
    if value < 1:
        raise ValueError(f"max_threads is 1 or more, not {value}")


@attrs.define(eq=False)
class ThreadPoolExecutor(Executor):
    """Runs tasks in up to `max_threads` threads, started as tasks come.

    Tasks share the interpreter with the script: nothing is copied or pickled, and only tasks that wait (for files,
    for the network, for a command) or that release the interpreter's lock run side by side. Callbacks of a finished
    task's future run in the thread that ran the task. A running task cannot be stopped.

    Args:
        max_threads: how many tasks run at once.
        thread_name_prefix: what the threads' names begin with; '' stands for `flowcore-worker-<label>`.
        label: the executor's name within a run.
        storage_access: the staging methods for its files; None stands for the default ones.
        working_dir: folder into which input files are staged.
    """

    max_threads: int = attrs.field(default=2, validator=_at_least_one)
    thread_name_prefix: str = attrs.field(default="", validator=attrs.validators.instance_of(str))
    label: str = attrs.field(default="threads", validator=attrs.validators.instance_of(str))
    storage_access: Sequence[Any] | None = None
    working_dir: str | None = None

    # `_lock` guards `_started`, `_closed`, `_threads` and `_taken`; the sets are changed by operations that are atomic
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False, repr=False)
    _started: bool = attrs.field(default=False, init=False, repr=False)
    _closed: bool = attrs.field(default=False, init=False, repr=False)
    _threads: list[threading.Thread] = attrs.field(factory=list, init=False, repr=False)
    _tasks: queue.SimpleQueue[_Task | None] = attrs.field(factory=queue.SimpleQueue, init=False, repr=False)
    _taken: int = attrs.field(default=0, init=False, repr=False)
    """Tasks that are queued, or that keep a thread, in their callbacks too."""
    _unfinished: set[TaskFuture[Any]] = attrs.field(factory=set, init=False, repr=False)
    _busy: set[threading.Thread] = attrs.field(factory=set, init=False, repr=False)

    def start(self, run: RunContext) -> None:  # noqa: ARG002 - threads need no folder
        """Accept tasks from now on."""
        with self._lock:
            if self._started or self._closed:
                raise ExecutorError(self, "it was started before; make a new one for every run")
            self._started = True

    def submit(
        self, func: Callable[..., Any], resource_specification: Mapping[str, Any], /, *args: Any, **kwargs: Any
    ) -> TaskFuture[Any]:
        """Queue the call for the next free thread."""
        if resource_specification:
            self.check_resources(resource_specification)
        future: TaskFuture[Any] = TaskFuture()
        future.add_done_callback(self._unfinished.discard)
        with self._lock:
            if self._closed:
                raise ShutdownError(f"executor {self.label!r} has been shut down and takes no more tasks")
            if not self._started:
                raise ExecutorError(self, "it has not been started")
            if self._taken >= len(self._threads) < self.max_threads:
                self._start_thread()
            self._taken += 1
            self._unfinished.add(future)
            self._tasks.put((future, func, args, kwargs))
        return future

    def shutdown(self) -> None:
        """Fail what is unfinished, and end the threads; one that runs a task ends after it."""
        with self._lock:
            self._closed = True
            threads, self._threads = self._threads, []
        for future in tuple(self._unfinished):
            try:
                future.set_exception(ShutdownError(f"executor {self.label!r} was shut down before this task finished"))
            except InvalidStateError:  # it finished by itself just now
                pass
        for _ in threads:
            self._tasks.put(None)
        deadline = time.monotonic() + JOIN_SECONDS
        for thread in set(threads) - self._busy:
            thread.join(max(0.0, deadline - time.monotonic()))

    def outstanding(self) -> int:
        """Count the tasks whose futures are not done."""
        return len(self._unfinished)

    def slots(self) -> float:
        """Tell how many tasks can run at once."""
        return self.max_threads

    def _start_thread(self) -> None:
        prefix = self.thread_name_prefix or f"flowcore-worker-{self.label}"
        thread = threading.Thread(target=self._work, name=f"{prefix}-{len(self._threads)}", daemon=True)
        thread.start()
        self._threads.append(thread)

    def _work(self) -> None:
        """Run tasks until told to end; the body of every thread."""
        thread = threading.current_thread()
        while (task := self._tasks.get()) is not None:
            self._busy.add(thread)
            try:
                _run(*task)
            except InvalidStateError:  # the executor was shut down, which failed the future already
                pass
            except BaseException:  # a callback's exit or interrupt must not cost the pool a thread
                logger.exception("a callback of a task raised")
            del task  # an idle thread keeps no argument and no result alive
            with self._lock:
                self._taken -= 1
            self._busy.discard(thread)


def _run(future: TaskFuture[Any], func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = func(*args, **kwargs)
    except BaseException as error:  # noqa: BLE001 - whatever a task raises is its outcome
        trace = error.__traceback__
        outcome = error.with_traceback(trace and trace.tb_next)  # this frame refers to the future: a cycle
    else:
        future.set_result(result)
        return
    future.set_exception(outcome)
