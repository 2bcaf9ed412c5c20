"""Interrupts: what a signal handler raises in the middle of sending, as that of Ctrl-C does."""

from __future__ import annotations

import functools
import sys
import threading

import pytest
import zmq

from flowcore.errors import ShutdownError
from flowcore.providers import LocalProvider
from flowcore.testing.gate import Gate
from flowcore.testing.tasks import hold
from flowcore.thread_pool import ThreadPool
from flowcore_htex import client, wire
from flowcore_htex.link import StreamLink
from flowcore_htex.zlink import ZmqLink, to_frames
from waiting import PATIENCE

BEHIND = 20
"""Tasks that wait to be sent when the interrupt comes."""

TCP = {"interchange_port_range": (41000, 41999)}


def double(number):
    return 2 * number


class Interrupt(KeyboardInterrupt):
    """Not the one of the person who runs these tests."""


def interrupt(*_):
    raise Interrupt


def half_and_interrupt(link, out):
    whole = b"".join(out)
    link._sock.send(whole[: len(whole) // 2])
    raise Interrupt


def one_frame_and_interrupt(link, kind, head=b"", buffers=()):
    link._socket.send(to_frames(kind, head, buffers)[0], zmq.SNDMORE)
    raise Interrupt


def all_and_interrupt(flush):
    def flushed(link):
        flush(link)
        raise Interrupt

    return flushed


PLACES = {
    "while tasks are packed": ({}, wire, "pack_tasks", lambda _: interrupt),
    "before anything is sent": ({}, StreamLink, "flush", lambda _: interrupt),
    "after a half": ({}, StreamLink, "_send_small", lambda _: half_and_interrupt),
    "after all is sent": ({}, StreamLink, "flush", all_and_interrupt),
    "before anything is sent over TCP": (TCP, ZmqLink, "queue", lambda _: interrupt),
    "after one frame": (TCP, ZmqLink, "queue", lambda _: one_frame_and_interrupt),
}


@pytest.fixture(params=PLACES)
def place(request, start, monkeypatch):
    """Provide an executor with managers, and what makes the next message of this thread break off in some place."""
    options, owner, name, make = PLACES[request.param]
    rig = start(**options)
    assert rig.run(double, 1) == 2
    this, original = threading.get_ident(), getattr(owner, name)

    def arm():
        broken = make(original)

        @functools.wraps(original)
        def once(*args):
            if threading.get_ident() != this:
                return original(*args)
            monkeypatch.setattr(owner, name, original)
            return broken(*args)

        monkeypatch.setattr(owner, name, once)

    return rig, arm


@pytest.fixture
def lazy(monkeypatch):
    """Have tasks sent in one batch of so many, and not before the time."""
    monkeypatch.setattr(client, "_PAUSE", float("inf"))
    monkeypatch.setattr(client, "_BATCH", BEHIND)


def held_up(rig):
    """Return an event that the thread that would send what waits, too, waits for."""
    go, there = threading.Event(), threading.Event()
    with Gate(PATIENCE) as gate:
        future = rig.submit(hold, gate.port)
        gate.wait_for(1)
        future.add_done_callback(lambda _: (there.set(), go.wait(PATIENCE)))
    assert there.wait(PATIENCE)
    return go


def test_the_tasks_that_are_being_sent_run_all_the_same(place, lazy):
    rig, arm = place
    go = held_up(rig)
    futures = {number: rig.submit(double, number) for number in range(BEHIND)}
    arm()
    with pytest.raises(Interrupt):
        rig.submit(double, -1)
    go.set()
    assert {number: future.result(PATIENCE) for number, future in futures.items()} == {
        number: double(number) for number in range(BEHIND)
    }
    assert rig.run(double, 3) == 6
    assert rig.executor.outstanding() == 0


@pytest.mark.parametrize("place", ["before anything is sent", "after all is sent", "after one frame"], indirect=True)
def test_a_question_that_is_broken_off_leaves_the_next_one_unharmed(place):
    rig, arm = place
    arm()
    with pytest.raises(Interrupt):
        rig.executor.connected_managers()
    assert rig.run(double, 4) == 8
    assert [manager["worker_count"] for manager in rig.executor.connected_managers()] == [2]


def test_an_executor_survives_any_number_of_them(start, monkeypatch):
    monkeypatch.setattr(client, "_SHORT_LIFE", PATIENCE)
    rig = start()
    this, flush = threading.get_ident(), StreamLink.flush

    def broken(link):
        if threading.get_ident() == this:
            raise Interrupt
        flush(link)

    for number in range(client._SHORT_LIVES + 2):
        with monkeypatch.context() as patch, pytest.raises(Interrupt):
            patch.setattr(StreamLink, "flush", broken)
            rig.submit(double, number)
        assert rig.run(double, number) == double(number)
    assert rig.executor.outstanding() == 0


FILES = tuple(f"/flowcore_htex/{module}.py" for module in ("client", "outbox", "link", "demand"))


def use(executor, futures):
    futures.append(executor.submit(double, {}, 1))
    futures.append(executor.submit(double, {"cores": 0.1}, 2))
    futures[0].cancel()
    executor.connected_managers()


def ended_within(executor, futures, step):
    """Use the executor, and shut it down in this thread `step` calls later; return whether it came to that."""
    left = step

    def watch(frame, event, _):
        nonlocal left
        if frame.f_code.co_filename.endswith(FILES) and event in ("call", "c_call", "c_return"):
            left -= 1
            if left == 0:
                sys.setprofile(None)
                executor.shutdown()

    sys.setprofile(watch)
    try:
        use(executor, futures)
    except ShutdownError:
        assert left <= 0
    finally:
        sys.setprofile(None)
    return left <= 0


def test_a_signal_handler_may_shut_down_within_any_call(start):
    step = 0
    came = True
    while came:
        step += 5
        rig, futures = start(provider=LocalProvider(init_blocks=0, min_blocks=0)), []
        using = ThreadPool(1, "user", "the test").submit(ended_within, (rig.executor, futures, step), {})
        came = using.result(PATIENCE)
        rig.close()
        assert all(future.done() for future in futures), step
        assert rig.left() == []
    assert step > 30
