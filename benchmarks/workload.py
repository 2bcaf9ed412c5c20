"""One measurement of one system in this process; prints a JSON object. `compare.py` runs it, in turn for each system.

It is written once for flowcore and Parsl, which share the names that it uses.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Figures = dict[str, float]
TICKS = os.sysconf("SC_CLK_TCK")
MARKER = "BENCHMARK_RUN"
"""Set by `compare.py`, different for every measurement."""


def main() -> None:
    """Load a configuration with worker processes, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("system", choices=["flowcore", "parsl"])
    parser.add_argument("measure", choices=sorted(MEASURES))
    parser.add_argument("--tasks", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()

    started = time.perf_counter()
    system = importlib.import_module(options.system)
    system.load(configuration(options.system, options.workers))
    noop = system.python_app(_noop)
    noop().result()
    first = time.perf_counter() - started
    figures = MEASURES[options.measure](noop, options.tasks)
    system.dfk().cleanup()
    print(json.dumps({**figures, "first_result_s": first}))


def configuration(package: str, workers: int) -> Any:
    """Return a configuration with one block of `workers` processes on this machine, everything else as it comes."""
    executors = importlib.import_module(f"{package}.executors")
    providers = importlib.import_module(f"{package}.providers")
    provider = providers.LocalProvider(init_blocks=1, max_blocks=1)
    executor = executors.HighThroughputExecutor(max_workers_per_node=workers, provider=provider)
    return importlib.import_module(f"{package}.config").Config(executors=[executor])


def _noop(*_: Any) -> None:
    return None


def throughput(noop: Callable[..., Any], tasks: int) -> Figures:
    """Submit all tasks, then wait for all results; none may be missing."""
    before, started = _cpu_seconds(), time.perf_counter()
    futures = [noop(number) for number in range(tasks)]
    submitted = time.perf_counter() - started
    arrived = sum(future.result() is None for future in futures)
    elapsed = time.perf_counter() - started
    return {
        "lost": tasks - arrived,
        "tasks_per_s": tasks / elapsed,
        "submits_per_s": tasks / submitted,
        "cpu_us_per_task": (_cpu_seconds() - before) / tasks * 1e6,
    }


def latency(noop: Callable[..., Any], tasks: int) -> Figures:
    """Wait for each task before the next one is submitted."""
    durations = []
    for number in range(tasks):
        started = time.perf_counter()
        noop(number).result()
        durations.append((time.perf_counter() - started) * 1e6)
    quantiles = statistics.quantiles(durations, n=100)
    return {"p50_us": quantiles[49], "p99_us": quantiles[98]}


def chain(noop: Callable[..., Any], tasks: int) -> Figures:
    """Let each task depend on the one before it."""
    started = time.perf_counter()
    future = noop()
    for _ in range(tasks - 1):
        future = noop(future)
    future.result()
    return {"us_per_task": (time.perf_counter() - started) / tasks * 1e6}


def _cpu_seconds() -> float:
    """Sum the processor time of all processes of this measurement, found by the mark in their environment."""
    return sum(_own_seconds(process) for process in _marked())


def _own_seconds(process: Path) -> float:
    fields = (process / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _marked() -> Iterator[Path]:
    mark = f"{MARKER}={os.environ[MARKER]}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "environ").read_bytes().split(b"\0"):
                yield process
        except OSError:
            continue  # it is another user's, or has just ended


MEASURES = {"throughput": throughput, "latency": latency, "chain": chain}

if __name__ == "__main__":
    main()
