"""CondorProvider: submit descriptions as HTCondor's own parser reads them, and what it makes of a fake's answers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.schedulers import FakeScheduler, fake_scheduler
from flowcore.errors import ConfigurationError
from flowcore.jobs.states import JobState
from flowcore.launchers import SrunLauncher
from flowcore.providers import CondorProvider
from flowcore.providers.errors import BadLauncher, SchedulerError, SubmitException


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeScheduler]:
    with fake_scheduler("condor", tmp_path / "fake", monkeypatch) as scheduler:
        yield scheduler


@pytest.fixture
def provider(tmp_path: Path) -> CondorProvider:
    return CondorProvider(script_dir=str(tmp_path / "scripts"), requirements="off")


def parsed(monkeypatch: pytest.MonkeyPatch, **options: Any) -> dict[str, str]:
    """Return the submit description as the real parser reads it, macros expanded."""
    monkeypatch.setenv("CONDOR_CONFIG", "ONLY_ENV")
    htcondor2 = pytest.importorskip("htcondor2")
    description = CondorProvider(**options).script("exit 0", 1, "flowcore.htex.block-0").partition("#!/bin/bash")[0]
    submit = htcondor2.Submit(description)
    return {name.lower(): submit.expand(name) for name in submit}


def test_the_real_parser_reads_what_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    read = parsed(
        monkeypatch,
        cores_per_slot=4,
        mem_per_slot=1.5,
        project='the "big" one',
        requirements='(OpSys == "LINUX")',
        transfer_input_files=["/data/a b", "/data/c"],
        walltime="01:00:00",
        scheduler_options="+WantGlidein = true",
    )
    assert read["request_cpus"] == "4"
    assert read["request_memory"] == "1536"
    assert read["my.projectname"] == r'"the \"big\" one"'
    assert read["requirements"] == '(OpSys == "LINUX")'
    assert read["transfer_input_files"] == "/data/a b,/data/c"
    assert "3600" in read["periodic_remove"]
    assert read["my.wantglidein"] == "true"


def test_the_real_parser_reads_paths_unchanged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "a $HOME $(x) folder"
    read = parsed(monkeypatch, script_dir=str(folder))
    assert read["executable"] == str(folder / "flowcore.htex.block-0.sh")
    assert read["error"] == str(folder / "flowcore.htex.block-0.err")


def test_the_real_parser_reads_a_description_without_options(monkeypatch: pytest.MonkeyPatch) -> None:
    read = parsed(monkeypatch)
    assert read["universe"] == "vanilla"
    assert not {"request_cpus", "request_memory", "requirements", "environment", "my.projectname"} & set(read)


def test_the_environment_is_quoted_as_the_manual_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    read = parsed(monkeypatch, environment={"A": 'it\'s "5" $HOME', "B": "x"})
    assert read["environment"] == """"A='it''s ""5"" $HOME' B='x'\""""


def test_a_description_of_several_lines_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="one line"):
        CondorProvider(requirements="True\nqueue 100")


@pytest.mark.parametrize(
    ("row", "state", "exit_code"),
    [
        ("1 undefined undefined undefined undefined undefined", JobState.PENDING, None),
        ("2 undefined undefined undefined undefined undefined", JobState.RUNNING, None),
        ('3 undefined undefined undefined undefined "via condor_rm"', JobState.CANCELLED, None),
        ('3 undefined undefined undefined undefined "The job attribute PeriodicRemove"', JobState.TIMEOUT, None),
        ("4 0 undefined undefined undefined undefined", JobState.COMPLETED, 0),
        ("4 7 undefined undefined undefined undefined", JobState.FAILED, 7),
        ("4 undefined 9 undefined undefined undefined", JobState.FAILED, 137),
        ('5 undefined undefined 1 "via condor_hold (by user x)" undefined', JobState.HELD, None),
        ("6 undefined undefined undefined undefined undefined", JobState.RUNNING, None),
        ("7 undefined undefined undefined undefined undefined", JobState.HELD, None),
    ],
)
def test_the_numbers_of_a_fake_answer(
    row: str, state: JobState, exit_code: int | None, provider: CondorProvider, fake: FakeScheduler
) -> None:
    job_id = provider.submit("exit 0", 1)
    fake.say("condor_q", 0, out=f"{job_id}.0 {row}\n")
    status = provider.status([job_id])[0]
    assert (status.state, status.exit_code) == (state, exit_code)


def test_a_fake_job_that_was_put_on_hold_for_an_error_is_failed_and_removed(
    provider: CondorProvider, fake: FakeScheduler
) -> None:
    job_id = provider.submit("exit 0", 1)
    reason = r"Failed to initialize user log to \"/x\""
    fake.say("condor_q", 0, out=f'{job_id}.0 5 undefined undefined 22 "{reason}" undefined\n')
    status = provider.status([job_id])[0]
    assert status.state is JobState.FAILED
    assert "Failed to initialize user log" in str(status)
    assert fake.calls()[-1] == f"condor_rm {job_id}"


def test_a_fake_answer_with_an_id_of_many_digits_is_understood(provider: CondorProvider, fake: FakeScheduler) -> None:
    fake.say("condor_submit", 0, out="Submitting job(s).\n1 job(s) submitted to cluster 123456.\n")
    assert provider.submit("exit 0", 1) == "123456"


def test_a_refusal_of_the_fake_raises_with_its_words(tmp_path: Path, fake: FakeScheduler) -> None:
    del fake
    with pytest.raises(SubmitException, match="Parse error in expression"):
        CondorProvider(script_dir=str(tmp_path), requirements="nowhere").submit("exit 0", 1)


def test_a_fake_queue_that_cannot_be_reached_is_an_error(provider: CondorProvider, fake: FakeScheduler) -> None:
    fake.say("condor_q", 1, err="-- Failed to fetch ads from: <127.0.0.1:9618> : n1\n")
    with pytest.raises(SchedulerError, match="Failed to fetch ads"):
        provider.status(["1"])


def test_jobs_are_named_in_chunks(tmp_path: Path, fake: FakeScheduler) -> None:
    provider = CondorProvider(script_dir=str(tmp_path), requirements="off", cmd_chunk_size=2)
    job_ids = [provider.submit("exit 0", 1) for _ in range(3)]
    provider.status(job_ids)
    asked = [call for call in fake.calls() if call.startswith("condor_q")]
    assert [sum(word.isdigit() for word in call.split()) for call in asked] == [2, 1]


def test_the_submit_description_is_beside_the_script(provider: CondorProvider, fake: FakeScheduler) -> None:
    provider.submit("exit 0", 1)
    path = Path(fake.calls()[0].split()[1])
    assert path.suffix == ".sub"
    assert os.access(path.with_suffix(".sh"), os.X_OK)


def test_several_nodes_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="one machine"):
        CondorProvider(nodes_per_block=2)


def test_the_two_names_of_a_size_may_not_differ() -> None:
    assert CondorProvider(cores_per_slot=2).cores_per_node == 2
    with pytest.raises(ConfigurationError, match="cores_per_slot"):
        CondorProvider(cores_per_slot=2, cores_per_node=4)


@pytest.mark.parametrize("options", [{"environment": {"A": 1}}, {"transfer_input_files": "a"}])
def test_values_of_a_wrong_kind_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        CondorProvider(**options)


def test_launchers_of_other_schedulers_are_refused() -> None:
    with pytest.raises(BadLauncher, match="condor"):
        CondorProvider(launcher=SrunLauncher())
