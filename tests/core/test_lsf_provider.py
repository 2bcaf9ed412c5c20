"""LSFProvider: its script, and what it makes of the answers of a fake, which are those of the manual."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.schedulers import FakeScheduler, fake_scheduler
from flowcore.errors import ConfigurationError
from flowcore.jobs.states import JobState
from flowcore.launchers import AprunLauncher, JsrunLauncher, MpiExecLauncher, SingleNodeLauncher
from flowcore.providers import LSFProvider, lsf
from flowcore.providers.errors import BadLauncher, SchedulerError, SubmitException


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeScheduler]:
    with fake_scheduler("lsf", tmp_path / "fake", monkeypatch) as scheduler:
        yield scheduler


@pytest.fixture
def provider(tmp_path: Path) -> LSFProvider:
    return LSFProvider(script_dir=str(tmp_path / "scripts"), queue="off")


def head(**options: Any) -> list[str]:
    return [line for line in LSFProvider(**options).script("exit 0").splitlines() if line.startswith("#BSUB")]


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("PEND", JobState.PENDING),
        ("RUN", JobState.RUNNING),
        ("PSUSP", JobState.HELD),
        ("USUSP", JobState.HELD),
        ("SSUSP", JobState.HELD),
        ("DONE", JobState.COMPLETED),
        ("UNKWN", JobState.UNKNOWN),
    ],
)
def test_the_states_of_a_fake_answer(word: str, state: JobState, provider: LSFProvider, fake: FakeScheduler) -> None:
    job_id = provider.submit("exit 0", 1)
    fake.say("bjobs", 0, out=f"{job_id} {word} -\n")
    assert provider.status([job_id])[0].state is state


def test_a_fake_job_beyond_its_walltime_is_a_timeout(provider: LSFProvider, fake: FakeScheduler) -> None:
    job_id = provider.submit("exit 0", 1)
    said = "Completed <exit>; TERM_RUNLIMIT: job killed after reaching LSF run ti\n                     me limit."
    fake.say("bjobs", 0, out=f"{job_id} EXIT 140\n {said}\n")
    status = provider.status([job_id])[0]
    assert (status.state, status.exit_code) == (JobState.TIMEOUT, 140)
    assert "TERM_RUNLIMIT: job killed after reaching LSF run time limit" in str(status)


def test_a_job_that_the_fake_does_not_know_yet_is_pending(
    provider: LSFProvider, fake: FakeScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lsf, "NEWS", 600.0)
    job_id = provider.submit("exit 0", 1)
    fake.say("bjobs", 255, err=f"Job <{job_id}> is not found\n")
    assert provider.status([job_id])[0].state is JobState.PENDING
    fake.say("bjobs", 0, out=f"{job_id} RUN -\n")
    assert provider.status([job_id])[0].state is JobState.RUNNING
    fake.say("bjobs", 255, err=f"Job <{job_id}> is not found\n")
    monkeypatch.setattr(lsf, "NEWS", 0.0)
    assert provider.status([job_id])[0].state is JobState.FAILED


def test_a_refusal_of_the_fake_raises_with_its_words(tmp_path: Path, fake: FakeScheduler) -> None:
    del fake
    with pytest.raises(SubmitException, match="No such queue") as caught:
        LSFProvider(script_dir=str(tmp_path), queue="nowhere").submit("exit 0", 1)
    assert caught.value.retcode == 255


def test_a_fake_system_that_is_down_is_an_error(provider: LSFProvider, fake: FakeScheduler) -> None:
    fake.say("bjobs", 255, err="LSF is down. Please wait ...\n")
    with pytest.raises(SchedulerError, match="LSF is down"):
        provider.status(["1"])


def test_the_script_goes_to_bsub_by_name_or_by_redirection(tmp_path: Path, fake: FakeScheduler) -> None:
    for redirection in (False, True):
        LSFProvider(script_dir=str(tmp_path / "scripts"), bsub_redirection=redirection, queue="off").submit("exit 0", 1)
    by_name, redirected = fake.calls()
    assert by_name.startswith(f"bsub {tmp_path}/scripts/")
    assert redirected == "bsub"


def test_a_script_that_is_handed_over_by_name_can_be_executed(provider: LSFProvider, fake: FakeScheduler) -> None:
    provider.submit("exit 0", 1)
    assert Path(fake.calls()[0].split()[1]).stat().st_mode & 0o100


def test_the_script_asks_for_nodes() -> None:
    lines = head(queue="batch", project="physics", nodes_per_block=3, walltime="01:00:30")
    assert {"#BSUB -nnodes 3", "#BSUB -W 1:01", "#BSUB -q batch", "#BSUB -P physics"} <= set(lines)
    assert not [line for line in lines if line.split()[1] in {"-n", "-R"}]


def test_the_script_asks_for_slots() -> None:
    lines = head(request_by_nodes=False, nodes_per_block=2, cores_per_block=8, mem_per_node=2)
    assert {"#BSUB -n 8", '#BSUB -R "span[ptile=4]"', '#BSUB -R "rusage[mem=2048MB]"'} <= set(lines)
    assert not [line for line in lines if "-nnodes" in line]
    assert "#BSUB -n 8" in head(request_by_nodes=False, nodes_per_block=2, cores_per_node=4)


@pytest.mark.parametrize(
    "options",
    [
        {"cores_per_block": 8},
        {"request_by_nodes": False, "cores_per_block": 8, "cores_per_node": 4, "nodes_per_block": 3},
    ],
)
def test_slots_that_cannot_be_had_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="cores_per_block"):
        LSFProvider(**options)


def test_the_launcher_uses_every_node() -> None:
    assert isinstance(LSFProvider().launcher, SingleNodeLauncher)
    assert isinstance(LSFProvider(nodes_per_block=2).launcher, MpiExecLauncher)
    LSFProvider(nodes_per_block=2, launcher=JsrunLauncher())
    with pytest.raises(BadLauncher, match="lsf"):
        LSFProvider(launcher=AprunLauncher())
