"""Many managers in one process: real connections to an interchange, and workers that are done as soon as they begin.

Arguments: the settings file that an executor writes for its managers, the name of the first manager, their number,
workers each, the way they answer (see `WAYS`), and for how many seconds a task keeps a worker, where that matters.
"""

from __future__ import annotations

import heapq
import json
import os
import random
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zmq

from flowcore_htex import wire
from flowcore_htex.curve import read_keys
from flowcore_htex.loop import Loop
from flowcore_htex.probe import endpoint
from flowcore_htex.version import RELEASE
from flowcore_htex.zlink import context, from_frames, new_socket, secure_client, to_frames

WAYS = ("together", "one-by-one", "paced")
"""How the outcomes of a batch go back.

together: at once and in one message, as those of short tasks do.
one-by-one: at once, each in a message of its own, with the word that the task was long; long tasks are not sent ahead.
paced: each in a message of its own, and only when the task's time, give or take a half of it, is over.
"""

_MOMENT = 1e-5
_LONG = 1.0

Wait = Callable[[float, "FakeManager", int], None]
"""Called with the seconds that a task takes, its manager, and its id."""


class FakeManager:
    """One connection."""

    def __init__(self, name: str, workers: int, way: str, wait: Wait) -> None:
        self.name = name
        self._workers = workers
        self._way = way
        self._wait = wait
        self.socket = new_socket(zmq.DEALER)
        self.going = True

    def register(self) -> None:
        """Say what a manager says first."""
        registration = {
            "manager": self.name,
            "protocol": wire.VERSION,
            "release": RELEASE,
            "python": f"{sys.version_info[0]}.{sys.version_info[1]}",
            "byteorder": sys.byteorder,
            "hostname": socket.gethostname(),
            "pid": os.getpid(),
            "block_id": self.name,
            "cores": self._workers,
            "memory": 1e6,
            "disk": 1e6,
            "gpus": 0,
            "worker_count": self._workers,
            "start": time.time(),
            "draining": False,
            "held": [],
        }
        self._send(wire.REGISTER, wire.pack_json(registration))

    def serve(self, _descriptor: int = -1) -> None:
        """Answer all that has arrived; the descriptor is edge-triggered, so nothing may be left."""
        while int(self.socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            kind, head, _ = from_frames(self.socket.recv_multipart(copy=False))
            if kind == wire.TASKS:
                self._take(wire.unpack_tasks(head)[0])
            elif kind == wire.HEARTBEAT:
                self._send(wire.HEARTBEAT, b"")
            elif kind in (wire.END, wire.REFUSED):
                self.going = False

    def _take(self, tids: list[int]) -> None:
        if self._way == "together":
            self.answer(tids, _MOMENT)
        elif self._way == "one-by-one":
            for tid in tids:
                self.answer([tid], _LONG)
        else:
            for tid in tids:
                self._wait(random.uniform(0.5, 1.5), self, tid)

    def answer(self, tids: list[int], seconds: float) -> None:
        """Send the outcomes of tasks."""
        count = len(tids)
        self._send(
            wire.RESULTS, wire.pack_results(tids, [seconds] * count, bytearray([wire.NONE] * count), [b""] * count)
        )

    def _send(self, kind: int, head: bytes) -> None:
        self.socket.send_multipart(to_frames(kind, head, ()))


class Clock:
    """Lets tasks take their time.

    Args:
        seconds: how long a task takes, on average.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._due: list[tuple[float, int, FakeManager]] = []

    def wait(self, share: float, manager: FakeManager, tid: int) -> None:
        """Have the task answered after its share of the average time."""
        heapq.heappush(self._due, (time.monotonic() + share * self._seconds, tid, manager))

    def answer(self) -> float | None:
        """Answer the tasks whose time is over, each alone; returns the seconds until the next one's is."""
        while self._due:
            due, tid, manager = self._due[0]
            left = due - time.monotonic()
            if left > 0:
                return left
            heapq.heappop(self._due)
            manager.answer([tid], self._seconds)
            manager.serve()
        return None


def main() -> None:
    """Serve until the interchange has said to all that it ends, or the parent is gone."""
    path, first, count, workers, way, seconds = sys.argv[1:]
    settings: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    context().set(zmq.MAX_SOCKETS, int(count) + 16)
    keys = read_keys(settings["cert_dir"]) if settings["cert_dir"] else None
    clock = Clock(float(seconds))
    names = [f"fake-{int(first) + number:05}" for number in range(int(count))]
    managers = [FakeManager(name, int(workers), way, clock.wait) for name in names]
    loop = Loop()
    loop.watch(0, lambda _: os._exit(0))  # the parent's end closes the standard input
    for manager in managers:
        secure_client(manager.socket, keys)
        manager.socket.connect(endpoint("127.0.0.1", settings["ports"][0]))
        manager.register()
        loop.watch(int(manager.socket.getsockopt(zmq.FD)), manager.serve)
    for manager in managers:
        manager.serve()
    while any(manager.going for manager in managers):
        loop.turn(clock.answer())
    os._exit(0)


if __name__ == "__main__":
    main()
