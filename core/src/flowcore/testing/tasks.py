"""Functions that the conformance suites run as tasks; a worker process imports them, so they import little."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path
from typing import Any


def echo(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments."""
    return args, kwargs


def fail(kind: type[BaseException], *args: Any) -> None:
    """Raise `kind(*args)`."""
    raise kind(*args)


def type_name(value: object) -> str:
    """Return the name of the value's type."""
    return type(value).__name__


def make_lock() -> Any:
    """Return what cannot be pickled."""
    return threading.Lock()


def touch(path: str) -> None:
    """Leave a file as the trace of having run."""
    Path(path).touch()


def hold(port: int) -> int:
    """Tell the `Gate` at the port of this host that the task runs, wait until it opens, return the process id."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.recv(1)
    return os.getpid()
