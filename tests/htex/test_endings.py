"""How scripts end while their tasks do odd things, and on a starved machine: clear errors, nothing left."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

import htex_tasks as tasks
from flowcore_htex.launch import MANAGER
from htex_rig import Script, executors, outcomes, stopped
from waiting import PATIENCE, until

pytestmark = pytest.mark.fault


@pytest.fixture
def script(tmp_path):
    """Start scripts; each must be gone in the end with everything that it started."""
    scripts = []

    def start(body, before=()):
        scripts.append(Script(tmp_path, body, before))
        return scripts[-1]

    yield start
    left = {}
    for one in scripts:
        left |= one.close()
    assert left == {}


@pytest.fixture
def start(tmp_path):
    with executors(tmp_path) as start:
        yield start


def after_mounting(mount):
    """Return words that mount something, then run a command that sees it alone; `$0` is the word between."""
    if os.getuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("a mount needs root and unshare")
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mount namespaces here")
    return ["unshare", "--mount", "sh", "-c", f'{mount} && exec "$@"']


# -- grandchildren that want to stay

DAEMONS = """
daemonize = python_app(htex_tasks.daemonize)
flowcore.load(Config(executors=[executor()]))
print(sum(daemonize(600).result() for _ in range(2)), flush=True)
futures = [nap(600) for _ in range(4)]
nap(0.1)
"""

ENDINGS = {
    "return": "",
    "exception": "raise ValueError('the end')",
    "SIGINT": "os.kill(os.getpid(), 2); time.sleep(60)",
    "SIGTERM": "os.kill(os.getpid(), 15); time.sleep(60)",
    "SIGKILL": "os.kill(os.getpid(), 9)",
    "os._exit": "os._exit(0)",
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_daemons_that_tasks_started_end_with_the_script(script, ending):
    run = script(DAEMONS + f"say('ready'); sys.stdin.read(); {ENDINGS[ending]}")
    assert run.line() == "6"
    run.end()
    assert run.marked.gone() == {}


@pytest.mark.parametrize("victims", [["zygote"], ["manager"], ["worker"], ["interchange"]], ids="".join)
def test_daemons_outlive_no_run_whose_processes_were_killed(script, victims):
    run = script(DAEMONS + "say('ready'); time.sleep(600)")
    assert (run.line(), run.line()) == ("6", "ready")
    assert until(lambda: len(run.marked.matching("sleep 600")) == 6)
    for victim in victims:
        run.family.kill(victim)
    until(lambda: run.family.pids("worker"), 5)
    run.process.kill()
    run.end()
    assert run.marked.gone() == {}
    assert not run.private_folder().exists()


def test_a_manager_that_starts_when_the_script_has_been_killed_ends_at_once(script, tmp_path):
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    run = script(f"""
from flowcore.providers import LocalProvider
provider = LocalProvider(worker_init="touch {tmp_path}/begun; cat {gate}")
flowcore.load(Config(executors=[executor(provider=provider)]))
say("ready")
time.sleep(600)
""")
    assert run.line() == "ready"
    until((tmp_path / "begun").exists)
    run.process.kill()
    run.end()
    until(lambda: not run.private_folder().exists())
    assert until(lambda: run.marked.matching("cat "))
    gate.write_text("go on")
    assert run.marked.gone() == {}
    [errors] = tmp_path.rglob("*block-0*.err")
    assert f"nobody listens any more at {run.private_folder()}" in errors.read_text()


def test_a_script_killed_while_it_shuts_down_leaves_no_folder(script, tmp_path):
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    run = script(f"""
flowcore.load(Config(executors=[executor()]))
nap(0).result()
say("ready")
open({str(gate)!r}).read()
flowcore.clear()
""")
    assert run.line() == "ready"
    manager = run.family.one("manager")
    with stopped(manager):  # the interchange waits for it to end
        gate.write_text("go on")
        [log] = tmp_path.rglob("interchange.log")
        until(lambda: "told to end" in log.read_text())
        run.process.kill()
        run.end()
    assert run.marked.gone(PATIENCE) == {}
    assert not run.private_folder().exists()


def test_a_manager_on_the_host_of_the_script_with_other_folders_is_not_told_that_the_run_is_over(start):
    hide = after_mounting('mount -t tmpfs none "$(dirname "$0")"')
    executor = start(address="127.0.0.1", launch_cmd=f"{shlex.join(hide)} {{socket}} {MANAGER}")
    assert executor.submit(pow, {}, 2, 5).result(PATIENCE) == 32
    [log] = Path(executor.logdir).rglob("manager.log")
    assert "connected to tcp://127.0.0.1:" in log.read_text()


@pytest.mark.parametrize("victims", ["interchange", "manager", "zygote", "interchange manager", "interchange zygote"])
def test_nothing_is_left_when_the_script_and_others_are_killed_at_once(script, victims):
    run = script("""
flowcore.load(Config(executors=[executor()]))
nap(0).result()
futures = [nap(600) for _ in range(4)]
say("ready")
time.sleep(600)
""")
    assert run.line() == "ready"
    pids = [run.family.one(victim) for victim in victims.split()]
    for number in (signal.SIGSTOP, signal.SIGKILL):  # stopped first, so that none sees another one die
        for pid in [run.process.pid, *pids]:
            os.kill(pid, number)
    run.end()
    assert run.marked.gone(PATIENCE) == {}
    if "manager" in victims and "interchange" in victims:  # nobody was left who could
        shutil.rmtree(run.private_folder())
    assert not run.private_folder().exists()


# -- tasks that fork


FORKING = {
    "fork, and both return": (tasks.fork_child, 7, 7),
    "fork, and the child exits": (tasks.fork_child_that_exits, 7, 7),
    "multiprocessing.Process": (tasks.use_process, 7, 7),
    "multiprocessing.Pool": (tasks.use_pool, [-1, -2, -3], [1, 2, 3]),
    "subprocess": (tasks.use_subprocess, "words", "words"),
}


@pytest.mark.parametrize("way", FORKING)
def test_a_task_may_have_children(start, way):
    function, argument, expected = FORKING[way]
    executor = start()
    came = outcomes([executor.submit(function, {}, argument) for _ in range(6)])
    assert came == [expected] * 6
    workers = set(outcomes([executor.submit(tasks.worker, {}) for _ in range(10)]))
    assert len(workers) <= 2


def test_a_child_that_outlives_its_task_does_not_hold_up_the_next(start):
    executor = start(max_workers=1)
    assert executor.submit(tasks.daemonize, {}, 600).result(PATIENCE) == 3
    assert executor.submit(pow, {}, 2, 5).result(PATIENCE) == 32


# -- a script that forks


def test_a_forked_child_of_the_script_leaves_the_run_alone(script):
    run = script("""
with flowcore.load(Config(executors=[executor()], exit_mode="wait")):
    nap(0).result()
    futures = [nap(0.02, value=n) for n in range(100)]
    child = os.fork()
    if child == 0:
        try:
            nap(0).result(10)
        except Exception as error:
            print(type(error).__name__, flush=True)
        sys.exit(5)
    say(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    say([future.result() for future in futures] == list(range(100)))
    say(nap(0, value="after").result())
""")
    code, out, err = run.end()
    assert code == 0, err
    lines = out.split()
    assert lines[1:] == ["5", "True", "after"], (out, err)
    assert lines[0].endswith("Error")


def test_a_forked_child_does_not_shut_down_an_executor_without_a_kernel(script):
    run = script("""
import multiprocessing
with executor() as one:
    one.submit(pow, {}, 2, 2).result()
    futures = [one.submit(htex_tasks.nap, {}, 0.02, n) for n in range(100)]
    child = os.fork()
    if child == 0:
        one.shutdown()
        sys.exit(5)
    say(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    process = multiprocessing.get_context("fork").Process(target=one.shutdown)
    process.start()
    process.join()
    say(process.exitcode)
    say([future.result() for future in futures] == list(range(100)))
    say(one.submit(pow, {}, 2, 5).result())
    say(len(one.connected_managers()))
""")
    code, out, err = run.end()
    assert code == 0, err
    assert out.split() == ["5", "0", "True", "32", "1"], (out, err)


def test_a_child_that_lives_on_does_not_keep_the_run_alive(script, tmp_path):
    run = script("""
flowcore.load(Config(executors=[executor()]))
nap(0).result()
if os.fork() == 0:
    os.closerange(0, 3)
    time.sleep(600)
    os._exit(0)
futures = [nap(600) for _ in range(4)]
say("ready")
time.sleep(600)
""")
    assert run.line() == "ready"
    run.process.kill()
    run.process.wait()
    child = until(lambda: len(run.marked.processes()) == 1 and run.marked.processes(), PATIENCE)
    assert child, run.marked.processes()
    os.kill(next(iter(child)), signal.SIGKILL)
    run.end()


# -- a starved machine

FULL_DISK = """
def fill():
    with open("disk/filler", "wb", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(4096))
        except OSError:
            pass
"""


def small_disk(folder):
    """Return words that run a command with a disk of 300 kB at `disk`, in a mount namespace of its own."""
    (folder / "disk").mkdir()
    return [*after_mounting("mount -t tmpfs -o size=300k tmpfs disk"), "sh"]


def test_a_disk_that_fills_up_during_the_run_costs_no_result(script, tmp_path):
    run = script(
        FULL_DISK
        + """
leave = python_app(os._exit)
config = Config(executors=[executor(worker_debug=True)], run_dir="disk/runs", exit_mode="wait", lost_retries=0)
with flowcore.load(config):
    nap(0).result()
    fill()
    say([future.result() for future in [nap(0.01, value=n) for n in range(100)]] == list(range(100)))
    error = leave(7).exception()
    say(type(error).__name__)
    say([future.result() for future in [nap(0.01, value=n) for n in range(100)]] == list(range(100)))
""",
        before=small_disk(tmp_path),
    )
    code, out, err = run.end()
    assert out.split() == ["True", "WorkerLost", "True"], (out, err[-3000:])
    assert code == 0


def test_a_disk_that_is_full_from_the_start_is_a_clear_error(script, tmp_path):
    run = script(
        FULL_DISK
        + """
os.makedirs("disk/runs")
fill()
flowcore.load(Config(executors=[executor()], run_dir="disk/runs", initialize_logging=False))
say(nap(0, value="fine").result())
""",
        before=small_disk(tmp_path),
    )
    code, _, err = run.end()
    assert code == 1
    assert "No space left on device" in err


def test_files_that_may_not_grow_cost_no_result(script):
    run = script("""
import resource
with flowcore.load(Config(executors=[executor(worker_debug=True)], exit_mode="wait")):
    nap(0).result()
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    say([future.result() for future in [nap(0.01, value=n) for n in range(50)]] == list(range(50)))
""")
    code, out, err = run.end()
    assert (code, out) == (0, "True\n"), err


@pytest.mark.parametrize("limit", [16, 24, 32, 48, 64, 256])
def test_few_descriptors_are_enough_or_a_clear_error(script, limit):
    run = script(f"""
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}))
with flowcore.load(Config(executors=[executor()], exit_mode="wait")):
    say([future.result() for future in [nap(0.01, value=n) for n in range(50)]] == list(range(50)))
""")
    code, out, err = run.end()
    if limit >= 64:
        assert (code, out) == (0, "True\n"), err
    else:
        assert (code, out) == (0, "True\n") or (code == 1 and "Too many open files" in err), (code, out, err[-3000:])


def test_more_workers_than_descriptors_is_a_clear_error(script):
    run = script("""
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
with flowcore.load(Config(executors=[executor(max_workers=100, cores_per_worker=0.01)], exit_mode="wait")):
    say(nap(0, value="fine").result())
""")
    code, out, err = run.end()
    assert (code, out) == (0, "fine\n") or (code == 1 and "Too many open files" in err), (code, out, err[-3000:])
