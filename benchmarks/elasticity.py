"""Draw how blocks follow a bursty load: `python benchmarks/elasticity.py [--slurm] [--output FILE.svg]`.

Each block has one worker. With `--slurm` the blocks are jobs of the cluster that Slurm's commands reach from here.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import attrs

import flowcore
from flowcore import Config, python_app
from flowcore.executors import HighThroughputExecutor
from flowcore.providers import LocalProvider, SlurmProvider

BURSTS = ((0.0, 9), (12.0, 3), (14.0, 12), (30.0, 1))
"""When how many tasks come, in seconds from the beginning."""

TASK_SECONDS = 1.0
MAX_BLOCKS = 3
IDLE_SECONDS = 2.0
SAMPLE = 0.05
OUTPUT = Path(__file__).parents[1] / "docs" / "images" / "elasticity.svg"


@attrs.frozen
class Course:
    """What happened: samples of (time, tasks, blocks waiting, blocks running), times of bursts and of submissions."""

    samples: list[tuple[float, int, int, int]]
    bursts: list[float]
    submissions: list[float]

    def delays(self) -> list[float]:
        """Return the seconds from each burst that found no block to the submission of one."""
        found = []
        for burst in self.bursts:
            before = [blocks + more for when, _, blocks, more in self.samples if when < burst]
            if not before or before[-1] == 0:
                found.append(min(when for when in self.submissions if when >= burst) - burst)
        return found


def main(argv: Sequence[str] | None = None) -> None:
    """Run the load and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slurm", action="store_true", help="blocks are jobs of Slurm")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args(argv)
    kind: Any = SlurmProvider if options.slurm else LocalProvider
    with tempfile.TemporaryDirectory(prefix="flowcore-elasticity-", dir=Path.cwd()) as folder:
        course = run(_noted(kind)(init_blocks=0, max_blocks=MAX_BLOCKS), folder)
    delays = course.delays()
    told = f"{kind.__name__}: from demand to submission {statistics.median(delays) * 1000:.0f} ms"
    print(told, "; all:", ", ".join(f"{delay * 1000:.0f}" for delay in delays))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(draw(course, told))


def run(provider: Any, folder: str) -> Course:
    """Put the bursts on an executor without blocks, until it has none again."""

    @python_app
    def work(seconds: float) -> None:
        import time

        time.sleep(seconds)

    executor = HighThroughputExecutor(max_workers=1, provider=provider)
    config = Config(
        executors=[executor], strategy="htex_auto_scale", strategy_period=0.5, max_idletime=IDLE_SECONDS, run_dir=folder
    )
    with flowcore.load(config):
        began = time.monotonic()
        course = Course([], [], [])
        pause = threading.Event()
        todo = list(BURSTS)
        while todo or executor.outstanding() or _blocks(executor) != (0, 0):
            now = time.monotonic() - began
            course.samples.append((now, executor.outstanding(), *_blocks(executor)))
            if todo and now >= todo[0][0]:
                course.bursts.append(time.monotonic() - began)
                for _ in range(todo.pop(0)[1]):
                    work(TASK_SECONDS)
            pause.wait(SAMPLE)
        course.samples.append((time.monotonic() - began, 0, 0, 0))
    course.submissions[:] = [when - began for when in provider.asked]
    return course


def _noted(kind: Any) -> Any:
    """Return a class of the same kind whose objects note when they are asked for blocks."""

    class Noted(kind):  # type: ignore[misc]
        asked: list[float] = []  # noqa: RUF012 - there is one object

        @property
        def label(self) -> str:
            return str(kind.__name__.removesuffix("Provider").lower())

        def submit(self, *args: Any) -> str:
            self.asked.append(time.monotonic())
            return str(super().submit(*args))

    return Noted


def _blocks(executor: HighThroughputExecutor) -> tuple[int, int]:
    """Count the blocks that have no worker yet, and those that have."""
    live = [block for block, status in executor.status().items() if not status.terminal]
    ready = set(executor.connected_blocks())
    return sum(block not in ready for block in live), sum(block in ready for block in live)


WIDTH, HEIGHT, LEFT, TOP, APART = 760, 130, 60, 50, 50
TASKS, WAITING, RUNNING = "#c2571a", "#9ec5fe", "#1f6feb"


def draw(course: Course, title: str) -> str:
    """Return the picture: tasks above, blocks below, over time."""
    end = course.samples[-1][0]
    most = max(tasks for _, tasks, _, _ in course.samples)
    lower = TOP + HEIGHT + APART
    bottom = lower + HEIGHT
    times = [sample[0] for sample in course.samples]
    width, height = LEFT + WIDTH + 30, bottom + 70
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"',
        '  font-family="sans-serif" font-size="13">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{LEFT}" y="24" font-weight="bold">{escape(title)}</text>',
        *_axis(TOP, most, max(1, most // 4), "tasks"),
        *_axis(lower, MAX_BLOCKS, 1, "blocks"),
        _area(times, [sample[1] for sample in course.samples], TOP, most, end, TASKS),
        _area(times, [sample[2] + sample[3] for sample in course.samples], lower, MAX_BLOCKS, end, WAITING),
        _area(times, [sample[3] for sample in course.samples], lower, MAX_BLOCKS, end, RUNNING),
    ]
    for seconds in range(0, int(end) + 1, 5):
        x = LEFT + WIDTH * seconds / end
        parts.append(f'<line x1="{x:.1f}" y1="{bottom}" x2="{x:.1f}" y2="{bottom + 5}" stroke="black"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 20}" text-anchor="middle">{seconds} s</text>')
    legend = ((TASKS, "tasks not done"), (WAITING, "blocks submitted"), (RUNNING, "blocks with a worker"))
    for number, (color, words) in enumerate(legend):
        x = LEFT + 200 * number
        parts.append(f'<rect x="{x}" y="{bottom + 38}" width="14" height="14" fill="{color}"/>')
        parts.append(f'<text x="{x + 20}" y="{bottom + 50}">{words}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _axis(top: int, most: int, step: int, name: str) -> list[str]:
    parts = [f'<text x="{LEFT}" y="{top - 8}" fill="#555555">{name}</text>']
    for number in range(0, most + 1, step):
        y = top + HEIGHT - HEIGHT * number / most
        parts.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{LEFT + WIDTH}" y2="{y:.1f}" stroke="#dddddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{number}</text>')
    return parts


def _area(times: Sequence[float], values: Sequence[int], top: int, most: int, end: float, color: str) -> str:
    """Return the filled area under a step function."""
    base = top + HEIGHT
    points = [(LEFT, float(base))]
    last = 0
    for when, value in zip(times, values, strict=True):
        if value != last:
            x = LEFT + WIDTH * when / end
            points += [(x, base - HEIGHT * last / most), (x, base - HEIGHT * value / most)]
            last = value
    points.append((LEFT + WIDTH, float(base)))
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polygon points="{path}" fill="{color}"/>'


if __name__ == "__main__":
    main()
