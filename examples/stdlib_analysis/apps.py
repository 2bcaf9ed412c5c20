"""The flowcore apps of the analysis, and how they hang together."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from pathlib import Path

from flowcore import File, bash_app, join_app, python_app

from stdlib_analysis.records import Module, Package, Report
from stdlib_analysis.source import find_packages, measure_module
from stdlib_analysis.summary import sum_package, sum_report

find = python_app(find_packages)
measure = python_app(measure_module)
conclude = python_app(sum_report)


@bash_app
def compress(
    root: str,
    paths: Sequence[str],
    stdout: tuple[str, str],  # noqa: ARG001 - this and the next two are for flowcore
    stderr: tuple[str, str],  # noqa: ARG001
    outputs: Sequence[File] = (),  # noqa: ARG001
) -> str:
    """Compress files together; stdout gets the number of bytes, and stderr ends with user and system CPU seconds."""
    files = shlex.join(paths)
    return f"set -eo pipefail; cd {shlex.quote(root)}; TIMEFORMAT='%U %S'; time cat -- {files} | gzip -c | wc -c"


@python_app
def summarize(name: str, modules: list[Module], compressed: Sequence[File]) -> Package:
    """Sum a package from its measured modules and the files that `compress` wrote."""
    size, times = (Path(file).read_text() for file in compressed)
    return sum_package(name, modules, int(size), sum(map(float, times.split()[-2:])))


@join_app
def analyze(packages: dict[str, list[str]], root: str, scratch: str) -> list[Future[Package]]:
    """Fan out: every package is compressed while its modules are measured; its summary waits for both."""
    summaries: list[Future[Package]] = []
    for name, paths in packages.items():
        modules = [measure(root, path) for path in paths]
        size, log = f"{scratch}/{name}.size", f"{scratch}/{name}.log"
        compressed = compress(root, paths, stdout=(size, "w"), stderr=(log, "w"), outputs=[File(size), File(log)])
        summaries.append(summarize(name, modules, compressed.outputs))
    return summaries


@python_app
def save(render: Callable[[Report], str], report: Report, outputs: Sequence[File] = ()) -> None:
    """Write what `render` makes of the report."""
    Path(outputs[0]).write_text(render(report), encoding="utf-8")


def report_on(library: str, root: str, exclude: Collection[str], limit: int | None, scratch: str) -> Future[Report]:
    """Start the whole analysis and return the future of its report at once."""
    packages = find(root, exclude, limit)
    return conclude(library, analyze(packages, root, scratch))
