"""The processes of one measurement, found wherever they went, and what they use; all of it from /proc."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path

MARKER = "BENCHMARK_RUN"
"""Environment variable, different for every measurement."""

RUNNER = "BENCHMARK_RUNNER"
"""Environment variable: the process that started the measurement, which adopts whatever its parent left alone."""

_PROC = Path("/proc")


def of_run(mark: str, runner: int) -> list[int]:
    """Return the processes that have the mark or descend from the runner; not the runner.

    Some systems overwrite the environment that /proc shows, others leave their parents: hence both.
    """
    parents = dict(_parents())
    found = {pid for pid in parents if parents[pid] == runner or _has(pid, f"{MARKER}={mark}".encode())}
    size = -1
    while size != len(found):
        size = len(found)
        found.update(pid for pid, parent in parents.items() if parent in found)
    return sorted(found - {runner})


def own_run() -> list[int]:
    """Return the processes of the measurement that this process belongs to, this one last."""
    return sorted(of_run(os.environ[MARKER], int(os.environ[RUNNER])), key=lambda pid: pid == os.getpid())


def kill(pids: Iterable[int]) -> None:
    """Kill processes, those that are gone notwithstanding."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def cpu_seconds(pids: Iterable[int]) -> float:
    """Sum the processor time that the living threads of the processes have had, as the scheduler counted it."""
    return sum(int(text.split()[0]) for text in _of_threads(pids, "schedstat")) / 1e9


def thread_seconds(pid: int) -> dict[str, float]:
    """Return the processor time of each living thread of a process by its name; that of its first is 'main'."""
    found: dict[str, float] = {}
    for path in (_PROC / str(pid) / "task").iterdir():
        with contextlib.suppress(OSError):  # it has ended just now
            name = "main" if path.name == str(pid) else (path / "comm").read_text().strip()
            found[name] = found.get(name, 0.0) + int((path / "schedstat").read_text().split()[0]) / 1e9
    return found


def wake_ups(pids: Iterable[int]) -> int:
    """Sum how often the living threads of the processes went to sleep of their own accord, and so were woken."""
    return sum(int(_field(text, "voluntary_ctxt_switches:")) for text in _of_threads(pids, "status"))


def megabytes(pids: Iterable[int]) -> float:
    """Sum the memory of the processes, what they share being shared among them (PSS)."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            total += int(_field((_PROC / str(pid) / "smaps_rollup").read_text(), "Pss:"))
    return total * 1024 / 1e6


def resident_bytes() -> int:
    """Return the resident size of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def machine_seconds() -> float:
    """Return the processor time that all cores together have spent on anything, what a host took away included."""
    user, nice, system, _idle, _wait, irq, soft, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")


def _parents() -> Iterator[tuple[int, int]]:
    for path in _PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (path / "stat").read_text().rpartition(")")[2].split()
            if fields[0] != "Z":
                yield int(path.name), int(fields[1])


def _has(pid: int, mark: bytes) -> bool:
    with contextlib.suppress(OSError):
        return mark in (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    return False


def _of_threads(pids: Iterable[int], name: str) -> Iterator[str]:
    for pid in pids:
        for path in (_PROC / str(pid) / "task").glob(f"*/{name}"):
            with contextlib.suppress(OSError):
                yield path.read_text()


def _field(text: str, name: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(name)).split()[1]
