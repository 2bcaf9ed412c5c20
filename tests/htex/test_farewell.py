"""How an interchange ends: it waits for its managers for a bounded time, and burns none meanwhile."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from flowcore_htex import wire
from flowcore_htex.doors import Listeners
from flowcore_htex.interchange import Interchange
from flowcore_htex.link import BlockingLink, LinkClosed, StreamLink
from flowcore_htex.log import Log
from htex_rig import PATIENCE, registration

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
    """An interchange in a thread of this process; the test is the user's process and the managers."""

    def __init__(self, folder):
        self.path = str(folder / "i")
        local = socket.socket(socket.AF_UNIX)
        local.bind(self.path)
        local.listen()
        ours, theirs = socket.socketpair()
        ours.settimeout(PATIENCE)
        self.user = BlockingLink(ours)
        ours.settimeout(PATIENCE)
        self.turns = 0
        self._interchange = Interchange(
            {**SETTINGS, "socket": self.path}, StreamLink(theirs), Listeners(local, []), Log(None, None)
        )
        turn = self._interchange._loop.turn

        def count_and_turn(timeout):
            self.turns += 1
            turn(timeout)

        self._interchange._loop.turn = count_and_turn
        self._sockets = [ours, local]
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
        """Receive until a message of the kind has come."""
        while wanted not in [kind for kind, _, _ in self.user.receive()]:
            pass

    def connect(self):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(PATIENCE)
        sock.connect(self.path)
        self._sockets.append(sock)
        return sock

    def manager(self, name):
        """Connect as a manager, and return its socket and link."""
        sock = self.connect()
        link = BlockingLink(sock)
        sock.settimeout(PATIENCE)
        link.send(wire.REGISTER, wire.pack_json(registration(manager=name)))
        self.hear(wire.MANAGERS)
        return sock, link

    def end(self):
        """Say that the run ends, and wait until the interchange has ended."""
        self.user.send(wire.END)
        self.join()

    def join(self):
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()

    def close(self):
        for sock in self._sockets:
            sock.close()
        self._interchange._loop.close()
        for peer in self._interchange._doors._local.values():
            peer.close()


@pytest.fixture
def bench(tmp_path):
    bench = Bench(tmp_path)
    yield bench
    bench.close()


def told_to_end(link):
    """Receive until the end; return whether END was among what came."""
    kinds = []
    with pytest.raises(LinkClosed):
        while wire.END not in kinds:
            kinds += [kind for kind, _, _ in link.receive()]
        raise LinkClosed
    return wire.END in kinds


def test_it_ends_at_once_when_its_managers_have(bench):
    managers = [bench.manager(f"m{number}") for number in range(3)]

    def leave(sock, link):
        told_to_end(link)
        sock.close()

    leaving = [threading.Thread(target=leave, args=manager, daemon=True) for manager in managers]
    for one in leaving:
        one.start()
    bench.end()
    for one in leaving:
        one.join()
    assert bench.turns < 30
    assert bench.cpu < 0.3


@pytest.mark.parametrize("way", ["silent", "half closed", "unread"])
def test_a_manager_that_does_not_end_costs_a_second_and_no_time_of_the_processor(bench, way):
    sock, link = bench.manager("m")
    gone, _ = bench.manager("gone")
    gone.close()
    bench.hear(wire.MANAGERS)
    strangers = [bench.connect() for _ in range(3)]
    strangers[0].shutdown(socket.SHUT_WR)
    strangers[1].close()
    if way == "half closed":
        sock.shutdown(socket.SHUT_RD)
    elif way == "unread":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    bench.end()
    assert bench.took < 30
    assert bench.turns < 30
    assert bench.cpu < 0.3
    assert link


def test_when_the_script_is_gone_it_ends_as_well_and_tells_its_managers(bench):
    sock, link = bench.manager("m")
    bench._sockets[0].close()
    assert told_to_end(link)
    sock.close()
    bench.join()
    assert bench.turns < 30
    assert bench.cpu < 0.3
