"""A log file for processes that cannot afford the logging package: a line at a time, and never an error."""
# ruff: noqa: PTH103, PTH120 - these processes have to start fast, and pathlib is slow to import

from __future__ import annotations

import os
import time
from typing import Final

DEBUG: Final = 10
INFO: Final = 20
WARNING: Final = 30
ERROR: Final = 40
_NAMES: Final = {DEBUG: "DEBUG", INFO: "INFO", WARNING: "WARNING", ERROR: "ERROR"}


class Log:
    """Appends lines to a file; where that fails (a full disk, say) the line is dropped."""

    def __init__(self, path: str | None, level: int | None) -> None:
        """Open the log.

        Args:
            path: the file; its folder is made. None drops all lines.
            level: lines below it are dropped; None drops all.
        """
        self._descriptor = -1
        self.level = level if level is not None else 1000
        if path is not None and level is not None:
            try:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            except OSError:
                self._descriptor = -1

    def debug(self, text: str) -> None:
        """Write a line about one task or message."""
        self._write(DEBUG, text)

    def info(self, text: str) -> None:
        """Write a line about the life of a process."""
        self._write(INFO, text)

    def warning(self, text: str) -> None:
        """Write a line about something that went wrong and was mended."""
        self._write(WARNING, text)

    def error(self, text: str) -> None:
        """Write a line about work that was lost."""
        self._write(ERROR, text)

    def _write(self, level: int, text: str) -> None:
        if level < self.level or self._descriptor < 0:
            return
        now = time.time()
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
        try:
            os.write(self._descriptor, f"{stamp}.{int(now % 1 * 1000):03d} {_NAMES[level]} {text}\n".encode())
        except OSError:
            pass
