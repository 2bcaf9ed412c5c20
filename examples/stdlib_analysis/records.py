"""The records that travel between the tasks of the analysis."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Function:
    """One function or method; `name` is qualified, `module:Class.method`."""

    name: str
    line: int
    lines: int
    complexity: int


@dataclass(frozen=True)
class Import:
    """One imported name: `import target`, or `from target import member`.

    `deferred` imports stand in a function, so they run when it is called and not when the module is imported.
    """

    target: str
    member: str | None = None
    deferred: bool = False


@dataclass(frozen=True)
class Module:
    """What one source file says about itself; `seconds` is the CPU time that it took to find out."""

    name: str
    path: str
    bytes: int = 0
    lines: int = 0
    code: int = 0
    classes: int = 0
    functions: list[Function] = field(default_factory=list)
    imports: list[Import] = field(default_factory=list)
    error: str | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Package:
    """The sum of a package's modules; a module outside any package is a package of its own.

    `compressed` counts bytes after gzip. `hardest` holds the most complex functions only, `functions` counts them all.
    """

    name: str
    modules: int
    bytes: int
    compressed: int
    lines: int
    code: int
    classes: int
    functions: int
    complexity: float
    hardest: list[Function]
    imports: dict[str, list[Import]]
    errors: dict[str, str]
    seconds: float


@dataclass(frozen=True)
class Edge:
    """So many modules of one package import something of another; `deferred` if they all do so in functions only."""

    importer: str
    imported: str
    modules: int
    deferred: bool


@dataclass(frozen=True)
class Popular:
    """How many modules, and how many other packages, import a module."""

    name: str
    modules: int
    packages: int


@dataclass(frozen=True)
class Report:
    """All that the analysis found.

    `cycles` are groups of modules that import one another while they are imported; `errors` says, by path, why a file
    could not be parsed; `seconds` is the CPU time of all measuring and compressing.
    """

    library: str
    packages: list[Package]
    hardest: list[Function]
    popular: list[Popular]
    cycles: list[list[str]]
    edges: list[Edge]
    errors: dict[str, str]
    seconds: float
