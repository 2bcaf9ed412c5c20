"""Send flowcore's log records to a stream or a file; a library is silent until somebody asks."""

from __future__ import annotations

import json
import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from os import PathLike
from pathlib import Path
from typing import Any, Final, TextIO

import attrs

from flowcore.parameters import refusal

LOGGER_NAME: Final = "flowcore"
LOG_FILE: Final = "flowcore.log"
DEFAULT_FORMAT: Final = (
    "%(asctime)s.%(msecs)03d %(name)s:%(lineno)d %(processName)s(%(process)d) %(threadName)s "
    "[%(levelname)s] %(message)s"
)
_DATE_FORMAT: Final = "%Y-%m-%d %H:%M:%S"


def set_stream_logger(
    name: str = LOGGER_NAME,
    level: int = logging.DEBUG,
    format_string: str | None = None,
    stream: TextIO | None = None,
) -> Callable[[], None]:
    """Write log records to a stream.

    Args:
        name: the logger to listen to; 'flowcore' is all of flowcore.
        level: the lowest level that is written.
        format_string: as in `logging.Formatter`; None for the default one.
        stream: where to; None for standard error.

    Returns:
        A function that ends it.
    """
    return attach(logging.StreamHandler(stream), name, level, _formatter(format_string))


def set_file_logger(
    filename: str | PathLike[str],
    name: str = LOGGER_NAME,
    level: int = logging.DEBUG,
    format_string: str | None = None,
) -> Callable[[], None]:
    """Append log records to a file; arguments and result as of `set_stream_logger`."""
    return attach(logging.FileHandler(Path(filename), encoding="utf-8"), name, level, _formatter(format_string))


def attach(handler: logging.Handler, name: str, level: int, formatter: logging.Formatter) -> Callable[[], None]:
    """Add a handler to a logger that lets its level through, and return the function that undoes both."""
    log = logging.getLogger(name)
    handler.setLevel(level)
    handler.setFormatter(formatter)
    with _lock:
        before, attached = _attached.setdefault(name, (log.level, []))
        attached.append(handler)
        log.addHandler(handler)
        log.setLevel(_level(before, attached))

    def undo() -> None:
        with _lock:
            if handler not in attached:
                return
            attached.remove(handler)
            log.removeHandler(handler)
            log.setLevel(_level(before, attached))
            if not attached:
                del _attached[name]
        handler.close()

    return undo


_lock = threading.Lock()
_attached: dict[str, tuple[int, list[logging.Handler]]] = {}
"""By logger: the level that it had before, and the handlers added here."""


def _level(before: int, attached: Iterable[logging.Handler]) -> int:
    levels = [handler.level for handler in attached]
    return min([*levels, before or min(levels)]) if levels else before


def _formatter(format_string: str | None) -> logging.Formatter:
    return logging.Formatter(DEFAULT_FORMAT if format_string is None else format_string, datefmt=_DATE_FORMAT)


class LogConfig(ABC):
    """How a run keeps its log; given as `Config(initialize_logging=)`."""

    level: int | None

    @abstractmethod
    def open(self, run_dir: Path) -> Callable[[], None]:
        """Begin the log of a run in its folder; return the function that ends it."""


def _is_level(config: LogConfig, attribute: attrs.Attribute[int], value: object) -> None:
    if type(value) is not int:
        raise refusal(config, attribute, value, "a number is needed, such as logging.DEBUG")


def _is_format(config: LogConfig, attribute: attrs.Attribute[str | None], value: Any) -> None:
    try:
        _formatter(value)
    except (TypeError, ValueError) as error:
        raise refusal(config, attribute, value, f"a format as of logging.Formatter is needed: {error}") from error


@attrs.frozen
class FileLogging(LogConfig):
    """Text lines in `flowcore.log` in the run's folder.

    Attributes:
        format_string: as in `logging.Formatter`; None for the default one.
        level: the lowest level that is written; DEBUG adds lines for every task, at a cost for every task.
    """

    format_string: str | None = attrs.field(default=None, validator=_is_format)
    level: int = attrs.field(default=logging.INFO, validator=_is_level)

    def open(self, run_dir: Path) -> Callable[[], None]:
        """Begin `flowcore.log`."""
        return set_file_logger(run_dir / LOG_FILE, level=self.level, format_string=self.format_string)


@attrs.frozen
class JSONLogging(LogConfig):
    """One JSON object a line in `flowcore.log.jsonl` in the run's folder.

    Attributes:
        level: the lowest level that is written.
    """

    level: int = attrs.field(default=logging.INFO, validator=_is_level)

    def open(self, run_dir: Path) -> Callable[[], None]:
        """Begin `flowcore.log.jsonl`."""
        handler = logging.FileHandler(run_dir / f"{LOG_FILE}.jsonl", encoding="utf-8")
        return attach(handler, LOGGER_NAME, self.level, _JSONFormatter())


@attrs.frozen
class NoopLogging(LogConfig):
    """No log at all."""

    level: int | None = attrs.field(default=None, init=False)

    def open(self, run_dir: Path) -> Callable[[], None]:  # noqa: ARG002 - the contract has it
        """Begin nothing."""
        return _nothing


def _nothing() -> None:
    """End a log that never began."""


class _JSONFormatter(logging.Formatter):
    """Formats a record as one JSON object with its time (UTC, ISO 8601), place, level and message."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        entry = {
            "time": f"{stamp}.{int(record.msecs):03}Z",
            "level": record.levelname,
            "logger": record.name,
            "line": record.lineno,
            "process": record.process,
            "thread": record.threadName,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)
