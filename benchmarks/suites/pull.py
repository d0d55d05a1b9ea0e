"""Blobs of several sizes, by one and by many clients. nginx shows what sending a file costs at least."""

from collections.abc import Iterator

from benchmarks.ask import ask
from benchmarks.clients import LoadFailed, run
from benchmarks.clients.http import request
from benchmarks.clients.wrk import wrk
from benchmarks.lab import MIB, Lab, Load, Measure
from benchmarks.results import Case
from benchmarks.servers import FILE_SERVERS, ZOT, Running, all_running
from benchmarks.store import Blob, blocks

REPOSITORY = "bench/pull"
LARGE = 16 * MIB
"""Bytes; of smaller blobs every client pulls as many as it can in a given time."""
LARGEST_SAMPLE = 16 << 30
"""Bytes; where every client pulling once is more, fewer rounds do."""


class Pull:
    name = "pull"
    about = "blobs of several sizes by 1 to 64 clients"
    servers = (*FILE_SERVERS, ZOT)

    def run(self, lab: Lab) -> Iterator[Case]:
        with lab.store(self.name) as store, lab.folder("servers") as folder:
            blobs = {name: store.add_blob(REPOSITORY, blocks(size)) for name, size in lab.scale.blobs.items()}
            with all_running(self.servers, store.root, folder) as servers:
                for name, blob in blobs.items():
                    for server in servers:
                        check_digest(server, blob)
                    for clients in lab.scale.clients:
                        yield self._case(lab, servers, f"{name} by {clients}", blob, clients)

    def _case(self, lab: Lab, servers: list[Running], name: str, blob: Blob, clients: int) -> Case:
        if blob.size < MIB:
            return lab.case(
                name, "req_s", servers, small(blob, clients, lab.scale.seconds), warm=small(blob, clients, 1)
            )
        if blob.size < LARGE:
            return lab.case(name, "gb_s", servers, large(blob, clients, seconds=lab.scale.seconds))
        requests = max(1, lab.scale.volume // (blob.size * clients))
        enough = requests * blob.size * clients <= LARGEST_SAMPLE
        return lab.case(
            name,
            "gb_s",
            servers,
            large(blob, clients, requests=requests),
            warm=large(blob, min(clients, 4), requests=1),
            rounds=lab.scale.rounds if enough else min(3, lab.scale.rounds),
        )


def small(blob: Blob, clients: int, seconds: int) -> Measure:
    def measure(server: Running) -> Load:
        seen = wrk(server.url + server.blob_path(REPOSITORY, blob.digest), clients, seconds, blob.size)
        return Load({key: seen[key] for key in ("req_s", "p50_ms", "p99_ms")}, requests=seen["requests"])

    return measure


def large(blob: Blob, clients: int, **until: int) -> Measure:
    def measure(server: Running) -> Load:
        head = request("GET", server.blob_path(REPOSITORY, blob.digest), server.port)
        return downloaded(server, [head], 200, blob.size, clients, **until)

    return measure


def downloaded(server: Running, heads: list[bytes], status: int, size: int, clients: int, **until: int) -> Load:
    """Let the clients send these requests in turn. until: requests (of each client) or seconds."""
    seen = run(
        "pull",
        {
            "port": server.port,
            "clients": clients,
            "method": "GET",
            "heads": [head.decode() for head in heads],
            "status": status,
            "size": size,
            **until,
        },
    )
    return Load({"gb_s": seen["bytes"] / seen["seconds"] / 1e9}, bytes=seen["bytes"], requests=seen["requests"])


def check_digest(server: Running, blob: Blob, repository: str = REPOSITORY) -> None:
    """Outside the clock: are these the right bytes? Raises LoadFailed."""
    answer = ask(server, "GET", server.blob_path(repository, blob.digest))
    if (answer.digest, answer.size) != (blob.digest, blob.size):
        raise LoadFailed(f"{server.server.name} serves {answer.size} other bytes as {blob.digest}")
