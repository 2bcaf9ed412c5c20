"""SlurmProvider and the launchers for Slurm keep their contracts, on a real Slurm."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clusters.slurm import SlurmCluster
from flowcore.launchers import SrunLauncher, SrunMPILauncher, srun
from flowcore.launchers.base import Launcher
from flowcore.providers import SlurmProvider
from flowcore.providers.base import Provider
from flowcore.testing.launchers import LauncherConformance
from flowcore.testing.providers import ProviderConformance


class TestSlurmProvider(ProviderConformance):
    @pytest.fixture(autouse=True)
    def _nothing_is_left(self, slurm: SlurmCluster) -> Iterator[None]:
        self._submitted = []
        yield
        slurm.clear()

    def make_provider(self, tmp_path: Path, **options: Any) -> Provider:
        return SlurmProvider(script_dir=str(tmp_path / "scripts"), **options)


@pytest.fixture(scope="class")
def allocation(booted: SlurmCluster) -> Iterator[str]:
    """A job of three nodes that waits for steps."""
    booted.call("salloc", "--no-shell", "--nodes=3", "--ntasks-per-node=2", "--job-name=allocation")
    [job_id] = booted.call("squeue", "--noheader", "--name=allocation", "--format=%i").split()
    yield job_id
    booted.call("scancel", job_id)
    assert not booted.await_rest()


class InAllocation(LauncherConformance):
    @pytest.fixture(autouse=True)
    def _within(self, allocation: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SLURM_JOB_ID", allocation)
        monkeypatch.setattr(srun, "GRACE", 90)

    def test_debug_says_on_standard_error_what_starts_and_changes_nothing_else(self, tmp_path: Path) -> None:
        code, out, err = self.run(self.make_launcher(debug=True)("echo here; exit 3", 1, 1), tmp_path)
        quiet_code, quiet_out, quiet_err = self.run(
            self.make_launcher(debug=False)("echo here; exit 3", 1, 1), tmp_path
        )
        assert (code, out) == (quiet_code, quiet_out) == (3, "here\n")
        assert type(self.make_launcher()).__name__ in err
        assert all(line.startswith("srun: ") for line in quiet_err.splitlines())

    def test_copies_are_on_every_node(self, tmp_path: Path) -> None:
        code, out, _ = self.run(self.make_launcher()("hostname", 2, 3), tmp_path)
        assert (code, len(out.split()), len(set(out.split()))) == (0, 6, 3)

    def test_one_failed_copy_fails_the_block_and_the_others_come_to_their_end(self, tmp_path: Path) -> None:
        command = f"if mkdir {tmp_path}/taken 2>/dev/null; then exit 9; fi; sleep 0.5; echo ended"
        code, out, _ = self.run(self.make_launcher()(command, 1, 3), tmp_path)
        assert (code, out) == (9, "ended\n" * 2)


class TestSrunLauncher(InAllocation):
    def make_launcher(self, *, debug: bool = True) -> Launcher:
        return SrunLauncher(debug=debug)

    def test_the_overrides_reach_srun(self, tmp_path: Path) -> None:
        launcher = SrunLauncher(overrides="--label --export=ALL,GREETING='hello you'")
        assert self.run(launcher('echo "$GREETING"', 1, 1), tmp_path)[:2] == (0, "0: hello you\n")


class TestSrunMPILauncher(InAllocation):
    def make_launcher(self, *, debug: bool = True) -> Launcher:
        return SrunMPILauncher(debug=debug)

    def test_every_copy_is_a_step_of_its_own(self, tmp_path: Path) -> None:
        code, out, _ = self.run(self.make_launcher()("echo $SLURM_STEP_ID", 2, 2), tmp_path)
        assert (code, len(set(out.split()))) == (0, 4)
