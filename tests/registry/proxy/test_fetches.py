"""One fetch, many readers: F29, F33, F34, F36 of the design, on stores that show their stages and that hide them."""

import asyncio
import gc
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from registry.proxy.fetches import PAUSE, Fetches
from registry.proxy.passing import HELD
from storage import layout
from storage.digest import Digest
from storage.driver import StorageDriver
from storage.errors import (
    BlobUnknown,
    RangeNotSatisfiable,
    StorageFull,
    Unavailable,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from storage.ranges import RangeRequest

from . import scripted as act
from .conftest import FAST, Ask, Clock
from .fetching import (
    AB,
    BLOBS,
    CD,
    DATA,
    DIGEST,
    REFUSED,
    Halves,
    drop_remains,
    follow,
    is_kept,
    opened,
    read,
    remains,
    settled,
    until,
    uploads,
)
from .scripted import Act, Exchange, Scripted


@pytest.mark.slow
async def test_many_readers_one_request(hub: Scripted, ask: Ask, fetches: Fetches, driver: StorageDriver) -> None:
    hub.blob("a/b", DATA)
    source = ask(hub)
    readers = await asyncio.gather(*(fetches.open(source, AB, DIGEST) for _ in range(50)))
    found = await asyncio.gather(*(read(reader) for reader in readers))
    assert all(each == DATA for each in found)
    assert hub.count("GET", BLOBS) == 1
    await settled(fetches)
    assert await is_kept(driver)
    assert await fetches.open(source, AB, DIGEST) is None


@pytest.mark.parametrize("size", [0, 1, HELD - 1, HELD, HELD + 1, 1_000_000])
async def test_any_size(hub: Scripted, ask: Ask, fetches: Fetches, driver: StorageDriver, size: int) -> None:
    digest = hub.blob("a/b", DATA[:size])
    reader = await fetches.open(ask(hub), AB, digest)
    if reader is not None:  # of a tiny one the fetch may be over
        assert (reader.size, len(reader.span)) == (size, size)
        assert await read(reader) == DATA[:size]
    await settled(fetches)
    assert await is_kept(driver, digest, DATA[:size])


async def test_readers_get_what_has_come_and_late_ones_too(hub: Scripted, ask: Ask, fetches: Fetches) -> None:
    """F36; headers and bytes do not wait for the end."""
    halves = Halves(DATA, 1_000_000)
    hub.on("GET", BLOBS, halves)
    source = ask(hub)
    for _ in range(2):
        async with await opened(fetches.open(source, AB, DIGEST)) as reader:
            assert reader.size == len(DATA)
            got = b""
            async for chunk in reader.chunks():
                got += chunk
                if len(got) == 1_000_000:
                    break
            assert got == DATA[:1_000_000]
    last = await fetches.open(source, AB, DIGEST)
    halves.go.set()
    assert await read(last) == DATA
    assert hub.count("GET", BLOBS) == 1


async def test_every_byte_is_there_at_once(hub: Scripted, ask: Ask, fetches: Fetches) -> None:
    """A slow upstream's few bytes are not gathered first."""
    halves = Halves(DATA, 10)
    hub.on("GET", BLOBS, halves)
    async with await opened(fetches.open(ask(hub), AB, DIGEST)) as reader:
        assert await anext(reader.chunks()) == DATA[:10]
    halves.go.set()
    await settled(fetches)


async def test_the_end_waits_for_the_digest(hub: Scripted, ask: Ask, fetches: Fetches) -> None:
    """P7: all bytes but the last are here, and the reader has none of the last HELD."""
    halves = Halves(DATA, len(DATA) - 1)
    hub.on("GET", BLOBS, halves)
    got = bytearray()
    async with asyncio.TaskGroup() as group:
        group.create_task(follow(await opened(fetches.open(ask(hub), AB, DIGEST)), got))
        await until(lambda: len(got) >= len(DATA) - HELD)
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(got) == len(DATA) - HELD
        halves.go.set()
    assert got == DATA


async def test_the_client_that_caused_it_leaves(
    hub: Scripted, ask: Ask, fetches: Fetches, driver: StorageDriver
) -> None:
    """F33."""
    halves = Halves(DATA, 1_000_000)
    hub.on("GET", BLOBS, halves)
    source = ask(hub)
    first = asyncio.create_task(read(await fetches.open(source, AB, DIGEST)))
    second = asyncio.create_task(read(await fetches.open(source, AB, DIGEST)))
    await asyncio.sleep(0)
    first.cancel()
    with suppress(asyncio.CancelledError):
        await first
    halves.go.set()
    assert await second == DATA
    await settled(fetches)
    assert await is_kept(driver)
    assert hub.count("GET", BLOBS) == 1


async def test_all_clients_leave_before_the_first_byte(
    hub: Scripted, ask: Ask, fetches: Fetches, driver: StorageDriver
) -> None:
    hub.blob("a/b", DATA)
    go, asked = asyncio.Event(), asyncio.Event()

    async def late(exchange: Exchange) -> None:
        asked.set()
        await go.wait()
        await act.serve(exchange)

    hub.on("GET", BLOBS, late)
    task = asyncio.create_task(fetches.open(ask(hub), AB, DIGEST))
    await asked.wait()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    go.set()
    await settled(fetches)
    assert await is_kept(driver)


async def test_a_reader_that_does_not_read_slows_nobody(hub: Scripted, ask: Ask, fetches: Fetches) -> None:
    """F34."""
    hub.blob("a/b", DATA)
    source = ask(hub)
    async with await opened(fetches.open(source, AB, DIGEST)) as idle:
        assert await read(await fetches.open(source, AB, DIGEST)) == DATA
        await settled(fetches)
        assert b"".join([chunk async for chunk in idle.chunks()]) == DATA


# What upstreams do (F29)


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(act.body(DATA[:-1] + b"?"), id="other bytes"),
        pytest.param(act.body(DATA[:-1]), id="fewer"),
        pytest.param(act.body(DATA + b"?"), id="more"),
        pytest.param(act.chunked(DATA[:-1], 100_000), id="fewer, chunked"),
        pytest.param(act.chunked(DATA + b"?", 100_000), id="more, chunked"),
    ],
)
async def test_wrong_bytes(hub: Scripted, ask: Ask, fetches: Fetches, driver: StorageDriver, wrong: Act) -> None:
    """No reader gets a whole answer, and the cache nothing."""
    hub.blob("a/b", DATA)
    hub.on("GET", BLOBS, wrong)
    reader = await opened(fetches.open(ask(hub), AB, DIGEST))
    got = bytearray()
    with pytest.raises(UpstreamUnavailable):
        await follow(reader, got)
    assert len(got) <= reader.size - HELD
    await settled(fetches)
    assert not await is_kept(driver)
    hub.rules.clear()
    assert await read(await fetches.open(ask(hub), AB, DIGEST)) == DATA


@pytest.mark.parametrize("size", [0, 100])
async def test_a_small_wrong_blob_is_refused_whole(hub: Scripted, ask: Ask, fetches: Fetches, size: int) -> None:
    hub.on("GET", BLOBS, act.body(DATA[:size]))
    with pytest.raises(UpstreamUnavailable):
        await read(await fetches.open(ask(hub), AB, Digest.of(b"other")))


@pytest.mark.parametrize(
    "breaks",
    [
        pytest.param(act.short(len(DATA), DATA[:1_000_000]), id="ends"),
        pytest.param(act.reset(DATA[:1_000_000], len(DATA)), id="reset"),
    ],
)
async def test_resumed(hub: Scripted, ask: Ask, fetches: Fetches, driver: StorageDriver, breaks: Act) -> None:
    hub.blob("a/b", DATA)
    hub.on("GET", BLOBS, breaks, times=1)
    assert await read(await fetches.open(ask(hub), AB, DIGEST)) == DATA
    first, second = (seen for seen in hub.requests if seen.method == "GET")
    assert "range" not in first.headers
    start = int(second.headers["range"].removeprefix("bytes=").removesuffix("-"))
    assert 0 < start <= 1_000_000
    await settled(fetches)
    assert await is_kept(driver)


async def test_resumed_where_range_is_not_known(hub: Scripted, ask: Ask, fetches: Fetches) -> None:
    hub.on("GET", BLOBS, act.body(DATA))
    hub.on("GET", BLOBS, act.short(len(DATA), DATA[:1_000_000]), times=2)
    assert await read(await fetches.open(ask(hub), AB, DIGEST)) == DATA
    assert hub.count("GET", BLOBS) == 3


@pytest.mark.slow
async def test_resumed_after_a_stall(hub: Scripted, ask: Ask, fetches: Fetches) -> None:
    hub.blob("a/b", DATA)
    hub.on("GET", BLOBS, act.stall(DATA[:1_000_000], len(DATA)), times=1)
    assert await read(await fetches.open(ask(hub, deadlines=FAST), AB, DIGEST)) == DATA


@pytest.mark.slow
async def test_given_up(hub: Scripted, ask: Ask, fetches: Fetches, driver: StorageDriver) -> None:
    hub.on("GET", BLOBS, act.stall(DATA[:100_000], len(DATA)))
    with pytest.raises((UpstreamTimeout, UpstreamUnavailable)):
        await read(await fetches.open(ask(hub, deadlines=FAST), AB, DIGEST))
    assert 2 <= hub.count("GET", BLOBS) <= 5
    assert not await is_kept(driver)
    await settled(fetches)
    assert not await uploads(driver), "what is little is not worth keeping"


async def test_replaced_by_another_blob_in_the_middle(hub: Scripted, ask: Ask, fetches: Fetches) -> None:
    hub.on("GET", BLOBS, act.data(DATA[:-5]))
    hub.on("GET", BLOBS, act.short(len(DATA), DATA[:1_000_000]), times=1)
    with pytest.raises(UpstreamUnavailable):
        await read(await fetches.open(ask(hub), AB, DIGEST))


@pytest.mark.parametrize(("answer", "error"), REFUSED)
async def test_all_who_wait_get_the_upstreams_error(
    hub: Scripted, ask: Ask, fetches: Fetches, answer: Act, error: type[Exception]
) -> None:
    go = asyncio.Event()
    hub.on("GET", BLOBS, act.gate(go, answer))
    source = ask(hub)
    waiting = [asyncio.create_task(fetches.open(source, AB, DIGEST))]
    await until(lambda: hub.count("GET", BLOBS) > 0)
    # whoever comes now finds the fetch in its first turn of the loop
    waiting += [asyncio.create_task(fetches.open(source, AB, DIGEST)) for _ in range(4)]
    await asyncio.sleep(0)
    go.set()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(each, error) for each in found)
    assert hub.count("GET", BLOBS) == 1


async def test_no_length(hub: Scripted, ask: Ask, fetches: Fetches, driver: StorageDriver) -> None:
    hub.blob("a/b", DATA)
    hub.on("GET", BLOBS, act.chunked(DATA, 100_000))
    reader = await opened(fetches.open(ask(hub), AB, DIGEST))
    assert reader.size == len(DATA)
    assert await read(reader) == DATA
    await settled(fetches)
    assert await is_kept(driver)


# Ranges of what is being fetched


async def test_ranges(hub: Scripted, ask: Ask, fetches: Fetches) -> None:
    halves = Halves(DATA, 1_000_000)
    hub.on("GET", BLOBS, halves)
    source = ask(hub)
    early = await opened(fetches.open(source, AB, DIGEST, RangeRequest(10, 20)))
    assert await read(early) == DATA[10:20]
    assert (early.size, early.span.start, early.span.stop) == (len(DATA), 10, 20)
    with pytest.raises(RangeNotSatisfiable):
        await fetches.open(source, AB, DIGEST, RangeRequest(len(DATA)))
    late = await opened(fetches.open(source, AB, DIGEST, RangeRequest(suffix=10)))
    halves.go.set()
    assert await read(late) == DATA[-10:]


# Other repositories


async def test_another_repository_joins_after_a_head(
    hub: Scripted, ask: Ask, fetches: Fetches, driver: StorageDriver
) -> None:
    hub.blob("c/d", DATA)
    halves = Halves(DATA, 1_000_000)
    hub.on("GET", BLOBS, halves)
    first = await opened(fetches.open(ask(hub), AB, DIGEST))
    other = await opened(fetches.open(ask(hub, "c/d"), CD, DIGEST))
    halves.go.set()
    assert await read(first) == await read(other) == DATA
    await settled(fetches)
    assert await is_kept(driver)
    assert await is_kept(driver, name=CD)
    assert (hub.count("GET", "/v2/c/d/blobs/"), hub.count("HEAD", "/v2/c/d/blobs/")) == (0, 1)


async def test_another_repository_has_it_after_a_head(
    hub: Scripted, ask: Ask, fetches: Fetches, driver: StorageDriver
) -> None:
    hub.blob("a/b", DATA)
    hub.blob("c/d", DATA)
    assert await read(await fetches.open(ask(hub), AB, DIGEST)) == DATA
    await settled(fetches)
    assert await fetches.open(ask(hub, "c/d"), CD, DIGEST) is None
    assert await is_kept(driver, name=CD)
    assert hub.count("GET", "/v2/c/d/blobs/") == 0


@pytest.mark.parametrize("when", ["while", "after"])
async def test_a_repository_without_it_gets_nothing(
    hub: Scripted, ask: Ask, fetches: Fetches, driver: StorageDriver, when: str
) -> None:
    """P9: a hit is allowed as a miss is."""
    halves = Halves(DATA, 1_000_000)
    hub.on("GET", BLOBS, halves)
    first = await opened(fetches.open(ask(hub), AB, DIGEST))
    if when == "after":
        halves.go.set()
        await settled(fetches)
    with pytest.raises(BlobUnknown):
        await fetches.open(ask(hub, "c/d"), CD, DIGEST)
    halves.go.set()
    assert await read(first) == DATA
    await settled(fetches)
    assert not await is_kept(driver, name=CD)


async def test_a_damaged_blob_is_replaced(hub: Scripted, ask: Ask, fetches: Fetches, driver: StorageDriver) -> None:
    """F25."""
    hub.blob("a/b", DATA)
    await driver.put(layout.blob_data(DIGEST), b"")
    assert await read(await fetches.open(ask(hub), AB, DIGEST)) == DATA
    await settled(fetches)
    assert await is_kept(driver)


# What the store does


async def test_published_is_refused(
    hub: Scripted, ask: Ask, fetches: Fetches, driver: StorageDriver, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readers get what they were promised; after a while it is tried again."""
    hub.blob("a/b", DATA)

    async def refuse(*args: object, **kwargs: object) -> int:
        raise StorageFull

    with monkeypatch.context() as patched:
        patched.setattr(driver, "publish", refuse)
        patched.setattr(driver, "write_content", refuse)
        assert await read(await fetches.open(ask(hub), AB, DIGEST)) == DATA
        await settled(fetches)
    assert not await is_kept(driver)
    clock.now += PAUSE
    assert await read(await fetches.open(ask(hub), AB, DIGEST)) == DATA
    await settled(fetches)
    assert await is_kept(driver)


async def test_closed_in_the_middle(hub: Scripted, ask: Ask, fetches: Fetches, driver: StorageDriver) -> None:
    hub.on("GET", BLOBS, act.stall(DATA[:1_000_000], len(DATA)))
    reader = await opened(fetches.open(ask(hub), AB, DIGEST))
    await fetches.aclose()
    with pytest.raises(Unavailable):
        await read(reader)
    assert not await is_kept(driver)
    assert DATA.startswith(await remains(driver))
    await drop_remains(driver)


@pytest.mark.parametrize("turns", range(8))
async def test_closed_at_its_beginning(
    hub: Scripted, ask: Ask, fetches: Fetches, driver: StorageDriver, turns: int
) -> None:
    """What a thread opens meanwhile is closed, too: an open file that is forgotten fails the test."""
    hub.on("GET", BLOBS, act.stall(b"", len(DATA)))
    opening = asyncio.create_task(fetches.open(ask(hub), AB, DIGEST))
    for _ in range(turns):
        await asyncio.sleep(0)
    await fetches.aclose()
    opening.cancel()
    with suppress(Unavailable, asyncio.CancelledError):
        reader = await opening
        assert reader is not None
        await reader.aclose()
    gc.collect()
    assert await remains(driver) == b""
    await drop_remains(driver)


async def test_closed_while_it_is_published(
    hub: Scripted, ask: Ask, fetches: Fetches, driver: StorageDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that was the last one before the registry stopped has filled the cache all the same."""
    hub.blob("a/b", DATA)
    publishing, go = asyncio.Event(), asyncio.Event()

    def slowly(call: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[object]]:
        async def wait(*args: object, **kwargs: object) -> object:
            publishing.set()
            await go.wait()
            return await call(*args, **kwargs)

        return wait

    monkeypatch.setattr(driver, "publish", slowly(driver.publish))
    monkeypatch.setattr(driver, "write_content", slowly(driver.write_content))
    assert await read(await fetches.open(ask(hub), AB, DIGEST)) == DATA
    await publishing.wait()
    closing = asyncio.create_task(fetches.aclose())
    await asyncio.sleep(0)
    go.set()
    await closing
    assert await is_kept(driver)
