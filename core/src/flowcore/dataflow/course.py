"""The course of a task from accepted to final: one decision after the other, each made in one place."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final

from flowcore.app.errors import AppTimeout
from flowcore.dataflow import dependency_resolvers
from flowcore.dataflow.errors import DependencyError, JoinError
from flowcore.dataflow.futures import failures
from flowcore.dataflow.lineup import by_load
from flowcore.dataflow.retries import may_run_again
from flowcore.dataflow.tasks import States, TaskRecord
from flowcore.dataflow.trampoline import Trampoline
from flowcore.errors import FlowcoreError, ShutdownError
from flowcore.executors.errors import ExecutorError, WalltimeExceeded

if TYPE_CHECKING:
    from flowcore.config import Config
    from flowcore.dataflow.dependency_resolvers import DependencyResolver
    from flowcore.dataflow.internal import InternalThreads
    from flowcore.dataflow.ledger import TaskLedger
    from flowcore.dataflow.memoization import Memoizer

logger = logging.getLogger(__name__)

KILL_GRACE: Final = 3.0
"""Seconds after its walltime at which an executor that honours `walltime` kills an app that did not end by itself."""


WAIT: Final = "flowcore.clear() and Config(exit_mode='wait') wait for tasks before they end a run"


class _Telling(threading.local):
    depth = 0
    """How many tasks the current thread is ending, one inside a callback of the other."""


class Course:
    """Sees every task of a run to its end.

    A task has one final state, which `TaskLedger.enter` decides on; whoever brings it there sets its future. No user
    code and no executor is called with a lock held. The methods may be called from any thread.

    Args:
        config: the configuration of the run.
        ledger: the tasks and their states.
        resolver: puts results in the place of futures.
        memoizer: remembers results.
        internal: threads for tasks that are for no executor.
    """

    def __init__(
        self,
        *,
        config: Config,
        ledger: TaskLedger,
        resolver: DependencyResolver,
        memoizer: Memoizer,
        internal: InternalThreads,
    ) -> None:
        self._config = config
        self._ledger = ledger
        self._resolver = resolver
        self._memoizer = memoizer
        self._internal = internal
        self._telling = _Telling()
        self._trampoline: Trampoline[TaskRecord] = Trampoline(self._give_up)

    def begin(self, task: TaskRecord, depends: Sequence[Future[Any]]) -> None:
        """Take in a new task, which depends on these futures.

        Raises:
            NoDataFlowKernelError: the run is over.
        """
        try:
            self._ledger.register(task)
            if not depends or self._await(task, depends):
                self._trampoline.run_inside(self.launch_if_ready, task)
            if self._ledger.closed:  # by a signal handler that may not have seen this task
                self.abandon([task])
        except BaseException as error:
            if task.id in self._ledger.unfinished:
                self._give_up(task, error)
            raise

    def _await(self, task: TaskRecord, futures: Sequence[Future[Any]]) -> bool:
        """Have `dependency_done` called for the task once per future; True where it has come to all of them already."""
        task.depends = futures
        task.waiting = len(futures) + 1
        for future in futures:
            future.add_done_callback(task.dependency_done)
        return self._count_off(task)

    def dependency_done(self, task: TaskRecord) -> None:
        """Count one awaited future off; go on with the task when it was the last."""
        if self._count_off(task):
            self._trampoline.run(self._joined if task.status is States.joining else self.launch_if_ready, task)

    def _count_off(self, task: TaskRecord) -> bool:
        """Count off one of what the task waits for; True where it goes on."""
        return self._ledger.count_off(task) and not self._ledger.closed  # `abandon` ends all when the run is over

    def catch_up(self) -> None:
        """Do what the current thread has put off: a callback is going to wait, perhaps for that."""
        self._trampoline.catch_up()

    # -- launch

    def launch_if_ready(self, task: TaskRecord) -> None:
        """Hand the task to an executor if all that it depends on went well, else fail it."""
        if task.status is not States.pending or task.waiting:
            return
        errors = failures(task.depends)
        if errors:
            self.finish(task, States.dep_fail, error=DependencyError(errors, task.id))
            return
        try:
            if task.depends:
                task.args, task.kwargs = dependency_resolvers.unwrap(self._resolver, task.args, task.kwargs)
                task.depends = ()
            remembered = self._memoizer.check_memo(task) if task.memoize else None
        except Exception as error:  # noqa: BLE001 - a resolver, a memoizer and what they call on user objects
            self.finish(task, States.failed, error=_without_own_frames(error))
            return
        if remembered is None:
            self._attempt(task)
        else:
            self._remember(task, remembered)

    def _remember(self, task: TaskRecord, remembered: Future[Any]) -> None:
        task.from_memo = True
        error = remembered.exception()
        if error is None:
            self.finish(task, States.memo_done, result=remembered.result())
        else:
            self.finish(task, States.failed, error=error)

    def _attempt(self, task: TaskRecord) -> None:
        if not self._ledger.enter(task, States.launched):
            task.drop_inputs()  # final by now, while its arguments were put in place
            return
        task.try_time_launched = time.time()
        try:
            attempt = self._hand_over(task)
        except Exception as error:  # noqa: BLE001 - an executor's refusal is the attempt's outcome
            self._attempt_failed(task, _without_own_frames(error))
            return
        task.exec_fu = attempt
        if task.status is not States.launched:  # cancelled, or the run is over
            attempt.cancel()
        attempt.add_done_callback(task.attempt_done)

    def _hand_over(self, task: TaskRecord) -> Future[Any]:
        call = task.call()
        if call is None:
            raise ShutdownError(f"task {task.id} ended before it was handed over")
        func, args, kwargs = call
        candidates = task.candidates
        if not candidates:
            task.executor = "internal"
            return self._internal.submit(func, tuple(args), kwargs)
        refusal: ExecutorError | None = None
        for executor in by_load(candidates):
            task.executor = executor.label
            specification = task.resource_specification
            if task.walltime is not None and "walltime" in executor.resource_keys:
                specification = {"walltime": task.walltime + KILL_GRACE, **specification}
            try:
                return executor.submit(func, specification, *args, **kwargs)
            except ExecutorError as error:  # out of order; another one may do
                refusal = error
        assert refusal is not None
        raise refusal

    # -- return

    def returned(self, task: TaskRecord, attempt: Future[Any]) -> None:
        """Go on with a task whose attempt is over; the executor's thread calls this, through the task's callback."""
        try:
            self._decide(task, attempt)
        except BaseException as error:
            self._give_up(task, error)
            raise

    def _decide(self, task: TaskRecord, attempt: Future[Any]) -> None:
        """Decide what a finished attempt means."""
        task.try_time_returned = time.time()
        if attempt.cancelled():
            self.finish(task, States.cancelled)
            return
        error = attempt.exception()
        if error is not None:
            self._attempt_failed(task, error)
        elif task.join:
            self._join(task, attempt.result())
        else:
            self.finish(task, States.exec_done, result=attempt.result())

    def _attempt_failed(self, task: TaskRecord, error: BaseException) -> None:
        if isinstance(error, WalltimeExceeded):
            timeout = AppTimeout(str(error))
            timeout.__cause__ = error
            error = timeout
        again, error = may_run_again(task, error, self._config)
        if again and not self._ledger.closed and self._ledger.enter(task, States.fail_retryable):
            task.try_id += 1
            task.exec_fu = None
            logger.info("task %d (%s) is run again after %r", task.id, task.func_name, error)
            self._trampoline.run(self._attempt, task)
        else:
            self.finish(task, States.failed, error=error)

    def _join(self, task: TaskRecord, joined: Any) -> None:
        """Await what a join app's body returned."""
        if isinstance(joined, list):
            joined = list(joined)  # the body may have kept its own, and change it
        inner = [joined] if isinstance(joined, Future) else joined
        if not isinstance(inner, list) or not all(isinstance(future, Future) for future in inner):
            fault = f"join_app body must return a Future or list of Futures, got {joined!r} of type {type(joined)}"
            message = f"{fault}\n  return what the apps that it calls gave: one future, or several in a list"
            self.finish(task, States.failed, error=TypeError(message))
            return
        task.joins = joined
        if self._ledger.enter(task, States.joining) and self._await(task, inner):
            self._trampoline.run(self._joined, task)

    def _joined(self, task: TaskRecord) -> None:
        joined = task.joins
        if joined is None:  # cancelled, or the run is over
            return
        inner = [joined] if isinstance(joined, Future) else joined
        errors = failures(inner)
        if errors:
            self.finish(task, States.failed, error=JoinError(errors, task.id))
        elif isinstance(joined, Future):
            self.finish(task, States.exec_done, result=joined.result())
        else:
            self.finish(task, States.exec_done, result=[future.result() for future in inner])

    # -- end

    def cancel(self, task: TaskRecord) -> bool:
        """Cancel a task; False where it is final, or runs where it cannot be stopped."""
        attempt = task.exec_fu
        if task.status is States.launched and attempt is not None and not attempt.cancel():
            return False
        joined = task.joins  # after the status: it is there when a task is joining
        if self.finish(task, States.cancelled) and joined is not None:
            for future in [joined] if isinstance(joined, Future) else joined:
                future.cancel()
        return task.status is States.cancelled

    def abandon(self, tasks: Sequence[TaskRecord]) -> None:
        """Fail the tasks because the run is over, whatever a callback of any of them raises."""
        interruption: BaseException | None = None
        for task in tasks:
            message = f"task {task.id} ({task.func_name}) was {task.status.name} when its run ended\n  {WAIT}"
            try:
                self.finish(task, States.failed, error=ShutdownError(message))
            except BaseException as error:  # noqa: BLE001 - raised below: the others must end all the same
                interruption = error
        if interruption is not None:
            raise interruption

    def finish(
        self, task: TaskRecord, state: States, *, result: Any = None, error: BaseException | None = None
    ) -> bool:
        """End the task and set its future; False where it had ended already."""
        self._telling.depth += 1
        try:
            if not self._ledger.enter(task, state):
                return False
            task.time_returned = time.time()
            if task.memoize and state is not States.memo_done and task.hashsum is not None:
                self._memoize(task, state, result, error)
            task.drop_inputs()
            future = task.app_fu
            try:
                if state is States.cancelled:
                    future.mark_cancelled()
                elif error is None:
                    future.set_result(result)
                else:
                    future.set_exception(error)
            finally:
                if future.done():
                    self._ledger.conclude(task)
        except BaseException as error:
            self._give_up(task, error)
            raise
        finally:
            self._telling.depth -= 1
        return True

    def ends_a_task(self) -> bool:
        """Whether the current thread is ending a task, as within a callback of its future."""
        return self._telling.depth > 0

    def _memoize(self, task: TaskRecord, state: States, result: Any, error: BaseException | None) -> None:
        try:
            if error is not None:
                self._memoizer.update_memo_exception(task, error)
            elif state is States.exec_done:
                self._memoizer.update_memo_result(task, result)
        except Exception:  # a checkpoint that cannot be written must not cost the result
            logger.exception("the result of task %d could not be remembered", task.id)

    def _give_up(self, task: TaskRecord, error: BaseException) -> None:
        """End a task whose course broke off, by an interrupt or a bug: nobody else would."""
        if not isinstance(error, Exception):
            interruption = FlowcoreError(f"task {task.id} was interrupted on its way to an executor by {error!r}")
            interruption.__cause__ = error
            error = interruption
        future = getattr(task, "app_fu", None)
        if future is not None and not self.finish(task, States.failed, error=error) and not future.done():
            future.set_exception(error)
            self._ledger.conclude(task)


def _without_own_frames(error: BaseException) -> BaseException:
    """Cut this module's frames off the traceback: they refer to the task, which is going to refer to the error."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_globals is globals():
        trace = trace.tb_next
    return error.with_traceback(trace)
