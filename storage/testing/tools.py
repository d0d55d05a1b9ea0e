"""What the contract's tests share: awkward keys, chunks that wait or must not be asked for, fixtures."""

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

import pytest

from storage.driver import CHUNK, ObjectInfo, ObjectReader, Stage, StorageDriver

BAD_KEYS = [
    "",
    "/",
    "/a",
    "a/",
    "a//b",
    ".",
    "..",
    "a/..",
    "../a",
    "a/../b",
    "a/./b",
    "a b",
    "a\nb",
    "a\n",
    "a\0",
    "é",
    "a\\b",
]
"""What no layout makes: every verb refuses them, lest `..` ever leads out of the store."""

ODD_KEYS = ["a", "0", "_", "-", "...", ".a", "a.", "A/b", "a/B", "_x/-y/.z", "a" * 128, "/".join("abcdefghij" * 2)]

NEIGHBOURS = [
    "a-b/x",
    "a.b",
    "a.b-c/x",
    "a/-",
    "a/.x",
    "a/A",
    "a/a",
    "a/b-/x",
    "a/b.c",
    "a/b/c",
    "a/b0",
    "a0",
    "a_/x",
    "b",
]
"""In the order of keys: '-' and '.' sort before '/', digits and letters behind it. One filesystem can hold them all."""

TURNS = 40
"""Turns of the event loop for which verbs are left alone before they are cancelled; more than any of ours takes."""


def pattern(size: int, seed: str = "") -> bytes:
    """Bytes that differ everywhere, so that nothing can be swapped or repeated unseen."""
    return hashlib.shake_128(seed.encode()).digest(size)


async def pieces(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def never() -> AsyncIterator[bytes]:
    """Chunks that must not be asked for."""
    pytest.fail("a chunk was read")
    yield b""  # makes this an iterator


async def soon(event: asyncio.Event) -> None:
    """Waits for what must happen; a driver that never lets it happen fails, where it would hang the test."""
    async with asyncio.timeout(30):
        await event.wait()


async def keys(listing: AsyncIterator[ObjectInfo]) -> list[str]:
    return [info.key async for info in listing]


async def content(reader: ObjectReader) -> bytes:
    async with reader:
        return b"".join([chunk async for chunk in reader.chunks()])


class Tapped:
    """A tap that remembers. arrived: set when something has been stored."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.threads: set[int] = set()
        self.arrived = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def __call__(self, piece: bytes | memoryview) -> None:
        self.data += piece
        self.threads.add(threading.get_ident())
        self._loop.call_soon_threadsafe(self.arrived.set)


class Valve:
    """Chunks that flow until `gate`, and on when it is opened. waiting: set while the caller waits there."""

    def __init__(self, before: Sequence[bytes], after: Sequence[bytes] = ()) -> None:
        self.gate = asyncio.Event()
        self.waiting = asyncio.Event()
        self._before = before
        self._after = after

    async def chunks(self) -> AsyncIterator[bytes]:
        for chunk in self._before:
            yield chunk
        self.waiting.set()
        await self.gate.wait()
        for chunk in self._after:
            yield chunk


class DriverFixtures:
    """What the parts of the contract share, and what a driver's tests provide or override."""

    batch = CHUNK
    """Bytes of which `append` keeps back less than one such batch; overridden by drivers that gather more."""

    @pytest.fixture
    async def other(self, driver: StorageDriver) -> StorageDriver:
        """A second driver on the same store, as another process would have it; overridden where there can be one."""
        return driver

    @pytest.fixture(autouse=True)
    async def _nothing_is_left(self, driver: StorageDriver) -> AsyncIterator[None]:
        yield
        assert await self.leftovers(driver) == []

    async def leftovers(self, driver: StorageDriver) -> list[str]:
        """What a test must not leave behind: open readers, temporary files. Overridden where they can be seen."""
        return []

    async def raw_read(self, driver: StorageDriver, key: str) -> bytes | None:
        """What the store holds under a key, read without the driver; None: nothing."""
        raise NotImplementedError

    async def raw_write(self, driver: StorageDriver, key: str, data: bytes) -> None:
        """Put something into the store without the driver."""
        raise NotImplementedError

    async def staged(self, driver: StorageDriver, key: str, data: bytes) -> Stage:
        stage = await driver.begin(key)
        assert await driver.append(stage, 0, pieces(data)) == len(data)
        return stage

    async def cancelled(self, verb: Callable[[], Awaitable[Any]], turns: int) -> None:
        """Start a verb and cancel it after some turns of the event loop."""
        task = asyncio.ensure_future(verb())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            reader = await task  # it may have been done
            if isinstance(reader, ObjectReader):
                await reader.aclose()
