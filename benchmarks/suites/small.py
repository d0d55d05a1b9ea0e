"""Requests that carry next to nothing: manifests by tag and by digest, and the HEADs that every push starts with."""

from collections.abc import Iterator
from pathlib import Path

from benchmarks.ask import ask
from benchmarks.clients import LoadFailed, run
from benchmarks.clients.http import request
from benchmarks.clients.wrk import wrk
from benchmarks.lab import Lab, Load, Measure
from benchmarks.results import Case
from benchmarks.servers import REGISTRIES, ZOT, Running, all_running
from benchmarks.store import IMAGE, Blob, Store, small_image

REPOSITORY = "bench/small"
CLIENTS = 16
ACCEPT = f"Accept: {IMAGE}"
ABSENT = "sha256:" + "0" * 64


class Small:
    name = "small"
    about = "manifests by tag and digest, HEAD of a blob that is and of one that is not there"
    servers = (*REGISTRIES, ZOT)

    def run(self, lab: Lab) -> Iterator[Case]:
        with lab.store(self.name) as store, lab.folder("servers") as folder:
            yield from self._cases(lab, store, folder)

    def _cases(self, lab: Lab, store: Store, folder: Path) -> Iterator[Case]:
        manifest = small_image(store, REPOSITORY, "v1")
        blob = store.add_blob(REPOSITORY, b"here")
        seconds = lab.scale.seconds
        by_tag, by_digest = (f"/v2/{REPOSITORY}/manifests/{reference}" for reference in ("v1", manifest.digest))
        with all_running(self.servers, store.root, folder) as servers:
            for server in servers:
                check_manifest(server, by_tag, manifest)
            for name, path, clients in (
                ("manifest by tag, 1 client", by_tag, 1),
                ("manifest by tag", by_tag, CLIENTS),
                ("manifest by digest", by_digest, CLIENTS),
            ):
                yield lab.case(
                    name,
                    "req_s",
                    servers,
                    get(path, manifest, clients, seconds),
                    warm=get(path, manifest, clients, 1),
                )
            for name, digest, status in (("HEAD, blob is there", blob.digest, 200), ("HEAD, missing", ABSENT, 404)):
                path = f"/v2/{REPOSITORY}/blobs/{digest}"
                yield lab.case(name, "req_s", servers, head(path, status, seconds), warm=head(path, status, 1))


def get(path: str, manifest: Blob, clients: int, seconds: int) -> Measure:
    def measure(server: Running) -> Load:
        seen = wrk(server.url + path, clients, seconds, manifest.size, ACCEPT)
        return Load({key: seen[key] for key in ("req_s", "p50_ms", "p99_ms")}, requests=seen["requests"])

    return measure


def head(path: str, status: int, seconds: int) -> Measure:
    """wrk would wait for a body: its parser does not know that it asked by HEAD."""

    def measure(server: Running) -> Load:
        seen = run(
            "pull",
            {
                "port": server.port,
                "clients": CLIENTS,
                "seconds": seconds,
                "method": "HEAD",
                "heads": [request("HEAD", path, server.port).decode()],
                "status": status,
                "size": 0,
            },
        )
        return Load({"req_s": seen["requests"] / seen["seconds"]}, requests=seen["requests"])

    return measure


def check_manifest(server: Running, path: str, manifest: Blob) -> None:
    """Raises LoadFailed."""
    answer = ask(server, "GET", path, {"Accept": IMAGE})
    if answer.digest != manifest.digest:
        raise LoadFailed(f"{server.server.name} serves something else as {path}")
