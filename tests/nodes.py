"""Nodes that tests pretend to have: managers that come over TCP as from another host, and providers of a cluster's kind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from flowcore.providers import LocalProvider
from flowcore_htex.launch import MANAGER

OVER_TCP = f"{MANAGER} --socket-host elsewhere"
"""A `launch_cmd` whose managers take themselves for ones on another host: they come over TCP."""


class ClusterProvider(LocalProvider):
    """Starts blocks here, but is no provider of this machine: nothing is known of its nodes until they are there."""


def eventually(holds: Callable[[], object], patience: float = 60) -> None:
    """Wait for a state that has no event."""
    deadline = time.monotonic() + patience
    pause = threading.Event()
    while not holds():
        assert time.monotonic() < deadline, "the state was not reached in time"
        pause.wait(0.01)


def listening_ports(pid: int) -> set[int]:
    """Return the TCP ports of any family at which a process listens."""
    return {port for _, port in listening(pid)}


def listening(pid: int) -> set[tuple[str, int]]:
    """Return the addresses, as the kernel writes them, and TCP ports at which a process listens."""
    sockets = {_target(one) for one in Path(f"/proc/{pid}/fd").iterdir()}
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                address, _, port = fields[1].rpartition(":")
                found.add((address, int(port, 16)))
    return found


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:  # closed meanwhile
        return ""
