"""Stages: they begin, are looked at, become objects or go away. Part of DriverContract."""

import asyncio
from contextlib import suppress

import pytest

from storage.driver import CHUNK, Stage, StorageDriver
from storage.errors import NotFound, ObjectNotFound, OffsetMismatch
from storage.testing.tools import DriverFixtures, Tapped, Valve, content, keys, never, pattern, pieces, soon


class StageContract(DriverFixtures):
    """begin, find_stage, stage_info, complete, abort, and a stage's move to where it belongs."""

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
