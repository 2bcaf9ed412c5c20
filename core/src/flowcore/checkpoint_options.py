"""When checkpoints are written and which are read: the options that `Config` and `BasicMemoizer` both take."""

from __future__ import annotations

from collections.abc import Iterable
from os import PathLike, fspath
from typing import Any, Literal, get_args

from flowcore import resources
from flowcore.errors import ConfigurationError

CheckpointMode = Literal["task_exit", "periodic", "dfk_exit", "manual"]


def checked_mode(mode: Any) -> CheckpointMode | None:
    """Return the mode, or raise a `ConfigurationError` that tells those there are."""
    modes = get_args(CheckpointMode)
    if mode is not None and mode not in modes:
        raise ConfigurationError(f"checkpoint_mode={mode!r}: one of {', '.join(map(repr, modes))} is needed, or None")
    return mode  # type: ignore[no-any-return]  # checked above


def checked_files(files: Any) -> tuple[str, ...] | None:
    """Return the folders as texts, or raise a `ConfigurationError`."""
    if files is None:
        return None
    if isinstance(files, (str, PathLike)):
        raise ConfigurationError(f"checkpoint_files takes a list of checkpoint folders; write [{fspath(files)!r}]")
    if isinstance(files, Iterable):
        folders = list(files)
        if all(isinstance(folder, (str, PathLike)) for folder in folders):
            return tuple(fspath(folder) for folder in folders)
    raise ConfigurationError(f"checkpoint_files={files!r}: a list of checkpoint folders is needed")


def checked_period(period: Any, mode: CheckpointMode | None) -> float | None:
    """Return the seconds between two writes, None where there are none; a `ConfigurationError` says what is missing."""
    if mode != "periodic":
        if period is not None:
            raise ConfigurationError("checkpoint_period has an effect with checkpoint_mode='periodic' only")
        return None
    if period is None:
        raise ConfigurationError("checkpoint_mode='periodic' needs a checkpoint_period, such as '00:30:00'")
    try:
        seconds = resources.parse_duration(period)
    except ValueError as error:
        raise ConfigurationError(f"checkpoint_period={period!r}: {error}") from error
    if seconds <= 0:
        raise ConfigurationError(f"checkpoint_period={period!r}: it must be longer than nothing")
    return seconds
