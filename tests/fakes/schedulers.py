"""Puts the fake commands of a family of schedulers first on PATH, and sees to it that none of their jobs is left."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

COMMANDS = {
    "pbspro": ("qsub", "qstat", "qdel"),
    "torque": ("qsub", "qstat", "qdel"),
    "lsf": ("bsub", "bjobs", "bkill"),
    "condor": ("condor_submit", "condor_q", "condor_history", "condor_rm"),
}
PROGRAM = Path(__file__).with_name("scheduler.py")


class FakeScheduler:
    """The commands, as a test sees them."""

    def __init__(self, folder: Path, family: str) -> None:
        self._folder = folder
        for name in ("bin", "jobs", "says"):
            (folder / name).mkdir(parents=True)
        for command in COMMANDS[family]:
            words = [sys.executable, "-I", str(PROGRAM), str(folder), family, command]
            put_command(folder / "bin", command, f'exec {shlex.join(words)} "$@"')

    @property
    def bin(self) -> Path:
        """The folder of the commands."""
        return self._folder / "bin"

    def say(self, command: str, code: int | str, out: str = "", err: str = "") -> None:
        """Let the command say this from now on; with the code 'silence' it says nothing for ever."""
        (self._folder / "says" / command).write_text(f"{code}\n{out}--\n{err}")

    def unsay(self, command: str) -> None:
        (self._folder / "says" / command).unlink()

    def calls(self) -> list[str]:
        """Return the command lines so far."""
        return (self._folder / "calls").read_text().splitlines()

    def close(self) -> list[str]:
        """End all jobs; return the sessions that were still there."""
        left = []
        for session in self._folder.glob("jobs/*/session"):
            found = subprocess.run(["pkill", "-KILL", "-s", session.read_text()], check=False)
            left += [session.parent.name] if found.returncode == 0 else []
        return left


def put_command(folder: Path, name: str, text: str) -> None:
    """Make a command of a shell script."""
    path = folder / name
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)


@contextmanager
def fake_scheduler(family: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeScheduler]:
    """Put the commands first on PATH."""
    scheduler = FakeScheduler(folder, family)
    monkeypatch.setenv("PATH", f"{scheduler.bin}{os.pathsep}{os.environ['PATH']}")
    try:
        yield scheduler
    finally:
        scheduler.close()
