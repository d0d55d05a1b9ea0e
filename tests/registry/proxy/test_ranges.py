"""Ranges of what is not cached, through the server on a socket: what clients send, and what the upstream sees."""

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from registry.app import create_app
from registry.config import Config
from registry.config.model import CacheConfig, CacheRangesConfig, StorageConfig
from registry.config.upstreams import UpstreamConfig
from registry.proxy.pieces import PIECE
from registry.serving.server import running
from storage.digest import Digest

from . import scripted as act
from .scripted import Scripted

SIZE = 24 * PIECE + 777
DATA = random.Random(2).randbytes(SIZE)
DIGEST = Digest.of(DATA)
PATH = f"/v2/a/b/blobs/{DIGEST}"

pytestmark = pytest.mark.slow


@pytest.fixture(params=["inmemory", "filesystem"])
def config(request: pytest.FixtureRequest, tmp_path: Path, hub: Scripted) -> Config:
    hub.blob("a/b", DATA)
    parameters = {"rootdirectory": str(tmp_path / "data")} if request.param == "filesystem" else {}
    upstream = UpstreamConfig(url=hub.url, name="hub", default=True)
    return Config(storage=StorageConfig(driver=request.param, parameters=parameters), upstreams=(upstream,))


@pytest.fixture
async def client(config: Config) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=None)
    with running(create_app(config), config) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=60, trust_env=False, limits=limits) as made:
            yield made


async def part(client: httpx.AsyncClient, wanted: str, path: str = PATH) -> httpx.Response:
    return await client.get(path, headers={"Range": f"bytes={wanted}"})


async def first(client: httpx.AsyncClient, start: int, size: int) -> bytes:
    """Asks for all from there on, and leaves after `size` bytes."""
    got = b""
    async with client.stream("GET", PATH, headers={"Range": f"bytes={start}-"}) as response:
        assert response.status_code == 206
        async for chunk in response.aiter_raw(256 << 10):
            got += chunk
            if len(got) >= size:
                break
    return got[:size]


def cost(hub: Scripted) -> int:
    """Bytes that the upstream was asked for."""
    total = 0
    for seen in hub.requests:
        if seen.method == "GET" and "/blobs/" in seen.target:
            start, _, stop = seen.headers.get("range", "bytes=0-").removeprefix("bytes=").partition("-")
            total += (min(int(stop) + 1, SIZE) if stop else SIZE) - int(start)
    return total


async def test_a_few_bytes(hub: Scripted, client: httpx.AsyncClient) -> None:
    for wanted, found in (("0-99", DATA[:100]), ("0-1", DATA[:2]), ("-10", DATA[-10:]), (f"{SIZE - 3}-", DATA[-3:])):
        answer = await part(client, wanted)
        assert (answer.status_code, answer.content) == (206, found)
        assert answer.headers["Content-Range"].endswith(f"/{SIZE}")
        assert answer.headers["Docker-Content-Digest"] == str(DIGEST)
        assert answer.headers["Accept-Ranges"] == "bytes"
    assert cost(hub) == PIECE + 777
    assert (await client.head(PATH)).headers["Content-Length"] == str(SIZE)
    assert hub.count("HEAD", "/v2/") == 0  # the pieces say how large it is


async def test_behind_the_end(hub: Scripted, client: httpx.AsyncClient) -> None:
    for wanted in (f"{SIZE}-", f"{SIZE}-{SIZE + 5}"):
        answer = await part(client, wanted)
        assert answer.status_code == 416
        assert answer.headers["Content-Range"] == f"bytes */{SIZE}"
        assert answer.json()["errors"][0]["code"] == "SIZE_INVALID"
    assert (await part(client, "500-0")).status_code in (200, 416)


async def test_several_ranges(hub: Scripted, client: httpx.AsyncClient) -> None:
    """Lazy pullers ask so; overlapping ones are refused as elsewhere."""
    far = 10 * PIECE
    answer = await part(client, f"0-9,{far}-{far + 99_999}")
    assert answer.status_code == 206
    assert answer.headers["Content-Type"].startswith("multipart/byteranges")
    assert DATA[:10] in answer.content
    assert DATA[far : far + 100_000] in answer.content
    assert cost(hub) == 2 * PIECE
    assert (await part(client, "0-9,5-20")).status_code == 400


async def test_errors_of_the_upstream(hub: Scripted, client: httpx.AsyncClient) -> None:
    nowhere = f"/v2/a/b/blobs/{Digest.of(b'nowhere')}"
    assert (await part(client, "0-1", nowhere)).status_code == 404
    hub.on("GET", "/v2/", act.error(429, "TOOMANYREQUESTS", Retry_After="7"))
    answer = await part(client, "0-1")
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "7")


async def test_the_upstream_breaks_off_for_good(hub: Scripted, client: httpx.AsyncClient) -> None:
    """In the middle of an answer it is cut; it is never short and complete."""
    assert (await part(client, "0-9")).content == DATA[:10]
    hub.on("GET", "/v2/", act.reset())
    with pytest.raises(httpx.RemoteProtocolError):
        await part(client, f"0-{3 * PIECE}")


@pytest.mark.parametrize("fillafter", [25, 100])
async def test_64_clients_with_random_ranges(hub: Scripted, config: Config, fillafter: int) -> None:
    config = replace(config, cache=CacheConfig(ranges=CacheRangesConfig(fillafter=fillafter)))

    async def one(number: int, client: httpx.AsyncClient) -> None:
        draw = random.Random(number)
        for _ in range(3):
            start = draw.randrange(SIZE)
            stop = min(start + draw.choice((1, 70_000, PIECE, 2 * PIECE)), SIZE)
            answer = await part(client, f"{start}-{stop - 1}")
            assert answer.status_code == 206
            assert answer.content == DATA[start:stop]

    limits = httpx.Limits(max_connections=None)
    with running(create_app(config), config) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=60, trust_env=False, limits=limits) as client:
            await asyncio.gather(*(one(number, client) for number in range(64)))
            assert cost(hub) <= 1.5 * SIZE
            assert (await client.get(PATH)).content == DATA


async def test_as_containerd_pulls_in_parallel(hub: Scripted, client: httpx.AsyncClient) -> None:
    """What of containerd 2.2 sends with a buffer for concurrent fetches: `bytes=0-`, and beside it `bytes=N-`
    for each further chunk, of three at a time; each is left after its chunk."""
    chunk, turns = 4 * PIECE, asyncio.Semaphore(3)

    async def one(start: int) -> bytes:
        async with turns:
            return await first(client, start, min(chunk, SIZE - start))

    parts = await asyncio.gather(*(one(start) for start in range(0, SIZE, chunk)))
    assert b"".join(parts) == DATA
    assert (await client.get(PATH)).content == DATA
    assert hub.count("GET", "/v2/") < 20


async def test_as_a_lazy_puller_reads(hub: Scripted, client: httpx.AsyncClient) -> None:
    """soci-snapshotter: two bytes first, then spans of some MiB that share a byte, here and there."""
    assert (await part(client, "0-1")).content == DATA[:2]
    spans = [(start, start + 1_300_000) for start in range(10, 4_000_000, 1_299_999)]
    for start, stop in spans:
        assert (await part(client, f"{start}-{stop - 1}")).content == DATA[start:stop]
    assert cost(hub) <= 6 * PIECE
