"""ContentContract: put_content, write_content and publish, as storage/driver.py promises them. Part of DriverContract.

Every test looks at what is left as well: nothing of a failed write may stay, seen or not.
"""

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator, Callable
from math import inf

import pytest

from storage.driver import CHUNK, Stage, StorageDriver
from storage.errors import ObjectNotFound, OffsetMismatch
from storage.testing.tools import TURNS, DriverFixtures, Tapped, Valve, keys, pattern, pieces, soon

KEY = "blobs/sha256/ab/abcd/data"
STAGING = "uploads/1/data"


class WrongDigest(Exception):
    pass


def refuse() -> None:
    raise WrongDigest


def accept() -> None:
    pass


class ContentContract(DriverFixtures):
    """put_content, write_content, publish."""

    async def unseen(self, driver: StorageDriver) -> list[str]:
        """What the store holds and lists do not show, such as open uploads. Overridden where there is such a thing."""
        return []

    async def is_clean(self, driver: StorageDriver, *expected: str) -> None:
        assert await keys(driver.list_objects("")) == list(expected)
        assert await self.unseen(driver) == []
        assert await driver.list_unfinished("", inf) == []

    @pytest.mark.parametrize("size", [0, 1, 100_000])
    async def test_put_content(self, driver: StorageDriver, other: StorageDriver, size: int) -> None:
        data = pattern(size)
        for each in (driver, other):
            await each.put_content(KEY, data, sha256=hashlib.sha256(data).digest())
            assert await self.raw_read(driver, KEY) == data
        await driver.put_content(KEY, data)
        await self.is_clean(driver, KEY)

    async def test_put_content_heals(self, driver: StorageDriver) -> None:
        data = pattern(1000)
        for damaged in (b"", data[:-1], data + b"x"):
            await self.raw_write(driver, KEY, damaged)
            await driver.put_content(KEY, data, sha256=hashlib.sha256(data).digest(), fresh=3600)
            assert await self.raw_read(driver, KEY) == data

    async def test_content_that_may_be_swept_is_written_again(self, driver: StorageDriver) -> None:
        data = pattern(1000)
        await driver.put_content(KEY, data)
        before = await driver.head(KEY)
        await driver.put_content(KEY, data, fresh=-10)  # whatever stands is older than that
        assert (await driver.head(KEY)).modified >= before.modified
        assert await self.write(driver, data, fresh=-10) == len(data)
        await self.is_clean(driver, KEY)
        assert await self.raw_read(driver, KEY) == data

    async def test_many_put_the_same_content(self, driver: StorageDriver, other: StorageDriver) -> None:
        data = pattern(50_000)
        small = [each.put_content(KEY, data) for each in (driver, other) * 3]
        streams = [self.write(each, data, staging=f"uploads/{n}/data") for n, each in enumerate((driver, other) * 2)]
        await asyncio.gather(*small, *streams)
        assert await self.raw_read(driver, KEY) == data
        await self.is_clean(driver, KEY)

    @pytest.mark.parametrize("known", [True, False], ids=["length known", "length unknown"])
    @pytest.mark.parametrize("size", [0, 1, CHUNK, 5 * CHUNK, 5 * CHUNK + 1, 11 * CHUNK + 7])
    async def test_write_content(self, driver: StorageDriver, size: int, known: bool) -> None:
        data, tap, verified = pattern(size), Tapped(), []

        def verify() -> None:
            verified.append((bytes(tap.data) == data, threading.get_ident()))

        chunks = pieces(*(data[start : start + 700_000] for start in range(0, size, 700_000)))
        length = size if known else None
        written = await driver.write_content(
            KEY, chunks, staging=STAGING, tap=tap, verify=verify, length=length, sha256=hashlib.sha256(data).digest()
        )
        assert written == size
        assert verified == [(True, threading.get_ident())], "once, in the event loop, when all has passed the tap"
        assert await self.raw_read(driver, KEY) == data
        await self.is_clean(driver, KEY)

    @pytest.mark.parametrize("size", [5, 6 * CHUNK])
    async def test_write_content_over_damage(self, driver: StorageDriver, size: int) -> None:
        data = pattern(size)
        for damaged in (b"", data[:-1], data + b"x"):
            await self.raw_write(driver, KEY, damaged)
            await self.write(driver, data, fresh=3600)
            assert await self.raw_read(driver, KEY) == data
            await self.is_clean(driver, KEY)

    @pytest.mark.parametrize("size", [0, 5, 6 * CHUNK])
    async def test_write_content_is_not_verified(self, driver: StorageDriver, size: int) -> None:
        for before in (None, b"what was there"):
            if before is not None:
                await self.raw_write(driver, KEY, before)
            with pytest.raises(WrongDigest):
                await self.write(driver, pattern(size), verify=refuse)
            assert await self.raw_read(driver, KEY) == before
            await self.is_clean(driver, *([KEY] if before is not None else []))

    @pytest.mark.parametrize("size", [0, 5, 6 * CHUNK])
    async def test_write_content_breaks(self, driver: StorageDriver, size: int) -> None:
        class ClientGone(Exception):
            pass

        async def broken() -> AsyncIterator[bytes]:
            if size:
                yield pattern(size)
            raise ClientGone

        with pytest.raises(ClientGone):
            await driver.write_content(KEY, broken(), staging=STAGING, tap=Tapped(), verify=pytest.fail)
        await self.is_clean(driver)

    @pytest.mark.parametrize("size", [5, 6 * CHUNK])
    async def test_write_content_shows_nothing_before_it_is_verified(self, driver: StorageDriver, size: int) -> None:
        valve = Valve([pattern(size)], [b"more"])
        task = asyncio.create_task(
            driver.write_content(KEY, valve.chunks(), staging=STAGING, tap=Tapped(), verify=accept)
        )
        await soon(valve.waiting)
        assert await self.raw_read(driver, KEY) is None
        valve.gate.set()
        assert await task == size + 4
        assert await self.raw_read(driver, KEY) == pattern(size) + b"more"

    async def test_write_content_is_cancelled_while_it_waits(self, driver: StorageDriver) -> None:
        valve = Valve([pattern(6 * CHUNK)])
        task = asyncio.create_task(
            driver.write_content(KEY, valve.chunks(), staging=STAGING, tap=Tapped(), verify=pytest.fail)
        )
        await soon(valve.waiting)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await self.is_clean(driver)

    @pytest.mark.parametrize("size", [5, 6 * CHUNK])
    async def test_write_content_is_cancelled_anywhere(self, driver: StorageDriver, size: int) -> None:
        data = pattern(size)
        for turns in range(0, TURNS, 3):
            await self.cancelled(lambda: self.write(driver, data), turns)
            found = await self.raw_read(driver, KEY)
            assert found in (None, data)
            await self.is_clean(driver, *([KEY] if found is not None else []))
            await driver.delete(KEY)

    @pytest.mark.parametrize("sizes", [[], [5], [5, 5], [CHUNK, 5 * CHUNK], [6 * CHUNK, 3]], ids=str)
    async def test_publish(self, driver: StorageDriver, other: StorageDriver, sizes: list[int]) -> None:
        size = sum(sizes)
        data = pattern(size)
        for publisher in (driver, other):
            stage, offset = await driver.begin(STAGING), 0
            for part in sizes:
                offset = await driver.append(stage, offset, pieces(data[offset : offset + part]))
            await publisher.publish(Stage(str(await publisher.find_stage(STAGING))), STAGING, KEY, size)
            assert await self.raw_read(driver, KEY) == data
            with pytest.raises(ObjectNotFound):
                await driver.stage_info(await driver.find_stage(STAGING))
            await self.is_clean(driver, KEY)

    async def test_publish_heals(self, driver: StorageDriver) -> None:
        for data in (pattern(5), pattern(6 * CHUNK)):
            await self.raw_write(driver, KEY, b"damaged")
            await driver.publish(await self.staged(driver, STAGING, data), STAGING, KEY, len(data), fresh=3600)
            assert await self.raw_read(driver, KEY) == data

    async def test_publish_with_another_size(self, driver: StorageDriver) -> None:
        stage = await self.staged(driver, STAGING, b"12345")
        for size in (0, 4, 6):
            with pytest.raises(OffsetMismatch) as caught:
                await driver.publish(stage, STAGING, KEY, size)
            assert caught.value.expected == 5
        assert await self.raw_read(driver, KEY) is None
        await driver.publish(stage, STAGING, KEY, 5)
        assert await self.raw_read(driver, KEY) == b"12345"

    async def test_publish_without_a_stage(self, driver: StorageDriver) -> None:
        with pytest.raises(ObjectNotFound):
            await driver.publish(await driver.find_stage(STAGING), STAGING, KEY, 5)

    async def test_publish_twice(self, driver: StorageDriver) -> None:
        stage = await self.staged(driver, STAGING, b"12345")
        await driver.publish(stage, STAGING, KEY, 5)
        with pytest.raises(ObjectNotFound):
            await driver.publish(stage, STAGING, KEY, 5)
        assert await self.raw_read(driver, KEY) == b"12345"

    async def write(
        self,
        driver: StorageDriver,
        data: bytes,
        *,
        staging: str = STAGING,
        verify: Callable[[], None] = accept,
        fresh: float = 3600,
    ) -> int:
        return await driver.write_content(
            KEY, pieces(data) if data else pieces(), staging=staging, tap=Tapped(), verify=verify, fresh=fresh
        )
