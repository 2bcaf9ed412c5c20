"""What a figure has to reach: so many times another system's, or a number."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

Rounds = Sequence[dict[str, float]]
"""One figure by system, for each round."""


class Times(NamedTuple):
    """So many times better than another system, by the median of the rounds' ratios."""

    factor: float
    system: str = "parsl"

    def met(self, rounds: Rounds, *, more: bool) -> bool | None:
        """Whether it is reached; None where it cannot be told."""
        found = ratio(rounds, self.system, more=more)
        return None if found is None else found >= self.factor

    def __str__(self) -> str:
        return f"{self.factor:g} x {self.system}" if self.factor != 1 else f"ahead of {self.system}"


class Reach(NamedTuple):
    """A number, which the median of the rounds reaches."""

    value: float

    def met(self, rounds: Rounds, *, more: bool) -> bool | None:
        """See `Times`."""
        ours = [figures["flowcore"] for figures in rounds if "flowcore" in figures]
        if not ours:
            return None
        median = statistics.median(ours)
        return median >= self.value if more else median <= self.value

    def __str__(self) -> str:
        return f"{self.value:,g}"


Bound = Times | Reach


def ratio(rounds: Rounds, system: str, *, more: bool) -> float | None:
    """Return how many times better flowcore is than a system: the median over the rounds that have both."""
    pairs = [(figures["flowcore"], figures[system]) for figures in rounds if {"flowcore", system} <= figures.keys()]
    found = [_times(ours, theirs) if more else _times(theirs, ours) for ours, theirs in pairs]
    return statistics.median(found) if found else None


def _times(numerator: float, denominator: float) -> float:
    if denominator == 0:
        return 1.0 if numerator == 0 else float("inf")
    return numerator / denominator
