"""Which of the interchange's addresses can be reached from here: ask at all of them at once."""

from __future__ import annotations

import ipaddress
import time
from typing import Any

import zmq

from flowcore_htex import wire
from flowcore_htex.curve import Keys, read_keys
from flowcore_htex.log import Log
from flowcore_htex.zlink import ZmqLink, from_frames, new_socket, secure_client


def endpoint(address: str, port: int) -> str:
    """Return ZeroMQ's name of a TCP endpoint."""
    try:
        version = ipaddress.ip_address(address).version
    except ValueError:
        version = 4
    return f"tcp://[{address}]:{port}" if version == 6 else f"tcp://{address}:{port}"


def probe(settings: dict[str, Any], deadline: float, journal: Log) -> ZmqLink | None:
    """Return a link to the first address that answers until `deadline` (`time.monotonic`), None if none does."""
    keys = _keys(settings, deadline)
    poller = zmq.Poller()
    candidates = {}
    links = {}
    for address in settings["addresses"]:
        for port in settings["ports"]:
            sock = new_socket(zmq.DEALER)
            secure_client(sock, keys)
            links[sock] = ZmqLink(sock)
            sock.connect(endpoint(address, port))
            links[sock].send(wire.PROBE)
            poller.register(sock, zmq.POLLIN)
            candidates[sock] = endpoint(address, port)
    found = None
    while found is None and (left := deadline - time.monotonic()) > 0:
        for sock, _ in poller.poll(int(1000 * left) + 1):
            try:
                kind = from_frames(sock.recv_multipart(copy=False))[0]
            except wire.ProtocolError as error:
                journal.warning(f"{candidates[sock]} answers, but not as an interchange: {error}")
                continue
            if kind == wire.PROBE:
                found = sock
                break
    for sock, name in candidates.items():
        if sock is found:
            journal.info(f"connected to {name}")
        else:
            links[sock].close(0)
    return links[found] if found is not None else None


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
