"""Several replicas of a cache, as processes on one bucket, some of which are killed: one fetch, right bytes for all.

`make test` plays 10 random schedules with kills, MOORAGE_FLEETS=300 plays 300.
"""

import asyncio
import json
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import pytest

from registry.proxy.lease import Terms
from storage import layout
from storage.digest import Digest
from tests.api import Api
from tests.interop.peers import ROOT, environment
from tests.registry.proxy.scripted import Act, Exchange, Scripted
from tests.s3.caching import NAME, Bucket, gets, have, pull, settled, slow
from tests.s3.replicas import Replica

pytestmark = pytest.mark.slow

SCHEDULES = int(os.environ.get("MOORAGE_FLEETS", "10"))
AT_ONCE = 5
TERMS = Terms(ttl=1.0, patience=10.0)
"""Of the leases in random schedules."""


def paced(pieces: int, pause: float) -> Act:
    """A slow upstream: the body comes in pieces."""

    async def act(exchange: Exchange) -> None:
        data = exchange.hub.blobs[NAME, exchange.seen.path.rpartition("/")[2]]
        await exchange.head(200, [("Content-Length", str(len(data)))])
        step = -(-len(data) // pieces)
        for at in range(0, len(data), step):
            await exchange.send(data[at : at + step])
            await asyncio.sleep(pause)

    return act


class Stall:
    """A third of the body, and no more. begun: when that has been sent."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()

    async def __call__(self, exchange: Exchange) -> None:
        data = exchange.hub.blobs[NAME, exchange.seen.path.rpartition("/")[2]]
        await exchange.head(200, [("Content-Length", str(len(data)))])
        await exchange.send(data[: len(data) // 3])
        self.begun.set()
        await exchange.hub.release.wait()


def holder(bucket: Bucket, digest: Digest) -> int | None:
    """The process that fetches, as its lease says."""
    client = bucket.server.client()
    with suppress(client.exceptions.NoSuchKey):
        body = bucket.server.content(bucket.bucket, f"{bucket.root}/{layout.blob_lease(digest)}")
        return int(body.split()[1])
    return None


# Whole registries


@pytest.fixture
async def fleet(bucket: Bucket, hub: Scripted, tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """Four replicas on the bucket."""
    async with AsyncExitStack() as stack:

        async def start(followers: str) -> list[Replica]:
            storage = {"s3": bucket.parameters, "redirect": {"disable": True}}
            more = {
                "upstreams": [{"url": hub.url, "name": "hub", "default": True}],
                "cache": {"followers": followers},
            }
            made = [Replica(tmp_path, storage, more=more) for _ in range(4)]
            for each in made:
                await asyncio.to_thread(each.start)
                stack.push_async_callback(asyncio.to_thread, each.stop)
            return made

        yield start


def client_of(replica: Replica) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None)
    return httpx.AsyncClient(base_url=str(replica.http.base_url), trust_env=False, timeout=60.0, limits=limits)


@asynccontextmanager
async def clients_of(replicas: list[Replica]) -> AsyncIterator[list[httpx.AsyncClient]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(client_of(each)) for each in replicas]


@pytest.mark.parametrize("followers", ["wait", "upstream"])
async def test_four_replicas_ask_once(hub: Scripted, bucket: Bucket, fleet: Callable[..., Any], followers: str) -> None:
    """16 clients at once. With `wait`, every manifest and blob is one GET for the fleet."""
    have(hub)
    hub.on("GET", f"/v2/{NAME}/", slow)
    async with clients_of(await fleet(followers)) as clients:
        await asyncio.gather(*(pull(Api(client)) for client in clients for _ in range(4)))
    counted = gets(hub)
    assert len(counted) == 6
    assert set(counted.values()) == {1} if followers == "wait" else set(counted.values()) <= {1, 2, 3, 4}
    await settled(bucket)
    print(f"followers: {followers}: {sum(counted.values())} GETs for 6 contents, 4 replicas, 16 clients")


async def test_a_leader_that_is_killed_is_replaced(hub: Scripted, bucket: Bucket, fleet: Callable[..., Any]) -> None:
    """SIGKILL in the middle of the body: the others wait for its lease to end, and one of them fetches."""
    data = random.Random(1).randbytes(6 << 20)
    digest = hub.blob(NAME, data)
    path = f"/v2/{NAME}/blobs/{digest}"
    replicas = await fleet("wait")
    stall = Stall()
    hub.on("GET", path, stall, times=1)
    async with clients_of(replicas) as clients:
        asking = {n: [asyncio.create_task(clients[n].get(path)) for _ in range(5)] for n in range(4)}
        await stall.begun.wait()
        pid = holder(bucket, digest)
        [leader] = [n for n in range(4) if replicas[n].pid == pid]
        replicas[leader].kill()
        began = time.monotonic()
        cut = await asyncio.gather(*asking.pop(leader), return_exceptions=True)
        assert all(isinstance(each, httpx.TransportError) for each in cut)
        for each in await asyncio.gather(*(task for tasks in asking.values() for task in tasks)):
            assert (each.status_code, each.content == data) == (200, True), each.text[:300]
        took = time.monotonic() - began
    assert hub.count("GET", path) == 2
    assert took < 30.0, "containerd gives up then"
    await settled(bucket)
    assert bucket.server.content(bucket.bucket, f"{bucket.root}/{layout.blob_data(digest)}") == data
    print(f"taken over and delivered {took:.1f} s after the leader was killed")
    replicas[leader].restart()
    asked = len(hub.requests)
    assert (await asyncio.to_thread(replicas[leader].http.get, path)).content == data
    assert len(hub.requests) == asked


async def test_what_a_killed_replica_has_begun_is_not_seen(
    hub: Scripted, bucket: Bucket, fleet: Callable[..., Any]
) -> None:
    data = random.Random(2).randbytes(6 << 20)
    digest = hub.blob(NAME, data)
    path = f"/v2/{NAME}/blobs/{digest}"
    [replica, *others] = await fleet("upstream")
    stall = Stall()
    hub.on("GET", path, stall, times=1)
    async with clients_of([replica]) as [client]:
        asking = asyncio.create_task(client.get(path))
        await stall.begun.wait()
        replica.kill()
        with pytest.raises(httpx.TransportError):
            await asking
    left = bucket.keys()
    assert [key for key in left if "/_moorage/" not in key] == []
    found = await asyncio.to_thread(others[0].http.get, path)
    assert found.content == data


# Random schedules


class Nursery:
    """Gives birth to replicas (cache_fleet.py), and tells what they say."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._said: dict[str, asyncio.Queue[dict[str, Any]]] = {}
        self.pids: set[int] = set()

    async def begin(self, id: str, job: dict[str, Any]) -> int:
        """Its pid."""
        assert self._process.stdin is not None
        self._said[id] = asyncio.Queue()
        self._process.stdin.write(json.dumps({"id": id, **job}).encode() + b"\n")
        pid: int = (await self._said[id].get())["pid"]
        self.pids.add(pid)
        return pid

    async def end(self, id: str) -> list[str]:
        """What its clients have read."""
        found: list[str] = (await self._said[id].get())["sha"]
        return found

    async def listen(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            said = json.loads(line)
            self._said[said["id"]].put_nowait(said)


@pytest.fixture
async def nursery() -> AsyncIterator[Nursery]:
    process = await asyncio.create_subprocess_exec(
        *("setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "tests.s3.cache_fleet"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env=environment(),
    )
    made = Nursery(process)
    listening = asyncio.create_task(made.listen())
    yield made
    for pid in made.pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.kill()
    await process.wait()
    await listening


async def schedule(seed: int, nursery: Nursery, bucket: Bucket, hub: Scripted) -> tuple[int, int]:
    """One blob, four replicas, and what befalls them. How many were killed or stopped, and the GETs of the upstream."""
    draw = random.Random(seed)
    data = draw.randbytes(draw.choice([70_000, 700_000, 6 << 20]))
    digest = hub.blob(NAME, data)
    path = f"/v2/{NAME}/blobs/{digest}"
    hub.on("GET", path, paced(10, draw.uniform(0.0, 0.1)))
    job = {"parameters": bucket.parameters, "hub": hub.url, "name": NAME, "digest": str(digest), **asdict(TERMS)}
    job["readers"] = 3
    pids = {}
    for number in range(4):
        pids[f"{seed}-{number}"] = await nursery.begin(f"{seed}-{number}", job)
        await asyncio.sleep(draw.choice([0.0, 0.05, 0.3]))
    dead: set[int] = set()
    harm = 0
    for _ in range(draw.randrange(4)):
        await asyncio.sleep(draw.uniform(0.0, 0.8))
        leader = await asyncio.to_thread(holder, bucket, digest) or 0
        living = [pid for pid in pids.values() if pid not in dead]
        victim = leader if leader in living and draw.random() < 0.8 else draw.choice(list(pids.values()))
        if victim in dead:
            continue
        with suppress(ProcessLookupError):  # it has ended
            if draw.random() < 0.6:
                os.kill(victim, signal.SIGKILL)
                dead.add(victim)
            else:
                os.kill(victim, signal.SIGSTOP)
                await asyncio.sleep(draw.uniform(0.1, 1.5))
                os.kill(victim, signal.SIGCONT)
            harm += 1
    wanted = [digest.hex] * 3
    for id, pid in pids.items():
        if pid not in dead:
            assert await nursery.end(id) == wanted, f"seed {seed}"
    if len(dead) < 4:
        key = f"{bucket.root}/{layout.blob_data(digest)}"
        assert await asyncio.to_thread(bucket.server.content, bucket.bucket, key) == data, f"seed {seed}"
        if dead.isdisjoint({holder(bucket, digest)}):
            assert holder(bucket, digest) is None, f"seed {seed}"
    asked = hub.count("GET", path)
    await nursery.begin(f"{seed}-last", job)
    assert await nursery.end(f"{seed}-last") == wanted, f"seed {seed}"
    if len(dead) < 4:
        assert hub.count("GET", path) == asked, f"seed {seed}: it is cached"
    return harm, asked


async def test_random_schedules(nursery: Nursery, bucket: Bucket, hub: Scripted) -> None:
    """Who lives reads right bytes, and they are kept."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def play(seed: int) -> tuple[int, int]:
        async with slots, asyncio.timeout(60):
            return await schedule(seed, nursery, bucket, hub)

    played = await asyncio.gather(*(play(seed) for seed in range(SCHEDULES)))
    harms, fetches = sum(harm for harm, _ in played), sum(asked for _, asked in played)
    assert fetches <= 2 * (SCHEDULES + harms), "a beat may be late on a loaded machine, but not so often"
    print(f"{SCHEDULES} schedules, 4 replicas each: {harms} killed or stopped, {fetches} fetches")
