"""Sum modules up to a package, and packages to the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from stdlib_analysis.graph import cycles, package_edges, resolve, top
from stdlib_analysis.records import Function, Module, Package, Popular, Report

HARDEST = 20
"""How many of the most complex functions are kept, of each package and in the report."""


def sum_package(name: str, modules: list[Module], compressed: int, compress_seconds: float) -> Package:
    """Sum what the modules of one package said, and what compressing them took."""
    functions = [function for module in modules for function in module.functions]
    return Package(
        name,
        modules=len(modules),
        bytes=sum(module.bytes for module in modules),
        compressed=compressed,
        lines=sum(module.lines for module in modules),
        code=sum(module.code for module in modules),
        classes=sum(module.classes for module in modules),
        functions=len(functions),
        complexity=round(sum(function.complexity for function in functions) / max(1, len(functions)), 2),
        hardest=most_complex(functions),
        imports={module.name: module.imports for module in modules},
        errors={module.path: module.error for module in modules if module.error is not None},
        seconds=sum(module.seconds for module in modules) + compress_seconds,
    )


def sum_report(library: str, packages: list[Package]) -> Report:
    """Draw the conclusions that need all packages at once: the maxima, the import graph and its cycles."""
    imports = {name: found for package in packages for name, found in package.imports.items()}
    resolved = {
        name: {(resolve(one, imports), one.deferred) for one in found if one.target} for name, found in imports.items()
    }
    direct = {name: sorted({target for target, deferred in to if not deferred}) for name, to in resolved.items()}
    return Report(
        library=library,
        packages=sorted(packages, key=lambda package: (-package.lines, package.name)),
        hardest=most_complex(function for package in packages for function in package.hardest),
        popular=most_imported(resolved),
        cycles=cycles(direct),
        edges=package_edges(resolved, {package.name for package in packages}),
        errors={path: error for package in packages for path, error in package.errors.items()},
        seconds=sum(package.seconds for package in packages),
    )


def most_complex(functions: Iterable[Function]) -> list[Function]:
    """Keep the most complex functions, the hardest first."""
    return sorted(functions, key=lambda function: (-function.complexity, function.name))[:HARDEST]


def most_imported(imports: Mapping[str, Collection[tuple[str, bool]]]) -> list[Popular]:
    """Count who imports each module, from the targets of each module and whether each is deferred."""
    pairs = {(name, target) for name, targets in imports.items() for target, _ in targets if name != target}
    modules = Counter(target for _, target in pairs)
    packages = Counter(target for package, target in {(top(name), to) for name, to in pairs} if package != top(target))
    counts = [Popular(name, count, packages[name]) for name, count in modules.items()]
    return sorted(counts, key=lambda count: (-count.packages, -count.modules, count.name))
