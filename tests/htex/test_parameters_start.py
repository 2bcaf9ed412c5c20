"""Constructor parameters that say how processes are started: provider, command lines, containers, folders, logs."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

import flowcore
from flowcore import Config, python_app
from flowcore.data_provider.files import File
from flowcore.data_provider.staging import Staging
from flowcore.errors import ConfigurationError
from flowcore.executors.errors import BadStateException, ExecutorError
from flowcore.providers import LocalProvider
from flowcore_htex.executor import SETTINGS, HighThroughputExecutor
from flowcore_htex.launch import INTERCHANGE, MANAGER
from nodes import Executors, below, process_with
from waiting import PATIENCE, eventually


@pytest.fixture
def start(tmp_path):
    with Executors(tmp_path) as executors:
        yield executors.start


def environment():
    return dict(os.environ)


# -- label and provider


def test_label_names_the_folder_the_threads_and_the_errors(start, tmp_path):
    executor = start(label="the big one")
    assert executor.submit(pow, {}, 2, 3).result(PATIENCE) == 8
    assert Path(executor.logdir) == tmp_path / "run-0" / "the big one"
    assert "flowcore-htex-client-the big one" in {thread.name for thread in threading.enumerate()}
    with pytest.raises(ExecutorError, match="the big one"):
        executor.start(None)


def test_label_is_how_a_task_is_sent_to_the_executor():
    one, other = (HighThroughputExecutor(label=label, max_workers=1) for label in ("one", "other's"))
    flowcore.load(Config(executors=[one, other]))

    @python_app(executors=["other's"])
    def log():
        return str(Path("/proc/self/fd/1").readlink())

    assert Path(log().result(PATIENCE)).is_relative_to(other.logdir)


def test_provider_decides_on_the_blocks_and_prepares_them(start):
    provider = LocalProvider(init_blocks=2, max_blocks=2, worker_init="export PREPARED='by the provider'")
    executor = start(provider=provider)
    eventually(lambda: len(executor.connected_managers()) == 2)
    assert {manager["block_id"] for manager in executor.connected_managers()} == {"0", "1"} == set(executor.status())
    assert executor.submit(os.getenv, {}, "PREPARED").result(PATIENCE) == "by the provider"


def test_provider_none_is_this_machine(start):
    executor = start(provider=None)
    assert executor.provider.label == "local"
    assert executor.submit(os.uname, {}).result(PATIENCE) == os.uname()


# -- command lines


def test_launch_cmd_changes_what_is_started(start):
    executor = start(launch_cmd=f"FROM_TEMPLATE=yes exec {MANAGER}")
    assert executor.submit(os.getenv, {}, "FROM_TEMPLATE").result(PATIENCE) == "yes"


def test_launch_cmd_may_change_a_setting(start):
    executor = start(launch_cmd=f"{MANAGER} --max-workers 3", max_workers=1, cores_per_worker=0.1)
    assert executor.submit(os.getenv, {}, "FLOWCORE_WORKER_COUNT").result(PATIENCE) == "3"


def test_launch_cmd_may_use_every_key(start, tmp_path):
    keys = ["python", "config", "block_id", "label", "logdir", "nodes_per_block", *SETTINGS]
    seen = tmp_path / "seen"
    lines = "\n".join(f"printf '%s=%s\\n' {key} {{{key}}} >> {seen}" for key in dict.fromkeys(keys))
    executor = start(launch_cmd=f"{lines}\n{MANAGER}", label='it\'s $HOME; a "label"', cores_per_worker=0.5)
    assert executor.submit(pow, {}, 2, 3).result(PATIENCE) == 8
    told = dict(line.split("=", 1) for line in seen.read_text().splitlines())
    assert told["label"] == executor.label
    assert told["python"] == sys.executable
    assert told["logdir"] == executor.logdir
    assert (told["block_id"], told["nodes_per_block"], told["cores_per_worker"]) == ("0", "1", "0.5")


def test_each_setting_is_a_key_and_an_option_that_takes_what_the_key_gives(start):
    options = " ".join(f"--{key.replace('_', '-')} {{{key}}}" for key in SETTINGS)
    executor = start(launch_cmd=f"{MANAGER} {options}", max_workers=float("inf"), label="it's")
    assert executor.submit(pow, {}, 2, 3).result(PATIENCE) == 8


@pytest.mark.parametrize("debug", [False, True])
def test_launch_cmd_may_say_debug_where_people_are_used_to(start, debug):
    executor = start(launch_cmd=f"{MANAGER} {{debug}}", worker_debug=debug)
    assert executor.submit(pow, {}, 2, 3).result(PATIENCE) == 8


def test_launch_cmd_that_starts_nothing_fails_the_tasks_with_its_words(start):
    executor = start(launch_cmd="no-such-manager --config {config}")
    with pytest.raises(BadStateException, match=r"no-such-manager.*not found"):
        executor.submit(pow, {}, 2, 3).result(PATIENCE)


def test_launch_cmd_with_an_unknown_key_is_refused_with_those_there_are():
    with pytest.raises(ConfigurationError, match=r"launch_cmd.*unknown keys nodes(.|\n)*block_id, .*python"):
        HighThroughputExecutor(launch_cmd="start {nodes}")


@pytest.mark.parametrize("as_text", [True, False])
def test_interchange_launch_cmd_is_what_is_started(start, tmp_path, as_text):
    script = tmp_path / "my interchange"
    script.write_text('#!/bin/sh\ntouch "$0.was-here"\nexec "$@"\n')
    script.chmod(0o755)
    words = [str(script), "{python}", "-m", "flowcore_htex.interchange"]
    executor = start(interchange_launch_cmd=shlex.join(words) if as_text else words)
    assert executor.submit(pow, {}, 2, 3).result(PATIENCE) == 8
    assert script.with_name("my interchange.was-here").exists()


def test_interchange_launch_cmd_none_is_the_module(start):
    start()
    assert [
        line
        for line in below().values()
        if line.startswith(sys.executable) and line.endswith(" flowcore_htex.interchange")
    ]


def test_interchange_launch_cmd_that_is_not_there_is_an_error(start):
    with pytest.raises(ExecutorError, match="no-such-interchange"):
        start(interchange_launch_cmd="no-such-interchange")


def test_interchange_launch_cmd_that_ends_is_an_error_with_its_words(start):
    with pytest.raises(ExecutorError, match="not today"):
        start(interchange_launch_cmd=["/bin/sh", "-c", "echo not today >&2; exit 3"])


def test_interchange_launch_cmd_may_say_something_of_its_own_before(start):
    words = 'echo Loading modules; echo "[1, 2]"; printf "half a line"; sleep 0.1; echo " more"; exec "$0" "$@"'
    executor = start(interchange_launch_cmd=["/bin/sh", "-c", words, *INTERCHANGE])
    assert executor.submit(pow, {}, 2, 3).result(PATIENCE) == 8


def test_interchange_launch_cmd_that_talks_without_end_is_an_error_in_time(start, monkeypatch):
    monkeypatch.setattr("flowcore_htex.broker._START", 0.5)
    began = time.monotonic()
    with pytest.raises(ExecutorError, match="the interchange did not say where it is"):
        start(interchange_launch_cmd=["timeout", "90", "yes"])
    assert time.monotonic() - began < 60


def test_interchange_launch_cmd_that_says_only_something_else_is_an_error_with_its_words(start):
    with pytest.raises(ExecutorError, match=r"exit code 0(.|\n)*module: command not found"):
        start(interchange_launch_cmd=["/bin/sh", "-c", "echo module: command not found"])


def test_the_end_of_an_interchange_is_told_in_its_own_words_not_in_those_of_the_one_before(start, tmp_path):
    spoiled = tmp_path / "spoiled"
    words = f'[ -e {spoiled} ] && echo second life >&2 && exit 3; echo first life >&2; exec "$0" "$@"'
    executor = start(interchange_launch_cmd=["/bin/sh", "-c", words, *INTERCHANGE])
    spoiled.touch()
    os.kill(process_with("flowcore_htex.interchange"), signal.SIGKILL)
    eventually(lambda: executor.bad_state_is_set)
    assert "second life" in str(executor.executor_exception)
    assert "first life" not in str(executor.executor_exception)


# -- files


class Shelf(Staging):
    """Brings files named `shelf://...` into the executor's working folder, within the task."""

    def can_stage_in(self, file):
        return file.scheme == "shelf"

    def replace_task(self, dm, executor, file, func):
        path = Path(dm.executors[executor].working_dir, file.filename)
        file.local_path = str(path)

        def with_file(*args, **kwargs):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("from the shelf")
            return func(*args, **kwargs)

        return with_file


@pytest.fixture
def shelved(tmp_path):
    """The path at which a task finds a file of the shelf, and what it reads there."""
    folder = tmp_path / "work"
    flowcore.load(
        Config(executors=[HighThroughputExecutor(max_workers=1, working_dir=str(folder), storage_access=[Shelf()])])
    )

    @python_app
    def read(file):
        return str(file), Path(file).read_text()

    return read(File("shelf://any/book.txt")).result(PATIENCE)


def test_storage_access_brings_the_files(shelved):
    assert shelved[1] == "from the shelf"


def test_storage_access_none_has_the_default_methods_only():
    flowcore.load(Config(executors=[HighThroughputExecutor(max_workers=1)]))

    @python_app
    def read(file):
        return str(file)

    with pytest.raises(Exception, match="shelf"):
        read(File("shelf://any/book.txt")).result(PATIENCE)


def test_working_dir_is_where_files_are_brought_to(shelved, tmp_path):
    assert shelved[0] == str(tmp_path / "work" / "book.txt")


# -- logs


def logs(executor):
    return {path.name: path.read_text() for path in Path(executor.logdir).rglob("*.log")}


def test_worker_debug_logs_each_task_and_message(start):
    executor = start(worker_debug=True)
    assert executor.submit(pow, {}, 2, 3).result(PATIENCE) == 8
    found = logs(executor)
    assert " DEBUG " in found["manager.log"]
    assert " DEBUG " in found["interchange.log"]


def test_worker_debug_off_logs_nothing_per_task(start):
    executor = start()
    assert executor.submit(pow, {}, 2, 3).result(PATIENCE) == 8
    assert not [line for text in logs(executor).values() for line in text.splitlines() if " DEBUG " in line]
    assert " INFO " in logs(executor)["manager.log"]


def test_worker_logdir_root_is_where_the_workers_write(start, tmp_path):
    executor = start(worker_logdir_root=str(tmp_path / "logs"), label="mine")
    assert executor.submit(print, {}, "hello from the task").result(PATIENCE) is None
    assert executor.worker_logdir == str(tmp_path / "logs" / "mine")
    (log,) = Path(executor.worker_logdir).rglob("worker-0.log")
    eventually(lambda: "hello from the task" in log.read_text())
    assert not list(Path(executor.logdir).rglob("worker-*.log"))


def test_worker_logdir_root_may_be_a_path(start, tmp_path):
    executor = start(worker_logdir_root=tmp_path / "logs")
    assert executor.submit(pow, {}, 2, 3).result(PATIENCE) == 8
    assert list((tmp_path / "logs").rglob("worker-0.log"))


def test_worker_logdir_root_none_is_beside_the_log_of_the_manager(start):
    executor = start()
    assert executor.submit(print, {}, "hello from the task").result(PATIENCE) is None
    (log,) = Path(executor.worker_logdir).rglob("worker-0.log")
    assert (log.parent / "manager.log").exists()


# -- containers, of which this machine has fakes: scripts that run the command as the real runtimes do

ENTRIES = {
    "apptainer": "exec",
    "singularity": "exec",
    "podman": "run",
    "docker": "run",
    "ch-run": "",
}

FAKE = """#!/bin/bash
# A fake {runtime}: notes how it was called, drops what a container does not get, and runs the command here.
printf '%s\\n' "{runtime}" "$@" >> {trace}
kept=()
while [ "$1" != "the image.sif" ]; do
    [ "$1" = -e ] && kept+=("$2=${{!2}}")
    shift
done
shift
[ "$1" = -- ] && shift
export PATH={path}
{clean} "$@"
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Put fake runtimes in PATH, and nothing else; returns the file in which they note how they were called."""
    folder, trace = tmp_path / "bin", tmp_path / "trace"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def make(*runtimes):
        for runtime in runtimes:
            isolated = runtime in {"docker", "podman"}
            script = folder / runtime
            text = FAKE.format(
                runtime=runtime,
                trace=shlex.quote(str(trace)),
                path=shlex.quote(f"{Path(sys.executable).parent}:/usr/bin:/bin"),
                clean='exec env -i "PATH=$PATH" "${kept[@]}"' if isolated else "exec",
            )
            script.write_text(text)
            script.chmod(0o755)
        return trace

    return make


@pytest.mark.parametrize("runtime", ENTRIES)
def test_container_image_runs_manager_and_workers_in_a_fake(start, fake, runtime):
    trace = fake(runtime)
    executor = start(container_image="the image.sif")
    assert executor.submit(pow, {}, 2, 3).result(PATIENCE) == 8
    name, *words = trace.read_text().splitlines()
    assert name == runtime
    assert words[0] == ENTRIES[runtime] or not ENTRIES[runtime]
    assert "the image.sif" in words
    assert f"{executor.logdir}:{executor.logdir}" in words


def test_container_image_takes_the_first_fake_that_the_node_has(start, fake):
    trace = fake("docker", "singularity")
    executor = start(container_image="the image.sif")
    assert executor.submit(pow, {}, 2, 3).result(PATIENCE) == 8
    assert trace.read_text().splitlines()[0] == "singularity"


@pytest.mark.parametrize(("scheme", "runtime"), [("docker", "docker"), ("charliecloud", "ch-run")])
def test_container_image_may_name_the_fake(start, fake, scheme, runtime):
    trace = fake(*ENTRIES)
    executor = start(container_image=f"{scheme}://the image.sif")
    assert executor.submit(pow, {}, 2, 3).result(PATIENCE) == 8
    assert trace.read_text().splitlines()[0] == runtime


@pytest.mark.parametrize("runtime", ["apptainer", "docker"])
def test_container_image_lets_a_fake_see_the_size_of_the_node(start, fake, runtime):
    fake(runtime)
    executor = start(container_image="the image.sif", max_workers=9, provider=LocalProvider(cores_per_node=3))
    assert executor.submit(os.getenv, {}, "FLOWCORE_WORKER_COUNT").result(PATIENCE) == "3"


def test_container_image_lets_a_fake_see_all_folders_that_are_used(start, fake, tmp_path):
    trace = fake("docker")
    executor = start(
        container_image="the image.sif", worker_logdir_root=str(tmp_path / "logs"), cert_dir=tmp_path / "keys"
    )
    assert executor.submit(pow, {}, 2, 3).result(PATIENCE) == 8
    seen = {word.partition(":")[0] for word in trace.read_text().splitlines()}
    (keys,) = (tmp_path / "keys").iterdir()
    assert {executor.logdir, executor.worker_logdir, str(keys)} <= seen


def test_container_image_without_any_runtime_is_the_error_of_the_block(start, fake):
    fake()
    executor = start(container_image="the image.sif")
    with pytest.raises(
        BadStateException, match=r"no container runtime for the image\.sif; looked for: apptainer, sing"
    ):
        executor.submit(pow, {}, 2, 3).result(PATIENCE)


def test_container_image_whose_fake_is_not_there_is_the_error_of_the_block(start, fake):
    fake("apptainer")
    executor = start(container_image="docker://the image.sif")
    with pytest.raises(BadStateException, match=r"no container runtime for the image\.sif; looked for: docker"):
        executor.submit(pow, {}, 2, 3).result(PATIENCE)


# -- blocks that fail

FAILS_FIRST = f"[ -e {{logdir}}/tried ] || {{{{ touch {{logdir}}/tried; exit 3; }}}}\n{MANAGER}"


def test_block_error_handler_true_gives_up_when_all_blocks_fail(start):
    executor = start(block_error_handler=True, launch_cmd=FAILS_FIRST)
    with pytest.raises(BadStateException, match="the only block failed"):
        executor.submit(pow, {}, 2, 3).result(PATIENCE)


def test_block_error_handler_false_tries_another_block(start):
    executor = start(block_error_handler=False, launch_cmd=FAILS_FIRST)
    assert executor.submit(pow, {}, 2, 3).result(PATIENCE) == 8
    assert set(executor.status()) == {"0", "1"}


def test_block_error_handler_of_the_users_decides(start):
    told = []

    def handler(executor, statuses):
        told.append(dict(statuses))
        if any(status.terminal for status in statuses.values()):
            executor.set_bad_state_and_fail_all(RuntimeError("I give up"))

    executor = start(block_error_handler=handler, launch_cmd="exit 3")
    with pytest.raises(BadStateException, match="I give up"):
        executor.submit(pow, {}, 2, 3).result(PATIENCE)
    assert set(told[-1]) == {"0"}


def test_remote_monitoring_radio_is_nothing_but_none():
    assert HighThroughputExecutor(remote_monitoring_radio=None)
    with pytest.raises(ConfigurationError, match=r"remote_monitoring_radio.*leave it None"):
        HighThroughputExecutor(remote_monitoring_radio="udp")
