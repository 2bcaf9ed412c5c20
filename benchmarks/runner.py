"""Runs one measurement in a process of its own, within a bound of time, and leaves nothing of it."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from processes import MARKER, RUNNER, kill, machine_seconds, of_run

HERE = Path(__file__).resolve().parent
_ADOPT_ORPHANS = 36  # PR_SET_CHILD_SUBREAPER
_SWEEP = 20.0
_CORES = os.cpu_count() or 1

Watch = Callable[["Run"], dict[str, float]]


class Outcome(NamedTuple):
    """What came of a measurement."""

    figures: dict[str, float]
    """Empty where the system cannot do it, or did not in time."""

    foreign: float
    """Which share of the machine others took meanwhile."""

    why: str = ""
    """Why there are no figures."""


class Run:
    """One measurement.

    Args:
        command: what is run.
        extra_path: a folder with modules that the measure itself needs.
    """

    def __init__(self, command: Sequence[str], extra_path: Path | None = None) -> None:
        self.mark = str(uuid.uuid4())
        self._folder = tempfile.TemporaryDirectory(prefix="bench-")
        self._said = Path(self._folder.name, "said")
        self._errors = Path(self._folder.name, "errors")
        binaries = Path(command[0]).parent
        environment = {
            **os.environ,
            "TMPDIR": self._folder.name,  # what is killed leaves there what it would have removed
            "PATH": os.pathsep.join([str(binaries), os.environ["PATH"]]),
            "PYTHONPATH": str(extra_path) if extra_path else "",
            MARKER: self.mark,
            RUNNER: str(os.getpid()),
        }
        self.started = time.monotonic()
        with self._said.open("wb") as said, self._errors.open("wb") as errors:  # a pipe would outlive the script
            self.process = subprocess.Popen(
                command,
                cwd=self._folder.name,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=errors,
                start_new_session=True,
            )

    def processes(self) -> list[int]:
        """Return the living processes of the measurement."""
        return of_run(self.mark, os.getpid())

    def said(self) -> dict[str, float] | None:
        """Read the last line that was printed; points in time become seconds since the start."""
        lines = [line for line in self._said.read_text(errors="replace").splitlines() if line.startswith("{")]
        if not lines:
            return None
        figures: dict[str, float] = json.loads(lines[-1])
        return {
            (name.removesuffix("_at") + "_s" if name.endswith("_at") else name): (
                value - self.started if name.endswith("_at") else value
            )
            for name, value in figures.items()
        }

    def evidence(self) -> str:
        """Return the end of what was written to standard error."""
        lines = self._errors.read_text(errors="replace").strip().splitlines()
        return lines[-1][-200:] if lines else "nothing was said"

    def close(self) -> None:
        """End what is left of it."""
        deadline = time.monotonic() + _SWEEP
        while (left := self.processes()) and time.monotonic() < deadline:
            kill(left)
            time.sleep(0.02)
        self.process.wait()
        _reap()
        self._folder.cleanup()


def measure(
    command: Sequence[str], patience: float, *, extra_path: Path | None = None, watch: Watch | None = None
) -> Outcome:
    """Run a command that prints figures.

    Args:
        command: the words of the command.
        patience: seconds after which it is ended.
        extra_path: see `Run`.
        watch: what is done instead of waiting for the end.
    """
    _adopt_orphans()
    began, busy, own = time.monotonic(), machine_seconds(), _own_seconds()
    run = Run(command, extra_path)
    figures: dict[str, float] | None = None
    why = ""
    try:
        if watch is not None:
            figures = watch(run)
        else:
            run.process.wait(patience)
            figures = run.said()
        if figures is None:
            why = run.evidence()
    except subprocess.TimeoutExpired:
        why = f"not done after {patience:.0f} s"
    finally:
        run.close()
    elapsed = time.monotonic() - began
    others = machine_seconds() - busy - (_own_seconds() - own)
    return Outcome(figures or {}, max(0.0, others / elapsed / _CORES), why)


def _own_seconds() -> float:
    total = 0.0
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(who)
        total += usage.ru_utime + usage.ru_stime
    return total


def _adopt_orphans() -> None:
    ctypes.CDLL(None).prctl(_ADOPT_ORPHANS, 1)


def _reap() -> None:
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                return
        except ChildProcessError:
            return
