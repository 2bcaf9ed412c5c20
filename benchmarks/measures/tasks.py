"""What a task costs: alone, among many, and after others."""

from __future__ import annotations

import statistics
import time

from processes import cpu_seconds, own_run

from measures import Bench, Figures

_ROUND_TRIPS_BEFORE = 50


def throughput(bench: Bench) -> Figures:
    """Submit all tasks, then wait for all results; none may be missing."""
    before = cpu_seconds(own_run())
    started = time.perf_counter()
    handles = [bench.noop(number) for number in range(bench.size)]
    submitted = time.perf_counter() - started
    arrived = sum(result is None for result in bench.system.results(handles))
    elapsed = time.perf_counter() - started
    return {
        "lost": bench.size - arrived,
        "tasks_per_s": bench.size / elapsed,
        "submits_per_s": bench.size / submitted,
        "cpu_us_per_task": (cpu_seconds(own_run()) - before) / bench.size * 1e6,
    }


def latency(bench: Bench) -> Figures:
    """Wait for each task before the next one is submitted."""
    durations = [_round_trip(bench) for _ in range(_ROUND_TRIPS_BEFORE + bench.size)][_ROUND_TRIPS_BEFORE:]
    quantiles = statistics.quantiles(durations, n=100)
    return {"p50_us": quantiles[49] * 1e6, "p99_us": quantiles[98] * 1e6}


def _round_trip(bench: Bench) -> float:
    started = time.perf_counter()
    bench.system.results([bench.noop()])
    return time.perf_counter() - started


def chain(bench: Bench) -> Figures:
    """Let each task depend on the one before it."""
    started = time.perf_counter()
    handle = bench.noop()
    for _ in range(bench.size - 1):
        handle = bench.noop(handle)
    bench.system.results([handle])
    return {"us_per_task": (time.perf_counter() - started) / bench.size * 1e6}


def tree(bench: Bench) -> Figures:
    """Let tasks depend on two each, from so many leaves to one root."""
    started = time.perf_counter()
    level = [bench.noop() for _ in range(bench.size)]
    count = len(level)
    while len(level) > 1:
        level = [bench.noop(*level[start : start + 2]) for start in range(0, len(level), 2)]
        count += len(level)
    bench.system.results(level)
    return {"us_per_task": (time.perf_counter() - started) / count * 1e6}


def short(bench: Bench) -> Figures:
    """Have all workers take naps of 1 ms."""
    return _efficiency(bench, 0.001)


def medium(bench: Bench) -> Figures:
    """Have all workers take naps of 10 ms."""
    return _efficiency(bench, 0.01)


def long(bench: Bench) -> Figures:
    """Have all workers take naps of 100 ms."""
    return _efficiency(bench, 0.1)


def _efficiency(bench: Bench, seconds: float) -> Figures:
    """Return which part of the workers' time is spent in tasks; the clock makes naps a little longer than asked for."""
    bench.system.results([bench.nap(seconds) for _ in range(10 * bench.workers)])
    started = time.perf_counter()
    bench.system.results([bench.nap(seconds) for _ in range(bench.size)])
    elapsed = time.perf_counter() - started
    return {"efficiency": bench.size * seconds / bench.workers / elapsed}
