"""What the tests that maltreat htex share: its processes by role, scripts in processes of their own, bounded waits."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import flowcore
from flowcore import Config
from flowcore.executors.base import RunContext
from flowcore.testing.leftovers import Leftovers
from flowcore_htex import wire
from flowcore_htex.executor import HighThroughputExecutor
from flowcore_htex.version import RELEASE
from marked import Marked, oldest_first
from waiting import PATIENCE, until

REPEATS = int(os.environ.get("FLOWCORE_FAULT_REPEATS", "1"))
HEARTBEATS = {"heartbeat_period": 0.5, "heartbeat_threshold": 3}


def patient(executor):
    """Have its next interchanges wait for the managers of the one before as long as tests do; return the executor."""
    code = f"import flowcore_htex.interchange as i; i._RECOVERY = {PATIENCE}; i.main()"
    executor._client._broker._command = [sys.executable, "-c", code]
    return executor


@contextlib.contextmanager
def executors(folder):
    """Provide a function that starts executors; they are shut down in the end, and nothing of them must be left."""
    leftovers = Leftovers()
    started = []

    def start(**options):
        executor = HighThroughputExecutor(**{"max_workers": 2, "cores_per_worker": 0.1, **options})
        run_dir = folder / f"run-{len(started)}"
        run_dir.mkdir()
        started.append(executor)
        executor.start(RunContext(run_id=f"{os.getpid()}-{len(started)}", run_dir=run_dir))
        return executor

    try:
        yield start
        leftovers.watch()
    finally:
        for executor in started:
            executor.shutdown()
    assert leftovers.after(PATIENCE) == []


@contextlib.contextmanager
def runs(folder):
    """Provide a function that loads a run with one executor; no retry of the user's must have been spent in the end."""
    retried = []

    def count(error, _record):
        retried.append(error)
        return 1

    def load(lost_retries=2, **options):
        executor = HighThroughputExecutor(**{"max_workers": 2, "cores_per_worker": 0.1, **options})
        config = Config(
            executors=[executor],
            run_dir=str(folder / "runs"),
            retries=3,
            retry_handler=count,
            lost_retries=lost_retries,
            strategy_period=0.5,
        )
        flowcore.load(config)
        return executor

    leftovers = Leftovers()
    try:
        yield load
        leftovers.watch()
    finally:
        flowcore.clear(wait=False)
    assert leftovers.after(PATIENCE) == []
    assert retried == []


class Family:
    """The processes of the executors that a process has started, by role.

    Args:
        root: the process; this one if None.
    """

    def __init__(self, root=None):
        self.root = os.getpid() if root is None else root

    def pids(self, role):
        """Return the pids of 'interchange', 'manager', 'zygote' or 'worker', oldest first."""
        found = {}
        todo = [self.root]
        children, parents = {}, {}
        for pid, parent, line in _processes():
            parents[pid] = parent
            children.setdefault(parent, []).append((pid, line))
        while todo:
            for pid, line in children.get(todo.pop(), []):
                found[pid] = line
                todo.append(pid)
        zygotes = {
            pid
            for pid, line in found.items()
            if _runs(line, "zygote") and not _runs(found.get(parents[pid], ""), "zygote")
        }
        if role == "zygote":
            return oldest_first(zygotes)
        if role == "worker":
            forked = [process for zygote in zygotes for process in children.get(zygote, [])]
            return oldest_first(pid for pid, line in forked if _runs(line, "zygote"))
        return oldest_first(pid for pid, line in found.items() if _runs(line, role))

    def one(self, role):
        """Return the pid of the one process with the role, the youngest of several; waits for it."""
        return until(lambda: self.pids(role))[-1]

    def kill(self, role, number=signal.SIGKILL):
        """Send a signal to the one process with the role, and return its pid."""
        sent = []

        def send():  # a worker whose zygote has been killed looks like one until it ends too
            with contextlib.suppress(ProcessLookupError):
                pid = self.one(role)
                os.kill(pid, number)
                sent.append(pid)
            return sent

        assert until(send)
        return sent[0]


def _runs(line, role):
    """Whether a command line is that of a Python process with the role."""
    return "python" in line.partition(" ")[0] and f"flowcore_htex.{role}" in line


def _processes():
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, parent = (process / "stat").read_text().rpartition(")")[2].split()[:2]
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if state != "Z":
                yield int(process.name), int(parent), line


def memory(pid):
    """Return the resident memory of a process in MB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


@contextlib.contextmanager
def stopped(pid):
    """Stop a process for a while."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def outcomes(futures, within=PATIENCE):
    """Wait until all futures are done; return their errors, or their results."""
    _, hanging = wait(futures, within)
    assert not hanging, f"{len(hanging)} of {len(futures)} futures are not done after {within} s"
    return [future.exception() or future.result() for future in futures]


def executions(path):
    """Return how often each number was marked."""
    return Counter(int(line) for line in Path(path).read_text().split())


def registration(**changes):
    """Return what a manager says of itself when it comes; it takes no tasks."""
    return {
        "manager": "stranger",
        "protocol": wire.VERSION,
        "release": RELEASE,
        "python": f"{sys.version_info[0]}.{sys.version_info[1]}",
        "byteorder": sys.byteorder,
        "hostname": "elsewhere",
        "pid": 1,
        "block_id": "77",
        "cores": 1,
        "memory": 1000.0,
        "disk": 1000.0,
        "gpus": 0,
        "worker_count": 1,
        "start": time.time(),
        "draining": True,
        "held": [],
        **changes,
    }


SCRIPT_HEAD = """
import os, sys, time
import flowcore
from flowcore import Config, python_app
from flowcore.executors import HighThroughputExecutor
import htex_tasks

def executor(**options):
    return HighThroughputExecutor(**{"max_workers": 2, "heartbeat_period": 1, "heartbeat_threshold": 60, **options})

def say(word):
    print(word, flush=True)

nap = python_app(htex_tasks.nap)
"""


class Script:
    """A script in a process of its own, whose processes can be told from all others.

    Args:
        folder: its working directory.
        body: what follows `SCRIPT_HEAD`.
        before: words that go before the command of the script.
    """

    def __init__(self, folder, body, before=()):
        self.marked = Marked()
        self.path = folder / "script.py"
        self.path.write_text(SCRIPT_HEAD + body)
        environment = self.marked.environment
        environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), environment.get("PYTHONPATH", "")])
        self.process = subprocess.Popen(
            [*before, sys.executable, str(self.path)],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.family = Family(self.process.pid)
        self._said = b""

    def line(self, within=PATIENCE):
        """Return the next line that it says, what there is of it if it ends before or says nothing for too long."""
        deadline = time.monotonic() + within
        output = self.process.stdout.fileno()
        while b"\n" not in self._said and select.select([output], [], [], max(0, deadline - time.monotonic()))[0]:
            data = os.read(output, 65536)
            if not data:
                break
            self._said += data
        line, _, self._said = self._said.partition(b"\n")
        return line.decode().strip()

    def end(self, within=PATIENCE):
        """Wait for its end; return exit code, what it has said since the last `line`, and errors."""
        out, err = self.process.communicate(timeout=within)
        return self.process.returncode, self._said.decode() + out, err

    def private_folder(self):
        """Return the folder of the local socket of the executor that it started."""
        [settings] = self.path.parent.rglob("manager.json")
        return Path(json.loads(settings.read_text())["socket"]).parent

    def close(self):
        """Kill it if it still runs, and return what it leaves."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        left = self.marked.gone(PATIENCE)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        return left


# -- how busy workers are

PLAIN_WORKER = "import sys, time\nfor line in sys.stdin: time.sleep(float(line)); print(flush=True)"


@contextlib.contextmanager
def plain_workers(count):
    """Provide a function that sleeps for these lengths of time, in plain processes that take them from one list."""
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", PLAIN_WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                )
            )
            for _ in range(count)
        ]

        def serve(process, lengths):
            for length in lengths:
                print(length, file=process.stdin, flush=True)
                process.stdout.readline()

        def run(lengths):
            shared = iter(lengths)
            with ThreadPoolExecutor(count) as threads:
                list(threads.map(serve, processes, [shared] * count))

        yield run


def as_busy_as_plain_workers(run, lengths, workers, enough):
    """Tell what share of the throughput of plain processes htex has; the best of four comparisons, or one `enough`.

    Args:
        run: runs tasks of the lengths that it is given, in seconds, and returns when they have come back.
    """
    best = 0.0
    with plain_workers(workers) as plain:
        plain([0] * 10 * workers)  # now they have started
        for _ in range(4):
            took = []
            for function in (plain, run):
                began = time.monotonic()
                function(lengths)
                took.append(time.monotonic() - began)
            best = max(best, took[0] / took[1])
            if best > enough:
                break
    return best
