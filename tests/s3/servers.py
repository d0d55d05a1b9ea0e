"""S3 servers for tests and benchmarks: SeaweedFS and moto from their wheels, MinIO when `.tools/bin/minio` is there.

Each runs as a process of its own on free ports, keeps its data in a folder that goes with it, and ends by SIGKILL
(SeaweedFS takes 15 s to end itself). The fixtures start one server per test session, when a test first asks:

    def test_it(seaweedfs: S3Server) -> None:
        bucket = seaweedfs.new_bucket()            # empty, the test's own
        seaweedfs.client().list_objects_v2(Bucket=bucket)    # behind the driver's back; blocks
"""

import itertools
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.ports import free_ports

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
MINIO = ROOT / ".tools" / "bin" / "minio"
REGION = "us-east-1"
SHARED = "shared"
START_SECONDS = 60.0
TRIES = 3
"""A port that was free may be taken when the server gets to it."""


class ServerFailed(Exception):
    """The server did not start."""


@dataclass(frozen=True)
class Keys:
    access: str
    secret: str


ADMIN = Keys("AKIAMOORAGEADMIN", "the-admin's-secret-with/slash+plus")
READER = Keys("AKIAMOORAGEREADER", "the-reader's-secret-of-the-tests")


@dataclass(frozen=True)
class S3Server:
    """A server that runs. reader: keys of a user that may Get and List alone; None where the server knows no users."""

    name: str
    endpoint: str
    process: "subprocess.Popen[bytes]"
    folder: Path
    admin: Keys = ADMIN
    reader: Keys | None = READER
    region: str = REGION
    _names: Iterator[int] = field(default_factory=itertools.count, repr=False)
    _clients: dict[tuple[Keys, str], Any] = field(default_factory=dict, repr=False)

    def new_bucket(self) -> str:
        """An empty bucket. Dear on SeaweedFS (0.1 s, and 0.3 s more for the first object): see new_root."""
        name = f"t{next(self._names)}-{secrets.token_hex(4)}"
        self.client().create_bucket(Bucket=name)
        return name

    def new_root(self) -> tuple[str, str]:
        """A bucket that tests share, and an empty folder in it for `rootdirectory`: costs nothing."""
        return SHARED, f"t{next(self._names)}-{secrets.token_hex(4)}"

    def client(self, keys: Keys | None = None, endpoint: str | None = None) -> Any:
        """A botocore client, which blocks; it tries each call once. endpoint: a relay's, for instance."""
        made = (keys or self.admin, endpoint or self.endpoint)
        if made not in self._clients:
            self._clients[made] = self._new_client(*made)
        return self._clients[made]

    def close(self) -> None:
        for client in self._clients.values():
            client.close()
        self._clients.clear()

    def _new_client(self, keys: Keys, endpoint: str) -> Any:
        import botocore.config
        import botocore.session

        return botocore.session.Session().create_client(
            "s3",
            region_name=self.region,
            endpoint_url=endpoint,
            aws_access_key_id=keys.access,
            aws_secret_access_key=keys.secret,
            config=botocore.config.Config(
                signature_version="s3v4",
                s3={"addressing_style": "path"},
                retries={"total_max_attempts": 1},
                proxies={},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )

    def parameters(
        self, bucket: str, root: str = "", *, keys: Keys | None = None, endpoint: str | None = None
    ) -> dict[str, Any]:
        """`storage.s3` of a registry's configuration, as distribution spells it."""
        keys = keys or self.admin
        return {
            "region": self.region,
            "regionendpoint": endpoint or self.endpoint,
            "forcepathstyle": True,
            "secure": False,
            "bucket": bucket,
            "rootdirectory": f"/{root}",
            "accesskey": keys.access,
            "secretkey": keys.secret,
        }

    def keys_of(self, bucket: str, prefix: str = "") -> list[str]:
        """Every key of the bucket, sorted."""
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return sorted(item["Key"] for page in pages for item in page.get("Contents", []))

    def open_uploads(self, bucket: str) -> list[str]:
        """Keys of the multipart uploads that are open."""
        found = self.client().list_multipart_uploads(Bucket=bucket)
        return sorted(upload["Key"] for upload in found.get("Uploads", []))

    def content(self, bucket: str, key: str) -> bytes:
        data: bytes = self.client().get_object(Bucket=bucket, Key=key)["Body"].read()
        return data


@contextmanager
def seaweedfs_server(parent: Path | None = None) -> Iterator[S3Server]:
    """SeaweedFS: conditional writes and users, but lists in tree order (`a/` before `a-b/`), as no other does.

    parent: the folder in which its own goes, on the disk that a benchmark is about.
    """
    with _serving("seaweedfs", _start_seaweedfs, READER, parent) as server:
        yield server


@contextmanager
def moto_server() -> Iterator[S3Server]:
    """moto: lists in byte order and AWS's codes; it checks no keys."""
    with _serving("moto", _start_moto, None) as server:
        yield server


@contextmanager
def minio_server() -> Iterator[S3Server]:
    """MinIO, when it has been built (`make .tools/bin/minio`)."""
    with _serving("minio", _start_minio, None) as server:
        yield server


SERVERS: dict[str, Callable[[], Any]] = {"seaweedfs": seaweedfs_server, "moto": moto_server}
if MINIO.exists():
    SERVERS["minio"] = minio_server


@pytest.fixture(scope="session")
def seaweedfs() -> Iterator[S3Server]:
    with seaweedfs_server() as server:
        yield server


@pytest.fixture(scope="session")
def moto() -> Iterator[S3Server]:
    with moto_server() as server:
        yield server


@pytest.fixture(scope="session")
def minio() -> Iterator[S3Server]:
    if not MINIO.exists():
        pytest.skip("MinIO is not built: make .tools/bin/minio")
    with minio_server() as server:
        yield server


@pytest.fixture(params=list(SERVERS))
def s3_server(request: pytest.FixtureRequest) -> S3Server:
    """Each server that there is, one after the other."""
    server: S3Server = request.getfixturevalue(request.param)
    return server


# How each is started: in a folder, on how many ports


def _start_seaweedfs(folder: Path) -> tuple[int, list[str], dict[str, str]]:
    admin = {"name": "admin", "credentials": [_as_identity(ADMIN)], "actions": ["Admin", "Read", "List", "Write"]}
    reader = {"name": "reader", "credentials": [_as_identity(READER)], "actions": ["Read", "List"]}
    (folder / "identities.json").write_text(json.dumps({"identities": [admin, reader]}))
    (folder / "data").mkdir()
    s3, *ports = free_ports(8)
    parts = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc")
    command = [
        *(str(BIN / "weed"), f"-logdir={folder}", "server", "-dir", str(folder / "data")),
        *("-ip", "127.0.0.1", "-ip.bind", "127.0.0.1"),
        *("-s3", "-s3.port", str(s3), "-s3.port.grpc", str(ports.pop())),
        *("-s3.config", str(folder / "identities.json"), "-s3.iam.readOnly=false"),
        *("-s3.port.iceberg", "0", "-s3.port.lance", "0"),
        *(f"-{part}={port}" for part, port in zip(parts, ports, strict=True)),
        *("-volume.max", "2000", "-volume.preStopSeconds", "0"),
        *("-master.volumeSizeLimitMB", "1024", "-master.telemetry=false"),
    ]
    # a bucket is a collection, which starts with 7 volumes otherwise
    environment = {"GOMEMLIMIT": "300MiB", "GOGC": "50", "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"}
    return s3, command, environment


def _start_moto(folder: Path) -> tuple[int, list[str], dict[str, str]]:
    (port,) = free_ports(1)
    return port, [str(BIN / "moto_server"), "-H", "127.0.0.1", "-p", str(port)], {}


def _start_minio(folder: Path) -> tuple[int, list[str], dict[str, str]]:
    port, console = free_ports(2)
    (folder / "data").mkdir()
    command = [str(MINIO), "server", "--quiet", "--address", f"127.0.0.1:{port}"]
    command += ["--console-address", f"127.0.0.1:{console}", str(folder / "data")]
    environment = {"MINIO_ROOT_USER": ADMIN.access, "MINIO_ROOT_PASSWORD": ADMIN.secret, "MINIO_BROWSER": "off"}
    return port, command, environment | {"MINIO_CI_CD": "1", "GOMEMLIMIT": "300MiB"}


def _as_identity(keys: Keys) -> dict[str, str]:
    return {"accessKey": keys.access, "secretKey": keys.secret}


@contextmanager
def _serving(
    name: str,
    start: Callable[[Path], tuple[int, list[str], dict[str, str]]],
    reader: Keys | None,
    parent: Path | None = None,
) -> Iterator[S3Server]:
    folder = Path(tempfile.mkdtemp(prefix=f"moorage-{name}-", dir=parent))
    try:
        for attempt in range(TRIES):
            place = folder / str(attempt)
            place.mkdir()
            port, command, environment = start(place)
            with _process(command, place, environment) as process:
                server = S3Server(name, f"http://127.0.0.1:{port}", process, place, reader=reader)
                try:
                    _wait_for_a_put(server)
                except ServerFailed:
                    server.close()
                    if attempt == TRIES - 1:
                        raise
                    continue
                try:
                    yield server
                finally:
                    server.close()
                return
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _process(command: list[str], folder: Path, more: dict[str, str]) -> "Iterator[subprocess.Popen[bytes]]":
    unwanted = ("REGISTRY_", "AWS_", "OTEL_", "WEED_", "MINIO_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)} | more
    # the parent-death signal covers what `finally` cannot: a pytest that is killed itself
    tied = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
    with (folder / "output.log").open("wb") as output:
        process = subprocess.Popen(
            [*tied, *command],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a ^C is for the tests: they end the server
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_for_a_put(server: S3Server) -> None:
    """A port that answers is not yet a store that takes objects."""
    from botocore.exceptions import BotoCoreError, ClientError

    client = server.client()
    deadline = time.monotonic() + START_SECONDS
    last: Exception | None = None
    while time.monotonic() < deadline and server.process.poll() is None:
        try:
            with suppress(client.exceptions.BucketAlreadyExists, client.exceptions.BucketAlreadyOwnedByYou):
                client.create_bucket(Bucket=SHARED)
            client.put_object(Bucket=SHARED, Key="x", Body=b"x")
            return
        except (BotoCoreError, ClientError) as exc:
            last = exc
            time.sleep(0.05)
    log = (server.folder / "output.log").read_text(errors="replace")[-3000:]
    raise ServerFailed(f"{server.name} did not start ({server.process.poll()}, {last}):\n{log}")
