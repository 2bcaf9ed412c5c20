"""Measure flowcore beside its peers, in turn on this machine, and print a table.

Each system is installed from PyPI into an environment of its own in `.environments`. Machines are noisy, so the systems
take turns, the figures of one round are compared with each other, and medians over the rounds are what is printed.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import environments
import kill
import systems
from report import Report
from rows import ROWS, Row
from runner import HERE, Outcome, measure

BESIDE = "other"
_MODULES = {name: systems.load(name).module for name in systems.ORDER}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print; 1 where a result was lost, or wrong, or where `--strict` and something that has to be is not."""
    options = _options(argv)
    pythons = _pythons(options)
    report = Report(list(pythons))
    if options.quick:
        print("quick: few tasks and one round; these figures show that it works, not how fast it is")
    report.head()
    record: dict[str, Any] = {}
    lost = 0.0
    for row in ROWS:
        if (options.rows and row.name not in options.rows) or (options.quick and not row.quick):
            continue
        rounds = _rounds(row, pythons, options)
        record[row.name] = [{name: outcome._asdict() for name, outcome in one.items()} for one in rounds]
        lost += _print(report, row, rounds)
        if options.json:
            options.json.write_text(json.dumps(_finite(record), indent=1))
    if report.missed:
        print("\nmissed:", *report.missed, sep="\n  ")
    return int(lost > 0 or (options.strict and bool(report.missed)))


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    names = [row.name for row in ROWS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=_list_of(names), default=[], help=f"some of {','.join(names)}")
    parser.add_argument(
        "--systems", type=_list_of(systems.ORDER), default=list(systems.ORDER), help="some of the columns"
    )
    parser.add_argument("--rounds", type=int, default=3, help="turns that each system gets at most")
    parser.add_argument("--quick", action="store_true", help="one round with few tasks: does it all work?")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure of every round there")
    parser.add_argument("--strict", action="store_true", help="fail where something that has to be is missed")
    parser.add_argument("--here", action="store_true", help="measure the flowcore that is installed where this runs")
    parser.add_argument(
        "--checkout", type=Path, default=HERE.parent, metavar="FOLDER", help="where flowcore is taken from"
    )
    parser.add_argument("--beside", type=Path, metavar="FOLDER", help=f"another checkout, as the column {BESIDE!r}")
    return parser.parse_args(argv)


def _list_of(names: Sequence[str]) -> Any:
    def parse(text: str) -> list[str]:
        unknown = [name for name in text.split(",") if name not in names]
        if unknown:
            message = f"{unknown[0]!r} is none of {', '.join(names)}"
            raise argparse.ArgumentTypeError(message)
        return text.split(",")

    return parse


def _pythons(options: argparse.Namespace) -> dict[str, str]:
    """Return the columns, each with its Python."""
    found = {}
    for system in systems.ORDER:
        if system in options.systems:
            found[system] = _python(system, options)
        if system == "flowcore" and options.beside:
            found[BESIDE] = environments.python_of_checkout(options.beside.resolve())
    return found


def _python(system: str, options: argparse.Namespace) -> str:
    if system != "flowcore":
        return environments.python_for(system)
    return sys.executable if options.here else environments.python_of_checkout(options.checkout.resolve())


def _rounds(row: Row, pythons: dict[str, str], options: argparse.Namespace) -> list[dict[str, Outcome]]:
    rounds: list[dict[str, Outcome]] = []
    for _ in range(1 if options.quick else min(options.rounds, row.most_rounds)):
        one = {}
        for column, python in pythons.items():
            system = "flowcore" if column == BESIDE else column
            if not row.systems or system in row.systems:
                one[column] = _run(row, system, python, row.quick if options.quick else row.size)
        rounds.append(one)
    return rounds


def _run(row: Row, system: str, python: str, size: int) -> Outcome:
    if row.measure == "installed":
        return Outcome(environments.footprint(python), 0.0)
    if row.measure == "import":
        return measure([python, str(HERE / "importing.py"), _MODULES[system]], row.patience)
    command = [
        python,
        str(HERE / "workload.py"),
        system,
        row.measure,
        "--size",
        str(size),
        "--workers",
        str(row.workers),
    ]
    numpy = environments.numpy_folder() if row.measure == "eight_megabytes" else None
    return measure(command, row.patience, extra_path=numpy, watch=kill.watch if row.measure == "killed" else None)


def _print(report: Report, row: Row, rounds: list[dict[str, Outcome]]) -> float:
    """Print the lines of a row; return how many results were lost."""
    foreign = [max((outcome.foreign for outcome in one.values()), default=0.0) for one in rounds]
    for figure in row.figures:
        by_system = [
            {name: outcome.figures[figure.key] for name, outcome in one.items() if figure.key in outcome.figures}
            for one in rounds
        ]
        report.figure(figure, by_system, foreign)
    for one in rounds:
        for name, outcome in one.items():
            if outcome.why:
                report.note(f"{name}: {outcome.why}")
    lost = sum(outcome.figures.get("lost", 0.0) for one in rounds for outcome in one.values())
    if lost:
        report.note(f"{lost:.0f} results were lost, or wrong")
    return lost


def _finite(record: Any) -> Any:
    """Write infinity as None, which JSON knows."""
    if isinstance(record, dict):
        return {name: _finite(value) for name, value in record.items()}
    if isinstance(record, list):
        return [_finite(value) for value in record]
    return None if isinstance(record, float) and math.isinf(record) else record


if __name__ == "__main__":
    sys.exit(main())
