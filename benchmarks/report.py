"""The table as text, a line at a time."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from bounds import Bound, Rounds, ratio
from rows import Figure

_LABEL = 36
_CELL = 9
_GOAL = 32


class Report:
    """Prints lines of a table with a column for each system.

    Args:
        systems: the columns.
    """

    def __init__(self, systems: Sequence[str]) -> None:
        self._systems = systems
        self.missed: list[str] = []
        """What did not reach what it has to."""

    def head(self) -> None:
        """Print the names of the columns."""
        ratios = [f"x {name}" for name in self._ratios()]
        self._line("measure", [*self._systems, *ratios], "has to", "the aim", "foreign")
        self._line("-" * _LABEL, ["-" * _CELL] * (len(self._systems) + len(ratios)), "-" * _GOAL, "-" * _GOAL, "-" * 7)

    def figure(self, figure: Figure, rounds: Rounds, foreign: Sequence[float]) -> None:
        """Print one line: medians, ratios, what is met, and which share of the machine others had in each round."""
        cells = [self._median(rounds, system) for system in self._systems]
        cells += [number(ratio(rounds, system, more=figure.more)) for system in self._ratios()]
        has_to = self._verdict(figure, figure.has_to, rounds)
        if "MISSED" in has_to:
            self.missed.append(f"{figure.label.strip()}: {has_to}")
        others = "/".join(f"{100 * share:.0f}" for share in foreign) + " %" if foreign else ""
        self._line(figure.label, cells, has_to, self._verdict(figure, figure.aim, rounds), others)

    def note(self, text: str) -> None:
        """Print a remark below a line."""
        print(f"  {text}", flush=True)

    def _ratios(self) -> list[str]:
        return [system for system in ("parsl", "ppe") if system in self._systems and "flowcore" in self._systems]

    def _median(self, rounds: Rounds, system: str) -> str:
        values = [figures[system] for figures in rounds if system in figures]
        return number(statistics.median(values) if values else None)

    def _verdict(self, figure: Figure, bounds: Sequence[Bound], rounds: Rounds) -> str:
        words = []
        for bound in bounds:
            met = bound.met(rounds, more=figure.more)
            words.append(f"{bound} {'?' if met is None else 'met' if met else 'MISSED'}")
        return ", ".join(words)

    def _line(self, label: str, cells: Sequence[str], has_to: str, aim: str, foreign: str) -> None:
        columns = [f"{label:<{_LABEL}}", *[f"{cell:>{_CELL}}" for cell in cells]]
        print(
            "| " + " | ".join([*columns, f"{has_to:<{_GOAL}}", f"{aim:<{_GOAL}}", f"{foreign:<7}"]) + " |", flush=True
        )


def number(value: float | None) -> str:
    """Write a number with three digits that count."""
    if value is None:
        return "-"
    if math.isinf(value):
        return "never"
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
