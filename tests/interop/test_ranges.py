"""Ranges of what is not cached, with CNCF distribution as the upstream: right bytes, and what they cost it."""

import random
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from .content import Content
from .corpora import noise
from .peers import OURS, Lab, Program

pytestmark = [pytest.mark.interop, pytest.mark.slow]

MIB = 1 << 20
SIZE = 48 * MIB + 4321


class Relay:
    """Stands before a server, and counts what it sends."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.sent = 0
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads = [self._start(self._accept)]

    def _start(self, work: object, *args: object) -> threading.Thread:
        thread = threading.Thread(target=work, args=args)  # type: ignore[arg-type]
        thread.start()
        return thread

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                with self._lock:
                    self._open |= {client, server}
                self._threads += [
                    self._start(self._pump, client, server, 0),
                    self._start(self._pump, server, client, 1),
                ]

    def _pump(self, source: socket.socket, target: socket.socket, counted: int) -> None:
        with suppress(OSError):
            while data := source.recv(256 << 10):
                target.sendall(data)
                with self._lock:
                    self.sent += counted * len(data)
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join()
        for each in self._open:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for each in self._open:
            each.close()


@contextmanager
def relay(port: int) -> Iterator[Relay]:
    made = Relay(port)
    try:
        yield made
    finally:
        made.close()


def part(http: httpx.Client, path: str, wanted: str) -> bytes:
    found = http.get(path, headers={"Range": f"bytes={wanted}"})
    assert found.status_code == 206, found.text
    return found.content


def test_ranges(lab: Lab, peer: Program, tmp_path: Path) -> None:
    content, data = Content(), noise("ranges", SIZE)
    with lab.serving(peer) as upstream:
        digest = content.blob(upstream, "a/b", data)
        path, port = f"/v2/a/b/blobs/{digest}", upstream.base_url.port
        assert port is not None
        with relay(port) as counted:
            url = f"http://127.0.0.1:{counted.port}"
            upstreams = [{"url": url, "name": "peer", "default": True}]
            with lab.serving(OURS, tmp_path / "cache", upstreams=upstreams) as http:
                assert part(http, path, "0-99") == data[:100]
                assert counted.sent < 5 * MIB
                assert counted.sent < 1.1 * MIB
                assert part(http, path, "0-99") == data[:100]
                assert part(http, path, "-5") == data[-5:]
                assert counted.sent < 1.1 * MIB
                behind = http.get(path, headers={"Range": f"bytes={SIZE}-"})
                assert (behind.status_code, behind.headers["Content-Range"]) == (416, f"bytes */{SIZE}")
                many(http, path, data)
                assert counted.sent < 1.5 * SIZE
                assert http.get(path).content == data
    with lab.serving(OURS, tmp_path / "cache", upstreams=upstreams) as http:  # without its upstream
        assert http.get(path).content == data
        assert part(http, path, "7-1000000") == data[7:1_000_001]


def many(http: httpx.Client, path: str, data: bytes) -> None:
    """64 clients with random ranges, lazy pullers' and large ones."""

    def one(number: int) -> None:
        draw = random.Random(number)
        with httpx.Client(base_url=http.base_url, timeout=60, trust_env=False) as mine:
            for _ in range(5):
                start = draw.randrange(SIZE)
                stop = min(start + draw.choice((1, 5000, MIB, 4 * MIB)), SIZE)
                assert part(mine, path, f"{start}-{stop - 1}") == data[start:stop]

    with ThreadPoolExecutor(64) as pool:
        list(pool.map(one, range(64)))
