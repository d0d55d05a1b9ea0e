"""Pulls through a cache that is far too small, beside evictions that never pause and are killed; counts what fails.

    python -m tests.eviction_load --seconds 60 [--grace 4s] [--clients 8] [--seed 1]

CNCF distribution is the upstream. Images share layers, some are indexes. Processes of their own evict again and again
(as other replicas would, only without pause), one of them is killed at random moments and begun anew. Beside that,
images are pushed to a hosted repository of the same store, with the same layers. A pull that fails, a byte that is not
the upstream's, a pushed blob that is gone, or a cached image that lacks a blob in the end, is a loss: ends with 1.
"""

import argparse
import asyncio
import json
import random
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from registry.config import load
from registry.stores import open_driver
from storage.garbage.eviction import Eviction
from tests.api import INDEX, Api, digest_of, index
from tests.interop.content import ACCEPT, Content
from tests.interop.peers import OURS, V3, started, write_config
from tests.ports import free_port

LAYER = 256 << 10
IMAGES = 24
ROOM = 8 * LAYER
"""Of the 60 layers that there are."""


async def evict(config: Path) -> None:
    """For ever. A line for each run that has removed something."""
    loaded = load(config, {}).config
    driver, grace = open_driver(loaded), loaded.cache.grace
    assert grace is not None
    while True:
        run = Eviction(driver, lambda name: name.startswith("peer/"), grace)
        size = await run.look()
        done = await run.run(room=ROOM, age=60.0)
        if done.manifests or done.collected.swept:
            counts = {"manifests": done.manifests, "blobs": done.collected.swept, "from": size, "to": done.size}
            sys.stdout.write(json.dumps(counts) + "\n")
            sys.stdout.flush()


@dataclass
class Load:
    cache: httpx.AsyncClient
    upstream: httpx.Client
    config: Path
    seed: int = 1
    content: Content = field(default_factory=Content)
    counts: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        self.layers = [self.dice.randbytes(LAYER) for _ in range(60)]

    def fill(self) -> None:
        """The upstream."""
        for number in range(IMAGES):
            layers = self.dice.sample(self.layers, 3)
            made = self.content.image(self.upstream, "app", *layers, tag=f"t{number}", config=b'{"n": %d}' % number)
            if number % 4 == 0:
                self.content.manifest(self.upstream, "app", index(made), INDEX, tag=f"all{number}")

    # Pulling

    async def client(self, number: int) -> None:
        dice = random.Random(f"{self.seed} {number}")
        tags = sorted(self.content.of("app").tags)
        while not self.over.is_set():
            tag = tags[min(int(dice.expovariate(0.25)), len(tags) - 1)] if dice.random() < 0.7 else dice.choice(tags)
            by_digest = dice.random() < 0.3
            await self.pull("peer/app", self.content.of("app").tags[tag] if by_digest else tag, dice)
            self.counts["images pulled"] += 1

    async def pull(self, name: str, reference: str, dice: random.Random) -> None:
        answer = await self.get(f"/v2/{name}/manifests/{reference}")
        if answer is None:
            return
        document = answer.json()
        for child in document.get("manifests", ()):
            await self.pull(name, child["digest"], dice)
        for part in (*filter(None, [document.get("config")]), *document.get("layers", ())):
            await asyncio.sleep(dice.random() * 0.05)  # a client that unpacks
            found = await self.get(f"/v2/{name}/blobs/{part['digest']}")
            if found is not None and digest_of(found.content) != part["digest"]:
                self.lost.append(f"{name} {part['digest']}: other bytes")

    async def get(self, path: str) -> httpx.Response | None:
        self.counts["requests"] += 1
        try:
            answer = await self.cache.get(path, headers=ACCEPT)
        except httpx.HTTPError as exc:
            self.lost.append(f"{path}: {exc!r}")
            return None
        if answer.status_code != 200:
            self.lost.append(f"{path}: {answer.status_code} {answer.text[:200]}")
            return None
        return answer

    # Pushing

    async def pusher(self) -> None:
        api, number = Api(self.cache), 0
        while not self.over.is_set():
            layers = tuple(self.dice.sample(self.layers[:10], 2))
            await api.push_image("team/app", f"h{number % 6}", layers, annotations={"n": str(number)})
            self.counts["images pushed"] += 1
            number += 1
            await asyncio.sleep(0.3)

    # Evicting

    async def evictor(self, *, killed: bool) -> None:
        while not self.over.is_set():
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.eviction_load", "--evict", str(self.config)),
                stdout=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
            reader = asyncio.create_task(self.read(process))
            try:
                over = asyncio.create_task(self.over.wait())
                life = 1.0 + self.dice.random() * 2 if killed else None
                await asyncio.wait({reader, over}, timeout=life, return_when=asyncio.FIRST_COMPLETED)
                over.cancel()
                assert not reader.done(), "it ended by itself"
                self.counts["evictors killed"] += killed
            finally:
                process.send_signal(signal.SIGKILL)
                await process.wait()
                await reader

    async def read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            told: dict[str, int] = json.loads(line)
            self.counts["evictions"] += 1
            self.counts["manifests evicted"] += told["manifests"]
            self.counts["blobs evicted"] += told["blobs"]

    async def run(self, seconds: float, clients: int) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(clients):
                group.create_task(self.client(number))
            group.create_task(self.pusher())
            group.create_task(self.evictor(killed=False))
            group.create_task(self.evictor(killed=True))
            await asyncio.sleep(seconds)
            self.over.set()

    async def check(self) -> None:
        """With the upstream stopped: what the cache has is whole, and so is what was pushed."""
        for reference in (*self.content.of("app").tags, *self.content.of("app").manifests):
            if (await self.cache.get(f"/v2/peer/app/manifests/{reference}", headers=ACCEPT)).status_code == 200:
                self.counts["images in the cache in the end"] += 1
                await self.pull("peer/app", reference, self.dice)
        tags = (await self.cache.get("/v2/team/app/tags/list")).json()["tags"]
        for tag in tags:
            await self.pull("team/app", tag, self.dice)


def settings(upstream: str, grace: str, **more: Any) -> dict[str, Any]:
    """ttl: long, so that a tag is asked about once it has gone."""
    return {
        "upstreams": [{"url": upstream, "name": "peer", "ttl": "1h"}],
        "cache": {"size": ROOM, "grace": grace},
        **more,
    }


@contextmanager
def upstream_of(folder: Path) -> Iterator[httpx.Client]:
    port = free_port()
    config = write_config(folder / "upstream", folder / "upstream", port)
    with (
        started(V3, config, port, folder / "upstream.log"),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as http,
    ):
        yield http


async def put_under_load(folder: Path, seconds: float, *, clients: int, seed: int, grace: str, **more: Any) -> Load:
    """more: settings of the cache, such as its storage."""
    port = free_port()
    with upstream_of(folder) as upstream:
        url = str(upstream.base_url).rstrip("/")
        config = write_config(folder, folder / "data", port, **settings(url, grace, **more))
        with started(OURS, config, port, folder / "cache.log"):
            base = f"http://127.0.0.1:{port}"
            async with httpx.AsyncClient(base_url=base, timeout=60, trust_env=False, follow_redirects=True) as http:
                load = Load(http, upstream, config, seed)
                load.fill()
                await load.run(seconds, clients)
    with started(OURS, config, port, folder / "cache.log"):
        async with httpx.AsyncClient(base_url=base, timeout=60, trust_env=False, follow_redirects=True) as http:
            load.cache = http
            await load.check()
    return load


def main(options: argparse.Namespace) -> int:
    if options.evict:
        asyncio.run(evict(options.evict))
    with tempfile.TemporaryDirectory() as folder:
        load = asyncio.run(
            put_under_load(
                Path(folder), options.seconds, clients=options.clients, seed=options.seed, grace=options.grace
            )
        )
    print(*(f"{what}: {count}" for what, count in sorted(load.counts.items())), sep="\n")
    print(f"lost: {len(load.lost)}", *load.lost[:20], sep="\n")
    return 1 if load.lost else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--grace", default="4s")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--evict", type=Path, help=argparse.SUPPRESS)
    sys.exit(main(parser.parse_args()))
