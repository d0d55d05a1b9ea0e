"""Bytes are added to a stage, and what was stored stays known whatever breaks. Part of DriverContract."""

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from storage.driver import CHUNK, Stage, StorageDriver
from storage.errors import ObjectNotFound, OffsetMismatch
from storage.testing.tools import TURNS, DriverFixtures, Tapped, Valve, never, pattern, pieces, soon


class AppendContract(DriverFixtures):
    """append, by one client or several, whole or broken off."""

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
