"""Pushes, deletes and collections side by side against a registry that runs, for as long as asked; counts what is lost.

    python -m tests.gc_load --minutes 30 [--s3] [--registry distribution-3] [--grace 20s] [--clients 6] [--seed 1]

--s3: over SeaweedFS and not a folder.   --registry: whose server and collector; distribution's are the control, which
is expected to lose, so that it is known that this load would show it.
A client asks with HEAD and skips what is there, as docker does, and uploads again what the PUT of its manifest is
refused for. `registry garbage-collect -m` runs again and again, as a process of its own. Whatever a tag names is pulled
all the time, and at the end: a blob that is missing is a loss. Ends with 1 if there was any.
"""

import argparse
import asyncio
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.api import digest_of, image, with_query
from tests.interop.buckets import BucketLab
from tests.interop.peers import OURS, PEERS, Program, environment, started, write_config
from tests.ports import free_port
from tests.s3.servers import seaweedfs_server

MANIFEST = {"Content-Type": "application/vnd.oci.image.manifest.v1+json"}


class Load:
    def __init__(self, http: httpx.AsyncClient, config: Path, options: argparse.Namespace) -> None:
        self.http, self.config, self.options = http, config, options
        self.program: Program = options.registry
        self.dice = random.Random(options.seed)
        self.layers = [os.urandom(2000 + 500 * number) for number in range(40)]
        self.names = [f"load/r{number}" for number in range(4)]
        self.counts: Counter[str] = Counter()
        self.lost: list[str] = []
        self.until: float = time.monotonic() + options.minutes * 60

    @property
    def going(self) -> bool:
        return time.monotonic() < self.until

    async def client(self) -> None:
        while self.going:
            name, tag = self.dice.choice(self.names), f"t{self.dice.randrange(4)}"
            if self.dice.random() < 0.5:
                await self.delete(name, tag)
            else:
                await self.push(name, tag, tuple(self.dice.sample(self.layers, 3)))
            await asyncio.sleep(self.dice.random() * 0.5)

    async def push(self, name: str, tag: str, layers: tuple[bytes, ...]) -> None:
        for attempt in range(5):
            for data in (b"{}", *layers):
                if attempt or (await self.http.head(f"/v2/{name}/blobs/{digest_of(data)}")).status_code != 200:
                    await self.upload(name, data)
                else:
                    self.counts["uploads skipped"] += 1
            body = image(b"{}", layers)
            answer = await self.http.put(f"/v2/{name}/manifests/{tag}", content=body, headers=MANIFEST)
            if answer.status_code == 201:
                self.counts["pushes"] += 1
                return
            if answer.status_code not in (400, 404):
                raise AssertionError(f"{answer.status_code} {answer.text[:200]}")
            self.counts["pushes told what is missing"] += 1
        assert self.program is not OURS, "five times told that something is missing"
        self.counts["pushes given up"] += 1

    async def upload(self, name: str, data: bytes) -> None:
        location = (await self.http.post(f"/v2/{name}/blobs/uploads/")).headers["Location"]
        answer = await self.http.put(with_query(location, digest=digest_of(data)), content=data)
        assert answer.status_code == 201, answer.text
        self.counts["uploads"] += 1

    async def delete(self, name: str, tag: str) -> None:
        answer = await self.http.delete(f"/v2/{name}/manifests/{tag}")
        self.counts["deletes"] += answer.status_code == 202

    async def collector(self) -> None:
        assert self.program.path is not None
        grace = ("--grace", self.options.grace) if self.program is OURS else ()
        while self.going:
            process = await asyncio.create_subprocess_exec(
                *(self.program.path, "garbage-collect", "-m", *grace, str(self.config)),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=environment(),
            )
            out, err = await process.communicate()
            if process.returncode:
                assert self.program is not OURS, err.decode()[-2000:]
                self.counts["collections that failed"] += 1  # it fails where a push removes what it lists
            self.counts["collections"] += 1
            self.counts["blobs collected"] += out.count(b"blob eligible for deletion")

    async def looker(self) -> None:
        while self.going:
            await self.look()

    async def look(self) -> None:
        for name in self.names:
            tags = (await self.http.get(f"/v2/{name}/tags/list")).json().get("tags") or []
            for tag in tags:
                manifest = await self.http.get(f"/v2/{name}/manifests/{tag}")
                if manifest.status_code == 404:
                    continue  # deleted meanwhile
                document = manifest.json()
                for part in (document["config"], *document["layers"]):
                    await self.look_at(name, tag, part["digest"], manifest.headers["Docker-Content-Digest"])

    async def look_at(self, name: str, tag: str, digest: str, named_by: str) -> None:
        found = await self.http.get(f"/v2/{name}/blobs/{digest}")
        self.counts["blobs pulled"] += 1
        if found.status_code == 200 and digest_of(found.content) == digest:
            return
        still = await self.http.head(f"/v2/{name}/manifests/{tag}")
        if still.status_code == 200 and still.headers["Docker-Content-Digest"] == named_by:
            self.lost.append(f"{name}:{tag} lacks {digest}: {found.status_code}")

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(self.options.clients):
                group.create_task(self.client())
            group.create_task(self.collector())
            group.create_task(self.looker())
        await self.look()


@contextmanager
def storage(options: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """More settings than those of write_config, for the store that is asked for."""
    if not options.s3:
        (folder / "data").mkdir()
        yield {}
        return
    with seaweedfs_server(folder) as server:
        yield {"storage": BucketLab.new(folder, server).storage()}


async def main(options: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory() as name, storage(options, folder := Path(name)) as settings:
        port = free_port()
        config = write_config(folder, folder / "data", port, garbage={"grace": options.grace}, **settings)
        with started(options.registry, config, port, folder / "log"):
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as http:
                load = Load(http, config, options)
                await load.run()
    print(*(f"{what}: {count}" for what, count in sorted(load.counts.items())), sep="\n")
    print(f"lost: {len(load.lost)}", *load.lost[:20], sep="\n")
    return 1 if load.lost else 0


def program(name: str) -> Program:
    return next(each for each in (OURS, *PEERS) if each.name == name)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--s3", action="store_true")
    parser.add_argument("--registry", type=program, default=OURS, help="moorage, distribution-3, distribution-2.8")
    parser.add_argument("--grace", default="20s")
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    sys.exit(asyncio.run(main(parser.parse_args())))
