"""Daemons that belong to a test: they end with it, even when it is killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
BOUND = 60.0


class Daemon:
    """A process that stays in the foreground; its output goes to a file. The kernel ends it with this process."""

    def __init__(self, words: Sequence[str], output: Path, environment: dict[str, str] | None = None) -> None:
        setpriv = shutil.which("setpriv", path=PATH)
        leash = [setpriv, "--pdeathsig", "KILL"] if setpriv else []
        with output.open("ab") as stream:
            self._process = subprocess.Popen(
                [*leash, *words],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env={**(environment or os.environ), "PATH": PATH},
                start_new_session=True,
            )
        self.pid = self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def stop(self, first: signal.Signals = signal.SIGTERM) -> None:
        """End the process, by force if it does not end well within `BOUND` seconds."""
        self._process.send_signal(signal.SIGCONT)
        self._process.send_signal(first)
        try:
            self._process.wait(BOUND)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(BOUND)
