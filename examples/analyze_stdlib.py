"""Analyze every module of the installed Python standard library, in parallel.

Run it with `python examples/analyze_stdlib.py`; `--help` lists the options.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import sysconfig
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path

import flowcore
from flowcore import Config, File, executors
from flowcore.errors import FlowcoreError
from flowcore.executors.base import Executor

from stdlib_analysis import apps
from stdlib_analysis.picture import draw
from stdlib_analysis.progress import watch
from stdlib_analysis.records import Report
from stdlib_analysis.tables import as_json, as_text, imports_csv, packages_csv

FILES: dict[str, Callable[[Report], str]] = {
    "report.txt": as_text,
    "report.json": as_json,
    "packages.csv": packages_csv,
    "imports.csv": imports_csv,
    "imports.svg": draw,
}

STDLIB = str(Path(sysconfig.get_path("stdlib")).resolve())
EXCLUDED = ("test", "idlelib", "site-packages", "dist-packages", "__pycache__")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the analysis as the command line says; return the exit code."""
    options = parse(arguments)
    try:
        options.output.mkdir(parents=True, exist_ok=True)
        run(options)
    except (FlowcoreError, OSError) as error:
        print(f"analyze_stdlib: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("analyze_stdlib: interrupted", file=sys.stderr)
        return 1
    return 0


def run(options: argparse.Namespace) -> None:
    """Load the configuration, start the analysis, watch it, and print what it found."""
    started = time.perf_counter()
    with flowcore.load(configuration(options)) as kernel:
        report, files = begin(options)
        if not options.quiet:
            watch(kernel, [report, *files], sys.stderr)
        text = as_text(report.result())
        written = ", ".join(os.path.relpath(file.result()) for file in files)
        tasks = kernel.task_count
    seconds = time.perf_counter() - started
    if not options.quiet:
        print(f"\n{text}\n\nWritten: {written}\n")
    cpu = report.result().seconds
    print(
        f"{tasks:,} tasks in {seconds:.1f} s with {options.executor}, {options.workers} at once; "
        f"the CPU time of their work is {cpu:.1f} s in sum"
    )


def begin(options: argparse.Namespace) -> tuple[Future[Report], list[Future[File]]]:
    """Start all there is to do, and return the futures of the report and of the files at once."""
    library = f"Python {platform.python_version()}" if options.root == STDLIB else Path(options.root).name
    scratch = str(options.output / "sizes")
    report = apps.report_on(library, options.root, options.exclude, options.limit, scratch)
    saved = [apps.save(render, report, outputs=[File(options.output / name)]) for name, render in FILES.items()]
    return report, [future.outputs[0] for future in saved]


def configuration(options: argparse.Namespace) -> Config:
    """Choose the executor: the only line that tells one machine's configuration from another's."""
    executor: Executor
    if options.executor == "threads":
        executor = executors.ThreadPoolExecutor(max_threads=options.workers)
    else:
        executor = executors.HighThroughputExecutor(max_workers=options.workers)
    return Config(executors=[executor], run_dir=options.output / "runinfo")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="analyze_stdlib", description="Analyze the standard library in parallel.")
    parser.add_argument("--executor", choices=["htex", "threads"], default="htex", help="what runs the tasks (htex)")
    parser.add_argument("--workers", type=positive, default=os.cpu_count() or 1, help="how many at once (the cores)")
    parser.add_argument("--output", type=lambda text: Path(text).resolve(), default="stdlib-report", metavar="DIR")
    parser.add_argument("--root", type=library, default=STDLIB, help="another library's folder")
    parser.add_argument("--exclude", nargs="*", default=EXCLUDED, metavar="NAME", help=" ".join(EXCLUDED))
    parser.add_argument("--limit", type=positive, metavar="N", help="stop after N modules")
    parser.add_argument("--quiet", action="store_true", help="print the last line only")
    return parser.parse_args(arguments)


def positive(text: str) -> int:
    """Read a number of workers or modules."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def library(text: str) -> str:
    """Read the folder of a library."""
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text} is no folder")
    return str(Path(text).resolve())


if __name__ == "__main__":
    sys.exit(main())
