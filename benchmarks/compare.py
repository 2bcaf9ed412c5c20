"""Measure flowcore's HighThroughputExecutor beside Parsl's, in turn on this machine, and print the ratios.

Parsl is installed from PyPI into an environment of its own. Machines are noisy, so figures of one round are compared
with each other, and the medians over the rounds are what is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
ENVIRONMENTS = HERE / ".environments"
PARSL = "parsl==2026.10.26"
PATIENCE = 600.0

# measure -> (default number of tasks, figures, whether more is better)
MEASURES = {
    "throughput": (20_000, {"tasks_per_s": True, "submits_per_s": True, "cpu_us_per_task": False}),
    "latency": (300, {"p50_us": False, "p99_us": False}),
    "chain": (1_000, {"us_per_task": False}),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the rounds and print the table; 1 where a task was lost or a ratio that was asked for is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("measures", nargs="*", choices=[[], *MEASURES], help="all of them, if none is named")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tasks", type=int, help="instead of each measure's own number")
    parser.add_argument("--at-least", type=float, help="fail unless the first figure's ratio is this much")
    options = parser.parse_args(argv)
    pythons = {"flowcore": sys.executable, "parsl": str(environment("parsl", PARSL))}
    print(f"{'measure':<34}{'flowcore':>14}{'parsl':>14}{'ratio':>9}", flush=True)
    missed = False
    for measure in options.measures or MEASURES:
        tasks = options.tasks or MEASURES[measure][0]
        rounds = [
            {system: run(python, system, measure, tasks) for system, python in pythons.items()}
            for _ in range(options.rounds)
        ]
        lost = sum(figures.get("lost", 0) for both in rounds for figures in both.values())
        first = report(measure, tasks, rounds)
        missed |= bool(lost) or (options.at_least is not None and first < options.at_least)
        if lost:
            print(f"  {lost:.0f} tasks were lost")
    return int(missed)


def report(measure: str, tasks: int, rounds: list[dict[str, dict[str, float]]]) -> float:
    """Print a row for each figure; return the first one's ratio, above 1 where flowcore is better."""
    ratios = []
    for figure, more_is_better in [*MEASURES[measure][1].items(), ("first_result_s", False)]:
        ours = [both["flowcore"][figure] for both in rounds]
        theirs = [both["parsl"][figure] for both in rounds]
        pairs = [a / b if more_is_better else b / a for a, b in zip(ours, theirs, strict=True)]
        ratios.append(statistics.median(pairs))
        name = f"{measure} {tasks}: {figure}"
        print(
            f"{name:<34}{statistics.median(ours):>14,.5g}{statistics.median(theirs):>14,.5g}{ratios[-1]:>8.1f}x",
            flush=True,
        )
    return ratios[0]


def run(python: str, system: str, measure: str, tasks: int) -> dict[str, float]:
    """Run one workload in a process and a folder of its own."""
    path = os.pathsep.join([str(Path(python).parent), os.environ["PATH"]])
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [python, str(HERE / "workload.py"), system, measure, "--tasks", str(tasks)],
            cwd=folder,
            env={**os.environ, "PATH": path, "BENCHMARK_RUN": str(uuid.uuid4())},
            stdout=subprocess.PIPE,
            timeout=PATIENCE,
            check=True,
        )
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def environment(name: str, requirement: str) -> Path:
    """Return the Python of an environment with that requirement, made if it is not there."""
    python = ENVIRONMENTS / name / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(ENVIRONMENTS / name)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", requirement], check=True)
    return python


if __name__ == "__main__":
    sys.exit(main())
