"""What all batch providers do: scripts, memory of states, batches, errors; their scheduler is a few lines of shell."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcore.errors import ConfigurationError
from flowcore.jobs.states import JobState, JobStatus
from flowcore.launchers import SimpleLauncher, SingleNodeLauncher, SrunLauncher
from flowcore.launchers.base import Launcher
from flowcore.providers import (
    GridEngineProvider,
    LocalProvider,
    LSFProvider,
    PBSProProvider,
    SlurmProvider,
    TorqueProvider,
    batch,
)
from flowcore.providers.batch import LONGEST_INTERVAL, SHORTEST_INTERVAL, UNTOLD, BatchProvider, clock
from flowcore.providers.errors import (
    BadLauncher,
    SchedulerError,
    SchedulerMissingArgs,
    ScriptPathError,
    SubmitException,
)
from flowcore.providers.scripts import JobScript, Verbatim, fill
from waiting import eventually


@attrs.define(eq=False, kw_only=True)
class ShellProvider(BatchProvider):
    """Submits with `submit`, cancels with `cancel`, and is told the states."""

    template: ClassVar[str] = "slurm.sh"
    directive: ClassVar[str] = "#SBATCH"
    gone: ClassVar[str | None] = "no such job"

    launcher: Launcher = attrs.field(factory=SimpleLauncher, validator=attrs.fields(BatchProvider).launcher.validator)
    queue: str | None = None
    shell: str = "echo $RANDOM$RANDOM"
    cancel_shell: str = "exit 0"
    answers: dict[str, JobStatus] = attrs.field(factory=dict)
    asked: list[list[str]] = attrs.field(factory=list)
    down: bool = False

    def fields(self, tasks_per_node: int, script: JobScript) -> Mapping[str, object]:
        names = [
            "cpus_per_task",
            "memory",
            "account",
            "qos",
            "constraint",
            "clusters",
            "gpus_per_node",
            "gres",
            "exclusive",
        ]
        return {**dict.fromkeys(names), "partition": self.queue}

    def submit_command(self, script: JobScript, job_name: str) -> list[str]:
        return ["bash", "-c", self.shell, "bash", str(script.path)]

    def cancel_command(self, job_ids: Sequence[str]) -> list[str]:
        return ["bash", "-c", self.cancel_shell, "bash", *job_ids]

    def ask(self, job_ids: Sequence[str]) -> Mapping[str, JobStatus]:
        self.asked.append(list(job_ids))
        if self.down:
            raise SchedulerError(["ask"], "it is down")
        return {job_id: self.answers[job_id] for job_id in job_ids if job_id in self.answers}


RUNNING = JobStatus(JobState.RUNNING)


@pytest.fixture
def make(tmp_path: Path):
    return lambda **options: ShellProvider(**{"script_dir": str(tmp_path / "scripts"), **options})


# Scripts


def test_a_script_can_be_seen_without_submitting_it(make, tmp_path: Path) -> None:
    text = make(queue="fast", worker_init="module load gcc").script("echo hello", 2, "my.job")
    lines = text.splitlines()
    assert lines[0] == "#!/bin/bash"
    assert "#SBATCH --partition=fast" in lines
    assert "#SBATCH --ntasks-per-node=2" in lines
    assert "#SBATCH --time=00:10:00" in lines
    assert not any("--account" in line for line in lines)
    assert lines.index("module load gcc") < lines.index("echo hello")
    assert not (tmp_path / "scripts").exists()


def test_the_script_that_is_shown_is_the_one_that_is_submitted(make, tmp_path: Path) -> None:
    provider = make()
    provider.submit("echo hello", 1, "my.job")
    [path] = (tmp_path / "scripts").glob("*.sh")
    assert path.read_text().replace(path.stem, "my.job") == provider.script("echo hello", 1, "my.job")


def test_the_script_of_a_local_provider_runs_the_command(tmp_path: Path) -> None:
    script = LocalProvider(worker_init="GREETING=hello").script('echo "$GREETING $JOBNAME"', 1, "my.job")
    done = subprocess.run(["bash"], input=script, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "hello my.job\n"


def run(script: str) -> int:
    return subprocess.run(["bash"], input=script, text=True, timeout=60, check=False).returncode


@pytest.mark.parametrize(("command", "code"), [("exit 0", 0), ("exit 7", 7), ("false", 1), ("kill -TERM $$", 143)])
def test_a_script_leaves_its_exit_code(make, tmp_path: Path, command: str, code: int) -> None:
    provider = make()
    (tmp_path / "scripts").mkdir()
    assert run(provider.script(command)) == code
    assert (tmp_path / "scripts" / "flowcore.exit").read_text() == f"{code}\n"


def test_a_script_that_was_withdrawn_does_nothing(make, tmp_path: Path) -> None:
    provider = make()
    JobScript.sample(provider, "flowcore").path.parent.mkdir()
    JobScript.sample(provider, "flowcore").withdraw()
    assert run(provider.script(f"touch {tmp_path}/sign; exit 7")) == 0
    assert not (tmp_path / "sign").exists()


def test_a_field_that_nobody_gave_is_named() -> None:
    with pytest.raises(SchedulerMissingArgs, match="the job script of acme needs a value for color, size"):
        fill("#A @{size}\n#A @{color} @{name}", {"name": "x"}, "acme", str)


NASTY = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1)


@given(NASTY)
def test_a_value_in_a_line_of_shell_arrives_unchanged(text: str) -> None:
    script = fill("printf %s @{word}", {"word": text}, "acme", str)
    done = subprocess.run(["bash", "-c", script], capture_output=True, encoding="utf-8", timeout=60, check=True)
    assert done.stdout == text


def test_what_a_value_holds_is_no_template() -> None:
    assert fill("@{a} @{b}", {"a": Verbatim("@{b}"), "b": Verbatim("@{a} \\1")}, "acme", str) == "@{b} @{a} \\1"


@pytest.mark.parametrize(
    ("seconds", "text"), [(1, "00:00:01"), (60.2, "00:01:01"), (7200, "02:00:00"), (360000, "100:00:00")]
)
def test_durations_are_written_as_schedulers_read_them(seconds: float, text: str) -> None:
    assert clock(seconds) == text


# Options


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"walltime": "soon"}, "walltime='soon'"),
        ({"walltime": "00:00:00"}, "no time at all"),
        ({"scheduler_options": "--nice=5"}, "a line of the job script is '#SBATCH --nice=5'"),
        ({"regex_job_id": r"(\d+)"}, r"lacks a group \(\?P<id>"),
        ({"regex_job_id": "("}, "regex_job_id"),
        ({"status_batch_size": 0}, "status_batch_size"),
        ({"queue": "a b"}, "'a b' has a space in it, which no line for shell can hold"),
        ({"queue": "a\nrm"}, "does not fit on one line"),
    ],
)
def test_bad_options_are_refused_at_construction(make, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make(**options)


@pytest.mark.parametrize(
    ("kind", "line", "harmless"),
    [
        (SlurmProvider, "#SBATCH --time=24:00:00", "#SBATCH --time-min=10 --mail-type=END"),
        (SlurmProvider, "#SBATCH --mail-type=END -t 60", "#SBATCH --comment=short-time=1"),
        (PBSProProvider, "#PBS -l select=1,walltime=24:00:00", "# walltime=24:00:00"),
        (TorqueProvider, "#PBS -l walltime=24:00:00", "#PBS -m e"),
        (GridEngineProvider, "#$ -l h_rt=3600", "#$ -l s_rt=3600"),
        (LSFProvider, "#BSUB -W 60", "#BSUB -We 60x -wt 5"),
    ],
)
def test_a_walltime_that_workers_would_not_know_of_is_refused(
    kind: type[BatchProvider], line: str, harmless: str
) -> None:
    with pytest.raises(ConfigurationError, match="workers would not know of it") as caught:
        kind(scheduler_options=f"#X\n{line}")
    assert line in str(caught.value)
    kind(scheduler_options=harmless)


def test_the_walltime_of_a_block_is_known_in_seconds(make) -> None:
    assert make(walltime="02:00:00").block_walltime == 7200
    assert LocalProvider().block_walltime is None


def test_a_launcher_that_leaves_nodes_idle_is_refused(make) -> None:
    with pytest.raises(BadLauncher, match="idle; leave launcher out"):
        make(nodes_per_block=2, launcher=SingleNodeLauncher())
    make(nodes_per_block=2, launcher=SimpleLauncher())
    make(nodes_per_block=1, launcher=SingleNodeLauncher())


def test_a_launcher_of_another_scheduler_is_refused(make) -> None:
    with pytest.raises(BadLauncher, match="it works in jobs of local or slurm only, not of shell"):
        make(launcher=SrunLauncher())
    LocalProvider(launcher=SrunLauncher())


# Submitting


def test_a_refused_job_raises_with_command_exit_code_and_words(make, tmp_path: Path) -> None:
    with pytest.raises(SubmitException) as caught:
        make(shell="echo half; echo 'no such queue' >&2; exit 3").submit("exit 0", 1, "my.job")
    error = caught.value
    assert (error.job_name, error.retcode, error.stdout, error.stderr) == ("my.job", 3, "half\n", "no such queue\n")
    assert str(tmp_path / "scripts") in str(error)


def test_an_answer_without_a_job_id_is_an_error(make) -> None:
    with pytest.raises(SubmitException, match="no job id"):
        make(shell="echo welcome", regex_job_id=r"job (?P<id>\d+)").submit("exit 0", 1)


def test_a_command_that_is_not_there_is_an_error(make, monkeypatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SubmitException, match="bash: it cannot be run here: No such file"):
        make().submit("exit 0", 1)


def test_a_scheduler_that_does_not_answer_is_an_error_in_time_and_the_job_is_withdrawn(
    make, tmp_path: Path, monkeypatch
) -> None:
    communicate = subprocess.Popen.communicate

    def after_the_first_word(process, *args: Any, **kwargs: Any):
        eventually(Path("said").exists)
        return communicate(process, *args, **kwargs)

    monkeypatch.setattr(subprocess.Popen, "communicate", after_the_first_word)
    with pytest.raises(SubmitException, match=r"no answer within cmd_timeout=2 s") as caught:
        make(shell="echo thinking; touch said; exec sleep 600", cmd_timeout=2).submit("exit 0", 1)
    assert caught.value.stdout == "thinking\n"
    assert len([*(tmp_path / "scripts").glob("*.withdrawn")]) == 1


def test_a_job_whose_submission_is_interrupted_is_withdrawn(make, tmp_path: Path) -> None:
    more_than_a_pipe_holds = "head -c 1000000 /dev/zero"  # when it has been written, the answer is being read
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            make(shell=f"{more_than_a_pipe_holds}; kill -INT $PPID").submit("exit 0", 1)
    finally:
        signal.signal(signal.SIGINT, before)
    assert len([*(tmp_path / "scripts").glob("*.withdrawn")]) == 1


def test_a_script_that_cannot_be_written_is_named(make, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ScriptPathError, match="file/folder"):
        make(script_dir=str(tmp_path / "file" / "folder")).submit("exit 0", 1)


# Asking


def test_terminal_states_are_final_and_not_asked_about_again(make) -> None:
    provider = make()
    job_id = provider.submit("exit 0", 1)
    provider.answers[job_id] = JobStatus(JobState.COMPLETED, exit_code=0)
    [ended] = provider.status([job_id])
    provider.answers[job_id] = RUNNING
    assert provider.status([job_id]) == [ended]
    assert provider.asked == [[job_id]]


def test_jobs_are_asked_about_in_batches_and_answered_in_order(make) -> None:
    provider = make(status_batch_size=3)
    jobs = [provider.submit("exit 0", 1) for _ in range(7)]
    provider.answers |= {job: JobStatus(JobState.HELD, job) for job in jobs}
    order = [jobs[3], *jobs, jobs[3]]
    assert [status.message for status in provider.status(order)] == order
    assert [len(batch) for batch in provider.asked] == [3, 3, 1]


def left(provider: ShellProvider, job_id: str, code: str) -> None:
    """Leave an exit code as the job's script would."""
    path = provider.status([job_id])[0].script_path
    assert path is not None
    Path(path).with_suffix(".exit").write_text(code)


@pytest.mark.parametrize(
    ("code", "state", "exit_code"),
    [("0\n", JobState.COMPLETED, 0), ("7\n", JobState.FAILED, 7), ("", JobState.FAILED, None)],
)
def test_a_forgotten_job_is_judged_by_the_code_that_its_script_left(make, code, state, exit_code) -> None:
    provider = make()
    job_id = provider.submit("exit 0", 1)
    provider.answers[job_id] = RUNNING
    left(provider, job_id, code)
    del provider.answers[job_id]
    [status] = provider.status([job_id])
    assert (status.state, status.exit_code) == (state, exit_code)


@attrs.define(eq=False, kw_only=True)
class Speechless(ShellProvider):
    """Has accounts that do not answer."""

    lookups: list[str] = attrs.field(factory=list)

    def forgotten(self, job_id: str, script: JobScript) -> JobStatus:
        if script.exit_code() is not None:
            return super().forgotten(job_id, script)
        self.lookups.append(job_id)
        raise SchedulerError(["accounts"], "no answer within cmd_timeout=60 s", unanswered=True)


def test_accounts_that_do_not_answer_blind_nobody_for_other_jobs_and_are_given_up(tmp_path: Path) -> None:
    provider = Speechless(script_dir=str(tmp_path / "scripts"))
    first, second, third = [provider.submit("exit 0", 1) for _ in range(3)]
    provider.answers = dict.fromkeys([first, second, third], JobStatus(JobState.RUNNING))
    provider.status([first, second])
    del provider.answers[first], provider.answers[second]
    seen = [[status.state for status in provider.status([first, second, third])] for _ in range(UNTOLD + 1)]
    assert seen[: UNTOLD - 1] == [[JobState.RUNNING] * 3] * (UNTOLD - 1)
    assert seen[UNTOLD - 1 :] == [[JobState.FAILED, JobState.FAILED, JobState.RUNNING]] * 2
    assert provider.lookups == [first] * UNTOLD  # one for each call


def test_a_job_that_has_left_its_exit_code_waits_for_no_accounts(tmp_path: Path) -> None:
    provider = Speechless(script_dir=str(tmp_path / "scripts"))
    first, second = [provider.submit("exit 0", 1) for _ in range(2)]
    left(provider, second, "0\n")
    states = [status.state for status in provider.status([first, second])]
    assert states == [JobState.PENDING, JobState.COMPLETED]


def test_the_exit_code_of_the_script_stands_in_where_the_scheduler_tells_none(make) -> None:
    provider = make()
    job_id = provider.submit("exit 0", 1)
    provider.answers[job_id] = RUNNING
    left(provider, job_id, "7\n")
    provider.answers[job_id] = JobStatus(JobState.FAILED)
    assert provider.status([job_id])[0].exit_code == 7


def test_a_job_that_nobody_knows_is_missing(make) -> None:
    assert make().status(["12"])[0].state is JobState.MISSING


def test_a_scheduler_that_is_down_raises_and_changes_nothing(make) -> None:
    provider = make()
    job_id = provider.submit("exit 0", 1)
    provider.answers[job_id] = RUNNING
    provider.status([job_id])
    provider.down = True
    with pytest.raises(SchedulerError, match="it is down"):
        provider.status([job_id])
    provider.down = False
    assert provider.status([job_id])[0].state is JobState.RUNNING


def test_young_jobs_are_asked_about_often_and_old_ones_seldom(make, monkeypatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(batch, "time", SimpleNamespace(monotonic=lambda: now[0]))
    provider = make()
    assert provider.status_polling_interval == LONGEST_INTERVAL
    provider.submit("exit 0", 1)
    assert provider.status_polling_interval == SHORTEST_INTERVAL
    now[0] += 100
    assert provider.status_polling_interval == 25
    now[0] += 10_000
    assert provider.status_polling_interval == LONGEST_INTERVAL


# Cancelling


def test_only_own_jobs_are_cancelled(make) -> None:
    provider = make()
    job_id = provider.submit("exit 0", 1)
    assert provider.cancel(["1", job_id]) == [False, True]


def test_a_refusal_to_cancel_is_told_for_its_job_alone(make) -> None:
    provider = make(cancel_shell='for job; do case $job in 2) echo "not now" >&2; exit 1;; esac; done')
    for number in "123":
        provider.shell = f"echo {number}"
        provider.submit("exit 0", 1)
    assert provider.cancel(["1", "2", "3"]) == [True, False, True]
    with pytest.raises(SchedulerError, match="not now"):
        provider.cancel(["2"])


@pytest.mark.parametrize(
    ("said", "code", "state"),
    [
        (JobState.COMPLETED, None, JobState.CANCELLED),
        (JobState.COMPLETED, "0\n", JobState.COMPLETED),
        (JobState.FAILED, None, JobState.CANCELLED),
        (JobState.FAILED, "143\n", JobState.CANCELLED),
    ],
)
def test_a_cancelled_job_has_completed_only_if_its_script_came_to_its_end(make, said, code, state) -> None:
    provider = make()
    job_id = provider.submit("exit 0", 1)
    provider.answers[job_id] = RUNNING
    assert provider.cancel([job_id]) == [True]
    if code is not None:
        left(provider, job_id, code)
    provider.answers[job_id] = JobStatus(said, exit_code=0 if said is JobState.COMPLETED else None)
    [status] = provider.status([job_id])
    assert (status.state, status.exit_code) == (state, None if code is None else int(code))


@attrs.define(eq=False, kw_only=True)
class Watched(ShellProvider):
    """Is asked for the states while it cancels."""

    seen: list[JobState] = attrs.field(factory=list)

    def cancel_command(self, job_ids: Sequence[str]) -> list[str]:
        self.seen += [status.state for status in self.status(job_ids)]
        return super().cancel_command(job_ids)


def test_a_job_that_ends_while_it_is_cancelled_is_cancelled(tmp_path: Path) -> None:
    provider = Watched(script_dir=str(tmp_path / "scripts"))
    jobs = [provider.submit("exit 0", 1) for _ in range(2)]
    provider.answers = dict(zip(jobs, (JobStatus(JobState.FAILED), JobStatus(JobState.COMPLETED)), strict=True))
    assert provider.cancel(jobs) == [True, True]
    assert provider.seen == [JobState.CANCELLED] * 2


@pytest.mark.parametrize(("first", "state"), [("exit 1", JobState.FAILED), ("exit 0", JobState.CANCELLED)])
def test_a_refusal_to_cancel_leaves_the_state_to_what_comes(make, first: str, state: JobState) -> None:
    provider = make(cancel_shell=first)
    job_id = provider.submit("exit 0", 1)
    with contextlib.suppress(SchedulerError):
        provider.cancel([job_id])
    provider.cancel_shell = "exit 1"
    with pytest.raises(SchedulerError):
        provider.cancel([job_id])
    provider.answers[job_id] = JobStatus(JobState.FAILED)
    assert provider.status([job_id])[0].state is state


def test_a_job_that_has_ended_meanwhile_counts_as_cancelled(make) -> None:
    provider = make(cancel_shell="echo 'no such job' >&2; exit 1")
    job_id = provider.submit("exit 0", 1)
    assert provider.cancel([job_id]) == [True]
