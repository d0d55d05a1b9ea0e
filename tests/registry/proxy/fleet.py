"""Many clients of one uncached blob, at once: their sockets in one thread, and a gate in front of the upstream."""

import os
import selectors
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from tests.api import digest_of
from tests.security.process import MIB, Process, serving

SIZE = int(os.environ.get("MOORAGE_FLEET", str(8 * MIB)))
"""Bytes of the blob."""

CLIENTS = 200
EARLY = 2 << 20

PATIENCE = 600.0
"""Seconds after which a test fails instead of hanging."""

_BUFFER = 256 << 10


class Gate:
    """A relay to the upstream that holds each answer after `at` bytes until it is opened. url: where it is.

    gets: how often a blob was asked for.
    """

    def __init__(self, upstream: str, at: int) -> None:
        parts = urlsplit(upstream)
        self._target = (parts.hostname, parts.port)
        self._at = at
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self._sockets = [self._listener]
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.open = threading.Event()
        self.gets = 0

    def serve(self) -> None:
        with suppress(OSError):  # closed
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target)
                self._sockets += [near, far]
                self._start(self._requests, near, far)
                self._start(self._answers, far, near)

    def _start(self, pump: object, source: socket.socket, target: socket.socket) -> None:
        thread = threading.Thread(target=pump, args=(source, target))  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _requests(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(_BUFFER):
                self.gets += data.count(b"GET /v2/") if b"/blobs/" in data else 0
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def _answers(self, source: socket.socket, target: socket.socket) -> None:
        passed, buffer = 0, memoryview(bytearray(_BUFFER))
        with suppress(OSError):
            while got := source.recv_into(buffer if self.open.is_set() else buffer[: max(1, self._at - passed)]):
                target.sendall(buffer[:got])
                passed += got
                if passed >= self._at:
                    self.open.wait(PATIENCE)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.open.set()
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join()


@contextmanager
def gate(upstream: str, at: int) -> Iterator[Gate]:
    made = Gate(upstream, at)
    server = threading.Thread(target=made.serve)
    server.start()
    try:
        yield made
    finally:
        made.close()
        server.join()


@dataclass
class Client:
    """One pull. got: bytes of the blob, each compared as it came."""

    socket: socket.socket
    data: bytes
    head: bytes = b""
    got: int = 0
    ended: bool = False

    def receive(self, buffer: memoryview) -> None:
        size = self.socket.recv_into(buffer)
        assert size, f"cut after {self.got} bytes: {self.head!r}"
        body = bytes(buffer[:size])
        if b"\r\n\r\n" not in self.head:
            self.head, end, body = (self.head + body).partition(b"\r\n\r\n")
            if not end:
                return
            self.head += end
            assert self.head.startswith(b"HTTP/1.1 200 "), self.head
            assert b"content-length: %d\r\n" % len(self.data) in self.head.lower()
        assert body == self.data[self.got : self.got + len(body)]
        self.got += len(body)


@dataclass
class Fleet:
    """clients: those that are still there."""

    address: tuple[str, int]
    path: str
    data: bytes
    clients: list[Client] = field(default_factory=list)

    def join(self, count: int) -> None:
        for _ in range(count):
            made = socket.create_connection(self.address)
            made.sendall(f"GET {self.path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            made.setblocking(False)
            self.clients.append(Client(made, self.data))

    def read(self, until: int) -> None:
        """All of them, each until it has so many bytes."""
        buffer, deadline = memoryview(bytearray(_BUFFER)), time.monotonic() + PATIENCE
        with selectors.DefaultSelector() as selector:
            for client in self.clients:
                if client.got < until:
                    selector.register(client.socket, selectors.EVENT_READ, client)
            while selector.get_map():
                assert time.monotonic() < deadline, sorted(client.got for client in self.clients)
                for key, _ in selector.select(1.0):
                    client = key.data
                    client.receive(buffer)
                    if client.got >= until:
                        selector.unregister(client.socket)

    def leave(self, count: int) -> None:
        """The first ones."""
        for client in self.clients[:count]:
            client.socket.close()
        del self.clients[:count]


def pushed(url: str, data: bytes) -> None:
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as http:
        begun = http.post("/v2/a/b/blobs/uploads/")
        where = httpx.URL(begun.headers["Location"]).copy_add_param("digest", digest_of(data))
        assert http.put(where, content=data).status_code == 201


def tree(process: Process) -> list[int]:
    """The process and its workers."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [process.pid, *map(int, children)]


def memory(process: Process, *, peak: bool = False) -> int:
    return sum(
        each.peak() if peak else each.memory()
        for each in (Process(pid, process.address, process.scheme, process.log) for pid in tree(process))
    )


def check(upstream: str, folder: Path, data: bytes, workers: int = 1) -> None:
    """The fetch is held early until all have got something and the client that caused it has left.

    Not for longer: an upstream that says nothing for 20 s is asked again.
    """
    folder.mkdir()
    with gate(upstream, EARLY) as way:
        config = {"storage": {"filesystem": {"rootdirectory": str(folder / "data")}}, "proxy": {"remoteurl": way.url}}
        program = ("-m", "registry", "serve", *(("--workers", str(workers)) if workers > 1 else ()))
        with serving(folder, config, program=program) as process:
            before = memory(process)
            fleet = Fleet((process.host, process.port), f"/v2/a/b/blobs/{digest_of(data)}", data)
            began = time.monotonic()
            fleet.join(1)
            fleet.read(1)
            fleet.join(CLIENTS - 1)
            fleet.read(EARLY // 2)
            fleet.leave(1)
            way.open.set()
            fleet.read(len(data))
            took = time.monotonic() - began
            used = memory(process, peak=True) - before
            fleet.leave(len(fleet.clients))
            assert way.gets == 1
            rate = CLIENTS * len(data) / took / 1e6
            print(
                f"\n{CLIENTS} clients, {len(data) / MIB:.0f} MiB, {workers} workers: {took:.1f} s, {rate:.0f} MB/s, "
                f"{used / MIB:.0f} MiB more at the peak",
                file=sys.stderr,
            )
            assert used < 64 * MIB * workers
