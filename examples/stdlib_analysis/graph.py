"""Who imports whom: names resolved to modules, edges between packages, cycles."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping

from stdlib_analysis.records import Edge, Import

Graph = Mapping[str, Collection[str]]


def resolve(imported: Import, modules: Collection[str]) -> str:
    """Name the module that an import loads: `from xml import dom` means `xml.dom` where that is a module.

    >>> resolve(Import("xml", "dom"), {"xml", "xml.dom"}), resolve(Import("os", "sep"), {"os"})
    ('xml.dom', 'os')
    """
    submodule = f"{imported.target}.{imported.member}"
    return submodule if submodule in modules else imported.target


def cycles(graph: Graph) -> list[list[str]]:
    """List the groups of nodes that reach one another, the largest first: Tarjan's algorithm, without recursion.

    >>> cycles({"a": ["b"], "b": ["c"], "c": ["b", "a"], "d": ["a"]})
    [['a', 'b', 'c']]
    """
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    path: list[str] = []
    found: list[list[str]] = []
    for root in graph:
        visits = [(root, iter(graph[root]))] if root not in order else []
        while visits:
            node, successors = visits[-1]
            if node not in order:
                order[node] = lowest[node] = len(order)
                path.append(node)
            for successor in successors:
                if successor not in order and successor in graph:
                    visits.append((successor, iter(graph[successor])))
                    break
                if successor in path:
                    lowest[node] = min(lowest[node], order[successor])
            else:
                visits.pop()
                if visits:
                    lowest[visits[-1][0]] = min(lowest[visits[-1][0]], lowest[node])
                if lowest[node] == order[node]:
                    start = path.index(node)
                    found.append(sorted(path[start:]))
                    del path[start:]
    return sorted((group for group in found if len(group) > 1), key=lambda group: (-len(group), group))


def package_edges(imports: Mapping[str, Collection[tuple[str, bool]]], packages: Collection[str]) -> list[Edge]:
    """Sum the imports of modules, as pairs of a module and whether it is deferred, to imports between packages."""
    importers: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    direct: set[tuple[str, str]] = set()
    for module, targets in imports.items():
        for target, deferred in targets:
            pair = top(module), top(target)
            if pair[0] != pair[1] and pair[1] in packages:
                importers[pair].add(module)
                if not deferred:
                    direct.add(pair)
    return [Edge(*pair, len(modules), pair not in direct) for pair, modules in sorted(importers.items())]


def top(module: str) -> str:
    """Name the package that a module belongs to."""
    return module.partition(".")[0]
