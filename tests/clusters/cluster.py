"""What the private clusters of this machine share: hosts, the daemon that holds the queue, and rest after each test."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, TypeVar

import pytest

from clusters.daemons import PATH, Daemon
from clusters.hosts import Hosts
from clusters.packages import give_up, require
from waiting import eventually

BOOT = 120.0
"""Seconds that a part of a cluster may take until it answers."""

HOST_TOOLS = ("ip", "unshare", "nsenter")

C = TypeVar("C", bound="Cluster")


class Cluster(ABC):
    """Hosts n1, n2, ... under a resource manager of their own; files are shared, and this machine is the head.

    Attributes:
        folder: holds everything that the resource manager writes.
        variables: where they are in the environment, the resource manager's commands reach it.
        environment: this process's, with these variables.
        hosts: the hosts.
        master: the daemon that holds the queue.
    """

    title: ClassVar[str]
    """What it is, for a person."""

    packages: ClassVar[tuple[str, ...]]
    """The Debian packages that bring it."""

    commands: ClassVar[tuple[str, ...]]
    """Commands that these packages bring."""

    service: ClassVar[str]
    """Matches the command line of the daemon that each host has."""

    cancel: ClassVar[str]
    """The command that ends jobs."""

    master: Daemon

    def __init__(self, nodes: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fc-"))  # sockets need a short path
        self.folder.chmod(0o755)
        self.variables = self._variables()
        self.environment = {**os.environ, **self.variables, "PATH": PATH}
        self._daemons: list[Daemon] = []
        try:
            self.hosts = Hosts(nodes, self.folder)
            self._boot()
        except BaseException:
            self.close()
            raise

    # What a subclass provides.

    @abstractmethod
    def queue(self) -> list[str]:
        """Return the ids of all users' jobs that wait, run or are just ending."""

    @abstractmethod
    def start_master(self) -> None:
        """Start the daemon that holds the queue; it knows what it knew."""

    @abstractmethod
    def start_node(self, name: str) -> None:
        """Start a host with its daemon."""

    @abstractmethod
    def await_nodes(self, *, beside_jobs: bool = False) -> None:
        """Wait until every host can take jobs, and has none unless they are allowed."""

    @abstractmethod
    def _variables(self) -> dict[str, str]: ...

    @abstractmethod
    def _boot(self) -> None:
        """Start the daemons, and wait until all of it is ready."""

    # What every cluster does.

    @property
    def nodes(self) -> list[str]:
        return self.hosts.names

    def call(self, *words: str, check: bool = True) -> str:
        """Run one of the resource manager's commands, and return what it prints."""
        done = subprocess.run(
            words,
            env=self.environment,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=90,
            check=False,
        )
        if check and done.returncode != 0:
            raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def processes(self) -> list[str]:
        """Return what runs on the hosts beside the resource manager's own daemon."""
        own = re.compile(rf"bash -c hostname|{self.service}")
        return [
            f"{node}: {line}"
            for node in self.nodes
            for line in self.hosts.processes(node).values()
            if not own.match(line)
        ]

    def pids(self, pattern: str) -> list[int]:
        """Return the processes on the hosts whose whole command line matches."""
        tables = [self.hosts.processes(node) for node in self.nodes]
        return [pid for table in tables for pid, line in table.items() if re.fullmatch(pattern, line)]

    def await_rest(self, seconds: float = 90) -> list[str]:
        """Wait until no job and no process is left; return what is left when the time is up."""
        try:
            eventually(lambda: not self.queue() and not self.processes(), seconds, "rest")
        except TimeoutError:
            return [*(f"job {job}" for job in self.queue()), *self.processes()]
        return []

    def clear(self) -> None:
        """End every job."""
        if jobs := self.queue():
            self.call(self.cancel, *jobs, check=False)

    def purge(self) -> None:
        """End every job, and what jobs have left behind, for the sake of the next test."""
        self.clear()
        for node in self.nodes:
            self.kill_node(node)
            self.start_node(node)
        self.await_nodes()

    def kill_node(self, name: str) -> None:
        """Switch a host off: its daemon and all jobs' processes are gone at once, and nobody says so."""
        self.hosts.kill(name)

    def stop_master(self) -> None:
        """Kill the daemon that holds the queue; it has written down every job."""
        self.master.stop(signal.SIGKILL)

    def await_master(self) -> None:
        """Wait until the daemon that holds the queue answers."""
        self._await(lambda: self.queue() is not None, "the master")

    def close(self) -> None:
        """End all of it."""
        if hasattr(self, "master") and self.master.running:
            try:
                self.clear()
                eventually(lambda: not self.queue(), 10, "the end of the jobs")
            except (RuntimeError, TimeoutError, subprocess.TimeoutExpired):
                pass  # the hosts are switched off in a moment
            self.stop_master()
        if hasattr(self, "hosts"):
            self.hosts.close()
        for daemon in reversed(self._daemons):
            daemon.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _await(self, true: Callable[[], object], what: str) -> None:
        """Wait until it is true; a command that fails has yet to be."""

        def tried() -> object:
            try:
                return true()
            except RuntimeError:
                return False

        try:
            eventually(tried, BOOT, what)
        except TimeoutError as error:
            logs = [*self.folder.glob("**/*.out"), *self.folder.glob("**/*.log"), *self.folder.glob("**/messages")]
            said = [path.read_text(errors="replace")[-1000:] for path in sorted(logs)]
            raise RuntimeError("\n".join([str(error), *said])) from error

    @contextmanager
    def known(self) -> Iterator[None]:
        """Let the resource manager's commands in this process reach it."""
        os.environ.update(self.variables)
        try:
            yield
        finally:
            for name in self.variables:
                del os.environ[name]


def boot(kind: type[C], nodes: int) -> C:
    """Boot a cluster; a machine on which that is impossible is a skip, or a failure where the engines are required."""
    if os.name != "posix" or os.geteuid() != 0:
        give_up("hosts of their own (network and process namespaces) need root")
    require((*kind.commands, *HOST_TOOLS), (*kind.packages, "iproute2"))
    try:
        return kind(nodes)
    except (RuntimeError, OSError) as error:
        give_up(f"{kind.title} cannot be booted here: {error}")
        raise pytest.UsageError from error  # not reached: give_up raises


def head() -> str:
    """Return this machine's name."""
    return socket.gethostname().partition(".")[0]


def free_port() -> int:
    """Return a TCP port that nobody uses now, and that no connection gets: a daemon may be away, and come back."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for port in random.sample(range(10_000, max(lowest, 20_000)), 100):
        with contextlib.suppress(OSError), socket.create_server(("", port)):
            return port
    raise RuntimeError("no port is free here")
