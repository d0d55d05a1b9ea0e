"""Parts of a large blob, as lazy pullers and resumed downloads ask for them."""

from collections.abc import Iterator

from benchmarks.clients.http import request
from benchmarks.lab import MIB, Lab, Load, Measure
from benchmarks.results import Case
from benchmarks.servers import FILE_SERVERS, ZOT, Running, all_running
from benchmarks.store import Blob, blocks

from .pull import REPOSITORY, check_digest, downloaded

PARTS = {"64 KiB": 64 * 1024, "1 MiB": MIB, "8 MiB": 8 * MIB}
CLIENTS = (1, 16)


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
                    for clients in CLIENTS if lab.scale.name == "full" else CLIENTS[-1:]:
                        measure = ranges(blob, size, clients, lab.scale.seconds)
                        yield lab.case(f"{name} of it by {clients}", "gb_s", servers, measure)


def ranges(blob: Blob, size: int, clients: int, seconds: int) -> Measure:
    """Parts that lie apart, as lazy pullers take them."""
    starts = range(0, blob.size - size + 1, max(size, blob.size // 64))

    def measure(server: Running) -> Load:
        path = server.blob_path(REPOSITORY, blob.digest)
        heads = [request("GET", path, server.port, f"Range: bytes={at}-{at + size - 1}") for at in starts]
        return downloaded(server, heads, 206, size, clients, seconds=seconds)

    return measure
