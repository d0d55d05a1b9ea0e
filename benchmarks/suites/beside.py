"""How long a small request waits while others load the server: what loop lag looks like from outside."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

from benchmarks.clients import finish, run, start
from benchmarks.clients.http import request
from benchmarks.lab import Lab, Load, Measure
from benchmarks.results import Case
from benchmarks.servers import REGISTRIES, ZOT, Running, present, running
from benchmarks.stats import percentile
from benchmarks.store import Blob, Store, blocks

from .pull import REPOSITORY
from .push import Source, push_spec

CLIENTS = 4
GAP = 0.005
"""Seconds between the requests of the probe: seldom enough to be no load itself."""
WARM_SECONDS = 1


class Beside:
    name = "beside"
    about = "latency of GET /v2/ beside nothing, large pulls and large pushes"
    servers = (*REGISTRIES, ZOT)

    def run(self, lab: Lab) -> Iterator[Case]:
        seconds, size = lab.scale.seconds, lab.scale.volume // 8
        with lab.folder(self.name) as folder, ExitStack() as stack:
            source = Source(folder / "body", lab.scale.push_bytes)
            blobs: dict[str, Blob] = {}
            servers = []
            for server in present(self.servers):
                blobs[server.name] = Store(folder / server.name).add_blob(REPOSITORY, blocks(size))
                servers.append(stack.enter_context(running(server, folder / server.name, folder / "servers")))
            warm = probed(pulling(blobs, WARM_SECONDS))
            yield lab.case("nothing else", "p99_ms", servers, probed(lambda _: time.sleep(seconds)), warm=warm)
            yield lab.case(f"{CLIENTS} pulls", "p99_ms", servers, probed(pulling(blobs, seconds)), warm=warm)
            yield lab.case(f"{CLIENTS} pushes", "p99_ms", servers, probed(pushing(source)))


def probed(load: Callable[[Running], None]) -> Measure:
    """The latencies of a probe that runs as long as the load."""

    def measure(server: Running) -> Load:
        probe = start("probe", {"port": server.port, "gap": GAP})
        try:
            load(server)
            latencies: list[float] = finish(probe)["ms"]
        finally:
            probe.kill()
            probe.wait()
        figures = {"p50_ms": 50, "p99_ms": 99, "max_ms": 100}
        return Load({name: percentile(latencies, percent) for name, percent in figures.items()})

    return measure


def pulling(blobs: dict[str, Blob], seconds: int) -> Callable[[Running], None]:
    def load(server: Running) -> None:
        blob = blobs[server.server.name]
        path = server.blob_path(REPOSITORY, blob.digest)
        spec = {"clients": CLIENTS, "seconds": seconds, "method": "GET", "status": 200, "size": blob.size}
        run("pull", {**spec, "port": server.port, "heads": [request("GET", path, server.port).decode()]})

    return load


def pushing(source: Source) -> Callable[[Running], None]:
    def load(server: Running) -> None:
        os.sync()
        run("push", push_spec(server, source, "stream", source.blobs(CLIENTS)))
        Store(server.root).drop_pushed(source.size)

    return load
