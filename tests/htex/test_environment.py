"""What a task finds around it: variables, paths, streams, signals, and no secret."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from flowcore.providers import LocalProvider
from flowcore.serialize import RemoteExceptionError
from flowcore.testing import tasks
from flowcore.testing.gate import Gate
from flowcore_htex.errors import WorkerLost
from marked import Marked
from nodes import OVER_LOOPBACK, Executors, below
from waiting import PATIENCE, eventually


@pytest.fixture
def start(tmp_path):
    with Executors(tmp_path) as executors:
        yield executors.start


@pytest.fixture
def gate():
    with Gate(PATIENCE) as gate:
        yield gate


def environment(port=None):
    if port is not None:
        tasks.hold(port)
    return dict(os.environ)


# -- variables

NAMES = ("WORKER_RANK", "WORKER_COUNT", "WORKER_POOL_ID", "WORKER_BLOCK_ID")


@pytest.mark.parametrize("prefix", ["FLOWCORE", "PARSL"])
def test_a_task_knows_its_worker_in_either_spelling(start, gate, prefix):
    executor = start(max_workers=3, cores_per_worker=0.1)
    futures = [executor.submit(environment, {}, gate.port) for _ in range(3)]
    gate.wait_for(3)
    gate.open()
    seen = [future.result(PATIENCE) for future in futures]
    manager = executor.connected_managers()[0]["manager"]
    assert sorted(tuple(one[f"{prefix}_{name}"] for name in NAMES) for one in seen) == [
        (str(rank), "3", manager, "0") for rank in range(3)
    ]


def test_a_task_knows_the_run_and_the_block(start):
    executor = start(provider=LocalProvider(init_blocks=2, max_blocks=2))
    eventually(lambda: len(executor.connected_managers()) == 2)
    seen = [executor.submit(environment, {}).result(PATIENCE) for _ in range(20)]
    assert {one["FLOWCORE_RUN_ID"] for one in seen} == {f"{os.getpid()}-0"}
    assert all(one["FLOWCORE_BLOCK_ID"] == one["FLOWCORE_WORKER_BLOCK_ID"] for one in seen)


def test_what_the_script_has_in_its_environment_reaches_tasks_on_this_host(start, monkeypatch):
    monkeypatch.setenv("OF_THE_SCRIPT", "yes, 'quoted' and\nbroken")
    assert start().submit(os.getenv, {}, "OF_THE_SCRIPT").result(PATIENCE) == "yes, 'quoted' and\nbroken"


def test_what_a_task_sets_stays_in_its_worker(start):
    executor = start()
    executor.submit(os.putenv, {}, "SET_BY_A_TASK", "1").result(PATIENCE)
    assert "SET_BY_A_TASK" not in os.environ


def test_accelerators_that_were_assigned_are_taken_back_after_the_task(start, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    executor = start(available_accelerators=["a", "b"], max_workers=2, cores_per_worker=0.1)
    both = executor.submit(os.getenv, {"gpus": 2}, "CUDA_VISIBLE_DEVICES").result(PATIENCE)
    assert sorted(both.split(",")) == ["a", "b"]
    after = {executor.submit(os.getenv, {}, "CUDA_VISIBLE_DEVICES").result(PATIENCE) for _ in range(20)}
    assert after <= {"a", "b"}


# -- paths

MODULE = "def where():\n    return __name__, __file__\n"

SCRIPT = """
import flowcore
from beside import where
from flowcore import Config, python_app
from flowcore.executors import HighThroughputExecutor

app = python_app(where)

@python_app
def indirectly():
    import beside
    return beside.where()

if __name__ == "__main__":
    with flowcore.load(Config(executors=[HighThroughputExecutor(max_workers=1)])):
        print(app().result(60) == indirectly().result(60) == where())
"""


def test_an_app_from_a_module_beside_the_script_works(tmp_path):
    folder = tmp_path / "a folder"
    folder.mkdir()
    (folder / "beside.py").write_text(MODULE)
    (folder / "script.py").write_text(SCRIPT)
    marked = Marked()
    done = subprocess.run(
        [sys.executable, folder / "script.py"],
        cwd=tmp_path,
        env=marked.environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")
    assert marked.gone(PATIENCE) == {}


def test_a_module_in_the_current_folder_hides_nothing(start, tmp_path):
    for name in ("json", "select", "random"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('not the real one')\n")
    assert tmp_path == Path.cwd()
    assert start().submit(pow, {}, 2, 3).result(PATIENCE) == 8


def test_a_module_beside_the_script_hides_an_installed_one_in_tasks_too(start, tmp_path, monkeypatch):
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside" / "iniconfig.py").write_text("VALUE = 'beside the script'\n")
    monkeypatch.syspath_prepend(str(tmp_path / "beside"))

    def import_installed():  # goes by value: this module would import pytest, which needs what is hidden
        import iniconfig

        return iniconfig.VALUE

    assert start().submit(import_installed, {}).result(PATIENCE) == "beside the script"


def import_value():
    import of_the_script

    return of_the_script.VALUE


def test_a_relative_entry_of_the_search_path_still_leads_to_the_same_folder(start, tmp_path, monkeypatch):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "of_the_script.py").write_text("VALUE = 'found'\n")
    monkeypatch.syspath_prepend("lib")
    executor = start(launch_cmd=f"cd /; exec {OVER_LOOPBACK}")
    assert executor.submit(import_value, {}).result(PATIENCE) == "found"


def test_tasks_on_this_host_start_in_the_folder_of_the_script(start, tmp_path):
    assert start().submit(os.getcwd, {}).result(PATIENCE) == str(tmp_path)


# -- streams


def read_input():
    return sys.stdin.read(), os.read(0, 10)


def test_standard_input_is_empty_and_no_task_can_hang_on_it(start):
    assert start().submit(read_input, {}).result(PATIENCE) == ("", b"")


def test_standard_input_of_a_command_that_a_task_starts_is_empty_too(start):
    assert start().submit(subprocess.check_output, {}, ["cat"]).result(PATIENCE) == b""


def speak():
    print("said by Python")
    print("complained by Python", file=sys.stderr)
    os.system("echo said by a command")


def test_what_a_task_says_is_in_the_log_of_its_worker_at_once(start, capfd):
    executor = start()
    executor.submit(speak, {}).result(PATIENCE)
    (log,) = Path(executor.worker_logdir).rglob("worker-0.log")
    text = log.read_text()
    assert all(words in text for words in ("said by Python", "complained by Python", "said by a command"))
    assert capfd.readouterr() == ("", "")


def test_a_task_has_no_descriptor_of_flowcores_but_its_connection(start):
    found = start(max_workers=4, cores_per_worker=0.1).submit(descriptors, {}).result(PATIENCE)
    assert len([one for one in found if one.startswith("socket:")]) == 1
    assert len([one for one in found if "pipe" in one]) == 0


def descriptors():
    found = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            found.append(str(link.readlink()))
        except OSError:
            continue
    return found


def test_a_command_that_a_task_starts_inherits_streams_alone(start):
    command = ["/bin/sh", "-c", "ls -l /proc/self/fd"]
    listed = start().submit(subprocess.check_output, {}, command, close_fds=False).result(PATIENCE).decode()
    assert "socket" not in listed


# -- signals


def dispositions():
    numbers = set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP}
    ours = {signal.SIGINT: signal.default_int_handler, signal.SIGPIPE: signal.SIG_IGN, signal.SIGXFSZ: signal.SIG_IGN}
    changed = [number for number in numbers if signal.getsignal(number) != ours.get(number, signal.SIG_DFL)]
    return changed, signal.pthread_sigmask(signal.SIG_BLOCK, []), signal.set_wakeup_fd(-1)


def test_signals_are_as_in_any_python_process(start):
    changed, blocked, wakeup = start().submit(dispositions, {}).result(PATIENCE)
    assert not [number for number in changed if isinstance(number, signal.Signals)]
    assert (blocked, wakeup) == (set(), -1)


def interrupt_yourself():
    os.kill(os.getpid(), signal.SIGINT)
    threading.Event().wait(PATIENCE)


def test_an_interrupt_within_a_task_is_the_tasks_own_error(start):
    executor = start()
    with pytest.raises(RemoteExceptionError, match="KeyboardInterrupt"):  # the real one would end the script
        executor.submit(interrupt_yourself, {}).result(PATIENCE)
    assert executor.submit(pow, {}, 2, 3).result(PATIENCE) == 8


def terminate_yourself():
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(PATIENCE)


def test_a_task_that_is_terminated_is_a_worker_lost_by_name_of_the_signal(start):
    executor = start()
    with pytest.raises(WorkerLost, match="SIGTERM"):
        executor.submit(terminate_yourself, {}).result(PATIENCE)
    assert executor.submit(pow, {}, 2, 3).result(PATIENCE) == 8


def alarm_yourself():
    fired = threading.Event()
    signal.signal(signal.SIGALRM, lambda *_: fired.set())
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)  # more than once: one just before the wait does not end it
    try:
        return fired.wait(PATIENCE)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def test_a_task_may_set_a_timer_for_itself(start):
    assert start().submit(alarm_yourself, {}).result(PATIENCE) is True


def main_thread():
    return threading.current_thread() is threading.main_thread(), threading.active_count(), os.getpid() == os.getsid(0)


def test_a_task_runs_in_the_main_thread_of_a_session_of_its_own(start):
    assert start().submit(main_thread, {}).result(PATIENCE) == (True, 1, True)


# -- secrets


def test_no_key_is_on_a_command_line_in_an_environment_or_in_a_log(start, tmp_path):
    executor = start(launch_cmd=OVER_LOOPBACK, cert_dir=tmp_path / "keys", worker_debug=True)
    seen = executor.submit(environment, {}).result(PATIENCE)
    keys = [path.read_bytes() for path in (tmp_path / "keys").glob("*/*")]
    assert len(keys) >= 2
    texts = ["\n".join(seen.values()).encode()]
    for pid in below():
        with contextlib.suppress(OSError):  # it has just ended
            texts += [Path(f"/proc/{pid}/{name}").read_bytes() for name in ("cmdline", "environ")]
    texts += [path.read_bytes() for path in Path(executor.logdir).rglob("*") if path.is_file()]
    for key in keys:
        assert not [text for text in texts if key in text]
