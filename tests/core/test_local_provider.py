"""LocalProvider beyond the contract: sessions, signals, parameters."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flowcore.errors import ConfigurationError
from flowcore.jobs.states import JobState, JobStatus
from flowcore.launchers.simple import SimpleLauncher
from flowcore.launchers.single_node import SingleNodeLauncher
from flowcore.process_exit import await_exit
from flowcore.providers import local as local_module
from flowcore.providers import processes
from flowcore.providers.errors import BadLauncher, SubmitException
from flowcore.providers.local import LocalProvider
from flowcore.providers.processes import session_members
from waiting import eventually

BOUND = 60.0


class Jobs:
    """A provider whose jobs announce themselves through a pipe, and whose ends are events."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.provider = LocalProvider(script_dir=str(folder / "scripts"), **options)
        self.fifo = folder / "fifo"
        os.mkfifo(self.fifo)
        self.job_ids: list[str] = []

    def submit(self, command: str) -> str:
        job_id = self.provider.submit(command, 1)
        self.job_ids.append(job_id)
        return job_id

    def ready(self, command: str) -> tuple[str, list[str]]:
        """Submit a command that writes to $fifo, and return what it has written, once it has."""
        job_id = self.submit(f"fifo={self.fifo}\n{command}")
        with self.fifo.open() as stream:
            return job_id, stream.read().split()

    def ended(self, job_id: str) -> JobStatus:
        changed = threading.Event()
        self.provider.watch(changed.set)
        if not self.provider.status([job_id])[0].terminal:
            assert changed.wait(BOUND)
        return self.provider.status([job_id])[0]


@pytest.fixture
def jobs(tmp_path: Path):
    made = []

    def make(**options: Any) -> Jobs:
        made.append(Jobs(tmp_path, **options))
        return made[-1]

    yield make
    for one in made:
        one.provider.cancel(one.job_ids)


def pid_of(job_id: str) -> int:
    return int(job_id.partition(".")[0])


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.parametrize("launcher", [SimpleLauncher(), SingleNodeLauncher()])
def test_a_job_killed_under_us_has_failed_and_names_the_signal(jobs, launcher) -> None:
    local = jobs(launcher=launcher)
    job_id, [inner] = local.ready("echo $BASHPID > $fifo; sleep 600")
    os.kill(int(inner), signal.SIGKILL)
    status = local.ended(job_id)
    assert status.state is JobState.FAILED
    assert status.message is not None
    assert "signal 9 (SIGKILL)" in status.message
    assert status.exit_code == 137


@pytest.mark.parametrize("launcher", [SimpleLauncher(), SingleNodeLauncher()])
def test_what_a_killed_script_leaves_running_ends_with_it(jobs, launcher) -> None:
    local = jobs(launcher=launcher, nodes_per_block=2)
    job_id, pids = local.ready("sleep 600 & echo $! > $fifo; wait")
    os.kill(pid_of(job_id), signal.SIGKILL)
    assert "killed by signal 9" in str(local.ended(job_id))
    assert all(gone(int(pid)) for pid in pids)
    assert session_members(pid_of(job_id)) == []


def test_a_session_gets_its_last_signal_however_late_it_is(monkeypatch) -> None:
    monkeypatch.setattr(processes, "time", SimpleNamespace(monotonic=count(step=100).__next__))
    with subprocess.Popen(["bash", "-c", "sleep 600 & kill -KILL $$"], start_new_session=True) as leader:
        await_exit(leader)
        assert session_members(leader.pid)
        processes.end_session(leader.pid, signal.SIGTERM, 3.0)
        eventually(lambda: not session_members(leader.pid))


def test_processes_that_a_job_leaves_behind_end_with_it(jobs) -> None:
    local = jobs(launcher=SimpleLauncher())
    job_id, [left] = local.ready("sleep 600 & echo $! > $fifo; exit 0")
    assert local.ended(job_id).state is JobState.COMPLETED
    assert gone(int(left))


def test_what_ignores_sigterm_is_killed_however_late_the_thread_that_does_it_comes(jobs, monkeypatch) -> None:
    monkeypatch.setattr(local_module, "KILL_AFTER", 0.1)
    monkeypatch.setattr(processes, "KILL_BOUND", 1e-9)
    local = jobs(launcher=SimpleLauncher())
    job_id, [left] = local.ready("trap '' TERM; sleep 600 & echo $! > $fifo; exit 0")
    assert local.ended(job_id).state is JobState.COMPLETED
    eventually(lambda: gone(int(left)))


def test_cancel_ends_a_job_that_ignores_sigterm_and_its_children(jobs, monkeypatch) -> None:
    monkeypatch.setattr(local_module, "KILL_AFTER", 1.0)
    local = jobs(cmd_timeout=120)
    job_id, pids = local.ready("trap '' TERM; sleep 600 & echo $BASHPID $! > $fifo; wait")
    assert local.provider.cancel([job_id]) == [True]
    assert local.provider.status([job_id])[0].state is JobState.CANCELLED
    assert all(gone(int(pid)) for pid in [*pids, pid_of(job_id)])


def test_cancel_gives_a_job_the_time_to_end_well(jobs, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(local_module, "KILL_AFTER", 60.0)
    local = jobs(cmd_timeout=120)
    job_id, _ = local.ready(f"sleep 600 & trap 'echo ended > {tmp_path}/sign; exit 0' TERM; echo > $fifo; wait")
    assert local.provider.cancel([job_id]) == [True]
    assert (tmp_path / "sign").read_text() == "ended\n"
    assert local.provider.status([job_id])[0].state is JobState.CANCELLED


def test_cancel_of_several_jobs_waits_for_all_at_once(jobs, monkeypatch) -> None:
    monkeypatch.setattr(local_module, "KILL_AFTER", 1.0)
    local = jobs(cmd_timeout=120)
    stubborn = [local.ready("trap '' TERM; echo > $fifo; sleep 600")[0] for _ in range(3)]
    deadlines: list[float] = []
    join = local_module._Job.join
    monkeypatch.setattr(
        local_module._Job, "join", lambda job, deadline: deadlines.append(deadline) or join(job, deadline)
    )
    assert local.provider.cancel(stubborn) == [True] * 3
    assert len(deadlines) == 6
    assert len(set(deadlines)) == 2


def test_cancel_of_an_unknown_job_is_no_success(jobs) -> None:
    assert jobs().provider.cancel(["12.3"]) == [False]


def test_no_thread_is_left_when_the_jobs_have_been_cancelled(jobs) -> None:
    before = set(threading.enumerate())
    local = jobs()
    local.provider.cancel([local.submit("sleep 600"), local.submit("sleep 600")])
    assert set(threading.enumerate()) <= before


def test_the_end_of_a_job_is_told(jobs) -> None:
    local = jobs()
    told = threading.Event()
    local.provider.watch(told.set)
    local.submit("exit 0")
    assert told.wait(BOUND)


def test_nodes_per_block_is_the_number_of_copies(jobs) -> None:
    local = jobs(nodes_per_block=3)
    status = local.ended(local.submit("echo copy"))
    assert status.stdout == "copy\n" * 3


def test_the_files_of_a_job_are_named_after_it_and_told(jobs, tmp_path: Path) -> None:
    local = jobs()
    status = local.ended(local.provider.submit("echo said; echo complained >&2", 1, "my.job"))
    assert status.script_path is not None
    assert Path(status.script_path).parent == tmp_path / "scripts"
    assert sorted(path.name.split(".")[-1] for path in (tmp_path / "scripts").glob("my.job.*")) == ["err", "out", "sh"]
    assert status.stdout == "said\n"
    assert "complained" in (status.stderr or "")


def test_a_job_has_no_input_and_the_name_it_was_given(jobs) -> None:
    local = jobs()
    status = local.ended(local.provider.submit('read -r line; echo "$? $JOBNAME"', 1, "my.job"))
    assert status.stdout == "1 my.job\n"


def test_a_job_has_the_environment_of_the_user(jobs, monkeypatch) -> None:
    monkeypatch.setenv("FLOWCORE_TEST_GREETING", "hello")
    local = jobs()
    assert local.ended(local.submit("echo $FLOWCORE_TEST_GREETING")).stdout == "hello\n"


def test_a_relative_script_folder_stays_where_it_was(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    provider = LocalProvider(script_dir="scripts")
    job_id = provider.submit("exit 0", 1)
    assert provider.cancel([job_id]) == [True]
    path = provider.status([job_id])[0].script_path
    assert path is not None
    assert Path(path).parent == tmp_path / "scripts"


def test_without_a_script_folder_it_says_what_to_set() -> None:
    with pytest.raises(SubmitException, match="script_dir"):
        LocalProvider().submit("exit 0", 1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"nodes_per_block": 0}, "nodes_per_block"),
        ({"min_blocks": -1}, "min_blocks"),
        ({"parallelism": 1.5}, "parallelism"),
        ({"cmd_timeout": 0}, "cmd_timeout"),
        ({"cores_per_node": 0}, "cores_per_node"),
        ({"init_blocks": 3}, "give max_blocks=3"),
        ({"min_blocks": 2}, "give max_blocks=2"),
    ],
)
def test_bad_numbers_are_refused_at_construction(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        LocalProvider(**options)


def test_too_many_initial_blocks_are_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError):
        LocalProvider(init_blocks=2)


def test_what_is_no_launcher_is_refused_at_construction() -> None:
    with pytest.raises(BadLauncher):
        LocalProvider(launcher="srun")  # type: ignore[arg-type]


def test_its_label_is_local() -> None:
    assert LocalProvider().label == "local"


@pytest.mark.performance
def test_submitting_a_job_takes_milliseconds(jobs) -> None:
    local = jobs()

    def seconds() -> float:
        begin = time.perf_counter()
        local.submit("exit 0")
        return time.perf_counter() - begin

    eventually(lambda: seconds() < 0.05)
