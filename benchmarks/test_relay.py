"""Tests of the relay: every byte passes, requests wait, and the rate is what was said."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from benchmarks.relay import serve

BODY = bytes(range(256)) * 4096
Open = Callable[..., socket.socket]


def answer(server: socket.socket) -> None:
    """BODY for each byte that comes, to one client after the other."""
    with suppressed(), server:
        while True:
            client, _ = server.accept()
            with suppressed(), client:
                while client.recv(1):
                    client.sendall(BODY)


class suppressed(ExitStack):
    """A socket that was closed ends the block."""

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        return kind is not None and issubclass(kind, OSError)


@pytest.fixture
def opened() -> Iterator[Open]:
    """A connection to the server through a relay of its own."""
    with ExitStack() as stack:

        def open_one(latency: float = 0.0, rate: float | None = None) -> socket.socket:
            server, relay = (stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2))
            ways = (relay, server.getsockname()[1], latency, rate)
            threads = [threading.Thread(target=answer, args=(server,)), threading.Thread(target=serve, args=ways)]
            for thread in threads:
                thread.start()
                stack.callback(thread.join)
            for listener in (server, relay):  # a close alone does not wake who waits in accept
                stack.callback(listener.shutdown, socket.SHUT_RDWR)
            return stack.enter_context(socket.create_connection(relay.getsockname()))

        yield open_one


def ask(sock: socket.socket) -> bytes:
    sock.sendall(b"?")
    received = b""
    while len(received) < len(BODY):
        more = sock.recv(1 << 20)
        assert more
        received += more
    return received


def test_bytes_pass(opened: Open) -> None:
    sock = opened()
    for _ in range(3):
        assert ask(sock) == BODY


def test_each_request_waits(opened: Open) -> None:
    sock = opened(latency=0.03)
    began = time.monotonic()
    for _ in range(2):
        assert ask(sock) == BODY
    assert time.monotonic() - began >= 0.06


def test_no_connection_is_faster_than_its_rate(opened: Open) -> None:
    sock = opened(rate=10e6)
    began = time.monotonic()
    for _ in range(2):
        assert ask(sock) == BODY
    # the last piece is on its way before it is paid for, and what was slept too long is made up for
    assert time.monotonic() - began >= len(BODY) / 10e6 - 0.02


def test_an_end_passes(opened: Open) -> None:
    sock = opened()
    sock.shutdown(socket.SHUT_WR)
    assert sock.recv(1) == b""
