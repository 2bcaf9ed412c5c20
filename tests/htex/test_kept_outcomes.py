"""Outcomes that a worker keeps for a moment: sent before the next task begins, unless that is known for a short one."""

from __future__ import annotations

import socket
import threading
import time
from functools import partial

from flowcore.serialize.pickling import dumps
from flowcore_htex import wire
from flowcore_htex.link import BlockingLink
from flowcore_htex.worker import Worker
from waiting import PATIENCE


class Cells(list):
    """What a worker shares with its manager; remembers which task it said to begin, and calls `begins`."""

    def __init__(self, begins):
        super().__init__([0, 0])
        self._begins = begins

    def __setitem__(self, place, value):
        super().__setitem__(place, value)
        self._begins(value)


def test_an_outcome_is_sent_before_the_next_task_is_said_to_begin():
    """Whoever finds that the worker has died then would take the first task for one that never began."""
    ours, theirs = socket.socketpair()
    second_begins, heard = threading.Event(), threading.Event()

    def begins(tid):
        if tid == 2:
            second_begins.set()
            heard.wait(PATIENCE)

    with ours, theirs:
        link = BlockingLink(ours)
        worker = threading.Thread(target=Worker(theirs, Cells(begins)).run, daemon=True)
        worker.start()
        calls = [(tid, 0, dumps((partial(time.sleep, 0.01), ((), {})))) for tid in (1, 2)]
        link.send(wire.TASKS, wire.pack_tasks(calls))
        assert second_begins.wait(PATIENCE)
        ours.settimeout(0)
        try:
            [(kind, head, _)] = link.receive()
        finally:
            heard.set()
        assert (kind, wire.unpack_results(head)[0]) == (wire.RESULTS, [1])
        ours.shutdown(socket.SHUT_RDWR)
        worker.join(PATIENCE)
