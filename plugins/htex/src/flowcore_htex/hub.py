"""The interchange's side of ZeroMQ: one ROUTER for all managers on other hosts."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import zmq

from flowcore_htex import wire
from flowcore_htex.curve import Keys
from flowcore_htex.link import Message
from flowcore_htex.log import Log
from flowcore_htex.loop import Loop
from flowcore_htex.peers import Manager
from flowcore_htex.zlink import (
    Connections,
    authenticator,
    context,
    descriptor_of,
    from_frames,
    new_socket,
    readable,
    secure_server,
    to_frames,
)

_LINGER: Final = 200
"""Milliseconds for what is still to be sent at the end."""


class HubPeer:
    """A manager on another host."""

    def __init__(self, router: zmq.Socket[bytes], identity: bytes) -> None:
        self._router = router
        self.identity = identity
        self.descriptor = -1
        self.heard = time.monotonic()
        self.known = False
        self.manager: Manager | None = None

    def accept(self) -> None:
        """See `Peer`."""
        self.known = True

    def queue(self, kind: int, head: bytes = b"", buffers: Sequence[Any] = ()) -> None:
        """Send; ZeroMQ has queues of its own, and drops what is for a peer that is gone."""
        try:
            self._router.send_multipart([self.identity, *to_frames(kind, head, buffers)], zmq.NOBLOCK, copy=not buffers)
        except zmq.ZMQError:
            pass

    def flush(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do: the connection is the peer's to close."""


Received = Callable[[Any, Message], None]


class Hub:
    """Takes over listening TCP sockets, and hands on what authenticated peers send.

    Args:
        listeners: listening sockets, as (descriptor, endpoint); they stay the caller's.
        keys: the run's keys, None for no encryption.
        loop: where the sockets are watched.
        received: called with a peer and a message of it.
        lost: called with a peer whose connection was closed.
        log: the interchange's log.
    """

    def __init__(
        self,
        listeners: Sequence[tuple[int, str]],
        keys: Keys | None,
        loop: Loop,
        received: Received,
        lost: Callable[[Any], None],
        log: Log,
    ) -> None:
        self._received = received
        self._lost = lost
        self._log = log
        self._loop = loop
        self._peers: dict[bytes, HubPeer] = {}
        self._authenticator = authenticator(keys) if keys is not None else None
        self._router = new_socket(zmq.ROUTER)
        secure_server(self._router, keys)
        self._connections = Connections(self._router)
        for descriptor, endpoint in listeners:
            self._router.setsockopt(zmq.USE_FD, os.dup(descriptor))
            self._router.bind(endpoint)
        self._watched = [self._router, self._connections.monitor]
        if self._authenticator is not None:
            self._watched.append(self._authenticator.socket)
        for sock in self._watched:
            loop.watch(descriptor_of(sock), lambda _descriptor: self.serve())

    def pending(self) -> bool:
        """Whether there is something that the loop would not tell of; ZeroMQ's descriptors are edge-triggered."""
        return any(map(readable, self._watched))

    def serve(self) -> None:
        """Handle what has arrived, connections that were closed first: their descriptors may be in use again."""
        if self._authenticator is not None:
            refused = self._authenticator.serve()
            if refused:
                self._log.warning(f"refused {refused} connections with a wrong key")
        self._part()
        for _ in range(1000):
            if not readable(self._router):
                return
            identity, *frames = self._router.recv_multipart(copy=False)
            self._serve_frames(bytes(identity.buffer), frames)

    def _part(self) -> None:
        """Tell of the peers whose connections were closed."""
        for descriptor in self._connections.update():
            for peer in [peer for peer in self._peers.values() if peer.descriptor == descriptor]:
                self._lose(peer)

    def _lose(self, peer: HubPeer) -> None:
        del self._peers[peer.identity]
        self._lost(peer)

    def _serve_frames(self, identity: bytes, frames: Sequence[Any]) -> None:
        peer = self._peers.get(identity)
        try:
            message = from_frames(frames)
            if peer is None:
                peer = HubPeer(self._router, identity)
            registers = message[0] == wire.REGISTER
            if registers:
                self._part()  # whoever had the descriptor before
                peer.descriptor = int(frames[0].get(zmq.SRCFD))
                self._peers[identity] = peer
            peer.heard = time.monotonic()
            self._received(peer, message)
            if registers and peer.descriptor not in self._connections.open:
                self._lose(peer)
        except wire.MALFORMED as error:
            self._log.warning(f"dropped a message over TCP: {error}")

    def close(self) -> None:
        """Close all sockets, after a moment for what is still to be sent."""
        self._connections.close()
        context().destroy(linger=_LINGER)
