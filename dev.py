#!/usr/bin/env python3
"""Set up this checkout and run it: `python3 dev.py example`, `python3 dev.py test`. Needs Python and pip alone."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = Path(os.environ.get("FLOWCORE_VENV", ROOT / ".venv")).absolute()
PACKAGES = [path.parent for path in sorted([*ROOT.glob("core/pyproject.toml"), *ROOT.glob("plugins/*/pyproject.toml")])]
MARKER = "FLOWCORE_TEST_RUN"
LEFTOVER_PATIENCE = 5.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of the commands; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (run, _) in COMMANDS.items():
        commands.add_parser(name, help=run.__doc__, add_help=False)
    name, rest = parser.parse_known_args(argv)[0].command, list(sys.argv[1:] if argv is None else argv)
    rest.remove(name)
    if sys.version_info < (3, 10):  # noqa: UP036 - this file is what tells it
        sys.exit(f"flowcore needs Python 3.10 or newer; this is {sys.version.split()[0]}")
    run, install = COMMANDS[name]
    install()
    return run(rest)


def example(arguments: Sequence[str]) -> int:
    """Analyse the installed standard library in parallel worker processes."""
    return _call([_binary("python"), ROOT / EXAMPLE, *arguments])


def test(arguments: Sequence[str]) -> int:
    """Run the static checks and all tests; further arguments go to pytest."""
    if not arguments and check([]):
        return 1
    with _no_process_left() as environment:
        return _call([_binary("pytest"), "-n", "2", *arguments], environment)


def check(arguments: Sequence[str]) -> int:
    """Run ruff, mypy --strict and import-linter."""
    steps: list[list[str | Path]] = [
        [_binary("ruff"), "check", "."],
        [_binary("ruff"), "format", "--check", "."],
        [_binary("mypy")],
        [_binary("lint-imports")],
    ]
    return max(_call([*step, *arguments]) for step in steps)


def bench(arguments: Sequence[str]) -> int:
    """Measure flowcore beside its peers."""
    return _call([_binary("python"), ROOT / "benchmarks" / "compare.py", *arguments])


def _install_packages() -> None:
    """Install what the example needs: the core and two executors."""
    wanted = [path for path in PACKAGES if path.name in {"core", "threads", "htex"}]
    sources = [part for path in wanted for part in ("--editable", str(path))]
    _once("packages", lambda: _call([_binary("python"), "-m", "pip", "install", "--quiet", *sources]))


def _install_workspace() -> None:
    """Install all packages and the development tools, through the uv workspace."""

    def install() -> int:
        environment = {**os.environ, "VIRTUAL_ENV": str(VENV)}
        return _call([_binary("python"), "-m", "pip", "install", "--quiet", "uv"]) or _call(
            [_binary("uv"), "sync", "--quiet", "--active", "--all-packages", "--inexact"], environment
        )

    _once("workspace", install)


def _once(name: str, install: Callable[[], int]) -> None:
    """Install into the virtual environment unless that was done for these very pyproject files."""
    _make_venv()
    stamp = VENV / f".flowcore-{name}"
    texts = [(path / "pyproject.toml").read_bytes() for path in [ROOT, *PACKAGES]]
    digest = hashlib.sha256(b"\0".join([str(ROOT).encode(), *texts])).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return
    print(f"setting up {VENV} ...", flush=True)
    if install():
        sys.exit("the set-up failed; what it said stands above")
    stamp.write_text(digest)


def _make_venv() -> None:
    if _binary("python").exists():
        return
    if _call([sys.executable, "-m", "venv", VENV]):
        sys.exit("no virtual environment could be made; on Debian: apt-get install python3-venv")


def _binary(name: str) -> Path:
    return VENV / "bin" / name


def _call(command: Iterable[str | Path], environment: dict[str, str] | None = None) -> int:
    return subprocess.run([str(word) for word in command], cwd=ROOT, env=environment, check=False).returncode


@contextlib.contextmanager
def _no_process_left() -> Iterator[dict[str, str]]:
    """Give an environment whose processes can be recognized; complain of those that are left at the end."""
    mark = f"{MARKER}={uuid.uuid4()}"
    environment = {**os.environ, MARKER: mark.partition("=")[2]}
    yield environment
    deadline = time.monotonic() + LEFTOVER_PATIENCE
    while (left := list(_marked(mark.encode()))) and time.monotonic() < deadline:
        time.sleep(0.1)
    if left:
        print("processes left behind by the tests:", *left, sep="\n  ")
        sys.exit(1)


def _marked(mark: bytes) -> Iterator[str]:
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in (process / "environ").read_bytes().split(b"\0"):
                yield f"{process.name} {(process / 'cmdline').read_bytes().replace(bytes(1), b' ').decode().strip()}"


EXAMPLE = "examples/analyze_stdlib.py"
COMMANDS = {
    "example": (example, _install_packages),
    "test": (test, _install_workspace),
    "check": (check, _install_workspace),
    "bench": (bench, _install_workspace),
}

if __name__ == "__main__":
    sys.exit(main())
