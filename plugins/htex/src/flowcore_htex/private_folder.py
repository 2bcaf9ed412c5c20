"""The folder of a run's local socket: private, named shortly, and removed by whoever of the run lives longest."""
# ruff: noqa: PTH106, PTH108, PTH116, PTH120, PTH123 - these processes have to start fast, and pathlib is slow to import

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


def view() -> str | None:
    """Identify the view of the file system that this process has; None where that cannot be told.

    Processes with the same view see the same folders: one boot of one kernel, one mount namespace (`man 7
    mount_namespaces`), one root. A container has another view, and so has a job with a /tmp of its own.
    """
    try:
        with open("/proc/sys/kernel/random/boot_id") as boot:
            mounts, root = os.stat("/proc/self/ns/mnt"), os.stat("/")
            return f"{boot.read().strip()}.{mounts.st_ino}.{root.st_dev}.{root.st_ino}"
    except OSError:
        return None


def remove(socket_path: str) -> None:
    """Remove the local socket and its folder, for those who could not."""
    try:
        os.unlink(socket_path)
        os.rmdir(os.path.dirname(socket_path))
    except OSError:
        pass
