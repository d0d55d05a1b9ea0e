"""Pushes of large blobs in every way that clients know. The limit is what hashing costs."""

import hashlib
import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.ask import ask
from benchmarks.clients import LoadFailed, run
from benchmarks.lab import MIB, Lab, Load, Measure, say
from benchmarks.results import Case
from benchmarks.servers import REGISTRIES, ZOT, Running, Server, present, running
from benchmarks.store import Blob, Store, blocks

from .pull import check_digest

REPOSITORY = "bench/push"
MODES = ("stream", "docker", "chunked", "monolithic")
CHUNK = 16 * MIB
CLIENTS = (1, 8)
LIMIT = Server("sha256", "sha256 in memory", "", "", registry=False)


class PushSuite:
    name = "push"
    about = "streamed, as docker does, chunked and monolithic pushes by 1 and 8 clients"
    servers = (*REGISTRIES, ZOT)

    def run(self, lab: Lab) -> Iterator[Case]:
        with lab.folder(self.name) as folder, ExitStack() as stack:
            source = Source(folder / "body", lab.scale.push_bytes)
            # each with a store of its own, on the same disk
            servers = [
                stack.enter_context(running(server, folder / server.name, folder / "servers"))
                for server in present(self.servers)
            ]
            for clients in CLIENTS:
                hashed = [hash_rate(source, clients) for _ in range(lab.scale.rounds)]
                for mode in MODES:
                    case = lab.case(f"{mode} by {clients}", "gb_s", servers, push(source, mode, clients))
                    case.samples[LIMIT.name] = [{"gb_s": rate} for rate in hashed]
                    yield case
                say(f"  sha256 in memory, {clients} at once: {max(hashed):.2f} GB/s at best")


class Source:
    """The body of all pushes: a file in the page cache, made unique by 16 bytes behind it."""

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.size = size
        self._hash = hashlib.sha256()
        with path.open("wb") as file:
            for block in blocks(size):
                file.write(block)
                self._hash.update(block)
        self._next = 0

    def blobs(self, count: int) -> list[dict[str, str]]:
        made = []
        for _ in range(count):
            tail = self._next.to_bytes(16, "big")
            self._next += 1
            whole = self._hash.copy()
            whole.update(tail)
            made.append({"tail": tail.hex(), "digest": f"sha256:{whole.hexdigest()}"})
        return made


def push(source: Source, mode: str, clients: int) -> Measure:
    checked: set[str] = set()

    def measure(server: Running) -> Load:
        blobs = source.blobs(clients)
        # what earlier pushes left to be written would slow this one down
        os.sync()
        seen = run("push", push_spec(server, source, mode, blobs))
        for blob in blobs:
            check_size(server, blob["digest"], source.size + 16)
        if server.server.name not in checked:
            checked.add(server.server.name)
            check_digest(server, Blob(blobs[0]["digest"], source.size + 16), REPOSITORY)
        Store(server.root).drop_pushed(source.size)
        return Load({"gb_s": seen["bytes"] / seen["seconds"] / 1e9}, bytes=seen["bytes"])

    return measure


def push_spec(server: Running, source: Source, mode: str, blobs: list[dict[str, str]]) -> dict[str, Any]:
    """What the client `push` is told."""
    return {
        "port": server.port,
        "repository": REPOSITORY,
        "mode": mode,
        "file": str(source.path),
        "size": source.size,
        "blobs": blobs,
        "chunk": min(CHUNK, source.size // 4),
    }


def check_size(server: Running, digest: str, size: int) -> None:
    """Raises LoadFailed."""
    answer = ask(server, "HEAD", server.blob_path(REPOSITORY, digest))
    if answer.length != str(size):
        raise LoadFailed(f"{server.server.name} has {answer.length} bytes of a pushed blob of {size}")


def hash_rate(source: Source, threads: int) -> float:
    """GB/s of hashing the body in memory, by so many threads at once."""
    content = source.path.read_bytes()
    workers = [threading.Thread(target=hashlib.sha256, args=(content,)) for _ in range(threads)]
    start = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return len(content) * threads / (time.perf_counter() - start) / 1e9
