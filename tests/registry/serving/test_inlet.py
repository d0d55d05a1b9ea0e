"""Bodies that are received past the event loop, through a real socket, on both loops."""

import asyncio
import hashlib
import json
import os
import queue
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trustme
import uvloop
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from registry.bodies import Body
from registry.config.model import Config, HTTPConfig, TLSConfig
from registry.serving.inlet import WORTH_WHILE, Inlet
from registry.serving.limits import Limits
from registry.serving.server import LoopFactory, RunningServer, running
from storage.direct import DirectChunks
from storage.driver import Tap
from storage.drivers.filesystem import FilesystemDriver
from storage.errors import OffsetMismatch, StorageFull
from tests.rawsocket import RawConnection, Response, connected, request
from tests.waiting import wait_until

LOOPS: dict[str, LoopFactory] = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
DATA = hashlib.shake_128(b"inlet").digest(5 << 20)
BRIEF = Limits(head_timeout=0.3, stall_timeout=0.3, keep_alive=0.3, min_rate=1024)


class App:
    """Receives bodies directly, as many bytes as the query says (nothing: all), and the rest through the loop."""

    def __init__(self) -> None:
        self.seen: queue.Queue[Any] = queue.Queue()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            for kind in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{kind}.complete"})
            return
        body = Body(Request(scope, receive))
        parts: list[bytes] = []
        direct = 0
        try:
            opening = body.take_over()
            if opening is not None:
                with opening as inlet:
                    self.seen.put("open")
                    direct = await take(inlet, int(scope["query_string"] or len(DATA)), parts)
            parts += [part async for part in body]
        except ClientDisconnect:
            self.seen.put(b"".join(parts))
            return
        whole = b"".join(parts)
        answer = {"direct": direct, "size": len(whole), "sha256": hashlib.sha256(whole).hexdigest()}
        text = json.dumps(answer).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(text))]})
        await send({"type": "http.response.body", "body": text})


async def take(inlet: Inlet, limit: int, parts: list[bytes]) -> int:
    """Receive in a thread until `limit` bytes have come directly. Returns their count."""
    parts += inlet.first
    buffer = memoryview(bytearray(200_000))
    direct = 0
    while inlet.left and direct < limit:
        while size := await asyncio.to_thread(inlet.receive, buffer[: max(0, limit - direct)]):
            parts.append(bytes(buffer[:size]))
            direct += size
        if inlet.left and direct < limit:
            await inlet.ready()
    return direct


@pytest.fixture(params=LOOPS)
def serve(request: pytest.FixtureRequest) -> Callable[..., Any]:
    @contextmanager
    def serve(limits: Limits | None = None, config: Config | None = None) -> Iterator[tuple[RunningServer, App]]:
        app = App()
        with running(app, config, limits=limits, loop_factory=LOOPS[request.param]) as server:
            yield server, app

    return serve


@pytest.fixture
def served(serve: Callable[..., Any]) -> Iterator[tuple[RunningServer, App]]:
    with serve() as made:
        yield made


@pytest.fixture
def client(served: tuple[RunningServer, App]) -> Iterator[RawConnection]:
    with connected(served[0].host, served[0].port) as made:
        yield made


def check(response: Response, data: bytes) -> int:
    """Returns how many bytes came directly."""
    seen: dict[str, Any] = json.loads(response.body)
    assert seen["size"] == len(data)
    assert seen["sha256"] == hashlib.sha256(data).hexdigest()
    return int(seen["direct"])


def test_is_what_storage_asks_for() -> None:
    assert isinstance(Body(Request({"type": "http"})), DirectChunks)
    assert Body(Request({"type": "http"})).take_over() is None, "another server offers nothing"


def test_whole_bodies_and_requests_behind_them(client: RawConnection) -> None:
    """The second request and a part of its body leave with the first body: not a byte of them is taken for it."""
    client.send(request("PATCH", "/", body=DATA) + request("PATCH", "/", body=DATA[::-1]) + request("GET", "/"))
    assert check(client.response(), DATA) > WORTH_WHILE
    assert check(client.response(), DATA[::-1]) >= 0
    assert check(client.response(), b"") == 0


@pytest.mark.parametrize("limit", [1, 100_000, WORTH_WHILE + 1])
def test_the_rest_through_the_loop(client: RawConnection, limit: int) -> None:
    for _ in range(2):
        client.send(request("PATCH", f"/?{limit}", body=DATA))
        assert check(client.response(), DATA) == limit


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_connection_that_ends_with_the_request(client: RawConnection, version: str) -> None:
    client.send(request("PATCH", "/", "Connection: close", body=DATA, version=version))
    check(client.response(), DATA)
    assert client.rest() == b""


def test_expect_continue(client: RawConnection) -> None:
    client.send(request("PATCH", "/", "Expect: 100-continue", f"Content-Length: {len(DATA)}"))
    assert client.response().status == 100
    client.send(DATA)
    assert check(client.response(), DATA) == len(DATA)


def test_not_worth_while(client: RawConnection) -> None:
    client.send(request("PATCH", "/", body=DATA[: WORTH_WHILE - 1]))
    assert check(client.response(), DATA[: WORTH_WHILE - 1]) == 0


def test_not_for_chunks(client: RawConnection) -> None:
    client.send(request("PATCH", "/", "Transfer-Encoding: chunked") + b"%x\r\n%b\r\n0\r\n\r\n" % (len(DATA), DATA))
    assert check(client.response(), DATA) == 0


def test_not_under_tls(serve: Callable[..., Any], tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "both")
    config = Config(http=HTTPConfig(tls=TLSConfig(certificate=str(tmp_path / "both"), key=str(tmp_path / "both"))))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with serve(config=config) as (server, _), connected(server.host, server.port, context) as client:
        client.send(request("PATCH", "/", body=DATA))
        assert check(client.response(), DATA) == 0


@pytest.mark.parametrize("how", ["close", "half-close", "reset"])
def test_leaving_in_the_middle(served: tuple[RunningServer, App], how: str) -> None:
    server, app = served
    before = descriptors()
    with connected(server.host, server.port) as client:
        client.send(request("PATCH", "/", f"Content-Length: {len(DATA)}"))
        assert app.seen.get(timeout=10) == "open"
        client.send(DATA[: 1 << 20])
        if how == "half-close":
            client.half_close()
            assert client.rest() == b""
        elif how == "reset":
            client.reset()
        else:
            client.socket.close()
    got = app.seen.get(timeout=10)
    assert DATA.startswith(got)
    assert how == "reset" or len(got) == 1 << 20
    wait_until(lambda: descriptors() <= before)


def pause(seconds: float) -> None:
    threading.Event().wait(seconds)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.slow
def test_stalled_client_is_ended(serve: Callable[..., Any]) -> None:
    with serve(BRIEF) as (server, app), connected(server.host, server.port) as client:
        client.send(request("PATCH", "/", f"Content-Length: {len(DATA)}"))
        assert app.seen.get(timeout=10) == "open"
        threading.Event().wait(0.1)  # now it waits for more than we shall send: the kernel keeps it
        client.send(DATA[:300_000])
        assert client.rest() == b""
        assert app.seen.get(timeout=10) == DATA[:300_000], "what came is not lost"


@pytest.mark.slow
def test_slow_but_steady_client_goes_on(serve: Callable[..., Any]) -> None:
    """Though the kernel gathers more than all of this before it wakes us."""
    with serve(BRIEF) as (server, app), connected(server.host, server.port) as client:
        client.send(request("PATCH", "/", f"Content-Length: {len(DATA)}"))
        assert app.seen.get(timeout=10) == "open"
        for index in range(12):
            client.send(DATA[index * 1000 : index * 1000 + 1000])
            pause(0.1)
        client.send(DATA[12_000:])
        assert check(client.response(), DATA) > 0


@pytest.mark.slow
def test_server_that_ends(serve: Callable[..., Any]) -> None:
    """Our descriptor does not keep the connection alive, nor the server waiting."""
    with serve() as (server, app):
        client = socket.create_connection((server.host, server.port), 10)
        client.sendall(request("PATCH", "/", f"Content-Length: {len(DATA)}"))
        assert app.seen.get(timeout=10) == "open"
    with client:
        assert app.seen.get(timeout=10) == b""
        with suppress(ConnectionResetError):
            assert client.recv(1) == b""


# With the driver that uses it


class Direct(AsyncIterator[bytes]):
    """Chunks that come through one end of a pair of sockets."""

    def __init__(self, size: int, first: list[bytes] | None = None) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.ours.setblocking(False)
        self._first, self._size = first or [], size

    async def __anext__(self) -> bytes:
        raise AssertionError("the direct way is not used")

    @contextmanager
    def take_over(self) -> Iterator[Inlet]:
        inlet = Inlet(self.ours.fileno(), asyncio.get_running_loop(), self._first, self._size)
        try:
            yield inlet
        finally:
            inlet.close()

    async def send(self, data: bytes) -> None:
        await asyncio.to_thread(self.theirs.sendall, data)

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()


@pytest.fixture
async def driver(tmp_path: Path) -> AsyncIterator[FilesystemDriver]:
    made = FilesystemDriver(tmp_path / "root", scratch="scratch")
    yield made
    await made.aclose()


def noted() -> tuple[Tap, asyncio.Event]:
    """A tap, and the event that something has passed it."""
    stored, loop = asyncio.Event(), asyncio.get_running_loop()

    def tap(piece: bytes | memoryview) -> None:
        loop.call_soon_threadsafe(stored.set)

    return tap, stored


async def test_append_takes_the_direct_way(driver: FilesystemDriver) -> None:
    chunks, stage, tapped = Direct(len(DATA) - 10, [DATA[:4], DATA[4:10]]), await driver.begin("a"), hashlib.sha256()
    sending = asyncio.create_task(chunks.send(DATA[10:]))
    assert await driver.append(stage, 0, chunks, tapped.update) == len(DATA)
    await sending
    assert await driver.read("a") == DATA
    assert tapped.digest() == hashlib.sha256(DATA).digest()
    chunks.close()


async def test_append_keeps_what_came_of_a_client_that_leaves(driver: FilesystemDriver) -> None:
    chunks, stage = Direct(len(DATA)), await driver.begin("a")
    await chunks.send(DATA[:100_000])
    chunks.theirs.close()
    with pytest.raises(ClientDisconnect):
        await driver.append(stage, 0, chunks)
    assert await driver.read("a") == DATA[:100_000]
    chunks.close()


async def test_append_elsewhere_takes_nothing(driver: FilesystemDriver) -> None:
    chunks, stage = Direct(10, [b"first"]), await driver.begin("a")
    with pytest.raises(OffsetMismatch):
        await driver.append(stage, 5, chunks)
    chunks.close()
    assert (await driver.stage_info(stage)).offset == 0


async def test_somebody_appends_in_between(driver: FilesystemDriver, tmp_path: Path) -> None:
    chunks, stage = Direct(10, [b"ours"]), await driver.begin("a")
    tap, stored = noted()
    appending = asyncio.create_task(driver.append(stage, 0, chunks, tap))
    await stored.wait()
    with (tmp_path / "root" / "a").open("ab") as file:
        file.write(b"theirs")
    await chunks.send(bytes(10))
    with pytest.raises(OffsetMismatch):
        await appending
    assert await driver.read("a") == b"ourstheirs"
    chunks.close()


async def test_a_cancelled_append_can_go_on(driver: FilesystemDriver) -> None:
    chunks, stage = Direct(10, [b"ours"]), await driver.begin("a")
    tap, stored = noted()
    appending = asyncio.create_task(driver.append(stage, 0, chunks, tap))
    await stored.wait()
    appending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await appending
    chunks.close()
    rest = Direct(0, [b"more"])
    assert await driver.append(stage, 4, rest) == 8
    rest.close()


async def test_a_full_disk(driver: FilesystemDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    chunks, stage = Direct(10), await driver.begin("a")
    await chunks.send(b"0123456789")

    def full(*args: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwritev", full)
    with pytest.raises(StorageFull):
        await driver.append(stage, 0, chunks)
    chunks.close()
