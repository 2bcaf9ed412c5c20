"""Finds the threads and processes that something started and did not end."""

from __future__ import annotations

import os
import select
import threading
import time
from pathlib import Path
from typing import Final

_LOOK: Final = 0.02
"""Seconds between two looks at processes whose end nothing tells."""


class Leftovers:
    """Remembers which threads and descendant processes there are, to tell later what came on top.

    Processes are seen on Linux only; elsewhere only threads are.
    """

    def __init__(self) -> None:
        self._threads = set(threading.enumerate())
        self._processes = _descendants()
        self._watched: dict[int, int | None] = {}

    def watch(self) -> None:
        """Also remember the descendants that run now, which may outlive the process between them and this one."""
        for process in _descendants() - self._processes - self._watched.keys():
            try:
                self._watched[process] = os.pidfd_open(process)
            except ProcessLookupError:  # it has just ended
                pass
            except (AttributeError, OSError):  # an old kernel, or a Python built for one
                self._watched[process] = None

    def after(self, patience: float) -> list[str]:
        """Name what is still there when `patience` seconds have passed, at once if nothing is."""
        deadline = time.monotonic() + patience
        self.watch()
        left: list[str] = []
        for thread in set(threading.enumerate()) - self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                left.append(f"thread {thread.name}")
        for process, handle in self._watched.items():
            if not _ends(process, handle, deadline):
                left.append(f"process {process}: {_command(process)}")
        self._watched.clear()
        return left


def _ends(process: int, handle: int | None, deadline: float) -> bool:
    """Wait until a process has ended, or for `deadline`; whether it has. Closes the handle."""
    if handle is not None:
        ended = select.select([handle], [], [], max(0.0, deadline - time.monotonic()))[0]
        os.close(handle)
        return bool(ended)
    while (runs := _runs(process)) and time.monotonic() < deadline:
        time.sleep(_LOOK)
    return not runs


def _runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _descendants() -> set[int]:
    """Return the ids of all processes below this one."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):  # not "[0-9]*/stat": glob raises where a process ends meanwhile
        try:
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
        except OSError:  # it has just ended
            continue
        if state != "Z":
            children.setdefault(int(parent), []).append(int(folder.name))
    found: set[int] = set()
    todo = [os.getpid()]
    while todo:
        below = children.get(todo.pop(), [])
        found.update(below)
        todo += below
    return found


def _command(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_text().replace("\0", " ").strip()
    except OSError:
        return "ended"
