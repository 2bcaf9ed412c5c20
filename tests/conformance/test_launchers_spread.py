"""The launchers that start copies through another program keep the contract of launchers."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from flowcore.launchers.base import Launcher
from flowcore.launchers.gnu_parallel import GnuParallelLauncher
from flowcore.launchers.mpiexec import MpiExecLauncher
from flowcore.launchers.mpirun import MpiRunLauncher
from flowcore.testing.launchers import LauncherConformance


@pytest.fixture(autouse=True)
def _own_programs_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


class TestMpiExecLauncher(LauncherConformance):
    def make_launcher(self, *, debug: bool = True) -> Launcher:
        return MpiExecLauncher(debug=debug)


class TestMpiRunLauncher(LauncherConformance):
    def make_launcher(self, *, debug: bool = True) -> Launcher:
        return MpiRunLauncher(debug=debug)


class TestGnuParallelLauncher(LauncherConformance):
    def make_launcher(self, *, debug: bool = True) -> Launcher:
        return GnuParallelLauncher(debug=debug)
