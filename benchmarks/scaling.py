"""How the interchange scales: tasks/s and processor time per task with 1 to 1,000 managers; writes a plot.

The user's process, the interchange, and the connections, encrypted over TCP, are real; the managers share a few
processes, and have no workers (`fake_managers.py`).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import plot
from fake_managers import WAYS
from processes import cpu_seconds, megabytes, thread_seconds

from flowcore.executors import HighThroughputExecutor
from flowcore.executors.base import RunContext
from flowcore.providers import LocalProvider

HERE = Path(__file__).resolve().parent
COUNTS = (1, 10, 100, 1000)
_PROCESSES = 4
"""How many processes the managers share."""

_PACE = 2000.0
"""Tasks per second at which paced managers answer, however many there are."""

_DESCRIPTORS = 20_000
_PATIENCE = 300.0


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--managers", type=int, nargs="+", default=list(COUNTS))
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument(
        "--paced-tasks", type=int, default=20_000, help="for paced managers, beyond one for each worker"
    )
    parser.add_argument("--workers", type=int, default=16, help="of each manager")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="an SVG file")
    options = parser.parse_args(argv)
    print(f"descriptors allowed: {_allow_descriptors()}")
    columns = (
        "answers",
        "managers",
        "tasks_per_s",
        "broker_us",
        "io_us",
        "client_us",
        "fakes_us",
        "join_s",
        "join_ms",
        "mb",
    )
    print(*[f"{name:>12}" for name in columns])
    found = []
    for count in options.managers:
        for way in WAYS:
            for _ in range(options.rounds):
                tasks = count * options.workers + options.paced_tasks if way == "paced" else options.tasks
                found.append(measure(count, options.workers, tasks, way))
                print(*[f"{_text(found[-1][name]):>12}" for name in columns], flush=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))
    if options.plot:
        options.plot.parent.mkdir(parents=True, exist_ok=True)
        options.plot.write_text(plot.scaling(found), encoding="utf-8")
    return 0


def measure(count: int, workers: int, tasks: int, way: str) -> dict[str, Any]:
    """Run so many tasks over so many managers; returns figures by name.

    broker_us, io_us: processor time per task of the interchange's loop, and of its encryption and sockets.
    client_us, fakes_us: the same of the user's process and of all the fake managers.
    join_s, join_ms: seconds until all managers had registered, and processor time of the interchange for each.
    """
    with tempfile.TemporaryDirectory() as folder, _executor(Path(folder)) as executor:
        broker = _broker()
        before, started = cpu_seconds([broker]), time.monotonic()
        fakes = _start_managers(executor, Path(folder), count, workers, way, count * workers / _PACE)
        try:
            _wait_for(executor, count)
            figures: dict[str, Any] = {"answers": way, "managers": count}
            figures["join_s"] = time.monotonic() - started
            figures["join_ms"] = (cpu_seconds([broker]) - before) / count * 1e3
            figures |= _work(executor, broker, [fake.pid for fake in fakes], tasks)
            figures["mb"] = megabytes([broker])
        finally:
            for fake in fakes:
                assert fake.stdin is not None
                fake.stdin.close()
                fake.wait()
    return figures


def _work(executor: HighThroughputExecutor, broker: int, fakes: list[int], tasks: int) -> dict[str, float]:
    me = os.getpid()
    before = {**thread_seconds(broker), "client": cpu_seconds([me]), "fakes": cpu_seconds(fakes)}
    started = time.perf_counter()
    futures = [executor.submit(_noop, {}, number) for number in range(tasks)]
    for future in futures:
        future.result(_PATIENCE)
    elapsed = time.perf_counter() - started
    after = {**thread_seconds(broker), "client": cpu_seconds([me]), "fakes": cpu_seconds(fakes)}
    used = {name: (after[name] - before.get(name, 0.0)) / tasks * 1e6 for name in after}
    loop = used.pop("main")
    client, fake = used.pop("client"), used.pop("fakes")
    io = sum(used.values())
    return {"tasks_per_s": tasks / elapsed, "broker_us": loop, "io_us": io, "client_us": client, "fakes_us": fake}


@contextmanager
def _executor(folder: Path) -> Iterator[HighThroughputExecutor]:
    """Give an executor that has an interchange, and no block."""
    executor = HighThroughputExecutor(address="127.0.0.1", provider=LocalProvider(init_blocks=0))
    executor.start(RunContext(run_id="scaling", run_dir=folder, log_level=None))
    try:
        yield executor
    finally:
        executor.shutdown()


def _start_managers(
    executor: HighThroughputExecutor, folder: Path, count: int, workers: int, way: str, seconds: float
) -> list[subprocess.Popen[bytes]]:
    settings = folder / "settings.json"
    settings.write_text(json.dumps(executor._settings), encoding="utf-8")
    command = [sys.executable, str(HERE / "fake_managers.py"), str(settings)]
    share = -(-count // _PROCESSES)
    parts = [(first, min(share, count - first)) for first in range(0, count, share)]
    return [
        subprocess.Popen([*command, str(first), str(part), str(workers), way, str(seconds)], stdin=subprocess.PIPE)
        for first, part in parts
    ]


def _wait_for(executor: HighThroughputExecutor, count: int) -> None:
    deadline = time.monotonic() + _PATIENCE
    while len(executor.connected_blocks()) < count:
        if time.monotonic() > deadline:
            sys.exit(f"{len(executor.connected_blocks())} of {count} managers registered within {_PATIENCE:.0f} s")
        time.sleep(0.01)


def _broker() -> int:
    """Return the process id of the interchange: this process' only child."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return int(children[-1])


def _allow_descriptors() -> int:
    """Raise the soft limit on open files, for this process and those it starts: a manager is one at the interchange."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(_DESCRIPTORS, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    return max(soft, wanted)


def _noop(_: int) -> None:
    return None


def _text(value: Any) -> str:
    return (
        f"{value:,.3g}"
        if isinstance(value, float) and value < 100
        else f"{value:,.0f}"
        if isinstance(value, float)
        else str(value)
    )


if __name__ == "__main__":
    sys.exit(main())
