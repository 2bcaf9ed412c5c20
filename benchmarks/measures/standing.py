"""What a system takes by being there: started, idle, full of waiting tasks, killed."""

from __future__ import annotations

import json
import os
import time
from typing import NoReturn

from processes import cpu_seconds, megabytes, own_run, resident_bytes, wake_ups

from measures import Bench, Figures

_SETTLE = 3.0
_BLOCKED = 600.0


def start(_: Bench) -> Figures:
    """Have started: when the first result came is told for every measure."""
    return {}


def memory(bench: Bench) -> NoReturn:
    """Submit tasks while all workers are busy, and see what the user's process grows by."""
    for _ in range(bench.workers):
        bench.nap(_BLOCKED)
    before = resident_bytes()
    handles = [bench.noop() for _ in range(bench.size)]
    report({"bytes_per_task": (resident_bytes() - before) / len(handles)})
    os._exit(0)  # what is left is the runner's to end


def idle(bench: Bench) -> Figures:
    """Do nothing for so many seconds, after some work and a while to settle."""
    bench.system.results([bench.noop() for _ in range(100)])
    time.sleep(_SETTLE)
    pids = own_run()
    wakes, cpu, started = wake_ups(pids), cpu_seconds(pids), time.perf_counter()
    time.sleep(bench.size)
    elapsed = time.perf_counter() - started
    cpu = cpu_seconds(reversed(pids)) - cpu  # this process first: reading is work, too
    wakes = wake_ups(pids) - wakes
    return {"cpu_ms_per_s": cpu * 1e3 / elapsed, "wakes_per_s": wakes / elapsed, "mb": megabytes(pids)}


def scale(bench: Bench) -> Figures:
    """Wait until every worker has run something, then keep all of them busy with naps of 100 ms."""
    seen: set[int] = set()
    while len(seen) < bench.workers:
        seen.update(bench.system.results([bench.nap(0.1) for _ in range(bench.workers)]))
    up = time.monotonic()
    started = time.perf_counter()
    bench.system.results([bench.nap(0.1) for _ in range(bench.size)])
    elapsed = time.perf_counter() - started
    figures = {"all_up_at": up, "efficiency": bench.size * 0.1 / bench.workers / elapsed}
    return {**figures, "mb": megabytes(own_run())}


def killed(bench: Bench) -> NoReturn:
    """Keep the workers busy, and wait for the end."""
    for _ in range(bench.workers):
        bench.nap(_BLOCKED)
    report({})
    time.sleep(_BLOCKED)
    os._exit(1)


def report(figures: Figures) -> None:
    """Tell the runner."""
    print(json.dumps(figures), flush=True)
