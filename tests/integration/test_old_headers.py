"""A Python that was built with old headers, as many are that are meant for every Linux: it lacks what they lacked."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

OLD = """
import fcntl, os, signal

for name in ("pidfd_open", "memfd_create", "MFD_CLOEXEC", "MFD_ALLOW_SEALING", "copy_file_range", "getrandom"):
    if hasattr(os, name):
        delattr(os, name)
if hasattr(signal, "pidfd_send_signal"):
    del signal.pidfd_send_signal
for name in [name for name in dir(fcntl) if name.startswith(("F_SEAL_", "F_ADD_SEALS", "F_GET_SEALS", "F_OFD_"))]:
    delattr(fcntl, name)

spawn = os.posix_spawn
def posix_spawn(*arguments, setsid=False, **options):
    if setsid:
        raise NotImplementedError("posix_spawn: setsid unavailable on this platform")
    return spawn(*arguments, **options)
os.posix_spawn = posix_spawn
"""

NO_MEMORY_FILES = """
import ctypes

class OldLibrary(ctypes.CDLL):
    def __getattr__(self, name):
        if name == "memfd_create":
            raise AttributeError(name)
        return super().__getattr__(name)
ctypes.CDLL = OldLibrary
"""

BASH = """
import time
import flowcore
from flowcore import Config, bash_app
from flowcore.app.errors import AppTimeout, BashExitFailure
from flowcore.executors import ThreadPoolExecutor

@bash_app
def shell(command, walltime=None):
    return command

with flowcore.load(Config(executors=[ThreadPoolExecutor()], initialize_logging=False)):
    assert shell("true").result(60) == 0
    assert isinstance(shell("exit 3").exception(60), BashExitFailure)
    assert isinstance(shell("sleep 60 & wait", walltime=0.1).exception(60), AppTimeout)
"""

DIES = """
import os, sys
import flowcore
from flowcore import Config, bash_app
from flowcore.executors import ThreadPoolExecutor

@bash_app
def shell(command):
    return command

with flowcore.load(Config(executors=[ThreadPoolExecutor()], initialize_logging=False)):
    shell("echo started; exec sleep 600").add_done_callback(lambda _: os._exit(2))
    sys.stdin.read()
    os._exit(1)
"""

LOCAL = """
import os, threading, time
from flowcore.jobs.states import JobState
from flowcore.launchers.simple import SimpleLauncher
from flowcore.providers.local import LocalProvider
from flowcore.providers.processes import session_members

provider = LocalProvider(script_dir="scripts", launcher=SimpleLauncher())

def ended(job_id):
    changed = threading.Event()
    provider.watch(changed.set)
    if not provider.status([job_id])[0].terminal:
        assert changed.wait(60)
    return provider.status([job_id])[0]

leaving = provider.submit("sleep 600 & exit 0", 1)
assert ended(leaving).state is JobState.COMPLETED
assert session_members(int(leaving.partition(".")[0])) == []

os.mkfifo("fifo")
stubborn = provider.submit("trap '' TERM; (trap '' TERM; echo > fifo; sleep 600; sleep 600) & wait; wait", 1)
with open("fifo") as fifo:
    fifo.read()
assert provider.status([stubborn])[0].state is JobState.RUNNING
assert provider.cancel([stubborn]) == [True]
assert provider.status([stubborn])[0].state is JobState.CANCELLED
assert session_members(int(stubborn.partition(".")[0])) == []
"""

HTEX = """
import os
import flowcore
from flowcore import Config, bash_app, python_app
from flowcore.executors import HighThroughputExecutor
from flowcore.testing.leftovers import Leftovers

@python_app
def doubled(data):
    import os
    assert not hasattr(os, "memfd_create")
    return data + data

@python_app
def killed():
    import os, signal
    os.kill(os.getpid(), signal.SIGKILL)

@bash_app
def shell(command):
    return command

large = b"large" * 100_000
leftovers = Leftovers()
executor = HighThroughputExecutor(max_workers=2, {options})
with flowcore.load(Config(executors=[executor], lost_retries=0)):
    assert doubled(large).result(60) == large + large
    assert shell("true").result(60) == 0
    assert type(killed().exception(60)).__name__ == "WorkerLost"
    assert doubled(b"still there").result(60) == b"still therestill there"
    leftovers.watch()
assert leftovers.after(60) == []
"""


@pytest.fixture(params=["memory files by the C library", "no memory files"])
def environment(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """Return what makes a Python, and those that it starts, one that was built with old headers."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(OLD + (NO_MEMORY_FILES if request.param == "no memory files" else ""))
    return {**os.environ, "PYTHONPATH": str(site)}


@pytest.mark.parametrize(
    "script",
    [BASH, LOCAL, HTEX.replace("{options}", ""), HTEX.replace("{options}", "loopback_address='localhost'")],
    ids=["bash apps", "local jobs", "htex", "htex over TCP"],
)
def test_all_is_well(environment: dict[str, str], script: str) -> None:
    words = [sys.executable, "-W", "error", "-c", script]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=250, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_commands_end_with_the_process_that_runs_them(environment: dict[str, str]) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", DIES], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"started\n"
        process.stdin.close()
        assert process.stdout.read() == b""  # the command had it too, and has been killed
