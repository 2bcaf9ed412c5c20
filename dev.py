#!/usr/bin/env python3
"""Set up this checkout and run it: `python3 dev.py example`, `python3 dev.py test`. Needs Python and pip alone."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = Path(os.environ.get("FLOWCORE_VENV", ROOT / ".venv")).absolute()
PACKAGES = [path.parent for path in sorted([*ROOT.glob("core/pyproject.toml"), *ROOT.glob("plugins/*/pyproject.toml")])]
LEFTOVER_PATIENCE = 30.0
TEMPORARY = {Path("/tmp"), Path(tempfile.gettempdir()).resolve()}
NETWORKS = {Path("/run/netns"), Path("/sys/class/net")}
CONTROL_GROUPS = Path("/sys/fs/cgroup")
CACHES = {"__pycache__", ".environments", ".git", ".hypothesis", ".import_linter_cache", ".mypy_cache", ".pytest_cache"}
CACHES |= {".ruff_cache", ".venv"}


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
    return _without_trace(
        lambda folder: _call(
            [_binary("pytest"), "-n", "2", "--basetemp", folder / "p", *arguments],
            {**os.environ, "TMPDIR": str(folder)},
        )
    )


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
    """Run a command and return its exit code; told to end meanwhile, end the command and let it tidy up, then exit."""
    told: list[int] = []
    started: list[subprocess.Popen[bytes]] = []

    def heed(number: int, _: object) -> None:
        told.append(number)
        if number == signal.SIGTERM:  # SIGINT the terminal has sent to the command, too
            for process in started:
                process.send_signal(signal.SIGINT)

    before = {number: signal.signal(number, heed) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with subprocess.Popen([str(word) for word in command], cwd=ROOT, env=environment) as process:
            started.append(process)
            if signal.SIGTERM in told:
                process.send_signal(signal.SIGINT)
            code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if told:
        sys.exit(128 + told[0])
    return code if code >= 0 else 128 - code


def _without_trace(run: Callable[[Path], int]) -> int:
    """Call with a new temporary directory; the outcome is a failure too if anything is left but the entry `p` of it.

    The directory is kept where it can tell of a failure. Its path is short, as sockets in it need a short one.
    """
    folder = Path(tempfile.mkdtemp(prefix="fc-")).resolve()
    folder.chmod(0o711)  # some tests run programs as other users
    before = set(_traces())
    try:
        code = run(folder)
    except SystemExit as end:
        code = int(end.code or 0)
    deadline = time.monotonic() + LEFTOVER_PATIENCE
    while (left := _left(folder, before)) and time.monotonic() < deadline:
        time.sleep(0.1)
    if left:
        print("left behind by the tests:", *left, sep="\n  ")
    if code or left:
        print(f"the temporary directory of the tests is kept: {folder}")
        return code or 1
    shutil.rmtree(folder, ignore_errors=True)
    return 0


def _left(folder: Path, before: set[Path]) -> list[str]:
    """Name what is left of a run with this temporary directory; other runs may go on beside it.

    Listeners and abstract sockets are not looked for: they end with the last process that has them.
    """
    strays = [path for path in folder.iterdir() if path.name != "p"]
    new = set(_traces()) - before - {folder}
    named = _named(folder) if any(path.parent in TEMPORARY for path in new) else set()
    return [
        *_processes(str(folder).encode()),
        *map(str, sorted([*strays, *(path for path in new if _ours(path, folder, named))])),
    ]


def _processes(mark: bytes) -> Iterator[str]:
    """Name the living processes that have a word in their environment, command line or working directory."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (process / "cmdline").read_bytes()
            if mark in line + (process / "environ").read_bytes() + os.fsencode((process / "cwd").readlink()):
                yield f"process {process.name}: {line.replace(bytes(1), b' ').decode(errors='replace').strip()}"


def _traces() -> Iterator[Path]:
    """Name what tests can leave outside of their temporary directory: files, networks, control groups."""
    for folder, names, files in os.walk(ROOT):
        names[:] = [name for name in names if name not in CACHES and Path(folder, name) != VENV]
        yield from (Path(folder, name) for name in [*names, *files])
    for place in TEMPORARY | NETWORKS:
        yield from place.glob("*")
    for folder, names, _ in os.walk(CONTROL_GROUPS):
        yield from (Path(folder, name) for name in names if re.search("slurm|flowcore", name))


def _ours(path: Path, folder: Path, named: set[str]) -> bool:
    """Whether something that came up during a run comes from it, rather than from another run at the same time."""
    if path.parent in TEMPORARY:
        return path.name in named
    if path.parent in NETWORKS:  # the number in its name is the test process that made it
        owner = re.match(r"fc(\d+)", path.name)
        return owner is not None and any(folder.glob(f"p/**/pid-{owner[1]}"))
    if CONTROL_GROUPS in path.parents:
        with contextlib.suppress(OSError):  # it has just gone
            return not (path / "cgroup.procs").read_bytes()
        return False
    return True


def _named(folder: Path) -> set[str]:
    """Return the names of the temporary files and folders that the files below a folder speak of: logs, scripts."""
    word = re.compile(b"(?:%s)/([\\w.-]+)" % b"|".join(re.escape(os.fsencode(place)) for place in TEMPORARY))
    found: set[str] = set()
    for parent, _, files in os.walk(folder):
        for path in (Path(parent, name) for name in files):
            with contextlib.suppress(OSError):
                if stat.S_ISREG(path.lstat().st_mode):
                    found.update(map(os.fsdecode, word.findall(path.read_bytes())))
    return found


EXAMPLE = "examples/analyze_stdlib.py"
COMMANDS = {
    "example": (example, _install_packages),
    "test": (test, _install_workspace),
    "check": (check, _install_workspace),
    "bench": (bench, _install_workspace),
}

if __name__ == "__main__":
    sys.exit(main())
