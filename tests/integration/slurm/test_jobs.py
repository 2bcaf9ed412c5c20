"""SlurmProvider beyond the contract: what may happen to a job, and what its options do, on a real Slurm."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest

from clusters.slurm import SlurmCluster
from flowcore.jobs.states import TERMINAL_STATES, JobState, JobStatus
from flowcore.launchers import SimpleLauncher, SrunLauncher, SrunMPILauncher, srun
from flowcore.launchers.base import Launcher
from flowcore.providers import SlurmProvider
from flowcore.providers.errors import SchedulerError, SubmitException
from signs import last_act
from waiting import eventually

Make = Callable[..., SlurmProvider]
BOUND = 60.0


@pytest.fixture
def make(slurm: SlurmCluster, tmp_path: Path) -> Make:
    def make(**options: Any) -> SlurmProvider:
        return SlurmProvider(**{"script_dir": str(tmp_path / "scripts"), "launcher": SimpleLauncher(), **options})

    return make


def until(provider: SlurmProvider, job_id: str, states: Collection[JobState], seconds: float = BOUND) -> JobStatus:
    found: list[JobStatus] = []

    def reached() -> bool:
        found[:] = provider.status([job_id])
        return found[0].state in states

    eventually(reached, seconds, f"one of {[state.name for state in states]}")
    return found[0]


def ended(provider: SlurmProvider, job_id: str, seconds: float = BOUND) -> JobStatus:
    return until(provider, job_id, TERMINAL_STATES, seconds)


def run(provider: SlurmProvider, command: str) -> JobStatus:
    return ended(provider, provider.submit(command, 1))


def shown(slurm: SlurmCluster, job_id: str) -> str:
    return slurm.call("scontrol", "show", "job", job_id)


def test_a_job_waits_runs_and_ends(slurm: SlurmCluster, make: Make, tmp_path: Path) -> None:
    whole = make(nodes_per_block=4)
    first = whole.submit("sleep 600", 1)
    until(whole, first, {JobState.RUNNING})
    provider = make(launcher=SimpleLauncher())
    second = provider.submit(f"while [ ! -e {tmp_path}/go ]; do sleep 0.05; done", 1)
    eventually(
        lambda: (provider.status([second])[0].message or "").startswith("Slurm says PENDING ("), BOUND, "a reason"
    )
    assert provider.status([second])[0].state is JobState.PENDING
    assert whole.cancel([first]) == [True]
    until(provider, second, {JobState.RUNNING})
    (tmp_path / "go").touch()
    assert ended(provider, second).state is JobState.COMPLETED


@pytest.mark.parametrize("nodes", [2, 4])
def test_a_block_of_several_nodes_uses_all_of_them_without_being_told(
    slurm: SlurmCluster, tmp_path: Path, nodes: int
) -> None:
    provider = SlurmProvider("compute", nodes_per_block=nodes, script_dir=str(tmp_path))
    status = run(provider, "hostname")
    assert status.state is JobState.COMPLETED
    names = (status.stdout or "").split()
    assert (len(names), len(set(names))) == (nodes, nodes)


@pytest.mark.parametrize("launcher", [SrunLauncher(debug=False), SrunMPILauncher(debug=False)])
def test_a_signal_to_a_block_is_told_to_the_copies_on_all_four_nodes(
    slurm: SlurmCluster, tmp_path: Path, make: Make, launcher: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(srun, "GRACE", 90)
    provider = make(nodes_per_block=4, launcher=launcher)
    job_id = provider.submit(last_act(tmp_path, "$SLURMD_NODENAME"), 1)
    eventually(lambda: len(list(tmp_path.glob("up-*"))) == 4, BOUND, "four copies")
    slurm.call("scancel", "--batch", "--signal=TERM", job_id)
    eventually(lambda: len(list(tmp_path.glob("told-*"))) == 4, BOUND, "the last act of each copy")
    assert ended(provider, job_id).terminal


@pytest.mark.parametrize("launcher", [SrunLauncher(debug=False), SrunMPILauncher(debug=False)])
def test_a_cancelled_block_leaves_nothing_on_any_of_four_nodes(
    slurm: SlurmCluster, tmp_path: Path, make: Make, launcher: Launcher
) -> None:
    provider = make(nodes_per_block=4, launcher=launcher)
    job_id = provider.submit(f"touch {tmp_path}/up-$SLURMD_NODENAME; sleep 600 & sleep 600", 1)
    eventually(lambda: len(list(tmp_path.glob("up-*"))) == 4, BOUND, "four copies")
    assert provider.cancel([job_id]) == [True]
    assert ended(provider, job_id).state is JobState.CANCELLED
    assert not slurm.await_rest()


def test_copies_under_srun_mpi_can_start_steps_on_all_nodes_of_the_block(make: Make) -> None:
    provider = make(nodes_per_block=3, launcher=SrunMPILauncher())
    status = run(provider, "srun --nodes=3 --ntasks=3 --ntasks-per-node=1 hostname")
    names = (status.stdout or "").split()
    assert (len(names), len(set(names))) == (9, 3), status.stderr


def test_a_job_killed_under_us_has_failed_and_names_the_signal(slurm: SlurmCluster, make: Make) -> None:
    provider = make()
    job_id = provider.submit("exec sleep 601", 1)
    eventually(lambda: slurm.pids("sleep 601"), BOUND, "the job's script")
    [pid] = slurm.pids("sleep 601")
    os.kill(pid, signal.SIGKILL)
    status = ended(provider, job_id)
    assert (status.state, status.exit_code) == (JobState.FAILED, 137)
    assert "SIGKILL" in (status.message or "")


def test_a_job_that_somebody_else_cancels_is_cancelled(slurm: SlurmCluster, make: Make) -> None:
    provider = make()
    job_id = provider.submit("sleep 600", 1)
    eventually(lambda: slurm.pids("sleep 600"), BOUND, "the job's command")  # Slurm may lose what ends it earlier
    slurm.call("scancel", job_id)
    assert ended(provider, job_id).state is JobState.CANCELLED


@pytest.mark.slow
def test_a_job_over_its_walltime_has_timed_out(slurm: SlurmCluster, make: Make) -> None:
    provider = make()
    job_id = provider.submit("sleep 600", 1)
    until(provider, job_id, {JobState.RUNNING})
    slurm.call("scontrol", "update", f"JobId={job_id}", "EndTime=now+1")
    assert ended(provider, job_id, 90).state is JobState.TIMEOUT


def test_a_held_job_is_held(slurm: SlurmCluster, make: Make) -> None:
    provider = make(scheduler_options="#SBATCH --hold")
    job_id = provider.submit("exit 0", 1)
    assert until(provider, job_id, {JobState.HELD}).message == "Slurm says PENDING (JobHeldUser)"
    slurm.call("scontrol", "release", job_id)
    assert ended(provider, job_id).state is JobState.COMPLETED


def test_how_a_forgotten_job_ended_is_known_from_its_script(slurm: SlurmCluster, make: Make, tmp_path: Path) -> None:
    provider = make()
    fine, poor, cut = (provider.submit(command, 1) for command in ("exit 0", "exit 7", "sleep 603"))
    eventually(lambda: slurm.pids("sleep 603"), BOUND, "the third job's start")
    slurm.call("scancel", "--full", "--signal=TERM", cut)  # without it, Slurm kills whoever is slow to end
    eventually(lambda: len(list((tmp_path / "scripts").glob("*.exit"))) == 3, BOUND, "three jobs' end")
    slurm.forget_jobs()
    statuses = provider.status([poor, cut, fine])
    assert [status.state for status in statuses] == [JobState.FAILED, JobState.FAILED, JobState.COMPLETED]
    assert [status.exit_code for status in statuses] == [7, 143, 0]
    assert provider.cancel([poor, cut, fine]) == [True] * 3
    assert provider.status([poor, cut, fine]) == statuses


def test_a_forgotten_job_whose_script_was_killed_has_failed(slurm: SlurmCluster, make: Make) -> None:
    provider = make()
    job_id = provider.submit("exec sleep 602", 1)
    eventually(lambda: slurm.pids("sleep 602"), BOUND, "the job's script")
    slurm.call("scancel", job_id)
    slurm.forget_jobs()
    [status] = provider.status([job_id])
    assert (status.state, status.exit_code) == (JobState.FAILED, None)
    assert "no longer knows the job, and its script did not come to its end" in (status.message or "")


def test_a_scheduler_that_hangs_is_an_error_in_time_and_the_job_is_still_there(slurm: SlurmCluster, make: Make) -> None:
    provider = make()
    job_id = provider.submit("sleep 600", 1)
    until(provider, job_id, {JobState.RUNNING})
    provider.cmd_timeout = 1.5
    slurm.master.send(signal.SIGSTOP)
    try:
        with pytest.raises(SchedulerError, match=r"squeue: no answer within cmd_timeout=1.5 s"):
            provider.status([job_id])
    finally:
        slurm.master.send(signal.SIGCONT)
    provider.cmd_timeout = 30
    assert provider.status([job_id])[0].state is JobState.RUNNING
    assert provider.cancel([job_id]) == [True]


def test_a_job_of_which_nobody_told_us_in_time_does_nothing(slurm: SlurmCluster, make: Make, tmp_path: Path) -> None:
    provider = make(cmd_timeout=1)
    slurm.master.send(signal.SIGSTOP)
    try:
        with pytest.raises(SubmitException, match="no answer within") as caught:
            provider.submit(f"touch {tmp_path}/sign; sleep 600", 1)
    finally:
        slurm.master.send(signal.SIGCONT)
    assert "sbatch" in str(caught.value)
    assert not slurm.await_rest()
    assert not (tmp_path / "sign").exists()


def test_a_wrong_partition_is_refused_in_the_words_of_slurm(make: Make) -> None:
    with pytest.raises(SubmitException) as caught:
        make(partition="nowhere").submit("exit 0", 1, "my.job")
    error = caught.value
    assert (error.job_name, error.retcode) == ("my.job", 1)
    assert "invalid partition specified: nowhere" in (error.stderr or "")
    assert "command: sbatch /" in str(error)


def test_unrelated_jobs_of_two_users_are_left_alone(slurm: SlurmCluster, make: Make) -> None:
    words = ["sbatch", "--parsable", "--output=/dev/null", "--chdir=/tmp", "--wrap=sleep 600"]
    nobody = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", *words]
    others = [slurm.call(*command).strip() for command in [words] * 3 + [nobody] * 3]
    provider = make(exclusive=False)
    job_ids = [provider.submit("sleep 600", 1) for _ in range(3)]
    for job_id in job_ids:
        until(provider, job_id, {JobState.RUNNING})
    assert provider.cancel(job_ids) == [True] * 3
    for job_id in job_ids:
        ended(provider, job_id)
    assert sorted(slurm.queue()) == sorted(others)
    assert provider.cancel(others) == [False] * 6
    slurm.clear()


def test_many_jobs_are_asked_about_in_batches(make: Make) -> None:
    provider = make(status_batch_size=2, exclusive=False)
    job_ids = [provider.submit(f"exit {code}", 1) for code in range(5)]
    for job_id in job_ids:
        ended(provider, job_id)
    assert [status.exit_code for status in provider.status(job_ids[::-1])] == [4, 3, 2, 1, 0]


def test_a_folder_with_a_difficult_name_holds_scripts_and_output(make: Make, tmp_path: Path) -> None:
    provider = make(script_dir=str(tmp_path / 'it\'s 100%j of "a" folder #1'))
    status = run(provider, "echo said")
    assert (status.state, status.stdout) == (JobState.COMPLETED, "said\n")


OPTIONS = {
    "account": ({"account": "physics"}, "Account=physics"),
    "constraint": ({"constraint": "[rack1*1&rack3*1]", "nodes_per_block": 2}, "Features=[rack1*1&rack3*1]"),
    "cores": ({"cores_per_node": 3}, "CPUs/Task=3"),
    "memory": ({"mem_per_node": 1.5}, "MinMemoryNode=1.50G"),
    "walltime": ({"walltime": "1-02:30:00"}, "TimeLimit=1-02:30:00"),
    "gpus": ({"gpus_per_node": 2}, "TresPerNode=gres:gpu:2"),
    "gres": ({"gres": "gpu:1"}, "TresPerNode=gres:gpu:1"),
    "exclusive": ({"exclusive": True}, "OverSubscribe=NO"),
    "not exclusive": ({"exclusive": False}, "OverSubscribe=OK"),
    "nodes": ({"nodes_per_block": 3}, "NumNodes=3"),
    "options": ({"scheduler_options": "#SBATCH --comment='of mine'\n#SBATCH --nice=5"}, "Comment=of mine"),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_reaches_slurm(slurm: SlurmCluster, make: Make, name: str) -> None:
    options, words = OPTIONS[name]
    provider = make(**options)
    job_id = provider.submit("sleep 600", 1)
    if name != "constraint":
        until(provider, job_id, {JobState.RUNNING})
    text = shown(slurm, job_id)
    assert provider.cancel([job_id]) == [True]
    assert words in text


def test_a_job_with_gpus_sees_them(make: Make) -> None:
    assert run(make(gpus_per_node=2), "echo $CUDA_VISIBLE_DEVICES").stdout == "0,1\n"


def test_a_job_knows_when_its_walltime_is_over(make: Make) -> None:
    status = run(make(walltime="00:10:00"), "echo $((FLOWCORE_BLOCK_END - $(date +%s)))")
    assert 500 <= int(status.stdout or "") <= 600
