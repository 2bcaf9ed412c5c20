"""The launchers that start copies through another program keep the contract of launchers."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from clusters.packages import give_up, require
from fakes.starters import put_starter
from flowcore.launchers import AprunLauncher, GnuParallelLauncher, JsrunLauncher, MpiExecLauncher, MpiRunLauncher
from flowcore.launchers.base import Launcher
from flowcore.testing.launchers import LauncherConformance


class WithMPI(LauncherConformance):
    """Runs what the package `mpich` has put beside the interpreter, or else on PATH."""

    @pytest.fixture(autouse=True)
    def _mpi(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        if shutil.which("mpiexec") is None:
            give_up("there is no mpiexec here; `pip install mpich` brings one")


class TestMpiExecLauncher(WithMPI):
    def make_launcher(self, *, debug: bool = True) -> Launcher:
        return MpiExecLauncher(debug=debug)


class TestMpiRunLauncher(WithMPI):
    def make_launcher(self, *, debug: bool = True) -> Launcher:
        return MpiRunLauncher(debug=debug)


class PatientLauncher(GnuParallelLauncher):
    """Gives copies more than its ten seconds between SIGTERM and SIGKILL, for a busy machine."""

    def __call__(self, command: str, tasks_per_node: int, nodes_per_block: int) -> str:
        before, termseq, after = super().__call__(command, tasks_per_node, nodes_per_block).partition("TERM,10000,")
        assert termseq
        return f"{before}TERM,90000,{after}"


class TestGnuParallelLauncher(LauncherConformance):
    @pytest.fixture(autouse=True)
    def _parallel(self) -> None:
        require(["parallel"], ["parallel"])

    def make_launcher(self, *, debug: bool = True) -> Launcher:
        return PatientLauncher(debug=debug)


class TestAprunLauncherOnAFake(LauncherConformance):
    @pytest.fixture(autouse=True)
    def _aprun(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        put_starter("aprun", tmp_path / "bin", monkeypatch)

    def make_launcher(self, *, debug: bool = True) -> Launcher:
        return AprunLauncher(debug=debug)


class TestJsrunLauncherOnAFake(LauncherConformance):
    @pytest.fixture(autouse=True)
    def _jsrun(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        put_starter("jsrun", tmp_path / "bin", monkeypatch)

    def make_launcher(self, *, debug: bool = True) -> Launcher:
        return JsrunLauncher(debug=debug)
