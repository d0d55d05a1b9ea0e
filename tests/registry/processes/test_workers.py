"""Several workers on one address: real processes under the real command line."""

import errno
import inspect
import itertools
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from functools import partial
from pathlib import Path

import pytest
import trustme
from opentelemetry.sdk._shared_internal import BatchProcessor

from registry import cli
from registry.config import Config
from registry.processes.workers import AFTER_DRAIN, without_chores
from registry.serving.listeners import listening_each, printable
from tests import rawsocket, waiting
from tests.api import digest_of
from tests.rawsocket import RawConnection, Response, Truncated, connected, request

PATIENCE = 20.0
wait_until = partial(waiting.wait_until, patience=PATIENCE)
refuses = partial(rawsocket.refuses, patience=PATIENCE)
MIB = 1 << 20
WITHOUT_UVLOOP = "import sys; sys.modules['uvloop'] = None; from registry.cli import main; sys.exit(main())"
PROGRAMS = {"uvloop": ("-m", "registry"), "asyncio": ("-c", WITHOUT_UVLOOP)}

pytestmark = pytest.mark.slow


@pytest.fixture(params=PROGRAMS)
def loop_name(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


class Registry:
    """`registry serve --workers`, once it has said where it listens."""

    def __init__(self, process: subprocess.Popen[str], errors: Path) -> None:
        self.process, self.errors = process, errors
        assert process.stdout is not None
        self.banner = ""
        while "  try " not in self.banner:
            line = process.stdout.readline()
            assert line, errors.read_text()
            self.banner += line
        found = re.search(r"listening +https?://(.+):(\d+)", self.banner)
        self.place = (found[1], int(found[2])) if found else ("", 0)

    def workers(self) -> set[int]:
        """Those that the parent has forked and not yet buried."""
        return {pid for pid, parent in parents().items() if parent == self.process.pid}

    def ask(self, data: bytes) -> Response:
        """On a new connection; once more if that breaks, as clients do."""
        for _ in range(2):
            with suppress(Truncated, ConnectionResetError, BrokenPipeError), connected(*self.place) as client:
                client.send(data)
                return client.response()
        raise AssertionError("failed twice")

    @contextmanager
    def connected_to(self, worker: int) -> Iterator[RawConnection]:
        """A new connection that this worker has taken. Which one does is the kernel's choice: asked for until it is."""
        for _ in range(200):
            with connected(*self.place) as client:
                client.send(request("GET", "/v2/"))
                assert client.response().status == 200
                if owns(worker, client, self.place[1]):
                    yield client
                    return
        raise AssertionError(f"no connection came to {worker}")

    def push(self, content: bytes) -> str:
        """Returns the path of the blob."""
        digest = digest_of(content)
        assert self.ask(request("POST", f"/v2/a/blobs/uploads/?digest={digest}", body=content)).status == 201
        return f"/v2/a/blobs/{digest}"

    def ended(self) -> int:
        return self.process.wait(PATIENCE)

    def said(self, text: str) -> bool:
        return text in self.errors.read_text()


@contextmanager
def serving(
    folder: Path, *arguments: str, loop: str = "uvloop", addr: str = "127.0.0.1:0", **environ: str
) -> Iterator[Registry]:
    with start(folder, *arguments, loop=loop, addr=addr, errors="errors", **environ) as child:
        yield Registry(child, folder / "errors")


@contextmanager
def start(
    folder: Path,
    *arguments: str,
    loop: str = "uvloop",
    addr: str = "127.0.0.1:0",
    errors: str,
    **environ: str,
) -> Iterator[subprocess.Popen[str]]:
    """None of its processes outlives the context. errors: the file in folder into which they write them."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("REGISTRY_")}
    settings = {
        "REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY": str(folder / "data"),
        "REGISTRY_HTTP_ADDR": addr,
        "PYTHONPATH": os.getcwd(),
        **environ,
    }
    with (
        (folder / errors).open("w") as stream,
        subprocess.Popen(
            [sys.executable, "-W", "error", *PROGRAMS[loop], "serve", *arguments],
            stdout=subprocess.PIPE,
            stderr=stream,
            text=True,
            env={**clean, **settings},
            start_new_session=True,
        ) as child,
    ):
        try:
            yield child
        finally:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)


def parents() -> dict[int, int]:
    """The parent of each process that is not dead."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                found[int(path.parent.name)] = int(parent)
    return found


def owns(process: int, client: RawConnection, port: int) -> bool:
    """Has the process the server's side of that connection?"""
    mine = client.socket.getsockname()[1]
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    inode = next(row[9] for row in rows if row[1].endswith(f":{port:04X}") and row[2].endswith(f":{mine:04X}"))
    links = []
    for path in Path(f"/proc/{process}/fd").iterdir():
        with suppress(FileNotFoundError):
            links.append(os.readlink(path))
    return f"socket:[{inode}]" in links


# Requests.


def test_all_workers_answer_and_a_killed_one_is_replaced(tmp_path: Path, loop_name: str) -> None:
    with serving(tmp_path, "--workers", "2", loop=loop_name) as registry, ExitStack() as stack:
        before = registry.workers()
        assert len(before) == 2
        assert "  workers   2 processes\n" in registry.banner
        clients = {pid: stack.enter_context(registry.connected_to(pid)) for pid in before}
        killed, kept = before
        os.kill(killed, signal.SIGKILL)
        assert clients[killed].rest() == b""
        assert {registry.ask(request("GET", "/v2/")).status for _ in range(50)} == {200}
        clients[kept].send(request("GET", "/v2/"))
        assert clients[kept].response().status == 200
        wait_until(lambda: len(registry.workers()) == 2)
        (new,) = registry.workers() - before
        with registry.connected_to(new):
            pass
        assert registry.said("was killed by SIGKILL; it is replaced")
        registry.process.terminate()
        assert registry.ended() == 0
        assert registry.process.stdout is not None
        assert registry.process.stdout.read() == ""


def test_an_upload_goes_on_in_any_worker(tmp_path: Path, loop_name: str) -> None:
    content = [os.urandom(MIB) for _ in range(4)]
    whole = b"".join(content)
    with serving(tmp_path, "--workers", "2", loop=loop_name) as registry:
        one, other = registry.workers()

        def ask(worker: int, data: bytes) -> Response:
            with registry.connected_to(worker) as client:
                client.send(data)
                return client.response()

        location, offset = ask(one, request("POST", "/v2/a/blobs/uploads/")).headers["location"], 0
        for worker, chunk in zip((other, one, one, other), content, strict=True):
            end = offset + len(chunk)
            fields = (f"Content-Range: {offset}-{end - 1}", "Content-Type: application/octet-stream")
            response = ask(worker, request("PATCH", location, *fields, body=chunk))
            assert (response.status, response.headers["range"]) == (202, f"0-{end - 1}")
            location, offset = response.headers["location"], end
        joint = "&" if "?" in location else "?"
        assert ask(one, request("PUT", f"{location}{joint}digest={digest_of(whole)}")).status == 201
        for worker in (one, other):
            assert ask(worker, request("GET", f"/v2/a/blobs/{digest_of(whole)}")).body == whole


def test_every_address_of_the_machine(tmp_path: Path) -> None:
    with serving(tmp_path, "--workers", "2", addr=":0") as registry:
        assert registry.banner.count(f":{registry.place[1]}") >= 2
        for host in ("127.0.0.1", "::1") * 8:
            with connected(host, registry.place[1]) as client:
                client.send(request("GET", "/v2/"))
                assert client.response().status == 200


def test_a_unix_socket_is_shared(tmp_path: Path, loop_name: str) -> None:
    """It stays while a worker ends, well or badly, and goes with the parent."""
    path = tmp_path / "r.sock"

    def answers() -> bool:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(path))
            client = RawConnection(sock)
            client.send(request("GET", "/v2/"))
            return client.response().status == 200

    with serving(tmp_path, "--workers", "2", loop=loop_name, addr=str(path), REGISTRY_HTTP_NET="unix") as registry:
        before = registry.workers()
        for pid, signum in zip(before, (signal.SIGTERM, signal.SIGKILL), strict=True):
            os.kill(pid, signum)
            wait_until(lambda pid=pid: pid not in registry.workers())  # type: ignore[misc]
            assert answers()
        wait_until(lambda: len(registry.workers() - before) == 2)
        registry.process.terminate()
        assert registry.ended() == 0
        assert not path.exists()


def test_a_tls_session_is_resumed_by_any_worker(tmp_path: Path) -> None:
    authority = trustme.CA()
    both = str(tmp_path / "both.pem")
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(both)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # there the session is known when the handshake ends
    environ = {"REGISTRY_HTTP_TLS_CERTIFICATE": both, "REGISTRY_HTTP_TLS_KEY": both}
    with serving(tmp_path, "--workers", "2", **environ) as registry:
        resumed, session = [], None
        for _ in range(16):
            with (
                socket.create_connection(registry.place, PATIENCE) as sock,
                context.wrap_socket(sock, server_hostname="127.0.0.1", session=session) as wrapped,
            ):
                client = RawConnection(wrapped)
                client.send(request("GET", "/v2/"))
                assert client.response().status == 200
                resumed.append(wrapped.session_reused)
                session = session or wrapped.session
    assert resumed == [False] + [True] * 15


# The end.


def test_a_worker_has_time_for_its_last_spans() -> None:
    """To a collector that does not answer."""
    assert inspect.signature(BatchProcessor.shutdown).parameters["timeout_millis"].default / 1000 < AFTER_DRAIN


def by_parent(registry: Registry) -> None:
    registry.process.terminate()


def by_service_manager(registry: Registry) -> None:
    """systemd signals every process of a service."""
    os.killpg(registry.process.pid, signal.SIGTERM)


def by_terminal(registry: Registry) -> None:
    os.killpg(registry.process.pid, signal.SIGINT)


@pytest.mark.parametrize(
    ("loop_name", "end"),
    [
        ("uvloop", by_parent),
        ("uvloop", by_terminal),
        ("asyncio", by_parent),
        ("asyncio", by_service_manager),
    ],
)
def test_running_downloads_are_finished(tmp_path: Path, loop_name: str, end: Callable[[Registry], None]) -> None:
    size = 24 * MIB
    with serving(tmp_path, "--workers", "2", loop=loop_name) as registry, ExitStack() as stack:
        blob = registry.push(os.urandom(size))
        clients = [stack.enter_context(registry.connected_to(pid)) for pid in registry.workers()]
        for client in clients:
            client.send(request("GET", blob))
            client.exactly(1)
        end(registry)
        wait_until(lambda: refuses(registry.place))
        for client in clients:
            client.exactly(size)
        assert registry.ended() == 0


def test_second_signal_ends_at_once(tmp_path: Path) -> None:
    with serving(tmp_path, "--workers", "2") as registry, ExitStack() as stack:
        blob, workers = registry.push(os.urandom(24 * MIB)), registry.workers()
        for pid in workers:
            client = stack.enter_context(registry.connected_to(pid))
            client.send(request("GET", blob))
            client.exactly(100)
        registry.process.send_signal(signal.SIGTERM)
        wait_until(lambda: refuses(registry.place))
        assert registry.workers() == workers
        registry.process.send_signal(signal.SIGINT)
        assert registry.ended() == 128 + signal.SIGINT
        assert not workers & parents().keys()


def test_no_worker_outlives_a_killed_parent(tmp_path: Path) -> None:
    with serving(tmp_path, "--workers", "2") as registry:
        workers = registry.workers()
        registry.process.kill()
        registry.ended()
        wait_until(lambda: not workers & parents().keys())
        assert refuses(registry.place)


def test_one_worker_needs_no_supervisor(tmp_path: Path) -> None:
    with serving(tmp_path, "--workers", "1") as registry:
        assert registry.ask(request("GET", "/v2/")).status == 200
        assert registry.workers() == set()
        assert "workers" not in registry.banner


# What cannot be.


def refused(folder: Path, *arguments: str, **environ: str) -> str:
    """The one line with which it ends."""
    with start(folder, *arguments, errors="refusal", **environ) as child:
        out, _ = child.communicate(timeout=PATIENCE)
    err = (folder / "refusal").read_text()
    assert (child.returncode, out, err.count("\n")) == (1, "", 1), err
    return err


def test_a_port_that_workers_hold_is_taken(tmp_path: Path) -> None:
    """Sharing it, as SO_REUSEPORT would allow, gave half of the clients another store."""
    with serving(tmp_path, "--workers", "2") as registry:
        addr = "{}:{}".format(*registry.place)
        for workers in ("1", "2"):
            assert f"cannot listen on {addr}: stop the process" in refused(tmp_path, "--workers", workers, addr=addr)
        assert registry.ask(request("GET", "/v2/")).status == 200


@pytest.mark.parametrize("share", [False, True])
def test_a_port_that_others_hold_is_taken(tmp_path: Path, share: bool) -> None:
    with socket.create_server(("127.0.0.1", 0), reuse_port=share) as taken:
        addr = printable(taken)
        assert f"cannot listen on {addr}" in refused(tmp_path, "--workers", "2", addr=addr)
        with pytest.raises(OSError, match="in use") as caught, listening_each("tcp", addr, 2):
            pass
        assert caught.value.errno == errno.EADDRINUSE


def test_what_keeps_every_worker_from_starting_is_said_once(tmp_path: Path) -> None:
    line = refused(tmp_path, "--workers", "3", REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY="/proc/moorage")
    assert "the filesystem storage cannot be used" in line


def test_memory_is_not_shared(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("REGISTRY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("REGISTRY_STORAGE", "inmemory")
    assert cli.main(["serve", "--workers", "2"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("registry: --workers 2: the inmemory storage lives inside one process")
    assert err.count("\n") == 1


# Chores.


def test_only_one_worker_purges(tmp_path: Path) -> None:
    """One process leaves 0.2 s between two purges; of two, some pair would be closer."""
    purging = {"enabled": True, "age": "1ms", "interval": "200ms", "dryrun": True}
    maintenance = json.dumps({"uploadpurging": purging})
    with serving(tmp_path, "--workers", "3", REGISTRY_STORAGE_MAINTENANCE=maintenance) as registry:
        assert registry.ask(request("POST", "/v2/a/blobs/uploads/")).status == 202
        purged = r'time="(.+)Z" .*purged 1 abandoned uploads'
        wait_until(lambda: len(re.findall(purged, registry.errors.read_text())) >= 4)
        times = [datetime.fromisoformat(found) for found in re.findall(purged, registry.errors.read_text())]
    assert min((later - sooner).total_seconds() for sooner, later in itertools.pairwise(times)) > 0.19


def test_the_others_run_with_the_same_settings() -> None:
    config = Config()
    assert config.storage.maintenance.uploadpurging.enabled
    changed = without_chores(config)
    assert not changed.storage.maintenance.uploadpurging.enabled
    assert (changed.http, changed.limits, changed.storage.parameters) == (
        config.http,
        config.limits,
        config.storage.parameters,
    )
