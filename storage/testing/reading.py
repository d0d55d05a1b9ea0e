"""What a store holds can be read: whole, in ranges, by several, while it goes away. Part of DriverContract."""

import asyncio
import os
from collections.abc import Awaitable

import pytest

from storage.driver import CHUNK, StorageDriver
from storage.errors import ObjectNotFound, RangeNotSatisfiable, Unavailable
from storage.ranges import ByteRange, RangeRequest
from storage.testing.tools import BAD_KEYS, ODD_KEYS, TURNS, DriverFixtures, content, keys, pattern


class ReadingContract(DriverFixtures):
    """open, read, head, url, now."""

    @pytest.mark.parametrize("key", BAD_KEYS)
    async def test_what_is_no_key_is_refused(self, driver: StorageDriver, key: str) -> None:
        verbs: list[Awaitable[object]] = [
            driver.open(key),
            driver.read(key),
            driver.head(key),
            driver.put(key, b""),
            driver.delete(key),
            driver.move(key, "target", 0),
            driver.touch(key),
            driver.begin(key),
        ]
        if key:  # the root has no key, but it is a folder
            verbs += [keys(driver.list_objects(key)), driver.list_folders(key), driver.delete_tree(key)]
        for verb in verbs:
            with pytest.raises(ValueError, match="key"):
                await verb
        await driver.put("source", b"")
        with pytest.raises(ValueError, match="key"):
            await driver.move("source", key, 0)

    @pytest.mark.parametrize("key", ODD_KEYS)
    async def test_any_key_holds_an_object(self, driver: StorageDriver, key: str) -> None:
        await driver.put(key, b"data")
        assert await self.raw_read(driver, key) == b"data"
        assert await driver.read(key) == b"data"
        assert await keys(driver.list_objects("")) == [key]

    @pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK])
    async def test_open_gives_all_bytes(self, driver: StorageDriver, size: int) -> None:
        data = pattern(size)
        await self.raw_write(driver, "a/b", data)
        async with await driver.open("a/b") as reader:
            assert (reader.size, reader.span) == (size, ByteRange(0, size))
            chunks = [chunk async for chunk in reader.chunks()]
        assert b"".join(chunks) == data
        assert all(0 < len(chunk) <= 2 * CHUNK for chunk in chunks)

    @pytest.mark.parametrize(
        ("wanted", "start", "stop"),
        [
            (RangeRequest(0), 0, 3_000_000),
            (RangeRequest(0, 1), 0, 1),
            (RangeRequest(0, 3_000_000), 0, 3_000_000),
            (RangeRequest(1_048_575, 1_048_577), 1_048_575, 1_048_577),
            (RangeRequest(500_000, 2_900_000), 500_000, 2_900_000),
            (RangeRequest(2_999_999), 2_999_999, 3_000_000),
            (RangeRequest(10, 9_000_000), 10, 3_000_000),
            (RangeRequest(suffix=1), 2_999_999, 3_000_000),
            (RangeRequest(suffix=9_000_000), 0, 3_000_000),
        ],
        ids=str,
    )
    async def test_open_gives_a_range(self, driver: StorageDriver, wanted: RangeRequest, start: int, stop: int) -> None:
        data = pattern(3_000_000)
        await driver.put("a", data)
        reader = await driver.open("a", wanted)
        assert (reader.size, reader.span) == (3_000_000, ByteRange(start, stop))
        assert await content(reader) == data[start:stop]

    @pytest.mark.parametrize(
        ("size", "wanted"),
        [(0, RangeRequest(0)), (0, RangeRequest(suffix=5)), (3, RangeRequest(3)), (3, RangeRequest(suffix=0))],
        ids=str,
    )
    async def test_a_range_without_bytes(self, driver: StorageDriver, size: int, wanted: RangeRequest) -> None:
        await driver.put("a", pattern(size))
        with pytest.raises(RangeNotSatisfiable) as caught:
            await driver.open("a", wanted)
        assert caught.value.size == size

    async def test_what_is_missing(self, driver: StorageDriver) -> None:
        await driver.put("a/b/c", b"")
        for key in ("x", "a", "a/b", "a/b/x", "a/b/c/d", "x/y/z", "a" * 300):
            for verb in (driver.open(key), driver.read(key), driver.head(key), driver.touch(key)):
                with pytest.raises(ObjectNotFound):
                    await verb

    async def test_a_small_object_in_one_go(self, driver: StorageDriver) -> None:
        await driver.put("a", b"12345")
        assert await driver.read("a", 5) == b"12345"
        with pytest.raises(Unavailable):
            await driver.read("a", 4)
        async with await driver.open("a", RangeRequest(1, 4)) as reader:
            with pytest.raises(Unavailable):
                await reader.read(2)
            assert await reader.read(3) == b"234"

    async def test_a_reader_outlives_its_object(self, driver: StorageDriver) -> None:
        data = pattern(3 * CHUNK)
        for end in (
            lambda: driver.put("a/b", b"new"),
            lambda: driver.delete("a/b"),
            lambda: driver.delete_tree("a"),
            lambda: driver.move("a/b", "c", len(data)),
        ):
            await driver.put("a/b", data)
            async with await driver.open("a/b") as reader:
                chunks = reader.chunks()
                first = await anext(chunks)
                await end()
                assert first + b"".join([chunk async for chunk in chunks]) == data

    async def test_a_reader_suspends_once_a_chunk(self, driver: StorageDriver) -> None:
        await driver.put("a", pattern(5 * CHUNK))
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counter = asyncio.create_task(count())
        async with await driver.open("a") as reader:
            before = turns
            chunks = 0
            async for _ in reader.chunks():
                chunks += 1
                assert turns - before >= chunks
        counter.cancel()

    async def test_a_reader_can_be_cancelled_and_closed_twice(self, driver: StorageDriver) -> None:
        await driver.put("a", pattern(4 * CHUNK))
        for turns in range(TURNS):
            reader = await driver.open("a")
            await self.cancelled(lambda reader=reader: content(reader), turns)  # type: ignore[misc]  # bound at once
            await reader.aclose()
            await reader.aclose()

    async def test_a_reader_has_a_file_or_none(self, driver: StorageDriver) -> None:
        data = pattern(100_000)
        await driver.put("a", data)
        async with await driver.open("a", RangeRequest(10)) as reader:
            if reader.file is None:
                return
            assert os.pread(reader.file.fileno(), 200_000, 0) == data
            copy = os.dup(reader.file.fileno())
        try:
            assert os.pread(copy, 5, 99_995) == data[-5:]
        finally:
            os.close(copy)

    async def test_head(self, driver: StorageDriver) -> None:
        before = await driver.now()
        version = await driver.put("a/b", b"12345")
        after = await driver.now()
        info = await driver.head("a/b")
        assert (info.key, info.size, info.version) == ("a/b", 5, version)
        assert before - 1 <= info.modified <= after + 1, "seconds, by the store's clock"

    async def test_what_others_have_stored_is_seen(self, driver: StorageDriver) -> None:
        await self.raw_write(driver, "x/y", b"theirs")
        assert await driver.read("x/y") == b"theirs"
        assert (await driver.head("x/y")).size == 6
        assert await keys(driver.list_objects("")) == ["x/y"]
        assert await driver.list_folders("") == ["x"]

    async def test_url_is_none_or_an_address(self, driver: StorageDriver) -> None:
        await driver.put("a", b"")
        for method in ("GET", "HEAD"):
            url = await driver.url("a", method, 60)
            assert url is None or "://" in url
