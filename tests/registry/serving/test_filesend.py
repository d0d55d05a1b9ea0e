"""Files as bodies, through a real socket and on both loops: what arrives, what a departing client leaves behind, and
who waits for whom. The whole registry sends them in the last part.
"""

import asyncio
import errno
import gc
import hashlib
import logging
import os
import queue
import random
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trustme
import uvloop
from starlette.types import Receive, Scope, Send

from registry.app import create_app
from registry.config import Config
from registry.config.model import HTTPConfig, StorageConfig, TLSConfig
from registry.responses import SMALL
from registry.serving import filesend
from registry.serving.filesend import STEP, FileSender
from registry.serving.limits import Limits
from registry.serving.server import LoopFactory, RunningServer, running
from storage import layout
from storage.digest import Digest
from storage.names import RepositoryName
from tests.rawsocket import PATIENCE, RawConnection, Response, Truncated, connected, request
from tests.registry.serving.test_protocol import BRIEF, LEAVING, LOOPS, PATIENT, open_connections
from tests.security.process import Process, serving
from tests.waiting import wait_until

MIB = 1 << 20
SEND = "http.response.zerocopysend"
DATA = random.Random(7).randbytes(8 * MIB + 4321)
LARGE = 64 * MIB
"""More than the kernel takes for a client that does not read."""


class FileApp:
    """Answers with the messages that its `messages` say for the path; `ended` gets a path when that is done.

    A message of the extension without a file gets `path`, opened anew for each request.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.messages: dict[str, list[dict[str, Any]]] = {}
        self.ended: queue.Queue[str] = queue.Queue()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            for phase in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{phase}.complete"})
            return
        assert SEND in scope["extensions"]
        messages = self.messages.get(scope["path"]) or self.part(scope["path"])
        with self.path.open("rb", buffering=0) as file:
            try:
                for message in messages:
                    await send({**message, "file": file} if message["type"] == SEND else {**message})
            finally:
                self.ended.put(scope["path"])

    def part(self, path: str) -> list[dict[str, Any]]:
        """/OFFSET/COUNT is that part of the file, anything else a small body."""
        numbers = path.split("/")[1:]
        if not all(number.isdigit() for number in numbers):
            return [start(5), body(b"small")]
        offset, count = map(int, numbers)
        return [start(count), {"type": SEND, "offset": offset, "count": count}]

    def wait(self) -> str:
        return self.ended.get(timeout=PATIENCE)


def start(length: int | None) -> dict[str, Any]:
    headers = [] if length is None else [(b"content-length", b"%d" % length)]
    return {"type": "http.response.start", "status": 200, "headers": headers}


def body(data: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


def piece(offset: int | None = None, count: int | None = None, *, more: bool = False) -> dict[str, Any]:
    return {"type": SEND, "offset": offset, "count": count, "more_body": more}


class Served:
    def __init__(self, app: FileApp, server: RunningServer, tls: ssl.SSLContext | None) -> None:
        self.app, self.server, self.tls = app, server, tls

    def connect(self, *, window: int = 0) -> AbstractContextManager[RawConnection]:
        return connected(self.server.host, self.server.port, self.tls, window=window)

    def ask(self, target: str, method: str = "GET") -> Response:
        with self.connect() as client:
            client.send(request(method, target))
            return client.response(method)


Serve = Callable[..., AbstractContextManager[Served]]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("filesend") / "file"
    path.write_bytes(DATA)
    return path


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """Sparse."""
    path = tmp_path / "large"
    path.touch()
    os.truncate(path, LARGE)
    return path


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, ssl.SSLContext]:
    """A configuration with TLS, and what a client needs to trust it."""
    folder, authority = tmp_path_factory.mktemp("tls"), trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(str(folder / "both.pem"))
    both = str(folder / "both.pem")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return Config(http=HTTPConfig(tls=TLSConfig(certificate=both, key=both))), context


@pytest.fixture(scope="module", autouse=True)
def descriptors_that_stay() -> None:
    """libuv opens a few with its first loop and keeps them."""
    uvloop.new_event_loop().close()


@pytest.fixture(params=LOOPS)
def loop_factory(request: pytest.FixtureRequest) -> LoopFactory:
    return LOOPS[request.param]


@pytest.fixture
def serve(loop_factory: LoopFactory, file: Path, certificates: tuple[Config, ssl.SSLContext]) -> Serve:
    """Starts a server over one file. No test may leave a descriptor behind."""

    @contextmanager
    def start(limits: Limits | None = None, *, path: Path = file, tls: bool = False) -> Iterator[Served]:
        before = descriptors()
        config, context = certificates if tls else (Config(), None)
        app = FileApp(path)
        with running(app, config, limits=limits or Limits(), loop_factory=loop_factory) as server:
            yield Served(app, server, context)
        assert_closed(before)

    return start


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
def tls(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def assert_closed(before: int) -> None:
    """No more descriptors than before; what is garbage counts as closed."""
    if descriptors() > before:
        gc.collect()
    assert descriptors() <= before


# What arrives.

PARTS: dict[str, tuple[int, int]] = {
    "the whole": (0, len(DATA)),
    "nothing": (100, 0),
    "the first byte": (0, 1),
    "the last byte": (len(DATA) - 1, 1),
    "not aligned": (4097, 70_001),
    "one step": (0, STEP),
    "one step and a byte": (1, STEP + 1),
    "up to the end": (len(DATA) - 3 * MIB - 1, 3 * MIB + 1),
}


def test_parts(serve: Serve, tls: bool) -> None:
    with serve(tls=tls) as served, served.connect() as client:
        for name, (offset, count) in PARTS.items():
            client.send(request("GET", f"/{offset}/{count}"))
            response = client.response()
            assert response.headers["content-length"] == str(count), name
            assert response.body == DATA[offset : offset + count], name
            client.send(request("GET", "/small"))
            assert client.response().body == b"small", name


def test_head_has_no_body(serve: Serve, tls: bool) -> None:
    with serve(tls=tls) as served, served.connect() as client:
        client.send(request("HEAD", f"/0/{len(DATA)}") + request("GET", "/small"))
        assert client.response("HEAD").headers["content-length"] == str(len(DATA))
        assert client.response().body == b"small"


def test_pipelined(serve: Serve, tls: bool) -> None:
    targets = ["/5/3000000", "/100/70000", "/small", "/7/1000000"]
    methods = ["GET", "GET", "GET", "HEAD"]
    with serve(tls=tls) as served, served.connect() as client:
        data = b"".join(request(method, target) for method, target in zip(methods, targets, strict=True))
        client.send(data + request("GET", "/1/9", "Connection: close") + request("GET", "/2/9"))
        assert client.response().body == DATA[5:3_000_005]
        assert client.response().body == DATA[100:70_100]
        assert client.response().body == b"small"
        assert client.response("HEAD").headers["content-length"] == "1000000"
        assert client.response().body == DATA[1:10]
        assert client.rest() == b""


MIXED: dict[str, tuple[list[dict[str, Any]], bytes]] = {
    "from where the file stands to its end": ([start(len(DATA)), piece()], DATA),
    "to its end": ([start(len(DATA) - 9), piece(9)], DATA[9:]),
    "without offset": ([start(9), piece(count=9)], DATA[:9]),
    "behind its end": ([start(0), piece(len(DATA) + 9)], b""),
    "between bodies": (
        [start(MIB + 8), body(b"head", more=True), piece(1, MIB, more=True), body(b"foot")],
        b"head" + DATA[1 : MIB + 1] + b"foot",
    ),
    "two parts behind much that is not written yet": (
        [start(20 * MIB), body(bytes(16 * MIB), more=True), piece(MIB, 3 * MIB, more=True), piece(0, MIB)],
        bytes(16 * MIB) + DATA[MIB : 4 * MIB] + DATA[:MIB],
    ),
    "to a client of HTTP/1.0": ([start(STEP * 2), piece(3, STEP * 2)], DATA[3 : STEP * 2 + 3]),
}


def test_mixed(serve: Serve, tls: bool) -> None:
    with serve(tls=tls) as served:
        served.app.messages = {f"/{number}": messages for number, (messages, _) in enumerate(MIXED.values())}
        for number, (name, (_, expected)) in enumerate(MIXED.items()):
            with served.connect(window=1 << 16) as client:
                client.send(request("GET", f"/{number}", version="1.0" if "1.0" in name else "1.1"))
                assert client.response().body == expected, name


WRONG: dict[str, tuple[list[dict[str, Any]], str]] = {
    "more than announced": ([start(10), piece(0, 11)], "within the Content-Length"),
    "less than announced": ([start(10), piece(0, 9)], "shorter than Content-Length"),
    "more than is left": ([start(10), piece(0, 9, more=True), piece(0, 2)], "within the Content-Length"),
    "negative": ([start(10), piece(0, -1)], "within the Content-Length"),
    "chunked": ([start(None), piece(0, 10)], "within the Content-Length"),
    "after the end": ([start(3), body(b"abc"), piece(0, 0)], "only send"),
    "before the start": ([piece(0, 10)], "only send"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_use(serve: Serve, caplog: pytest.LogCaptureFixture, name: str) -> None:
    """The application hears of it, the client gets no byte too much and no end that looks whole."""
    messages, said = WRONG[name]
    with serve() as served:
        served.app.messages["/wrong"] = messages
        if name == "before the start":
            assert served.ask("/wrong").status == 500
        elif name == "after the end":
            assert served.ask("/wrong").body == b"abc"
        else:
            with pytest.raises(Truncated):
                served.ask("/wrong")
        served.app.wait()
        assert served.ask("/small").body == b"small"
    assert said in caplog.text
    assert len(caplog.records) == 1


@pytest.mark.slow
def test_sixteen_clients_at_once(serve: Serve, tls: bool) -> None:
    with serve(tls=tls) as served, ThreadPoolExecutor(16) as pool:

        def pull(number: int) -> bool:
            offset, count = number * 1001, (len(DATA) - 16016) // (4 if tls else 1)
            got = hashlib.sha256(served.ask(f"/{offset}/{count}").body)
            return got.digest() == hashlib.sha256(memoryview(DATA)[offset : offset + count]).digest()

        assert all(pool.map(pull, range(16)))


# Clients that leave.

BEFORE: dict[str, list[dict[str, Any]]] = {
    "in the file": [start(LARGE), piece(0, LARGE)],
    "in what comes before it": [start(LARGE + 32 * MIB), body(bytes(32 * MIB), more=True), piece(0, LARGE)],
    "in the first of two files": [start(LARGE), piece(0, LARGE - 9, more=True), piece(LARGE - 9, 9)],
    "in the second file": [start(LARGE), piece(0, 1 << 16, more=True), piece(1 << 16, LARGE - (1 << 16))],
}


@pytest.mark.parametrize("how", LEAVING)
@pytest.mark.parametrize("where", BEFORE)
def test_leaving(serve: Serve, large: Path, caplog: pytest.LogCaptureFixture, where: str, how: str) -> None:
    halfway = how == "half-close"
    # Of a half-close the loop hears when it reads, which it does not while requests wait; and it sends what is written.
    ended_at_once = not halfway or where != "in what comes before it"
    with serve(path=large) as served:
        served.app.messages["/large"] = BEFORE[where]
        for _ in range(3):
            with served.connect(window=1 << 14) as client:
                client.send(request("GET", "/large") + (b"" if halfway else request("GET", "/small")))
                client.exactly(100_000)
                LEAVING[how](client)
                if ended_at_once:
                    assert served.app.wait() == "/large"
            if not ended_at_once:
                assert served.app.wait() == "/large"
        wait_until(lambda: open_connections_of(served) == 0)
        assert served.ask("/small").body == b"small"
    assert caplog.text == ""


@pytest.mark.parametrize("how", ["close", "reset"])
def test_leaving_with_tls(serve: Serve, large: Path, caplog: pytest.LogCaptureFixture, how: str) -> None:
    with serve(path=large, tls=True) as served:
        for _ in range(3):
            with served.connect(window=1 << 14) as client:
                client.send(request("GET", f"/0/{LARGE}"))
                client.exactly(100_000)
                LEAVING[how](client)
                assert served.app.wait() == f"/0/{LARGE}"
        wait_until(lambda: open_connections_of(served) == 0)
    assert caplog.text == ""


def open_connections_of(served: Served) -> int:
    return open_connections(served)  # type: ignore[arg-type] # it looks at the port alone


def test_stalled_reader_is_ended_and_others_are_served(
    serve: Serve, large: Path, caplog: pytest.LogCaptureFixture, tls: bool
) -> None:
    with serve(BRIEF, path=large, tls=tls) as served, served.connect(window=1 << 14) as client:
        client.send(request("GET", f"/0/{LARGE}"))
        client.exactly(1000)
        ended = []
        while f"/0/{LARGE}" not in ended:
            assert served.ask("/small").body == b"small"
            ended.append(served.app.wait())
        assert len(ended) > 1
        with pytest.raises((Truncated, ssl.SSLError)):
            client.exactly(LARGE)
    assert caplog.text == ""


def test_no_more_is_read_for_tls_than_the_client_takes(
    serve: Serve, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, pread = [], os.pread

    def counting(fd: int, size: int, offset: int) -> bytes:
        read.append(size)
        return pread(fd, size, offset)

    monkeypatch.setattr(os, "pread", counting)
    with serve(BRIEF, path=large, tls=True) as served, served.connect(window=1 << 14) as client:
        client.send(request("GET", f"/0/{LARGE}"))
        assert served.app.wait() == f"/0/{LARGE}"
    assert 0 < sum(read) < LARGE // 4
    assert max(read) == filesend.TLS_STEP


@pytest.mark.parametrize("where", ["in the file", "in what comes before it"])
def test_stalled_reader_whom_the_kernel_ends(
    serve: Serve, large: Path, caplog: pytest.LogCaptureFixture, where: str
) -> None:
    """A client that has vanished from the network looks like this: ETIMEDOUT, told to whoever asks the socket first."""
    with serve(replace(BRIEF, min_rate=0), path=large) as served, served.connect(window=1 << 14) as client:
        served.app.messages["/large"] = BEFORE[where]
        client.send(request("GET", "/large"))
        client.exactly(1000)
        assert served.app.wait() == "/large"
    assert caplog.text == ""


@pytest.mark.parametrize("number", [errno.ETIMEDOUT, errno.EHOSTUNREACH])
def test_what_the_socket_says_of_a_vanished_client(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    """Loopback cannot lose packets, so the system call is made to say it."""

    def fail(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    with serve() as served, served.connect() as client:
        monkeypatch.setattr(os, "sendfile", fail)
        client.send(request("GET", f"/0/{len(DATA)}"))
        with pytest.raises(Truncated):
            client.response()
        served.app.wait()
    assert caplog.text == ""


@pytest.mark.slow
def test_slow_but_steady_reader_survives(serve: Serve) -> None:
    """200 kB/s for twice the time-out."""
    with serve(replace(PATIENT, stall_timeout=0.3)) as served, served.connect(window=1 << 12) as client:
        client.send(request("GET", "/0/130000"))
        got = 0
        while got < 130_000:
            got += len(client.socket.recv(4000))
            threading.Event().wait(0.02)


# Files that change, and disks that are slow.


def test_file_that_is_truncated(serve: Serve, large: Path, caplog: pytest.LogCaptureFixture, tls: bool) -> None:
    with serve(path=large, tls=tls) as served, served.connect(window=1 << 14) as client:
        client.send(request("GET", f"/0/{LARGE}"))
        client.exactly(1000)
        os.truncate(large, 0)
        with pytest.raises(Truncated):
            client.exactly(LARGE)
        served.app.wait()
    assert caplog.text.count("a file became shorter") == len(caplog.records) == 1


def test_file_that_is_unlinked(serve: Serve, large: Path, tls: bool) -> None:
    with serve(path=large, tls=tls) as served, served.connect(window=1 << 20) as client:
        client.send(request("GET", f"/0/{LARGE}"))
        _, _, beginning = client.exactly(1000).partition(b"\r\n\r\n")
        large.unlink()
        left = LARGE - len(beginning)
        assert client.exactly(left) == bytes(left)


def make_cold(path: Path) -> None:
    """Push a file out of the page cache, as far as the filesystem lets us."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


async def test_cold_file_is_known_to_be_cold(file: Path) -> None:
    sender = FileSender(asyncio.get_running_loop())
    with file.open("rb") as opened:
        number = opened.fileno()
        try:
            os.preadv(number, [bytearray(1)], 0, os.RWF_NOWAIT)
        except OSError as exc:
            if exc.errno == errno.EOPNOTSUPP:
                pytest.skip("this filesystem cannot say what is in memory: everything is taken for cold")
        opened.read()
        assert sender._is_cached(number, 0, len(DATA))
        assert not sender._is_cached(number, len(DATA), 10)
        for _ in range(100):  # a page that the kernel is writing, or moving, stays for that moment
            make_cold(file)
            if not sender._is_cached(number, 0, len(DATA)):
                break
        assert not sender._is_cached(number, 0, len(DATA))


class Disk:
    """One that gives nothing until it is released. `asked` has an entry for each read that waits for it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: queue.Queue[None] = queue.Queue()
        self.released = threading.Event()
        monkeypatch.setattr(FileSender, "_is_cached", lambda *_: False)
        monkeypatch.setattr(filesend, "_read", self.slow(filesend._read))
        monkeypatch.setattr(os, "pread", self.slow(os.pread))

    def slow(self, read: Callable[..., Any]) -> Callable[..., Any]:
        def wait(*args: Any) -> Any:
            self.asked.put(None)
            assert self.released.wait(PATIENCE)
            return read(*args)

        return wait

    def wait(self) -> None:
        self.asked.get(timeout=PATIENCE)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    made = Disk(monkeypatch)
    yield made
    made.released.set()


def test_others_do_not_wait_for_a_disk(serve: Serve, disk: Disk, tls: bool) -> None:
    with serve(tls=tls) as served, served.connect() as client:
        client.send(request("GET", f"/0/{len(DATA)}"))
        disk.wait()
        for _ in range(20):
            assert served.ask("/small").body == b"small"
        assert {served.app.wait() for _ in range(20)} == {"/small"}
        disk.released.set()
        assert client.response().body == DATA


@pytest.mark.slow
def test_waiting_for_a_disk_is_not_stalling(serve: Serve, disk: Disk, tls: bool) -> None:
    """More than twice the time-out, with a client that has taken all there was."""
    with serve(replace(PATIENT, stall_timeout=0.3), tls=tls) as served, served.connect() as client:
        client.send(request("GET", f"/0/{len(DATA)}"))
        disk.wait()
        threading.Event().wait(0.7)
        disk.released.set()
        assert client.response().body == DATA


@pytest.mark.parametrize("how", LEAVING)
def test_leaving_while_a_disk_is_waited_for(
    serve: Serve, disk: Disk, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    """The rest is not sent; above all not to whoever has the descriptor next."""
    with serve() as served:
        with served.connect() as client:
            client.send(request("GET", f"/0/{len(DATA)}"))
            disk.wait()
            LEAVING[how](client)
            wait_until(lambda: served.ask("/small").status == 200 and not established(served))
        disk.released.set()
        while served.app.wait() != f"/0/{len(DATA)}":
            pass
    assert caplog.text == ""


def established(served: Served) -> bool:
    """Does any client still stand in the kernel's table as connected?"""
    port = f":{served.server.port:04X}"
    with open("/proc/net/tcp") as table:
        return any(row.split()[1].endswith(port) and row.split()[3] == "01" for row in list(table)[1:])


@pytest.mark.slow
def test_others_are_quick_while_cold_files_are_sent(serve: Serve, file: Path) -> None:
    """Cold for the system, and cold where it cannot say. The bound is wide, as other things run on the machine, too."""
    stop = threading.Event()
    with serve() as served, ThreadPoolExecutor(4) as pool:

        def pull() -> bool:
            while not stop.is_set():
                make_cold(file)
                if served.ask(f"/0/{len(DATA)}").body != DATA:
                    return False
            return True

        pulling = [pool.submit(pull) for _ in range(4)]
        delays = []
        with served.connect() as client:
            for _ in range(50):
                began = time.monotonic()
                client.send(request("GET", "/small"))
                client.response()
                delays.append(time.monotonic() - began)
        stop.set()
        assert all(one.result() for one in pulling)
    assert sorted(delays)[45] < 0.25


# The whole registry.

NAME = RepositoryName("a")

PROGRAM = """
import asyncio, os, sys
from pathlib import Path
import uvloop
from registry.app import create_app
from registry.banner import banner
from registry.config import load
from registry.serving.server import run

loaded = load(Path(sys.argv[1]), os.environ)
run(
    create_app(loaded.config),
    loaded.config,
    started=lambda addresses: print("listening ", banner(loaded, addresses)["listening"], flush=True),
    loop_factory={"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}[os.environ["LOOP"]],
)
"""


def put_sparse(root: Path, size: int) -> str:
    """The target of a blob of zeros, which only its name says to be another one: pulls do not hash."""
    digest = Digest.of(b"sparse")
    blob, link = root / layout.blob_data(digest), root / layout.layer_link(NAME, digest)
    blob.parent.mkdir(parents=True)
    blob.touch()
    os.truncate(blob, size)
    link.parent.mkdir(parents=True)
    link.write_text(str(digest))
    return f"/v2/{NAME}/blobs/{digest}"


@pytest.fixture(params=LOOPS)
def process(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Process]:
    """A registry on `tmp_path/data`, which must end with exit code 0 when it is told to."""
    config = {"storage": {"filesystem": {"rootdirectory": str(tmp_path / "data")}}}
    with serving(tmp_path, config, program=("-c", PROGRAM), LOOP=str(request.param)) as running_process:
        yield running_process


def test_end_of_the_server_in_the_middle_of_a_file(process: Process, tmp_path: Path) -> None:
    target = put_sparse(tmp_path / "data", LARGE)
    with connected(process.host, process.port, window=1 << 16) as client:
        client.send(request("GET", target))
        head, _, beginning = client.exactly(1000).partition(b"\r\n\r\n")
        assert b"200 OK" in head
        os.kill(process.pid, signal.SIGTERM)
        wait_until(lambda: refuses(process))
        left = LARGE - len(beginning)
        assert client.exactly(left) == bytes(left)
        assert client.rest() == b""
    wait_until(lambda: Path(f"/proc/{process.pid}/stat").read_text().split()[2] == "Z")  # or it is told a second time


def refuses(process: Process) -> bool:
    """Has it closed its listener?"""
    try:
        socket.create_connection((process.host, process.port)).close()
    except (ConnectionRefusedError, ConnectionResetError):
        return True
    return False


@pytest.mark.slow
@pytest.mark.parametrize("process", ["uvloop"], indirect=True)
def test_memory_does_not_grow_with_files(process: Process, tmp_path: Path) -> None:
    """1 GiB to 8 clients at once."""
    target = put_sparse(tmp_path / "data", 1 << 30)
    drain(process, target, "bytes=0-9999999")  # what the first requests take for ever
    process.reset_peak()
    before = process.memory()
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda _: drain(process, target), range(8))) == [1 << 30] * 8
    grown = process.peak() - before
    print(f"grown by {grown >> 10} KiB")
    assert grown < 20 * MIB


def drain(process: Process, target: str, span: str = "bytes=0-") -> int:
    """Bytes of the body of that range, which are thrown away where they are: in the kernel."""
    with connected(process.host, process.port) as client:
        client.send(request("GET", target, f"Range: {span}", "Connection: close"))
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += client.socket.recv(1)
        assert b" 206 " in head
        got, unused = 0, bytearray(MIB)
        while size := client.socket.recv_into(unused, MIB, socket.MSG_TRUNC):
            got += size
        return got


@pytest.fixture
def registry(loop_factory: LoopFactory, tmp_path: Path) -> Iterator[RunningServer]:
    """The application over a folder that holds DATA as a blob. Nothing may be left open."""
    config = Config(storage=StorageConfig(driver="filesystem", parameters={"rootdirectory": str(tmp_path / "data")}))
    before = descriptors()
    with running(create_app(config), config, loop_factory=loop_factory) as server:
        with connected(server.host, server.port) as client:
            client.send(request("POST", f"/v2/{NAME}/blobs/uploads/?digest={Digest.of(DATA)}", body=DATA))
            assert client.response().status == 201
        yield server
    assert_closed(before)


BLOB = f"/v2/{NAME}/blobs/{Digest.of(DATA)}"
SPANS = [(0, 10), (5_000_000, 8_000_001), (100, 100 + SMALL), (200_000, 200_001 + SMALL), (len(DATA) - 7, len(DATA))]
RANGES = "Range: bytes=" + ",".join(f"{first}-{stop - 1}" for first, stop in SPANS)


class Sent:
    """Counts what sendfile sends."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bytes, self.send = 0, os.sendfile
        monkeypatch.setattr(os, "sendfile", self.sendfile)

    def sendfile(self, *args: Any) -> int:
        sent = self.send(*args)
        self.bytes += sent
        return sent


def test_blobs_and_ranges_are_sent_by_the_kernel(registry: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = Sent(monkeypatch)
    with connected(registry.host, registry.port) as client:
        client.send(request("GET", BLOB) + request("GET", BLOB, "Range: bytes=1000-2000000") + request("HEAD", BLOB))
        assert client.response().body == DATA
        assert client.response().body == DATA[1000:2_000_001]
        assert client.response("HEAD").headers["content-length"] == str(len(DATA))
        assert sent.bytes == len(DATA) + 1_999_001


def test_several_ranges_are_sent_by_the_kernel(registry: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Except small ones, which go with their heads."""
    sent = Sent(monkeypatch)
    with connected(registry.host, registry.port) as client:
        for _ in range(2):
            client.send(request("GET", BLOB, RANGES))
            response = client.response()
            assert response.status == 206
            boundary = response.headers["content-type"].partition("boundary=")[2]
            nothing, *parts, end = response.body.split(f"\r\n--{boundary}".encode())
            assert (nothing, end) == (b"", b"--\r\n")
            for part, (first, stop) in zip(parts, SPANS, strict=True):
                head, _, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
                assert f"Content-Range: bytes {first}-{stop - 1}/{len(DATA)}" in head.decode()
                assert content == DATA[first:stop]
    assert sent.bytes == 2 * sum(stop - first for first, stop in SPANS if stop - first > SMALL)


@pytest.mark.parametrize("how", LEAVING)
@pytest.mark.parametrize("fields", [(), (RANGES,)], ids=["whole", "ranges"])
def test_leaving_the_registry(
    registry: RunningServer, caplog: pytest.LogCaptureFixture, fields: tuple[str, ...], how: str
) -> None:
    """The fixture looks for readers that stay open; one per request would be left."""
    for _ in range(3):
        with connected(registry.host, registry.port, window=1 << 12) as client:
            client.send(request("GET", BLOB, *fields))
            client.exactly(1000)
            LEAVING[how](client)
    assert not errors(caplog)


def test_truncated_blob_is_logged_once(
    registry: RunningServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    target = put_sparse(tmp_path / "data", LARGE)
    with connected(registry.host, registry.port, window=1 << 14) as client:
        client.send(request("GET", target))
        client.exactly(1000)
        os.truncate(tmp_path / "data" / layout.blob_data(Digest.of(b"sparse")), 0)
        with pytest.raises(Truncated):
            client.exactly(LARGE)
        wait_until(lambda: bool(errors(caplog)))
    assert len(errors(caplog)) == 1
    assert "a file became shorter while it was sent" in caplog.text


def errors(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.levelno >= logging.WARNING]
