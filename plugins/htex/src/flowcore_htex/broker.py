"""The interchange process as the user's process starts it: its sockets, its settings, its end."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from flowcore_htex import private_folder, wire
from flowcore_htex.addresses import kept, listen_on_ports
from flowcore_htex.link import Link, StreamLink

if TYPE_CHECKING:
    from flowcore_htex.zlink import ZmqLink

_START: Final = 30.0
"""Seconds that an interchange may take to say that it is there."""


class InterchangeFailed(Exception):
    """The interchange process could not be started."""


class Broker:
    """Starts interchange processes, one after the other, at the same addresses.

    Normally the sockets at which managers knock are made here and inherited by the interchange, so that nobody who
    knocks is turned away while a new interchange is started; and so is the connection to it. An interchange started by
    a command of the user's, or reached at another address than 127.0.0.1, makes its own, and is reached over TCP; the
    ports of such a one are kept, on this host, for the next.

    `death` is a descriptor that becomes readable when the process ends, where the connection to it would not tell.

    Args:
        command: the words of the command.
        settings: what the interchange needs to know; see `interchange.py`.
        own: whether the interchange makes its own sockets.
        output: file to which their standard error goes, one after the other.
        environment: its environment.
    """

    def __init__(
        self, command: list[str], settings: dict[str, Any], *, own: bool, output: Path, environment: dict[str, str]
    ) -> None:
        self._command = command
        self._settings = settings
        self._own = own
        self._output = output
        self._environment = environment
        self.folder = Path(private_folder.make())
        self.socket_path = str(self.folder / "i")
        self.process: subprocess.Popen[bytes] | None = None
        self.ports: list[int] = []
        self.death: int | None = None
        self._beginning = 0
        self._local: socket.socket | None = None
        self._tcp: list[socket.socket] = []

    @property
    def inherited(self) -> bool:
        """Whether the listening sockets are this process' own, and last as long as it does."""
        return not self._own

    def listen(self) -> None:
        """Make the listening sockets, where the interchange is to inherit them; raises `OSError`."""
        if self._own:
            return
        self._local = socket.socket(socket.AF_UNIX)
        self._local.bind(self.socket_path)
        self._local.listen(4096)
        settings = self._settings
        self._tcp = listen_on_ports(settings["address"], settings["ports"], settings["port_range"])
        self.ports = [listener.getsockname()[1] for listener in self._tcp]

    def launch(self, expected: list[str]) -> Link:
        """Start an interchange, and return the link to it.

        Args:
            expected: names of the managers that served the one before.

        Raises:
            InterchangeFailed: it cannot be started, or ends at once.
        """
        settings = {**self._settings, "socket": self.socket_path, "expected_managers": expected}
        if self.ports:
            settings["ports"] = self.ports
        if not self._own:
            return self._launch_inheriting(settings)
        with kept(settings["address"], self.ports):
            process = self._start(settings, [], subprocess.PIPE)
            with contextlib.suppress(OSError, AttributeError):  # an old kernel, or a Python built for one
                self.death = os.pidfd_open(process.pid)
            said = self._listen_to(process)
        if said is None:
            raise InterchangeFailed(f"the interchange did not say where it is: {self._evidence()}")
        self.ports = said["ports"]
        return self._connect(said["client_port"])

    def _launch_inheriting(self, settings: dict[str, Any]) -> Link:
        assert self._local is not None
        ours, theirs = socket.socketpair()
        descriptors = [theirs.fileno(), self._local.fileno(), *[listener.fileno() for listener in self._tcp]]
        settings |= {
            "client": "inherited",
            "client_descriptor": descriptors[0],
            "local_descriptor": descriptors[1],
            "tcp_descriptors": descriptors[2:],
        }
        try:
            self._start(settings, descriptors, subprocess.DEVNULL)
        except InterchangeFailed:
            ours.close()
            raise
        finally:
            theirs.close()
        return StreamLink(ours)

    def _start(self, settings: dict[str, Any], descriptors: list[int], output: int) -> subprocess.Popen[bytes]:
        try:
            with self._output.open("ab") as errors:
                self._beginning = errors.tell()
                self.process = subprocess.Popen(
                    self._command,
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=errors,
                    pass_fds=descriptors,
                    start_new_session=True,
                    env=self._environment,
                )
        except OSError as error:
            raise InterchangeFailed(f"{' '.join(self._command)}: {error}") from error
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError), self.process.stdin as stream:
            stream.write(json.dumps(settings).encode() + b"\n")
        return self.process

    def _listen_to(self, process: subprocess.Popen[bytes]) -> dict[str, Any] | None:
        """Wait for the line in which the interchange says where it is; None if there is none in time.

        What its command says before goes where its standard error does.
        """
        assert process.stdout is not None
        descriptor = process.stdout.fileno()
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        deadline = time.monotonic() + _START
        rest = b""
        with self._output.open("ab") as others:
            while True:
                left = deadline - time.monotonic()
                part = os.read(descriptor, 4096) if left > 0 and poller.poll(1000 * left) else b""
                *lines, rest = (rest + part).split(b"\n")
                for line in lines:
                    if (said := _whereabouts(line)) is not None:
                        return said
                    others.write(line + b"\n")
                if not part:
                    others.write(rest)
                    return None

    def _connect(self, port: int) -> ZmqLink:
        import zmq

        from flowcore_htex.curve import read_keys
        from flowcore_htex.probe import endpoint
        from flowcore_htex.zlink import ZmqLink, new_socket, secure_client

        sock = new_socket(zmq.PAIR)
        secure_client(sock, read_keys(self._settings["cert_dir"]) if self._settings["cert_dir"] else None)
        link = ZmqLink(sock)
        sock.connect(endpoint(self._settings["client"], port))
        link.send(wire.PROBE)
        return link

    def _evidence(self) -> str:
        """Return what is known of the end of the process."""
        assert self.process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(1)
        words = ""
        if self._output.exists():
            with self._output.open("rb") as errors:
                errors.seek(self._beginning)
                words = errors.read().decode(errors="replace")[-2000:].strip()
        return f"exit code {self.process.poll()}; {words or 'nothing on its standard error'}"

    def reap(self, patience: float = 0.0) -> str:
        """Make sure that the process is gone, after `patience` seconds by force; returns how it ended."""
        process = self.process
        if process is None:
            return "it was never started"
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
        if self.death is not None:
            os.close(self.death)
            self.death = None
        return self._evidence()

    def close_sockets(self) -> None:
        """Close the listening sockets."""
        for listener in [*self._tcp, *([self._local] if self._local else [])]:
            listener.close()

    def close(self) -> None:
        """Close the sockets and remove the private folder."""
        self.close_sockets()
        shutil.rmtree(self.folder, ignore_errors=True)


def _whereabouts(line: bytes) -> dict[str, Any] | None:
    """Read the json in which an interchange says where it is; None for any other line."""
    try:
        said = json.loads(line)
    except ValueError:
        return None
    return said if isinstance(said, dict) and "client_port" in said else None
