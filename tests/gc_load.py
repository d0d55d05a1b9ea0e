"""Pushes, deletes and collections side by side against a registry that runs, for as long as asked; counts what is lost.

    python -m tests.gc_load --minutes 30 [--grace 20s] [--clients 6] [--seed 1]

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
from pathlib import Path

import httpx

from tests.api import digest_of, image, with_query
from tests.interop.peers import OURS, free_port, started, write_config

MANIFEST = {"Content-Type": "application/vnd.oci.image.manifest.v1+json"}


class Load:
    def __init__(self, http: httpx.AsyncClient, config: Path, options: argparse.Namespace) -> None:
        self.http, self.config, self.options = http, config, options
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
        raise AssertionError("five times told that something is missing")

    async def upload(self, name: str, data: bytes) -> None:
        location = (await self.http.post(f"/v2/{name}/blobs/uploads/")).headers["Location"]
        answer = await self.http.put(with_query(location, digest=digest_of(data)), content=data)
        assert answer.status_code == 201, answer.text
        self.counts["uploads"] += 1

    async def delete(self, name: str, tag: str) -> None:
        answer = await self.http.delete(f"/v2/{name}/manifests/{tag}")
        self.counts["deletes"] += answer.status_code == 202

    async def collector(self) -> None:
        assert OURS.path is not None
        while self.going:
            process = await asyncio.create_subprocess_exec(
                *(OURS.path, "garbage-collect", "-m", "--grace", self.options.grace, str(self.config)),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            out, err = await process.communicate()
            assert process.returncode == 0, err.decode()[-2000:]
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


async def main(options: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        config = write_config(Path(folder), Path(folder) / "data", port, garbage={"grace": options.grace})
        (Path(folder) / "data").mkdir()
        with started(OURS, config, port, Path(folder) / "log"):
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as http:
                load = Load(http, config, options)
                await load.run()
    print(*(f"{what}: {count}" for what, count in sorted(load.counts.items())), sep="\n")
    print(f"lost: {len(load.lost)}", *load.lost[:20], sep="\n")
    return 1 if load.lost else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--grace", default="20s")
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    sys.exit(asyncio.run(main(parser.parse_args())))
