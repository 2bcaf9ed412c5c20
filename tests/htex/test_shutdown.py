"""However a script ends, nothing of its run is left after a few seconds."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flowcore.errors import ShutdownError
from flowcore.executors.errors import BadStateException
from flowcore.providers import LocalProvider
from flowcore.testing.gate import Gate
from flowcore.testing.tasks import hold
from marked import Marked
from waiting import PATIENCE, until

SCRIPT = """
import os, signal, sys, time
from pathlib import Path
from flowcore.executors.base import RunContext
from flowcore_htex.executor import HighThroughputExecutor

def work(seconds):
    time.sleep(seconds)

def main(ending):
    executor = HighThroughputExecutor(max_workers=2, cores_per_worker=0.1, **OPTIONS)
    executor.start(RunContext(run_id="shutdown", run_dir=Path.cwd()))
    futures = [executor.submit(work, {}, 0)] + [executor.submit(work, {}, 600) for _ in range(5)]
    futures[0].result(60)
    print(executor._settings["socket"], flush=True)
    ending(executor)

"""

ENDINGS = {
    "shutdown": "def ending(executor):\n    executor.shutdown()\n",
    "return": "def ending(executor):\n    pass\n",
    "exception": "def ending(executor):\n    raise RuntimeError('end')\n",
    "sys.exit": "def ending(executor):\n    sys.exit(3)\n",
    "os._exit": "def ending(executor):\n    os._exit(4)\n",
    "SIGINT": "def ending(executor):\n    os.kill(os.getpid(), signal.SIGINT); time.sleep(600)\n",
    "SIGTERM": "def ending(executor):\n    os.kill(os.getpid(), signal.SIGTERM); time.sleep(600)\n",
    "SIGKILL": "def ending(executor):\n    os.kill(os.getpid(), signal.SIGKILL)\n",
}


@pytest.mark.fault
@pytest.mark.parametrize("options", ["{}", "{'loopback_address': '127.0.0.9'}"], ids=["local", "tcp"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_nothing_is_left(tmp_path, ending, options):
    marked = Marked()
    path = tmp_path / "script.py"
    path.write_text(f"OPTIONS = {options}\n{SCRIPT}{ENDINGS[ending]}\nmain(ending)\n")
    process = subprocess.Popen(
        [sys.executable, str(path)],
        cwd=tmp_path,
        env=marked.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        out, err = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
        left = marked.gone()
        for pid in left:
            os.kill(pid, signal.SIGKILL)
    assert not left, err
    assert out, err
    assert not Path(out.strip()).exists()
    assert not Path(out.strip()).parent.exists()


def test_shutdown_finishes_every_future_and_is_idempotent(start):
    rig = start()
    done = rig.submit(pow, 2, 2)
    assert done.result(PATIENCE) == 4
    futures = [rig.submit(time.sleep, 600) for _ in range(10)]
    rig.close()
    rig.close()
    assert done.result() == 4
    assert {type(future.exception(0)) for future in futures} == {ShutdownError}
    with pytest.raises(ShutdownError):
        rig.submit(pow, 2, 2)


@pytest.mark.parametrize(
    ("end", "error"),
    [
        (lambda executor: executor.shutdown(), ShutdownError),
        (lambda executor: executor.set_bad_state_and_fail_all(RuntimeError("out of order")), BadStateException),
    ],
    ids=["shutdown", "out of order"],
)
def test_every_future_is_done_where_outcomes_come_in_while_they_are_failed(start, end, error):
    import threading

    rig = start(max_workers=1, prefetch_capacity=40, poll_period=1000)  # so outcomes come in one batch
    rig.run(pow, 1, 1)
    arriving, failing, taken = threading.Event(), threading.Event(), threading.Event()

    def arrived(_):
        arriving.set()
        failing.wait(PATIENCE)

    def failed(_):
        failing.set()
        taken.wait(0.5)  # once all are claimed, none is taken meanwhile

    with Gate(PATIENCE) as gate:  # nothing arrives before it is looked at
        held = rig.submit(hold, gate.port)
        futures = [rig.submit(pow, 2, number) for number in range(20)]
        futures[0].add_done_callback(arrived)
        futures[1].add_done_callback(failed)
        futures[2].add_done_callback(lambda _: taken.set())
        gate.wait_for(1)
        gate.open()
        held.result(PATIENCE)
        assert arriving.wait(PATIENCE)
    end(rig.executor)
    assert {type(future.exception(0)) for future in futures[1:]} == {error}


def test_blocks_are_cancelled_even_where_the_client_cannot_be_ended(start, monkeypatch):
    rig = start()
    rig.run(pow, 1, 1)
    end = rig.executor._client.shutdown

    def fail():
        end()
        raise OSError("no")

    monkeypatch.setattr(rig.executor._client, "shutdown", fail)
    with pytest.raises(OSError, match="no"):
        rig.close()
    assert all(status.terminal for status in rig.executor.status().values())
    monkeypatch.undo()


def promise_words(path):
    import atexit
    from pathlib import Path

    def say():
        time.sleep(0.3)  # who does not wait for it kills it meanwhile
        Path(path).write_text("bye")

    atexit.register(say)


PATIENT = (
    "import flowcore_htex.nursery as n; n._END = 60; "
    "n.BARE = 'import flowcore_htex.zygote as z; z._GRACE = 60; ' + n.BARE; "
    "from flowcore_htex.manager import main; main()"
)
"""A manager that gives its workers a minute to end, for busy machines."""


def test_exit_functions_of_idle_workers_run(start, tmp_path, monkeypatch):
    monkeypatch.setattr("flowcore.providers.local.KILL_AFTER", 60)
    rig = start(
        max_workers=1,
        provider=LocalProvider(cmd_timeout=120),
        launch_cmd=f"{{python}} -c {shlex.quote(PATIENT)} --config {{config}} --block-id {{block_id}}",
    )
    rig.run(promise_words, str(tmp_path / "words"))
    rig.close()
    assert (tmp_path / "words").read_text() == "bye"


def test_shutdown_from_a_callback_is_possible(start):
    import threading

    rig = start()
    ended = threading.Event()

    def end(_future):
        rig.close()
        ended.set()

    rig.submit(pow, 2, 2).add_done_callback(end)
    assert ended.wait(PATIENCE)


@pytest.mark.parametrize("moment", ["shutdown", "reap"], ids=["early", "late"])
def test_shutdown_ends_an_interchange_that_is_started_meanwhile(start, monkeypatch, moment):
    import threading

    rig = start()
    rig.run(pow, 2, 2)
    client = rig.executor._client
    broker = client._broker
    launch, reap = broker.launch, broker.reap
    restarting, going_on = threading.Event(), threading.Event()

    def launch_late(expected):
        restarting.set()
        going_on.wait(PATIENCE)
        return launch(expected)

    def reap_and_tell(patience=0.0):
        ending = reap(patience)
        if client._closing:
            going_on.set()
        return ending

    monkeypatch.setattr(broker, "launch", launch_late)
    os.kill(rig.interchange(), signal.SIGKILL)
    assert restarting.wait(PATIENCE)
    monkeypatch.setattr(broker, "reap", reap_and_tell)
    thread = threading.Thread(target=client.shutdown)
    thread.start()
    if moment == "shutdown":
        assert until(lambda: client._closing)
        going_on.set()
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_shutdown_from_many_threads_at_once_is_possible(start):
    import threading

    rig = start()
    threads = [threading.Thread(target=rig.close) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert not any(thread.is_alive() for thread in threads)


def test_shutdown_before_start_does_nothing():
    from flowcore_htex.executor import HighThroughputExecutor

    HighThroughputExecutor().shutdown()


def test_no_thread_and_no_descriptor_is_left(start):
    import threading

    before_threads = set(threading.enumerate())
    rig = start()
    rig.run(pow, 2, 2)
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    rig.close()
    assert set(threading.enumerate()) <= before_threads
    assert len(list(Path("/proc/self/fd").iterdir())) < descriptors


def test_many_runs_leave_no_descriptors(start):
    start().close()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        rig = start()
        rig.run(pow, 2, 2)
        rig.close()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before
