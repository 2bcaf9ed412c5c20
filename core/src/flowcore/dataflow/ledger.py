"""All tasks of a run and the state that each is in: the one place where states change."""

from __future__ import annotations

import itertools
import threading
import time
from typing import TYPE_CHECKING, Any

from flowcore.dataflow.tasks import FINAL_STATES, SUCCESSORS, States, TaskRecord
from flowcore.errors import NoDataFlowKernelError
from flowcore.futures import pass_gate

if TYPE_CHECKING:
    from flowcore.dataflow.futures import AppFuture
    from flowcore.observation import Observers


class TaskLedger:
    """Numbers the tasks, moves them from state to state, and keeps count.

    Its lock is held for these few lines only, never while anything of the user's, an executor's or an observer's runs,
    but for signal handlers: one that ends the run may come in the middle of any of them.

    Args:
        observers: told of every change; None where nobody watches.
        garbage_collect: whether the record of a final task is forgotten.
    """

    def __init__(self, observers: Observers | None, *, garbage_collect: bool) -> None:
        self.tasks: dict[int, TaskRecord] = {}
        self.unfinished: dict[int, TaskRecord] = {}
        """The tasks whose futures are not done."""
        self.task_count = 0
        self._numbers = itertools.count()
        self.closed = False
        self.closer: int | None = None
        """The thread that closed it."""
        self._observers = observers
        self._garbage_collect = garbage_collect
        self._lock = threading.RLock()  # guards all of the above, and `status` and `waiting` of every task
        self._gates: list[threading.Lock] = []  # released when no task is left
        self._counts = dict.fromkeys(States, 0)

    def number(self, task: TaskRecord) -> None:
        """Give the task its id."""
        task.id = next(self._numbers)

    def register(self, task: TaskRecord) -> None:
        """Take the task in, as pending.

        Raises:
            NoDataFlowKernelError: the run is over.
        """
        with self._lock:
            self.refuse_when_closed()
            self.tasks[task.id] = self.unfinished[task.id] = task
            self._counts[States.pending] += 1
            self.task_count += 1
        if self._observers is not None:
            self._observers.task_changed(task, States.pending, task.time_invoked)

    def refuse_when_closed(self) -> None:
        """Raise a `NoDataFlowKernelError` if the run is over."""
        if self.closed:
            message = "Cannot submit to a DFK that has been cleaned up\n  start another run with flowcore.load()"
            raise NoDataFlowKernelError(message)

    def close(self) -> bool:
        """Take no more tasks in; True for the first call."""
        closer = threading.get_ident()
        with self._lock:
            first = not self.closed
            if first:
                self.closer, self.closed = closer, True
        return first

    def forsake(self) -> None:
        """Be closed and know of no task, in a forked child: the tasks are its parent's."""
        self._lock = threading.RLock()  # another thread of the parent may have held it
        self.closed = True
        self.unfinished = {}
        self._counts = dict.fromkeys(States, 0)

    def count_off(self, task: TaskRecord) -> bool:
        """Note that one of the futures that the task waits for is done; True where it was the last."""
        with self._lock:
            task.waiting -= 1
            return task.waiting == 0

    def enter(self, task: TaskRecord, state: States) -> bool:
        """Move the task to a state that may follow its own; False where another thread was faster."""
        with self._lock:
            before = task.status
            if state not in SUCCESSORS[before]:
                return False
            task.status = state
            self._counts[before] -= 1
            self._counts[state] += 1
            if self._garbage_collect and state in FINAL_STATES:
                self.tasks.pop(task.id, None)
        if self._observers is not None:
            self._observers.task_changed(task, state, time.time())
        return True

    def conclude(self, task: TaskRecord) -> None:
        """Note that the task's future is done, and that its callbacks have been called."""
        with self._lock:
            self.unfinished.pop(task.id, None)
            while self._gates and not self.unfinished:
                self._gates.pop().release()
            if self._garbage_collect:
                del task.app_fu

    def wait_until_none_is_left(self) -> None:
        """Wait until there is no task whose future is not done, or whose callbacks are being called."""
        gate = threading.Lock()
        gate.acquire()
        self._gates.append(gate)  # before the look: a signal handler that ends the run may come in between
        if self.unfinished:
            pass_gate(gate)

    def counts(self) -> dict[States, int]:
        """Count the tasks in each state."""
        with self._lock:
            return dict(self._counts)

    def unfinished_count(self) -> int:
        """Count the tasks whose state is not final, as it is before their future is done."""
        return sum(count for state, count in self.counts().items() if state not in FINAL_STATES)

    def left(self) -> list[TaskRecord]:
        """List the tasks whose futures are not done, those submitted first first."""
        with self._lock:
            return list(self.unfinished.values())

    def left_futures(self) -> list[AppFuture[Any]]:
        """List the futures that are not done, in the same order."""
        with self._lock:
            futures = (getattr(task, "app_fu", None) for task in tuple(self.unfinished.values()))
            return [future for future in futures if future is not None]
