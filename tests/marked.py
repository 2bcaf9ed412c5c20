"""Find the processes that a test started, by a mark in their environment, and nobody else's."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

MARKER = "FLOWCORE_TEST_MARK"

GONE_WITHIN = 5.0
"""Seconds after which nothing may be left of a script, however it ended."""


def oldest_first(pids: Iterable[int]) -> list[int]:
    """Return the pids in the order in which their processes started; pids alone do not tell, they begin anew at 1."""
    return sorted(pids, key=lambda pid: (_started(pid), pid))


def _started(pid: int) -> int:
    """Return the clock tick in which a process started; 0 for one that has gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return 0


class Marked:
    """A mark for processes; those started with `environment` carry it, and so does what they start."""

    def __init__(self) -> None:
        self.mark = str(uuid.uuid4())
        self.environment = {**os.environ, MARKER: self.mark}

    def processes(self) -> dict[int, str]:
        """Return the command lines of the living processes with the mark, by pid; this process is none of them."""
        return {pid: line for pid, line in self._all() if pid != os.getpid()}

    def matching(self, word: str) -> list[int]:
        """Return the pids of those with the word in their command line, oldest first."""
        return oldest_first(pid for pid, line in self.processes().items() if word in line)

    def gone(self, within: float = GONE_WITHIN) -> dict[int, str]:
        """Wait until none is left, `within` seconds at most, as long as they would be on an idle machine.

        Return those that are. Pauses alone are counted: where there is more to do, looking takes long, and so does
        ending.
        """
        waited, pause = 0.0, 0.01
        while (left := self.processes()) and waited < within:
            time.sleep(pause)  # the end of a process that is no child of ours is no event that we could wait for
            waited += pause
            pause = min(2 * pause, 0.1)
        return left

    def _all(self) -> Iterator[tuple[int, str]]:
        mark = f"{MARKER}={self.mark}".encode()
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (process / "environ").read_bytes().split(b"\0"):
                    line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                    state = (process / "stat").read_text().rpartition(")")[2].split()[0]
                    if state != "Z":
                        yield int(process.name), line
