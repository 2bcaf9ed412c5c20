"""A manager's way to the interchange: found by probing, kept by heartbeats, mended when it breaks."""
# ruff: noqa: PTH110 - these processes have to start fast, and pathlib is slow to import

from __future__ import annotations

import os
import socket
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from flowcore_htex import private_folder, wire
from flowcore_htex.link import Link, LinkClosed, StreamLink
from flowcore_htex.log import Log
from flowcore_htex.loop import Loop

_RETRY: Final = 0.05


class Unreachable(Exception):
    """No interchange answers, or none that wants this manager."""


class Upstream:
    """Sends outcomes and keeps them until they are known to have arrived; reconnects to a new interchange."""

    def __init__(self, settings: dict[str, Any], loop: Loop, log: Log) -> None:
        self._settings = settings
        self._loop = loop
        self._log = log
        self._unacknowledged: deque[tuple[int, bytes, Sequence[Any]]] = deque()
        self._link: Link | None = None
        self._local = self._sees_the_socket()  # once it is True, the want of the socket is the end of the run
        self._reached = False
        self.sent = time.monotonic()
        self.unsent = 0

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""
        return self._link is not None

    @property
    def heard(self) -> float:
        """When the interchange was last heard, by `time.monotonic`."""
        return self._link.heard if self._link is not None else 0.0

    @property
    def unacknowledged(self) -> bool:
        """Whether there are outcomes that may not have arrived."""
        return bool(self._unacknowledged)

    # -- connecting

    def connect(self, handler: Any, registration: dict[str, Any], timeout: float) -> None:
        """Find the interchange, register, and send again what it may not have received.

        Raises:
            Unreachable: nobody answered within `timeout` seconds.
        """
        self._link = self._find(time.monotonic() + timeout)
        self._reached = True
        self._loop.watch_link(self._link, handler)
        for descriptor in self._link.other_filenos():
            self._loop.watch(descriptor, handler)
        self.send(wire.REGISTER, wire.pack_json(registration))
        for outcome in self._unacknowledged:
            self._link.queue(*outcome)
        self.flush()

    def _sees_the_socket(self) -> bool:
        """Whether the socket is certain to be here as long as the user's process is."""
        settings = self._settings
        return bool(
            settings["socket_outlives_interchange"]
            and settings["socket_host"] == socket.gethostname()
            and settings["socket_view"] is not None
            and settings["socket_view"] == private_folder.view()
        )

    def _find(self, deadline: float) -> Link:
        path = self._settings["socket"]
        on_this_host = self._local or (self._settings["socket_host"] == socket.gethostname() and os.path.exists(path))
        while on_this_host:
            sock = socket.socket(socket.AF_UNIX)
            try:
                sock.connect(path)
            except OSError as error:
                sock.close()
                if self._settings["socket_outlives_interchange"] or time.monotonic() > deadline:
                    self._tidy_up(error)
                    raise Unreachable(f"nobody listens any more at {path}: {error}") from error
                time.sleep(_RETRY)  # the interchange that is to listen there is being started again
                continue
            self._log.info(f"connected to {path}")
            self._local = True
            return StreamLink(sock)
        return self._probe(deadline)

    def _tidy_up(self, error: OSError) -> None:
        """Remove the private folder of a run whose other processes were all killed, and could not."""
        if self._settings["socket_outlives_interchange"] and isinstance(error, ConnectionRefusedError):
            private_folder.remove(self._settings["socket"])

    def _probe(self, deadline: float) -> Link:
        """Ask at all addresses over ZeroMQ; the first that answers is used."""
        from flowcore_htex.probe import probe

        link = probe(self._settings, deadline, self._log)
        if link is None:
            where = f"at {', '.join(self._settings['addresses'])}, ports {self._settings['ports']}"
            if self._reached:
                raise Unreachable(
                    f"the interchange was lost, and no other has answered {where} in time\n"
                    "  see whether the script still runs, and what interchange.log says"
                )
            raise Unreachable(
                f"no interchange answered {where}, and {self._settings['socket']} is not on this host\n"
                "  name the address that this node can reach: HighThroughputExecutor(address=...)"
            )
        return link

    def disconnect(self) -> None:
        """Close the connection; outcomes are kept."""
        if self._link is not None:
            self._loop.unwatch(self._link.fileno())
            for descriptor in self._link.other_filenos():
                self._loop.unwatch(descriptor)
            self._link.close()
            self._link = None

    # -- traffic

    def pending(self) -> bool:
        """Whether there is something to receive that the loop would not tell of."""
        return self._link is not None and self._link.pending()

    def receive(self) -> list[Any]:
        """Return what has arrived; raises `LinkClosed`."""
        if self._link is None:
            return []
        if self._link.backlog:
            self.flush()
        return self._link.receive()

    def report(self, kind: int, head: bytes, buffers: Sequence[Any]) -> None:
        """Queue an outcome, and keep it until it is acknowledged."""
        self._unacknowledged.append((kind, head, buffers))
        self.unsent += 1
        if self._link is not None:
            self._link.queue(kind, head, buffers)

    def unacknowledged_ids(self) -> list[int]:
        """Return the ids of tasks whose outcomes may not have arrived."""
        return [tid for kind, head, _ in self._unacknowledged for tid in wire.outcome_ids(kind, head)]

    def acknowledged(self, count: int) -> None:
        """Drop the oldest outcomes: they have arrived."""
        for _ in range(min(count, len(self._unacknowledged))):
            self._unacknowledged.popleft()

    def send(self, kind: int, head: bytes = b"") -> None:
        """Send something that nobody misses when the connection breaks."""
        if self._link is not None:
            self._link.queue(kind, head)
            self.flush()

    def flush(self) -> None:
        """Send what is queued; a broken connection is noticed when it is read."""
        link = self._link
        self.unsent = 0
        if link is None:
            return
        self.sent = time.monotonic()
        try:
            link.flush()
        except LinkClosed:
            pass
