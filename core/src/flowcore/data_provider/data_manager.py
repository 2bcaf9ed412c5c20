"""Finds, for every file of a call, the staging method that moves it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final, Protocol

from flowcore.data_provider.file_noop import NoOpFileStaging
from flowcore.data_provider.files import File
from flowcore.futures import TaskFuture

if TYPE_CHECKING:
    from flowcore.data_provider.staging import Staging
    from flowcore.executors.base import Executor

Function = Callable[..., Any]

DEFAULT_STAGING: Final[Sequence[Staging]] = (NoOpFileStaging(),)
"""The staging methods of an executor whose `storage_access` is None."""

UNSCANNED: Final = frozenset({"outputs", "stdout", "stderr"})
"""Keywords of an app whose files are written, not read."""


class SubmitStaging(Protocol):
    """Runs a staging task; the kernel passes this."""

    def __call__(
        self, executor: str, func: Function, args: tuple[Any, ...], kwargs: Mapping[str, Any], /
    ) -> Future[Any]:
        """Run `func(*args, **kwargs)` as a task on the executor with that label.

        Futures among the arguments are waited for and replaced by their results. Files among them are left alone, and
        the result is not memoized.
        """


class DataManager:
    """Stages the files of calls. The kernel has one, and calls it from the threads that call apps.

    Args:
        submit_staging: runs a staging task.
        dfk: the kernel, for staging methods that need more than `submit`.

    Attributes:
        executors: the executors that calls were staged for so far, by label.
    """

    def __init__(self, submit_staging: SubmitStaging, dfk: Any = None) -> None:
        self._submit_staging = submit_staging
        self.dfk = dfk
        self.executors: dict[str, Executor] = {}

    def submit(self, executor: str, func: Function, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run `func(*args, **kwargs)` as a staging task on that executor; for staging methods."""
        return self._submit_staging(executor, func, args, kwargs)

    def stage_arguments(
        self, executor: Executor, func: Function, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[Function, Sequence[Any], Mapping[str, Any]]:
        """Return a call with every file in it staged in: positional and keyword arguments, and items of `inputs`.

        Without files it is the same objects, found out in a fraction of a microsecond per argument.

        Raises:
            ValueError: the executor cannot stage one of the files.
        """
        if any(_may_name_file(value) for value in args):
            staged = []
            for value in args:
                value, func = self.optionally_stage_in(executor, value, func)  # noqa: PLW2901 - replaced on purpose
                staged.append(value)
            args = tuple(staged)
        replaced: dict[str, Any] = {}
        for name, value in kwargs.items():
            if name == "inputs":
                replaced[name], func = self._stage_inputs(executor, value, func)
            elif name not in UNSCANNED and _may_name_file(value):
                replaced[name], func = self.optionally_stage_in(executor, value, func)
        return func, args, {**kwargs, **replaced} if replaced else kwargs

    def optionally_stage_in(self, executor: Executor, value: Any, func: Function) -> tuple[Any, Function]:
        """Return what `stage_in` does where `value` is a file or the future of one, else the two as they are."""
        if _may_name_file(value) and _file_of(value) is not None:
            return self.stage_in(executor, value, func)
        return value, func

    def stage_in(self, executor: Executor, file: File | Future[File], func: Function) -> tuple[Any, Function]:
        """Arrange for a file to be there when `func` is called with it.

        Args:
            executor: the one that the call goes to.
            file: a `File`, or the future of a file that another task makes.
            func: the task's function.

        Returns:
            The argument to pass in the file's place, a `File` or a future of one, and the function to call instead.

        Raises:
            ValueError: no staging method of the executor can.
        """
        place = _file_of(file)
        if place is None:
            raise TypeError(f"{file!r} is no file and no future of one")
        copy, parent = place.cleancopy(), file if isinstance(file, Future) else None
        method = self._method(executor, copy, "can_stage_in")
        future = method.stage_in(self, executor.label, copy, parent)
        func = method.replace_task(self, executor.label, copy, func) or func
        if future is not None:
            return _StagedFile(future, copy), func
        if parent is None:
            return copy, func
        return (parent if copy.local_path is None else _StagedFile(parent, copy)), func

    def stage_out(
        self, executor: Executor, file: File, func: Function, app_fu: Future[Any]
    ) -> tuple[File, Function, Future[Any] | None]:
        """Arrange for a file that a task makes to be taken to its place.

        Args:
            executor: the one that the call goes to.
            file: the file, as the user named it.
            func: the task's function.
            app_fu: the future of the task, which has not been launched yet.

        Returns:
            The file to pass to the task, the function to call instead, and a future that is done when the file is in
            its place; None in its stead if it is there when `app_fu` is done.

        Raises:
            ValueError: no staging method of the executor can.
        """
        copy = file.cleancopy()
        method = self._method(executor, copy, "can_stage_out")
        future = method.stage_out(self, executor.label, copy, app_fu)
        func = method.replace_task_stage_out(self, executor.label, copy, func) or func
        return copy, func, future

    def _stage_inputs(self, executor: Executor, inputs: Any, func: Function) -> tuple[Any, Function]:
        if not isinstance(inputs, (list, tuple)) or not any(map(_may_name_file, inputs)):
            return inputs, func
        staged = []
        for value in inputs:
            value, func = self.optionally_stage_in(executor, value, func)  # noqa: PLW2901 - replaced on purpose
            staged.append(value)
        return staged, func

    def _method(self, executor: Executor, file: File, ability: str) -> Staging:
        """Return the first staging method that can."""
        self.executors[executor.label] = executor
        methods = DEFAULT_STAGING if executor.storage_access is None else executor.storage_access
        for method in methods:
            if getattr(method, ability)(file):
                return method
        direction = "in" if ability == "can_stage_in" else "out"
        names = ", ".join(type(method).__name__ for method in methods) or "none"
        message = f"Executor {executor.label} cannot stage file {file!r} {direction}; its storage_access has: {names}"
        message += f"\n  give the executor a method for {file.scheme}: storage_access=[...]"
        raise ValueError(message)


class _StagedFile(TaskFuture[File]):
    """The future of a file that is on its way: done when the staging is, its result is the file."""

    __slots__ = ("_file",)

    def __init__(self, staging: Future[Any], file: File) -> None:
        super().__init__()
        self._file = file
        staging.add_done_callback(self._staged)

    def _staged(self, staging: Future[Any]) -> None:
        if self.done():
            return
        if staging.cancelled():
            self.cancel()
        elif (error := staging.exception()) is not None:
            self.set_exception(error)
        else:
            self.set_result(self._file)

    def __repr__(self) -> str:
        return f"<Future of {self._file!r} being staged>"


def _may_name_file(value: Any) -> bool:
    return isinstance(value, (File, Future))


def _file_of(value: File | Future[Any]) -> File | None:
    """Return the file that a value names, None where it is the future of something else.

    Asks the class, because reading an attribute of an app's future launches a task.
    """
    if isinstance(value, File):
        return value
    file = getattr(value, "file_obj", None) if hasattr(type(value), "file_obj") else None
    return file if isinstance(file, File) else None
