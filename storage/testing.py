"""DriverContract: every sentence of storage/driver.py as a test, for ours and for other people's drivers.

    class TestMyDriver(DriverContract):
        @pytest.fixture
        async def driver(self):
            driver = MyDriver()
            yield driver
            await driver.aclose()

        async def raw_read(self, driver, key): ...        # behind the driver's back: what the store itself holds
        async def raw_write(self, driver, key, data): ...

Needs pytest and pytest-asyncio in auto mode; docs/drivers.md has the rest. Tests are deterministic: they wait for
events and count turns of the loop, and never for time to pass.
"""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Awaitable
from contextlib import suppress

import pytest

from storage.driver import CHUNK, Stage, StorageDriver
from storage.errors import (
    NotFound,
    ObjectNotFound,
    OffsetMismatch,
    PreconditionFailed,
    RangeNotSatisfiable,
    Unavailable,
)
from storage.ranges import ByteRange, RangeRequest
from storage.testing_content import ContentContract
from storage.testing_tools import (
    BAD_KEYS,
    NEIGHBOURS,
    ODD_KEYS,
    TURNS,
    DriverFixtures,
    Tapped,
    Valve,
    content,
    keys,
    never,
    pattern,
    pieces,
    soon,
)


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


class ListingContract(DriverFixtures):
    """list_objects, list_folders."""

    @pytest.fixture
    async def filled(self, driver: StorageDriver) -> StorageDriver:
        for key in reversed(NEIGHBOURS):
            await driver.put(key, key.encode())
        return driver

    async def test_objects_are_ordered_by_key(self, filled: StorageDriver) -> None:
        assert sorted(NEIGHBOURS) == NEIGHBOURS
        assert await keys(filled.list_objects("")) == NEIGHBOURS

    async def test_objects_are_described(self, filled: StorageDriver) -> None:
        async for info in filled.list_objects("a"):
            assert info == await filled.head(info.key)

    @pytest.mark.parametrize("prefix", ["a", "a/b", "a-b", "b", "a/b/c", "a0", "x", "a.b-c", "a_"])
    async def test_objects_below_a_folder(self, filled: StorageDriver, prefix: str) -> None:
        below = [key for key in NEIGHBOURS if key.startswith(f"{prefix}/")]
        assert await keys(filled.list_objects(prefix)) == below

    @pytest.mark.parametrize("prefix", ["", "a"])
    @pytest.mark.parametrize(
        "after", [*NEIGHBOURS, "A", "a/", "a/b/", "a/b/a", "a/b/d", "a-", "a-c", "a.", "a/b", "zz"]
    )
    async def test_objects_after(self, filled: StorageDriver, prefix: str, after: str) -> None:
        expected = [key for key in NEIGHBOURS if key > after and key.startswith(f"{prefix}/" if prefix else "")]
        assert await keys(filled.list_objects(prefix, after)) == expected

    async def test_nothing_is_listed_twice_or_left_out_while_others_write(self, driver: StorageDriver) -> None:
        names = [f"a/{number:03}/{leaf}" for number in range(300) for leaf in ("x", "y")]
        await asyncio.gather(*(driver.put(name, b"") for name in names))
        seen = []
        async for info in driver.list_objects("a"):
            seen.append(info.key)
            if info.key == "a/010/y":
                await driver.delete_tree("a/200")
                await driver.delete("a/299/x")
                await driver.put("a/250/new", b"")
                await driver.delete_tree("a/005")
        gone = {"a/200/x", "a/200/y", "a/299/x", "a/250/new"}
        assert [key for key in seen if key not in gone] == [key for key in names if key not in gone]
        assert len(seen) == len(set(seen))

    async def test_a_listing_can_be_given_up(self, driver: StorageDriver) -> None:
        await asyncio.gather(*(driver.put(f"a/{number:03}/x", b"") for number in range(100)))
        listing = driver.list_objects("")
        assert (await anext(listing)).key == "a/000/x"
        await listing.aclose()  # type: ignore[attr-defined]  # both kinds of iterators that a driver may return have it

    async def test_folders(self, filled: StorageDriver) -> None:
        assert await filled.list_folders("") == ["a", "a-b", "a.b-c", "a_"]
        assert await filled.list_folders("a") == ["b", "b-"]
        assert await filled.list_folders("a/b") == []
        assert await filled.list_folders("b") == [], "an object is no folder"
        assert await filled.list_folders("x/y") == []

    @pytest.mark.parametrize("after", ["", "a", "a-", "a-b", "a.", "b", "B"])
    @pytest.mark.parametrize("limit", [0, 1, 2, 3, 4, 100, None])
    async def test_folders_in_pages(self, filled: StorageDriver, after: str, limit: int | None) -> None:
        expected = [name for name in ["a", "a-b", "a.b-c", "a_"] if name > after][:limit]
        assert await filled.list_folders("", after=after, limit=limit) == expected

    async def test_folders_are_ordered_by_code_point(self, driver: StorageDriver) -> None:
        names = ["-", ".x", "0", "A", "Z", "_", "a", "a-b", "a.b", "a0", "aa", "b"]
        for name in reversed(names):
            await driver.put(f"p/{name}/x", b"")
        assert await driver.list_folders("p") == names

    async def test_folders_containing(self, driver: StorageDriver) -> None:
        for key in (
            "t/1/current/link",
            "t/2/index/link",
            "t/3/current/link/x",
            "t/4/current/link",
            "t/5/current/linked",
        ):
            await driver.put(key, b"")
        await driver.put("t/current/link", b"")
        found = ["1", "4"]
        assert await driver.list_folders("t", containing="current/link") == found
        assert await driver.list_folders("t", containing="current/link", limit=1) == found[:1]
        assert await driver.list_folders("t", containing="current/link", after="1") == found[1:]
        assert await driver.list_folders("", containing="4/current/link") == ["t"]

    async def test_an_emptied_folder_is_not_listed(self, driver: StorageDriver) -> None:
        for key in ("a/b/c", "a/x", "d/e/f/g"):
            await driver.put(key, b"")
        await driver.delete("a/b/c")
        assert await driver.list_folders("a") == []
        assert await driver.list_folders("") == ["a", "d"]
        await driver.delete("a/x")
        await driver.delete_tree("d/e/f")
        assert await driver.list_folders("") == []
        assert await keys(driver.list_objects("")) == []

    async def test_find_folders(self, driver: StorageDriver) -> None:
        for key in (
            "r/a/_m/x",
            "r/a/b/_m/x/y",
            "r/a-b/_m/x",
            "r/c/d/e/_m/y",
            "r/q/_l/x",
            "r/_h/z/_m/x",
            "other/a/_m/x",
        ):
            await driver.put(key, b"")
        assert await driver.find_folders("r", "_m") == ["a", "a/b", "a-b", "c/d/e"]
        assert await driver.find_folders("r", "_l") == ["q"]
        assert await driver.find_folders("none", "_m") == []

    @pytest.mark.parametrize(
        ("after", "found"),
        [
            ("a", ["a/b", "a-b", "c/d/e"]),
            ("a/b", ["a-b", "c/d/e"]),
            ("a/zz", ["a-b", "c/d/e"]),
            ("b", ["c/d/e"]),
            ("c/d", ["c/d/e"]),
            ("c/d/e", []),
            ("c/d/e/f", []),
            ("../x", ["a", "a/b", "a-b", "c/d/e"]),
            ("zz", []),
        ],
    )
    async def test_find_folders_page_by_page(self, driver: StorageDriver, after: str, found: list[str]) -> None:
        for name in ("a", "a/b", "a-b", "c/d/e"):
            await driver.put(f"r/{name}/_m/x", b"")
        assert await driver.find_folders("r", "_m", after=after) == found
        for limit in (0, 1, 2):
            assert await driver.find_folders("r", "_m", after=after, limit=limit) == found[:limit]

    async def test_find_folders_in_a_wide_folder(self, driver: StorageDriver) -> None:
        names = [f"{number:03}" for number in range(250)]
        for name in names:
            await driver.put(f"r/{name}/_m/x", b"")
        await driver.put("r/_m/x", b"")
        assert await driver.find_folders("", "_m") == ["r", *(f"r/{name}" for name in names)]


class WritingContract(DriverFixtures):
    """put, delete, delete_tree, move, touch."""

    async def test_put_replaces(self, driver: StorageDriver) -> None:
        for data in (b"first, and longer", b"second", b"", b"third"):
            await driver.put("a/b", data)
            assert await self.raw_read(driver, "a/b") == data
        assert await keys(driver.list_objects("")) == ["a/b"]

    async def test_every_put_has_a_version_of_its_own(self, driver: StorageDriver) -> None:
        versions = []
        for _ in range(30):
            versions.append(await driver.put("a", b"same"))
            assert (await driver.head("a")).version == versions[-1]
        assert len(set(versions)) == 30

    async def test_put_is_seen_whole(self, driver: StorageDriver, other: StorageDriver) -> None:
        old, new = pattern(300_000, "old"), pattern(400_000, "new")
        await driver.put("a", old)
        done = asyncio.Event()

        async def write() -> None:
            for number in range(20):
                await driver.put("a", old if number % 2 else new)
            done.set()

        async def read() -> None:
            while not done.is_set():
                assert await content(await other.open("a")) in (old, new)

        await asyncio.gather(write(), read(), read())

    async def test_if_absent(self, driver: StorageDriver) -> None:
        version = await driver.put("a/b", b"first", if_absent=True)
        assert (await driver.head("a/b")).version == version
        with pytest.raises(PreconditionFailed):
            await driver.put("a/b", b"second", if_absent=True)
        assert await self.raw_read(driver, "a/b") == b"first"
        await driver.delete("a/b")
        await driver.put("a/b", b"third", if_absent=True)
        assert await self.raw_read(driver, "a/b") == b"third"

    async def test_if_version(self, driver: StorageDriver) -> None:
        assert await driver.conditions_hold()
        with pytest.raises(PreconditionFailed):
            await driver.put("a/b", b"", if_version="1")
        assert await self.raw_read(driver, "a/b") is None
        first = await driver.put("a/b", b"first")
        second = await driver.put("a/b", b"second", if_version=first)
        with pytest.raises(PreconditionFailed):
            await driver.put("a/b", b"third", if_version=first)
        assert await self.raw_read(driver, "a/b") == b"second"
        await driver.delete("a/b")
        with pytest.raises(PreconditionFailed):
            await driver.put("a/b", b"third", if_version=second)

    async def test_one_of_many_is_first(self, driver: StorageDriver, other: StorageDriver) -> None:
        for number in range(10):
            values = [pattern(1000, f"{number}-{writer}") for writer in range(8)]
            puts = (
                (other if writer % 2 else driver).put(f"a/{number}", value, if_absent=True)
                for writer, value in enumerate(values)
            )
            results = await asyncio.gather(*puts, return_exceptions=True)
            [winner] = [writer for writer, result in enumerate(results) if isinstance(result, str)]
            assert all(isinstance(r, PreconditionFailed) for w, r in enumerate(results) if w != winner)
            assert await self.raw_read(driver, f"a/{number}") == values[winner]

    async def test_no_update_is_lost(self, driver: StorageDriver, other: StorageDriver) -> None:
        await driver.put("counter", b"0")

        async def count(mine: StorageDriver) -> None:
            for _ in range(10):
                while True:
                    version = (await mine.head("counter")).version
                    value = int(await mine.read("counter"))
                    with suppress(PreconditionFailed):
                        await mine.put("counter", b"%d" % (value + 1), if_version=version)
                        break

        await asyncio.gather(count(driver), count(other), count(driver), count(other))
        assert await driver.read("counter") == b"40"

    async def test_a_private_object(self, driver: StorageDriver) -> None:
        await driver.put("a/secret", b"1234", private=True)
        assert await driver.read("a/secret") == b"1234"

    async def test_delete(self, driver: StorageDriver) -> None:
        for key in ("a/b", "a/b-c", "a/c/d"):
            await driver.put(key, b"")
        for _ in range(2):
            await driver.delete("a/b")
            assert await self.raw_read(driver, "a/b") is None
            assert await keys(driver.list_objects("")) == ["a/b-c", "a/c/d"]
        await driver.delete("a/c")
        await driver.delete("a/b-c/x")
        await driver.delete("x/y/z")
        await driver.delete("x" * 300)
        assert await keys(driver.list_objects("")) == ["a/b-c", "a/c/d"]

    async def test_delete_if_version(self, driver: StorageDriver) -> None:
        old = await driver.put("a/b", b"old")
        new = await driver.put("a/b", b"new")
        with pytest.raises(PreconditionFailed):
            await driver.delete("a/b", if_version=old)
        assert await self.raw_read(driver, "a/b") == b"new"
        await driver.delete("a/b", if_version=new)
        assert await self.raw_read(driver, "a/b") is None
        await driver.delete("a/b", if_version=new)

    async def test_a_put_survives_deletes_of_the_version_before(
        self, driver: StorageDriver, other: StorageDriver
    ) -> None:
        for _ in range(20):
            old = await driver.put("a/b", b"old")
            results = await asyncio.gather(
                driver.put("a/b", b"new"),
                *(each.delete("a/b", if_version=old) for each in (driver, other) * 4),
                return_exceptions=True,
            )
            assert not [r for r in results if isinstance(r, Exception) and not isinstance(r, PreconditionFailed)]
            assert await driver.read("a/b") == b"new"

    async def test_delete_tree(self, driver: StorageDriver) -> None:
        stay = ["a/b-c/x", "a/b.d", "a/b0/x", "a/c"]
        for key in ("a/b/c", "a/b/d/e/f", "a/b/d/g", *stay):
            await driver.put(key, b"")
        for _ in range(2):
            await driver.delete_tree("a/b")
            assert await self.raw_read(driver, "a/b/c") is None
            assert await keys(driver.list_objects("")) == stay
        await driver.delete_tree("a/c")
        await driver.delete_tree("x/y")
        assert await keys(driver.list_objects("")) == stay, "an object is not below itself"

    async def test_the_whole_store_can_be_emptied(self, driver: StorageDriver) -> None:
        for key in NEIGHBOURS:
            await driver.put(key, b"")
        await driver.delete_tree("")
        assert await keys(driver.list_objects("")) == []
        await driver.put("a/b", b"again")
        assert await driver.read("a/b") == b"again"

    async def test_puts_race_with_a_delete_of_their_folder(self, driver: StorageDriver, other: StorageDriver) -> None:
        for number in range(10):
            await driver.put(f"a/{number}/old", b"old")
            puts = [driver.put(f"a/{number}/{n}/x", b"new") for n in range(8)]
            await asyncio.gather(*puts[:4], other.delete_tree(f"a/{number}"), *puts[4:])
            left = [await driver.read(key) for key in await keys(driver.list_objects(f"a/{number}"))]
            assert left == [b"new"] * len(left)

    async def test_puts_race_with_deletes_that_empty_their_folder(
        self, driver: StorageDriver, other: StorageDriver
    ) -> None:
        for number in range(10):
            await driver.put("a/b/c/old", b"old")
            await asyncio.gather(other.delete("a/b/c/old"), driver.put("a/b/c/new", b"%d" % number))
            assert await keys(driver.list_objects("")) == ["a/b/c/new"]
            assert await driver.read("a/b/c/new") == b"%d" % number
            await driver.delete("a/b/c/new")

    async def test_move(self, driver: StorageDriver) -> None:
        data = pattern(2 * CHUNK + 5)
        await driver.put("a/b/c", data)
        await driver.put("x/y", b"older")
        await driver.move("a/b/c", "x/y", len(data))
        assert await self.raw_read(driver, "x/y") == data
        assert await self.raw_read(driver, "a/b/c") is None
        assert await keys(driver.list_objects("")) == ["x/y"]
        await driver.move("x/y", "x/z/y", len(data))
        assert await keys(driver.list_objects("")) == ["x/z/y"]

    async def test_move_of_what_is_not_so(self, driver: StorageDriver) -> None:
        await driver.put("a", b"12345")
        await driver.put("b", b"other")
        with pytest.raises(ObjectNotFound):
            await driver.move("x/y", "b", 5)
        for size in (0, 4, 6):
            with pytest.raises(OffsetMismatch) as caught:
                await driver.move("a", "b", size)
            assert caught.value.expected == 5
        assert [await driver.read("a"), await driver.read("b")] == [b"12345", b"other"]

    async def test_move_is_seen_whole(self, driver: StorageDriver, other: StorageDriver) -> None:
        old, new = pattern(3 * CHUNK, "old"), pattern(4 * CHUNK, "new")
        await driver.put("b/target", old)
        await driver.put("a/source", new)
        done = asyncio.Event()

        async def move() -> None:
            await driver.move("a/source", "b/target", len(new))
            done.set()

        async def read() -> None:
            while not done.is_set():
                assert await content(await other.open("b/target")) in (old, new)

        await asyncio.gather(read(), move(), read())
        assert await driver.read("b/target") == new

    async def test_touch(self, driver: StorageDriver) -> None:
        await driver.put("a", b"data")
        before = await driver.head("a")
        await driver.touch("a")
        after = await driver.head("a")
        assert after.modified >= before.modified
        assert abs(after.modified - await driver.now()) < 2
        assert await driver.read("a") == b"data"

    async def test_a_cancelled_verb_has_happened_or_not(self, driver: StorageDriver) -> None:
        for turns in range(TURNS):
            await driver.put("a/b", b"old")
            await self.cancelled(lambda: driver.put("a/b", b"new"), turns)
            assert await driver.read("a/b") in (b"old", b"new")
            await self.cancelled(lambda: driver.open("a/b"), turns)
            await self.cancelled(lambda: driver.move("a/b", "c/d", 3), turns)
            assert await keys(driver.list_objects("")) in (["a/b"], ["c/d"])
            await self.cancelled(lambda: driver.delete_tree("c"), turns)
            await self.cancelled(lambda: driver.delete("a/b"), turns)
            # what was cancelled is over: nothing of it may turn up any more
            before = await keys(driver.list_objects(""))
            await driver.put("z", b"")
            assert await keys(driver.list_objects("")) == [*before, "z"]
            await driver.delete_tree("")

    async def test_check_writable(self, driver: StorageDriver) -> None:
        await driver.check_writable()
        assert await keys(driver.list_objects("")) == []
        assert await driver.list_folders("") == []

    async def test_aclose_twice(self, driver: StorageDriver) -> None:
        await driver.put("a", b"")
        await driver.delete("a")
        await driver.aclose()
        await driver.aclose()


class StageContract(DriverFixtures):
    """begin, find_stage, append, stage_info, complete, abort."""

    async def test_a_stage_becomes_an_object(self, driver: StorageDriver, other: StorageDriver) -> None:
        data = pattern(5 * CHUNK + 7)
        stage = await driver.begin("u/1/data")
        assert (await driver.stage_info(stage)).offset == 0
        half = len(data) // 2
        assert await driver.append(stage, 0, pieces(data[:half])) == half
        assert (await driver.stage_info(stage)).offset == half
        # another process, which has the name of the stage alone
        stage = Stage(str(await other.find_stage("u/1/data")))
        assert await other.append(stage, half, pieces(data[half:])) == len(data)
        await other.complete(stage, len(data))
        assert await self.raw_read(driver, "u/1/data") == data
        await driver.move("u/1/data", "b/data", len(data))
        assert await self.raw_read(driver, "b/data") == data
        assert await keys(driver.list_objects("")) == ["b/data"]

    async def test_an_empty_stage_becomes_an_object(self, driver: StorageDriver) -> None:
        stage = await driver.begin("a")
        assert await driver.append(stage, 0, pieces()) == 0
        await driver.complete(stage, 0)
        assert await self.raw_read(driver, "a") == b""
        assert await content(await driver.open("a")) == b""

    async def test_a_hidden_stage_shows_nothing(self, driver: StorageDriver) -> None:
        await driver.put("a", b"older")
        stage = await self.staged(driver, "a", b"newer, still growing")
        if driver.stages_are_hidden:
            assert await driver.read("a") == b"older"
        await driver.complete(stage, 20)
        assert await driver.read("a") == b"newer, still growing"

    @pytest.mark.parametrize(
        "sizes",
        [[], [0], [1], [0, 5, 0], [1] * 3000, [CHUNK], [CHUNK - 1, 2], [700_000] * 7, [5 * CHUNK, 3], [3, 5 * CHUNK]],
        ids=lambda sizes: f"{len(sizes)}x{sizes[0] if sizes else 0}",
    )
    async def test_append(self, driver: StorageDriver, sizes: list[int]) -> None:
        data = pattern(sum(sizes))
        ends = [sum(sizes[: n + 1]) for n in range(len(sizes))]
        chunks = [data[end - size : end] for end, size in zip(ends, sizes, strict=True)]
        stage = await self.staged(driver, "a/b", b"before")
        tap = Tapped()
        assert await driver.append(stage, 6, pieces(*chunks), tap) == 6 + len(data)
        assert tap.data == data
        assert threading.get_ident() not in tap.threads
        await driver.complete(stage, 6 + len(data))
        assert await self.raw_read(driver, "a/b") == b"before" + data

    async def test_append_without_a_stage(self, driver: StorageDriver) -> None:
        for key in ("a", "x/y"):
            with pytest.raises(ObjectNotFound):
                await driver.append(await driver.find_stage(key), 0, never())
            with pytest.raises(ObjectNotFound):
                await driver.stage_info(await driver.find_stage(key))
            with pytest.raises(ObjectNotFound):
                await driver.complete(await driver.find_stage(key), 0)

    async def test_append_at_the_wrong_offset(self, driver: StorageDriver) -> None:
        stage = await self.staged(driver, "a", b"12345")
        for offset in (0, 4, 6):
            with pytest.raises(OffsetMismatch) as caught:
                await driver.append(stage, offset, never())
            assert caught.value.expected == 5
        assert (await driver.stage_info(stage)).offset == 5

    async def test_somebody_appends_in_between(self, driver: StorageDriver, other: StorageDriver) -> None:
        ours, theirs = pattern(self.batch, "ours"), b"theirs"
        stage = await driver.begin("a")
        valve, tap = Valve([ours], [pattern(self.batch, "late")]), Tapped()
        slow = asyncio.create_task(driver.append(stage, 0, valve.chunks(), tap))
        await soon(tap.arrived)
        # nobody holds a lock while our client takes its time
        assert await other.append(stage, len(ours), pieces(theirs)) == len(ours) + len(theirs)
        valve.gate.set()
        with pytest.raises(OffsetMismatch) as caught:
            await slow
        assert caught.value.expected == len(ours) + len(theirs)
        assert tap.data == ours
        await driver.complete(stage, len(ours) + len(theirs))
        assert await self.raw_read(driver, "a") == ours + theirs

    async def test_two_append_at_once(self, driver: StorageDriver, other: StorageDriver) -> None:
        for number in range(10):
            values = [pattern(2 * CHUNK + number, f"{number}-{writer}") for writer in range(4)]
            stage = await driver.begin("a")
            appends = (
                mine.append(stage, 0, pieces(value[:700_000], value[700_000:]))
                for mine, value in zip([driver, other, driver, other], values, strict=True)
            )
            results = await asyncio.gather(*appends, return_exceptions=True)
            [winner] = [writer for writer, result in enumerate(results) if isinstance(result, int)]
            assert all(isinstance(r, OffsetMismatch) for w, r in enumerate(results) if w != winner)
            await driver.complete(stage, len(values[winner]))
            assert await self.raw_read(driver, "a") == values[winner]

    async def test_chunks_raise(self, driver: StorageDriver) -> None:
        class ClientGone(Exception):
            pass

        data = pattern(2 * CHUNK + 5)

        async def broken() -> AsyncIterator[bytes]:
            yield data[:CHUNK]
            yield data[CHUNK:-5]
            yield data[-5:]
            raise ClientGone

        stage, tap = await driver.begin("a"), Tapped()
        with pytest.raises(ClientGone):
            await driver.append(stage, 0, broken(), tap)
        assert tap.data == data
        assert (await driver.stage_info(stage)).offset == len(data)
        await driver.complete(stage, len(data))
        assert await self.raw_read(driver, "a") == data

    async def test_append_is_cancelled_while_it_waits(self, driver: StorageDriver) -> None:
        data = pattern(3 * self.batch + 5)
        stage, tap = await driver.begin("a"), Tapped()
        valve = Valve([data[: self.batch], data[self.batch :]])
        task = asyncio.create_task(driver.append(stage, 0, valve.chunks(), tap))
        await soon(valve.waiting)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await self.goes_on(driver, stage, tap, data)

    async def test_append_is_cancelled_anywhere(self, driver: StorageDriver) -> None:
        data = pattern(4 * CHUNK)
        for turns in range(TURNS):
            stage, tap = await driver.begin("a"), Tapped()
            chunks = pieces(*(data[start : start + 300_000] for start in range(0, len(data), 300_000)))
            await self.cancelled(
                lambda stage=stage, chunks=chunks, tap=tap: driver.append(stage, 0, chunks, tap),  # type: ignore[misc]  # bound at once
                turns,
            )
            await self.goes_on(driver, stage, tap, data)

    async def goes_on(self, driver: StorageDriver, stage: Stage, tap: Tapped, data: bytes) -> None:
        """After a broken append, the rest can be added where stage_info says."""
        stored = (await driver.stage_info(stage)).offset
        assert data.startswith(bytes(tap.data))
        assert len(tap.data) <= stored <= len(data)
        assert await driver.append(stage, stored, pieces(data[stored:])) == len(data)
        await driver.complete(stage, len(data))
        assert await self.raw_read(driver, "a") == data

    async def test_begin_replaces_an_older_stage(self, driver: StorageDriver, other: StorageDriver) -> None:
        old = await driver.begin("a")
        valve, tap = Valve([pattern(self.batch)], [pattern(self.batch)]), Tapped()
        late = asyncio.create_task(driver.append(old, 0, valve.chunks(), tap))
        await soon(tap.arrived)
        new = await other.begin("a")
        assert (await driver.stage_info(new)).offset == 0
        valve.gate.set()
        with pytest.raises((ObjectNotFound, OffsetMismatch)):
            await late
        assert await driver.append(new, 0, pieces(b"new")) == 3
        await driver.complete(new, 3)
        assert await self.raw_read(driver, "a") == b"new"

    async def test_stage_info(self, driver: StorageDriver) -> None:
        before = await driver.now()
        info = await driver.stage_info(await self.staged(driver, "a", b"12345"))
        assert info.offset == 5
        assert before - 1 <= info.modified <= await driver.now() + 1

    async def test_complete_with_another_size(self, driver: StorageDriver) -> None:
        stage = await self.staged(driver, "a", b"12345")
        for size in (0, 4, 6):
            with pytest.raises(OffsetMismatch) as caught:
                await driver.complete(stage, size)
            assert caught.value.expected == 5
        assert await driver.append(stage, 5, pieces(b"678")) == 8
        await driver.complete(stage, 8)
        assert await self.raw_read(driver, "a") == b"12345678"

    async def test_complete_twice_and_go_on(self, driver: StorageDriver) -> None:
        stage = await self.staged(driver, "a", b"12345")
        await driver.complete(stage, 5)
        await driver.complete(stage, 5)
        assert (await driver.stage_info(stage)).offset == 5
        assert await driver.append(stage, 5, pieces(b"678")) == 8
        await driver.complete(stage, 8)
        assert await self.raw_read(driver, "a") == b"12345678"

    async def test_abort(self, driver: StorageDriver) -> None:
        stage = await self.staged(driver, "a/b", pattern(CHUNK))
        for _ in range(2):
            await driver.abort(stage)
            with pytest.raises(ObjectNotFound):
                await driver.stage_info(stage)
            with pytest.raises(ObjectNotFound):
                await driver.append(stage, CHUNK, never())
            assert await self.raw_read(driver, "a/b") is None
            assert await driver.list_folders("") == []
        await driver.abort(await driver.find_stage("x/y"))

    async def test_abort_under_an_append(self, driver: StorageDriver, other: StorageDriver) -> None:
        stage = await driver.begin("a/b")
        valve, tap = Valve([pattern(self.batch)], [pattern(self.batch)]), Tapped()
        late = asyncio.create_task(driver.append(stage, 0, valve.chunks(), tap))
        await soon(tap.arrived)
        await other.abort(stage)
        valve.gate.set()
        with pytest.raises(ObjectNotFound):
            await late
        assert await keys(driver.list_objects("")) == []

    async def test_a_late_append_never_reaches_what_was_moved(
        self, driver: StorageDriver, other: StorageDriver
    ) -> None:
        data = pattern(CHUNK)
        stage = await self.staged(driver, "u/data", data)
        await driver.complete(stage, CHUNK)
        valve = Valve([], [pattern(self.batch, "late")])
        late = asyncio.create_task(other.append(stage, CHUNK, valve.chunks()))
        await soon(valve.waiting)
        await driver.move("u/data", "b/data", CHUNK)
        valve.gate.set()
        with suppress(NotFound, OffsetMismatch):  # a driver with hidden stages may go on with a copy
            await late
        assert await self.raw_read(driver, "b/data") == data

    async def test_append_races_with_move(self, driver: StorageDriver, other: StorageDriver) -> None:
        for number in range(20):
            data, more = pattern(1000, str(number)), pattern(CHUNK, "more")
            stage = await self.staged(driver, "u/data", data)
            await driver.complete(stage, len(data))
            appending, moving = await asyncio.gather(
                other.append(stage, len(data), pieces(more)),
                driver.move("u/data", "b/data", len(data)),
                return_exceptions=True,
            )
            if moving is None:
                assert await self.raw_read(driver, "b/data") == data
                assert isinstance(appending, int | ObjectNotFound | OffsetMismatch)
            else:
                assert isinstance(moving, OffsetMismatch)
                assert (moving.expected, appending) == (len(data) + CHUNK, len(data) + CHUNK)
                assert await self.raw_read(driver, "b/data") is None
            await driver.abort(stage)
            await driver.delete_tree("")


class DriverContract(ReadingContract, ListingContract, WritingContract, StageContract, ContentContract):
    """All of it; see the head of this module for how to use it."""
