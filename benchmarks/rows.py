"""The table: what is measured, with how many tasks, and what has to come of it."""

from __future__ import annotations

from dataclasses import dataclass

from bounds import Bound, Reach, Times

FEW = ("flowcore", "parsl", "loky", "ppe")
"""Those that start hundreds of workers on a small machine."""


@dataclass(frozen=True)
class Figure:
    """One line of the table."""

    key: str
    label: str
    more: bool = False
    """Whether more is better."""

    has_to: tuple[Bound, ...] = ()
    aim: tuple[Bound, ...] = ()


@dataclass(frozen=True)
class Row:
    """One measurement, which gives one or more lines."""

    name: str
    measure: str
    figures: tuple[Figure, ...]
    size: int = 0
    quick: int = 0
    """The size in quick mode; 0 leaves the row out there."""

    workers: int = 2
    patience: float = 240.0
    most_rounds: int = 100
    systems: tuple[str, ...] = ()
    """Which systems are tried; empty for all."""


_CPU = Figure("cpu_us_per_task", "  CPU of all processes, µs per task", has_to=(Reach(200),), aim=(Reach(60),))
_SUBMITS = Figure("submits_per_s", "  calls accepted per s", more=True, has_to=(Reach(20_000),), aim=(Reach(50_000),))


def _throughput(count: int) -> Figure:
    return Figure(
        "tasks_per_s",
        f"{count:,} no-op tasks, per s",
        more=True,
        has_to=(Times(10),),
        aim=(Times(30), Times(1, "ppe")),
    )


def _efficiency(text: str, has_to: float | None = None, aim: float | None = None) -> Figure:
    bounds = [() if value is None else (Reach(value),) for value in (has_to, aim)]
    return Figure("efficiency", f"efficiency of {text} naps", more=True, has_to=bounds[0], aim=bounds[1])


ROWS = (
    Row("tasks", "throughput", (_throughput(10_000), _SUBMITS, _CPU), 10_000, 500),
    Row("many-tasks", "throughput", (_throughput(50_000), _SUBMITS, _CPU), 50_000, most_rounds=2),
    Row(
        "latency",
        "latency",
        (
            Figure("p50_us", "one task, µs, p50", has_to=(Times(5),), aim=(Times(10),)),
            Figure("p99_us", "one task, µs, p99", has_to=(Times(4),), aim=(Times(8),)),
        ),
        1000,
        100,
    ),
    Row(
        "chain",
        "chain",
        (Figure("us_per_task", "chain of 1,000, µs per task", False, (Times(5),), (Times(8),)),),
        1000,
        50,
    ),
    Row(
        "tree",
        "tree",
        (Figure("us_per_task", "4,096 leaves, µs per task", False, (Times(10),), (Times(20),)),),
        4096,
        64,
    ),
    Row(
        "1mb",
        "one_megabyte",
        (Figure("mb_per_s", "1 MB there and back, MB/s", True, (Times(5),), (Times(10),)),),
        200,
        10,
    ),
    Row("8mb", "eight_megabytes", (Figure("mb_per_s", "8 MB of numpy, MB/s", True, (Times(8),), (Times(15),)),), 50, 4),
    Row(
        "memory",
        "memory",
        (Figure("bytes_per_task", "bytes per pending task", False, (Reach(2200),), (Reach(1500),)),),
        10_000,
        1000,
    ),
    Row("start", "start", (Figure("first_s", "first result, s", False, (Reach(0.8),), (Reach(0.4),)),), 1, 1),
    Row(
        "import",
        "import",
        (Figure("import_ms", "import, ms", False, (Reach(60),), (Reach(30),)), Figure("modules", "  modules")),
        1,
        1,
    ),
    Row(
        "idle",
        "idle",
        (
            Figure("cpu_ms_per_s", "idle: CPU ms per s", False, (Reach(2),), (Reach(0.5),)),
            Figure("wakes_per_s", "  wake-ups per s", False, (Reach(10),), (Reach(2),)),
            Figure("mb", "  memory, MB", False, (Reach(90),), (Reach(60),)),
        ),
        10,
        1,
    ),
    Row("1ms", "short", (_efficiency("1 ms", 0.75, 0.9),), 4000, 200),
    Row("10ms", "medium", (_efficiency("10 ms"),), 400, 40),
    Row("100ms", "long", (_efficiency("100 ms", 0.97),), 60, 6),
    Row(
        "64-workers",
        "scale",
        (
            Figure("all_up_s", "64 workers: all up after s", False, (Reach(6),), (Reach(2),)),
            _efficiency("  100 ms", 0.95, 0.98),
            Figure("mb", "  memory, MB"),
        ),
        64 * 20,
        workers=64,
        most_rounds=1,
        systems=("flowcore", "parsl", "ray", "loky", "ppe"),
    ),
    Row(
        "256-workers",
        "scale",
        (
            Figure("all_up_s", "256 workers: all up after s", False, (Reach(20),), (Reach(5),)),
            _efficiency("  100 ms", 0.85, 0.95),
            Figure("mb", "  memory, MB", aim=(Reach(1000),)),
        ),
        256 * 20,
        workers=256,
        patience=400,
        most_rounds=1,
        systems=FEW,
    ),
    Row(
        "kill",
        "killed",
        (
            Figure("left", "left 10 s after SIGKILL", False, (Reach(0),), (Reach(0),)),
            Figure("gone_s", "  all gone after s", False, (Reach(10),), (Reach(1),)),
        ),
        1,
        1,
        most_rounds=1,
    ),
    Row(
        "installed",
        "installed",
        (
            Figure("packages", "installed: packages", False, (Reach(8),), (Reach(6),)),
            Figure("mb", "  MB", False, (Reach(12),), (Reach(8),)),
        ),
        1,
        1,
        most_rounds=1,
    ),
)
