"""Where nodes stand on a circle, and how the curves between them run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

Point = tuple[float, float]

GAP: Final = 2.0
"""The space between two groups, in places of a node."""

PULL: Final = 0.42
"""How far from the center curves between groups are bundled, as a fraction of the circle's radius."""


@dataclass(frozen=True)
class Place:
    """A node's place: its angle and that of its group's middle, in radians, clockwise from the top."""

    angle: float
    middle: float


def places(groups: Sequence[Sequence[str]]) -> dict[str, Place]:
    """Spread the nodes evenly over the circle, in the given order, with a gap after each group."""
    step = 2 * math.pi / max(1.0, sum(len(group) + GAP for group in groups))
    found: dict[str, Place] = {}
    angle = 0.0
    for group in groups:
        middle = angle + step * (len(group) - 1) / 2
        found |= {name: Place(angle + step * index, middle) for index, name in enumerate(group)}
        angle += step * (len(group) + GAP)
    return found


def point(angle: float, radius: float) -> Point:
    """Place a point, the center being the origin and y pointing down.

    >>> point(0.0, 10.0)
    (0.0, -10.0)
    """
    return radius * math.sin(angle), -radius * math.cos(angle)


def curve(start: Place, end: Place, radius: float) -> str:
    """Draw a cubic Bezier curve, as an SVG path, that is bundled with all others between the same two groups.

    Within a group the curve is an arc that stays near the circle.
    """
    if start.middle == end.middle:
        depth = radius * (1 - min(0.6, 0.1 + 0.6 * abs(start.angle - end.angle)))
        controls = [point(start.angle, depth), point(end.angle, depth)]
    else:
        controls = [point((2 * place.middle + place.angle) / 3, radius * PULL) for place in (start, end)]
    stops = [point(start.angle, radius), *controls, point(end.angle, radius)]
    first, *rest = (f"{x:.1f},{y:.1f}" for x, y in stops)
    return f"M{first}C{' '.join(rest)}"
