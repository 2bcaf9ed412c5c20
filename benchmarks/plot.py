"""Plots as SVG, by hand."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any
from xml.sax.saxutils import escape

_WIDTH, _HEIGHT = 380, 250
_LEFT, _TOP = 70, 50
_APART = 110
_COLORS = {"together": "#1f6feb", "one-by-one": "#c2571a", "paced": "#2e8b57"}
_NAMES = {
    "together": "outcomes in batches",
    "one-by-one": "outcomes one by one",
    "paced": "one by one, at a steady 2,000 per second",
}

Points = list[tuple[float, float]]


def scaling(found: Sequence[dict[str, Any]]) -> str:
    """Draw what `scaling.py` measured: tasks/s, and processor time of the interchange per task, over managers."""
    rate = _lines([one for one in found if one["answers"] != "paced"], lambda one: one["tasks_per_s"])
    cost = _lines(found, lambda one: one["broker_us"] + one["io_us"])
    width = _LEFT + 2 * _WIDTH + _APART + 30
    height = _TOP + _HEIGHT + 80
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"',
        ' font-family="sans-serif" font-size="13">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        *_panel(_LEFT, "tasks per second", rate),
        *_panel(_LEFT + _WIDTH + _APART, "processor time of the interchange per task, µs", cost),
        *_legend(height - 18),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _lines(found: Sequence[dict[str, Any]], value: Any) -> dict[str, Points]:
    lines: dict[str, Points] = {}
    for way in _COLORS:
        counts = sorted({one["managers"] for one in found if one["answers"] == way})
        lines[way] = [
            (count, statistics.median(value(one) for one in found if (one["answers"], one["managers"]) == (way, count)))
            for count in counts
        ]
    return lines


def _panel(left: int, title: str, lines: dict[str, Points]) -> list[str]:
    points = [point for line in lines.values() for point in line]
    decades = max(1, math.ceil(math.log10(max(x for x, _ in points))))
    step = _step(max(y for _, y in points))
    top = step * math.ceil(max(y for _, y in points) / step)
    bottom = _TOP + _HEIGHT

    def place(x: float, y: float) -> tuple[float, float]:
        return left + _WIDTH * math.log10(x) / decades, bottom - _HEIGHT * y / top

    parts = [f'<text x="{left}" y="{_TOP - 20}" font-weight="bold">{escape(title)}</text>']
    for number in range(round(top / step) + 1):
        _, y = place(1, number * step)
        parts.append(f'<line x1="{left}" y1="{y:.1f}" x2="{left + _WIDTH}" y2="{y:.1f}" stroke="#dddddd"/>')
        parts.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{number * step:,g}</text>')
    for decade in range(decades + 1):
        x, _ = place(10**decade, 0)
        parts.append(f'<line x1="{x:.1f}" y1="{bottom}" x2="{x:.1f}" y2="{bottom + 5}" stroke="black"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 20}" text-anchor="middle">{10**decade:,}</text>')
    parts.append(f'<text x="{left + _WIDTH / 2}" y="{bottom + 38}" text-anchor="middle">managers</text>')
    for way, line in lines.items():
        spots = [place(*point) for point in line]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{_COLORS[way]}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{_COLORS[way]}"/>' for x, y in spots]
    return parts


def _legend(y: int) -> list[str]:
    parts = []
    for number, (way, color) in enumerate(_COLORS.items()):
        x = _LEFT + number * 230
        parts.append(f'<line x1="{x}" y1="{y - 4}" x2="{x + 24}" y2="{y - 4}" stroke="{color}" stroke-width="2"/>')
        parts.append(f'<text x="{x + 30}" y="{y}">{escape(_NAMES[way])}</text>')
    return parts


def _step(largest: float) -> float:
    """Return a round distance between grid lines, of which about five fit."""
    rough = largest / 5
    power: float = 10.0 ** math.floor(math.log10(rough))
    return min((factor * power for factor in (1, 2, 2.5, 5, 10)), key=lambda step: abs(step - rough))
