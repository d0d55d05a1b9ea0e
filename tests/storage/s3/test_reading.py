"""Readers of S3: one GET, taken up again where it breaks, and never the bytes of another object."""

import asyncio
from itertools import cycle

import pytest

from storage.driver import CHUNK
from storage.drivers.s3.driver import S3Driver
from storage.drivers.s3.lookahead import PART, SAMPLES, SPAN, TRYING, LookAhead, Window
from storage.drivers.s3.reading import S3Reader
from storage.errors import RangeNotSatisfiable, Unavailable
from storage.ranges import ByteRange, RangeRequest
from storage.testing.tools import content, pattern
from tests.s3.servers import S3Server
from tests.storage.s3.conftest import ServerStore
from tests.storage.s3.memorybucket import Fault, MemoryBucket

DATA = pattern(3 * CHUNK)


async def test_an_object_is_one_call(driver: S3Driver, bucket: MemoryBucket) -> None:
    bucket.store("root/a", DATA)
    assert await content(await driver.open("a")) == DATA
    assert await driver.read("a") == DATA
    assert await content(await driver.open("a", RangeRequest(5, 10))) == DATA[5:10]
    assert bucket.verbs() == ["get"] * 3
    assert all(body.closed for body in bucket.bodies)


@pytest.mark.parametrize(
    "wanted", [None, RangeRequest(1000), RangeRequest(suffix=2 * CHUNK), RangeRequest(7, 2 * CHUNK)]
)
@pytest.mark.parametrize("breaks", [[0], [1], [100_000, 0, 5], [CHUNK + 1], [CHUNK + 1, 5, 1, 1]])
async def test_a_broken_body_is_taken_up_again(
    driver: S3Driver, bucket: MemoryBucket, wanted: RangeRequest | None, breaks: list[int]
) -> None:
    bucket.store("root/a", DATA)
    bucket.breaks = [*breaks]
    span = wanted.resolve(len(DATA)) if wanted else ByteRange(0, len(DATA))
    reader = await driver.open("a", wanted)
    assert await content(reader) == DATA[span.start : span.stop]
    assert 2 <= len(bucket.verbs()) <= 1 + len(breaks)


async def test_a_body_that_breaks_for_ever(driver: S3Driver, bucket: MemoryBucket) -> None:
    bucket.store("root/a", DATA)
    bucket.breaks = [10] * 100
    async with await driver.open("a") as reader:
        with pytest.raises(Unavailable):
            async for _ in reader.chunks():
                pass
    assert len(bucket.verbs()) == 4
    assert all(body.closed for body in bucket.bodies)


@pytest.mark.parametrize("size", [1000, len(DATA)])
async def test_an_object_that_changes_size_or_goes(driver: S3Driver, bucket: MemoryBucket, size: int) -> None:
    for end in ("shrinks", "grows", "goes"):
        bucket.store("root/a", DATA[:size])
        bucket.breaks = [500]
        async with await driver.open("a") as reader:
            if end == "goes":
                del bucket.objects["root/a"]
            else:
                bucket.store("root/a", DATA[:400] if end == "shrinks" else DATA[:size] + b"x")
            with pytest.raises(Unavailable):
                await reader.read(len(DATA))


async def test_a_small_object_is_never_mixed_with_its_next_version(driver: S3Driver, bucket: MemoryBucket) -> None:
    bucket.store("root/link", b"sha256:aaaa")
    bucket.breaks = [9]
    async with await driver.open("link") as reader:
        bucket.store("root/link", b"sha256:bbbb")
        with pytest.raises(Unavailable):
            await reader.read(100)


async def test_a_large_object_may_be_written_again_in_other_parts(driver: S3Driver, bucket: MemoryBucket) -> None:
    bucket.store("root/a", DATA)
    bucket.breaks = [CHUNK]
    async with await driver.open("a") as reader:
        bucket.store("root/a", DATA, '"another-2"')
        assert await reader.read(len(DATA)) == DATA


async def test_ranges_without_bytes(driver: S3Driver, bucket: MemoryBucket) -> None:
    bucket.store("root/a", b"12345")
    for wanted in (RangeRequest(5), RangeRequest(suffix=0), RangeRequest(3, 3)):
        with pytest.raises(RangeNotSatisfiable) as caught:
            await driver.open("a", wanted)
        assert caught.value.size == 5


async def test_nothing_is_asked_for_a_reader_that_was_closed(driver: S3Driver, bucket: MemoryBucket) -> None:
    bucket.store("root/a", DATA)
    reader = await driver.open("a")
    chunks = reader.chunks()
    await anext(chunks)
    bucket.verbs()
    await reader.aclose()
    await reader.aclose()
    await chunks.aclose()  # type: ignore[attr-defined]  # a generator
    await asyncio.sleep(0)
    assert bucket.verbs() == []


# Parts ahead


LARGE = pattern(64 * CHUNK)


def same(found: bytes, expected: bytes) -> bool:
    """As ==, without an explanation of megabytes."""
    return found == expected


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """The window has learned that three parts ahead help."""
    monkeypatch.setattr(Window, "parts", lambda self, readers, tries=True: 3)


@pytest.mark.slow
@pytest.mark.usefixtures("opened")
@pytest.mark.parametrize(
    "wanted", [None, RangeRequest(5), RangeRequest(1 << 20, 50 << 20), RangeRequest(suffix=17 << 20)]
)
async def test_parts_ahead_give_all_bytes(driver: S3Driver, bucket: MemoryBucket, wanted: RangeRequest | None) -> None:
    bucket.store("root/a", LARGE)
    span = wanted.resolve(len(LARGE)) if wanted else ByteRange(0, len(LARGE))
    async with await driver.open("a", wanted) as reader:
        chunks = [chunk async for chunk in reader.chunks()]
    assert same(b"".join(chunks), LARGE[span.start : span.stop])
    assert all(0 < len(chunk) <= CHUNK for chunk in chunks)
    assert len(bucket.verbs()) > len(span) // PART - 5
    assert all(body.closed for body in bucket.bodies)
    assert buffers_are_back(driver)


@pytest.mark.slow
@pytest.mark.usefixtures("opened")
async def test_parts_ahead_from_a_real_server(seaweedfs: S3Server) -> None:
    store = ServerStore(seaweedfs)
    await store.write("a", LARGE)
    driver = store.driver()
    for wanted in (None, RangeRequest(3 << 20)):
        expected = LARGE[wanted.start or 0 :] if wanted else LARGE
        assert same(await content(await driver.open("a", wanted)), expected)
    assert buffers_are_back(driver)
    await driver.aclose()


@pytest.mark.slow
@pytest.mark.usefixtures("opened")
async def test_parts_ahead_that_break_are_fetched_again(driver: S3Driver, bucket: MemoryBucket) -> None:
    bucket.store("root/a", LARGE)
    bucket.breaks = [None, 5, None, 3 * CHUNK, 0, None, 1]
    assert same(await content(await driver.open("a")), LARGE)
    bucket.faults = [Fault("get", 3, times=2)]
    assert same(await content(await driver.open("a")), LARGE)
    assert buffers_are_back(driver)


@pytest.mark.slow
@pytest.mark.usefixtures("opened")
async def test_memory_is_one_budget_for_all_readers(bucket: MemoryBucket) -> None:
    bucket.store("a", LARGE)
    ahead = LookAhead(2 * PART)
    readers = [S3Reader(bucket, "a", await bucket.get("a"), ahead) for _ in range(4)]
    contents = await asyncio.gather(*[content(reader) for reader in readers])
    assert all(same(found, LARGE) for found in contents)
    assert len(ahead.buffers._free) == 2


@pytest.mark.slow
@pytest.mark.usefixtures("opened")
@pytest.mark.parametrize("size", [1, PART - 1, PART, 3 * PART])
async def test_a_slow_client_holds_everything_back(driver: S3Driver, bucket: MemoryBucket, size: int) -> None:
    bucket.store("root/a", LARGE)
    reader = await driver.open("a")
    chunks, got = reader.chunks(), 0
    while got < size:
        got += len(await anext(chunks))
    for _ in range(1000):
        await asyncio.sleep(0)
    asked = max(body.span.start for body in bucket.bodies)
    assert asked < size + 5 * PART
    task = asyncio.ensure_future(anext(chunks))  # cancelled in the middle of it
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    await reader.aclose()
    await reader.aclose()
    assert all(body.closed for body in bucket.bodies)
    assert buffers_are_back(driver)


@pytest.mark.usefixtures("opened")
async def test_small_objects_are_one_call_whatever_the_window(driver: S3Driver, bucket: MemoryBucket) -> None:
    bucket.store("root/a", LARGE[: 4 * PART])
    assert await content(await driver.open("a")) == LARGE[: 4 * PART]
    assert bucket.verbs() == ["get"]


def buffers_are_back(driver: S3Driver) -> bool:
    buffers = driver._ahead.buffers
    return len(buffers._free) + buffers._left == 8 and driver._ahead.readers == 0


# The window


class Link:
    """A store that gives so much a second to each connection, and so much to all. now: a clock of its own.

    speeds: by which all rates are multiplied, span after span: others use the machine, too.
    """

    def __init__(self, each: float, together: float, speeds: tuple[float, ...] = (1.0,)) -> None:
        self.each, self.together, self.now = each, together, 0.0
        self.window = Window()
        self._speeds = cycle(speeds)

    def read(self, spans: int, readers: int = 1, waited: float = 1.0) -> list[int]:
        """Rates are learned while spans are read; the parts of each."""
        used = []
        for _ in range(spans):
            parts = self.window.parts(readers)
            used.append(parts)
            elapsed = SPAN / min(self.each * (parts + 1), self.together / readers) / next(self._speeds)
            self.now += elapsed
            self.window.record(parts, readers, SPAN, elapsed, elapsed * waited, self.now)
        return used


def turns(*parts: int) -> list[int]:
    return [each for each in parts for _ in range(SAMPLES)]


@pytest.mark.parametrize("together", [1e9, 300e6])
def test_the_window_opens_where_connections_are_capped(together: float) -> None:
    assert Link(90e6, together).read(10) == [*turns(0, 7, 0), 7, 7, 7, 7]


def test_the_window_stays_shut_where_one_stream_takes_all() -> None:
    assert Link(800e6, 800e6).read(100) == [*turns(0, 7), *[0] * 96]


@pytest.mark.parametrize(("first", "then"), [(0.4, 1.0), (1.0, 0.4)])
def test_what_speeds_up_by_itself_opens_no_window(first: float, then: float) -> None:
    """A stream had the machine to share at first, and has it alone later; or the other way round."""
    for spans in range(1, 12):
        link = Link(800e6, 800e6, speeds=(first,) * spans + (then,) * 100)
        assert set(link.read(100)[4 * SAMPLES :]) == {0}, spans


def test_the_window_is_not_opened_by_slow_clients() -> None:
    assert set(Link(90e6, 1e9).read(50, waited=0.2)) == {0}


def test_a_client_that_is_overtaken_by_what_is_tried() -> None:
    """It was waiting for the store, and is not any more: that counts for the wider window."""
    link = Link(90e6, 300e6)
    link.read(SAMPLES)
    link.read(SAMPLES, waited=0.0)
    assert link.read(SAMPLES + 1)[-1] == 7


def test_only_readers_of_large_objects_try() -> None:
    link = Link(90e6, 1e9)
    link.read(SAMPLES)
    assert (link.window.parts(1), link.window.parts(1, tries=False)) == (7, 0)
    link.read(2 * SAMPLES)
    assert link.window.parts(1, tries=False) == 7, "what has been found is for all"


def test_many_readers_need_no_window() -> None:
    link = Link(90e6, 10e9)
    assert set(link.read(50, readers=8)) == {0}
    assert max(link.read(50, readers=2)) == 3
    assert max(link.read(50)) == 7
    assert set(link.read(10, readers=16)) == {0}
    link = Link(90e6, 10e9)
    link.read(SAMPLES)
    assert link.read(3, readers=4) == [1, 0, 0], "what is being tried is given up when others come"


def test_what_was_learned_is_looked_at_again() -> None:
    link = Link(90e6, 1e9)
    link.read(20)
    link.each = link.together = 700e6
    link.now += 10_000
    assert link.read(40)[-1] == 0
    link.each = 90e6
    link.together = 1e9
    link.now += 10_000
    assert link.read(40)[-1] == 7


@pytest.mark.slow
async def test_only_spans_that_were_read_in_one_way_count(driver: S3Driver, bucket: MemoryBucket) -> None:
    """And only those of large objects. Behind a change what is ahead is left out, and at a start with parts ahead."""
    told: list[int] = []

    class Told(Window):
        def record(self, parts: int, readers: int, size: int, elapsed: float, waited: float, now: float) -> None:
            assert SPAN <= size < SPAN + CHUNK
            assert readers == 1
            told.append(parts)
            super().record(parts, readers, size, 1 / (1 + parts), 1.0, now)

    driver._ahead.window = Told()
    bucket.store("root/small", bytes(TRYING - 1))
    bucket.store("root/large", bytes(TRYING))
    for key, expected in (("small", []), ("large", [0, 0]), ("large", [7, 7]), ("large", [0, 0]), ("large", [7, 7])):
        await content(await driver.open(key))
        assert told == expected
        told.clear()
    assert buffers_are_back(driver)
