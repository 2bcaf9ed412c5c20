"""One measurement of one system in this process; prints a JSON object. `compare.py` runs it."""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import systems
from measures import Bench, Measure, payload, standing, tasks

MEASURES: dict[str, Measure] = {
    "throughput": tasks.throughput,
    "latency": tasks.latency,
    "chain": tasks.chain,
    "tree": tasks.tree,
    "short": tasks.short,
    "medium": tasks.medium,
    "long": tasks.long,
    "one_megabyte": payload.one_megabyte,
    "eight_megabytes": payload.eight_megabytes,
    "start": standing.start,
    "memory": standing.memory,
    "idle": standing.idle,
    "scale": standing.scale,
    "killed": standing.killed,
}
NEED_DEPENDENCIES = ("chain", "tree")


def main() -> None:
    """Start the system, get one result, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("system", choices=systems.ORDER)
    parser.add_argument("measure", choices=sorted(MEASURES))
    parser.add_argument("--size", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()

    system = systems.load(options.system)
    if options.measure in NEED_DEPENDENCIES and not system.dependencies:
        print("{}")
        return
    system.start(options.workers)
    noop = system.app(_noop)
    system.results([noop()])
    first = time.monotonic()
    bench = Bench(system, options.workers, options.size, noop, system.app(_echo), system.app(_nap))
    figures = MEASURES[options.measure](bench)
    print(json.dumps({**figures, "first_at": first}), flush=True)
    system.stop()


# In the script itself, where users have their functions.


def _noop(*_: Any) -> None:
    return None


def _echo(data: Any) -> Any:
    return data


def _nap(seconds: float) -> int:
    import os
    import time

    time.sleep(seconds)
    return os.getpid()


if __name__ == "__main__":
    main()
