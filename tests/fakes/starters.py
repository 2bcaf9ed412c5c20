"""Puts a fake aprun or jsrun first on PATH."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path

import pytest

from fakes.schedulers import put_command

PROGRAM = Path(__file__).with_name("starter.py")


class Starter:
    """The fake, as a test sees it."""

    def __init__(self, log: Path) -> None:
        self._log = log

    def options(self) -> list[str]:
        """Return the options of its only call."""
        [line] = self._log.read_text().splitlines()
        options: list[str] = json.loads(line)
        return options


def put_starter(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Starter:
    """Make the command, and return the fake."""
    folder.mkdir()
    words = [sys.executable, "-I", str(PROGRAM), str(folder / "log"), name]
    put_command(folder, name, f'exec {shlex.join(words)} "$@"')
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return Starter(folder / "log")
