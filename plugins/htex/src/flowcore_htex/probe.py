"""Which of the interchange's addresses can be reached from here: ask at all of them at once."""

from __future__ import annotations

import ipaddress
import time
from typing import Any

import zmq

from flowcore_htex import wire
from flowcore_htex.curve import Keys, read_keys
from flowcore_htex.log import Log
from flowcore_htex.zlink import ZmqLink, new_socket, readable, secure_client


def endpoint(address: str, port: int) -> str:
    """Return ZeroMQ's name of a TCP endpoint."""
    try:
        version = ipaddress.ip_address(address).version
    except ValueError:
        version = 4
    return f"tcp://[{address}]:{port}" if version == 6 else f"tcp://{address}:{port}"


class _Candidate:
    """An address at which there may be an interchange; whoever is reached there is asked."""

    def __init__(self, name: str, keys: Keys | None) -> None:
        self.name = name
        self.socket = new_socket(zmq.DEALER)
        secure_client(self.socket, keys)
        self.link = ZmqLink(self.socket)
        self.socket.connect(name)
        self._asked = 0

    def answers(self, journal: Log) -> bool:
        """Ask those who have been reached since, and tell whether one has answered as an interchange, and is there."""
        while self._asked < self.link.handshakes():  # a connection may break before the answer, and be made again
            self._asked += 1
            self.link.send(wire.PROBE)
        while readable(self.socket):
            try:
                if self.link.admit() == wire.PROBE:
                    return True
            except wire.ProtocolError as error:
                journal.warning(f"{self.name} answers, but not as an interchange: {error}")
        return False


def probe(settings: dict[str, Any], deadline: float, journal: Log) -> ZmqLink | None:
    """Return a link to the first address that answers until `deadline` (`time.monotonic`), None if none does."""
    keys = _keys(settings, deadline)
    candidates = [
        _Candidate(endpoint(address, port), keys) for address in settings["addresses"] for port in settings["ports"]
    ]
    poller = zmq.Poller()
    for candidate in candidates:
        poller.register(candidate.socket, zmq.POLLIN)
        poller.register(candidate.link.monitor, zmq.POLLIN)
    found = None
    while found is None and (left := deadline - time.monotonic()) > 0:
        poller.poll(int(1000 * left) + 1)
        found = next((candidate for candidate in candidates if candidate.answers(journal)), None)
    for candidate in candidates:
        if candidate is not found:
            candidate.link.close(0)
    if found is None:
        return None
    journal.info(f"connected to {found.name}")
    return found.link


def _keys(settings: dict[str, Any], deadline: float) -> Keys | None:
    if not settings["cert_dir"]:
        return None
    while True:
        try:
            return read_keys(settings["cert_dir"])
        except FileNotFoundError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)  # a shared file system may show the files late
