"""Ranges of blobs that are not cached: what they cost the upstream, and what becomes of them."""

import asyncio
import errno
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from itertools import pairwise
from pathlib import Path

import pytest

from registry.proxy import pieces_shelf
from registry.proxy.fetches import Fetches
from registry.proxy.pieces import NEAR, PIECE, SEGMENT
from registry.proxy.pieces_shelf import Shelf
from registry.proxy.repository import UpstreamRepository
from storage import layout
from storage.digest import Digest
from storage.driver import ObjectReader, StorageDriver
from storage.errors import (
    BlobUnknown,
    ObjectNotFound,
    RangeNotSatisfiable,
    Unavailable,
    UpstreamUnavailable,
)
from storage.names import RepositoryName
from storage.ranges import RangeRequest

from . import scripted as act
from .conftest import Ask
from .fetching import REFUSED, no_sleep, read, until
from .scripted import Act, Exchange, Hangup, Scripted

AB = RepositoryName("a/b")
CD = RepositoryName("c/d")
SIZE = 12 * PIECE + 12_345
DATA = random.Random(1).randbytes(SIZE)
DIGEST = Digest.of(DATA)
BLOBS = "/v2/a/b/blobs/"
TINY = RangeRequest(0, 100)

Make = Callable[..., Shelf]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "pieces"


@pytest.fixture
async def make(driver: StorageDriver, fetches: Fetches, folder: Path) -> AsyncIterator[Make]:
    """A shelf; by default the whole is not fetched by itself. Nothing may stay behind."""
    made: list[Shelf] = []

    def shelf(**settings: int) -> Shelf:
        made.append(
            Shelf(
                driver, fetches, folder=str(folder), sleep=no_sleep, **{"size": 1 << 30, "fillafter": 100, **settings}
            )
        )
        return made[-1]

    yield shelf
    for each in made:
        await each.aclose()
        assert not len(each)
    assert not folder.exists() or not list(folder.iterdir())


@pytest.fixture
def shelf(make: Make) -> Shelf:
    return make()


@pytest.fixture
def source(hub: Scripted, ask: Ask) -> UpstreamRepository:
    hub.blob("a/b", DATA)
    return ask(hub)


async def take(reader: ObjectReader | None, size: int) -> bytes:
    """The first bytes; the reader leaves then."""
    assert reader is not None
    got = b""
    async with reader:
        async for chunk in reader.chunks():
            got += chunk
            if len(got) >= size:
                break
    return got[:size]


async def whole(shelf: Shelf, fetches: Fetches, source: UpstreamRepository, name: RepositoryName = AB) -> bytes:
    """As a GET without Range has it."""
    return await read(await fetches.open(shelf.patched(source, name), name, DIGEST))


def asked(hub: Scripted, size: int = SIZE) -> list[tuple[int, int]]:
    """What the upstream was asked for, in order; (0, size) where there was no Range."""
    found = []
    for seen in hub.requests:
        if seen.method == "GET" and "/blobs/" in seen.target:
            first, _, last = seen.headers.get("range", "bytes=0-").removeprefix("bytes=").partition("-")
            found.append((int(first), min(int(last) + 1, size) if last else size))
    return found


def cost(hub: Scripted) -> int:
    return sum(stop - start for start, stop in asked(hub))


async def is_kept(driver: StorageDriver, name: RepositoryName = AB) -> bool:
    try:
        assert await driver.read(layout.layer_link(name, DIGEST)) == str(DIGEST).encode()
        return await driver.read(layout.blob_data(DIGEST)) == DATA
    except ObjectNotFound:
        return False


class Slowly:
    """Answers a Range up to `at` of it, and the rest when the test says so."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.go = asyncio.Event()

    async def __call__(self, exchange: Exchange) -> None:
        first, _, last = exchange.seen.headers.get("range", "bytes=0-").removeprefix("bytes=").partition("-")
        start, stop = int(first), min(int(last) + 1, SIZE) if last else SIZE
        length = ("Content-Length", str(stop - start))
        if "range" in exchange.seen.headers:
            await exchange.head(206, [length, ("Content-Range", f"bytes {start}-{stop - 1}/{SIZE}")])
        else:
            await exchange.head(200, [length])
        await exchange.send(DATA[start : min(start + self.at, stop)])
        waiting = [asyncio.create_task(each.wait()) for each in (self.go, exchange.hub.release)]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for each in waiting:
            each.cancel()
        await self.rest(exchange, start, stop)

    async def rest(self, exchange: Exchange, start: int, stop: int) -> None:
        await exchange.send(DATA[start + self.at : stop])


class Broken(Slowly):
    """Breaks off there."""

    async def rest(self, exchange: Exchange, start: int, stop: int) -> None:
        raise Hangup(abort=True)


# What it costs


async def test_a_few_bytes_cost_a_piece(hub: Scripted, shelf: Shelf, source: UpstreamRepository) -> None:
    for wanted in (TINY, TINY, RangeRequest(PIECE - 10, PIECE)):
        reader = await shelf.open(source, AB, DIGEST, wanted)
        assert reader is not None
        assert reader.size == SIZE
        assert await read(reader) == DATA[wanted.start : wanted.stop]
        await until(lambda: shelf.held == PIECE)
    assert asked(hub) == [(0, PIECE)]
    assert hub.count("HEAD", "/v2/") == 0


@pytest.mark.parametrize(
    ("wanted", "cost_of_it"),
    [
        pytest.param(RangeRequest(5 * PIECE + 7, 5 * PIECE + 8), PIECE, id="a byte"),
        pytest.param(RangeRequest(2 * PIECE - 1, 2 * PIECE + 1), 2 * PIECE, id="two, of two pieces"),
        pytest.param(RangeRequest(suffix=100), SIZE - 12 * PIECE, id="the last"),
        pytest.param(RangeRequest(suffix=12_346), SIZE - 11 * PIECE, id="the last, of two pieces"),
        pytest.param(RangeRequest(SIZE - 1), SIZE - 12 * PIECE, id="from there on"),
        pytest.param(RangeRequest(SIZE - 1, 2 * SIZE), SIZE - 12 * PIECE, id="beyond the end"),
        pytest.param(RangeRequest(1), SIZE, id="all but a byte"),
        pytest.param(RangeRequest(3 * PIECE, SIZE - 5), SIZE - 3 * PIECE, id="long"),
    ],
)
async def test_ranges(
    hub: Scripted, shelf: Shelf, source: UpstreamRepository, wanted: RangeRequest, cost_of_it: int
) -> None:
    span = wanted.resolve(SIZE)
    reader = await shelf.open(source, AB, DIGEST, wanted)
    assert reader is not None
    assert (reader.size, reader.span) == (SIZE, span)
    assert await read(reader) == DATA[span.start : span.stop]
    assert cost(hub) == cost_of_it
    assert all(stop - start <= SEGMENT for start, stop in asked(hub))


@pytest.mark.parametrize("wanted", [RangeRequest(SIZE), RangeRequest(SIZE + 3 * PIECE, SIZE + 4 * PIECE)])
async def test_behind_the_end(hub: Scripted, shelf: Shelf, source: UpstreamRepository, wanted: RangeRequest) -> None:
    for _ in range(2):
        with pytest.raises(RangeNotSatisfiable) as caught:
            await shelf.open(source, AB, DIGEST, wanted)
        assert caught.value.size == SIZE
    assert (hub.count("HEAD", "/v2/"), hub.count("GET", "/v2/")) == (1, 0)


async def test_of_nothing(hub: Scripted, shelf: Shelf, ask: Ask) -> None:
    digest = hub.blob("a/b", b"")
    for wanted in (TINY, RangeRequest(suffix=1)):
        with pytest.raises(RangeNotSatisfiable):
            await shelf.open(ask(hub), AB, digest, wanted)


async def test_one_request_for_all_who_ask_at_once(hub: Scripted, shelf: Shelf, source: UpstreamRepository) -> None:
    go = asyncio.Event()
    hub.on("GET", BLOBS, act.gate(go))
    asking = [asyncio.create_task(shelf.open(source, AB, DIGEST, RangeRequest(n, n + 9))) for n in range(50)]
    await until(lambda: hub.count("GET", BLOBS) > 0)
    go.set()
    readers = await asyncio.gather(*asking)
    assert [await read(each) for each in readers] == [DATA[n : n + 9] for n in range(50)]
    assert asked(hub) == [(0, PIECE)]


@pytest.mark.slow
async def test_random_ranges_at_once(hub: Scripted, shelf: Shelf, source: UpstreamRepository) -> None:
    """Every byte right, and none fetched twice."""
    draw = random.Random(7)
    starts = [draw.randrange(SIZE) for _ in range(64)]
    wanted = [RangeRequest(start, start + draw.choice((1, 1000, PIECE, 3 * PIECE))) for start in starts]

    async def one(wanted: RangeRequest) -> None:
        span = wanted.resolve(SIZE)
        assert await read(await shelf.open(source, AB, DIGEST, wanted)) == DATA[span.start : span.stop]

    await asyncio.gather(*map(one, wanted))
    found = sorted(asked(hub))
    assert all(before[1] <= after[0] for before, after in pairwise(found))


async def test_what_has_come_is_given_at_once(hub: Scripted, shelf: Shelf, source: UpstreamRepository) -> None:
    slowly = Slowly(1000)
    hub.on("GET", BLOBS, slowly)
    assert await take(await shelf.open(source, AB, DIGEST, RangeRequest(0, 2000)), 1000) == DATA[:1000]
    slowly.go.set()


# Who leaves


async def test_who_leaves_ends_what_nobody_else_waits_for(
    hub: Scripted, shelf: Shelf, source: UpstreamRepository
) -> None:
    slowly = Slowly(1000)
    hub.on("GET", BLOBS, slowly)
    await take(await shelf.open(source, AB, DIGEST, RangeRequest(0, SEGMENT)), 1000)
    slowly.go.set()
    await until(lambda: shelf.held >= PIECE)
    pieces = shelf.find(DIGEST)
    assert pieces is not None
    await until(lambda: pieces.idle)
    assert PIECE <= pieces.stored(0) < 3 * PIECE
    hub.rules.clear()
    at = pieces.stored(0)
    assert await read(await shelf.open(source, AB, DIGEST, RangeRequest(0, 3 * PIECE))) == DATA[: 3 * PIECE]
    assert asked(hub)[-1] == (at, 3 * PIECE)  # nothing of what had come is asked for again


async def test_who_stays_gets_it(hub: Scripted, shelf: Shelf, source: UpstreamRepository) -> None:
    slowly = Slowly(1000)
    hub.on("GET", BLOBS, slowly)
    leaving = await shelf.open(source, AB, DIGEST, RangeRequest(0, SEGMENT))
    staying = asyncio.create_task(read(await shelf.open(source, AB, DIGEST, RangeRequest(6 * PIECE, 7 * PIECE))))
    await take(leaving, 1000)
    slowly.go.set()
    assert await staying == DATA[6 * PIECE : 7 * PIECE]


async def test_the_client_that_caused_it_leaves_before_the_answer(
    hub: Scripted, shelf: Shelf, source: UpstreamRepository
) -> None:
    go = asyncio.Event()
    hub.on("GET", BLOBS, act.gate(go))
    first = asyncio.create_task(shelf.open(source, AB, DIGEST, TINY))
    await until(lambda: hub.count("GET", BLOBS) > 0)
    second = asyncio.create_task(shelf.open(source, AB, DIGEST, TINY))
    await asyncio.sleep(0)
    first.cancel()
    go.set()
    assert await read(await second) == DATA[:100]
    assert len(asked(hub)) == 1


async def test_who_does_not_read_has_no_more_fetched(hub: Scripted, shelf: Shelf, source: UpstreamRepository) -> None:
    reader = await shelf.open(source, AB, DIGEST, RangeRequest(10))
    assert reader is not None
    async with reader, aclosing(reader.chunks()) as chunks:  # type: ignore[type-var]
        await anext(chunks)
        pieces = shelf.find(DIGEST)
        assert pieces is not None
        await until(lambda: not pieces._runs)
        assert cost(hub) <= SEGMENT


# What upstreams do


async def test_an_upstream_that_does_not_know_range(
    hub: Scripted, shelf: Shelf, source: UpstreamRepository, fetches: Fetches, driver: StorageDriver
) -> None:
    hub.on("GET", BLOBS, act.body(DATA))
    for _ in range(2):
        assert await shelf.open(source, AB, DIGEST, TINY) is None
    assert hub.count("GET", BLOBS) == 1
    assert await whole(shelf, fetches, source) == DATA
    await until(lambda: not len(fetches))
    assert await is_kept(driver)
    assert not len(shelf)


@pytest.mark.parametrize(("answer", "error"), REFUSED)
@pytest.mark.parametrize("wanted", [TINY, RangeRequest(5 * PIECE)])
async def test_errors(
    hub: Scripted, shelf: Shelf, source: UpstreamRepository, wanted: RangeRequest, answer: Act, error: type[Exception]
) -> None:
    hub.on("*", BLOBS, answer)
    with pytest.raises(error):
        await shelf.open(source, AB, DIGEST, wanted)
    await until(lambda: not len(shelf))


async def test_resumed(hub: Scripted, shelf: Shelf, source: UpstreamRepository) -> None:
    broken = Broken(PIECE + 1000)
    broken.go.set()
    hub.on("GET", BLOBS, broken, times=1)
    assert await read(await shelf.open(source, AB, DIGEST, RangeRequest(0, 4 * PIECE))) == DATA[: 4 * PIECE]
    first, second = asked(hub)
    assert first == (0, 4 * PIECE)
    assert 0 < second[0] <= PIECE + 1000
    assert second[1] == 4 * PIECE


async def test_given_up_and_gone_on_with(hub: Scripted, shelf: Shelf, source: UpstreamRepository) -> None:
    """What has come before is kept, and who asks again gets more."""
    broken = Broken(0)
    broken.go.set()
    hub.on("GET", BLOBS, broken)
    hub.on("GET", BLOBS, first := Broken(PIECE + 1000), times=1)
    first.go.set()
    with pytest.raises(UpstreamUnavailable):
        await read(await shelf.open(source, AB, DIGEST, RangeRequest(0, 4 * PIECE)))
    hub.rules.clear()
    assert await read(await shelf.open(source, AB, DIGEST, RangeRequest(0, 4 * PIECE))) == DATA[: 4 * PIECE]
    assert 0 < asked(hub)[-1][0] <= PIECE + 1000


async def test_another_size_than_before(hub: Scripted, shelf: Shelf, source: UpstreamRepository) -> None:
    assert await read(await shelf.open(source, AB, DIGEST, TINY)) == DATA[:100]
    hub.on("GET", BLOBS, act.data(DATA[:-5]))
    with pytest.raises(UpstreamUnavailable):
        await read(await shelf.open(source, AB, DIGEST, RangeRequest(5 * PIECE, 6 * PIECE)))


# Other repositories


async def test_another_repository_asks_its_upstream(
    hub: Scripted, shelf: Shelf, source: UpstreamRepository, ask: Ask, fetches: Fetches
) -> None:
    assert await read(await shelf.open(source, AB, DIGEST, TINY)) == DATA[:100]
    for _ in range(2):
        with pytest.raises(BlobUnknown):
            await shelf.open(ask(hub, "c/d"), CD, DIGEST, TINY)
    with pytest.raises(BlobUnknown):
        await whole(shelf, fetches, ask(hub, "c/d"), CD)
    await until(lambda: not len(fetches))
    assert shelf.size(CD, DIGEST) is None
    hub.blob("c/d", DATA)
    assert await read(await shelf.open(ask(hub, "c/d"), CD, DIGEST, TINY)) == DATA[:100]
    assert shelf.size(CD, DIGEST) == shelf.size(AB, DIGEST) == SIZE


async def test_two_repositories_at_once_of_which_one_may_not(
    hub: Scripted, shelf: Shelf, source: UpstreamRepository, ask: Ask
) -> None:
    go = asyncio.Event()
    hub.on("GET", BLOBS, act.gate(go))
    first = asyncio.create_task(shelf.open(source, AB, DIGEST, TINY))
    await until(lambda: hub.count("GET", BLOBS) > 0)
    second = asyncio.create_task(shelf.open(ask(hub, "c/d"), CD, DIGEST, TINY))
    with pytest.raises(BlobUnknown):
        await second
    go.set()
    assert await read(await first) == DATA[:100]


async def test_cached_for_another_repository(
    hub: Scripted, shelf: Shelf, source: UpstreamRepository, ask: Ask, fetches: Fetches
) -> None:
    """Whether this one may have it too, is found out by the fetches."""
    hub.blob("c/d", DATA)
    assert await whole(shelf, fetches, source) == DATA
    await until(lambda: not len(fetches))
    assert await shelf.open(ask(hub, "c/d"), CD, DIGEST, TINY) is None


# The whole


@pytest.mark.parametrize("wanted", [RangeRequest(0), RangeRequest(0, SIZE), RangeRequest(suffix=SIZE)])
async def test_a_range_of_everything_is_the_whole(
    hub: Scripted, shelf: Shelf, source: UpstreamRepository, wanted: RangeRequest, fetches: Fetches
) -> None:
    """So its end waits for the digest."""
    assert await shelf.open(source, AB, DIGEST, wanted) is None
    assert await whole(shelf, fetches, source) == DATA


async def test_a_full_get_fetches_the_gaps(
    hub: Scripted, shelf: Shelf, source: UpstreamRepository, fetches: Fetches, driver: StorageDriver
) -> None:
    for start in (2 * PIECE, 3 * PIECE, 9 * PIECE, 12 * PIECE):
        await read(await shelf.open(source, AB, DIGEST, RangeRequest(start, start + 1)))
    pieces = shelf.find(DIGEST)
    assert pieces is not None
    await until(lambda: pieces.idle)
    assert await whole(shelf, fetches, source) == DATA
    assert asked(hub)[4:] == [(0, 2 * PIECE), (4 * PIECE, 9 * PIECE), (10 * PIECE, 12 * PIECE)]
    assert cost(hub) == SIZE
    await until(lambda: not len(fetches))
    assert await is_kept(driver)
    assert not len(shelf)


@pytest.mark.parametrize(("fillafter", "before"), [(25, 3), (50, 6), (1, 0)])
async def test_filled_once_so_much_was_asked_for(
    hub: Scripted,
    make: Make,
    source: UpstreamRepository,
    fetches: Fetches,
    driver: StorageDriver,
    fillafter: int,
    before: int,
) -> None:
    shelf = make(fillafter=fillafter)
    for number in range(before):
        await read(await shelf.open(source, AB, DIGEST, RangeRequest(number * 2 * PIECE, number * 2 * PIECE + 9)))
        await until(lambda: (found := shelf.find(DIGEST)) is not None and found.idle)
    assert not len(fetches)
    await read(await shelf.open(source, AB, DIGEST, RangeRequest(11 * PIECE, 11 * PIECE + 9)))
    await until(lambda: not len(shelf))
    assert await is_kept(driver)
    assert cost(hub) == SIZE


async def test_filled_at_once(
    hub: Scripted, make: Make, source: UpstreamRepository, fetches: Fetches, driver: StorageDriver
) -> None:
    shelf = make(fillafter=0)
    assert await read(await shelf.open(source, AB, DIGEST, RangeRequest(11 * PIECE, 11 * PIECE + 9)))
    await until(lambda: not len(shelf))
    assert await is_kept(driver)


async def test_never_filled(hub: Scripted, shelf: Shelf, source: UpstreamRepository, fetches: Fetches) -> None:
    for start in range(0, SIZE, PIECE):
        await read(await shelf.open(source, AB, DIGEST, RangeRequest(start, start + 10)))
    pieces = shelf.find(DIGEST)
    assert pieces is not None
    await until(lambda: pieces.idle)
    assert pieces.share == 1.0
    assert not len(fetches)


async def test_a_blob_of_one_piece_is_cached_by_its_first_range(
    hub: Scripted, make: Make, ask: Ask, driver: StorageDriver
) -> None:
    digest = hub.blob("a/b", DATA[:5000])
    shelf = make(fillafter=25)
    assert await read(await shelf.open(ask(hub), AB, digest, RangeRequest(10, 20))) == DATA[10:20]
    await until(lambda: not len(shelf))
    assert await driver.read(layout.blob_data(digest)) == DATA[:5000]
    assert hub.count("GET", "/v2/") == 1


async def test_a_wrong_piece_costs_one_clean_fetch(
    hub: Scripted, shelf: Shelf, source: UpstreamRepository, fetches: Fetches, driver: StorageDriver
) -> None:
    hub.on("GET", BLOBS, act.data(b"?" + DATA[1:]), times=1)
    assert (await read(await shelf.open(source, AB, DIGEST, TINY)))[:1] == b"?"
    await until(lambda: shelf.held == PIECE)
    with pytest.raises(UpstreamUnavailable):
        await whole(shelf, fetches, source)
    await until(lambda: not len(fetches))
    assert await is_kept(driver)
    assert asked(hub) == [(0, PIECE), (PIECE, SIZE), (0, SIZE)]
    assert not len(shelf)


async def test_an_upstream_that_is_always_wrong_ends_it(
    hub: Scripted, make: Make, source: UpstreamRepository, fetches: Fetches, driver: StorageDriver
) -> None:
    hub.on("GET", BLOBS, act.data(b"?" + DATA[1:]))
    shelf = make(fillafter=1)
    await read(await shelf.open(source, AB, DIGEST, TINY))
    await until(lambda: hub.count("GET", BLOBS) >= 3)
    await until(lambda: not len(fetches))
    for _ in range(100):
        await asyncio.sleep(0)
    assert asked(hub) == [(0, PIECE), (PIECE, SIZE), (0, SIZE)]
    assert not await is_kept(driver)


async def test_a_wrong_rest_keeps_nothing(
    hub: Scripted, shelf: Shelf, source: UpstreamRepository, fetches: Fetches, driver: StorageDriver
) -> None:
    """The gap is of another size than the pieces are of."""
    assert await read(await shelf.open(source, AB, DIGEST, TINY)) == DATA[:100]
    await until(lambda: shelf.held == PIECE)
    hub.on("GET", BLOBS, act.data(DATA + b"?"), times=1)
    with pytest.raises(UpstreamUnavailable):
        await whole(shelf, fetches, source)
    await until(lambda: not len(fetches))
    assert await is_kept(driver)


# While the whole is being fetched


async def test_far_ahead_of_the_fetch(
    hub: Scripted, shelf: Shelf, source: UpstreamRepository, fetches: Fetches, driver: StorageDriver
) -> None:
    """A lazy puller does not wait for gigabytes; and what it has had fetched is not fetched again."""
    slowly = Slowly(PIECE)
    hub.on("GET", BLOBS, slowly, times=1)
    following = asyncio.create_task(whole(shelf, fetches, source))
    await until(lambda: (fetches.arrived(AB, DIGEST) or 0) > 0)
    assert await shelf.open(source, AB, DIGEST, TINY) is None  # it has that
    ahead = await shelf.open(source, AB, DIGEST, RangeRequest(8 * PIECE, 10 * PIECE))
    assert await read(ahead) == DATA[8 * PIECE : 10 * PIECE]
    slowly.go.set()
    assert await following == DATA
    await until(lambda: not len(fetches))
    assert await is_kept(driver)
    assert asked(hub) == [(0, SIZE), (8 * PIECE, 10 * PIECE), (10 * PIECE, SIZE)]


@pytest.mark.parametrize("stop", [SIZE, SIZE - 100])
async def test_a_reader_goes_over_to_a_fetch_that_has_come_as_far(
    hub: Scripted, shelf: Shelf, source: UpstreamRepository, fetches: Fetches, stop: int
) -> None:
    reader = await shelf.open(source, AB, DIGEST, RangeRequest(10, stop))
    assert reader is not None
    chunks = reader.chunks()
    got = bytearray(await anext(chunks))
    pieces = shelf.find(DIGEST)
    assert pieces is not None
    await until(lambda: not pieces._runs)
    slowly = Slowly(SIZE - SEGMENT - PIECE)
    hub.on("GET", BLOBS, slowly)
    following = asyncio.create_task(whole(shelf, fetches, source))
    await until(lambda: (fetches.arrived(AB, DIGEST) or 0) >= SIZE - PIECE)
    async for chunk in chunks:
        got += chunk
        slowly.go.set()
    await reader.aclose()
    assert got == DATA[10:stop]
    assert await following == DATA
    assert asked(hub) == [(0, SEGMENT), (SEGMENT, SIZE)]


async def test_a_reader_stays_while_the_cache_is_filled(
    hub: Scripted, shelf: Shelf, source: UpstreamRepository, fetches: Fetches
) -> None:
    """It is slow, and its pieces live as long as it reads them."""
    reader = await shelf.open(source, AB, DIGEST, RangeRequest(10))
    assert reader is not None
    chunks = reader.chunks()
    got = bytearray(await anext(chunks))
    assert await whole(shelf, fetches, source) == DATA
    await until(lambda: not len(fetches) and not len(shelf))
    async for chunk in chunks:
        got += chunk
    await reader.aclose()
    assert got == DATA[10:]


@pytest.mark.slow
async def test_as_containerd_pulls_in_parallel(
    hub: Scripted, make: Make, source: UpstreamRepository, fetches: Fetches, driver: StorageDriver
) -> None:
    """As fetcher.go of containerd 2.1 does: a GET, and `bytes=N-` for each chunk, which it leaves after the chunk."""
    shelf, chunk = make(fillafter=25), 3 * PIECE

    async def part(start: int) -> bytes:
        size = min(chunk, SIZE - start)
        if start:
            reader = await shelf.open(source, AB, DIGEST, RangeRequest(start))
            if reader is None:
                reader = await fetches.open(shelf.patched(source, AB), AB, DIGEST, RangeRequest(start))
        else:
            reader = await fetches.open(shelf.patched(source, AB), AB, DIGEST)
        return await take(reader, size)

    parts = await asyncio.gather(*(part(start) for start in range(0, SIZE, chunk)))
    assert b"".join(parts) == DATA
    await until(lambda: not len(fetches))
    assert await is_kept(driver)
    assert not len(shelf)


# Bounds


async def test_what_was_used_least_recently_goes_first(hub: Scripted, make: Make, ask: Ask) -> None:
    shelf, source = make(size=3 * PIECE), ask(hub)
    digests = [hub.blob("a/b", DATA[n : n + 2 * PIECE]) for n in range(4)]
    for number in (0, 1, 2, 0, 3):
        await read(await shelf.open(source, AB, digests[number], TINY))
        await until(lambda: all(each.idle for each in map(shelf.find, digests) if each))
        assert shelf.held <= 3 * PIECE
    assert [shelf.find(each) is not None for each in digests] == [True, False, True, True]


async def test_so_many_blobs_at_most(hub: Scripted, make: Make, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces_shelf, "BLOBS", 2)
    shelf, source = make(), ask(hub)
    digests = [hub.blob("a/b", DATA[n : n + 2 * PIECE]) for n in range(4)]
    for each in digests:
        await read(await shelf.open(source, AB, each, TINY))
        await until(lambda: all(found.idle for found in map(shelf.find, digests) if found))
        assert len(shelf) <= 2


async def test_where_all_are_being_read_nothing_is_kept(hub: Scripted, make: Make, ask: Ask) -> None:
    """It is passed on."""
    shelf, source = make(size=PIECE), ask(hub)
    first, second = hub.blob("a/b", DATA), hub.blob("a/b", DATA[1:])
    reader = await shelf.open(source, AB, first, TINY)
    for _ in range(2):
        assert await read(await shelf.open(source, AB, second, TINY)) == DATA[1:101]
    assert await read(reader) == DATA[:100]
    assert hub.count("GET", "/v2/") == 3
    assert len(shelf) == 1


@pytest.mark.parametrize("size", [0, PIECE - 1])
async def test_nothing_is_kept(hub: Scripted, make: Make, source: UpstreamRepository, size: int) -> None:
    shelf = make(size=size)
    for _ in range(2):
        assert await read(await shelf.open(source, AB, DIGEST, TINY)) == DATA[:100]
    assert asked(hub) == [(0, 100), (0, 100)]


async def test_a_full_disk(
    hub: Scripted, shelf: Shelf, source: UpstreamRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who reads gets it all the same, and for a while ranges are passed on."""
    real = os.pwrite

    def full(fd: int, data: bytes, offset: int) -> int:
        if offset > PIECE:
            raise OSError(errno.ENOSPC, "no space")
        return real(fd, data[:100_000], offset)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        found = await read(await shelf.open(source, AB, DIGEST, RangeRequest(0, 4 * PIECE)))
        assert found == DATA[: 4 * PIECE]
    assert await read(await shelf.open(source, AB, DIGEST, TINY)) == DATA[:100]
    assert await read(await shelf.open(source, AB, DIGEST, TINY)) == DATA[:100]
    assert asked(hub)[-2:] == [(0, 100), (0, 100)]
    assert not len(shelf)


async def test_no_place_at_all(
    hub: Scripted, driver: StorageDriver, fetches: Fetches, source: UpstreamRepository, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    shelf = Shelf(driver, fetches, folder=str(tmp_path / "file"), size=1 << 30, fillafter=25)
    assert await read(await shelf.open(source, AB, DIGEST, TINY)) == DATA[:100]
    assert not len(shelf)
    await shelf.aclose()


async def test_closed_in_the_middle(hub: Scripted, shelf: Shelf, source: UpstreamRepository) -> None:
    hub.on("GET", BLOBS, Slowly(1000))
    reader = await shelf.open(source, AB, DIGEST, RangeRequest(0, 4 * PIECE))
    assert reader is not None
    chunks = reader.chunks()
    await anext(chunks)
    closing: Awaitable[None] = shelf.aclose()
    await closing
    with pytest.raises(Unavailable):
        async for _ in chunks:
            pass
    await reader.aclose()
    assert NEAR < SEGMENT
