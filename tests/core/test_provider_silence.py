"""Batch providers tell a scheduler that cannot be reached from one that refuses; what schedulers say is from manuals
where there was no real one to ask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from fakes.schedulers import put_command
from flowcore.jobs.states import JobState
from flowcore.launchers import SimpleLauncher
from flowcore.providers import (
    CondorProvider,
    GridEngineProvider,
    LSFProvider,
    PBSProProvider,
    SlurmProvider,
    TorqueProvider,
)
from flowcore.providers.batch import Answer, BatchProvider
from flowcore.providers.errors import SchedulerError, SubmitException

UNREACHABLE = {
    "slurm, measured": (
        SlurmProvider,
        "sbatch",
        "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)",
    ),
    "slurm, measured while it hung": (
        SlurmProvider,
        "sbatch",
        "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",
    ),
    "grid engine, measured": (
        GridEngineProvider,
        "qsub",
        'Unable to run job: unable to send message to qmaster using port 6444 on host "head": got send error.',
    ),
    "pbs, fake": (PBSProProvider, "qsub", "Connection refused\nqsub: cannot connect to server n1 (errno=111)"),
    "torque, fake": (
        TorqueProvider,
        "qsub",
        "qsub: submit error (Cannot connect to specified server host 'n1' - check pbs_server daemon.)",
    ),
    "lsf, fake": (LSFProvider, "bsub", "LSF is down. Please wait ..."),
    "condor, fake": (CondorProvider, "condor_submit", "ERROR: Can't find address of local schedd"),
}

REFUSED = {
    "slurm, measured": (
        SlurmProvider,
        "sbatch",
        "sbatch: error: Batch job submission failed: Invalid partition name specified",
    ),
    "slurm, from its manual": (
        SlurmProvider,
        "sbatch",
        "sbatch: error: Batch job submission failed: Requested time limit is invalid (missing or exceeds some limit)",
    ),
    "grid engine, measured": (
        GridEngineProvider,
        "qsub",
        'Unable to run job: Job was rejected because job requests unknown queue "nowhere.q".\nExiting.',
    ),
    "pbs, recorded": (PBSProProvider, "qsub", "qsub: Unknown queue"),
    "torque, fake": (TorqueProvider, "qsub", "qsub: submit error (Unknown queue MSG=cannot locate queue)"),
    "lsf, fake": (LSFProvider, "bsub", "nowhere: No such queue. Job not submitted."),
    "condor, fake": (CondorProvider, "condor_submit", "ERROR: Parse error in expression"),
}

Say = Callable[..., None]


@pytest.fixture
def say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Say:
    """Let a command fail with these words on its standard error, or do what a script says."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def say(command: str, words: str = "", script: str = "exit 1") -> None:
        (tmp_path / "words").write_text(f"{words}\n")
        put_command(folder, command, f"cat {tmp_path}/words >&2\n{script}")

    return say


def refusal(kind: type[BatchProvider], tmp_path: Path, **options: Any) -> SubmitException:
    provider = kind(script_dir=str(tmp_path / "scripts"), **options)
    with pytest.raises(SubmitException) as caught:
        provider.submit("exit 0", 1, "test")
    return caught.value


@pytest.mark.parametrize("case", UNREACHABLE)
def test_a_scheduler_that_cannot_be_reached_gave_no_answer(case: str, say: Say, tmp_path: Path) -> None:
    kind, command, words = UNREACHABLE[case]
    say(command, words)
    error = refusal(kind, tmp_path)
    assert error.unanswered
    assert words in str(error)
    assert "the same may work later" in str(error)
    assert len(list((tmp_path / "scripts").glob("*.withdrawn"))) == 1


@pytest.mark.parametrize("case", REFUSED)
def test_a_scheduler_that_refuses_gave_one(case: str, say: Say, tmp_path: Path) -> None:
    kind, command, words = REFUSED[case]
    say(command, words)
    error = refusal(kind, tmp_path)
    assert not error.unanswered
    assert words in str(error)
    assert "flowcore provider show" in str(error)


def test_a_scheduler_that_is_not_in_time_gave_none(say: Say, tmp_path: Path) -> None:
    say("sbatch", script="exec sleep 60")
    assert refusal(SlurmProvider, tmp_path, cmd_timeout=0.3).unanswered


def test_a_scheduler_that_is_not_there_is_a_mistake_and_no_silence(say: Say, tmp_path: Path) -> None:
    error = refusal(LSFProvider, tmp_path)
    assert not error.unanswered
    assert "bsub: it cannot be run here: No such file or directory" in str(error)


def test_slurm_has_the_time_to_say_that_its_controller_is_down() -> None:
    assert SlurmProvider().cmd_timeout > 20  # squeue gives up after twice Slurm's MessageTimeout, which is 10 s


@pytest.mark.parametrize("script", ["exit 1", "exec sleep 60"], ids=["refuses", "is silent"])
def test_a_job_that_could_not_be_cancelled_does_nothing_when_it_starts(say: Say, tmp_path: Path, script: str) -> None:
    say("sbatch", script="echo Submitted batch job 7")
    say("scancel", "scancel: error: no", script)
    provider = SlurmProvider(script_dir=str(tmp_path / "scripts"), launcher=SimpleLauncher())
    job_id = provider.submit("touch ran", 1)
    provider.cmd_timeout = 1
    with pytest.raises(SchedulerError, match="scancel"):
        provider.cancel([job_id])
    assert len(list((tmp_path / "scripts").glob("*.withdrawn"))) == 1
    assert provider._jobs[job_id].status.state is JobState.PENDING


def test_a_job_that_starts_while_it_is_cancelled_does_nothing(say: Say, tmp_path: Path) -> None:
    """Grid Engine's first kill misses a job that is not in its process group yet, and the next ones are left out."""
    say("qsub", script="echo 7")
    say("qdel", script=f"touch {tmp_path}/started; exec bash {tmp_path}/scripts/*.sh")
    launcher = SimpleLauncher()
    provider = GridEngineProvider(script_dir=str(tmp_path / "scripts"), launcher=launcher)
    assert provider.cancel([provider.submit(f"touch {tmp_path}/ran", 1)]) == [True]
    assert (tmp_path / "started").exists()
    assert not (tmp_path / "ran").exists()


def test_what_was_cancelled_before_the_scheduler_fell_silent_counts(say: Say, tmp_path: Path) -> None:
    (tmp_path / "ids").write_text("\n".join(map(str, range(5))))
    take = f"head -n 1 {tmp_path}/ids; sed -i 1d {tmp_path}/ids"
    say("sbatch", script=f'echo "Submitted batch job $({take})"')
    say("scancel", script='[ "$1" = 0 ] || exec sleep 60')

    class Knowing(SlurmProvider):
        def run(self, command: Sequence[str], stdin: str = "") -> Answer:
            self.cmd_timeout = 0.3 if "2" in command else 60
            return super().run(command, stdin)

    provider = Knowing(script_dir=str(tmp_path / "scripts"), status_batch_size=2)
    jobs = [provider.submit("exit 0", 1) for _ in range(5)]
    assert provider.cancel(jobs) == [True, True, False, False, False]
    assert len(list((tmp_path / "scripts").glob("*.withdrawn"))) == 5
