"""Pull-through caches beside each other: what nobody has pulled yet, what is cached, near and far upstreams.

The upstream is nginx, which serves the blobs of a store by sendfile under a registry's paths: it costs as little as an
upstream can, and its own column is what the clients would get without a cache. Rule: in a cold case every sample pulls
a blob that the server under test has never seen, and all servers pull the same ones in the same rounds.
"""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import trustme

from benchmarks.clients import LoadFailed
from benchmarks.clients.http import connect, read_head, request, status_of
from benchmarks.lab import MIB, Lab, Load, Measure
from benchmarks.relay import relaying
from benchmarks.results import Case
from benchmarks.servers import (
    BLOBS,
    NGINX,
    OURS,
    V3,
    Running,
    nginx_configuration,
    present,
    running,
    running_as,
)
from benchmarks.store import Blob, Store, blocks
from tests.ports import free_port

from . import pull

COLD_BYTES = 256 * MIB
MANY_BYTES = 64 * MIB
WAYS = ("near", "tls", "far")
COLD, WARM = (1, 50), (1, 16)
"""Clients."""
CLOSE = "Connection: close"
FAR = (0.02, 90e6)
"""Seconds before each request, bytes a second per connection: a registry on the internet."""


@dataclass(frozen=True)
class Upstream:
    """The same store by three ways. authority: whom to trust for `tls`."""

    store: Store
    near: Running
    far: int
    tls: int
    authority: Path

    def url(self, way: str) -> str:
        return {
            "near": self.near.url,
            "far": f"http://127.0.0.1:{self.far}",
            "tls": f"https://localhost:{self.tls}",
        }[way]


class Proxy:
    name = "proxy"
    about = "pull-through caches: uncached and cached blobs; an upstream that is near, far (20 ms, 90 MB/s), or TLS"
    servers = (OURS, V3, NGINX)

    def run(self, lab: Lab) -> Iterator[Case]:
        with lab.folder(self.name) as folder, upstream(folder) as source:
            for way in WAYS:
                with caches(source, way, folder / way) as servers:
                    yield from self.of(lab, source, way, servers)

    def of(self, lab: Lab, source: Upstream, way: str, caches: list[Running]) -> Iterator[Case]:
        near = way == "near"
        servers = [*caches, source.near] if near else caches
        for clients in COLD if near else COLD[:1]:
            size = min(COLD_BYTES if clients == 1 else MANY_BYTES, lab.scale.volume)
            yield lab.case(f"{way}: cold by {clients}", "gb_s", servers, Cold(lab, source.store, size, clients))
        if way == "far":
            yield lab.case("far: first byte", "ms", servers, first_bytes(lab, source.store))
        if near:
            yield from self.warm(lab, source, servers)

    def warm(self, lab: Lab, source: Upstream, servers: list[Running]) -> Iterator[Case]:
        blob = source.store.add_blob(pull.REPOSITORY, blocks(min(1024 * MIB, lab.scale.volume)))
        for server in servers:
            pull.check_digest(server, blob)
        for clients in WARM:
            requests = max(1, lab.scale.volume // (blob.size * clients))
            yield lab.case(f"warm by {clients}", "gb_s", servers, pull.large(blob, clients, requests=requests))


class Cold:
    """Each server's n-th sample pulls the n-th blob; the first is checked against its digest, outside the clock."""

    def __init__(self, lab: Lab, store: Store, size: int, clients: int) -> None:
        # one more than rounds: every server is warmed, which is a pull of its own
        self._blobs = [store.add_blob(pull.REPOSITORY, blocks(size)) for _ in range(lab.scale.rounds + 1)]
        self._clients = clients
        self._next: dict[str, Iterator[int]] = {}

    def __call__(self, server: Running) -> Load:
        number = next(self._next.setdefault(server.server.name, count()))
        blob = self._blobs[number]
        if not number:
            pull.check_digest(server, blob)
        os.sync()  # nobody writes out what another has cached
        return pull.large(blob, self._clients, requests=1)(server)


def first_bytes(lab: Lab, store: Store) -> Measure:
    """Milliseconds from a request for an uncached blob to the first byte of its body."""
    blobs = [store.add_blob(pull.REPOSITORY, blocks(MANY_BYTES)) for _ in range(lab.scale.rounds + 1)]
    numbers: dict[str, Iterator[Blob]] = {}

    def measure(server: Running) -> Load:
        blob = next(numbers.setdefault(server.server.name, iter(blobs)))
        with connect(server.port) as sock:
            began = time.perf_counter()
            sock.sendall(request("GET", server.blob_path(pull.REPOSITORY, blob.digest), server.port, CLOSE))
            head, body = read_head(sock)
            body = body or sock.recv(1)
            seconds = time.perf_counter() - began
            if status_of(head) != 200 or not body:
                raise LoadFailed(f"{server.server.name}: {head[:200]!r}")
            while sock.recv(MIB):  # a fetch that goes on behind a client who has left would be in the next one's way
                pass
        return Load({"ms": seconds * 1000})

    return measure


@contextmanager
def upstream(folder: Path) -> Iterator[Upstream]:
    """nginx as a registry of blobs, its relay, and its TLS port."""
    store = Store(folder / "upstream")
    store.root.mkdir(parents=True)
    authority = trustme.CA()
    certificate, trusted = folder / "localhost.pem", folder / "authority.pem"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(certificate)
    authority.cert_pem.write_to_path(trusted)
    plain, tls = free_port(), free_port()
    lines = (
        f"    listen 127.0.0.1:{tls} ssl;\n    ssl_certificate {certificate};\n    ssl_certificate_key {certificate};\n"
        f'    location ~ "^/v2/.+/blobs/sha256:(?<two>..)(?<rest>[0-9a-f]+)$" {{\n'
        f"      alias {store.root}/{BLOBS}/$two/$two$rest/data;\n    }}\n"
    )
    text = nginx_configuration(store.root, folder, plain, lines)
    with running_as(NGINX, text, store.root, folder, plain) as near, relaying(plain, *FAR) as far:
        yield Upstream(store, near, far, tls, trusted)


@contextmanager
def caches(source: Upstream, way: str, folder: Path) -> Iterator[list[Running]]:
    """Ours and distribution's, each with an empty store of its own."""
    before = os.environ.get("SSL_CERT_FILE")
    os.environ["SSL_CERT_FILE"] = str(source.authority)  # both read it
    try:
        with ExitStack() as stack:
            more = {"proxy": {"remoteurl": source.url(way)}}
            yield [
                stack.enter_context(running(server, folder / server.name, folder / server.name, more=more))
                for server in present((OURS, V3))
            ]
    finally:
        del os.environ["SSL_CERT_FILE"]
        if before is not None:
            os.environ["SSL_CERT_FILE"] = before
