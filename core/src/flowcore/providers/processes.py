"""Sessions of processes on this machine: who belongs to one, and how to end all of them."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from pathlib import Path
from typing import Final

KILL_BOUND: Final = 2.0
"""Seconds that the kernel has to end a process after SIGKILL."""

_LOOK: Final = 0.02
"""Seconds between two looks at processes whose end nothing tells."""


def session_members(session: int) -> list[int]:
    """Return the processes of a session that still run, its leader excepted.

    It reads /proc, and finds none where there is no /proc.
    """
    return [pid for pid in _process_ids() if pid != session and _session_of(pid) == session]


def end_session(session: int, first: int, grace: float) -> None:
    """End the members of a session, its leader excepted.

    Args:
        session: a session whose leader is a child of this process that has not been waited for, so that the
            number cannot mean another one by now.
        first: the signal that each is sent at once; 0 for none, where they have been told already.
        grace: seconds that they have before SIGKILL.
    """
    for number, bound in ((first, grace), (signal.SIGKILL, KILL_BOUND)):
        deadline = time.monotonic() + bound
        while members := session_members(session):
            if _has_descriptors():
                _signal_and_wait(session, members, number, deadline)
            else:
                _signal_and_look(session, members, number, deadline)
            if time.monotonic() >= deadline:
                break


def describe_exit(returncode: int) -> str | None:
    """Say in words how a process ended, None if it ended well; `returncode` is as `subprocess.Popen` has it."""
    if returncode == 0:
        return None
    if returncode < 0:
        return f"killed by {_signal_name(-returncode)}"
    if returncode > 128 and returncode - 128 in signal.valid_signals():  # as shells report it
        return f"its command was killed by {_signal_name(returncode - 128)}"
    reason = {126: ": a command cannot be executed", 127: ": a command is not there"}.get(returncode, "")
    return f"its script ended with exit code {returncode}{reason}"


def _signal_name(number: int) -> str:
    try:
        return f"signal {number} ({signal.Signals(number).name})"
    except ValueError:  # a real-time signal
        return f"signal {number}"


def _process_ids() -> list[int]:
    try:
        return [int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit()]
    except FileNotFoundError:
        return []


def _session_of(pid: int) -> int | None:
    """Return the session of a process that runs; None for one that has ended, a zombie included."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    state, session = fields[0], int(fields[3])
    return None if state in "ZX" else session


def _has_descriptors() -> bool:
    """Whether there are descriptors of processes: in Linux since 5.3, in a Python that was built with such headers."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return False
    return hasattr(signal, "pidfd_send_signal")


def _signal_and_wait(session: int, members: list[int], number: int, deadline: float) -> None:
    """Send a signal to each member, and wait until all have ended, or for `deadline`."""
    with contextlib.ExitStack() as stack:
        poll, left = select.poll(), 0
        for pid in members:
            with contextlib.suppress(ProcessLookupError):
                descriptor = os.pidfd_open(pid)  # unlike the number it never comes to mean another process
                stack.callback(os.close, descriptor)
                if _session_of(pid) == session:
                    signal.pidfd_send_signal(descriptor, number)
                    poll.register(descriptor, select.POLLIN)
                    left += 1
        while left and (seconds := deadline - time.monotonic()) > 0:
            for descriptor, _ in poll.poll(seconds * 1000):
                poll.unregister(descriptor)
                left -= 1


def _signal_and_look(session: int, members: list[int], number: int, deadline: float) -> None:
    """Do the same where there are no descriptors: nothing tells the end of somebody else's child but a look."""
    for pid in members:
        if _session_of(pid) == session:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
    while time.monotonic() < deadline and any(_session_of(pid) == session for pid in members):
        time.sleep(_LOOK)
