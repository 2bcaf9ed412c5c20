"""Where managers come in: a Unix socket on this host, and ZeroMQ, which is loaded when somebody comes over TCP."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from flowcore_htex import wire
from flowcore_htex.curve import read_keys
from flowcore_htex.link import LinkClosed, Message, StreamLink
from flowcore_htex.log import Log
from flowcore_htex.loop import Loop
from flowcore_htex.peers import Peer, StreamPeer

if TYPE_CHECKING:
    from flowcore_htex.hub import Hub

_CREDENTIALS: Final = struct.Struct("3i")
_STRANGER: Final = 1 << 24
"""Bytes that a message may have before the sender has registered."""

_PATIENCE: Final = 30.0
"""Seconds that a connection may take to register."""


class Listeners:
    """The sockets at which managers knock: one on this host, any number for TCP."""

    def __init__(self, local: socket.socket, tcp: list[socket.socket]) -> None:
        self.local = local
        self.tcp = tcp
        local.setblocking(False)


class Doors:
    """Accepts connections, and hands on what comes over them.

    Args:
        listeners: the listening sockets.
        cert_dir: folder of the run's keys; None for no encryption over TCP.
        loop: where all is waited for.
        log: the interchange's log.
        received: called with a peer and a message of it; may raise what is in `wire.MALFORMED`.
        lost: called with a peer whose connection is closed, and how that came.
    """

    def __init__(
        self,
        listeners: Listeners,
        cert_dir: str | None,
        loop: Loop,
        log: Log,
        received: Callable[[Peer, Message], None],
        lost: Callable[[Peer, str], None],
    ) -> None:
        self._listeners = listeners
        self._cert_dir = cert_dir
        self._loop = loop
        self._log = log
        self._received = received
        self._lost = lost
        self._hub: Hub | None = None
        self._local: dict[int, StreamPeer] = {}
        self._held_back = False
        self._full = False

    def open(self) -> None:
        """Begin to accept connections."""
        self._loop.watch(self._listeners.local.fileno(), self._on_knock)
        if self._hub is None:
            for listener in self._listeners.tcp:
                self._loop.watch(listener.fileno(), self._on_tcp_knock)

    def open_hub(self) -> None:
        """Load ZeroMQ, and let it take over the listening TCP sockets."""
        from flowcore_htex.hub import Hub

        for listener in self._listeners.tcp:
            self._loop.unwatch(listener.fileno())
        keys = read_keys(self._cert_dir) if self._cert_dir else None
        listeners = [(listener.fileno(), _endpoint(listener)) for listener in self._listeners.tcp]
        self._hub = Hub(listeners, keys, self._loop, self._received, self._on_hub_lost, self._log)

    def pending(self) -> bool:
        """Whether there is something that the loop would not tell of."""
        return self._hub is not None and self._hub.pending()

    def serve_pending(self) -> None:
        """Handle it."""
        if self._hub is not None:
            self._hub.serve()

    def hold_back(self, yes: bool) -> None:
        """Stop reading from managers on this host, or begin again."""
        self._held_back = yes
        for descriptor, peer in self._local.items():
            peer.link.heard = time.monotonic()
            self._watch(descriptor, peer)

    def _watch(self, descriptor: int, peer: StreamPeer) -> None:
        backlog = bool(peer.link.backlog)
        self._loop.watch(descriptor, self._on_local, readable=not self._held_back, writable=backlog)

    def sweep(self, now: float) -> None:
        """Drop connections that have not registered in time, and try to accept again; `now` is `time.monotonic`'s."""
        self._watch_for_knocks()
        for descriptor, peer in list(self._local.items()):
            if not peer.known and now - peer.since > _PATIENCE:
                self._close_local(descriptor, "never registered")

    def close(self) -> None:
        """Close what ZeroMQ has open; all else ends with the process."""
        if self._hub is not None:
            self._hub.close()

    def _on_knock(self, _descriptor: int) -> None:
        try:
            sock, _ = self._listeners.local.accept()
        except BlockingIOError:
            return
        except OSError as error:
            self._make_room(error)
            return
        _pid, user, _group = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if user not in (os.getuid(), 0):
            self._log.warning(f"refused a connection of user {user}")
            sock.close()
            return
        descriptor, peer = sock.fileno(), StreamPeer(StreamLink(sock))
        peer.link.limit = _STRANGER
        peer.link.on_blocked = lambda _blocked: self._watch(descriptor, peer)
        self._local[descriptor] = peer
        self._watch(descriptor, peer)

    def _make_room(self, error: OSError) -> None:
        """Close the oldest connection that has not registered; where there is none, wait a while."""
        self._log.warning(f"a connection cannot be accepted: {error}")
        for descriptor, peer in self._local.items():
            if not peer.known:
                self._close_local(descriptor, "had to make room")
                return
        self._full = True
        self._loop.unwatch(self._listeners.local.fileno())

    def _on_tcp_knock(self, _descriptor: int) -> None:
        self.open_hub()

    def _on_local(self, descriptor: int) -> None:
        peer = self._local.get(descriptor)
        if peer is None:
            return
        if peer.link.backlog:
            peer.flush()
        try:
            for message in peer.link.receive():
                self._received(peer, message)
        except LinkClosed as error:
            self._close_local(descriptor, f"closed its connection ({error})")
        except wire.MALFORMED as error:
            self._log.warning(f"dropped a connection: {error}")
            self._close_local(descriptor, f"sent what is no message: {error}")

    def _close_local(self, descriptor: int, why: str) -> None:
        peer = self._local.pop(descriptor)
        self._loop.unwatch(descriptor)
        peer.close()
        self._watch_for_knocks()
        self._lost(peer, why)

    def _watch_for_knocks(self) -> None:
        if self._full:
            self._full = False
            self._loop.watch(self._listeners.local.fileno(), self._on_knock)

    def _on_hub_lost(self, peer: Any) -> None:
        self._lost(peer, "closed its connection")


def _endpoint(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"
