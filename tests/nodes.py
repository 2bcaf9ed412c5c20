"""Nodes that tests pretend to have, and what the kernel of this machine knows of the processes that serve them."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flowcore.executors.base import RunContext
from flowcore.providers import LocalProvider
from flowcore.testing.leftovers import Leftovers
from flowcore_htex.executor import HighThroughputExecutor
from flowcore_htex.launch import MANAGER
from waiting import PATIENCE

OVER_TCP = f"{MANAGER} --socket-host elsewhere"
"""A `launch_cmd` whose managers take themselves for ones on another host: they come over TCP."""

OVER_LOOPBACK = f"{OVER_TCP} --addresses '[\"127.0.0.1\"]'"
"""The same, but for the addresses of networks that other tests make, and take away again."""


class Executors:
    """Starts executors, each in a folder of its own; in the end they are shut down, and must leave nothing."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._leftovers = Leftovers()
        self._started: list[HighThroughputExecutor] = []

    def start(self, **options: Any) -> HighThroughputExecutor:
        """Start an executor with one worker, or what the options say."""
        executor = HighThroughputExecutor(**{"max_workers": 1, **options})
        number = len(self._started)
        self._started.append(executor)
        run_dir = self._folder / f"run-{number}"
        run_dir.mkdir()
        executor.start(RunContext(run_id=f"{os.getpid()}-{number}", run_dir=run_dir, log_level=logging.INFO))
        return executor

    def __enter__(self) -> Executors:
        return self

    def __exit__(self, *_: object) -> None:
        self._leftovers.watch()
        for executor in self._started:
            executor.shutdown()
        assert self._leftovers.after(PATIENCE) == []


class ClusterProvider(LocalProvider):
    """Starts blocks here, but is no provider of this machine: nothing is known of its nodes until they are there."""


def node(cores: int = 4, memory: float | None = None) -> LocalProvider:
    """Return a provider whose one node pretends to have so many cores, and so much memory in GB."""
    return LocalProvider(cores_per_node=cores, mem_per_node=memory)


def below(pid: int | None = None) -> dict[int, str]:
    """Return the command lines of all living processes below this one, by process id."""
    parents: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):  # not "[0-9]*/stat": glob raises where a process ends meanwhile
        try:
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
        except OSError:  # it has just ended
            continue
        if state != "Z":
            parents.setdefault(int(parent), []).append(int(folder.name))
    found = list(parents.get(pid or os.getpid(), ()))
    for one in found:  # grows while it is read
        found += parents.get(one, ())
    return {one: _read(f"/proc/{one}/cmdline").replace("\0", " ").strip() for one in found}


def process_with(word: str) -> int:
    """Return the only process below this one with the word in its command line."""
    (pid,) = [pid for pid, line in below().items() if word in line.split("/bin/bash")[0]]
    return pid


def listening(pid: int) -> set[tuple[str, int]]:
    """Return the addresses and TCP ports at which a process listens."""
    sockets = set(_targets(f"/proc/{pid}/fd"))
    found = set()
    for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in _read(f"/proc/{pid}/net/{table}").splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                address, _, port = fields[1].rpartition(":")
                words = [bytes.fromhex(address[at : at + 8])[::-1] for at in range(0, len(address), 8)]
                found.add((socket.inet_ntop(family, b"".join(words)), int(port, 16)))
    return found


def ports(pid: int) -> set[int]:
    """Return the TCP ports at which a process listens."""
    return {port for _, port in listening(pid)}


def free_ports(count: int) -> list[int]:
    """Return TCP ports that nobody uses now, and that the kernel gives to nobody who does not name them."""
    found: list[int] = []
    for port in random.sample(range(15_000, 32_000), 1000):
        with contextlib.suppress(OSError), socket.create_server(("", port)):
            found.append(port)
        if len(found) == count:
            break
    return found


def has_ipv6() -> bool:
    """Whether this machine has the loopback address of IPv6."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def _targets(folder: str) -> Iterator[str]:
    for link in Path(folder).iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            yield str(link.readlink())


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:  # it has ended
        return ""
