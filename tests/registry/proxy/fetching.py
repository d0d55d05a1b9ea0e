"""What tests of fetches share: a blob of 3 MB in a/b, readers, and looks at what a store keeps."""

import asyncio
import os
from collections.abc import Awaitable, Callable

from registry.proxy.claim import fetch_id
from registry.proxy.fetches import Fetches
from storage import layout
from storage.digest import Digest
from storage.driver import ObjectReader, StorageDriver
from storage.errors import BlobUnknown, ObjectNotFound, UpstreamDenied, UpstreamUnavailable
from storage.names import RepositoryName

from . import scripted as act
from .scripted import Exchange

AB = RepositoryName("a/b")
CD = RepositoryName("c/d")
DATA = os.urandom(3_000_000)
DIGEST = Digest.of(DATA)
BLOBS = "/v2/a/b/blobs/"

REFUSED = [
    (act.error(404, "BLOB_UNKNOWN"), BlobUnknown),
    (act.error(403, "DENIED"), UpstreamDenied),
    (act.error(429, "TOOMANYREQUESTS"), UpstreamUnavailable),
    (act.html(200), UpstreamUnavailable),
]
"""What an upstream says, and what a client's fetch raises then."""


async def no_sleep(seconds: float) -> None:
    await asyncio.sleep(0)


async def read(reader: ObjectReader | None) -> bytes:
    assert reader is not None
    async with reader:
        return b"".join([chunk async for chunk in reader.chunks()])


async def follow(reader: ObjectReader, into: bytearray) -> None:
    async with reader:
        async for chunk in reader.chunks():
            into.extend(chunk)


async def opened(opening: Awaitable[ObjectReader | None]) -> ObjectReader:
    reader = await opening
    assert reader is not None
    return reader


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - of what has no event
            await asyncio.sleep(0)


async def settled(fetches: Fetches) -> None:
    """All fetches have ended."""
    await until(lambda: not len(fetches))


async def is_kept(
    driver: StorageDriver, digest: Digest = DIGEST, data: bytes = DATA, name: RepositoryName = AB
) -> bool:
    try:
        assert await driver.read(layout.blob_data(digest)) == data
        assert await driver.read(layout.layer_link(name, digest)) == str(digest).encode()
    except ObjectNotFound:
        return False
    return True


class Halves:
    """Sends the first half, and the second when the test says so."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data, self.at = data, at
        self.go = asyncio.Event()

    async def __call__(self, exchange: Exchange) -> None:
        await exchange.head(200, [("Content-Length", str(len(self.data)))])
        await exchange.send(self.data[: self.at])
        await self.go.wait()
        await exchange.send(self.data[self.at :])


async def uploads(driver: StorageDriver) -> list[str]:
    """Keys of what is on its way, or was left there."""
    return [info.key async for info in driver.list_objects(layout.REPOSITORIES) if layout.UPLOADS_FOLDER in info.key]


async def remains(driver: StorageDriver, digest: Digest = DIGEST, name: RepositoryName = AB) -> bytes:
    """What an earlier fetch has left; b"" for nothing."""
    try:
        return await driver.read(layout.upload_data(name, fetch_id(digest)))
    except ObjectNotFound:
        return b""


async def drop_remains(driver: StorageDriver, digest: Digest = DIGEST, name: RepositoryName = AB) -> None:
    await driver.delete_tree(layout.upload(name, fetch_id(digest)))
