"""Parents and children among processes: who descends from whom, who inherits orphans, who dies with its parent."""
# ruff: noqa: PTH123, PTH208 - these processes have to start fast, and pathlib is slow to import

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Mapping, Sequence
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_libc = ctypes.CDLL(None)


def adopt_orphans(yes: bool) -> None:
    """Become the parent of all descendants that lose theirs, or leave that to others; see PR_SET_CHILD_SUBREAPER."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, int(yes))


def die_with_parent() -> None:
    """Be killed when the thread that forked this process ends; see PR_SET_PDEATHSIG."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def families() -> dict[int, list[int]]:
    """Return the living children of every process that has any; costs some 15 µs for each process of the node."""
    parents: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as stream:
                    fields = stream.read().rpartition(b")")[2].split()
            except OSError:
                continue
            if fields[0] != b"Z":
                parents.setdefault(int(fields[1]), []).append(int(name))
    return parents


def descendants(pid: int, parents: Mapping[int, Sequence[int]] | None = None) -> list[int]:
    """Return all living descendants of a process, children before grandchildren.

    Args:
        pid: the process.
        parents: what `families` has returned, for who asks for more than one process; by default it is called.
    """
    if parents is None:
        parents = families()
    found = list(parents.get(pid, ()))
    for one in found:  # grows while it is read
        found += parents.get(one, ())
    return found


def sweep(bound: float) -> None:
    """Kill all descendants of this process, and wait for their end, `bound` seconds at most."""
    deadline = time.monotonic() + bound
    while (left := descendants(os.getpid())) and time.monotonic() < deadline:
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                continue
        _reap()


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
