"""Whether the store honours conditions is asked once, when it first matters, and what follows is said and done."""

import asyncio
import logging

import pytest

from storage.drivers.s3.driver import S3Driver
from storage.drivers.s3.probe import Probe
from storage.errors import PreconditionFailed, Unavailable
from tests.storage.s3.conftest import SETTINGS
from tests.storage.s3.memorybucket import Fault, MemoryBucket

FOLDER = "root/_moorage"


async def test_a_store_that_honours_conditions(bucket: MemoryBucket, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    probe = Probe(bucket, FOLDER)
    assert await asyncio.gather(*(probe.honoured() for _ in range(5))) == [True] * 5
    assert bucket.verbs() == ["put", "put", "put", "delete"], "once for all who ask"
    assert bucket.objects == {}
    assert "honours conditional writes" in caplog.text


async def test_a_store_that_ignores_them(caplog: pytest.LogCaptureFixture) -> None:
    bucket = MemoryBucket(conditions=False)
    assert await Probe(bucket, FOLDER).honoured() is False
    assert bucket.objects == {}
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert "run one writing registry alone" in record.message


async def test_a_lost_answer_is_an_answer_too(bucket: MemoryBucket) -> None:
    bucket.faults = [Fault("put", 1, PreconditionFailed, after=True)]
    assert await Probe(bucket, FOLDER).honoured()


async def test_a_store_that_cannot_be_asked(bucket: MemoryBucket, caplog: pytest.LogCaptureFixture) -> None:
    bucket.faults = [Fault("put", times=1)]
    probe = Probe(bucket, FOLDER)
    assert await probe.honoured(), "nothing is known against it"
    assert "could not find out" in caplog.text
    bucket.verbs()
    assert await probe.honoured()
    assert bucket.verbs() == [], "not asked again at once"


async def test_reads_and_plain_writes_ask_nothing(driver: S3Driver, bucket: MemoryBucket) -> None:
    await driver.put("a/b", b"x")
    await driver.read("a/b")
    await driver.head("a/b")
    await driver.list_folders("")
    stage = await driver.begin("u/data")
    await driver.abort(stage)
    assert not [key for _, key in bucket.calls if "_moorage" in key]
    await driver.put("a/c", b"x", if_absent=True)
    assert [key.startswith("root/docker/registry/v2/_moorage/probe/") for _, key in bucket.calls].count(True) == 4


async def test_conditions_are_looked_after_where_the_store_does_not() -> None:
    bucket = MemoryBucket(conditions=False)
    driver = S3Driver(SETTINGS, bucket)
    assert not await driver.conditions_hold()
    first = await driver.put("a", b"first", if_absent=True)
    with pytest.raises(PreconditionFailed):
        await driver.put("a", b"second", if_absent=True)
    second = await driver.put("a", b"second", if_version=first)
    for write in (driver.put("a", b"third", if_version=first), driver.delete("a", if_version=first)):
        with pytest.raises(PreconditionFailed):
            await write
    await driver.put_content("b", b"content")
    await driver.put_content("b", b"content")
    assert await driver.read("a") == b"second"
    await driver.delete("a", if_version=second)
    with pytest.raises(PreconditionFailed):
        await driver.put("a", b"third", if_version=second)
    await driver.aclose()


async def test_the_write_itself_tells_of_a_fault(driver: S3Driver, bucket: MemoryBucket) -> None:
    bucket.faults = [Fault("put", times=9)]
    with pytest.raises(Unavailable):
        await driver.put("a", b"", if_absent=True)
