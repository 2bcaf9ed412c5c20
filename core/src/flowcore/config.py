"""What a run is made of and how it behaves: the `Config` that `flowcore.load` takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, Final, Literal

import attrs
from attrs import validators

from flowcore import resources
from flowcore.errors import ConfigurationError
from flowcore.executors.base import Executor
from flowcore.logs import FileLogging, LogConfig, NoopLogging

if TYPE_CHECKING:
    from flowcore.dataflow.dependency_resolvers import DependencyResolver
    from flowcore.dataflow.memoization import Memoizer
    from flowcore.dataflow.tasks import TaskRecord

EXIT_MODES: Final = ("cleanup", "skip", "wait")
STRATEGIES: Final = ("none", "simple", "htex_auto_scale")


def _executors(value: Iterable[Executor] | object) -> tuple[Executor, ...] | None:
    if value is None or isinstance(value, tuple):
        return value
    if not isinstance(value, Iterable):
        message = f"executors takes a list; write executors=[{type(value).__name__}(...)]"
        raise ConfigurationError(message)
    return tuple(value)


def check_labels(executors: Iterable[Any]) -> None:
    """Refuse what is no executor, and two executors with one label.

    Raises:
        ConfigurationError: naming the object or the label.
    """
    labels = set()
    for executor in executors:
        if isinstance(executor, type) or not isinstance(executor, Executor):
            hint = "; write it with parentheses" if isinstance(executor, type) else ""
            message = f"executors holds {executor!r}, which is no executor{hint}"
            raise ConfigurationError(message)
        if executor.label in labels:
            message = f"Executors must have unique labels (label={executor.label!r})"
            raise ConfigurationError(message)
        labels.add(executor.label)


def _strategy(value: str | None) -> str:
    return "none" if value is None else value


def _log_config(value: object) -> LogConfig:
    if isinstance(value, LogConfig):
        return value
    if not isinstance(value, bool):
        message = f"initialize_logging takes True, False or a LogConfig, not {value!r}"
        raise ConfigurationError(message)
    return FileLogging() if value else NoopLogging()


def _checked(check: Callable[[Any, Any, Any], None]) -> Callable[[Any, Any, Any], None]:
    """Let a validator's complaint come as the error that configurations raise."""

    def validate(instance: object, attribute: Any, value: Any) -> None:
        try:
            check(instance, attribute, value)
        except (ValueError, TypeError) as error:
            message = f"Config({attribute.name}={value!r}): {error.args[0]}"
            raise ConfigurationError(message) from error

    return validate


def _number(*, minimum: float) -> Callable[[Any, Any, Any], None]:
    return _checked(validators.and_(validators.instance_of((int, float)), validators.ge(minimum)))


def _choice(*choices: str) -> Callable[[Any, Any, Any], None]:
    return _checked(validators.in_(choices))


def _offers(*names: str) -> Callable[[Any, Any, Any], None]:
    """Accept None, and what has all these methods."""

    def validate(_instance: object, attribute: Any, value: Any) -> None:
        if isinstance(value, type) or (
            value is not None and not all(callable(getattr(value, name, None)) for name in names)
        ):
            message = f"Config({attribute.name}={value!r}): an object with the methods {', '.join(names)} is needed"
            raise ConfigurationError(message)

    return validate


def _observer(_instance: object, attribute: Any, value: Any) -> None:
    if value is None:
        return
    from flowcore.observation import OBSERVATIONS  # loads pluggy, which those who watch nothing do not need

    if isinstance(value, type) or not any(callable(getattr(value, name, None)) for name in OBSERVATIONS):
        message = f"Config({attribute.name}={value!r}): an object with a method {' or '.join(OBSERVATIONS)} is needed"
        raise ConfigurationError(message)


def _checkpoint_files(value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    if isinstance(value, (str, PathLike)) or not isinstance(value, Iterable):
        message = f"Config(checkpoint_files={value!r}): a list of checkpoint folders is needed"
        raise ConfigurationError(message)
    return tuple(fspath(folder) for folder in value)


def _optional_callable() -> Callable[[Any, Any, Any], None]:
    return _checked(validators.optional(validators.is_callable()))


@attrs.frozen(kw_only=True)
class Config:
    """The configuration of a run.

    Attributes:
        executors: what runs the tasks; labels are unique. None takes threads where they are installed, else
            worker processes on this machine.
        memoizer: remembers results of `cache=True` apps; None for `BasicMemoizer`, which takes the checkpoint options.
        app_cache: whether `cache=True` has an effect.
        checkpoint_mode: when results are written: 'task_exit', 'periodic', 'dfk_exit', 'manual'; None for never.
        checkpoint_files: folders of earlier checkpoints to begin with.
        checkpoint_period: time between two writes, 'HH:MM:SS' or seconds, in mode 'periodic'.
        dependency_resolver: how futures are found in arguments; None for those at any depth.
        exit_mode: what the end of `with flowcore.load(...)` does: 'cleanup' ends the run; 'wait' waits for all tasks
            first, unless an exception ends the block; 'skip' does nothing.
        garbage_collect: whether the kernel forgets a task's record when the task is final.
        internal_tasks_max_threads: threads for join app bodies and for parts of results.
        retries: how much failure of its own a task may accumulate and still be run again.
        lost_retries: how often a task is run again after the process that ran it was lost.
        retry_handler: gives the cost of one failure, from its exception and the task's record; None costs 1 each.
            An exception of the handler ends the task.
        run_dir: folder in which each run makes its numbered one.
        std_autopath: chooses where `AUTO_LOGNAME` points, from the task's record and 'stdout' or 'stderr'.
        strategy: how blocks follow the load: 'none', 'simple', 'htex_auto_scale'.
        strategy_period: seconds between two looks at the load; new demand is looked at at once.
        max_idletime: seconds that a block may be idle before it is given back.
        monitoring: an object with any of the observation hooks of `flowcore.hookspecs` as methods.
        usage_tracking: accepted, and without effect: flowcore never calls home.
        project_name: accepted, and without effect, as `usage_tracking`.
        initialize_logging: True for `flowcore.log` in the run's folder, False for none, or a `LogConfig`.

    Raises:
        ConfigurationError: at construction, for a value that cannot work.
    """

    executors: tuple[Executor, ...] | None = attrs.field(default=None, converter=_executors)
    memoizer: Memoizer | None = attrs.field(
        default=None, validator=_offers("start", "check_memo", "update_memo_result", "update_memo_exception", "close")
    )
    app_cache: bool = attrs.field(default=True, validator=_checked(validators.instance_of(bool)))
    checkpoint_mode: Literal["task_exit", "periodic", "dfk_exit", "manual"] | None = attrs.field(
        default=None,
        validator=_checked(validators.optional(validators.in_(("task_exit", "periodic", "dfk_exit", "manual")))),
    )
    checkpoint_files: tuple[str, ...] | None = attrs.field(default=None, converter=_checkpoint_files)
    checkpoint_period: str | float | None = None
    dependency_resolver: DependencyResolver | None = attrs.field(
        default=None, validator=_offers("traverse_to_gather", "traverse_to_unwrap")
    )
    exit_mode: Literal["cleanup", "skip", "wait"] = attrs.field(default="cleanup", validator=_choice(*EXIT_MODES))
    garbage_collect: bool = attrs.field(default=True, validator=_checked(validators.instance_of(bool)))
    internal_tasks_max_threads: int = attrs.field(
        default=10, validator=_checked(validators.and_(validators.instance_of(int), validators.ge(1)))
    )
    retries: float = attrs.field(default=0, validator=_number(minimum=0))
    lost_retries: int = attrs.field(
        default=2, validator=_checked(validators.and_(validators.instance_of(int), validators.ge(0)))
    )
    retry_handler: Callable[[BaseException, TaskRecord], float] | None = attrs.field(
        default=None, validator=_optional_callable()
    )
    run_dir: str | PathLike[str] = attrs.field(
        default="runinfo", validator=_checked(validators.instance_of((str, PathLike)))
    )
    std_autopath: Callable[[TaskRecord, str], Any] | None = attrs.field(default=None, validator=_optional_callable())
    strategy: str = attrs.field(default="simple", converter=_strategy, validator=_choice(*STRATEGIES))
    strategy_period: float = attrs.field(default=5, validator=_number(minimum=0.001))
    max_idletime: float = attrs.field(default=120.0, validator=_number(minimum=0))
    monitoring: object | None = attrs.field(default=None, validator=_observer)
    usage_tracking: int = attrs.field(default=0, validator=_checked(validators.in_((0, 1, 2, 3))))
    project_name: str | None = None
    initialize_logging: LogConfig = attrs.field(factory=FileLogging, converter=_log_config)

    def __attrs_post_init__(self) -> None:
        if self.executors is not None:
            check_labels(self.executors)
            if not self.executors:
                message = "executors is empty; leave it out for the default ones"
                raise ConfigurationError(message)
        checkpointing = (self.checkpoint_mode, self.checkpoint_files, self.checkpoint_period)
        if self.memoizer is not None and (any(checkpointing) or not self.app_cache):
            message = "memoizer is given, so give it the checkpoint options and app_cache (its memoize) too"
            raise ConfigurationError(message)
        self._check_period()

    def _check_period(self) -> None:
        period = self.checkpoint_period
        if self.checkpoint_mode != "periodic":
            if period is not None:
                message = "checkpoint_period has an effect with checkpoint_mode='periodic' only"
                raise ConfigurationError(message)
            return
        if period is None:
            message = "checkpoint_mode='periodic' needs a checkpoint_period, such as '00:30:00'"
            raise ConfigurationError(message)
        try:
            seconds = resources.parse_duration(period)
        except ValueError as error:
            message = f"Config(checkpoint_period={period!r}): {error}"
            raise ConfigurationError(message) from error
        if seconds <= 0:
            message = f"Config(checkpoint_period={period!r}): it must be longer than nothing"
            raise ConfigurationError(message)
