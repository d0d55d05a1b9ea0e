"""The registry as it is run: a process of its own, or a thread, behind a socket. What only shows there.

F35 clients that leave in the middle; F42 an event loop that stays quick; TLS with users from end to end; a unix socket;
a read-only registry over data that is there; the pytest fixture for other projects.
"""

import hashlib
import json
import random
import ssl
import statistics
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import bcrypt
import httpx
import pytest
import trustme

from registry.app import create_app
from registry.config import Config
from registry.config.model import StorageConfig
from registry.serving.server import RunningServer, running
from tests import rawsocket
from tests.api import IMAGE, INDEX, Api, digest_of, error_of, image
from tests.conftest import read_only
from tests.security.process import MIB, Process, serving

DATA = bytes(range(256)) * 8192  # 2 MiB
DIGEST = digest_of(DATA)


@pytest.fixture
def server(config: Config) -> Iterator[RunningServer]:
    with running(create_app(config), config) as running_server:
        yield running_server


@pytest.fixture
def client(server: RunningServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, verify=False) as made:
        yield made


# F35: clients that leave


def half_sent(method: str, target: str, *, chunked: bool, size: int) -> bytes:
    """A request whose body ends after half of what it announces."""
    if not chunked:
        return f"{method} {target} HTTP/1.1\r\nHost: a\r\nContent-Length: {2 * size}\r\n\r\n".encode() + DATA[:size]
    head = f"{method} {target} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    return head + b"%x\r\n" % size + DATA[:size] + b"\r\n"


def leave(server: RunningServer, data: bytes, how: str) -> None:
    with rawsocket.connected(server.host, server.port) as connection:
        connection.send(data)
        if how == "reset":
            connection.reset()
        elif how == "half-close":
            connection.half_close()
            connection.rest()


def settled(ask: Callable[[], int]) -> int:
    """The first value that comes twice in a row: a departed client's last bytes may still be on their way."""
    before = -1
    for _ in range(500):
        value = ask()
        if value == before:
            return value
        before = value
        threading.Event().wait(0.01)
    raise AssertionError("it never came to rest")


LEAVING = ["close", "half-close", "reset"]


@pytest.mark.parametrize("how", LEAVING)
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("size", [1000, 1 << 20])
def test_f35_half_a_patch_keeps_what_came_and_goes_on(
    server: RunningServer, client: httpx.Client, how: str, chunked: bool, size: int
) -> None:
    location = client.post("/v2/a/blobs/uploads/").headers["Location"]
    leave(server, half_sent("PATCH", location, chunked=chunked, size=size), how)

    def stored() -> int:
        value = client.get(location).headers["Range"].removeprefix("0-")
        return int(value) + 1 if value != "0" else 0

    offset = settled(stored)
    assert offset <= size
    if how == "half-close":
        assert offset == size, "a client that only stops sending has sent all of this"
    location = client.get(location).headers["Location"]
    span = {"Content-Range": f"{offset}-{len(DATA) - 1}"}
    response = client.patch(location, content=DATA[offset:], headers=span)
    assert response.status_code == 202, response.text
    assert client.put(f"{response.headers['Location']}&digest={DIGEST}").status_code == 201
    assert client.get(f"/v2/a/blobs/{DIGEST}").content == DATA


@pytest.mark.parametrize("how", LEAVING)
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("verb", ["put", "post", "manifest"])
def test_f35_half_a_blob_is_never_committed(
    server: RunningServer, client: httpx.Client, how: str, chunked: bool, verb: str
) -> None:
    """Even when the half that came has the digest that was announced: the body was said to be longer."""
    body, media_type = DATA[:1000], "application/octet-stream"
    digest = digest_of(body)
    if verb == "put":
        target, method = client.post("/v2/a/blobs/uploads/").headers["Location"] + f"&digest={digest}", "PUT"
    elif verb == "post":
        target, method = f"/v2/a/blobs/uploads/?digest={digest}", "POST"
    else:
        client.post(f"/v2/a/blobs/uploads/?digest={digest_of(b'{}')}", content=b"{}")
        target, method, media_type = "/v2/a/manifests/v1", "PUT", IMAGE
    data = half_sent(method, target, chunked=chunked, size=1000).replace(
        b"Host: a", b"Host: a\r\nContent-Type: " + media_type.encode()
    )
    if verb == "manifest":
        whole = image()
        data = data.replace(DATA[:1000], whole + b" " * (1000 - len(whole)))
    leave(server, data, how)
    for _ in range(3):
        assert client.get(f"/v2/a/blobs/{digest}").status_code == 404
        assert client.get("/v2/a/manifests/v1").status_code == 404


@pytest.mark.parametrize("how", LEAVING)
def test_f35_a_client_that_leaves_in_the_middle_of_a_pull(
    server: RunningServer, client: httpx.Client, how: str
) -> None:
    client.post(f"/v2/a/blobs/uploads/?digest={DIGEST}", content=DATA)
    for _ in range(20):
        leave(server, rawsocket.request("GET", f"/v2/a/blobs/{DIGEST}"), how)
    assert client.get(f"/v2/a/blobs/{DIGEST}").content == DATA


# F42: the event loop

LAG = """
import asyncio, json, os, sys, time
from pathlib import Path
from registry.app import create_app
from registry.banner import banner
from registry.config import load
from registry.serving.server import run

lags = []

async def probe():
    while True:
        before = time.monotonic()
        await asyncio.sleep(0.005)
        lags.append(time.monotonic() - before - 0.005)

loaded = load(Path(sys.argv[1]), os.environ)

def started(addresses):
    global task
    task = asyncio.get_running_loop().create_task(probe())
    print("listening ", banner(loaded, addresses)["listening"], flush=True)

run(create_app(loaded.config), loaded.config, started=started)
Path(sys.argv[1]).with_name("lags.json").write_text(json.dumps(lags))
"""


class Lag(NamedTuple):
    """Seconds for which a task that is ready has to wait, and how often that was measured."""

    median: float
    maximum: float
    looks: int


def push_256_mib(process: Process) -> None:
    block, blocks = random.Random(1).randbytes(MIB), 256
    digest = hashlib.sha256(block * blocks).hexdigest()
    with rawsocket.connected(process.host, process.port) as connection:
        connection.send(
            rawsocket.request(
                "POST",
                f"/v2/a/blobs/uploads/?digest=sha256:{digest}",
                f"Content-Length: {MIB * blocks}",
                "Authorization: Basic " + BASIC,
            )
        )
        for _ in range(blocks):
            connection.send(block)
        assert connection.response().status == 201


BASIC = "YWxpY2U6cGFzc3dvcmQ="  # alice:password


def log_in(process: Process) -> None:
    with httpx.Client(base_url=process.url, verify=False) as client:
        for number in range(25):
            assert client.get("/v2/", auth=("alice", f"wrong{number}")).status_code == 401


def push_big_manifests(process: Process) -> None:
    """3.9 MB each, as the conformance suite has them."""
    annotations = {f"key{n}": f"{n:05}" * 2000 for n in range(390)}
    with httpx.Client(base_url=process.url, verify=False, auth=("alice", "password")) as client:
        for number in range(4):
            body = json.dumps(
                {
                    "schemaVersion": 2,
                    "mediaType": INDEX,
                    "manifests": [],
                    "annotations": {**annotations, "n": str(number)},
                }
            )
            assert client.put("/v2/b/manifests/v1", content=body, headers={"Content-Type": INDEX}).status_code == 201
            assert len(client.get("/v2/b/manifests/v1").content) == len(body)


def lag_under_load(folder: Path) -> Lag:
    folder.mkdir()
    (folder / "htpasswd").write_text(f"alice:{bcrypt.hashpw(b'password', bcrypt.gensalt(10)).decode()}\n")
    config = {
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "auth": {"htpasswd": {"path": str(folder / "htpasswd")}},
    }
    with serving(folder, config, program=("-c", LAG)) as process, ThreadPoolExecutor() as pool:
        for done in [pool.submit(work, process) for work in (push_256_mib, log_in, push_big_manifests)]:
            done.result()
    lags = json.loads((folder / "lags.json").read_text())
    return Lag(statistics.median(lags), max(lags), len(lags))


@pytest.mark.slow
def test_f42_the_event_loop_stays_quick_under_load(tmp_path: Path) -> None:
    """Hashing, bcrypt and JSON leave it alone. The bounds are wide, as other things run on the machine, too."""
    for attempt in ("first", "second"):
        lag = lag_under_load(tmp_path / attempt)
        print(f"median {lag.median * 1000:.1f} ms, maximum {lag.maximum * 1000:.0f} ms in {lag.looks} looks")
        if lag.median < 0.05 and lag.maximum < 0.25:
            break
    assert lag.looks > 20
    assert lag.median < 0.05
    assert lag.maximum < 0.25


# TLS and users from end to end


@pytest.mark.slow
def test_tls_and_users_from_end_to_end(tmp_path: Path) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    certificate.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    users = tmp_path / "htpasswd"
    users.write_text(f"alice:{bcrypt.hashpw(b'password', bcrypt.gensalt(5)).decode()}\n")
    config = {
        "storage": {"filesystem": {"rootdirectory": str(tmp_path / "data")}, "delete": {"enabled": True}},
        "http": {"tls": {"certificate": str(tmp_path / "cert.pem"), "key": str(tmp_path / "key.pem")}},
        "auth": {"htpasswd": {"realm": "Moorage", "path": str(users)}},
    }
    trusting, wary = ssl.create_default_context(), ssl.create_default_context()
    authority.configure_trust(trusting)
    stranger.configure_trust(wary)
    with serving(tmp_path, config) as process:
        assert process.scheme == "https"
        with httpx.Client(base_url=process.url, verify=wary) as client, pytest.raises(httpx.ConnectError):
            client.get("/v2/")
        with httpx.Client(base_url=process.url, verify=trusting) as client:
            response = client.get("/v2/")
            assert error_of(response) == (401, "UNAUTHORIZED")
            assert response.headers["WWW-Authenticate"] == 'Basic realm="Moorage"'
            assert client.get("/v2/", auth=("alice", "wrong")).status_code == 401
            client.auth = httpx.BasicAuth("alice", "password")
            assert client.get("/v2/").content == b"{}"
            location = client.post("/v2/a/blobs/uploads/").headers["Location"]
            location = client.patch(location, content=DATA[:MIB]).headers["Location"]
            location = client.patch(location, content=DATA[MIB:]).headers["Location"]
            assert client.put(f"{location}&digest={DIGEST}").status_code == 201
            assert client.get(f"/v2/a/blobs/{DIGEST}").content == DATA
            assert client.delete(f"/v2/a/blobs/{DIGEST}").status_code == 202
            users.write_text("bob:x\n")
            assert client.get("/v2/").status_code == 401, "removed, and out at the next request"


@pytest.mark.slow
def test_a_unix_socket(tmp_path: Path) -> None:
    socket = tmp_path / "registry.sock"
    config = {"storage": {"inmemory": {}}, "http": {"net": "unix", "addr": str(socket)}}
    with serving(tmp_path, config):
        transport = httpx.HTTPTransport(uds=str(socket))
        with httpx.Client(transport=transport, base_url="http://registry") as client:
            assert client.post(f"/v2/a/blobs/uploads/?digest={DIGEST}", content=DATA).status_code == 201
            assert client.get(f"/v2/a/blobs/{DIGEST}").content == DATA
    assert not socket.exists()


@pytest.mark.slow
def test_data_outlives_the_process(tmp_path: Path) -> None:
    """A session, too: its Location is still good after a restart, as the secret is kept in the store."""
    config = {"storage": {"filesystem": {"rootdirectory": str(tmp_path / "data")}}}
    with serving(tmp_path, config) as process, httpx.Client(base_url=process.url, verify=False) as client:
        client.post(f"/v2/a/blobs/uploads/?digest={DIGEST}", content=DATA)
        location = client.post("/v2/a/blobs/uploads/").headers["Location"]
        location = client.patch(location, content=b"half").headers["Location"]
    with serving(tmp_path, config) as process, httpx.Client(base_url=process.url, verify=False) as client:
        assert client.get(f"/v2/a/blobs/{DIGEST}").content == DATA
        digest = digest_of(b"half and half")
        assert client.put(f"{location}&digest={digest}", content=b" and half").status_code == 201
        assert client.get(f"/v2/a/blobs/{digest}").content == b"half and half"


# S5: read-only


WRITES = [
    ("POST", "blobs/uploads/"),
    ("POST", f"blobs/uploads/?digest={DIGEST}"),
    ("POST", f"blobs/uploads/?mount={DIGEST}&from=a"),
    ("GET", "blobs/uploads/c0ffee00-0000-4000-8000-000000000001"),
    ("PATCH", "blobs/uploads/c0ffee00-0000-4000-8000-000000000001"),
    ("PUT", f"blobs/uploads/c0ffee00-0000-4000-8000-000000000001?digest={DIGEST}"),
    ("DELETE", "blobs/uploads/c0ffee00-0000-4000-8000-000000000001"),
    ("PUT", "manifests/v1"),
    ("PUT", "manifests/v2"),
    ("DELETE", "manifests/v1"),
    ("DELETE", f"manifests/{digest_of(image())}"),
    ("DELETE", f"blobs/{digest_of(b'{}')}"),
]


def files(root: Path) -> dict[str, tuple[int, int]]:
    return {str(p): (p.stat().st_size, p.stat().st_mtime_ns) for p in root.rglob("*")}


async def test_s5_a_read_only_registry_serves_and_changes_nothing(tmp_path: Path) -> None:
    storage = StorageConfig(driver="filesystem", parameters={"rootdirectory": str(tmp_path / "data")})
    config = Config(storage=storage)
    referrer = image(subject={"mediaType": IMAGE, "digest": digest_of(image()), "size": len(image())})
    with running(create_app(config), config) as server:
        async with httpx.AsyncClient(base_url=server.url, verify=False) as client:
            api = Api(client)
            await api.push_image("a", "v1")
            await api.push_manifest("a", referrer)
    before = files(tmp_path / "data")
    config = replace(config, storage=read_only(storage))
    with running(create_app(config), config) as server:
        async with httpx.AsyncClient(base_url=server.url, verify=False) as client:
            api = Api(client)
            for method, path in WRITES:
                response = await client.request(
                    method, f"/v2/a/{path}", headers={"Content-Type": IMAGE}, content=image()
                )
                assert error_of(response) == (405, "UNSUPPORTED"), (method, path)
                assert "storage.maintenance.readonly" in response.text
            assert await api.tags("a") == ["v1"]
            assert (await client.get("/v2/a/manifests/v1")).content == image()
            assert (await client.get(f"/v2/a/blobs/{digest_of(b'{}')}")).content == b"{}"
            assert len(await api.referrers("a", digest_of(image()))) == 1
            assert (await client.get("/v2/_catalog")).json() == {"repositories": ["a"]}
    assert files(tmp_path / "data") == before


# The fixture for other projects


def test_the_pytest_fixture(oci_registry: RunningServer) -> None:
    with httpx.Client(base_url=oci_registry.url, verify=False) as client:
        assert client.get("/v2/_catalog").json() == {"repositories": []}
        client.post(f"/v2/a/blobs/uploads/?digest={DIGEST}", content=DATA)
        assert client.get(f"/v2/a/blobs/{DIGEST}").content == DATA
        assert client.delete(f"/v2/a/blobs/{DIGEST}").status_code == 202
    assert oci_registry.address == f"{oci_registry.host}:{oci_registry.port}"


def test_it_is_another_one_for_each_test(oci_registry: RunningServer) -> None:
    with httpx.Client(base_url=oci_registry.url, verify=False) as client:
        assert client.get(f"/v2/a/blobs/{DIGEST}").status_code == 404


@pytest.mark.slow
def test_other_projects_have_it_without_asking(tmp_path: Path) -> None:
    (tmp_path / "test_theirs.py").write_text(
        "import urllib.request\n"
        "def test_push(oci_registry):\n"
        "    assert urllib.request.urlopen(f'{oci_registry.url}/v2/').read() == b'{}'\n"
    )
    alone = ["-W", "error", "-p", "no:asyncio", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *alone, str(tmp_path)], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
