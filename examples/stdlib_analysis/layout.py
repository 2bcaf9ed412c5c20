"""Which package stands where in the picture, and in which color."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from stdlib_analysis.circle import Place, places
from stdlib_analysis.communities import communities
from stdlib_analysis.records import Report

COLORS: Final = (
    *("#4477aa", "#cc6677", "#117733", "#aa4499", "#b07d12", "#2a9d8f"),
    *("#882255", "#332288", "#7a9a01", "#d2691e", "#6a9fb5", "#6b4f2a"),
)
"""Dark enough for thin lines on white, neighbors told apart by color-blind readers; later groups share a gray."""

OTHERS: Final = "#8b8f98"


@dataclass(frozen=True)
class Layout:
    """The groups in their order on the circle, and the place and the color of each package."""

    groups: list[list[str]]
    places: dict[str, Place]
    colors: dict[str, str]


def arrange(report: Report) -> Layout:
    """Put related packages, and related groups, next to each other; what belongs to no large group comes last."""
    found = communities([package.name for package in report.packages], report.edges)
    large = {group[0]: group for group in found[: len(COLORS)] if len(group) > 2}
    first = {name: head for head, group in large.items() for name in group}
    links: Counter[tuple[str, str]] = Counter()
    for edge in report.edges:
        for one, other in [(edge.importer, edge.imported), (edge.imported, edge.importer)]:
            links[one, other] += edge.modules
            if first.get(one) != first.get(other):
                links["group " + first.get(one, ""), "group " + first.get(other, "")] += edge.modules
    heads = chain(large, lambda one, other: links["group " + one, "group " + other])
    groups = [chain(large[head], lambda one, other: links[one, other]) for head in heads]
    colors = {name: color for group, color in zip(groups, COLORS, strict=False) for name in group}
    others = sorted(package.name for package in report.packages if package.name not in first)
    groups += [others] if others else []
    return Layout(groups, places(groups), colors | dict.fromkeys(others, OTHERS))


def chain(items: Iterable[str], link: Callable[[str, str], float]) -> list[str]:
    """Order items so that neighbors are well linked: each is followed by the one left that is linked to it best."""
    left = sorted(items)
    ordered: list[str] = []
    while left:
        best = max(left, key=lambda item: link(ordered[-1], item) if ordered else sum(link(item, one) for one in left))
        left.remove(best)
        ordered.append(best)
    return ordered
