"""An interchange in a thread of the test's process; the test is the user's process, and the managers on this host."""

from __future__ import annotations

import socket
import threading
import time

from flowcore_htex import wire
from flowcore_htex.doors import Listeners
from flowcore_htex.interchange import Interchange
from flowcore_htex.link import BlockingLink, StreamLink
from flowcore_htex.log import Log
from htex_rig import registration
from waiting import PATIENCE

SETTINGS = {
    "client": "inherited",
    "cert_dir": None,
    "manager_selector": "",
    "prefetch_capacity": 0,
    "expected_managers": [],
    "heartbeat_period": 30,
    "heartbeat_threshold": 120,
    "cores_per_worker": 1,
    "mem_per_worker": None,
    "accelerators": [],
}


class Bench:
    """The interchange, and the connections to it.

    Args:
        folder: where its socket is made.
        tcp: listening sockets for managers that come over TCP.
        settings: what is to be other than in `SETTINGS`.
    """

    def __init__(self, folder, tcp=(), **settings):
        self.path = str(folder / "i")
        local = socket.socket(socket.AF_UNIX)
        local.bind(self.path)
        local.listen()
        ours, theirs = socket.socketpair()
        self.user = BlockingLink(ours)
        ours.settimeout(PATIENCE)
        self.turns = 0
        self._heard = []
        self._interchange = Interchange(
            {**SETTINGS, "socket": self.path, **settings},
            StreamLink(theirs),
            Listeners(local, list(tcp)),
            Log(None, None),
        )
        turn = self._interchange._loop.turn

        def count_and_turn(timeout):
            self.turns += 1
            return turn(timeout)

        self._interchange._loop.turn = count_and_turn
        self._user = ours
        self._sockets = [ours]
        self._listening = [local, *tcp]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self.hear(wire.HELLO)

    def _run(self):
        self._interchange.run()
        self.turns = 0
        self.began, cpu = time.monotonic(), time.thread_time()
        self._interchange.close()
        self.took, self.cpu = time.monotonic() - self.began, time.thread_time() - cpu

    def hear(self, wanted):
        """Wait until the user's process has been sent a message of the kind, and return its head."""
        while True:
            while self._heard:
                kind, head, _ = self._heard.pop(0)
                if kind == wanted:
                    return head
            self._heard += self.user.receive()

    @property
    def out_of_descriptors(self):
        """Whether it takes nobody in because too many files are open."""
        return self._interchange._doors._full

    def say(self, *messages):
        """Send messages, each a kind and a head, in one piece, so that one turn of the loop reads them."""
        self._user.sendall(in_one_piece(*messages))

    def connect(self):
        """Connect as a stranger on this host."""
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(PATIENCE)
        sock.connect(self.path)
        self._sockets.append(sock)
        return sock

    def manager(self, name, **changes):
        """Connect as a manager, and return its socket and link."""
        sock = self.connect()
        link = BlockingLink(sock)
        sock.settimeout(PATIENCE)
        link.send(wire.REGISTER, wire.pack_json(registration(manager=name, **changes)))
        self.hear(wire.MANAGERS)
        return sock, link

    def end(self):
        """Say that the run ends, and wait until the interchange has ended."""
        self.user.send(wire.END)
        self.join()

    def join(self):
        """Wait until the interchange has ended."""
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()

    def close(self):
        """Close all connections, which ends the interchange if nothing has before."""
        for sock in self._sockets:
            sock.close()
        self.join()
        for sock in self._listening:
            sock.close()
        self._interchange._loop.close()
        for peer in self._interchange._doors._local.values():
            peer.close()


def in_one_piece(*messages):
    """Return the bytes of messages without buffers, each a kind and a head."""
    return b"".join(wire.prefix(kind, len(head), 0) + head for kind, head in messages)


def kinds_until(link, last):
    """Return the kinds of the messages that come over a link, up to the first one of a kind."""
    kinds = []
    while last not in kinds:
        kinds += [kind for kind, _, _ in link.receive()]
    return kinds
