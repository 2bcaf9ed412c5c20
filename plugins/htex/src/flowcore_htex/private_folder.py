"""The folder of a run's local socket: private, named shortly, and removed by whoever of the run lives longest."""
# ruff: noqa: PTH106, PTH108, PTH120 - these processes have to start fast, and pathlib is slow to import

from __future__ import annotations

import os
from typing import Final

_PATH_LIMIT: Final = 100


def make() -> str:
    """Make a folder of mode 0700 whose name is short enough for a socket."""
    import tempfile

    folder = tempfile.mkdtemp(prefix="flowcore-")
    if len(folder) > _PATH_LIMIT:
        os.rmdir(folder)
        folder = tempfile.mkdtemp(prefix="flowcore-", dir="/tmp")
    return folder


def remove(socket_path: str) -> None:
    """Remove the local socket and its folder, for those who could not."""
    try:
        os.unlink(socket_path)
        os.rmdir(os.path.dirname(socket_path))
    except OSError:
        pass
