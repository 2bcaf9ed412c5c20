"""Waiting for the end of a process that this one has started."""

from __future__ import annotations

import contextlib
import os
import subprocess


def await_exit(process: subprocess.Popen[bytes]) -> None:
    """Wait until the process has ended; where the system allows it, its number stays its own until `process.wait`."""
    if hasattr(os, "waitid"):
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    else:  # macOS before Python 3.13
        process.wait()
