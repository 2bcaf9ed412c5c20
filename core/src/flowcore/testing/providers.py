"""What every provider must do: a suite that the tests of each one inherit."""
# ruff: noqa: D102 - the names of tests are claims

from __future__ import annotations

import shlex
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pytest

from flowcore.jobs.states import TERMINAL_STATES, JobState, JobStatus
from flowcore.providers.base import Provider
from flowcore.providers.errors import ScriptPathError
from flowcore.testing.commands import COMMANDS, printed


class ProviderConformance(ABC):
    """Inherit, name the class `Test...`, and define `make_provider`; needs pytest.

    A third party supplies a resource manager that starts jobs of one node within `patience` seconds, and jobs that see
    the folders of the tests. Every job that a test leaves is cancelled.

        class TestAcmeProvider(ProviderConformance):
            def make_provider(self, tmp_path: Path, **options: Any) -> AcmeProvider:
                return AcmeProvider(script_dir=str(tmp_path / "scripts"), **options)
    """

    patience: float = 90
    """Seconds within which a short job goes through the resource manager."""

    @abstractmethod
    def make_provider(self, tmp_path: Path, **options: Any) -> Provider:
        """Return a new provider of one-node blocks with its `script_dir` below `tmp_path`, and with these options."""

    @pytest.fixture(autouse=True)
    def _nothing_is_left(self) -> Iterator[None]:
        self._submitted: list[tuple[Provider, str]] = []
        yield
        for provider, job_id in self._submitted:
            provider.cancel([job_id])

    @pytest.fixture
    def provider(self, tmp_path: Path) -> Provider:
        """Make a provider without further options."""
        return self.make_provider(tmp_path)

    def submit(self, provider: Provider, command: str) -> str:
        """Submit a job, which is cancelled after the test."""
        job_id = provider.submit(command, 1, "flowcore.test")
        self._submitted.append((provider, job_id))
        return job_id

    def until(self, provider: Provider, job_id: str, states: Collection[JobState]) -> JobStatus:
        """Return the job's status once it is in one of these states."""
        changed = threading.Event()
        provider.watch(changed.set)
        deadline = time.monotonic() + self.patience
        while True:
            changed.clear()
            status = provider.status([job_id])[0]
            if status.state in states or status.terminal:
                assert status.state in states, status
                return status
            assert time.monotonic() < deadline, status
            changed.wait(0.1)

    def run(self, provider: Provider, command: str) -> JobStatus:
        """Run the command as a job, and return how it ended."""
        return self.until(provider, self.submit(provider, command), TERMINAL_STATES)

    def test_a_job_that_ends_well_is_completed(self, provider: Provider, tmp_path: Path) -> None:
        status = self.run(provider, f"echo done > {shlex.quote(str(tmp_path / 'sign'))}")
        assert status.state is JobState.COMPLETED
        assert status.exit_code in {0, None}
        assert (tmp_path / "sign").read_text() == "done\n"

    def test_a_job_that_fails_says_so_with_its_exit_code_and_output(self, provider: Provider) -> None:
        status = self.run(provider, "echo words; echo trouble >&2; exit 7")
        assert status.state is JobState.FAILED
        assert status.exit_code in {7, None}
        assert status.stdout is None or "words" in status.stdout
        assert status.stderr is None or "trouble" in status.stderr

    @pytest.mark.parametrize("name", ["quotes", "dollars", "newlines", "unicode", "heredoc", "long"])
    def test_the_command_arrives_unchanged(self, provider: Provider, tmp_path: Path, name: str) -> None:
        folder = tmp_path / "a folder"
        folder.mkdir()
        command = f"cd {shlex.quote(str(folder))}\n{{\n{COMMANDS[name]}\n}} > out"
        assert self.run(provider, command).state is JobState.COMPLETED
        assert (folder / "out").read_text() == printed(COMMANDS[name])

    def test_a_running_job_runs_until_it_is_cancelled(self, provider: Provider) -> None:
        job_id = self.submit(provider, "sleep 600")
        assert self.until(provider, job_id, {JobState.RUNNING}).exit_code is None
        assert provider.cancel([job_id]) == [True]
        assert self.until(provider, job_id, TERMINAL_STATES).state is not JobState.COMPLETED

    def test_a_job_can_be_cancelled_at_once(self, provider: Provider, tmp_path: Path) -> None:
        job_id = self.submit(provider, f"sleep 600; touch {shlex.quote(str(tmp_path / 'sign'))}")
        assert provider.cancel([job_id]) == [True]
        self.until(provider, job_id, TERMINAL_STATES)
        assert not (tmp_path / "sign").exists()

    def test_a_job_that_has_ended_can_be_cancelled_and_stays_as_it_was(self, provider: Provider) -> None:
        job_id = self.submit(provider, "exit 7")
        ended = self.until(provider, job_id, TERMINAL_STATES)
        assert provider.cancel([job_id]) == [True]
        assert provider.status([job_id]) == [ended]

    def test_statuses_come_in_the_order_asked(self, provider: Provider) -> None:
        fine, poor = self.submit(provider, "exit 0"), self.submit(provider, "exit 7")
        self.until(provider, fine, TERMINAL_STATES)
        self.until(provider, poor, TERMINAL_STATES)
        states = [status.state for status in provider.status([poor, fine, poor])]
        assert states == [JobState.FAILED, JobState.COMPLETED, JobState.FAILED]

    def test_every_job_has_an_id_of_its_own(self, provider: Provider) -> None:
        job_ids = [self.submit(provider, "exit 0") for _ in range(3)]
        assert all(isinstance(job_id, str) and job_id for job_id in job_ids)
        assert len(set(job_ids)) == 3

    def test_nothing_asked_is_nothing_answered(self, provider: Provider) -> None:
        assert provider.status([]) == []
        assert provider.cancel([]) == []

    def test_an_unknown_job_is_reported_as_such_beside_a_known_one(self, provider: Provider) -> None:
        known = self.submit(provider, "sleep 600")
        self.until(provider, known, {JobState.RUNNING})
        unknown, still = provider.status(["999999999", known])
        assert unknown.state not in {JobState.RUNNING, JobState.PENDING}
        assert still.state is JobState.RUNNING

    def test_submit_does_not_wait_for_the_job(self, provider: Provider) -> None:
        job_id = self.submit(provider, "sleep 600")
        assert not provider.status([job_id])[0].terminal

    def test_a_script_folder_that_cannot_be_written_is_named(self, tmp_path: Path) -> None:
        provider = self.make_provider(tmp_path)
        (tmp_path / "file").touch()
        provider.script_dir = str(tmp_path / "file" / "folder")
        with pytest.raises(ScriptPathError, match="file/folder"):
            self.submit(provider, "exit 0")

    def test_the_size_of_a_node_is_in_the_environment_under_both_names(self, tmp_path: Path) -> None:
        provider = self.make_provider(tmp_path, cores_per_node=1, mem_per_node=0.5)
        names = "$FLOWCORE_CORES $PARSL_CORES $FLOWCORE_MEMORY_GB $PARSL_MEMORY_GB"
        self.run(provider, f"echo {names} > {shlex.quote(str(tmp_path / 'sizes'))}")
        assert (tmp_path / "sizes").read_text().split() == ["1", "1", "0.5", "0.5"]

    def test_worker_init_runs_before_the_command(self, tmp_path: Path) -> None:
        provider = self.make_provider(tmp_path, worker_init="export GREETING='hello  you'\n# and a remark")
        self.run(provider, f'echo "$GREETING" > {shlex.quote(str(tmp_path / "greeting"))}')
        assert (tmp_path / "greeting").read_text() == "hello  you\n"
