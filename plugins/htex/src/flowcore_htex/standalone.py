"""An interchange that inherits nothing: it listens itself, and the user's process comes to it over TCP."""
# ruff: noqa: PTH - these processes have to start fast, and pathlib costs more than all they do with paths

from __future__ import annotations

import json
import os
import random
import socket
import sys
from collections.abc import Callable
from typing import Any

import zmq

from flowcore_htex.curve import read_keys
from flowcore_htex.doors import Listeners
from flowcore_htex.link import Link
from flowcore_htex.probe import endpoint
from flowcore_htex.zlink import ZmqLink, authenticator, new_socket, secure_server

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
    if keys is not None:
        authenticator(keys)
    sock = new_socket(zmq.PAIR)
    secure_server(sock, keys)
    port = _bind(sock, settings["client"], tuple(settings["client_port_range"]))
    link = ZmqLink(sock)
    said = {"client_port": port, "ports": [listener.getsockname()[1] for listener in tcp]}
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()
    return link, Listeners(local, tcp)


def _bind(sock: zmq.Socket[bytes], address: str, port_range: tuple[int, int]) -> int:
    low, high = port_range
    for port in random.sample(range(low, high), min(200, high - low)):
        try:
            sock.bind(endpoint(address, port))
        except zmq.ZMQError:
            continue
        return port
    raise OSError(f"no port from {low} to {high - 1} is free at {address}")
