"""TorqueProvider: its script, and what it makes of the answers of a fake, which are those of the manual."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.schedulers import FakeScheduler, fake_scheduler
from flowcore.jobs.states import JobState
from flowcore.launchers import AprunLauncher, MpiExecLauncher, SingleNodeLauncher
from flowcore.providers import TorqueProvider
from flowcore.providers.errors import SchedulerError, SubmitException

MANUAL = """\
Job Id: 1.fake
    Job_Name = STDIN
    Job_Owner = user@host
    job_state = C
    queue = batchq
    Variable_List = PBS_O_HOME=/home/user,PBS_O_LOGNAME=user,
\tPBS_O_PATH=/usr/local/sbin:/usr/local/bin,PBS_O_SHELL=/bin/bash,
\tPBS_O_WORKDIR=/opt/moab,PBS_O_QUEUE=batchq
    sched_hint = Post job file processing error; job 1.fake on host node1/0
    etime = Fri Aug 29 14:55:55 2008
    exit_status = {code}

"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeScheduler]:
    with fake_scheduler("torque", tmp_path / "fake", monkeypatch) as scheduler:
        yield scheduler


@pytest.fixture
def provider(tmp_path: Path) -> TorqueProvider:
    return TorqueProvider(script_dir=str(tmp_path / "scripts"), queue="off")


@pytest.mark.parametrize(
    ("code", "state", "exit_code"),
    [
        (0, JobState.COMPLETED, 0),
        (7, JobState.FAILED, 7),
        (271, JobState.FAILED, 143),
        (-11, JobState.TIMEOUT, None),
        (-1, JobState.FAILED, None),
    ],
)
def test_the_exit_status_of_a_fake_answer_tells_how_a_job_ended(
    code: int, state: JobState, exit_code: int | None, provider: TorqueProvider, fake: FakeScheduler
) -> None:
    job_id = provider.submit("exit 0", 1)
    fake.say("qstat", 0, out=MANUAL.format(code=code))
    status = provider.status([job_id])[0]
    assert (status.state, status.exit_code) == (state, exit_code)


def test_a_refusal_of_the_fake_raises_and_is_not_only_logged(tmp_path: Path, fake: FakeScheduler) -> None:
    del fake
    with pytest.raises(SubmitException, match="Unknown queue"):
        TorqueProvider(script_dir=str(tmp_path), queue="nowhere").submit("exit 0", 1)


def test_a_fake_job_that_waits_is_pending(provider: TorqueProvider, fake: FakeScheduler) -> None:
    del fake
    assert provider.status([provider.submit("exit 0", 1)])[0].state is JobState.PENDING


def test_a_fake_server_that_is_down_is_an_error(provider: TorqueProvider, fake: FakeScheduler) -> None:
    fake.say("qstat", 1, err="Cannot connect to default server host 'n1' - check pbs_server daemon.\n")
    with pytest.raises(SchedulerError, match="pbs_server"):
        provider.status(["1.fake"])


def test_the_script_asks_for_what_was_given() -> None:
    provider = TorqueProvider(
        queue="batch", account="physics", nodes_per_block=2, cores_per_node=8, mem_per_node=4, walltime="02:00:00"
    )
    assert {
        "#PBS -l nodes=2:ppn=8",
        "#PBS -l mem=8192mb",
        "#PBS -l walltime=02:00:00",
        "#PBS -q batch",
        "#PBS -A physics",
    } <= set(provider.script("exit 0").splitlines())


def test_without_a_number_of_cores_each_copy_has_one() -> None:
    assert "#PBS -l nodes=1:ppn=3" in TorqueProvider().script("exit 0", 3).splitlines()


def test_a_long_name_is_shortened_to_what_torque_takes() -> None:
    script = TorqueProvider().script("exit 0", 1, "flowcore.HighThroughputExecutor.block-12")
    [name] = [line.split()[2] for line in script.splitlines() if line.startswith("#PBS -N")]
    assert len(name) == 15
    assert name.endswith("lock-12")


def test_the_launcher_uses_every_node() -> None:
    assert isinstance(TorqueProvider().launcher, SingleNodeLauncher)
    assert isinstance(TorqueProvider(nodes_per_block=2).launcher, MpiExecLauncher)
    TorqueProvider(nodes_per_block=2, launcher=AprunLauncher())
