"""The files of a call: those it reads are staged in, those it writes are staged out and get futures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final

from flowcore.data_provider.data_manager import DataManager
from flowcore.data_provider.files import File
from flowcore.dataflow import calls
from flowcore.dataflow.futures import DataFuture
from flowcore.dataflow.lineup import by_load

if TYPE_CHECKING:
    from flowcore.dataflow.tasks import TaskRecord
    from flowcore.executors.base import Executor

_PLAIN: Final = frozenset({int, float, complex, bool, str, bytes, type(None)})
"""Types of most arguments, which are nothing to be staged: asking them first is cheaper."""


class Stager:
    """Puts staged files in the place of those that a task was called with.

    Args:
        submit_staging: runs a staging task: executor label, function, arguments, keyword arguments.
        dfk: the kernel, for staging methods that need more.
    """

    def __init__(
        self,
        submit_staging: Callable[[str, Callable[..., Any], tuple[Any, ...], Mapping[str, Any]], Future[Any]],
        dfk: Any,
    ) -> None:
        self.data_manager = DataManager(submit_staging, dfk)

    def stage(self, task: TaskRecord, *, special: bool) -> None:
        """Stage the task's files; it has not been launched yet.

        Args:
            task: a new task.
            special: whether its keywords include any of `flowcore.dataflow.calls.SPECIAL_KEYWORDS`.

        Raises:
            TypeError: `inputs` or `outputs` is no list, or `outputs` holds what is no file.
            ValueError: the executor cannot stage one of the files.
        """
        if special:
            if "inputs" in task.kwargs:
                task.kwargs["inputs"] = calls.normal_inputs(task.kwargs["inputs"])
            if "outputs" in task.kwargs:
                task.kwargs["outputs"] = calls.normal_outputs(task.kwargs["outputs"])
        if not _names_files(task):
            return
        executor = self._settle(task)
        assert task.func is not None
        if executor is not None:
            func, args, kwargs = self.data_manager.stage_arguments(executor, task.func, task.args, task.kwargs)
            task.func, task.args, task.kwargs = func, args, dict(kwargs)
        if special:
            self._stage_outputs(task, executor)
            self._stage_streams(task, executor)

    def _settle(self, task: TaskRecord) -> Executor | None:
        """Choose the task's executor now, because its files go there; None for the kernel's own threads."""
        if not task.candidates:
            return None
        executor = by_load(task.candidates)[0]
        task.candidates = (executor,)
        return executor

    def _stage_outputs(self, task: TaskRecord, executor: Executor | None) -> None:
        if "outputs" not in task.kwargs:
            return
        copies = []
        for file in task.kwargs["outputs"]:
            copy, future = self._stage_out(task, executor, file)
            copies.append(copy)
            task.app_fu.outputs.append(future)
        task.kwargs["outputs"] = copies

    def _stage_streams(self, task: TaskRecord, executor: Executor | None) -> None:
        streams = task.app_fu.streams
        if streams is None or not any(isinstance(stream, File) for stream in streams.values()):
            return
        futures = dict(streams)
        for name, stream in streams.items():
            if isinstance(stream, File):
                task.kwargs[name], futures[name] = self._stage_out(task, executor, stream)
        task.app_fu.streams = futures

    def _stage_out(self, task: TaskRecord, executor: Executor | None, file: File) -> tuple[File, DataFuture]:
        if executor is None:
            return file.cleancopy(), DataFuture(task.app_fu, file, task.id)
        assert task.func is not None
        copy, task.func, staged = self.data_manager.stage_out(executor, file, task.func, task.app_fu)
        return copy, DataFuture(task.app_fu if staged is None else staged, file, task.id)


def _names_files(task: TaskRecord) -> bool:
    for argument in task.args:
        if type(argument) not in _PLAIN and isinstance(argument, (File, DataFuture)):
            return True
    return bool(task.kwargs) and any(
        isinstance(argument, (File, DataFuture)) or (name in {"inputs", "outputs"} and len(argument) > 0)
        for name, argument in task.kwargs.items()
    )
