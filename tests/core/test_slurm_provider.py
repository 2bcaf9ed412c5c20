"""SlurmProvider without a Slurm: what it writes, and what it makes of answers, by fakes of sacct and squeue."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from flowcore.jobs.states import JobState, JobStatus
from flowcore.launchers import SingleNodeLauncher, SrunLauncher
from flowcore.providers import SlurmProvider
from flowcore.providers.errors import BadLauncher, SchedulerError
from flowcore.providers.slurm import STATES


class FakeSlurm:
    """Commands that print what a test says, and note how they were called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.set("sbatch", "Submitted batch job 17")
        self.set("scancel", "")
        self.set("sacct", "", error="Slurm accounting storage is disabled", code=1)
        self.set("squeue", "17|RUNNING|0|None|")

    def set(self, command: str, out: str, error: str = "", code: int = 0) -> None:
        path = self.folder / command
        path.write_text(
            f'#!/bin/bash\necho "$0 $*" >> {self.folder}/calls\n'
            f"cat <<'END'\n{out}\nEND\necho {error!r} >&2\nexit {code}\n"
        )
        path.chmod(0o755)

    def calls(self, command: str) -> list[str]:
        lines = (self.folder / "calls").read_text().splitlines()
        return [line.partition(" ")[2] for line in lines if line.startswith(f"{self.folder}/{command} ")]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch) -> FakeSlurm:
    fake = FakeSlurm(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{fake.folder}:/usr/bin:/bin")
    return fake


def started(tmp_path: Path, **options: Any) -> SlurmProvider:
    provider = SlurmProvider(script_dir=str(tmp_path / "scripts"), **options)
    assert provider.submit("exit 0", 1) == "17"
    return provider


def test_every_option_has_its_line() -> None:
    provider = SlurmProvider(
        "main,spare",
        "physics",
        "high",
        "a100&ib",
        "one,two",
        nodes_per_block=3,
        cores_per_node=64,
        mem_per_node=250,
        gpus_per_node="a100:4",
        gres="nvme:1",
        walltime="1-00:30:00",
        scheduler_options="#SBATCH --mail-type=END",
    )
    lines = provider.script(":", 2).splitlines()
    head = [line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH")]
    folder = Path("submit_scripts").absolute()
    assert head == [
        "--job-name=flowcore",
        f"--output={folder}/flowcore.out",
        f"--error={folder}/flowcore.err",
        "--nodes=3",
        "--ntasks-per-node=2",
        "--cpus-per-task=32",
        "--mem=256000M",
        "--time=24:30:00",
        "--partition=main,spare",
        "--account=physics",
        "--qos=high",
        "--constraint=a100&ib",
        "--clusters=one,two",
        "--gpus-per-node=a100:4",
        "--gres=nvme:1",
        "--exclusive",
        "--no-requeue",
        "--mail-type=END",
    ]


def test_what_nobody_asked_for_has_no_line() -> None:
    text = SlurmProvider(exclusive=False).script(":")
    for word in ("partition", "account", "cpus", "mem", "gpus", "gres", "exclusive", "constraint", "clusters", "qos"):
        assert f"--{word}" not in text


@pytest.mark.parametrize("name", ["partition", "account", "qos", "constraint", "clusters", "gres"])
@pytest.mark.parametrize("value", ["a\nrm -rf /", "a\0", "", 5])
def test_values_that_would_break_the_script_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        SlurmProvider(**{name: value})


@pytest.mark.parametrize("value", [0, -1, True, "a\nb"])
def test_impossible_numbers_of_gpus_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="gpus_per_node"):
        SlurmProvider(gpus_per_node=value)


def test_values_are_quoted_as_sbatch_reads_them() -> None:
    assert '#SBATCH --account="a b#\\"c\\\\"' in SlurmProvider(account='a b#"c\\').script(":")


def test_the_default_launcher_uses_every_node() -> None:
    assert isinstance(SlurmProvider().launcher, SingleNodeLauncher)
    assert isinstance(SlurmProvider(nodes_per_block=2).launcher, SrunLauncher)
    with pytest.raises(BadLauncher):
        SlurmProvider(nodes_per_block=2, launcher=SingleNodeLauncher())


def test_a_block_ends_when_slurm_says_so_where_it_does(tmp_path: Path) -> None:
    """Its walltime began with the allocation, and somebody may have changed it since."""
    provider = SlurmProvider(script_dir=str(tmp_path), walltime="00:10:00")
    script = provider.script("echo $FLOWCORE_BLOCK_END; env | grep BLOCK_END")
    environment = {**os.environ, "SLURM_JOB_END_TIME": "1234567890"}
    done = subprocess.run(["/bin/bash"], input=script, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1234567890", "FLOWCORE_BLOCK_END=1234567890"]
    assert done.stderr.count("\n") == 1  # the launcher's


def test_nothing_is_run_before_the_first_submit(fake: FakeSlurm) -> None:
    SlurmProvider()
    assert not (fake.folder / "calls").exists()


def test_without_accounting_fake_squeue_is_asked_and_sacct_never_again(fake: FakeSlurm, tmp_path: Path) -> None:
    provider = started(tmp_path)
    assert provider.status(["17"])[0].state is JobState.RUNNING
    provider.status(["17"])
    assert (len(fake.calls("sacct")), len(fake.calls("squeue"))) == (1, 2)


def test_with_accounting_fake_sacct_alone_is_asked(fake: FakeSlurm, tmp_path: Path) -> None:
    fake.set("sacct", "17|FAILED|7:0")
    status = started(tmp_path).status(["17"])[0]
    assert (status.state, status.exit_code) == (JobState.FAILED, 7)
    assert fake.calls("sacct") == ["--allocations --noheader --parsable2 --format=JobIDRaw,State,ExitCode --jobs=17"]
    assert fake.calls("squeue") == []


def test_a_job_that_fake_sacct_has_not_heard_of_yet_is_looked_up_in_the_queue(fake: FakeSlurm, tmp_path: Path) -> None:
    fake.set("sacct", "")
    assert started(tmp_path).status(["17"])[0].state is JobState.RUNNING


def test_an_accounting_that_fails_later_is_an_error(fake: FakeSlurm, tmp_path: Path) -> None:
    fake.set("sacct", "17|RUNNING|0:0")
    provider = started(tmp_path)
    provider.status(["17"])
    fake.set("sacct", "", error="slurmdbd: connection refused", code=1)
    with pytest.raises(SchedulerError, match="connection refused"):
        provider.status(["17"])


def test_a_job_that_neither_knows_is_judged_by_its_script(fake: FakeSlurm, tmp_path: Path) -> None:
    fake.set("squeue", "", error="slurm_load_jobs error: Invalid job id specified", code=1)
    assert started(tmp_path).status(["17"])[0].state is JobState.FAILED


def test_a_fake_squeue_that_cannot_reach_its_controller_is_an_error(fake: FakeSlurm, tmp_path: Path) -> None:
    fake.set("squeue", "", error="Unable to contact slurm controller", code=1)
    with pytest.raises(SchedulerError, match="Unable to contact slurm controller"):
        started(tmp_path).status(["17"])


def test_clusters_are_named_in_every_command_but_sbatch_where_the_script_names_them(fake: FakeSlurm, tmp_path) -> None:
    fake.set("sbatch", "Submitted batch job 17 on cluster two")
    fake.set("squeue", "CLUSTER: two\n17|RUNNING|0|None|")
    provider = started(tmp_path, clusters="one,two")
    assert provider.status(["17"])[0].state is JobState.RUNNING
    provider.cancel(["17"])
    assert all("--clusters=one,two" in call for name in ("sacct", "squeue", "scancel") for call in fake.calls(name))


def answer(fake: FakeSlurm, tmp_path: Path, line: str) -> JobStatus:
    fake.set("squeue", line)
    return started(tmp_path).status(["17"])[0]


@pytest.mark.parametrize("word", STATES)
def test_every_state_of_slurm_has_its_meaning(fake: FakeSlurm, tmp_path: Path, word: str) -> None:
    status = answer(fake, tmp_path, f"17|{word}|0|None|")
    assert status.state is STATES[word]
    assert word == status.state.name or status.state is JobState.RUNNING or word in (status.message or "")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("17|FAILED|1792|NonZeroExitCode|", "FAILED (its script ended with exit code 7)"),
        ("17|FAILED|9|JobLaunchFailure|", "FAILED (its command was killed by signal 9 (SIGKILL), exit code 137)"),
        ("17|PENDING|0|Resources|", "PENDING (Slurm says PENDING (Resources))"),
        ("17|PENDING|0|JobHeldAdmin|", "HELD (Slurm says PENDING (JobHeldAdmin))"),
        ("17|NODE_FAIL|0|NodeDown|", "FAILED (Slurm says NODE_FAIL (NodeDown))"),
        ("17|BRAND_NEW|0|None|", "UNKNOWN (Slurm says BRAND_NEW)"),
    ],
)
def test_the_words_of_slurm_are_kept(fake: FakeSlurm, tmp_path: Path, line: str, expected: str) -> None:
    assert str(answer(fake, tmp_path, line)) == expected


def test_a_job_that_somebody_cancelled_is_recognized_in_fake_sacct(fake: FakeSlurm, tmp_path: Path) -> None:
    fake.set("sacct", "17|CANCELLED by 1000|0:15")
    assert started(tmp_path).status(["17"])[0].state is JobState.CANCELLED
