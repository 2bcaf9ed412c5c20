"""The numbered folder of one run: 000, 001, ..."""

from __future__ import annotations

from os import PathLike
from pathlib import Path


def make_rundir(parent: str | PathLike[str]) -> Path:
    """Make and return the next numbered folder under `parent`, an absolute path; safe between processes.

    Raises:
        OSError: the folder cannot be made.
    """
    root = Path(parent).absolute()
    root.mkdir(parents=True, exist_ok=True)
    taken = [int(path.name) for path in root.iterdir() if path.name.isdecimal()]
    number = max(taken, default=-1) + 1
    while True:
        candidate = root / f"{number:03}"
        try:
            candidate.mkdir()
        except FileExistsError:
            number += 1
        else:
            return candidate
