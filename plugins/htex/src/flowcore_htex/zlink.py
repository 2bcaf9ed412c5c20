"""Links over ZeroMQ, for peers on other hosts: encrypted, and aware of a closed connection."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import zmq
from zmq.utils.monitor import recv_monitor_message

from flowcore_htex import wire
from flowcore_htex.curve import Keys
from flowcore_htex.link import LinkClosed, Message
from flowcore_htex.wire import ProtocolError

_LINGER: Final = 1000
_OPENED: Final = zmq.EVENT_CONNECTED | zmq.EVENT_ACCEPTED


@functools.cache
def context() -> zmq.Context[zmq.Socket[bytes]]:
    """Return this process' own context; the one that pyzmq shares belongs to the user.

    Its sockets have no limits of their own, monitors included: ZeroMQ's thread would wait for ever at a full one that
    is being closed. What flows is limited above.
    """
    made = zmq.Context()
    made.setsockopt(zmq.SNDHWM, 0)
    made.setsockopt(zmq.RCVHWM, 0)
    return made


def new_socket(kind: int) -> zmq.Socket[bytes]:
    """Return a socket with the options that all have here."""
    sock = context().socket(kind)
    sock.setsockopt(zmq.LINGER, _LINGER)
    sock.setsockopt(zmq.IPV6, 1)
    sock.setsockopt(zmq.TCP_KEEPALIVE, 1)
    sock.setsockopt(zmq.RECONNECT_IVL, 50)
    return sock


def readable(sock: zmq.Socket[bytes]) -> bool:
    """Whether there is something to receive."""
    return bool(int(sock.getsockopt(zmq.EVENTS)) & zmq.POLLIN)


def descriptor_of(sock: zmq.Socket[bytes]) -> int:
    """Return the descriptor to wait on; it is edge-triggered, so ask `readable` before each wait."""
    return int(sock.getsockopt(zmq.FD))


def secure_client(sock: zmq.Socket[bytes], keys: Keys | None) -> None:
    """Prove to be of this run, and talk to this run's server only."""
    if keys is not None:
        sock.curve_publickey = keys.client_public
        sock.curve_secretkey = keys.client_secret
        sock.curve_serverkey = keys.server_public


def secure_server(sock: zmq.Socket[bytes], keys: Keys | None) -> None:
    """Accept clients that prove to be of this run; the authenticator checks their key."""
    if keys is not None:
        sock.curve_server = True
        sock.curve_publickey = keys.server_public
        sock.curve_secretkey = keys.server_secret
        sock.setsockopt_string(zmq.ZAP_DOMAIN, "flowcore")


class Authenticator:
    """Answers ZeroMQ's authentication requests: only the run's own client key may connect (RFC 27)."""

    def __init__(self, keys: Keys) -> None:
        self._accepted = keys.client_public_bytes
        self.socket = context().socket(zmq.REP)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.bind("inproc://zeromq.zap.01")

    def serve(self) -> int:
        """Answer what has been asked; returns how many were refused."""
        refused = 0
        while readable(self.socket):
            version, request, _domain, _address, _identity, mechanism, *credentials = self.socket.recv_multipart()
            accepted = mechanism == b"CURVE" and credentials == [self._accepted]
            refused += not accepted
            code, text = (b"200", b"OK") if accepted else (b"400", b"not of this run")
            self.socket.send_multipart([version, request, code, text, b"", b""])
        return refused


@functools.cache
def authenticator(keys: Keys) -> Authenticator:
    """Return this process' authenticator; there can be one, and it has to be there before the first socket is."""
    return Authenticator(keys)


class Connections:
    """The connections of a socket that has not been bound or connected yet, by descriptor; its monitor tells of them.

    ZeroMQ makes another connection where one breaks, and a descriptor is used again: that something was closed is
    never to be looked at without what was opened since.
    """

    def __init__(self, sock: zmq.Socket[bytes]) -> None:
        self._socket = sock
        self.monitor = sock.get_monitor_socket(_OPENED | zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
        self.open: set[int] = set()
        self.handshakes = 0

    def update(self) -> list[int]:
        """Take in what has happened; returns the descriptors of connections that were closed."""
        closed = []
        while readable(self.monitor):
            message = recv_monitor_message(self.monitor)
            event, descriptor = message["event"], message["value"]
            if event & _OPENED:
                self.open.add(descriptor)
            elif event == zmq.EVENT_DISCONNECTED:
                self.open.discard(descriptor)
                closed.append(descriptor)
            else:
                self.handshakes += 1
        return closed

    def close(self) -> None:
        """Watch no more."""
        self._socket.disable_monitor()
        self.monitor.close(0)


class ZmqLink:
    """A link over a DEALER or PAIR socket with one peer."""

    def __init__(self, sock: zmq.Socket[bytes]) -> None:
        """Take over a socket that has not been bound or connected yet."""
        self._socket = sock
        self._connections = Connections(sock)
        self._peer: int | None = None
        self._gone = False
        self.backlog = 0
        self.on_blocked: Callable[[bool], object] = bool
        self.heard = time.monotonic()

    @property
    def monitor(self) -> zmq.Socket[bytes]:
        """The socket that tells of connections, for a poller of ZeroMQ."""
        return self._connections.monitor

    def fileno(self) -> int:
        """See `Link`; this descriptor is edge-triggered, so look at `pending` before each wait."""
        return descriptor_of(self._socket)

    def other_filenos(self) -> list[int]:
        """Return the descriptor that tells of a closed connection."""
        return [descriptor_of(self.monitor)]

    def pending(self) -> bool:
        """Whether there is something to receive."""
        return readable(self._socket) or readable(self.monitor)

    def receive(self) -> list[Message]:
        """See `Link`."""
        messages = []
        while readable(self._socket):
            messages.append(from_frames(self._socket.recv_multipart(copy=False)))
        if messages:
            self.heard = time.monotonic()
        elif self._peer_is_gone():
            raise LinkClosed("the connection was closed")
        return messages

    def _peer_is_gone(self) -> bool:
        """Whether the peer's connection has ended; what strangers do at the port is no concern."""
        closed = self._connections.update()
        self._gone = self._gone or (bool(closed) if self._peer is None else self._peer in closed)
        return self._gone

    def handshakes(self) -> int:
        """Count those who have been reached, one after the other, and proved to be of this run."""
        self._connections.update()
        return self._connections.handshakes

    def admit(self) -> int | None:
        """Receive the first message, and take its sender for the peer; returns its kind, None if the sender is gone.

        Raises:
            ProtocolError: it is no message.
        """
        frames = self._socket.recv_multipart(copy=False)
        kind, _, _ = from_frames(frames)
        self._peer = int(frames[0].get(zmq.SRCFD))
        self._connections.update()
        self._gone = self._peer not in self._connections.open
        return None if self._gone else kind

    def send(self, kind: int, head: bytes = b"", buffers: Sequence[Any] = ()) -> None:
        """See `Link`."""
        self.queue(kind, head, buffers)

    def queue(self, kind: int, head: bytes = b"", buffers: Sequence[Any] = ()) -> None:
        """See `Link`; ZeroMQ has queues of its own, and takes nothing for a peer that is gone: `receive` tells."""
        try:
            self._socket.send_multipart(to_frames(kind, head, buffers), zmq.NOBLOCK, copy=not buffers)
        except zmq.Again:
            pass

    def flush(self) -> None:
        """See `Link`; nothing to do."""

    def close(self, linger: int = _LINGER) -> None:
        """See `Link`; what was sent and is still here is given `linger` milliseconds."""
        self._connections.close()
        self._socket.close(linger)


def to_frames(kind: int, head: bytes, buffers: Sequence[Any]) -> list[Any]:
    """Lay a message out as ZeroMQ frames."""
    whole = [b"".join(buffer) if type(buffer) is list else buffer for buffer in buffers]
    return [wire.prefix(kind, len(head), len(whole)) + head, *whole]


def from_frames(frames: Sequence[Any]) -> Message:
    """Take a message from ZeroMQ frames, or raise `ProtocolError`."""
    first = bytes(frames[0].buffer)
    if len(first) < wire.PREFIX_SIZE:
        raise ProtocolError("a frame is too short")
    kind, head_size, count = wire.parse_prefix(first)
    if len(first) != wire.PREFIX_SIZE + head_size or len(frames) != count + 1:
        raise ProtocolError("the frames of a message do not add up")
    return kind, first[wire.PREFIX_SIZE :], [frame.buffer for frame in frames[1:]]
