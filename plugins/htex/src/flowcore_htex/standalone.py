"""An interchange that inherits nothing: it listens itself, and the user's process comes to it over TCP."""
# ruff: noqa: PTH108, PTH110 - these processes have to start fast, and pathlib is slow to import

from __future__ import annotations

import json
import os
import random
import socket
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import zmq

from flowcore_htex.curve import read_keys
from flowcore_htex.doors import Listeners
from flowcore_htex.link import Link
from flowcore_htex.probe import endpoint
from flowcore_htex.zlink import (
    Authenticator,
    ZmqLink,
    authenticator,
    new_socket,
    readable,
    secure_server,
)

_ARRIVAL: Final = 30.0

Listen = Callable[..., "list[socket.socket]"]


def connect_over_tcp(settings: dict[str, Any], listen: Listen) -> tuple[Link, Listeners]:
    """Bind everything, and say on standard output where; returns the link and the listening sockets."""
    local = socket.socket(socket.AF_UNIX)
    if os.path.exists(settings["socket"]):
        os.unlink(settings["socket"])
    local.bind(settings["socket"])
    local.listen(4096)
    tcp = listen(settings["address"], settings["ports"], tuple(settings["port_range"]))
    keys = read_keys(settings["cert_dir"]) if settings["cert_dir"] else None
    doorman = authenticator(keys) if keys is not None else None
    sock = new_socket(zmq.PAIR)
    secure_server(sock, keys)
    link = ZmqLink(sock)
    port = _bind(sock, settings["client"], tuple(settings["client_port_range"]))
    said = {"client_port": port, "ports": [listener.getsockname()[1] for listener in tcp]}
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # nobody reads what else is said there
    _await_client(sock, doorman)
    link.admit()
    return link, Listeners(local, tcp)


def _await_client(sock: zmq.Socket[bytes], doorman: Authenticator | None) -> None:
    """Wait for the first message of the user's process; nothing can be sent before."""
    poller = zmq.Poller()
    poller.register(sock, zmq.POLLIN)
    if doorman is not None:
        poller.register(doorman.socket, zmq.POLLIN)
    deadline = time.monotonic() + _ARRIVAL
    while not readable(sock):
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the user's process did not come")
        poller.poll(int(1000 * left) + 1)
        if doorman is not None:
            doorman.serve()


def _bind(sock: zmq.Socket[bytes], address: str, port_range: tuple[int, int]) -> int:
    sock.setsockopt(zmq.IPV6, int(":" in address))
    low, high = port_range
    for port in random.sample(range(low, high), min(200, high - low)):
        try:
            sock.bind(endpoint(address, port))
        except zmq.ZMQError:
            continue
        return port
    raise OSError(f"no port from {low} to {high - 1} is free at {address}")
