"""Parts of a large blob, as lazy pullers and resumed downloads ask for them."""

from collections.abc import Iterator

from benchmarks.clients import run
from benchmarks.clients.http import request
from benchmarks.lab import MIB, Lab, Load, Measure
from benchmarks.results import Case
from benchmarks.servers import FILE_SERVERS, ZOT, Running, all_running
from benchmarks.store import Blob, blocks

from .pull import REPOSITORY, check_digest

PARTS = {"64 KiB": 64 * 1024, "1 MiB": MIB, "8 MiB": 8 * MIB}


class Ranges:
    name = "ranges"
    about = "Range pulls from one large blob"
    servers = (*FILE_SERVERS, ZOT)

    def run(self, lab: Lab) -> Iterator[Case]:
        with lab.store(self.name) as store, lab.folder("servers") as folder:
            blob = store.add_blob(REPOSITORY, blocks(max(lab.scale.blobs.values())))
            with all_running(self.servers, store.root, folder) as servers:
                for server in servers:
                    check_digest(server, blob)
                for name, size in PARTS.items():
                    for clients in (1, 16):
                        measure = ranges(blob, size, clients, lab.scale.volume // 4)
                        yield lab.case(f"{name} of it by {clients}", "gb_s", servers, measure)


def ranges(blob: Blob, size: int, clients: int, volume: int) -> Measure:
    starts = range(0, blob.size - size + 1, max(size, blob.size // 64))

    def measure(server: Running) -> Load:
        path = server.blob_path(REPOSITORY, blob.digest)
        heads = [request("GET", path, server.port, f"Range: bytes={at}-{at + size - 1}").decode() for at in starts]
        seen = run(
            "pull",
            {
                "port": server.port,
                "clients": clients,
                "requests": max(1, volume // (size * clients)),
                "method": "GET",
                "heads": heads,
                "status": 206,
                "size": size,
            },
        )
        return Load({"gb_s": seen["bytes"] / seen["seconds"] / 1e9}, bytes=seen["bytes"], requests=seen["requests"])

    return measure
