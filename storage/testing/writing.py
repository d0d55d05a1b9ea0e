"""Small objects are written, moved and deleted whole or not at all, also by several at once. Part of DriverContract."""

import asyncio
from contextlib import suppress

import pytest

from storage.driver import CHUNK, LARGEST_NOTE, StorageDriver
from storage.errors import ObjectNotFound, OffsetMismatch, PreconditionFailed
from storage.testing.tools import NEIGHBOURS, TURNS, DriverFixtures, content, keys, pattern


class WritingContract(DriverFixtures):
    """put, delete, delete_tree, move, touch."""

    async def test_put_replaces(self, driver: StorageDriver) -> None:
        for data in (b"first, and longer", b"second", b"", b"third"):
            await driver.put("a/b", data)
            assert await self.raw_read(driver, "a/b") == data
        assert await keys(driver.list_objects("")) == ["a/b"]

    async def test_a_note_comes_with_its_object_where_it_is_kept(self, driver: StorageDriver) -> None:
        """As long as the object is that one; and a renewal of its time takes nothing from it."""
        note = "+/=" + "a" * (LARGEST_NOTE - 3)
        await driver.put_noted("a", b"b", note)
        async with await driver.open("a") as reader:
            kept = reader.note
        assert kept in ("", note)
        await driver.touch("a")
        async with await driver.open("a") as reader:
            assert reader.note == kept
        await driver.put("a", b"b")
        async with await driver.open("a") as reader:
            assert reader.note == ""

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
