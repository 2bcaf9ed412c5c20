"""Show how far the run is: one line that follows it on a terminal, now and then a line of its own elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future, wait
from typing import Any, Final, TextIO

from flowcore import DataFlowKernel
from flowcore.dataflow.tasks import FINAL_STATES

WIDTH: Final = 32


def watch(kernel: DataFlowKernel, goals: Sequence[Future[Any]], stream: TextIO) -> None:
    """Wait for the goals and write the progress of the run's tasks to `stream` meanwhile."""
    live = stream.isatty()
    started = time.monotonic()
    period = 0.1 if live else 2.0
    while wait(goals, timeout=period).not_done:
        _write(stream, _line(kernel, time.monotonic() - started), live=live)
    _write(stream, _line(kernel, time.monotonic() - started), live=live)
    if live:
        stream.write("\n")


def _line(kernel: DataFlowKernel, seconds: float) -> str:
    known = kernel.task_count
    done = sum(count for state, count in kernel.task_state_counts.items() if state in FINAL_STATES)
    filled = WIDTH * done // max(1, known)
    return f"[{'#' * filled}{'.' * (WIDTH - filled)}] {done:,} of {known:,} tasks, {seconds:.1f} s"


def _write(stream: TextIO, line: str, *, live: bool) -> None:
    stream.write(f"\r\x1b[K{line}" if live else f"{line}\n")
    stream.flush()
