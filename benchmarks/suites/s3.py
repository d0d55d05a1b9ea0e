"""Moorage and distribution over one S3 server, which is asked directly as well: what the store itself gives at most.

The store is SeaweedFS. It is reached directly, 20 ms away, and 20 ms away with 90 MB/s per connection (Amazon's own
bound), through a relay that can pass far more. Rule: on each way the store itself is asked through the same relay.
"""

import hashlib
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.clients import LoadFailed, run
from benchmarks.clients.http import connect, header, read_answer, request
from benchmarks.clients.wrk import wrk
from benchmarks.lab import KB, MIB, Lab, Load, Measure
from benchmarks.relay import relaying
from benchmarks.results import Case
from benchmarks.servers import OURS, SEAWEEDFS, V3, Running, present, running
from benchmarks.store import IMAGE, Blob, Store, blocks, small_image
from storage import layout
from storage.digest import Digest
from tests.s3.servers import S3Server, seaweedfs_server

from . import pull, push, small
from .start import starts

ROOT = "bench"
URL_SECONDS = 6 * 3600
CLIENTS = 16
BLOB_BYTES = 256 * MIB
PUSH_BYTES = 64 * MIB
PUSHING = (1, 4)


@dataclass(frozen=True)
class Way:
    """How the registries reach the store. latency in seconds; rate in bytes/s per connection."""

    name: str
    latency: float = 0.0
    rate: float | None = None


WAYS = (Way("direct"), Way("20 ms", 0.02), Way("20 ms and 90 MB/s", 0.02, 90e6))


@dataclass(frozen=True)
class Direct(Running):
    """The store itself. paths: signed, by digest."""

    paths: dict[str, str] = field(default_factory=dict)

    def blob_path(self, repository: str, digest: str) -> str:
        return self.paths[digest]


@dataclass(frozen=True)
class Bucket:
    """A bucket with an image, a blob of 1 kB and a large one."""

    server: S3Server
    name: str
    folder: Path
    manifest: Blob
    tiny: Blob
    large: Blob

    def settings(self, endpoint: str, *, redirect: bool, read_only: bool = False) -> dict[str, Any]:
        """`storage` of both registries."""
        parameters = self.server.parameters(self.name, ROOT, endpoint=endpoint)
        maintenance = {"uploadpurging": {"enabled": False}, "readonly": {"enabled": read_only}}
        return {"s3": parameters, "redirect": {"disable": not redirect}, "maintenance": maintenance}

    @contextmanager
    def reached(self, way: Way) -> Iterator[str]:
        """The endpoint."""
        if not way.latency and not way.rate:
            yield self.server.endpoint
            return
        target = int(self.server.endpoint.rpartition(":")[2])
        with relaying(target, way.latency, way.rate) as port:
            yield f"http://127.0.0.1:{port}"

    def direct(self, endpoint: str) -> Direct:
        client = self.server.client(endpoint=endpoint)
        paths = {}
        for blob in (self.tiny, self.large):
            place = {"Bucket": self.name, "Key": key_of(blob.digest)}
            url = client.generate_presigned_url("get_object", Params=place, ExpiresIn=URL_SECONDS)
            paths[blob.digest] = url.removeprefix(endpoint)
        port = int(endpoint.rpartition(":")[2])
        return Direct(SEAWEEDFS, self.server.process, port, self.folder, paths)

    @contextmanager
    def registries(
        self, endpoint: str, folder: Path, *, redirect: bool = False, read_only: bool = False
    ) -> Iterator[list[Running]]:
        settings = self.settings(endpoint, redirect=redirect, read_only=read_only)
        with ExitStack() as stack:
            yield [
                stack.enter_context(running(server, self.folder, folder, settings)) for server in present((OURS, V3))
            ]

    def drop(self, digest: str) -> None:
        """What was pushed would fill the disk."""
        self.server.client().delete_object(Bucket=self.name, Key=key_of(digest))


class S3:
    name = "s3"
    about = "over one S3 server (SeaweedFS): direct, 20 ms away, and with 90 MB/s per connection; redirects; pushes"
    servers = (OURS, V3, SEAWEEDFS)

    def run(self, lab: Lab) -> Iterator[Case]:
        with lab.folder(self.name) as folder, filled(lab, folder) as bucket:
            for way in WAYS:
                yield from self.without_redirect(lab, bucket, way, folder / way.name)
            yield from self.with_redirect(lab, bucket, folder / "redirect")
            settings = bucket.settings(bucket.server.endpoint, redirect=True)
            yield from starts(lab, (OURS, V3), bucket.folder, folder / "start", settings)

    def without_redirect(self, lab: Lab, bucket: Bucket, way: Way, folder: Path) -> Iterator[Case]:
        with bucket.reached(way) as endpoint, bucket.registries(endpoint, folder) as registries:
            servers = [*registries, bucket.direct(endpoint)]
            for server in servers:
                pull.check_digest(server, bucket.large)
            for clients in (1, CLIENTS):
                yield large_case(lab, servers, way, bucket.large, clients)
            if way is WAYS[0]:
                yield from small_cases(lab, servers, bucket)
                yield from push_cases(lab, registries, bucket, folder)

    def with_redirect(self, lab: Lab, bucket: Bucket, folder: Path) -> Iterator[Case]:
        """A read-only replica may believe what it saw of a repository for a minute; a writer of ours asks each time."""
        for name, read_only in (("redirect by a read-only replica", True), ("redirect by a writer", False)):
            endpoint = bucket.server.endpoint
            with bucket.registries(endpoint, folder, redirect=True, read_only=read_only) as servers:
                for server in servers:
                    check_redirect(server, bucket.large)
                yield requests(lab, name, servers, lambda server: blob_url(server, bucket.large), 0)


@contextmanager
def filled(lab: Lab, folder: Path) -> Iterator[Bucket]:
    """A server of its own, with a bucket that holds what a store on disk would, under the same keys."""
    with seaweedfs_server(folder) as server:
        store, name = Store(folder / "store"), server.new_bucket()
        manifest = small_image(store, small.REPOSITORY, "v1")
        tiny = store.add_blob(pull.REPOSITORY, next(blocks(KB)))
        large = store.add_blob(pull.REPOSITORY, blocks(min(BLOB_BYTES, lab.scale.volume)))
        for path in sorted(store.root.rglob("*")):
            if path.is_file():
                with path.open("rb") as body:
                    key = f"{ROOT}/{path.relative_to(store.root)}"
                    server.client().put_object(Bucket=name, Key=key, Body=body)
        yield Bucket(server, name, folder, manifest, tiny, large)


def key_of(digest: str) -> str:
    return f"{ROOT}/{layout.blob_data(Digest.parse(digest))}"


def blob_url(server: Running, blob: Blob) -> str:
    return server.url + server.blob_path(pull.REPOSITORY, blob.digest)


def large_case(lab: Lab, servers: list[Running], way: Way, blob: Blob, clients: int) -> Case:
    """A sample lasts a second at least. Warming is what lets Moorage learn how many ranges help, one or many."""
    again = {"seconds": 1} if clients == 1 else {"requests": 1}
    return lab.case(
        f"{way.name}: blob by {clients}",
        "gb_s",
        servers,
        pull.large(blob, clients, **again),
        warm=pull.large(blob, min(clients, 4), requests=1),
        rounds=lab.scale.rounds if clients == 1 else min(2, lab.scale.rounds),
    )


def small_cases(lab: Lab, servers: list[Running], bucket: Bucket) -> Iterator[Case]:
    registries = [server for server in servers if server.server.registry]
    path = f"/v2/{small.REPOSITORY}/manifests/v1"
    for server in registries:
        small.check_manifest(server, path, bucket.manifest)
    accept = f"Accept: {IMAGE}"
    size = bucket.manifest.size
    yield requests(lab, "manifest by tag", registries, lambda server: server.url + path, size, accept)
    yield requests(lab, "blob of 1 kB", servers, lambda server: blob_url(server, bucket.tiny), bucket.tiny.size)


def requests(
    lab: Lab, name: str, servers: list[Running], url: Callable[[Running], str], size: int, *headers: str
) -> Case:
    """Requests/s of one GET, by many clients. size: of the body; 0: it does not matter."""

    def measure(seconds: int) -> Measure:
        def measured(server: Running) -> Load:
            seen = wrk(url(server), CLIENTS, seconds, size, *headers)
            return Load({key: seen[key] for key in ("req_s", "p50_ms", "p99_ms")}, requests=seen["requests"])

        return measured

    return lab.case(name, "req_s", servers, measure(lab.scale.seconds), warm=measure(1))


def push_cases(lab: Lab, registries: list[Running], bucket: Bucket, folder: Path) -> Iterator[Case]:
    source = push.Source(folder / "body", min(PUSH_BYTES, lab.scale.push_bytes))
    for clients in PUSHING:
        yield lab.case(f"push by {clients}", "gb_s", registries, pushed(bucket, source, clients))


def pushed(bucket: Bucket, source: push.Source, clients: int) -> Measure:
    """POST, PATCH, PUT. Digests are checked by the registry, and by us in the first blob of each."""
    checked: set[str] = set()

    def measure(server: Running) -> Load:
        blobs = source.blobs(clients)
        seen = run("push", push.push_spec(server, source, "stream", blobs))
        for blob in blobs:
            push.check_size(server, blob["digest"], source.size + 16)
        if server.server.name not in checked:
            checked.add(server.server.name)
            pull.check_digest(server, Blob(blobs[0]["digest"], source.size + 16), push.REPOSITORY)
        for blob in blobs:
            bucket.drop(blob["digest"])
        return Load({"gb_s": seen["bytes"] / seen["seconds"] / 1e9}, bytes=seen["bytes"])

    return measure


def check_redirect(server: Running, blob: Blob) -> None:
    """Are the right bytes where the answer points? Raises LoadFailed."""
    with connect(server.port) as sock:
        sock.sendall(request("GET", server.blob_path(pull.REPOSITORY, blob.digest), server.port))
        location = header(read_answer(sock, 307)[0], "location") or ""
    running = hashlib.sha256()
    with urllib.request.urlopen(location) as body:
        while piece := body.read(MIB):
            running.update(piece)
    if f"sha256:{running.hexdigest()}" != blob.digest:
        raise LoadFailed(f"{server.server.name} sends its clients to other bytes")
