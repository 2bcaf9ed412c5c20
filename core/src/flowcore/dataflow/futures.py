"""What a call of an app gives: the future of its result, and the futures of the files it makes."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

from flowcore.dataflow.internal import Waiters, waiting_for_a_task
from flowcore.futures import TaskFuture

if TYPE_CHECKING:
    from flowcore.data_provider.files import File
    from flowcore.dataflow.tasks import TaskRecord

R = TypeVar("R")


class _KernelFuture(TaskFuture[R]):
    """A future that the kernel sets: however a body of a join app waits for it, others may run meanwhile."""

    __slots__ = ()

    def result(self, timeout: float | None = None) -> R:
        """Wait for the result and return it, or raise the exception; arguments as of the base class."""
        if self.done():
            return super().result(timeout)
        self._catch_up()
        with waiting_for_a_task():
            return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the end and return the exception; arguments as of the base class."""
        if self.done():
            return super().exception(timeout)
        self._catch_up()
        with waiting_for_a_task():
            return super().exception(timeout)

    def _catch_up(self) -> None:
        """Have the kernel do what this thread has put off: the wait may be for that."""

    def __await__(self) -> Generator[Any, None, R]:
        with waiting_for_a_task():
            return (yield from asyncio.wrap_future(self).__await__())

    @property
    def _waiters(self) -> list[Any]:  # type: ignore[override]  # as in the base class
        if self._waiter_list is None:
            self._waiter_list = Waiters()
        return self._waiter_list


class AppFuture(_KernelFuture[R]):
    """The future of one task's result.

    It is a `concurrent.futures.Future`, can be awaited in asyncio, and can be an argument of further apps. Indexing it
    and reading a public attribute give an `AppFuture` of that part of the result, at once: `app()["key"]`.
    """

    __slots__ = ("_outputs", "streams", "task_record")

    __iter__ = None  # a future has no length that could end a loop over its items

    def __init__(self, task_record: TaskRecord) -> None:
        super().__init__()
        self.task_record = task_record
        """The kernel's record of the task."""
        self.streams: Mapping[str, Any] | None = None
        """Where its standard output and error go, as it was given or chosen."""
        self._outputs: list[DataFuture] | None = None

    @property
    def tid(self) -> int:
        """The task's number within its run."""
        return self.task_record.id

    @property
    def stdout(self) -> Any:
        """Where the task's standard output goes, as it was given or chosen."""
        return None if self.streams is None else self.streams.get("stdout")

    @property
    def stderr(self) -> Any:
        """Where the task's standard error goes, as it was given or chosen."""
        return None if self.streams is None else self.streams.get("stderr")

    @property
    def outputs(self) -> list[DataFuture]:
        """The futures of the files in the call's `outputs`, in their order."""
        if self._outputs is None:
            self._outputs = []
        return self._outputs

    def task_status(self) -> str:
        """Name the state that the task is in, such as 'pending' or 'exec_done'."""
        return self.task_record.status.name

    def cancel(self) -> bool:
        """Cancel the task: always before it runs, afterwards where its executor can stop a running task."""
        cancelled = self.task_record.dfk.cancel(self.task_record)
        if cancelled:
            self.mark_cancelled()  # another thread has decided it, and may come to this later
        return cancelled

    def running(self) -> bool:
        """Whether the executor is known to be running the task."""
        attempt = self.task_record.exec_fu
        return not self.done() and attempt is not None and attempt.running()

    def _catch_up(self) -> None:
        self.task_record.dfk.course.catch_up()

    def mark_cancelled(self) -> None:
        """End as cancelled; only the kernel calls this."""
        super().cancel()

    def __getitem__(self, key: Any) -> AppFuture[Any]:
        return self._lift(operator.getitem, key)

    def __getattr__(self, name: str) -> AppFuture[Any]:
        if name.startswith("_"):
            message = f"{type(self).__name__!r} object has no attribute {name!r}"
            raise AttributeError(message)
        return self._lift(getattr, name)

    def _lift(self, operation: Any, key: Any) -> AppFuture[Any]:
        return self.task_record.dfk.submit_internal(operation, (self, key))

    def __repr__(self) -> str:
        record = self.task_record
        return f"<AppFuture task {record.id} {record.func_name} {record.status.name}>"


class DataFuture(_KernelFuture["File"]):
    """The future of one file that a task makes; its result is the `File`. It can be awaited in asyncio."""

    __slots__ = ("_tid", "file_obj", "parent")

    def __init__(self, parent: Future[Any], file_obj: File, tid: int | None = None) -> None:
        super().__init__()
        self.parent = parent
        """The future that must be done before the file is there: its task's, or that of its staging out."""
        self.file_obj = file_obj
        self._tid = tid
        parent.add_done_callback(self._parent_done)

    def _catch_up(self) -> None:
        if isinstance(self.parent, _KernelFuture):
            self.parent._catch_up()

    def _parent_done(self, parent: Future[Any]) -> None:
        if self.done():
            return
        if parent.cancelled():
            super().cancel()
        elif (error := parent.exception()) is not None:
            self.set_exception(error)
        else:
            self.set_result(self.file_obj)

    @property
    def tid(self) -> int | None:
        """The number of the task that makes the file."""
        return self._tid

    @property
    def filepath(self) -> str:
        """The path of the file as an app would open it."""
        return self.file_obj.filepath

    @property
    def filename(self) -> str:
        """The last part of the file's path."""
        return self.file_obj.filename

    def cancel(self) -> bool:
        """Cancel the task that makes the file."""
        return self.parent.cancel()

    def running(self) -> bool:
        """Whether the task that makes the file is known to be running."""
        return self.parent.running()

    def __repr__(self) -> str:
        return f"<DataFuture {self.file_obj!r} task {self._tid} {'done' if self.done() else 'not done'}>"


def representation(future: Future[Any]) -> str:
    """Name a future in an error: by its task where it has one."""
    return f"task {future.tid}" if isinstance(future, AppFuture) else repr(future)


def failures(futures: Sequence[Future[Any]]) -> list[tuple[BaseException, str]]:
    """Return the errors of done futures, each with the name of its future."""
    found: list[tuple[BaseException, str]] = []
    for future in futures:
        error = outcome_error(future)
        if error is not None:
            found.append((error, representation(future)))
    return found


def outcome_error(future: Future[Any]) -> BaseException | None:
    """Return the error of a done future; that of a cancelled one is a `CancelledError`."""
    if future.cancelled():
        try:
            future.result(timeout=0)
        except BaseException as error:  # noqa: BLE001 - the CancelledError of the future's own library
            return error.with_traceback(None)
    return future.exception()
