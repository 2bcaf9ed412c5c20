"""Functions that nobody needs any more: forgotten everywhere, and no task that was to call one does any harm."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import pytest

from flowcore.providers import LocalProvider
from flowcore.serialize.pickling import dumps
from flowcore.testing.gate import Gate
from flowcore.testing.tasks import hold
from flowcore_htex import wire
from flowcore_htex.link import BlockingLink
from htex_rig import executors
from interchange_bench import Bench, in_one_piece, kinds_until
from waiting import PATIENCE

CALL = dumps(((), {}))


@pytest.fixture
def start(tmp_path):
    with executors(tmp_path) as start:
        yield start


@pytest.fixture
def bench(tmp_path):
    bench = Bench(tmp_path)
    yield bench
    bench.close()


@contextlib.contextmanager
def manager_of(executor):
    """Start a manager whose interchange is the test; provide its socket and link, and the process."""
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(socket.socket(socket.AF_UNIX)) as listener:
        path = str(Path(folder) / "i")
        listener.settimeout(PATIENCE)
        listener.bind(path)
        listener.listen()
        config = str(Path(executor.logdir) / "manager.json")
        words = [sys.executable, "-m", "flowcore_htex.manager", "--config", config, "--block-id", "7", "--socket", path]
        with subprocess.Popen(words, stderr=subprocess.PIPE) as process:
            sock, _ = listener.accept()
            with contextlib.closing(sock):
                link = BlockingLink(sock)
                sock.settimeout(PATIENCE)
                assert kinds_until(link, wire.REGISTER) == [wire.REGISTER]
                yield sock, link, process
            process.communicate(timeout=PATIENCE)


def next_of(link, wanted):
    """Return the head of the next message of a kind."""
    while True:
        for kind, head, _ in link.receive():
            if kind == wanted:
                return head


def test_a_manager_hears_of_cancelled_tasks_before_their_function_is_forgotten(bench):
    _, link = bench.manager("m", draining=False)
    tasks = wire.pack_tasks([(1, 1, CALL)])
    bench.say((wire.FUNCTION, wire.pack_function(1, b"f")), (wire.TASKS, tasks))
    assert kinds_until(link, wire.TASKS) == [wire.FUNCTION, wire.TASKS]
    bench.say((wire.CANCEL, wire.pack_ids([1])), (wire.FORGET, wire.pack_ids([1])))
    assert kinds_until(link, wire.FORGET) == [wire.CANCEL, wire.FORGET]


def test_a_task_whose_function_was_forgotten_is_dropped_alone(start):
    executor = start(max_workers=1, provider=LocalProvider(init_blocks=0, min_blocks=0, max_blocks=1))
    with manager_of(executor) as (sock, link, process), Gate(PATIENCE) as gate:
        long = dumps((partial(hold, gate.port), ((), {})))
        sock.sendall(in_one_piece((wire.TASKS, wire.pack_tasks([(1, 0, long)]))))
        gate.wait_for(1)
        function = (wire.FUNCTION, wire.pack_function(1, dumps(abs)))
        behind = (wire.TASKS, wire.pack_tasks([(2, 1, CALL)]))
        sock.sendall(in_one_piece(function, behind, (wire.FORGET, wire.pack_ids([1]))))
        assert wire.unpack_ids(next_of(link, wire.DROPPED)) == [2]
        gate.open()
        assert wire.unpack_results(next_of(link, wire.RESULTS))[0] == [1]
        link.send(wire.TASKS, wire.pack_tasks([(3, 0, dumps((int, ((), {}))))]))
        assert wire.unpack_results(next_of(link, wire.RESULTS))[0] == [3]
        link.send(wire.END)
        assert process.wait(PATIENCE) == 0


def test_a_manager_that_fails_says_why(start):
    executor = start(provider=LocalProvider(init_blocks=0, min_blocks=0, max_blocks=1))
    with manager_of(executor) as (_, link, process):
        link.send(wire.ACK, b"no ids")
        farewell = json.loads(next_of(link, wire.END))
        assert process.wait(PATIENCE) == 1
    assert farewell["why"].startswith("ended: ")
    assert "Error: " in farewell["why"]
