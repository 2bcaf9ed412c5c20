"""An environment for each system, with that system alone; and how large each is."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
ENVIRONMENTS = HERE / ".environments" / f"{sys.version_info.major}.{sys.version_info.minor}"

REQUIREMENTS: dict[str, tuple[str, ...]] = {
    "parsl": ("parsl==2026.10.26",),
    "dask": ("distributed==2026.8.0",),
    "ray": ("ray==2.60.0",),
    "loky": ("loky==3.7.0",),
    "ppe": (),
}
"""What is installed for each system; flowcore comes from this checkout."""

NUMPY = ("numpy==2.4.6; python_version >= '3.11'", "numpy==2.2.6; python_version < '3.11'")
"""For the payload measures; in a folder of its own, so that it does not count for any system."""

PARTS = ("core", "plugins/htex")
_OWN = ("pip", "setuptools", "pkg_resources", "_distutils_hack", "distutils-precedence")


def python_for(system: str) -> str:
    """Return the Python of a peer's environment, which is made where it has to be."""
    return _installed(ENVIRONMENTS / system, " ".join(REQUIREMENTS[system]), REQUIREMENTS[system])


def python_of_checkout(root: Path) -> str:
    """Return the Python of an environment with the flowcore of a checkout, made anew when its sources have changed."""
    name = "flowcore" if root == HERE.parent else f"flowcore-{hashlib.sha256(str(root).encode()).hexdigest()[:8]}"
    return _of_checkout(root, ENVIRONMENTS / name)


def numpy_folder() -> Path:
    """Return the folder with numpy."""
    folder = ENVIRONMENTS / "numpy"
    if not (folder / "numpy").exists():
        _run(sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder), *NUMPY)
    return folder


def footprint(python: str) -> dict[str, float]:
    """Count the packages of an environment, and the bytes that they take; what a new environment has counts nothing."""
    folder = next(Path(python).parent.parent.glob("lib/python3*/site-packages"))
    entries = [entry for entry in folder.iterdir() if not entry.name.startswith(_OWN)]
    files = [path for entry in entries for path in (entry.rglob("*") if entry.is_dir() else [entry])]
    size = sum(path.stat().st_size for path in files if path.is_file())
    return {"packages": sum(entry.suffix == ".dist-info" for entry in entries), "mb": size / 1e6}


def _of_checkout(root: Path, folder: Path) -> str:
    parts = [root / part for part in PARTS]
    stamp = _digest(parts)
    python = folder / "bin" / "python"
    if _stamp(folder) == stamp:
        return str(python)
    with tempfile.TemporaryDirectory() as wheels:
        for part in parts:
            _run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", wheels, str(part))
        return _installed(folder, stamp, [str(path) for path in Path(wheels).glob("*.whl")])


def _installed(folder: Path, stamp: str, requirements: Sequence[str]) -> str:
    """Make an environment anew unless its stamp says that it is the right one."""
    python = folder / "bin" / "python"
    if _stamp(folder) != stamp:
        shutil.rmtree(folder, ignore_errors=True)
        _run(sys.executable, "-m", "venv", str(folder))
        if requirements:
            _run(str(python), "-m", "pip", "install", "--quiet", *requirements)
        (folder / "stamp").write_text(stamp)
    return str(python)


def _stamp(folder: Path) -> str | None:
    path = folder / "stamp"
    return path.read_text() if path.exists() else None


def _digest(parts: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        for path in sorted([*part.glob("src/**/*"), part / "pyproject.toml"]):
            if path.is_file() and path.suffix != ".pyc":
                digest.update(f"{path.relative_to(part)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def _run(*command: str) -> None:
    """Run a command that is silent unless it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
