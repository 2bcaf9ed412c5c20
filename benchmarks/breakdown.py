"""Where flowcore's own processor time per task goes: each thread of each process of a run with two workers."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from processes import thread_seconds
from systems import load

_KINDS = ("interchange", "manager", "zygote")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one-by-one", action="store_true", help="wait for each task before the next is submitted")
    options = parser.parse_args(argv)
    system = load("flowcore")
    system.start(2)
    noop = system.app(_noop)
    system.results([noop(number) for number in range(1000)])
    for _ in range(options.rounds):
        before, started = _by_thread(), time.perf_counter()
        if options.one_by_one:
            for number in range(options.tasks):
                noop(number).result()
        else:
            system.results([noop(number) for number in range(options.tasks)])
        elapsed = time.perf_counter() - started
        used = _by_thread() - before
        cells = [f"{name} {used[name] / options.tasks / 1e3:.1f}" for name in sorted(used)]
        print(
            f"{options.tasks / elapsed:,.0f} tasks/s, µs per task: {used.total() / options.tasks / 1e3:.1f};",
            *cells,
            sep="  ",
        )
    system.stop()
    return 0


def _by_thread() -> Counter[str]:
    """Return the processor time of every thread, those of the same role together."""
    found: Counter[str] = Counter()  # of nanoseconds
    todo = [os.getpid()]
    while todo:
        pid = todo.pop()
        role = _role(pid)
        for name, seconds in thread_seconds(pid).items():
            found[role if name == "main" else f"{role}/{name}"] += round(seconds * 1e9)
        todo += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return found


def _role(pid: int) -> str:
    if pid == os.getpid():
        return "client"
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    kind = next((kind for kind in _KINDS for word in words if word.endswith(kind)), "other")
    if kind == "zygote" and _is_worker(pid):
        return "workers"
    return kind


def _is_worker(pid: int) -> bool:
    """Whether a zygote's process is one that it forked: its parent is a zygote, too."""
    parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
    return b"flowcore_htex.zygote" in Path(f"/proc/{parent}/cmdline").read_bytes()


def _noop(_: int) -> None:
    return None


if __name__ == "__main__":
    sys.exit(main())
