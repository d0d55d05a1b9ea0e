"""What a fetch has left is found again, and several processes on one folder fetch once. Here, a process is a driver."""

import asyncio
import fcntl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from registry.proxy import claim
from registry.proxy.claim import fetch_id
from registry.proxy.fetches import Fetches
from registry.proxy.passing import HELD
from registry.proxy.stages import WORTH
from storage import layout
from storage.content import ContentStore
from storage.drivers.filesystem import FilesystemDriver
from storage.errors import BlobUnknown, Unavailable, UpstreamUnavailable
from storage.purge import purge_uploads

from . import scripted as act
from .conftest import Ask
from .fetching import (
    AB,
    BLOBS,
    CD,
    DATA,
    DIGEST,
    follow,
    is_kept,
    no_sleep,
    opened,
    read,
    remains,
    settled,
    until,
    uploads,
)
from .scripted import Exchange, Scripted

HALF = 1_500_000
assert HALF > WORTH


@pytest.fixture
async def driver(tmp_path: Path) -> AsyncIterator[FilesystemDriver]:
    made = FilesystemDriver(tmp_path / "data", scratch=layout.SCRATCH)
    yield made
    await made.aclose()


@pytest.fixture
async def start(tmp_path: Path, driver: FilesystemDriver) -> AsyncIterator[Callable[[], Fetches]]:
    """Another process, as far as the store can tell. In the end nothing may stay behind."""
    made: list[tuple[Fetches, FilesystemDriver]] = []

    def another() -> Fetches:
        other = FilesystemDriver(tmp_path / "data", scratch=layout.SCRATCH)
        made.append((Fetches(other, fresh=3600.0, sleep=no_sleep), other))
        return made[-1][0]

    yield another
    for fetches, other in made:
        await fetches.aclose()
        assert not len(fetches)
        await other.aclose()
    assert not await uploads(driver)


async def leave(driver: FilesystemDriver, data: bytes) -> None:
    """As a killed process does."""
    key = layout.upload_data(AB, fetch_id(DIGEST))
    await driver.put(layout.upload_started(AB, fetch_id(DIGEST)), b"2026-01-01T00:00:00Z")
    await driver.put(key, data)


def ranges(hub: Scripted) -> list[str | None]:
    return [seen.headers.get("range") for seen in hub.requests if seen.method == "GET"]


class Stops:
    """As a store serves it, but each answer waits for the test behind byte `at` of the blob."""

    def __init__(self, data: bytes = DATA, at: int = HALF) -> None:
        self.data, self.at = data, at
        self.go = asyncio.Event()

    async def __call__(self, exchange: Exchange) -> None:
        start = int(exchange.seen.headers.get("range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        total = len(self.data)
        fields = [("Content-Length", str(total - start))]
        if start:
            fields.append(("Content-Range", f"bytes {start}-{total - 1}/{total}"))
        await exchange.head(206 if start else 200, fields)
        await exchange.send(self.data[start : max(start, self.at)])
        await self.go.wait()
        await exchange.send(self.data[max(start, self.at) :])


# After a crash


async def test_what_is_left_is_continued(
    hub: Scripted, ask: Ask, driver: FilesystemDriver, start: Callable[[], Fetches]
) -> None:
    hub.blob("a/b", DATA)
    await leave(driver, DATA[:HALF])
    fetches = start()
    assert await read(await fetches.open(ask(hub), AB, DIGEST)) == DATA
    await settled(fetches)
    assert ranges(hub) == [f"bytes={HALF}-"]
    assert await is_kept(driver)


async def test_what_is_left_is_served_before_more_comes(
    hub: Scripted, ask: Ask, driver: FilesystemDriver, start: Callable[[], Fetches]
) -> None:
    stops = Stops()
    hub.on("GET", BLOBS, stops)
    await leave(driver, DATA[:HALF])
    got = bytearray()
    fetches = start()
    reading = asyncio.create_task(follow(await opened(fetches.open(ask(hub), AB, DIGEST)), got))
    await until(lambda: len(got) == HALF)
    stops.go.set()
    await reading
    assert got == DATA


async def test_all_but_the_publishing_was_done(
    hub: Scripted, ask: Ask, driver: FilesystemDriver, start: Callable[[], Fetches]
) -> None:
    """416 says that nothing is missing, and the digest that it is right."""
    hub.blob("a/b", DATA)
    await leave(driver, DATA)
    fetches = start()
    assert await read(await fetches.open(ask(hub), AB, DIGEST)) == DATA
    await settled(fetches)
    assert ranges(hub) == [f"bytes={len(DATA)}-"]
    assert await is_kept(driver)


async def test_an_upstream_without_range(
    hub: Scripted, ask: Ask, driver: FilesystemDriver, start: Callable[[], Fetches]
) -> None:
    hub.on("GET", BLOBS, act.body(DATA))
    await leave(driver, DATA[:HALF])
    fetches = start()
    assert await read(await fetches.open(ask(hub), AB, DIGEST)) == DATA
    await settled(fetches)
    assert await is_kept(driver)


@pytest.mark.slow
@pytest.mark.parametrize(
    "left",
    [
        pytest.param(b"?" + DATA[1:HALF], id="damaged"),
        pytest.param(bytes(HALF), id="zeros"),
        pytest.param(DATA[:-1] + b"?", id="whole, but damaged"),
        pytest.param(DATA + b"?", id="longer"),
    ],
)
async def test_it_is_never_trusted(
    hub: Scripted, ask: Ask, driver: FilesystemDriver, start: Callable[[], Fetches], left: bytes
) -> None:
    """No whole answer, nothing kept; and the next one begins at zero."""
    hub.blob("a/b", DATA)
    await leave(driver, left)
    fetches = start()
    got = bytearray()
    with pytest.raises(UpstreamUnavailable):
        await follow(await opened(fetches.open(ask(hub), AB, DIGEST)), got)
    assert len(got) <= len(DATA) - HELD
    await settled(fetches)
    assert not await is_kept(driver)
    assert not await uploads(driver)
    assert await read(await fetches.open(ask(hub), AB, DIGEST)) == DATA
    await settled(fetches)
    assert await is_kept(driver)
    assert ranges(hub)[-1] is None


async def test_the_upstream_has_it_no_more(
    hub: Scripted, ask: Ask, driver: FilesystemDriver, start: Callable[[], Fetches]
) -> None:
    await leave(driver, DATA[:HALF])
    with pytest.raises(BlobUnknown):
        await start().open(ask(hub), AB, DIGEST)


async def test_another_repository_finds_nothing(
    hub: Scripted, ask: Ask, driver: FilesystemDriver, start: Callable[[], Fetches]
) -> None:
    """It is kept below the one that asked; what nobody asks for there is purged as any upload."""
    hub.blob("c/d", DATA)
    await leave(driver, DATA[:HALF])
    fetches = start()
    assert await read(await fetches.open(ask(hub, "c/d"), CD, DIGEST)) == DATA
    await settled(fetches)
    assert ranges(hub) == [None]
    content = ContentStore(driver)
    purged = await purge_uploads(content, age=-1.0)
    assert (purged.sessions, purged.bytes) == (1, HALF)


# After an orderly end


async def test_an_end_keeps_what_has_come(
    hub: Scripted, ask: Ask, driver: FilesystemDriver, start: Callable[[], Fetches]
) -> None:
    hub.on("GET", BLOBS, stops := Stops())
    first = start()
    got = bytearray()
    reading = asyncio.create_task(follow(await opened(first.open(ask(hub), AB, DIGEST)), got))
    await until(lambda: len(got) == HALF)
    await first.aclose()
    with pytest.raises(Unavailable):
        await reading
    assert await remains(driver) == DATA[:HALF]
    stops.go.set()
    assert await read(await start().open(ask(hub), AB, DIGEST)) == DATA
    assert ranges(hub) == [None, f"bytes={HALF}-"]


async def test_an_upstream_that_fails_for_long(
    hub: Scripted, ask: Ask, driver: FilesystemDriver, start: Callable[[], Fetches]
) -> None:
    """What came is not fetched again by whoever asks next."""
    hub.blob("a/b", DATA)
    hub.on("GET", BLOBS, act.error(500, "UNKNOWN"))
    hub.on("GET", BLOBS, act.short(len(DATA), DATA[:HALF]), times=1)
    fetches = start()
    with pytest.raises(UpstreamUnavailable):
        await read(await fetches.open(ask(hub), AB, DIGEST))
    await settled(fetches)
    hub.rules.clear()
    asked = len(ranges(hub))
    assert await read(await fetches.open(ask(hub), AB, DIGEST)) == DATA
    assert ranges(hub)[asked:] == [f"bytes={HALF}-"]


# Several processes


async def test_two_processes_fetch_once(
    hub: Scripted, ask: Ask, driver: FilesystemDriver, start: Callable[[], Fetches]
) -> None:
    """The second reads what the first has got, as it comes, and links its own repositories."""
    hub.on("GET", BLOBS, stops := Stops())
    hub.blob("a/b", DATA)
    one, two = start(), start()
    first = await opened(one.open(ask(hub), AB, DIGEST))
    got = bytearray()
    second = asyncio.create_task(follow(await opened(two.open(ask(hub), AB, DIGEST)), got))
    await until(lambda: len(got) == HALF)
    stops.go.set()
    assert await read(first) == DATA
    await second
    assert got == DATA
    await asyncio.gather(settled(one), settled(two))
    assert ranges(hub) == [None]
    assert await is_kept(driver)


@pytest.mark.slow
async def test_many_processes_that_begin_at_once(
    hub: Scripted, ask: Ask, driver: FilesystemDriver, start: Callable[[], Fetches]
) -> None:
    hub.blob("a/b", DATA)
    processes, source = [start() for _ in range(5)], ask(hub)

    async def pull(fetches: Fetches) -> bytes | None:
        reader = await fetches.open(source, AB, DIGEST)
        return None if reader is None else await read(reader)

    found = await asyncio.gather(*(pull(fetches) for fetches in processes for _ in range(4)))
    assert set(found) <= {DATA, None}
    for fetches in processes:
        await settled(fetches)
    assert ranges(hub) == [None]
    assert await is_kept(driver)


async def test_the_one_that_follows_goes_on(
    hub: Scripted, ask: Ask, driver: FilesystemDriver, start: Callable[[], Fetches]
) -> None:
    hub.on("GET", BLOBS, stops := Stops())
    hub.blob("a/b", DATA)
    one, two = start(), start()
    await (await opened(one.open(ask(hub), AB, DIGEST))).aclose()
    got = bytearray()
    second = asyncio.create_task(follow(await opened(two.open(ask(hub), AB, DIGEST)), got))
    await until(lambda: len(got) == HALF)
    await one.aclose()
    stops.go.set()
    await second
    assert got == DATA
    await settled(two)
    assert ranges(hub) == [None, f"bytes={HALF}-"]
    assert await is_kept(driver)


async def test_the_one_that_is_followed_gets_wrong_bytes(
    hub: Scripted, ask: Ask, driver: FilesystemDriver, start: Callable[[], Fetches]
) -> None:
    hub.on("GET", BLOBS, stops := Stops(DATA[:-1] + b"?"))
    hub.blob("a/b", DATA)
    one, two = start(), start()
    await (await opened(one.open(ask(hub), AB, DIGEST))).aclose()
    got = bytearray()
    second = asyncio.create_task(follow(await opened(two.open(ask(hub), AB, DIGEST)), got))
    await until(lambda: len(got) == HALF)
    stops.go.set()
    with pytest.raises(UpstreamUnavailable):
        await second
    assert len(got) <= len(DATA) - HELD
    await asyncio.gather(settled(one), settled(two))
    assert not await is_kept(driver)
    hub.rules.clear()
    assert await read(await two.open(ask(hub), AB, DIGEST)) == DATA


async def test_its_own_upstream_must_have_it(
    hub: Scripted, other: Scripted, ask: Ask, start: Callable[[], Fetches]
) -> None:
    """P9: the second process may have other settings."""
    hub.on("GET", BLOBS, stops := Stops())
    one, two = start(), start()
    first = await opened(one.open(ask(hub), AB, DIGEST))
    with pytest.raises(BlobUnknown):
        await two.open(ask(other), AB, DIGEST)
    stops.go.set()
    assert await read(first) == DATA
    await settled(one)


async def test_a_store_without_locks(
    hub: Scripted, ask: Ask, driver: FilesystemDriver, start: Callable[[], Fetches], monkeypatch: pytest.MonkeyPatch
) -> None:
    """NFS refuses them for files that are open for reading: each process fetches for itself, and nothing is resumed."""
    hub.on("GET", BLOBS, stops := Stops())

    def refuse(file: object, kind: int) -> None:
        raise OSError(9, "Bad file descriptor")

    monkeypatch.setattr(
        claim, "fcntl", SimpleNamespace(flock=refuse, LOCK_EX=fcntl.LOCK_EX, LOCK_NB=fcntl.LOCK_NB, LOCK_UN=0)
    )
    one, two = start(), start()
    readers = [await opened(each.open(ask(hub), AB, DIGEST)) for each in (one, two)]
    stops.go.set()
    assert [await read(reader) for reader in readers] == [DATA, DATA]
    await asyncio.gather(settled(one), settled(two))
    assert ranges(hub) == [None, None]
    assert await is_kept(driver)
