"""The launchers of MPI in blocks of two nodes on a real Slurm, with the MPICH of the virtual environment."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from clusters.packages import give_up
from clusters.slurm import SlurmCluster
from flowcore.jobs.states import JobState, JobStatus
from flowcore.launchers import MpiExecLauncher, MpiRunLauncher
from flowcore.launchers.base import Launcher
from flowcore.providers import SlurmProvider
from flowcore.testing.commands import COMMANDS, printed
from signs import last_act
from waiting import eventually

BOUND = 60.0
BIN = Path(sys.executable).parent

Make = Callable[[], SlurmProvider]


@pytest.fixture(params=[MpiExecLauncher(debug=False), MpiRunLauncher(debug=False)], ids=["mpiexec", "mpirun"])
def make(request: pytest.FixtureRequest, slurm: SlurmCluster, tmp_path: Path) -> Make:
    del slurm
    launcher: Launcher = request.param
    if not (BIN / "mpiexec.hydra").exists():
        give_up("there is no MPICH beside the interpreter; `pip install mpich` brings one")

    def make() -> SlurmProvider:
        path = f"export PATH={BIN}:$PATH"
        return SlurmProvider(
            nodes_per_block=2, launcher=launcher, worker_init=path, script_dir=str(tmp_path / "scripts")
        )

    return make


def run(provider: SlurmProvider, command: str, copies_per_node: int) -> JobStatus:
    job_id = provider.submit(command, copies_per_node)
    eventually(lambda: provider.status([job_id])[0].terminal, BOUND, "the end of the job")
    return provider.status([job_id])[0]


def test_every_node_runs_its_copies_of_the_very_command(make: Make, tmp_path: Path) -> None:
    names = ("quotes", "dollars", "newlines", "unicode", "heredoc")
    said = "".join(printed(COMMANDS[name]) for name in names)
    text = "\n".join(COMMANDS[name] for name in names)
    status = run(make(), f"{{\n{text}\n}} > {shlex.quote(str(tmp_path))}/said-on-$(hostname)-$PMI_RANK", 2)
    assert status.state is JobState.COMPLETED, status.report()
    written = sorted(tmp_path.glob("said-on-*"))
    assert [path.read_text() for path in written] == [said] * 4
    nodes = [path.name.split("-")[2] for path in written]
    assert nodes[0] == nodes[1] != nodes[2] == nodes[3]


def test_the_exit_code_of_a_copy_is_that_of_the_job_and_the_other_nodes_copies_come_to_their_end(
    make: Make, tmp_path: Path
) -> None:
    command = f"if mkdir {tmp_path}/taken 2>/dev/null; then exit 9; fi; sleep 0.5; echo ended"
    status = run(make(), command, 1)
    assert (status.state, status.exit_code, status.stdout) == (JobState.FAILED, 9, "ended\n"), status.report()


def test_a_signal_to_the_job_is_told_to_every_copy(make: Make, slurm: SlurmCluster, tmp_path: Path) -> None:
    provider = make()
    job_id = provider.submit(last_act(tmp_path, "$PMI_RANK"), 2)
    eventually(lambda: len(list(tmp_path.glob("up-*"))) == 4, BOUND, "four copies")
    slurm.call("scancel", "--batch", "--signal=TERM", job_id)
    eventually(lambda: len(list(tmp_path.glob("told-*"))) == 4, BOUND, "the last act of each copy")
    eventually(lambda: provider.status([job_id])[0].terminal, BOUND, "the end of the job")


def test_a_cancelled_job_leaves_no_process_on_any_node(make: Make, slurm: SlurmCluster, tmp_path: Path) -> None:
    """Slurm tells all processes, the daemons of MPICH too: a copy may have no time for a last act."""
    provider = make()
    job_id = provider.submit(f"touch {tmp_path}/up-$PMI_RANK; sleep 600 & sleep 600", 2)
    eventually(lambda: len(list(tmp_path.glob("up-*"))) == 4, BOUND, "four copies")
    assert provider.cancel([job_id]) == [True]
    eventually(lambda: provider.status([job_id])[0].terminal, BOUND, "the end of the job")
    assert provider.status([job_id])[0].state is JobState.CANCELLED
    assert slurm.await_rest() == []
