"""How an interchange ends: it waits for its managers for a bounded time, and burns none meanwhile."""

from __future__ import annotations

import socket
import threading

import pytest

from flowcore_htex import wire
from flowcore_htex.link import LinkClosed
from interchange_bench import Bench


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
