"""PBSProProvider: its script, and what it makes of answers recorded from a real OpenPBS 23.06.06 or said by a fake."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.schedulers import FakeScheduler, fake_scheduler
from fakes.transcripts import Transcript
from flowcore.errors import ConfigurationError
from flowcore.jobs.states import JobState, JobStatus
from flowcore.launchers import AprunLauncher, JsrunLauncher, MpiExecLauncher, SingleNodeLauncher, SrunLauncher
from flowcore.providers import PBSProProvider
from flowcore.providers.errors import BadLauncher, SchedulerError, SubmitException

TRANSCRIPT = Transcript("openpbs-23.06.06")


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeScheduler]:
    with fake_scheduler("pbspro", tmp_path / "fake", monkeypatch) as scheduler:
        yield scheduler


@pytest.fixture
def provider(tmp_path: Path) -> PBSProProvider:
    return PBSProProvider(script_dir=str(tmp_path / "scripts"))


def head(**options: Any) -> list[str]:
    lines = PBSProProvider(**options).script("exit 0", 1, "flowcore.htex.block-0").splitlines()
    return [line for line in lines if line.startswith("#PBS")]


def submitted(provider: PBSProProvider, fake: FakeScheduler) -> str:
    TRANSCRIPT.replay("qsub p.sh", fake)
    return provider.submit("sleep 600", 1)


def replayed(provider: PBSProProvider, fake: FakeScheduler, line: str, job_id: str) -> JobStatus:
    TRANSCRIPT.replay(line, fake)
    return provider.status([job_id])[0]


def test_the_id_that_a_recorded_qsub_printed_is_the_job_s(provider: PBSProProvider, fake: FakeScheduler) -> None:
    assert submitted(provider, fake) == "5.n1"


def test_a_recorded_running_job_runs(provider: PBSProProvider, fake: FakeScheduler) -> None:
    job_id = submitted(provider, fake)
    assert replayed(provider, fake, "qstat -f -F json 5.n1", job_id).state is JobState.RUNNING


def test_a_recorded_deleted_job_is_cancelled(provider: PBSProProvider, fake: FakeScheduler) -> None:
    job_id = submitted(provider, fake)
    status = replayed(provider, fake, "qstat -x -f -F json 5.n1", job_id)
    assert status.state is JobState.CANCELLED
    assert status.message is not None
    assert "terminated by root@n1" in status.message


def test_a_recorded_job_that_does_not_start_is_pending_with_the_reason(
    provider: PBSProProvider, fake: FakeScheduler
) -> None:
    TRANSCRIPT.replay("qsub -l select=1:ncpus=99 -- /bin/true", fake)
    job_id = provider.submit("exit 0", 1)
    status = replayed(provider, fake, "qstat -f 6.n1", job_id)
    assert (job_id, status.state) == ("6.n1", JobState.PENDING)
    assert "Can Never Run" in str(status)


def test_a_recorded_job_beyond_its_walltime_is_a_timeout(provider: PBSProProvider, fake: FakeScheduler) -> None:
    TRANSCRIPT.replay("qsub -l walltime=3 -o /dev/null -e /dev/null -- /bin/sleep 300", fake)
    status = replayed(provider, fake, "qstat -x -f 8.n1", provider.submit("sleep 300", 1))
    assert status.state is JobState.TIMEOUT
    assert "exceeded resource walltime" in str(status)


def test_a_recorded_unknown_job_is_missing(provider: PBSProProvider, fake: FakeScheduler) -> None:
    TRANSCRIPT.replay("qstat 99999", fake)
    assert provider.status(["99999"])[0].state is JobState.MISSING


def test_a_recorded_refusal_raises_with_its_words_and_exit_code(provider: PBSProProvider, fake: FakeScheduler) -> None:
    TRANSCRIPT.replay("qsub -q nope -- /bin/true", fake)
    with pytest.raises(SubmitException, match="Unknown queue") as caught:
        provider.submit("exit 0", 1)
    assert caught.value.retcode == 170


def test_a_job_that_has_ended_meanwhile_can_be_cancelled(provider: PBSProProvider, fake: FakeScheduler) -> None:
    job_id = submitted(provider, fake)
    TRANSCRIPT.replay("qdel 99999", fake)
    assert provider.cancel([job_id]) == [True]


def test_a_fake_server_that_is_down_is_an_error_and_the_job_stays_as_it_was(
    provider: PBSProProvider, fake: FakeScheduler
) -> None:
    job_id = submitted(provider, fake)
    fake.say("qstat", 111, err="Connection refused\nqstat: cannot connect to server n1 (errno=111)\n")
    with pytest.raises(SchedulerError, match="cannot connect to server"):
        provider.status([job_id])
    assert replayed(provider, fake, "qstat -f -F json 5.n1", job_id).state is JobState.RUNNING


def test_a_fake_server_that_does_not_answer_is_an_error_in_time(tmp_path: Path, fake: FakeScheduler) -> None:
    provider = PBSProProvider(script_dir=str(tmp_path), cmd_timeout=0.5)
    fake.say("qstat", "silence")
    with pytest.raises(SchedulerError, match="cmd_timeout"):
        provider.status(["5.n1"])


def test_a_fake_job_that_waits_is_pending_and_cancelled_when_it_is_deleted(tmp_path: Path, fake: FakeScheduler) -> None:
    provider = PBSProProvider(script_dir=str(tmp_path / "scripts"), queue="off")
    job_id = provider.submit("exit 0", 1)
    assert provider.status([job_id])[0].state is JobState.PENDING
    assert provider.cancel([job_id]) == [True]
    assert provider.status([job_id])[0].state is JobState.CANCELLED


@pytest.mark.parametrize(
    ("letter", "state"), [("Q", JobState.PENDING), ("W", JobState.PENDING), ("H", JobState.HELD), ("S", JobState.HELD)]
)
def test_the_letters_of_a_fake_answer(
    letter: str, state: JobState, provider: PBSProProvider, fake: FakeScheduler
) -> None:
    job_id = submitted(provider, fake)
    fake.say("qstat", 0, out=f'{{"Jobs": {{"5.n1": {{"job_state": "{letter}"}}}}}}\n')
    assert provider.status([job_id])[0].state is state


def test_a_fake_exit_status_of_a_signal_is_told_as_a_shell_does(provider: PBSProProvider, fake: FakeScheduler) -> None:
    job_id = submitted(provider, fake)
    fake.say("qstat", 0, out='{"Jobs": {"5.n1": {"job_state": "F", "Exit_status": 265, "substate": 92}}}\n')
    status = provider.status([job_id])[0]
    assert (status.state, status.exit_code) == (JobState.FAILED, 137)
    assert "SIGKILL" in str(status)


def test_the_script_asks_for_what_was_given() -> None:
    lines = head(
        queue="workq",
        account="physics",
        nodes_per_block=2,
        cpus_per_node=8,
        select_options="ngpus=2",
        mem_per_node=1.5,
        walltime="01:30:00",
        scheduler_options="#PBS -l filesystems=home",
    )
    assert {
        "#PBS -N flowcore.htex.block-0",
        "#PBS -l select=2:ncpus=8:mem=1536mb:ngpus=2",
        "#PBS -l place=scatter",
        "#PBS -l walltime=01:30:00",
        "#PBS -q workq",
        "#PBS -A physics",
        "#PBS -l filesystems=home",
    } <= set(lines)


def test_what_was_not_given_is_not_asked_for() -> None:
    assert {"select=1:ncpus=1", "walltime=00:20:00"} == {line.split()[2] for line in head() if " -l " in line}
    assert not [line for line in head() if line.split()[1] in {"-q", "-A"}]


def test_an_own_placement_stands() -> None:
    lines = head(nodes_per_block=2, scheduler_options="#PBS -l place=pack")
    assert [line for line in lines if "place=" in line] == ["#PBS -l place=pack"]


def test_cores_that_disagree_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="cpus_per_node"):
        PBSProProvider(cores_per_node=4, cpus_per_node=8)
    assert "#PBS -l select=1:ncpus=4" in head(cores_per_node=4)


def test_the_launcher_uses_every_node() -> None:
    assert isinstance(PBSProProvider().launcher, SingleNodeLauncher)
    assert isinstance(PBSProProvider(nodes_per_block=2).launcher, MpiExecLauncher)
    PBSProProvider(nodes_per_block=2, launcher=AprunLauncher())


@pytest.mark.parametrize("launcher", [SrunLauncher(), JsrunLauncher()])
def test_launchers_of_other_schedulers_are_refused(launcher: Any) -> None:
    with pytest.raises(BadLauncher, match="pbspro"):
        PBSProProvider(launcher=launcher)


def test_a_launcher_that_leaves_nodes_idle_is_refused() -> None:
    with pytest.raises(BadLauncher, match="idle"):
        PBSProProvider(nodes_per_block=2, launcher=SingleNodeLauncher())
