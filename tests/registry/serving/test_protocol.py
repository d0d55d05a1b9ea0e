"""The server class through a real socket, on both loops. Rows are named after what the client does."""

import asyncio
import gc
import hashlib
import inspect
import json
import os
import queue
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import pytest
import uvloop
from starlette.types import Receive, Scope, Send

from registry.responses import ResponseBroken
from registry.serving.limits import Limits
from registry.serving.protocol import PRIVATE
from registry.serving.server import LoopFactory, RunningServer, running
from tests.rawsocket import PATIENCE, RawConnection, Response, Truncated, connected, request
from tests.waiting import wait_until

LOOPS: dict[str, LoopFactory] = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
MIB = 1 << 20
BRIEF = Limits(head_timeout=0.2, stall_timeout=0.2, keep_alive=0.2, min_rate=1024, discard_timeout=0.2)
"""Time-outs that a test can wait for, where the client is to be ended."""
PATIENT = replace(BRIEF, head_timeout=0.6, stall_timeout=0.6, keep_alive=0.6)
"""The same where it must not be, so that a busy machine does not end it."""


class App:
    """Answers with what it was asked; the path names what else it does. `events` says what happens inside."""

    def __init__(self) -> None:
        self.events: queue.Queue[tuple[Any, ...]] = queue.Queue()
        self.released = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            self.loop = asyncio.get_running_loop()
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        self.events.put(("request", scope["method"], scope["raw_path"]))
        action = scope["path"].split("/")[1]
        behave = getattr(self, action) if action in ("early", "fail", "large", "late", "stream", "wait") else self.echo
        await behave(scope, receive, send)

    async def echo(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await self.read(receive)
        if body is not None:
            seen = {
                "method": scope["method"],
                "raw_path": scope["raw_path"].decode(),
                "path": scope["path"],
                "query": scope["query_string"].decode(),
                "headers": [[name.decode(), value.decode("latin-1")] for name, value in scope["headers"]],
                "size": len(body),
                "sha256": hashlib.sha256(body).hexdigest(),
            }
            await answer(send, 200, json.dumps(seen).encode())

    async def large(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Write query_string bytes at once, and be done."""
        await self.read(receive)
        await answer(send, 200, bytes(int(scope["query_string"])))

    async def late(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Look at the body only after release()."""
        await self.released.wait()
        await self.echo(scope, receive, send)

    async def early(self, scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, 413, b"too large")

    async def fail(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["query_string"]:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"10")]})
            await send({"type": "http.response.body", "body": b"12345", "more_body": True})
        if scope["query_string"] == b"broken":
            raise ResponseBroken
        raise LookupError("on purpose")

    async def wait(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer after release(), unless the client leaves before."""
        body = await self.read(receive)
        if body is None:
            return
        leaving = asyncio.ensure_future(receive())
        released = asyncio.ensure_future(self.released.wait())
        await asyncio.wait({leaving, released}, return_when=asyncio.FIRST_COMPLETED)
        if leaving.done():
            released.cancel()
            self.events.put((leaving.result()["type"], scope["raw_path"]))
        else:
            leaving.cancel()
            await answer(send, 200, b"released")

    def release(self) -> None:
        """Let the requests that wait be answered."""
        self.loop.call_soon_threadsafe(self.released.set)

    async def stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send query_string bytes in pieces of 64 KiB, until done or the client has left."""
        size, piece = int(scope["query_string"]), bytes(range(256)) * 256
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % size)]})
        leaving = asyncio.ensure_future(self.until_disconnect(receive))
        for offset in range(0, size, len(piece)):
            if leaving.done():
                break
            left = size - offset
            await send({"type": "http.response.body", "body": piece[:left], "more_body": left > len(piece)})
            await asyncio.sleep(0)
        await leaving

    async def until_disconnect(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.events.put(("http.disconnect",))

    async def read(self, receive: Receive) -> bytes | None:
        """The whole body, or None when the client left before its end."""
        pieces: list[bytes] = []
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.events.put(("truncated", len(b"".join(pieces))))
                return None
            pieces.append(message["body"])
            if not message["more_body"]:
                self.events.put(("complete", [len(piece) for piece in pieces]))
                return b"".join(pieces)

    def event(self) -> tuple[Any, ...]:
        return self.events.get(timeout=PATIENCE)

    def saw(self) -> list[tuple[Any, ...]]:
        """The events so far."""
        return [self.events.get() for _ in range(self.events.qsize())]


async def answer(send: Send, status: int, body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


class Served:
    """An App that runs."""

    def __init__(self, app: App, server: RunningServer) -> None:
        self.app, self.server = app, server

    def connect(self, *, window: int = 0) -> AbstractContextManager[RawConnection]:
        return connected(self.server.host, self.server.port, window=window)

    def ask(self, data: bytes, method: str = "GET") -> Response:
        with self.connect() as client:
            client.send(data)
            return client.response(method)

    def alive(self) -> bool:
        return self.ask(request()).status == 200


Serve = Callable[..., AbstractContextManager[Served]]


@pytest.fixture(params=LOOPS)
def serve(request: pytest.FixtureRequest) -> Serve:
    """Starts a server with the limits that a test wants."""

    @contextmanager
    def start(limits: Limits | None = None, **options: Any) -> Iterator[Served]:
        app = App()
        with running(app, limits=limits, loop_factory=LOOPS[request.param], **options) as server:
            yield Served(app, server)

    return start


@pytest.fixture(scope="module", params=LOOPS)
def shared(request: pytest.FixtureRequest) -> Iterator[Served]:
    """One server with default limits for the tests that leave nothing behind."""
    app = App()
    with running(app, loop_factory=LOOPS[request.param]) as server:
        yield Served(app, server)


@pytest.fixture
def served(shared: Served) -> Served:
    shared.app.saw()
    shared.app.released.clear()
    return shared


def error_of(response: Response) -> str:
    """The code of an OCI error body; the rest of its shape is checked here."""
    assert response.headers["content-type"] == "application/json"
    assert response.headers["connection"] == "close"
    (error,) = json.loads(response.body)["errors"]
    assert set(error) == {"code", "message"}
    return str(error["code"])


# What is no request: the client gets JSON, the connection ends, the application sees nothing whole.

CHUNKED = ("Transfer-Encoding: chunked",)


def chunked(body: bytes) -> bytes:
    return request("PUT", "/c", *CHUNKED) + body


REFUSED: dict[str, tuple[int, bytes]] = {
    "length and chunked": (400, request("PUT", "/", *CHUNKED, "Content-Length: 5") + b"0\r\n\r\n"),
    "length after chunked": (400, request("PUT", "/", "Content-Length: 5", *CHUNKED) + b"0\r\n\r\n"),
    "length 5, 5": (400, request("PUT", "/", "Content-Length: 5, 5") + b"hello"),
    "length 5, 6": (400, request("PUT", "/", "Content-Length: 5, 6") + b"hello"),
    "length twice": (400, request("PUT", "/", "Content-Length: 5", "Content-Length: 5") + b"hello"),
    "length +5": (400, request("PUT", "/", "Content-Length: +5") + b"hello"),
    "length -1": (400, request("PUT", "/", "Content-Length: -1") + b"hello"),
    "length 0x5": (400, request("PUT", "/", "Content-Length: 0x5") + b"hello"),
    "length of 30 digits": (400, request("PUT", "/", "Content-Length: " + "9" * 30) + b"hello"),
    "length empty": (400, request("PUT", "/", "Content-Length: ") + b"hello"),
    "coding xchunked": (400, request("PUT", "/", "Transfer-Encoding: xchunked") + b"0\r\n\r\n"),
    "coding chunked, gzip": (400, request("PUT", "/", "Transfer-Encoding: chunked, gzip") + b"0\r\n\r\n"),
    "coding gzip, chunked": (400, request("PUT", "/", "Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n"),
    "coding chunked on 1.0": (400, request("PUT", "/", *CHUNKED, version="1.0") + b"0\r\n\r\n"),
    "chunk size with space": (400, chunked(b"5 \r\nhello\r\n0\r\n\r\n")),
    "chunk size 0x5": (400, chunked(b"0x5\r\nhello\r\n0\r\n\r\n")),
    "chunk size +5": (400, chunked(b"+5\r\nhello\r\n0\r\n\r\n")),
    "chunk size -1": (400, chunked(b"-1\r\nhello\r\n0\r\n\r\n")),
    "chunk size of 18 F": (400, chunked(b"F" * 18 + b"\r\nhello\r\n0\r\n\r\n")),
    "chunk size empty": (400, chunked(b"\r\nhello\r\n0\r\n\r\n")),
    "chunk with bare LF": (400, chunked(b"5\nhello\r\n0\r\n\r\n")),
    "chunk without its CRLF": (400, chunked(b"5\r\nhelloXX0\r\n\r\n")),
    "folded field": (400, request("GET", "/", "X-A: b\r\n c")),
    "bare LF": (400, b"GET / HTTP/1.1\nHost: a\n\n"),
    "control byte in a value": (400, request("GET", "/", "X-A: b\x01c")),
    "NUL in a value": (400, request("GET", "/", "X-A: b\x00c")),
    "NUL in a name": (400, request("GET", "/", "X-\x00A: b")),
    "space before the colon": (400, request("GET", "/", "X-A : b")),
    "space in a name": (400, request("GET", "/", "X A: b")),
    "no colon": (400, request("GET", "/", "nothing")),
    "no Host": (400, request(host="")),
    "two Hosts": (400, request("GET", "/", "Host: other")),
    "two Hosts on 1.0": (400, request("GET", "/", "Host: other", version="1.0")),
    "HTTP/0.9": (400, request(version="0.9")),
    "HTTP/1.9": (400, request(version="1.9")),
    "HTTP/2.0": (400, request(version="2.0")),
    "HTTP/2 preface": (400, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "no version": (400, b"GET /\r\n\r\n"),
    "unknown method": (400, request("FOO")),
    "method in lower case": (400, request("get")),
    "CONNECT": (405, request("CONNECT", "test:443")),
    "raw byte in the path": (400, b"GET /v2/\xff/tags/list HTTP/1.1\r\nHost: a\r\n\r\n"),
    "raw UTF-8 in the path": (400, "GET /v2/é/tags/list HTTP/1.1\r\nHost: a\r\n\r\n".encode()),
    "raw byte in the query": (400, b"GET /v2/?n=\xff HTTP/1.1\r\nHost: a\r\n\r\n"),
    "path without slash": (400, request("GET", "v2/")),
    "TLS on a plain port": (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500)),
    "not HTTP": (400, b"SSH-2.0-OpenSSH_9.9\r\n"),
    "path of 70 kB": (414, request("GET", "/" + "a" * 70_000)),
    "query of 1 MB": (414, request("GET", "/?" + "a" * 1_000_000)),
    "field of 70 kB": (431, request("GET", "/", "X-A: " + "a" * 70_000)),
    "field of 5 MB": (431, request("GET", "/", "X-A: " + "a" * 5_000_000)),
    "name of 70 kB": (431, request("GET", "/", "a" * 70_000 + ": b")),
    "70 kB of spaces before a value": (431, b"GET / HTTP/1.1\r\nHost: a\r\nX-A:" + b" " * 70_000),
    "101 fields": (431, request("GET", "/", *(f"X-{n}: a" for n in range(100)))),
    "5000 fields": (431, request("GET", "/", *(f"X-{n}: a" for n in range(5000)))),
    "trailers of 1 MB": (431, chunked(b"0\r\n" + b"X-A: b\r\n" * 125_000 + b"\r\n")),
    "chunk extension of 200 kB": (431, chunked(b"5;" + b"a" * 200_000 + b"\r\nhello\r\n0\r\n\r\n")),
    "chunk extensions of 200 kB in all": (431, chunked((b"1;" + b"a" * 1000 + b"\r\nh\r\n") * 200 + b"0\r\n\r\n")),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(served: Served, name: str) -> None:
    status, data = REFUSED[name]
    with served.connect() as client:
        client.send_until_closed(data)
        response = client.response()
        assert response.status == status
        assert error_of(response) == "UNSUPPORTED"
        assert response.headers["docker-distribution-api-version"] == "registry/2.0"
        assert client.rest() == b""
    assert not [event for event in served.app.saw() if event[0] == "complete"]
    assert served.alive()


def test_refused_for_head_has_no_body(served: Served) -> None:
    with served.connect() as client:
        client.send(request("HEAD", "/", "X-A: " + "a" * 70_000))
        response = client.response("HEAD")
        assert response.status == 431
        assert int(response.headers["content-length"]) > 0
        assert client.rest() == b""


# What is a request, however odd.

ACCEPTED: dict[str, tuple[bytes, dict[str, Any]]] = {
    "plain": (request("GET", "/v2/?n=1&last=a%2Fb"), {"path": "/v2/", "query": "n=1&last=a%2Fb", "size": 0}),
    "escaped slash": (request("GET", "/v2/a%2Fb/x"), {"raw_path": "/v2/a%2Fb/x", "path": "/v2/a/b/x"}),
    "escaped NUL and a byte that is no UTF-8": (request("GET", "/%ff%00"), {"raw_path": "/%ff%00"}),
    "absolute form": (request("GET", "http://test/v2/x?n=1"), {"raw_path": "/v2/x", "query": "n=1"}),
    "absolute form without a path": (request("GET", "http://test?n=1"), {"raw_path": "/", "query": "n=1"}),
    "two slashes": (request("GET", "//v2//x"), {"raw_path": "//v2//x"}),
    "100 fields": (request("GET", "/", *(f"X-{n}: a" for n in range(99))), {"size": 0}),
    "head of 60 kB": (request("GET", "/", "X-A: " + "a" * 60_000), {"size": 0}),
    "empty lines first": (b"\r\n\r\n" + request(), {"size": 0}),
    "length": (request("PUT", "/x", body=b"hello"), {"method": "PUT", "size": 5}),
    "chunks": (chunked(b"5\r\nhello\r\n1;a=b\r\n!\r\n0\r\nX-T: u\r\n\r\n"), {"size": 6}),
    "Transfer-Encoding: Chunked": (
        request("PUT", "/", "Transfer-Encoding: Chunked") + b"1\r\na\r\n0\r\n\r\n",
        {"size": 1},
    ),
    "HTTP/1.0 without Host": (request(version="1.0", host=""), {"size": 0}),
    "websocket": (request("GET", "/", "Connection: Upgrade", "Upgrade: websocket"), {"size": 0}),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted(served: Served, name: str) -> None:
    data, expected = ACCEPTED[name]
    response = served.ask(data)
    assert response.status == 200
    seen = json.loads(response.body)
    assert {key: seen[key] for key in expected} == expected


def test_trailers_do_not_join_the_headers(served: Served) -> None:
    seen = json.loads(served.ask(chunked(b"0\r\nX-Trailer: u\r\n\r\n")).body)
    assert "x-trailer" not in dict(seen["headers"])


def test_body_longer_than_its_length_is_the_next_request(served: Served) -> None:
    with served.connect() as client:
        client.send(request("PUT", "/", body=b"hello") + b"XXX / HTTP/1.1\r\n\r\n")
        assert json.loads(client.response().body)["size"] == 5
        # It came behind a whole request: that one is answered, and then the connection ends.
        assert client.rest() == b""


def test_malformed_request_after_an_answer(served: Served) -> None:
    with served.connect() as client:
        client.send(request())
        assert client.response().status == 200
        client.send(b"XXX / HTTP/1.1\r\n\r\n")
        assert error_of(client.response()) == "UNSUPPORTED"
        assert client.rest() == b""


def test_nothing_is_written_into_a_running_response(served: Served) -> None:
    size = 8 * MIB
    with served.connect(window=1 << 16) as client:
        client.send(request("GET", f"/stream?{size}"))
        served.app.event()
        client.send(b"\0garbage\r\n\r\n")
        response = client.response()
        assert response.body == (bytes(range(256)) * 256 * (size >> 16))
        assert client.rest() == b""


def test_malformed_body_of_a_request_that_is_not_its_turn(served: Served) -> None:
    """An answer here would be taken for the answer to the first request."""
    with served.connect() as client:
        client.send(request("GET", "/wait") + chunked(b"XX"))
        assert client.rest() == b""


def test_malformed_body_behind_the_start_of_its_answer(served: Served) -> None:
    with served.connect() as client:
        client.send(request("PUT", "/stream?100000000", *CHUNKED))
        client.exactly(100_000)
        client.send_until_closed(b"XX")
        with pytest.raises(Truncated):
            client.exactly(100_000_000)


# Many requests on one connection.


def test_keep_alive(served: Served) -> None:
    with served.connect() as client:
        for body in (b"", b"hello", b"x" * MIB, b""):
            client.send(request("PUT", "/", body=body))
            assert json.loads(client.response().body)["size"] == len(body)


def test_framing_does_not_add_up(served: Served) -> None:
    """The limit for trailers holds for each request of a connection, not for all of them."""
    with served.connect() as client:
        for _ in range(10):
            client.send(chunked(b"0\r\nX-T: " + b"a" * 10_000 + b"\r\n\r\n"))
            assert client.response().status == 200


def test_small_chunks_are_no_offence(served: Served) -> None:
    with served.connect() as client:
        for _ in range(2):
            client.send(chunked(b"1\r\na\r\n" * 20_000 + b"0\r\n\r\n"))
            assert json.loads(client.response().body)["size"] == 20_000


def test_pipelined(served: Served) -> None:
    with served.connect() as client:
        client.send(
            request("GET", "/stream?100000")
            + request("PUT", "/2", body=b"hello")
            + request("HEAD", "/3")
            + request("GET", "/4", "Connection: close")
            + request("GET", "/5")
        )
        assert len(client.response().body) == 100_000
        assert json.loads(client.response().body)["size"] == 5
        assert client.response("HEAD").body == b""
        assert json.loads(client.response().body)["raw_path"] == "/4"
        assert client.rest() == b""


def test_pipelined_beyond_the_limit(serve: Serve) -> None:
    """What fits is answered; the connection then ends, and the client asks again for the rest."""
    with serve(Limits(max_pipelined=3)) as served, served.connect() as client:
        client.send(b"".join(request("GET", f"/{n}") for n in range(10)))
        paths = [json.loads(client.response().body)["raw_path"] for _ in range(4)]
        assert paths == ["/0", "/1", "/2", "/3"]
        assert client.rest() == b""


def test_disconnect_reaches_the_request_that_runs(served: Served) -> None:
    """uvicorn tells only the newest request of a pipeline."""
    with served.connect() as client:
        client.send(request("GET", "/wait/1") + request("GET", "/2"))
        assert served.app.event() == ("request", "GET", b"/wait/1")
        assert served.app.event() == ("complete", [0])
    assert served.app.event() == ("http.disconnect", b"/wait/1")
    assert served.alive()
    assert [event for event in served.app.saw() if event[0] == "request"] == [("request", "GET", b"/")]


@pytest.mark.parametrize("pieces", [1, 2])
@pytest.mark.parametrize(
    ("fields", "body"),
    [((), b"hello"), (CHUNKED, b"5\r\nhello\r\n0\r\n\r\n")],
    ids=["length", "chunked"],
)
def test_upgrade_keeps_the_body(served: Served, pieces: int, fields: tuple[str, ...], body: bytes) -> None:
    """Java's HttpClient asks for h2c with its first request. The body must be neither lost nor the next request."""
    length = () if fields else (f"Content-Length: {len(body)}",)
    head = request("PUT", "/u", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", *fields, *length)
    with served.connect() as client:
        if pieces == 1:
            client.send(head + body + request("GET", "/next"))
        else:
            client.send(head)
            assert served.app.event() == ("request", "PUT", b"/u")
            client.send(body + request("GET", "/next"))
        seen = json.loads(client.response().body)
        assert (seen["size"], seen["sha256"]) == (5, hashlib.sha256(b"hello").hexdigest())
        assert json.loads(client.response().body)["raw_path"] == "/next"


def test_many_upgrades_in_one_segment(served: Served) -> None:
    with served.connect() as client:
        client.send(request("GET", "/", "Connection: Upgrade", "Upgrade: h2c") * 50)
        assert [client.response().status for _ in range(50)] == [200] * 50


# Bodies.


def test_large_chunks(served: Served) -> None:
    """The application gets what arrived, at most a little above the high-water mark, and never byte by byte."""
    body = os.urandom(16 * MIB)
    response = served.ask(request("PUT", "/", body=body))
    assert json.loads(response.body)["sha256"] == hashlib.sha256(body).hexdigest()
    sizes = next(event[1] for event in served.app.saw() if event[0] == "complete")
    assert max(sizes) <= Limits().body_high_water + (256 << 10)


@pytest.mark.slow
def test_body_waits_outside_while_the_application_is_busy(serve: Serve) -> None:
    """Nothing is read above the high-water mark, so the client's kernel holds the rest: its send blocks."""
    with serve(Limits(body_high_water=1 << 16)) as served, served.connect() as client:
        client.send(request("GET", "/wait") + request("PUT", "/", "Content-Length: 100000000"))
        client.socket.settimeout(0.1)
        with pytest.raises(TimeoutError):
            client.send(bytes(100_000_000))


def test_expect_continue(served: Served) -> None:
    with served.connect() as client:
        client.send(request("PUT", "/", "Expect: 100-continue", "Content-Length: 5"))
        assert client.response().status == 100
        client.send(b"hello")
        assert json.loads(client.response().body)["size"] == 5


def test_expect_continue_is_not_sent_when_the_body_is_there(served: Served) -> None:
    assert served.ask(request("PUT", "/", "Expect: 100-continue", body=b"hello")).status == 200


def test_expect_continue_on_http_1_0_is_ignored(served: Served) -> None:
    with served.connect() as client:
        client.send(request("PUT", "/", "Expect: 100-continue", "Content-Length: 5", version="1.0"))
        served.app.event()
        client.send(b"hello")
        assert client.response().status == 200


def test_early_answer_to_expect_ends_the_connection(served: Served) -> None:
    """Nobody knows whether the body comes, so what follows must not be taken for it."""
    with served.connect() as client:
        client.send(request("PUT", "/early", "Expect: 100-continue", "Content-Length: 50"))
        response = client.response()
        assert (response.status, response.headers["connection"]) == (413, "close")
        client.send_until_closed(request("GET", "/next"))
        assert client.rest() == b""
    assert b"/next" not in [event[2] for event in served.app.saw()]


def test_early_answer_to_a_short_body_keeps_the_connection(served: Served) -> None:
    with served.connect() as client:
        client.send(request("PUT", "/early", "Content-Length: 5"))
        response = client.response()
        assert response.status == 413
        assert "connection" not in response.headers
        client.send(b"hello" + request("GET", "/next"))
        assert client.response().status == 200


@pytest.mark.slow
def test_early_answer_to_a_short_body_that_came_in_time(serve: Serve) -> None:
    with serve(Limits(discard_timeout=0.4)) as served, served.connect() as client:
        client.send(request("PUT", "/early", "Content-Length: 5"))
        assert client.response().status == 413
        client.send(b"hello")
        threading.Event().wait(0.6)
        client.send(request())
        assert client.response().status == 200


@pytest.mark.parametrize("fields", [CHUNKED, ("Content-Length: 104857600",)], ids=["chunked", "length"])
def test_early_answer_reaches_a_client_that_sends_on(served: Served, fields: tuple[str, ...]) -> None:
    """Closing at once would have the kernel answer the body with a reset: clients then fail before they read."""
    with served.connect() as client:
        client.send(request("PUT", "/early", *fields) + b"10000\r\n")
        response = client.response()
        assert (response.status, response.headers["connection"]) == (413, "close")
        assert client.rest() == b""  # our side is closed; the other is still read
        for _ in range(8):
            client.send(bytes(1 << 16))


@pytest.mark.parametrize("fields", [CHUNKED, ("Content-Length: 104857600",)], ids=["chunked", "length"])
def test_early_answer_is_not_the_start_of_an_endless_read(served: Served, fields: tuple[str, ...]) -> None:
    with served.connect() as client, pytest.raises((BrokenPipeError, ConnectionResetError)):
        client.send(request("PUT", "/early", *fields) + b"6400000\r\n" + bytes(100 * MIB))


def test_refusal_reaches_a_client_that_sends_on(served: Served) -> None:
    with served.connect() as client:
        client.send(request("PUT", "/", "Transfer-Encoding: gzip, chunked"))
        assert client.response().status == 400
        assert client.rest() == b""
        for _ in range(8):
            client.send(bytes(1 << 16))


def test_early_answer_and_a_body_that_never_comes(serve: Serve) -> None:
    with serve(BRIEF) as served, served.connect() as client:
        client.send(request("PUT", "/early", "Content-Length: 5"))
        assert client.response().status == 413
        assert client.rest() == b""


# Clients that leave.

LEAVING: dict[str, Callable[[RawConnection], None]] = {
    "close": lambda client: client.socket.close(),
    "reset": lambda client: client.reset(),
    "half-close": lambda client: client.half_close(),
}


@pytest.mark.parametrize("how", LEAVING)
@pytest.mark.parametrize(
    ("data", "kept"),
    [
        (request("PUT", "/", "Content-Length: 100") + b"hello", 5),
        (chunked(b"5\r\nhello\r\n"), 5),
        (chunked(b"5\r\nhel"), 3),
        (request("PUT", "/", "Content-Length: 100", "Connection: Upgrade", "Upgrade: h2c") + b"hello", 5),
    ],
    ids=["length", "chunked", "in a chunk", "upgrade"],
)
def test_truncated_body_is_never_complete(served: Served, how: str, data: bytes, kept: int) -> None:
    with served.connect() as client:
        client.send(data)
        assert served.app.event()[0] == "request"
        LEAVING[how](client)
        assert served.app.event()[0] == "truncated"


@pytest.mark.parametrize("how", LEAVING)
def test_leaving_in_the_middle_of_a_download(served: Served, how: str, caplog: pytest.LogCaptureFixture) -> None:
    with served.connect(window=1 << 14) as client:
        client.send(request("GET", f"/stream?{64 * MIB}"))
        client.exactly(1000)
        LEAVING[how](client)
        assert served.app.event()[0] == "request"
        assert served.app.event() == ("http.disconnect",)
    assert served.alive()
    assert caplog.text == ""


def test_descriptors_return(serve: Serve) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with serve() as served:
        for how in LEAVING.values():
            for target in ("/", f"/stream?{MIB}", "/wait", "/early"):
                with served.connect() as client:
                    client.send(request("PUT", target, "Content-Length: 100") + b"hello")
                    how(client)
        assert served.alive()
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


# Applications that fail.


def test_failure_before_the_response(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    with served.connect() as client:
        client.send(request("GET", "/fail"))
        response = client.response()
        assert (response.status, error_of(response)) == (500, "UNKNOWN")
        assert client.rest() == b""
    assert "on purpose" in caplog.text


def test_failure_inside_the_response(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    """A short body, not a complete-looking one."""
    with served.connect() as client:
        client.send(request("GET", "/fail?late"))
        with pytest.raises(Truncated):
            client.response()
    assert "on purpose" in caplog.text


def test_failure_that_the_application_has_logged(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    with served.connect() as client:
        client.send(request("GET", "/fail?broken"))
        with pytest.raises(Truncated):
            client.response()
        assert client.rest() == b""
    assert not caplog.records


# Limits in time. BRIEF has 0.2 s where the defaults have 30 and 120.


def trickle(client: RawConnection, piece: bytes) -> float:
    """Send piece every 10 ms until the server has closed. Returns the seconds that it took."""
    began = time.monotonic()
    client.socket.settimeout(0.01)
    while time.monotonic() - began < PATIENCE:
        try:
            client.socket.send(piece)
            if not client.socket.recv(1000):
                break
        except TimeoutError:
            continue
        except OSError:
            break
    return time.monotonic() - began


SLOW: dict[str, bytes] = {
    "nothing": b"",
    "half a head": b"GET / HTTP/1.1\r\nX-A: ",
    "an empty line after a request": request() + b"\r\n",
    "half a body": request("PUT", "/", "Content-Length: 100000") + b"hello",
    "half a chunk": chunked(b"ff\r\nhello"),
    "half a body with upgrade": request("PUT", "/", "Content-Length: 99", "Connection: Upgrade", "Upgrade: h2c") + b"h",
    "idle after a request": request(),
    "idle after HEAD": request("HEAD"),
}


@pytest.mark.parametrize("name", SLOW)
def test_silent_client_is_ended(serve: Serve, name: str) -> None:
    with serve(BRIEF) as served, served.connect() as client:
        began = time.monotonic()
        client.send(SLOW[name])
        client.rest()
        assert 0.15 < time.monotonic() - began < 5


def test_empty_lines_do_not_keep_a_connection(serve: Serve) -> None:
    """They are the beginning of a head, so it is not the time of an idle connection that holds."""
    with serve(replace(BRIEF, keep_alive=0)) as served, served.connect() as client:
        client.send(request())
        assert client.response().status == 200
        client.send(b"\r\n")
        assert client.rest() == b""


def test_client_that_does_not_close_after_a_refusal(serve: Serve) -> None:
    with serve(replace(BRIEF, head_timeout=0, keep_alive=0)) as served, served.connect() as client:
        client.send(b"not HTTP\r\n\r\n")
        assert client.response().status == 400
        wait_until(lambda: open_connections(served) == 0)


def test_stalled_reader_of_what_the_kernel_holds(serve: Serve) -> None:
    """Nothing is left in this process, but the client has not taken it."""
    with serve(replace(BRIEF, keep_alive=0)) as served, served.connect(window=1 << 12) as client:
        client.send(request("GET", "/large?400000"))
        wait_until(lambda: open_connections(served) == 1)
        wait_until(lambda: open_connections(served) == 0)
        with pytest.raises(Truncated):
            client.response()


@pytest.mark.parametrize(
    "start", [b"GET / HTTP/1.1\r\nX-A: ", request("PUT", "/", "Content-Length: 100000")], ids=["head", "body"]
)
def test_trickling_client_is_ended(serve: Serve, start: bytes) -> None:
    """300 bytes a second, where 1 KiB is the least."""
    with serve(BRIEF) as served, served.connect() as client:
        client.send(start)
        assert trickle(client, b"abc") < 5
    assert "complete" not in [event[0] for event in served.app.saw()]


@pytest.mark.slow
def test_slow_but_steady_upload_goes_on(serve: Serve) -> None:
    """20 kB/s for more than twice the time-out."""
    with serve(PATIENT) as served, served.connect() as client:
        client.send(request("PUT", "/", "Content-Length: 30000"))
        for _ in range(75):
            client.send(bytes(400))
            threading.Event().wait(0.02)
        assert json.loads(client.response().body)["size"] == 30_000


def test_stalled_download_is_ended(serve: Serve) -> None:
    with serve(BRIEF) as served, served.connect(window=1 << 14) as client:
        client.send(request("GET", f"/stream?{64 * MIB}"))
        assert served.app.event()[0] == "request"
        assert served.app.event() == ("http.disconnect",)
        with pytest.raises(Truncated):
            client.response()


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_stalled_reader_of_a_finished_response_is_ended(serve: Serve, version: str) -> None:
    """The application is done, but what it wrote does not leave; with 1.0 the transport is closing already."""
    with serve(BRIEF) as served, served.connect(window=1 << 14) as client:
        client.send(request("GET", f"/large?{8 * MIB}", version=version))
        assert served.app.event()[0] == "request"
        assert served.app.event() == ("complete", [0])
        assert open_connections(served) == 1
        wait_until(lambda: open_connections(served) == 0)


@pytest.mark.slow
def test_slow_but_steady_download_goes_on(serve: Serve) -> None:
    """200 kB/s for more than twice the time-out."""
    with serve(PATIENT) as served, served.connect(window=1 << 12) as client:
        client.send(request("GET", f"/stream?{300_000}"))
        got = 0
        while got < 300_000:
            got += len(client.socket.recv(4000))
            threading.Event().wait(0.02)


@pytest.mark.slow
def test_waiting_for_the_application_never_counts(serve: Serve) -> None:
    """Twice the time-outs, with half of the next head on the line."""
    with serve(PATIENT) as served, served.connect() as client:
        client.send(request("GET", "/wait") + b"GET / HTTP/1.1\r\n")
        threading.Event().wait(1.2)
        served.app.release()
        assert client.response().body == b"released"
        threading.Event().wait(0.2)
        client.send(b"Host: a\r\n\r\n")
        assert client.response().status == 200


@pytest.mark.slow
@pytest.mark.parametrize("expect", [(), ("Expect: 100-continue",)], ids=["body", "expect"])
def test_waiting_for_the_application_to_read_never_counts(serve: Serve, expect: tuple[str, ...]) -> None:
    limits = replace(PATIENT, body_high_water=1 << 16)
    with serve(limits) as served, served.connect() as client:
        size = 16 * MIB
        client.send(request("PUT", "/late", f"Content-Length: {size}", *expect))
        sender = threading.Thread(target=client.send, args=(bytes(size),))
        if not expect:
            sender.start()
        threading.Event().wait(1.2)
        served.app.release()
        if expect:
            assert client.response().status == 100
            sender.start()
        assert json.loads(client.response().body)["size"] == size
        sender.join()


def open_connections(served: Served) -> int:
    """Sockets that the server still holds. What the kernel does alone has no inode."""
    with open("/proc/net/tcp") as table:
        rows = [line.split() for line in table][1:]
    listening, port = "0A", f":{served.server.port:04X}"
    return sum(row[1].endswith(port) and row[3] != listening and row[9] != "0" for row in rows)


# Limits in number.


def test_connections_above_the_limit(serve: Serve) -> None:
    with serve(Limits(max_connections=3)) as served:
        with served.connect() as a, served.connect() as b, served.connect() as c:
            for client in (a, b, c):
                client.send(request())
                assert client.response().status == 200
            with served.connect() as above:
                above.send(request())
                response = above.response()
                assert (response.status, error_of(response)) == (503, "UNAVAILABLE")
                assert response.headers["retry-after"] == "1"
                assert above.rest() == b""
            a.send(request())
            assert a.response().status == 200
        wait_until(lambda: open_connections(served) == 0)
        assert served.alive()


def test_a_registry_in_demand_lives(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """A liveness probe is answered above the limit; the others hear no, at once if they are many. The log says so."""
    with serve(Limits(max_connections=1, reserve=1)) as served, served.connect() as first:
        first.send(request())
        assert first.response().status == 200
        for path in ("/livez", "/registry/livez"):
            with served.connect() as probe:
                probe.send(request("GET", path))
                response = probe.response()
                assert (response.status, response.headers["connection"]) == (200, "close")
                assert probe.rest() == b""
            wait_until(lambda: open_connections(served) == 1)
        with served.connect() as waiting, served.connect() as above:
            assert above.response().status == 503
            waiting.send(request("GET", "/readyz"))
            assert waiting.response().status == 503
    (said,) = [record.getMessage() for record in caplog.records if "too many connections" in record.getMessage()]
    assert said.startswith("too many connections: 1 refused, as 1 are open; raise limits.maxconnections")


@pytest.mark.slow
def test_many_bad_clients_and_one_good(serve: Serve) -> None:
    """Rows 126 and 127: idle sockets, half heads, bodies at a byte, stalled readers; another client is served."""
    with serve(Limits(head_timeout=1, stall_timeout=1, keep_alive=1)) as served:
        socks: list[socket.socket] = []
        for number in range(400):
            sock = socket.create_connection((served.server.host, served.server.port))
            sock.sendall(
                [
                    b"",
                    b"GET / HTTP/1.1\r\n",
                    request("PUT", "/", "Content-Length: 9") + b"x",
                    request("GET", f"/stream?{8 * MIB}"),
                ][number % 4]
            )
            socks.append(sock)
        delays = []
        with served.connect() as client:
            for _ in range(20):
                began = time.monotonic()
                client.send(request())
                assert client.response().status == 200
                delays.append(time.monotonic() - began)
        assert sorted(delays)[10] < 0.25
        wait_until(lambda: open_connections(served) == 0)
        for sock in socks:
            sock.close()
        assert served.alive()


def test_memory_does_not_grow_with_refused_heads(served: Served) -> None:
    def resident() -> int:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE")

    piece = b"a" * MIB
    with served.connect() as client:
        before = resident()
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nX-A: ")
        for _ in range(64):
            client.send_until_closed(piece)
        assert resident() - before < 16 * MIB


# The loop.


def test_small_requests_are_not_delayed(served: Served) -> None:
    """16 round trips: with Nagle's algorithm on one side each would take 40 ms."""
    with served.connect() as client:
        began = time.monotonic()
        for _ in range(16):
            client.send(request())
            client.response()
        assert time.monotonic() - began < 0.5


@pytest.mark.slow
def test_others_are_served_while_large_bodies_move(served: Served) -> None:
    stop = threading.Event()

    def push() -> None:
        body = bytes(8 * MIB)
        while not stop.is_set():
            served.ask(request("PUT", "/", body=body))

    def pull() -> None:
        while not stop.is_set():
            with served.connect() as client:
                client.send(request("GET", f"/stream?{8 * MIB}"))
                client.response()

    threads = [threading.Thread(target=push), threading.Thread(target=pull)]
    for thread in threads:
        thread.start()
    delays = []
    with served.connect() as client:
        for _ in range(50):
            began = time.monotonic()
            client.send(request())
            client.response()
            delays.append(time.monotonic() - began)
    stop.set()
    for thread in threads:
        thread.join()
    assert sorted(delays)[45] < 0.25  # most of it is the hashing of this test's own application


def test_stalled_client_leaves_no_orphan_in_the_kernel(serve: Serve) -> None:
    with serve(BRIEF) as served, served.connect(window=1 << 14) as client:
        client.send(request("GET", f"/stream?{64 * MIB}"))
        assert served.app.event()[0] == "request"
        assert served.app.event() == ("http.disconnect",)
        wait_until(lambda: tcp_state(client) != struct.pack("B", 1))


def tcp_state(client: RawConnection) -> bytes:
    """First byte of TCP_INFO: 1 is established, 7 is closed (by the server's reset)."""
    return client.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)


# The guard.

DIGESTS = {
    "uvicorn.protocols.http.httptools_impl": "1d4e1c579df41684",
    "uvicorn.protocols.http.flow_control": "d39d16560df512f3",
    "ServerState": "f2260fbf10154746",
}


def test_private_parts_of_uvicorn_are_those_we_know() -> None:
    """uvicorn has changed? Read the diff of these sources, run this module on both loops, update the digests."""
    found = {
        part.__name__: hashlib.sha256(inspect.getsource(part).encode()).hexdigest()[:16]  # type: ignore[attr-defined,arg-type]
        for part in PRIVATE
    }
    assert found == DIGESTS
