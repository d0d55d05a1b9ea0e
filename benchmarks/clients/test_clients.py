"""Tests of the load clients against a small server that answers right or wrong, as its path says."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from benchmarks.clients import LoadFailed, pull, push
from benchmarks.clients.http import content_length, header, path_of, request

SIZE = 100_000


class Handler(BaseHTTPRequestHandler):
    """/right answers SIZE bytes, other paths something else; uploads are kept by digest."""

    protocol_version = "HTTP/1.1"
    pushed: ClassVar[dict[str, bytes]] = {}
    received: ClassVar[dict[str, bytes]] = {}

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        size = SIZE - 1 if self.path == "/short" else SIZE
        self._answer(404 if self.path == "/missing" else 200, body=bytes(size))

    def do_HEAD(self) -> None:
        self._answer(404)

    def do_POST(self) -> None:
        self.received[f"{self.client_address}"] = b""
        self._answer(202, location=f"http://127.0.0.1/upload?of={self.client_address[1]}")

    def do_PATCH(self) -> None:
        self.received[f"{self.client_address}"] += self._body()
        self._answer(202, location=self.path)

    def do_PUT(self) -> None:
        self.pushed[self.path.partition("digest=")[2]] = self.received[f"{self.client_address}"] + self._body()
        self._answer(500 if "refuse" in self.path else 201, location="/done")

    def _body(self) -> bytes:
        if self.headers["Transfer-Encoding"] != "chunked":
            return self.rfile.read(int(self.headers["Content-Length"]))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self, status: int, body: bytes = b"", location: str | None = None) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body) or (5 if self.command == "HEAD" else 0)))
        if location:
            self.send_header("Location", location)
        self.end_headers()
        self.wfile.write(body)


class Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that fail leave in the middle of an answer; that is no error here."""


@pytest.fixture
def port() -> Iterator[int]:
    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def pull_spec(port: int, path: str, **more: Any) -> dict[str, Any]:
    method = more.get("method", "GET")
    head = request(method, path, port).decode()
    spec = {"port": port, "clients": 3, "requests": 2, "method": "GET", "status": 200, "size": SIZE, "heads": [head]}
    return spec | more


def test_pull_counts_whole_answers(port: int) -> None:
    seen = pull.run(pull_spec(port, "/right"))
    assert (seen["requests"], seen["bytes"]) == (6, 6 * SIZE)
    assert seen["seconds"] > 0


def test_head_has_no_body(port: int) -> None:
    seen = pull.run(pull_spec(port, "/right", method="HEAD", status=404))
    assert (seen["requests"], seen["bytes"]) == (6, 0)


@pytest.mark.parametrize("path", ["/short", "/missing"])
def test_pull_of_something_else_fails(port: int, path: str) -> None:
    with pytest.raises(LoadFailed):
        pull.run(pull_spec(port, path))


def push_spec(port: int, file: Path, mode: str, tails: list[bytes]) -> dict[str, Any]:
    content = file.read_bytes()
    blobs = [{"tail": t.hex(), "digest": hashlib.sha256(content + t).hexdigest()} for t in tails]
    spec = {"port": port, "repository": "a", "mode": mode, "file": str(file), "size": len(content), "blobs": blobs}
    return spec | {"chunk": 30_000}


@pytest.mark.parametrize("mode", ["stream", "docker", "chunked", "monolithic"])
def test_push_sends_the_file_and_the_tail(port: int, tmp_path: Path, mode: str) -> None:
    file = tmp_path / "body"
    file.write_bytes(bytes(range(256)) * 391)
    spec = push_spec(port, file, mode, [b"first of all tail", b"second"])
    seen = push.run(spec)
    assert seen["bytes"] == sum(file.stat().st_size + len(tail) for tail in (b"first of all tail", b"second"))
    for blob in spec["blobs"]:
        assert hashlib.sha256(Handler.pushed[blob["digest"]]).hexdigest() == blob["digest"]


def test_a_refused_push_fails(port: int, tmp_path: Path) -> None:
    file = tmp_path / "body"
    file.write_bytes(b"content")
    spec = push_spec(port, file, "monolithic", [b"tail"])
    spec["blobs"][0]["digest"] = "refuse"
    with pytest.raises(LoadFailed, match="500 instead of 201"):
        push.run(spec)


def test_heads() -> None:
    head = b"HTTP/1.1 200 OK\r\nA: b\r\ncontent-LENGTH:  12"
    assert content_length(head) == 12
    assert header(head, "a") == "b"
    assert header(head, "c") is None
    with pytest.raises(LoadFailed):
        content_length(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked")


@pytest.mark.parametrize("location", ["http://h:1/v2/a?x=y", "/v2/a?x=y"])
def test_location_may_be_absolute(location: str) -> None:
    assert path_of(location) == "/v2/a?x=y"
