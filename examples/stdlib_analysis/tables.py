"""The report as text: tables for a person, JSON and CSV for programs."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Iterable, Sequence
from typing import Final

from stdlib_analysis.records import Edge, Package, Report

ROWS: Final = 12
"""How many rows a table shows of a longer list."""


def as_text(report: Report) -> str:
    """Lay the report out for a terminal of 100 columns."""
    lines = sum(package.lines for package in report.packages)
    modules = sum(package.modules for package in report.packages)
    functions = sum(package.functions for package in report.packages)
    counts = f"{len(report.packages):,} packages, {modules:,} modules, {functions:,} functions, {lines:,} lines"
    return "\n\n".join(
        [
            f"{report.library}: {counts}",
            _largest(report),
            _hardest(report),
            _popular(report),
            _listing("Modules that import one another", [", ".join(cycle) for cycle in report.cycles]),
            _listing("Not parsed", [f"{path}: {error}" for path, error in sorted(report.errors.items())]),
        ]
    )


def as_json(report: Report) -> str:
    """Give everything that was found, as JSON."""
    return json.dumps(dataclasses.asdict(report), indent=1) + "\n"


def packages_csv(report: Report) -> str:
    """Give one row for each package, as CSV."""
    left_out = {"hardest", "imports", "errors", "seconds"}
    columns = [field.name for field in dataclasses.fields(Package) if field.name not in left_out]
    return _csv(columns, report.packages)


def imports_csv(report: Report) -> str:
    """Give one row for each pair of packages of which one imports the other, as CSV."""
    return _csv([field.name for field in dataclasses.fields(Edge)], report.edges)


def _largest(report: Report) -> str:
    rows = [
        (
            package.name,
            f"{package.modules:,}",
            f"{package.lines:,}",
            f"{package.functions:,}",
            f"{package.classes:,}",
            f"{package.complexity:.1f}",
            f"{package.bytes / 1024:,.0f} kB",
            f"{100 * package.compressed / max(1, package.bytes):.0f} %",
        )
        for package in report.packages[:ROWS]
    ]
    return _table("Largest packages", ["modules", "lines", "functions", "classes", "complexity", "size", "gzip"], rows)


def _hardest(report: Report) -> str:
    rows = [
        (function.name, str(function.complexity), str(function.lines), str(function.line))
        for function in report.hardest[:ROWS]
    ]
    return _table("Most complex functions", ["complexity", "lines", "at line"], rows)


def _popular(report: Report) -> str:
    rows = [(count.name, str(count.packages), str(count.modules)) for count in report.popular[:ROWS]]
    return _table("Most imported modules", ["by packages", "by modules"], rows)


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Align a table: the first column, named by the title, to the left and the numbers to the right."""
    heads = [title, *columns]
    widths = [max(len(row[at]) for row in [heads, *rows]) for at in range(len(heads))]
    first = max(widths[0], 32)
    lines = ["  ".join([row[0].ljust(first), *map(str.rjust, row[1:], widths[1:])]) for row in [heads, *rows]]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _listing(title: str, items: Sequence[str]) -> str:
    more = [f"... and {len(items) - ROWS} more"] if len(items) > ROWS else []
    return "\n".join([title, "-" * len(title), *(items[:ROWS] or ["none"]), *more])


def _csv(columns: Sequence[str], records: Iterable[object]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([getattr(record, column) for column in columns] for record in records)
    return text.getvalue()
