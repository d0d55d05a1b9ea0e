"""A store that takes no more: whoever reads gets the blob all the same, verified, and nothing broken is kept."""

import asyncio
import errno
import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from registry.proxy.fetches import PAUSE, Fetches
from registry.proxy.passing import HELD
from storage import layout
from storage.driver import ObjectReader, Stage, StorageDriver, Tap
from storage.drivers.filesystem import FilesystemDriver
from storage.errors import BlobUnknown, RangeNotSatisfiable, StorageFull, Unavailable, UpstreamUnavailable
from storage.ranges import RangeRequest

from . import scripted as act
from .conftest import Ask, Clock
from .fetching import AB, BLOBS, CD, DATA, DIGEST, follow, is_kept, no_sleep, opened, read, settled, until, uploads
from .scripted import Exchange, Scripted

FITS = 1_000_000
"""Bytes."""


class Disk:
    """Takes so many bytes of a fetch, wherever they go."""

    def __init__(self, driver: StorageDriver, monkeypatch: pytest.MonkeyPatch) -> None:
        self.room = FITS
        self._pwrite, self._append = os.pwrite, driver.append
        monkeypatch.setattr(os, "pwrite", self.pwrite)
        monkeypatch.setattr(driver, "append", self.append)

    def pwrite(self, fd: int, data: bytes, offset: int) -> int:
        if offset >= self.room:
            raise OSError(errno.ENOSPC, "no space")
        return self._pwrite(fd, data[: self.room - offset], offset)

    async def append(self, stage: Stage, offset: int, chunks: AsyncIterator[bytes], tap: Tap | None = None) -> int:
        pieces = [chunk async for chunk in chunks]
        if offset + sum(map(len, pieces)) > self.room:
            raise StorageFull

        async def again() -> AsyncIterator[bytes]:
            for piece in pieces:
                yield piece

        return await self._append(stage, offset, again(), tap)


@pytest.fixture
def disk(driver: StorageDriver, monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(driver, monkeypatch)


class Slowly:
    """The whole with Range, in pieces that the disk could take; the first request waits at `at` for the test."""

    def __init__(self, at: int = 200_000) -> None:
        self.at = at
        self.go = asyncio.Event()

    async def __call__(self, exchange: Exchange) -> None:
        if "range" in exchange.seen.headers or self.go.is_set():
            await act.content(exchange, DATA)
            return
        await exchange.head(200, [("Content-Length", str(len(DATA)))])
        await exchange.send(DATA[: self.at])
        await self.go.wait()
        for start in range(self.at, len(DATA), 50_000):
            await exchange.send(DATA[start : start + 50_000])


async def drained(reader: ObjectReader) -> bytes:
    """As a server sends a file that grows."""
    got = bytearray()
    async with reader:
        await follow(reader, got)
    return bytes(got)


@pytest.mark.slow
async def test_those_who_read_get_it_all(
    hub: Scripted, ask: Ask, fetches: Fetches, driver: StorageDriver, disk: Disk, clock: Clock
) -> None:
    """Each goes on where the disk was full, by a Range of its own; the next one has it whole."""
    slowly = Slowly()
    hub.on("GET", BLOBS, slowly)
    source = ask(hub)
    first = bytearray()
    readers = [await opened(fetches.open(source, AB, DIGEST)) for _ in range(3)]
    reading = [
        asyncio.create_task(follow(readers[0], first)),
        *(asyncio.create_task(read(each)) for each in readers[1:]),
    ]
    await until(lambda: len(first) == 200_000)
    slowly.go.set()
    assert [first, *(await asyncio.gather(*reading))[1:]] == [DATA] * 3
    starts = [int(seen.headers["range"][6:-1]) for seen in hub.requests if "range" in seen.headers]
    assert len(starts) == 3
    assert all(200_000 <= start <= FITS for start in starts)
    await settled(fetches)
    assert not await is_kept(driver)
    assert await read(await fetches.open(source, AB, DIGEST)) == DATA
    assert not await is_kept(driver), "not tried again at once"
    disk.room = len(DATA)
    clock.now += PAUSE
    assert await read(await fetches.open(source, AB, DIGEST)) == DATA
    await settled(fetches)
    assert await is_kept(driver)


async def test_parts(hub: Scripted, ask: Ask, fetches: Fetches, disk: Disk) -> None:
    """Begun before the disk was full, and after."""
    hub.blob("a/b", DATA)
    slowly = Slowly()
    hub.on("GET", BLOBS, slowly)
    source = ask(hub)
    wanted = {
        RangeRequest(100, 300): DATA[100:300],
        RangeRequest(500_000, 2_000_000): DATA[500_000:2_000_000],
        RangeRequest(2_000_000, 2_100_000): DATA[2_000_000:2_100_000],
        RangeRequest(10): DATA[10:],
        RangeRequest(10, len(DATA) - 5): DATA[10:-5],
        RangeRequest(suffix=HELD // 2): DATA[-HELD // 2 :],
        RangeRequest(0): DATA,
    }
    for turn in range(2):
        readers = [await opened(fetches.open(source, AB, DIGEST, each)) for each in wanted]
        assert [reader.size for reader in readers] == [len(DATA)] * len(wanted)
        assert [len(reader.span) for reader in readers] == [len(data) for data in wanted.values()]
        slowly.go.set()
        assert await asyncio.gather(*(read(reader) for reader in readers)) == list(wanted.values()), turn
        await settled(fetches)
    with pytest.raises(RangeNotSatisfiable):
        await fetches.open(source, AB, DIGEST, RangeRequest(len(DATA)))


@pytest.mark.parametrize("room", [0, len(DATA) - HELD, len(DATA) - 1])
async def test_full_at_the_first_and_at_the_last_byte(
    hub: Scripted, ask: Ask, fetches: Fetches, disk: Disk, room: int
) -> None:
    disk.room = room
    slowly = Slowly(at=10)
    hub.on("GET", BLOBS, slowly)
    source = ask(hub)
    first, part = (
        await opened(fetches.open(source, AB, DIGEST)),
        await opened(fetches.open(source, AB, DIGEST, RangeRequest(len(DATA) - 10))),
    )
    slowly.go.set()
    assert await read(first) == DATA
    assert await read(part) == DATA[-10:]
    await settled(fetches)


async def test_wrong_bytes_are_no_whole_answer(
    hub: Scripted, ask: Ask, fetches: Fetches, driver: StorageDriver, disk: Disk
) -> None:
    """In what was stored, in what follows, and without a store."""
    wrong = {"start": b"?" + DATA[1:], "end": DATA[:-1] + b"?"}
    for name, data in wrong.items():
        hub.on("GET", BLOBS, act.data(data))
        for _ in range(2):
            reader = await opened(fetches.open(ask(hub), AB, DIGEST))
            got = bytearray()
            with pytest.raises(UpstreamUnavailable):
                await follow(reader, got)
            assert len(got) <= len(DATA) - HELD, name
            await settled(fetches)
    assert not await is_kept(driver)


async def test_it_breaks_off_while_it_is_passed_on(hub: Scripted, ask: Ask, fetches: Fetches, disk: Disk) -> None:
    disk.room = 0
    source = ask(hub)
    hub.on("GET", BLOBS, act.data(DATA))
    hub.on("GET", BLOBS, act.short(len(DATA), DATA[:1_500_000]), times=3)
    assert await read(await fetches.open(source, AB, DIGEST)) == DATA
    await settled(fetches)


@pytest.mark.slow
async def test_a_small_blob(hub: Scripted, ask: Ask, fetches: Fetches, disk: Disk) -> None:
    disk.room = 0
    for data in (b"", b"x", DATA[:HELD], DATA[: HELD + 1]):
        digest = hub.blob("a/b", data)
        for _ in range(2):
            reader = await fetches.open(ask(hub), AB, digest)
            if reader is not None:  # an empty one fits everywhere
                assert await read(reader) == data
            await settled(fetches)


async def test_another_repository_asks_its_own_upstream(
    hub: Scripted, ask: Ask, fetches: Fetches, driver: StorageDriver, disk: Disk
) -> None:
    """P9: what is passed on is allowed as what is cached is."""
    disk.room = 0
    hub.blob("a/b", DATA)
    assert await read(await fetches.open(ask(hub), AB, DIGEST)) == DATA
    await settled(fetches)
    with pytest.raises(BlobUnknown):
        await fetches.open(ask(hub, "c/d"), CD, DIGEST)
    hub.blob("c/d", DATA)
    assert await read(await fetches.open(ask(hub, "c/d"), CD, DIGEST)) == DATA


async def test_no_place_at_all(
    hub: Scripted, ask: Ask, driver: StorageDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that is broken, or full before the first byte; no temporary folder."""
    hub.blob("a/b", DATA)

    async def refuse(key: str, *args: object, **kwargs: object) -> Stage:
        raise Unavailable("no")

    monkeypatch.setattr(driver, "begin", refuse)
    monkeypatch.setattr(driver, "put", refuse)
    fetches = Fetches(driver, fresh=1.0, folder=str(tmp_path / "absent"), sleep=no_sleep)
    readers = [await opened(fetches.open(ask(hub), AB, DIGEST)) for _ in range(3)]
    assert [await read(reader) for reader in readers] == [DATA] * 3
    await settled(fetches)
    await fetches.aclose()


@pytest.mark.slow
async def test_it_is_said_once(
    hub: Scripted, ask: Ask, fetches: Fetches, disk: Disk, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    disk.room = 0
    source = ask(hub)

    async def pull(data: bytes) -> None:
        assert await read(await fetches.open(source, AB, hub.blob("a/b", data))) == data
        await settled(fetches)

    def errors() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]

    for number in range(5):
        await pull(DATA[number : number + 200_000])
    assert errors() == [
        "what is fetched cannot be kept, and is passed on to clients: the registry's storage is full; "
        "make room there, or let the cache have less"
    ]
    disk.room = FITS
    await pull(DATA[7:200_000])
    disk.room = 0
    await pull(DATA[8:200_000])
    assert len(errors()) == 2


async def test_purged_in_the_middle(hub: Scripted, ask: Ask, tmp_path: Path, filesystem: FilesystemDriver) -> None:
    slowly = Slowly()
    hub.on("GET", BLOBS, slowly)
    fetches = Fetches(filesystem, fresh=1.0, sleep=no_sleep)
    reader = await opened(fetches.open(ask(hub), AB, DIGEST))
    got = bytearray()
    task = asyncio.create_task(follow(reader, got))
    await until(lambda: len(got) >= 200_000)
    await filesystem.delete_tree(layout.uploads(AB))
    slowly.go.set()
    await task
    assert got == DATA
    await settled(fetches)
    await fetches.aclose()
    assert not await uploads(filesystem)


@pytest.fixture
async def filesystem(tmp_path: Path) -> AsyncIterator[FilesystemDriver]:
    made = FilesystemDriver(tmp_path / "data", scratch=layout.SCRATCH)
    yield made
    await made.aclose()
