"""Find modules, and measure one: its size, its functions and their complexity, its imports."""

from __future__ import annotations

import ast
import os
import time
import tokenize
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from stdlib_analysis.records import Function, Import, Module

RUNS_ELSEWHERE: Final = frozenset({"__name__", "TYPE_CHECKING"})


def find_packages(root: str, exclude: Collection[str], limit: int | None = None) -> dict[str, list[str]]:
    """Group the source files below `root` by package: `{"json": ["json/__init__.py", ...], "os": ["os.py"]}`.

    Files and folders whose names are in `exclude`, or are no Python names, are left out; `limit` stops after so many.
    """
    packages: dict[str, list[str]] = {}
    for path in sorted(_files(Path(root), exclude))[:limit]:
        packages.setdefault(Path(path.parts[0]).stem, []).append(str(path))
    return packages


def _files(root: Path, exclude: Collection[str]) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name.isidentifier() and name not in exclude]
        for name in names:
            path = Path(folder, name)
            if path.suffix == ".py" and path.stem.isidentifier() and path.stem not in exclude:
                yield path.relative_to(root)


def module_name(path: str) -> str:
    """Name the module in a file.

    >>> module_name("json/__init__.py"), module_name("json/decoder.py")
    ('json', 'json.decoder')
    """
    parts = Path(path).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def measure_module(root: str, path: str) -> Module:
    """Parse one file and measure it; a file that is no Python of this version is a result too, with its `error`."""
    started = time.thread_time()
    name = module_name(path)
    file = Path(root, path)
    try:
        with tokenize.open(file) as stream:
            text = stream.read()
        survey = Survey(name, is_package=file.name == "__init__.py")
        survey.visit(ast.parse(text, filename=path))
    except SyntaxError as error:
        return Module(name, path, error=f"line {error.lineno}: {error.msg}", seconds=time.thread_time() - started)
    except (ValueError, RecursionError) as error:
        return Module(name, path, error=f"{type(error).__name__}: {error}", seconds=time.thread_time() - started)
    lines = [line.strip() for line in text.splitlines()]
    return Module(
        name,
        path,
        bytes=file.stat().st_size,
        lines=len(lines),
        code=sum(1 for line in lines if line and not line.startswith("#")),
        classes=survey.classes,
        functions=survey.functions,
        imports=survey.imports,
        seconds=time.thread_time() - started,
    )


def decisions(node: ast.AST) -> int:
    """Count the ways that a node adds to a function: McCabe's decision points, with `and` and `or` among them."""
    match node:
        case ast.If() | ast.IfExp() | ast.For() | ast.AsyncFor() | ast.While() | ast.ExceptHandler() | ast.match_case():
            return 1
        case ast.comprehension():
            return 1 + len(node.ifs)
        case ast.BoolOp():
            return len(node.values) - 1
    return 0


class Survey(ast.NodeVisitor):
    """Visits a module's syntax tree once and collects what `Module` reports."""

    def __init__(self, module: str, *, is_package: bool = False) -> None:
        self.module = module
        self.package = module if is_package else module.rpartition(".")[0]
        self.functions: list[Function] = []
        self.imports: list[Import] = []
        self.classes = 0
        self._scopes: list[str] = []
        self._complexities: list[int] = []  # of the functions that the visit is in, innermost last
        self._asides = 0  # how many `if`s around the visit keep their body from running on import

    def visit(self, node: ast.AST) -> None:
        """Visit a node and all below it."""
        if self._complexities:
            self._complexities[-1] += decisions(node)
        super().visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        """Measure a function; what is nested in it counts for itself."""
        self._complexities.append(1)
        self._enter(node)
        qualified = ".".join([*self._scopes, node.name])
        lines = (node.end_lineno or node.lineno) - node.lineno + 1
        self.functions.append(
            Function(f"{self.module}:{qualified}", node.lineno, lines, complexity=self._complexities.pop())
        )

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815 - ast's spelling

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        """Count a class, and measure its methods."""
        self.classes += 1
        self._enter(node)

    def visit_If(self, node: ast.If) -> None:
        """Know what stands in `if __name__ == "__main__"` and `if TYPE_CHECKING` for what does not run on import."""
        aside = bool(RUNS_ELSEWHERE & {name.id for name in ast.walk(node.test) if isinstance(name, ast.Name)})
        self._asides += aside
        self.generic_visit(node)
        self._asides -= aside

    def visit_Import(self, node: ast.Import) -> None:
        """Note `import a, b.c`."""
        self.imports += [Import(alias.name, deferred=self._deferred) for alias in node.names]

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        """Note `from a import b`, with relative names made absolute."""
        target = node.module or ""
        if node.level:
            parents = self.package.split(".")
            target = ".".join([*parents[: len(parents) - node.level + 1], *filter(None, [node.module])])
        self.imports += [Import(target, alias.name, deferred=self._deferred) for alias in node.names]

    @property
    def _deferred(self) -> bool:
        return bool(self._complexities or self._asides)

    def _enter(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> None:
        self._scopes.append(node.name)
        self.generic_visit(node)
        self._scopes.pop()
