"""Starting and ending: in this process by `running`, and by `run` in a child, which can be sent signals."""

import asyncio
import errno
import json
import os
import resource
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme
import uvloop
from starlette.types import Receive, Scope, Send

from registry.config import Config, ConfigError
from registry.config.model import HTTPConfig, LimitsConfig, TLSConfig
from registry.serving.limits import Limits
from registry.serving.server import LoopFactory, best_loop, limits_of, run, running
from tests.rawsocket import PATIENCE, RawConnection, connected, refuses, request
from tests.waiting import wait_until

LOOPS: dict[str, LoopFactory] = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
MIB = 1 << 20


@pytest.fixture(params=LOOPS)
def loop_name(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def loop(loop_name: str) -> LoopFactory:
    return LOOPS[loop_name]


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the size of the body; the path says what else: /early, /forever, /BYTES."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        print("stopped", flush=True)
        await send({"type": "lifespan.shutdown.complete"})
        return
    action = scope["path"][1:]
    size = 0 if action == "early" else await size_of_body(receive)
    if action == "forever":
        await asyncio.Event().wait()
    body = bytes(int(action)) if action.isdigit() else json.dumps([size, scope["scheme"]]).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


async def size_of_body(receive: Receive) -> int:
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    return size


# In this process.


def test_url_and_address() -> None:
    with running(app) as server:
        assert server.url == f"http://127.0.0.1:{server.port}"
        assert server.address == f"127.0.0.1:{server.port}"
    with running(app, addr="[::1]:0") as server:
        assert server.url == f"http://[::1]:{server.port}"
        with connected(server.host, server.port) as client:
            client.send(request())
            assert client.response().status == 200


def test_port_is_free_again(loop: LoopFactory) -> None:
    with running(app, loop_factory=loop) as server, connected(server.host, server.port) as client:
        client.send(request())
        client.response()
    with running(app, addr=server.address, loop_factory=loop):
        pass


@pytest.mark.slow
def test_request_that_does_not_end_is_ended(loop: LoopFactory, caplog: pytest.LogCaptureFixture) -> None:
    with running(app, drain=0.05, loop_factory=loop) as server, connected(server.host, server.port) as client:
        client.send(request("GET", "/forever"))
        threading.Event().wait(0.05)
    assert "draintimeout" in caplog.text


def test_application_that_does_not_start(loop: LoopFactory) -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise LookupError("no such folder")

    with pytest.raises(LookupError, match="no such folder"), running(broken, loop_factory=loop):
        pass


def test_application_without_lifespan_does_not_start() -> None:
    async def returns(scope: Scope, receive: Receive, send: Send) -> None:
        return

    with pytest.raises(RuntimeError, match="startup"), running(returns):
        pass


def test_address_is_checked_before_the_application_starts() -> None:
    with running(app) as server:
        config = Config(http=HTTPConfig(addr=server.address))
        with pytest.raises(OSError, match="in use") as caught:
            run(app, config, started=lambda _: pytest.fail("it did not start"))
        assert caught.value.errno == errno.EADDRINUSE


def test_tls_is_checked_before_the_application_starts() -> None:
    config = Config(http=HTTPConfig(addr="127.0.0.1:0", tls=TLSConfig(certificate="/missing")))
    with pytest.raises(ConfigError, match=r"http\.tls\.key"):
        run(app, config, started=lambda _: pytest.fail("it did not start"))


def test_limits_come_from_the_settings() -> None:
    """Every setting of `limits` that concerns the server has an effect, and the defaults of both sides agree."""
    assert limits_of(Config()) == Limits()
    settings = LimitsConfig(
        headtimeout=1, stalltimeout=2, minrate=3, keepalive=4, maxconnections=5, headsize=6, headerfields=7
    )
    assert limits_of(Config(limits=settings)) == Limits(
        head_timeout=1, stall_timeout=2, min_rate=3, keep_alive=4, max_connections=5, max_head=6, max_fields=7
    )


def test_uvloop_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert best_loop() is uvloop.new_event_loop
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert best_loop() is asyncio.new_event_loop


def test_date(loop: LoopFactory) -> None:
    with running(app, loop_factory=loop) as server, connected(server.host, server.port) as client:
        client.send(request())
        assert client.response().headers["date"].endswith(" GMT")


# TLS, live.


@dataclass
class Secured:
    config: Config
    client: ssl.SSLContext


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Secured:
    ca, folder = trustme.CA(), tmp_path_factory.mktemp("tls")
    issued = ca.issue_cert("127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(str(folder / "both.pem"))
    client = ssl.create_default_context()
    ca.configure_trust(client)
    both = str(folder / "both.pem")
    return Secured(Config(http=HTTPConfig(tls=TLSConfig(certificate=both, key=both))), client)


@contextmanager
def tls_client(secured: Secured, loop: LoopFactory, limits: Limits | None = None) -> Iterator[RawConnection]:
    with (
        running(app, secured.config, limits=limits, loop_factory=loop) as server,
        connected(server.host, server.port, secured.client) as client,
    ):
        assert server.url.startswith("https://")
        yield client


def test_tls(secured: Secured, loop: LoopFactory) -> None:
    with tls_client(secured, loop) as client:
        client.send(request("PUT", "/", body=bytes(4 * MIB)))
        assert json.loads(client.response().body)[1] == "https"
        client.send(request("GET", f"/{4 * MIB}") + request("HEAD", "/5"))
        assert client.response().body == bytes(4 * MIB)
        assert client.response("HEAD").status == 200


def test_tls_refusal_and_early_answer(secured: Secured, loop: LoopFactory) -> None:
    with tls_client(secured, loop) as client:
        client.send(request("PUT", "/", "Transfer-Encoding: gzip, chunked"))
        assert client.response().status == 400
    with tls_client(secured, loop) as client:
        client.send(request("PUT", "/early", "Content-Length: 100000000") + bytes(MIB // 2))
        response = client.response()
        assert (response.status, response.headers["connection"]) == (200, "close")


@pytest.mark.parametrize(
    "data",
    [b"", b"GET / HTTP/1.1\r\n", request("PUT", "/", "Content-Length: 9"), request(), request("GET", f"/{64 * MIB}")],
    ids=["nothing", "half a head", "no body", "idle", "stalled reader"],
)
def test_tls_silent_client_is_ended(secured: Secured, loop: LoopFactory, data: bytes) -> None:
    limits = Limits(head_timeout=0.2, stall_timeout=0.2, keep_alive=0.2, discard_timeout=0.2)
    with (
        running(app, secured.config, limits=limits, loop_factory=loop) as server,
        connected(server.host, server.port, secured.client) as client,
    ):
        client.send(data)
        wait_until(lambda: server_sockets(server.port) == 0)


def test_tls_handshake_that_never_comes(secured: Secured, loop: LoopFactory) -> None:
    limits = Limits(head_timeout=0.2)
    with running(app, secured.config, limits=limits, loop_factory=loop) as server:
        with connected(server.host, server.port) as client:
            assert client.rest() == b""
        with connected(server.host, server.port) as client:
            client.send(b"\x16\x03\x01")
            assert client.rest() == b""


def test_plain_request_on_a_tls_port(secured: Secured, loop: LoopFactory, caplog: pytest.LogCaptureFixture) -> None:
    with running(app, secured.config, loop_factory=loop) as server, connected(server.host, server.port) as client:
        client.send(request())
        client.rest()
    assert caplog.text == ""


def server_sockets(port: int) -> int:
    """Connections to the port that are established, as the server sees them."""
    with open("/proc/net/tcp") as table:
        rows = [line.split() for line in table]
    return sum(row[1].endswith(f":{port:04X}") and row[3] == "01" for row in rows)


# In a child.


class Child:
    """A process that runs `app`."""

    def __init__(self, loop_name: str, descriptors: int | None = None, **http: Any) -> None:
        code = "import sys, json; from tests.registry.serving.test_server import main; main(*sys.argv[1:])"
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", code, loop_name, json.dumps(http)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[3],
            preexec_fn=(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors)))
            if descriptors
            else None,
        )
        assert self.process.stdout
        self.addresses: list[str] = json.loads(self.process.stdout.readline())

    @property
    def place(self) -> tuple[str, int]:
        host, _, port = self.addresses[0].rpartition(":")
        return host, int(port)

    def signal(self, signum: int) -> None:
        self.process.send_signal(signum)

    def end(self, timeout: float = PATIENCE) -> tuple[int, str, str]:
        """Exit code, standard output and standard error."""
        out, err = self.process.communicate(timeout=timeout)
        return self.process.returncode, out, err


def main(loop_name: str, http: str) -> None:
    """What a Child runs."""
    config = Config(http=HTTPConfig(**json.loads(http)))
    run(app, config, started=lambda places: print(json.dumps(places), flush=True), loop_factory=LOOPS[loop_name])
    print("returned", flush=True)


@pytest.fixture
def child(loop_name: str) -> Iterator[Any]:
    """Starts children; none outlives the test."""
    children: list[Child] = []

    def start(**options: Any) -> Child:
        children.append(Child(loop_name, **{"addr": "127.0.0.1:0", **options}))
        return children[-1]

    yield start
    for started in children:
        started.process.kill()
        started.process.communicate()


ORDERLY = (0, "stopped\nreturned\n", "")


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_signal_while_idle(child: Any, signum: int) -> None:
    server = child()
    with connected(*server.place) as client:
        client.send(request())
        client.response()
        began = time.monotonic()
        server.signal(signum)
        assert client.rest() == b""
        assert server.end() == ORDERLY
        assert time.monotonic() - began < 5


@pytest.mark.slow
def test_signal_inside_a_transfer(child: Any) -> None:
    """It finishes; new connections are refused meanwhile."""
    server = child()
    with connected(*server.place, window=1 << 16) as download, connected(*server.place) as upload:
        upload.send(request("PUT", "/", "Content-Length: 10", "Expect: 100-continue"))
        assert upload.response().status == 100
        download.send(request("GET", f"/{16 * MIB}"))
        head = download.exactly(100)
        server.signal(signal.SIGTERM)
        wait_until(lambda: refuses(server.place))
        upload.send(bytes(10))
        response = upload.response()
        assert (json.loads(response.body)[0], response.headers["connection"]) == (10, "close")
        assert len(head + download.rest()) > 16 * MIB
        assert server.end() == ORDERLY


@pytest.mark.slow
def test_signal_inside_a_head(child: Any) -> None:
    server = child()
    with connected(*server.place) as client:
        client.send(request() + b"GET /5 HTTP/1.1\r\n")
        assert client.response().status == 200
        server.signal(signal.SIGTERM)
        wait_until(lambda: refuses(server.place))
        client.send(b"Host: a\r\n\r\n")
        response = client.response()
        assert (response.body, response.headers["connection"]) == (bytes(5), "close")
        assert client.rest() == b""
        assert server.end() == ORDERLY


@pytest.mark.slow
def test_signal_with_a_stalled_reader(child: Any) -> None:
    server = child(draintimeout=0.3)
    with connected(*server.place, window=1 << 14) as client:
        client.send(request("GET", f"/{64 * MIB}"))
        client.exactly(100)
        began = time.monotonic()
        server.signal(signal.SIGTERM)
        code, out, err = server.end()
        assert (code, out) == ORDERLY[:2]
        assert "draintimeout" in err
        assert 0.3 < time.monotonic() - began < 5


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_second_signal_ends_at_once(child: Any, signum: int) -> None:
    server = child()
    with connected(*server.place, window=1 << 14) as client:
        client.send(request("GET", f"/{64 * MIB}"))
        client.exactly(100)
        server.signal(signum)
        wait_until(lambda: refuses(server.place))
        server.signal(signum)
        assert server.end() == (128 + signum, "", "")


@pytest.mark.slow
def test_unix_socket(child: Any, tmp_path: Path) -> None:
    path = str(tmp_path / "r.sock")
    server = child(net="unix", addr=path)
    assert server.addresses == [f"unix:{path}"]
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        client = RawConnection(sock)
        client.send(request("PUT", "/", body=bytes(MIB)) + request("GET", f"/{MIB}"))
        assert client.response().status == 200
        assert client.response().body == bytes(MIB)
        server.signal(signal.SIGTERM)
        assert server.end() == ORDERLY
    assert not os.path.exists(path)


@pytest.mark.slow
def test_no_more_connections_than_descriptors(child: Any) -> None:
    """130 files make 10 connections, and those above an answer instead of a full table: once they ask, or at once."""
    server = child(descriptors=130)
    with ExitStack() as stack:
        clients = [stack.enter_context(connected(*server.place)) for _ in range(10 + Limits().reserve + 1)]
        assert clients[-1].response().status == 503
        clients[10].send(request())
        assert clients[10].response().status == 503
    wait_until(lambda: served(server.place))
    server.signal(signal.SIGTERM)
    code, _, err = server.end()
    assert code == 0
    assert "limits.maxconnections is lowered to 10" in err


def served(place: tuple[str, int]) -> bool:
    with connected(*place) as client:
        client.send_until_closed(request())
        return client.response().status == 200
