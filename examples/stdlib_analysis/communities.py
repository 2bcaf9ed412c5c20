"""Groups of packages that belong together, found with Louvain's method (Blondel et al., 2008)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

from stdlib_analysis.records import Edge

Weights = dict[str, dict[str, float]]


def communities(names: Iterable[str], edges: Iterable[Edge]) -> list[list[str]]:
    """Group packages so that imports stay within a group where possible; the largest group comes first.

    An import of what everybody imports says little about who belongs together, so it weighs less.
    """
    edges = list(edges)
    popularity = Counter(edge.imported for edge in edges)
    weights: Weights = {name: {} for name in names}
    for edge in edges:
        weight = edge.modules**0.5 / popularity[edge.imported] ** 1.5
        for one, other in [(edge.importer, edge.imported), (edge.imported, edge.importer)]:
            weights[one][other] = weights[one].get(other, 0.0) + weight
    groups = {name: [name] for name in weights}
    while True:
        chosen = _move(weights)
        if len(set(chosen.values())) == len(groups):
            return sorted((sorted(group) for group in groups.values()), key=lambda group: (-len(group), group))
        weights = _condense(weights, chosen)
        merged: defaultdict[str, list[str]] = defaultdict(list)
        for name, group in groups.items():
            merged[chosen[name]] += group
        groups = dict(merged)


def _move(weights: Weights) -> dict[str, str]:
    """Move each node to the group of the neighbors that gains most, until none moves; return each node's group."""
    strength = {node: sum(neighbors.values()) for node, neighbors in weights.items()}
    total = sum(strength.values()) or 1.0
    group = {node: node for node in weights}
    gravity = dict(strength)  # of each group, the sum of its nodes' strengths
    for _ in range(len(weights)):  # a bound; a handful of rounds is usual
        moved = False
        for node in weights:
            gravity[group[node]] -= strength[node]
            links: defaultdict[str, float] = defaultdict(float)
            for neighbor, weight in weights[node].items():
                if neighbor != node:
                    links[group[neighbor]] += weight
            gains = {name: link - strength[node] * gravity[name] / total for name, link in links.items()}
            here = gains.get(group[node], 0.0)
            best = max(gains, key=lambda name: (gains[name], name), default=group[node])
            if gains.get(best, 0.0) > here + 1e-12:
                group[node] = best
                moved = True
            gravity[group[node]] += strength[node]
        if not moved:
            break
    return group


def _condense(weights: Weights, group: Mapping[str, str]) -> Weights:
    """Make each group one node; what was within a group becomes its weight with itself."""
    condensed: Weights = {name: {} for name in sorted(set(group.values()))}
    for node, neighbors in weights.items():
        row = condensed[group[node]]
        for neighbor, weight in neighbors.items():
            row[group[neighbor]] = row.get(group[neighbor], 0.0) + weight
    return condensed
