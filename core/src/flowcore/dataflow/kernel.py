"""The DataFlowKernel: takes calls of apps, works out their order, and sees every one of them to its end."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, Future, wait
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, cast

from flowcore import registry
from flowcore.config import Config
from flowcore.dataflow import calls, dependency_resolvers, exits, streams
from flowcore.dataflow.course import Course
from flowcore.dataflow.futures import AppFuture, representation
from flowcore.dataflow.internal import InternalThreads
from flowcore.dataflow.ledger import TaskLedger
from flowcore.dataflow.lineup import Lineup, default_executors
from flowcore.dataflow.memoization import BasicMemoizer, Memoizer
from flowcore.dataflow.rundirs import make_rundir
from flowcore.dataflow.staging import Stager
from flowcore.dataflow.tasks import States, TaskRecord
from flowcore.errors import ConfigurationError, InvalidResourceSpecification
from flowcore.executors.base import Executor, RunContext

if TYPE_CHECKING:
    from flowcore.executors.block import BlockExecutor
    from flowcore.jobs.poller import JobStatusPoller

logger = logging.getLogger(__name__)

CLEANUP_PATIENCE: Final = 60.0
"""Seconds that a second caller of `cleanup` waits for the first one, and that one for tasks that are ending."""

_NO_SPECIALS: Final[frozenset[str]] = frozenset()


class DataFlowKernel:
    """One run, from its configuration to its clean-up.

    It takes calls in, and `Course` sees each to its end. Whatever else there is to a run has a class of its own, too,
    and hangs together here.

    Raises:
        ConfigurationError: it is no configuration, or the run's folder cannot be made.
        ExecutorError: an executor cannot start; those that had started are shut down again.
    """

    def __init__(self, config: Config | None = None) -> None:
        self.config = _checked_config(config)
        self.run_id = str(uuid.uuid4())
        self.run_dir = _new_rundir(self.config)
        self.workflow_name = Path(sys.argv[0]).name if sys.argv and sys.argv[0] else "interactive"
        self.workflow_version = time.strftime("%Y-%m-%d %H:%M:%S")
        self._close_log = self.config.initialize_logging.open(self.run_dir)
        self.monitoring = self.config.monitoring
        self.job_status_poller: JobStatusPoller | None = None
        self.memoizer: Memoizer = self.config.memoizer or _memoizer_of(self.config)
        self._resolver = self.config.dependency_resolver or dependency_resolvers.DEEP_DEPENDENCY_RESOLVER
        self._internal = InternalThreads(self.config.internal_tasks_max_threads)
        self._stager = Stager(self._submit_staging, self)
        self.data_manager = self._stager.data_manager
        self._cleaned = threading.Event()
        self._memoizing = False
        self._announced = False
        self._observers = registry.observation_hooks(self.monitoring)
        self._ledger = TaskLedger(self._observers, garbage_collect=self.config.garbage_collect)
        self.course = Course(
            config=self.config,
            ledger=self._ledger,
            resolver=self._resolver,
            memoizer=self.memoizer,
            internal=self._internal,
        )
        self._lineup = Lineup(
            RunContext(run_id=self.run_id, run_dir=self.run_dir, log_level=self.config.initialize_logging.level)
        )
        self._begin()

    def _begin(self) -> None:
        if self.config.usage_tracking or self.config.project_name:
            logger.warning("usage_tracking and project_name have no effect: flowcore never calls home")
        try:
            self.memoizer.start(run_dir=self.run_dir, config_run_dir=Path(self.config.run_dir).absolute())
            self._memoizing = True
            self.add_executors(self.config.executors or default_executors())
        except BaseException:
            self.cleanup()
            raise
        exits.watch(self)
        logger.info("run %s in %s, executors: %s", self.run_id, self.run_dir, ", ".join(self.executors))
        if self._observers is not None:
            self._announced = True
            self._observers.run_started(self)

    def add_executors(self, executors: Sequence[Executor]) -> None:
        """Start further executors, whose labels differ from those there are.

        Raises:
            ConfigurationError: a label is taken.
            ExecutorError: one cannot start.
        """
        if isinstance(executors, Executor):
            message = "executors takes a list; write add_executors([...])"
            raise ConfigurationError(message)
        for executor in executors:
            self._lineup.add(executor)
            if executor.scalable:
                self._poller().add(cast("BlockExecutor", executor))

    def _poller(self) -> JobStatusPoller:
        if self.job_status_poller is None:
            from flowcore.jobs.poller import JobStatusPoller

            config = self.config
            self.job_status_poller = JobStatusPoller(
                strategy=config.strategy, max_idletime=config.max_idletime, strategy_period=config.strategy_period
            )
        return self.job_status_poller

    # -- accept

    def submit(
        self,
        func: Callable[..., Any],
        app_args: Sequence[Any],
        executors: str | Sequence[str] = "all",
        cache: bool = False,
        ignore_for_cache: Sequence[str] | None = None,
        app_kwargs: Mapping[str, Any] | None = None,
        join: bool = False,
        drops: frozenset[str] = _NO_SPECIALS,
    ) -> AppFuture[Any]:
        """Take one call; callable from any thread.

        Args:
            func: what an executor runs.
            app_args: its positional arguments; futures among them are awaited and replaced by their results.
            executors: 'all', or the labels of those that may run it.
            cache: whether an equal earlier call's result will do.
            ignore_for_cache: keywords that do not count for being equal.
            app_kwargs: its keyword arguments, those of `flowcore.dataflow.calls` included.
            join: whether the result is a future, or a list of futures, whose results are meant.
            drops: keywords that have their effect here and that `func` does not take.

        Raises:
            NoDataFlowKernelError: the kernel has been cleaned up.
            ValueError: no executor has one of the labels.
            InvalidResourceSpecification: a resource that nothing honours.
        """
        self._ledger.refuse_when_closed()
        kwargs = dict(app_kwargs) if app_kwargs else {}
        special = bool(kwargs) and not calls.SPECIAL_KEYWORDS.isdisjoint(kwargs)
        specification = calls.take_resources(kwargs)
        if join and specification:
            message = "the body of a join app runs in the script's own process; give it to the apps that it calls"
            raise InvalidResourceSpecification(list(specification), message)
        candidates = () if join else self._lineup.candidates(executors, specification)
        walltime = calls.take_walltime(kwargs) if special else None
        task = TaskRecord(
            self,
            func,
            app_args,
            kwargs,
            candidates=candidates,
            resource_specification=specification,
            memoize=cache,
            ignore_for_cache=() if ignore_for_cache is None else tuple(ignore_for_cache),
            join=join,
            walltime=walltime,
            now=time.time(),
        )
        return self._accept(task, drops, special=special, stage=True)

    def submit_internal(self, func: Callable[..., Any], args: Sequence[Any]) -> AppFuture[Any]:
        """Run a small function on the kernel's own threads, as a task."""
        return self._submit_own(func, args, {}, ())

    def _submit_own(
        self,
        func: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        candidates: tuple[Executor, ...],
    ) -> AppFuture[Any]:
        """Take a task that the kernel itself needs: nothing about it is special, and its files are left alone."""
        self._ledger.refuse_when_closed()
        task = TaskRecord(self, func, args, dict(kwargs), candidates=candidates, now=time.time())
        return self._accept(task)

    def _submit_staging(
        self, label: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> AppFuture[Any]:
        return self._submit_own(func, args, kwargs, (self.executors[label],))

    def check_labels(self, labels: str | Sequence[str]) -> None:
        """Refuse labels that no executor of the run has, with a `ValueError`."""
        self._lineup.check(labels)

    def _accept(
        self, task: TaskRecord, drops: frozenset[str] = _NO_SPECIALS, *, special: bool = False, stage: bool = False
    ) -> AppFuture[Any]:
        future: AppFuture[Any] = AppFuture(task)
        task.app_fu = future
        self._ledger.number(task)
        try:
            if special:
                future.streams = streams.resolve(task, task.kwargs, self._autopath)
            if stage:
                self._stager.stage(task, special=special)
            depends = dependency_resolvers.gather(self._resolver, task.args, task.kwargs)
            if drops and special:
                task.kwargs = {name: value for name, value in task.kwargs.items() if name not in drops}
            self.course.begin(task, depends)
        except BaseException as error:
            if not future.done():  # what was staged by now waits for it
                future.set_exception(error)
            raise
        return future

    def launch_if_ready(self, task: TaskRecord) -> None:
        """Hand a pending task to an executor if all that it depends on is done; without effect otherwise."""
        self.course.launch_if_ready(task)

    def handle_exec_update(self, task: TaskRecord, attempt: Future[Any]) -> None:
        """Decide what a finished attempt of a task means."""
        self.course.returned(task, attempt)

    def cancel(self, task: TaskRecord) -> bool:
        """Cancel a task, from any thread; False where it is final, or runs where it cannot be stopped."""
        return self.course.cancel(task)

    # -- tell

    @property
    def executors(self) -> dict[str, Executor]:
        """The executors by label; the kernel's own threads are none of them."""
        return self._lineup.executors

    @property
    def tasks(self) -> dict[int, TaskRecord]:
        """The records by task id; final ones only where `Config(garbage_collect=False)`."""
        return self._ledger.tasks

    @property
    def task_count(self) -> int:
        """How many tasks there have been."""
        return self._ledger.task_count

    @property
    def task_state_counts(self) -> dict[States, int]:
        """How many tasks are in each state."""
        return self._ledger.counts()

    @property
    def cleaned(self) -> bool:
        """Whether the run has ended."""
        return self._cleaned.is_set()

    def unfinished_count(self) -> int:
        """Count the tasks that are not final."""
        return self._ledger.unfinished_count()

    def log_task_states(self) -> None:
        """Write one line to the log with how many tasks are in each state."""
        counts = self.task_state_counts
        logger.info("tasks: %s", ", ".join(f"{state.name} {count}" for state, count in counts.items() if count))

    def wipe_task(self, task_id: int) -> None:
        """Forget the record of a task, which goes on all the same."""
        self.tasks.pop(task_id, None)

    def render_future_description(self, dependency: Future[Any]) -> str:
        """Name a future as the errors do: by its task where it has one."""
        return representation(dependency)

    # -- streams

    def _autopath(self, task: TaskRecord, stream: str) -> Any:
        choose = self.config.std_autopath or self.default_std_autopath
        return choose(task, stream)

    def default_std_autopath(self, task: TaskRecord, stream: str) -> str:
        """Choose the file that `AUTO_LOGNAME` stands for, in the run's folder."""
        return streams.default_std_autopath(self.run_dir, task, stream, task.kwargs.get("label"))

    # -- end

    def wait_for_current_tasks(self) -> None:
        """Wait until all tasks that were submitted before this call are final, however they end."""
        for future in self._ledger.left_futures():
            try:
                future.exception()
            except CancelledError:
                continue

    def wait_for_all_tasks(self) -> None:
        """Wait until no task is left and no callback runs, and so for what callbacks submit.

        A callback that calls this waits for the tasks alone: another one may be waiting like it.
        """
        if self._ledger.closed:  # whoever has closed it ends all tasks, perhaps in this very thread
            return
        if not self.course.ends_a_task():
            self._ledger.wait_until_none_is_left()
            return
        while not all(future.done() for future in self._ledger.left_futures()):
            self.wait_for_current_tasks()

    def cleanup(self) -> None:
        """End the run without waiting: every future is done afterwards, and nothing of the run is left running.

        Unfinished tasks fail with a `ShutdownError`. Calling it again is harmless.
        """
        with exits.uninterrupted():  # closed and then interrupted, it could never be ended
            if self._ledger.close():
                try:
                    self._end()
                finally:
                    exits.forget(self)
                    self._cleaned.set()
        if self._ledger.closer != threading.get_ident():
            self._cleaned.wait(CLEANUP_PATIENCE)

    def _end(self) -> None:
        """Take down all parts of the run, in this order, whatever any of them raises."""
        with contextlib.ExitStack() as last_to_first:
            last_to_first.callback(self._close_log)
            if self._announced and self._observers is not None:
                last_to_first.callback(self._observers.run_finished, self)
            last_to_first.callback(self.log_task_states)
            if self._memoizing:
                last_to_first.callback(self.memoizer.close)
            last_to_first.callback(self._internal.close)
            last_to_first.callback(self._lineup.shutdown)
            if self.job_status_poller is not None:
                last_to_first.callback(self.job_status_poller.close)
            last_to_first.callback(self._await_ends)
            self.course.abandon(self._ledger.left())

    def _await_ends(self) -> None:
        """Wait for the futures of tasks that other threads were ending already."""
        if not self.course.ends_a_task():  # this thread may be the one, and a signal handler have come in between
            wait(self._ledger.left_futures(), CLEANUP_PATIENCE)

    def forsake(self) -> None:
        """Be over, and touch nothing, in a forked child: the run belongs to the parent."""
        self._ledger.forsake()
        self._cleaned.set()

    def __enter__(self) -> DataFlowKernel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.config.exit_mode == "skip":
            return
        try:
            if self.config.exit_mode == "wait" and error is None:
                self.wait_for_all_tasks()
        finally:
            self.cleanup()


def _checked_config(config: object) -> Config:
    if config is None:
        return Config()
    if not isinstance(config, Config):
        example = f"Config.from_toml({config!r})" if isinstance(config, (str, Path)) else "Config(executors=[...])"
        message = f"{config!r} is no configuration\n  write flowcore.load({example})"
        raise ConfigurationError(message)
    return config


def _new_rundir(config: Config) -> Path:
    try:
        return make_rundir(config.run_dir)
    except OSError as error:
        fault = f"run_dir={str(config.run_dir)!r}: the folder of the run cannot be made: {error}"
        message = f"{fault}\n  give another one: Config(run_dir=...)"
        raise ConfigurationError(message) from error


def _memoizer_of(config: Config) -> Memoizer:
    return BasicMemoizer(
        checkpoint_mode=config.checkpoint_mode,
        checkpoint_files=config.checkpoint_files,
        checkpoint_period=config.checkpoint_period,
        memoize=config.app_cache,
    )
