"""A manager on another host asks at every address for the interchange, whoever else listens there."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import pytest
import zmq

from flowcore_htex.curve import write_keys
from flowcore_htex.link import LinkClosed
from flowcore_htex.log import Log
from flowcore_htex.probe import probe
from flowcore_htex.zlink import new_socket
from nodes import free_ports
from waiting import PATIENCE, eventually


def greet(listener):
    """Answer one connection as a server of something else does."""
    conversation, _ = listener.accept()
    with conversation, contextlib.suppress(ConnectionResetError):
        conversation.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
        while conversation.recv(1024):
            pass


@pytest.fixture
def stranger():
    """The port of somebody who is no interchange."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=greet, args=(listener,), daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(PATIENCE)


def test_a_stranger_that_has_been_found_out_before_it_is_asked_does_not_hold_the_manager(
    stranger, tmp_path, monkeypatch
):
    """ZeroMQ gives up an address whose server speaks something else, and then has nowhere to send a question to."""
    write_keys(tmp_path)

    def slow_to_ask(kind):
        sock = new_socket(kind)
        connect = sock.connect

        def connect_and_dawdle(address):
            connect(address)
            eventually(lambda: not sock.poll(0, zmq.POLLOUT))

        sock.connect = connect_and_dawdle
        return sock

    monkeypatch.setattr("flowcore_htex.probe.new_socket", slow_to_ask)
    settings = {"addresses": ["127.0.0.1"], "ports": [stranger], "cert_dir": str(tmp_path)}
    assert probe(settings, time.monotonic() + 1, Log(None, None)) is None


@contextlib.contextmanager
def answering(port, *, answers):
    """An interchange's door at a port, without keys; ends when somebody has asked, with or without an answer."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.setsockopt(zmq.LINGER, 1000 * PATIENCE)
        router.bind(f"tcp://127.0.0.1:{port}")

        def serve():
            identity, question = router.recv_multipart()
            if answers:
                router.send_multipart([identity, question])

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield
        thread.join(PATIENCE)
        assert not thread.is_alive()


def asking(port):
    """Ask at a port in a thread; returns the list into which the link comes, and the thread."""
    found = []
    settings = {"addresses": ["127.0.0.1"], "ports": [port], "cert_dir": None}
    deadline = time.monotonic() + PATIENCE
    thread = threading.Thread(target=lambda: found.append(probe(settings, deadline, Log(None, None))), daemon=True)
    thread.start()
    return found, thread


def test_a_connection_that_broke_before_the_answer_is_not_taken_for_the_one_that_answered():
    """As with an interchange that dies while its successor is being asked for: its door closes a little later."""
    (port,) = free_ports(1)
    with socket.create_server(("127.0.0.1", port)) as listener:
        found, thread = asking(port)
        listener.accept()[0].close()
    with answering(port, answers=True):
        thread.join(PATIENCE)
        (link,) = found
        assert link.receive() == []
        assert not link.pending()
    eventually(link.pending)
    with pytest.raises(LinkClosed):
        link.receive()
    link.close(0)


def test_who_did_not_live_to_answer_is_not_the_last_to_be_asked():
    (port,) = free_ports(1)
    found, thread = asking(port)
    with answering(port, answers=False):
        pass
    with answering(port, answers=True):
        thread.join(PATIENCE)
    (link,) = found
    assert link is not None
    link.close(0)
