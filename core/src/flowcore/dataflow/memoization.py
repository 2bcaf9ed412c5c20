"""Memoization: an equal earlier call's result will do, in this run or from the checkpoint of another."""

from __future__ import annotations

import logging
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from flowcore.checkpoint_options import CheckpointMode, checked_files, checked_mode, checked_period
from flowcore.dataflow.checkpoint import FOLDER, CheckpointWriter, Stored, get_all_checkpoints, read_checkpoint
from flowcore.dataflow.errors import BadCheckpoint, PropagatedException
from flowcore.dataflow.identity import hash_of_call, id_for_memo
from flowcore.errors import ConfigurationError, ShutdownError
from flowcore.executors.errors import ExecutorError, TaskLost
from flowcore.futures import TaskFuture

if TYPE_CHECKING:
    from flowcore.dataflow.tasks import TaskRecord

__all__ = ["BasicMemoizer", "CheckpointMode", "Memoizer", "id_for_memo"]

logger = logging.getLogger(__name__)

_NOT_THE_CALLS_FAULT: Final = (TaskLost, ExecutorError, ShutdownError, CancelledError)
"""Errors that say nothing about what the call would give another time."""

_JOIN_SECONDS: Final = 30.0
"""How long `close` waits for a periodic write that is under way."""


class Memoizer(ABC):
    """Remembers outcomes of one run, or of one after another.

    The kernel calls `start` once at the beginning of each, the others from any thread, `close` once at its end.
    """

    @abstractmethod
    def start(self, run_dir: Path, config_run_dir: Path) -> None:
        """Get ready. One that raises leaves nothing to be closed.

        Args:
            run_dir: the folder of this run.
            config_run_dir: the folder that has those of all runs.
        """

    @abstractmethod
    def check_memo(self, task: TaskRecord) -> Future[Any] | None:
        """Return a done future with the outcome of an equal earlier call; None for the task to be run.

        Called when all that the task depends on is done. Sets `task.hashsum`, without which it is not remembered.

        Raises:
            ValueError: an argument cannot be compared; the task fails with that.
        """

    @abstractmethod
    def update_memo_result(self, task: TaskRecord, result: object) -> None:
        """Take note of a task's result, before its future is done."""

    @abstractmethod
    def update_memo_exception(self, task: TaskRecord, exception: BaseException) -> None:
        """Take note of a task's failure, before its future is done."""

    @abstractmethod
    def close(self) -> None:
        """End whatever `start` started; nothing is remembered from then on. Idempotent."""


class BasicMemoizer(Memoizer):
    """Remembers outcomes in memory and results in checkpoint files.

    A call finds the outcome of an equal one that has finished; of two that run at the same time both run. Failures are
    remembered within a run, and not in checkpoints; failures of machines are never, nor are joins that failed by them.
    One memoizer may serve one run after another; each begins with what the checkpoints hold.

    Args:
        checkpoint_files: checkpoint folders to take results from. None takes those of all earlier runs if
            `checkpoint_mode` is set.
        checkpoint_period: time between two writes in mode 'periodic', 'HH:MM:SS' or seconds.
        checkpoint_mode: when results are written to `<run_dir>/checkpoint`: each at once ('task_exit'), from time to
            time ('periodic'), at the end of the run ('dfk_exit'), when `checkpoint` is called ('manual'), or never.
        memoize: whether to remember at all.

    Raises:
        ConfigurationError: options that cannot work, or not together.
    """

    def __init__(
        self,
        *,
        checkpoint_files: Sequence[str | PathLike[str]] | None = None,
        checkpoint_period: str | float | None = None,
        checkpoint_mode: CheckpointMode | None = None,
        memoize: bool = True,
    ) -> None:
        if not isinstance(memoize, bool):
            raise ConfigurationError(f"memoize={memoize!r}: True or False is needed")
        self.checkpoint_files = checked_files(checkpoint_files)
        self.checkpoint_mode = checked_mode(checkpoint_mode)
        self.checkpoint_period = checked_period(checkpoint_period, checkpoint_mode)
        self.memoize = memoize
        self._outcomes: dict[str, Future[Any]] = {}
        self._stored: dict[str, Stored] = {}
        self._lock = threading.RLock()  # a signal handler may checkpoint, or end the run, while it is held
        self._unwritten: list[tuple[str, Any]] = []
        self._writer: CheckpointWriter | None = None
        self._periodic: threading.Thread | None = None
        self._over = threading.Event()
        self._over.set()
        self._pid: int | None = None  # of the process whose run it serves

    def start(self, run_dir: Path, config_run_dir: Path) -> None:
        """Look through the checkpoints, and begin to write this run's.

        Raises:
            BadCheckpoint: one of `checkpoint_files` is missing or is none.
            ConfigurationError: it serves another run.
        """
        stored = self._read(Path(config_run_dir))
        if self._pid not in (None, os.getpid()):  # this process was forked, and the run is its parent's
            self._lock, self._writer, self._periodic = threading.RLock(), None, None
        with self._lock:
            if self._pid == os.getpid():
                fault = f"{self!r} serves a run that is not over"
                raise ConfigurationError(f"{fault}\n  make a memoizer for each of the runs that are beside each other")
            self._pid = os.getpid()
        over = self._over = threading.Event()
        self._outcomes, self._stored, self._unwritten = {}, stored, []
        if self.checkpoint_mode is None:
            return
        self._writer = CheckpointWriter(Path(run_dir).absolute() / FOLDER)
        if self.checkpoint_period is not None:
            name = f"flowcore-checkpoint-{Path(run_dir).name}"
            thread = threading.Thread(target=self._write_periodically, args=(over,), name=name, daemon=True)
            try:
                thread.start()
            except BaseException:
                self._writer, self._pid = None, None
                over.set()
                raise
            self._periodic = thread

    def check_memo(self, task: TaskRecord) -> Future[Any] | None:
        """Find the outcome of an equal call that has finished, and set `hashsum` and `from_memo` of the task."""
        if not (self.memoize and task.memoize):
            task.hashsum = None
            return None
        assert task.func is not None, "a task that is final is not looked up"
        hashsum = task.hashsum = hash_of_call(task.func, task.args, task.kwargs, task.ignore_for_cache)
        outcome = self._outcomes.get(hashsum)
        if outcome is None and hashsum in self._stored:
            outcome = self._recall(hashsum)
        task.from_memo = outcome is not None
        return outcome

    def update_memo_result(self, task: TaskRecord, result: object) -> None:
        """Remember the result; in mode 'task_exit' it is on its way to the disk when this returns."""
        hashsum = task.hashsum
        if hashsum is None or task.from_memo or self._over.is_set():
            return
        outcome: Future[Any] = TaskFuture()
        outcome.set_result(result)
        self._outcomes[hashsum] = outcome
        if self._writer is None:
            return
        if self.checkpoint_mode == "task_exit":
            self._write([(hashsum, result)])
        else:
            with self._lock:
                self._unwritten.append((hashsum, result))

    def update_memo_exception(self, task: TaskRecord, exception: BaseException) -> None:
        """Remember the failure for the rest of the run, unless it is none of the user's code."""
        hashsum = task.hashsum
        if hashsum is None or task.from_memo or isinstance(_root(exception), _NOT_THE_CALLS_FAULT):
            return
        outcome: Future[Any] = TaskFuture()
        outcome.set_exception(exception)
        self._outcomes.setdefault(hashsum, outcome)

    def checkpoint(self) -> str:
        """Write all results that have not been written yet, and return the checkpoint's folder.

        Results that do not pickle are left out with a warning.

        Raises:
            ConfigurationError: there is no `checkpoint_mode`, or no run.
        """
        writer = self._writer
        if writer is None:
            raise ConfigurationError(
                "nothing is checkpointed; set checkpoint_mode='manual', and load the configuration"
            )
        with self._lock:
            unwritten, self._unwritten = self._unwritten, []
        self._write(unwritten)
        writer.sync()
        return str(writer.path.parent)

    def close(self) -> None:
        """Write what the mode wants written, and close the file."""
        self._over.set()
        thread, self._periodic = self._periodic, None
        if thread is not None:
            thread.join(_JOIN_SECONDS)
        try:
            if self._writer is not None and self.checkpoint_mode != "manual":
                self.checkpoint()
        finally:
            writer, self._writer = self._writer, None
            if writer is not None:
                writer.close()
            self._pid = None

    def _read(self, config_run_dir: Path) -> dict[str, Stored]:
        """Look through the checkpoints that a run begins with."""
        stored: dict[str, Stored] = {}
        for place in self.checkpoint_files or ():
            stored.update(read_checkpoint(place))
        if self.checkpoint_files is None and self.checkpoint_mode is not None:
            for place in get_all_checkpoints(config_run_dir):
                try:
                    stored.update(read_checkpoint(place))
                except BadCheckpoint as error:  # nobody asked for this one
                    logger.warning("an earlier run's checkpoint is not used: %s", error)
        return stored

    def _recall(self, hashsum: str) -> Future[Any] | None:
        """Read a result from its checkpoint; where that fails the call is made again."""
        try:
            result = self._stored[hashsum].load()
        except Exception as error:  # noqa: BLE001 - unpickling runs foreign code
            logger.warning("a checkpointed result cannot be read and is computed again: %r", error)
            self._stored.pop(hashsum, None)
            return None
        outcome: Future[Any] = TaskFuture()
        outcome.set_result(result)
        return self._outcomes.setdefault(hashsum, outcome)

    def _write(self, results: Sequence[tuple[str, Any]]) -> None:
        writer = self._writer
        assert writer is not None
        for hashsum, result in results:
            try:
                writer.append(hashsum, result)
            except Exception as error:  # noqa: BLE001 - pickling runs foreign code, and the run is worth more than its checkpoint
                logger.warning("a result of type %s is not in the checkpoint: %r", type(result).__name__, error)

    def _write_periodically(self, over: threading.Event) -> None:
        while not over.wait(self.checkpoint_period):
            try:
                self.checkpoint()
            except OSError as error:  # the next write may go better
                logger.warning("the checkpoint could not be written to the disk: %r", error)

    def __repr__(self) -> str:
        return (
            f"BasicMemoizer(checkpoint_files={self.checkpoint_files!r}, checkpoint_period={self.checkpoint_period!r}, "
            f"checkpoint_mode={self.checkpoint_mode!r}, memoize={self.memoize!r})"
        )


def _root(exception: BaseException) -> BaseException:
    """Return the failure of another task that led to this one; the exception itself where it is its own."""
    return (exception.__cause__ or exception) if isinstance(exception, PropagatedException) else exception
