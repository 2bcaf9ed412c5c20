"""The launchers that start copies through another program keep the contract of launchers."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

from clusters.packages import give_up, require
from fakes.starters import put_starter
from flowcore.launchers import AprunLauncher, GnuParallelLauncher, JsrunLauncher, MpiExecLauncher, MpiRunLauncher
from flowcore.launchers.base import Launcher
from flowcore.testing.launchers import TIMEOUT, LauncherConformance
from waiting import eventually


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

    def test_no_file_is_left_by_a_script_that_is_killed_while_its_copies_end(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        scratch, end = tmp_path / "scratch", tmp_path / "end"
        scratch.mkdir()
        monkeypatch.setenv("TMPDIR", str(scratch))
        os.mkfifo(end)
        with self.start(self.make_launcher()(f"trap '' TERM; echo ready; read -r < {end}", 2, 1), tmp_path) as process:
            assert process.stdout is not None
            assert [process.stdout.readline() for _ in range(2)] == ["ready\n"] * 2
            assert len(list(scratch.iterdir())) == 1
            os.kill(process.pid, signal.SIGTERM)
            try:
                eventually(lambda: not list(scratch.iterdir()), what="the script's folder is gone")
            finally:
                os.kill(process.pid, signal.SIGKILL)
                end.write_text("\n" * 2)
            assert process.communicate(timeout=TIMEOUT)[0] == ""


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
