"""Hosts on one machine: process trees with a host name, an address, a process table and an /etc/hosts of their own."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import socket
import string
import subprocess
from collections.abc import Sequence
from pathlib import Path

from clusters.daemons import PATH, Daemon
from clusters.packages import locked
from waiting import eventually

_START = 'hostname "$1"; mount --bind "$2" /etc/hosts; shift 2; "$@" & wait'
"""The host's process 1: it reaps what others leave behind, and when it ends, everything on the host ends."""

_letters = itertools.cycle(string.ascii_lowercase)


def ip(*words: str, check: bool = True) -> str:
    done = subprocess.run(
        ["ip", *words], capture_output=True, text=True, env={**os.environ, "PATH": PATH}, timeout=90, check=False
    )
    if check and done.returncode != 0:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


class Hosts:
    """Hosts n1, n2, ... on a bridge; this machine is the head, and files are shared, as on a cluster.

    They reach each other and the head, and nothing else. Each runs one service until it is stopped; a host that is
    killed is gone at once with all that runs on it.
    """

    def __init__(self, count: int, folder: Path) -> None:
        self.names = [f"n{number}" for number in range(1, count + 1)]
        self._folder = folder
        self._tag = f"fc{os.getpid()}{next(_letters)}"  # one process may have several clusters
        self._services: dict[str, Daemon] = {}
        try:
            with locked("ip"):
                _sweep()
                self._subnet = _free_subnet()
                ip("link", "add", self._tag, "type", "bridge")
                ip("addr", "add", f"{self.head}/24", "dev", self._tag)
                ip("link", "set", self._tag, "up")
            for name in self.names:
                self._connect(name)
        except BaseException:
            self.close()
            raise
        lines = [f"{self.head} {socket.gethostname()}", *(f"{self.address(name)} {name}" for name in self.names)]
        (folder / "hosts").write_text("\n".join(["127.0.0.1 localhost", *lines, ""]))

    @property
    def head(self) -> str:
        """The address of this machine, as the hosts see it."""
        return f"{self._subnet}.1"

    def address(self, name: str) -> str:
        return f"{self._subnet}.{10 + int(name[1:])}"

    def start(self, name: str, service: Sequence[str], environment: dict[str, str] | None = None) -> None:
        """Start a host with its one service, which stays in the foreground."""
        inside = ["bash", "-c", _START, "host", name, str(self._folder / "hosts"), *service]
        own = ["unshare", "--uts", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"]
        net = ["nsenter", f"--net=/run/netns/{self._tag}-{name}"]  # `ip netns exec` would hide /sys/fs/cgroup
        self._services[name] = Daemon([*net, *own, *inside], self._folder / f"{name}.out", environment)

    def kill(self, name: str) -> None:
        """Switch a host off."""
        processes = self.processes(name)
        self._services.pop(name).stop(signal.SIGKILL)
        eventually(lambda: not any(_alive(pid) for pid in processes), 60, f"the end of all that ran on {name}")

    def processes(self, name: str) -> dict[int, str]:
        """Return the command lines of what runs on a host, by the pids that this machine knows them by."""
        service = self._services.get(name)
        if service is None:
            return {}
        with contextlib.suppress(OSError, IndexError):
            first = Path(f"/proc/{service.pid}/task/{service.pid}/children").read_text().split()[0]
            space = _space(int(first))
            return {pid: line for pid, line in _all_processes() if _space(pid) == space}
        return {}

    def close(self) -> None:
        """Switch all hosts off, and take their network down."""
        for service in self._services.values():
            service.stop(signal.SIGKILL)
        self._services.clear()
        _remove(self._tag, self.names)

    def _connect(self, name: str) -> None:
        space, link = f"{self._tag}-{name}", f"{self._tag}.{name[1:]}"
        ip("netns", "add", space)
        ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", space)
        ip("link", "set", link, "master", self._tag, "up")
        ip("-n", space, "addr", "add", f"{self.address(name)}/24", "dev", "eth0")
        ip("-n", space, "link", "set", "lo", "up")
        ip("-n", space, "link", "set", "eth0", "up")


def _free_subnet() -> str:
    """Return the first three numbers of a network that nobody has; 198.18.0.0/15 is for tests, and routed nowhere."""
    taken = ip("-4", "-o", "addr")
    for number in range(256):
        if f" 198.18.{number}." not in taken:
            return f"198.18.{number}"
    raise RuntimeError("all of 198.18.0.0/16 is in use here")


def _sweep() -> None:
    """Remove the networks of test processes that were killed: the number in a name is the process."""
    for listing, kind in ((ip("-o", "link"), "link"), (ip("netns", "list"), "netns")):
        for name, owner in re.findall(r"^(?:\d+: )?(fc(\d+)[\w.-]*)", listing, re.MULTILINE):
            if not Path(f"/proc/{owner}").exists():
                ip(kind, "del", name, check=False)


def _remove(tag: str, names: Sequence[str]) -> None:
    for name in names:
        ip("link", "del", f"{tag}.{name[1:]}", check=False)  # the space goes later, and would keep the name until then
        ip("netns", "del", f"{tag}-{name}", check=False)
    ip("link", "del", tag, check=False)


def _all_processes() -> list[tuple[int, str]]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            if _alive(int(process.name)):
                found.append((int(process.name), line))
    return found


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def _space(pid: int) -> str | None:
    try:
        return str(Path(f"/proc/{pid}/ns/pid").readlink())
    except OSError:
        return None
