"""A cold pull through the server, on a socket: what has come is sent at once, a wrong end never."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from registry.app import create_app
from registry.config import Config
from registry.config.model import StorageConfig
from registry.config.upstreams import UpstreamConfig
from registry.serving.server import running
from storage.digest import Digest

from . import scripted as act
from .scripted import Exchange, Scripted

DATA = bytes(range(256)) * 8192  # 2 MiB
DIGEST = Digest.of(DATA)
PATH = f"/v2/a/b/blobs/{DIGEST}"
HALF = 1 << 20

pytestmark = pytest.mark.slow


@pytest.fixture(params=["inmemory", "filesystem"])
def config(request: pytest.FixtureRequest, tmp_path: Path, hub: Scripted) -> Config:
    """On a filesystem the growing file is sent by the kernel."""
    parameters = {"rootdirectory": str(tmp_path / "data")} if request.param == "filesystem" else {}
    upstream = UpstreamConfig(url=hub.url, name="hub", default=True)
    return Config(storage=StorageConfig(driver=request.param, parameters=parameters), upstreams=(upstream,))


@pytest.fixture
async def client(config: Config) -> AsyncIterator[httpx.AsyncClient]:
    with running(create_app(config), config) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=30, trust_env=False) as made:
            yield made


class Halves:
    """The first half, and the rest when the test says so."""

    def __init__(self, rest: bytes = DATA[HALF:]) -> None:
        self.rest = rest
        self.go = asyncio.Event()

    async def __call__(self, exchange: Exchange) -> None:
        await exchange.head(200, [("Content-Length", str(len(DATA)))])
        await exchange.send(DATA[:HALF])
        await self.go.wait()
        await exchange.send(self.rest)


async def take(response: httpx.Response, size: int) -> bytes:
    got = b""
    async for chunk in response.aiter_raw(64 << 10):
        got += chunk
        if len(got) >= size:
            break
    return got


async def test_what_has_come_is_sent(hub: Scripted, client: httpx.AsyncClient) -> None:
    halves = Halves()
    hub.on("GET", "/v2/", halves)
    async with client.stream("GET", PATH) as response:
        assert response.headers["Content-Length"] == str(len(DATA))
        got = bytearray()
        async for chunk in response.aiter_raw(64 << 10):
            got += chunk
            if len(got) == HALF:
                halves.go.set()
        assert bytes(got) == DATA
    assert (await client.get(PATH)).content == DATA
    assert hub.count("GET", "/v2/") == 1


async def test_a_wrong_blob_is_cut(hub: Scripted, client: httpx.AsyncClient) -> None:
    hub.on("GET", "/v2/", act.body(DATA[:-1] + b"?"))
    with pytest.raises(httpx.RemoteProtocolError):
        await client.get(PATH)


async def test_many_clients_of_whom_some_leave(hub: Scripted, client: httpx.AsyncClient) -> None:
    halves = Halves()
    hub.on("GET", "/v2/", halves)

    async def leave() -> None:
        async with client.stream("GET", PATH) as response:
            await take(response, 100_000)

    staying = [asyncio.create_task(client.get(PATH)) for _ in range(20)]
    await asyncio.gather(*(leave() for _ in range(5)))
    halves.go.set()
    for answer in await asyncio.gather(*staying):
        assert (answer.status_code, answer.content) == (200, DATA)
    assert hub.count("GET", "/v2/") == 1


async def test_several_ranges_while_it_is_fetched(hub: Scripted, client: httpx.AsyncClient) -> None:
    halves = Halves()
    hub.on("GET", "/v2/", halves)
    async with client.stream("GET", PATH) as response:
        await take(response, 100)
        several = await client.get(PATH, headers={"Range": "bytes=0-99999,200000-299999"})
        assert several.status_code == 206
        assert DATA[:100_000] in several.content
        assert DATA[200_000:300_000] in several.content
        halves.go.set()
