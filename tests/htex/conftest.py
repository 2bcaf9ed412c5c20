"""Executors for the tests here: started for one test or one module, ended with nothing left of them."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from flowcore.executors.base import RunContext
from flowcore_htex.executor import HighThroughputExecutor
from marked import oldest_first
from waiting import PATIENCE, until


@pytest.fixture(scope="session", autouse=True)
def _thread_of_pyzmq() -> None:
    """Begin with the thread that pyzmq keeps for what it sends without a copy: no executor's end is its end."""
    zmq.Frame(bytes(1 << 20), copy=False)


class Rig:
    """A started executor, and the processes that belong to its run."""

    def __init__(self, folder: Path, options: dict) -> None:
        self.run_id = str(uuid.uuid4())
        self.executor = HighThroughputExecutor(**{"max_workers": 2, "cores_per_worker": 0.1, **options})
        self.executor.start(RunContext(run_id=self.run_id, run_dir=folder))

    def submit(self, func, *args, **kwargs):
        return self.executor.submit(func, {}, *args, **kwargs)

    def run(self, func, *args, **kwargs):
        return self.submit(func, *args, **kwargs).result(PATIENCE)

    def processes(self, word: str = "") -> list[int]:
        return oldest_first(pid for pid, line in _marked(self.run_id) if word in line)

    def held(self) -> int:
        return sum(manager["tasks"] for manager in self.executor.connected_managers())

    def interchange(self) -> int:
        return self.some("flowcore_htex.interchange")[0]

    def manager(self) -> int:
        return self.some("flowcore_htex.manager")[-1]

    def zygote(self) -> int:
        return self.some("flowcore_htex.zygote")[0]

    def some(self, word: str) -> list[int]:
        """Return the processes with a word in their command lines, shells left out; waits until there is one."""
        found: list[int] = []

        def there_are() -> bool:
            found[:] = [pid for pid in self.processes(word) if "bash" not in _command(pid)]
            return bool(found)

        assert until(there_are)
        return found

    def logs(self) -> str:
        return "\n".join(path.read_text() for path in Path(self.executor.logdir).rglob("*.log"))

    def close(self) -> None:
        self.executor.shutdown()

    def left(self) -> list[str]:
        until(lambda: not list(_marked(self.run_id)))
        return [line for _, line in _marked(self.run_id)]


def _marked(run_id: str) -> Iterator[tuple[int, str]]:
    mark = f"FLOWCORE_RUN_ID={run_id}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
                if line:
                    yield int(folder.name), line


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()
    except OSError:
        return ""


def _end(rigs: list[Rig]) -> None:
    for rig in rigs:
        rig.close()
    for rig in rigs:
        until(lambda rig=rig: not list(_marked(rig.run_id)))
        survivors = list(_marked(rig.run_id))
        for pid, _ in survivors:
            os.kill(pid, signal.SIGKILL)
        assert not survivors


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Rig]]:
    """Start executors for one test."""
    rigs: list[Rig] = []

    def start(**options) -> Rig:
        folder = Path(tempfile.mkdtemp(prefix="run-", dir=tmp_path))
        rigs.append(Rig(folder, options))
        return rigs[-1]

    yield start
    _end(rigs)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """Provide an executor with two workers that the tests of a module share."""
    shared = Rig(tmp_path_factory.mktemp("run"), {})
    yield shared
    _end([shared])
