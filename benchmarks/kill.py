"""What is left of a run whose script was killed, and for how long."""

from __future__ import annotations

import subprocess
import time

from processes import kill
from runner import Run

_WATCHED = 60.0
_GRACE = 10.0
_STEP = 0.05


def watch(run: Run, patience: float = 240.0) -> dict[str, float]:
    """Wait until the script says that it is busy, kill it, and count; infinity stands for longer than was waited."""
    deadline = time.monotonic() + patience
    while run.said() is None:
        if time.monotonic() > deadline or run.process.poll() is not None:
            raise subprocess.TimeoutExpired("the start of a script that is to be killed", patience)
        time.sleep(_STEP)
    time.sleep(1)  # the tasks are running by now
    before = len(run.processes()) - 1
    kill([run.process.pid])
    run.process.wait()
    killed = time.monotonic()
    gone, left = float("inf"), -1
    while (elapsed := time.monotonic() - killed) < _WATCHED:
        alive = len(run.processes())
        if elapsed >= _GRACE and left < 0:
            left = alive
        if not alive:
            gone, left = elapsed, max(left, 0)
            break
        time.sleep(_STEP)
    return {"before": before, "left": left, "gone_s": gone}
