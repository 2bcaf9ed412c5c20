"""What a run is made of and how it behaves: the `Config` that `flowcore.load` takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, Final, Literal

import attrs

from flowcore import parameters
from flowcore.checkpoint_options import CheckpointMode, checked_files, checked_mode, checked_period
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
    if isinstance(value, Executor):
        message = f"executors takes a list; write executors=[{type(value).__name__}(...)]"
        raise ConfigurationError(message)
    if not isinstance(value, Iterable) or isinstance(value, (str, bytes, Mapping)):
        message = f"executors={value!r}: a list of executors is needed; take those of flowcore.executors"
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
            hint = "write it with parentheses" if isinstance(executor, type) else "take one of flowcore.executors"
            message = f"executors holds {executor!r}, which is no executor; {hint}"
            raise ConfigurationError(message)
        if not isinstance(executor.label, str) or not executor.label:
            message = f"{executor!r} has no label by which apps could ask for it\n  give it one: label='name'"
            raise ConfigurationError(message)
        if executor.label in labels:
            message = f"Executors must have unique labels (label={executor.label!r})\n  give one of them another label="
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


def _offers(*names: str) -> Callable[[Any, Any, Any], None]:
    """Accept None, and what has all these methods."""

    def validate(instance: object, attribute: Any, value: Any) -> None:
        if isinstance(value, type) or (
            value is not None and not all(callable(getattr(value, name, None)) for name in names)
        ):
            wanted = f"an object with the methods {', '.join(names)} is needed"
            raise parameters.refusal(instance, attribute, value, wanted)

    return validate


def _observer(instance: object, attribute: Any, value: Any) -> None:
    if value is None:
        return
    from flowcore.observation import OBSERVATIONS  # loads pluggy, which those who watch nothing do not need

    if isinstance(value, type) or not any(callable(getattr(value, name, None)) for name in OBSERVATIONS):
        wanted = f"an object with a method {' or '.join(OBSERVATIONS)} is needed"
        raise parameters.refusal(instance, attribute, value, wanted)


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
            first, those that callbacks submit included, unless an exception ends the block; 'skip' does nothing.
        garbage_collect: whether the kernel forgets a task's record when the task is final.
        internal_tasks_max_threads: threads for join app bodies and for parts of results.
        retries: how much failure of its own a task may accumulate and still be run again.
        lost_retries: how often a task is run again after the process that ran it was lost.
        retry_handler: gives the cost of one failure, from its exception and the task's record; None costs 1 each.
            An exception of the handler ends the task, and so does what is no number.
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
    app_cache: bool = attrs.field(default=True, validator=parameters.flag())
    checkpoint_mode: CheckpointMode | None = attrs.field(default=None, converter=checked_mode)
    checkpoint_files: tuple[str, ...] | None = attrs.field(default=None, converter=checked_files)
    checkpoint_period: str | float | None = None
    dependency_resolver: DependencyResolver | None = attrs.field(
        default=None, validator=_offers("traverse_to_gather", "traverse_to_unwrap")
    )
    exit_mode: Literal["cleanup", "skip", "wait"] = attrs.field(
        default="cleanup", validator=parameters.choice(*EXIT_MODES)
    )
    garbage_collect: bool = attrs.field(default=True, validator=parameters.flag())
    internal_tasks_max_threads: int = attrs.field(default=10, validator=parameters.whole(1))
    retries: float = attrs.field(default=0, validator=parameters.number(0))
    lost_retries: int = attrs.field(default=2, validator=parameters.whole(0))
    retry_handler: Callable[[BaseException, TaskRecord], float] | None = attrs.field(
        default=None, validator=parameters.optional(parameters.function())
    )
    run_dir: str | PathLike[str] = attrs.field(default="runinfo", validator=parameters.path())
    std_autopath: Callable[[TaskRecord, str], Any] | None = attrs.field(
        default=None, validator=parameters.optional(parameters.function())
    )
    strategy: str = attrs.field(default="simple", converter=_strategy, validator=parameters.choice(*STRATEGIES))
    strategy_period: float = attrs.field(default=5, validator=parameters.positive("seconds"))
    max_idletime: float = attrs.field(default=120.0, validator=parameters.number(0))
    monitoring: object | None = attrs.field(default=None, validator=_observer)
    usage_tracking: int = attrs.field(default=0, validator=parameters.choice(0, 1, 2, 3))
    project_name: str | None = attrs.field(default=None, validator=parameters.optional(parameters.text()))
    initialize_logging: LogConfig = attrs.field(factory=FileLogging, converter=_log_config)

    @classmethod
    def from_toml(cls, path: str | PathLike[str], **options: Any) -> Config:
        """Read a configuration from a TOML file.

            retries = 2

            [[executors]]
            class = "HighThroughputExecutor"
            label = "cluster"

            [executors.provider]
            class = "SlurmProvider"
            partition = "compute"

            [executors.provider.launcher]
            class = "SrunLauncher"

        The keys are the options of `Config` and the parameters of the components; `class` names a component as it is
        imported. What a file cannot say, such as a function, is given by keyword, or with `attrs.evolve`.

        Args:
            path: the file.
            options: options that are not in the file; they stand against those that are.

        Raises:
            ConfigurationError: naming the file, the table and the key.
        """
        from flowcore import config_file  # those who write Python need no parser

        names = [field.name for field in attrs.fields(cls)]
        found = config_file.read(path, names)
        try:
            return cls(**{**found, **options})
        except ConfigurationError as error:
            message = f"{fspath(path)}: {error}"
            raise ConfigurationError(message) from error

    def __attrs_post_init__(self) -> None:
        if self.executors is not None:
            check_labels(self.executors)
            if not self.executors:
                message = "executors is empty; leave it out for the default ones"
                raise ConfigurationError(message)
        checkpointing = (self.checkpoint_mode, self.checkpoint_files, self.checkpoint_period)
        given = any(option is not None for option in checkpointing)
        if self.memoizer is not None and (given or not self.app_cache):
            message = (
                "checkpoint options and app_cache have no effect beside a memoizer\n"
                "  give them to the memoizer: memoizer=BasicMemoizer(checkpoint_mode=..., memoize=...)"
            )
            raise ConfigurationError(message)
        checked_period(self.checkpoint_period, self.checkpoint_mode)
