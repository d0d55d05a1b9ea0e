"""Stages as multipart uploads: what they cost, how they go on after others, and what faults leave of them."""

from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import count

import pytest

from storage.drivers.s3.bucket import PerhapsOurs, UploadGone
from storage.drivers.s3.copies import FIRST, LARGEST_COPY, QUICK, Copier
from storage.drivers.s3.driver import S3Driver
from storage.drivers.s3.stages import part_size
from storage.errors import ObjectNotFound, OffsetMismatch, PreconditionFailed, Unavailable
from storage.testing.tools import Tapped, pattern, pieces
from tests.storage.s3.conftest import CHUNKSIZE, SETTINGS
from tests.storage.s3.memorybucket import Fault, MemoryBucket

MIB = 1 << 20
DATA = "root/u/data"


@pytest.fixture
async def other(bucket: MemoryBucket) -> AsyncIterator[S3Driver]:
    """Another process."""
    other = S3Driver(SETTINGS, bucket)
    yield other
    await other.aclose()


# Sizes of parts


@pytest.mark.parametrize(
    ("number", "expected"),
    [(1, 10), (8000, 10), (8001, 20), (8140, 20), (8141, 40), (9000, 2560), (10_000, 5120)],
)
def test_parts_grow_late(number: int, expected: int) -> None:
    assert part_size(number, 10 * MIB) == expected * MIB


def test_ten_thousand_parts_hold_97_gib_and_whatever_s3_holds() -> None:
    sizes = [part_size(number, 10 * MIB) for number in range(1, 10_001)]
    assert sum(sizes[:8000]) > 78 << 30, "up to here, two parts of memory are 20 MiB"
    assert sum(sizes) > 5 << 40
    assert max(sizes) <= LARGEST_COPY
    assert sum(part_size(number, 5 * MIB) for number in range(1, 10_001)) > 97 << 30


@pytest.mark.parametrize(
    ("length", "expected"), [(0, 10), (97 << 30, 10), (98 << 30, 11), (1 << 40, 105), (5 << 40, 525)]
)
def test_parts_of_a_known_length(length: int, expected: int) -> None:
    size = part_size(1, 10 * MIB, length)
    assert size == expected * MIB
    assert size * 10_000 >= length


# What it costs


async def test_a_small_blob_whose_digest_comes_last(driver: S3Driver, bucket: MemoryBucket) -> None:
    await driver.put_content("warm", b"")  # the probe
    bucket.verbs()
    stage = await driver.begin("u/data")
    await driver.append(await driver.find_stage("u/data"), 0, pieces(b"12345"))
    await driver.publish(await driver.find_stage("u/data"), "u/data", "b/data", 5)
    await driver.abort(stage)
    assert bucket.verbs() == ["create_upload", "upload_part", "put", "abort_upload"]
    assert await driver.read("b/data") == b"12345"


@pytest.mark.slow
async def test_a_large_blob_whose_digest_comes_last(driver: S3Driver, bucket: MemoryBucket) -> None:
    data = pattern(2 * CHUNKSIZE + 5)
    stage = await driver.begin("u/data")
    await driver.append(await driver.find_stage("u/data"), 0, pieces(data))
    await driver.publish(await driver.find_stage("u/data"), "u/data", "b/data", len(data))
    await driver.abort(stage)
    assert bucket.verbs() == ["create_upload", *["upload_part"] * 3, "complete_upload", "copy", "delete"]
    assert await driver.read("b/data") == data


@pytest.mark.slow
async def test_content_whose_digest_comes_first(driver: S3Driver, bucket: MemoryBucket) -> None:
    await driver.put_content("warm", b"")
    bucket.verbs()
    await driver.put_content("b/small", b"12345")
    assert bucket.verbs() == ["put"]
    for size, calls in ((CHUNKSIZE, ["put"]), (2 * CHUNKSIZE + 1, ["create_upload", *["upload_part"] * 3])):
        await driver.write_content(
            f"b/{size}", pieces(pattern(size)), staging="u/data", tap=Tapped(), verify=lambda: None
        )
        assert bucket.verbs() == (calls if size == CHUNKSIZE else [*calls, "complete_upload"])


async def test_another_process_asks_the_store_alone(driver: S3Driver, other: S3Driver, bucket: MemoryBucket) -> None:
    data = pattern(2 * CHUNKSIZE)
    await driver.append(await driver.begin("u/data"), 0, pieces(data[:CHUNKSIZE]))
    bucket.verbs()
    stage = await other.find_stage("u/data")
    assert await other.append(stage, CHUNKSIZE, pieces(data[CHUNKSIZE:])) == 2 * CHUNKSIZE
    assert {"list_uploads", "list_parts", "upload_part"} <= set(bucket.verbs())
    # and the first one finds out by the offset that its memory is old
    await driver.complete(stage, 2 * CHUNKSIZE)
    assert await driver.read("u/data") == data


# Behind a small last part


@pytest.mark.parametrize("before", [5, CHUNKSIZE + 5])
async def test_bytes_behind_a_small_part(driver: S3Driver, other: S3Driver, bucket: MemoryBucket, before: int) -> None:
    data = pattern(before + CHUNKSIZE + 7)
    stage = await driver.begin("u/data")
    await driver.append(stage, 0, pieces(data[:before]))
    assert await other.append(stage, before, pieces(data[before:-7])) == len(data) - 7
    assert await driver.append(stage, len(data) - 7, pieces(data[-7:])) == len(data)
    assert len(bucket.uploads) == 1
    assert ("copy_part" in bucket.verbs()) == (before > CHUNKSIZE)
    await other.complete(stage, len(data))
    assert await driver.read("u/data") == data


@pytest.mark.parametrize("verb", ["complete_upload", "get", "create_upload", "upload_part"])
async def test_a_fault_behind_a_small_part(driver: S3Driver, bucket: MemoryBucket, verb: str) -> None:
    stage = await driver.begin("u/data")
    await driver.append(stage, 0, pieces(b"12345"))
    bucket.faults = [Fault(verb)]
    with pytest.raises(Unavailable):
        await driver.append(stage, 5, pieces(b"678"))
    assert (await driver.stage_info(stage)).offset == 5
    assert await driver.append(stage, 5, pieces(b"678")) == 8
    await driver.complete(stage, 8)
    assert await driver.read("u/data") == b"12345678"
    assert bucket.uploads == {}


# Lost answers, and others


async def test_the_answer_to_complete_was_lost(driver: S3Driver, bucket: MemoryBucket) -> None:
    stage = await driver.begin("u/data")
    await driver.append(stage, 0, pieces(b"12345"))
    bucket.faults = [Fault("complete_upload", 1, UploadGone, after=True)]
    await driver.complete(stage, 5)
    assert await driver.read("u/data") == b"12345"


async def test_the_answer_to_a_conditional_put_was_lost(driver: S3Driver, bucket: MemoryBucket) -> None:
    await driver.put("warm", b"", if_absent=True)
    bucket.faults = [Fault("put", 1, PerhapsOurs, after=True)]
    version = await driver.put("a", b"ours", if_absent=True)
    assert (await driver.head("a")).version == version
    bucket.store("root/b", b"theirs")
    bucket.faults = [Fault("put", 1, PerhapsOurs)]
    with pytest.raises(PreconditionFailed):
        await driver.put("b", b"ours", if_absent=True)
    with pytest.raises(PreconditionFailed):
        await driver.put("b", b"theirs", if_absent=True)  # the same bytes, and yet not ours


async def test_the_answer_to_complete_of_content_was_lost(driver: S3Driver, bucket: MemoryBucket) -> None:
    data = pattern(CHUNKSIZE + 1)
    for error in (PerhapsOurs, UploadGone):
        bucket.faults = [Fault("complete_upload", 1, error, after=True)]
        await driver.write_content("a", pieces(data), staging="u", tap=Tapped(), verify=lambda: None)
        assert await driver.read("a") == data
        await driver.delete("a")
    assert bucket.uploads == {}


async def test_content_that_is_old_is_written_again(driver: S3Driver, bucket: MemoryBucket) -> None:
    data = pattern(CHUNKSIZE + 1)
    for content in (b"12345", data):
        bucket.ages = 100
        bucket.store("root/a", content)
        bucket.ages = 0
        old = bucket.objects["root/a"].modified
        await driver.write_content("a", pieces(content), staging="u", tap=Tapped(), verify=lambda: None, fresh=200)
        assert bucket.objects["root/a"].modified == old
        await driver.write_content("a", pieces(content), staging="u", tap=Tapped(), verify=lambda: None, fresh=50)
        assert bucket.objects["root/a"].modified > old + 50
        assert bucket.uploads == {}


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["create_upload", "upload_part", "complete_upload"])
async def test_a_fault_in_content_leaves_nothing(driver: S3Driver, bucket: MemoryBucket, verb: str) -> None:
    await driver.put_content("warm", b"")
    for error in (Unavailable, UploadGone) if verb != "create_upload" else (Unavailable,):
        bucket.faults = [Fault(verb, 1, error)]
        with pytest.raises(Unavailable):
            await driver.write_content(
                "a", pieces(pattern(3 * CHUNKSIZE)), staging="u", tap=Tapped(), verify=lambda: None
            )
        assert bucket.uploads == {}
        assert list(bucket.objects) == ["root/warm"]


async def test_an_upload_that_others_have_ended(driver: S3Driver, other: S3Driver) -> None:
    stage = await driver.begin("u/data")
    await driver.append(stage, 0, pieces(b"12345"))
    await other.publish(stage, "u/data", "b/data", 5)
    with pytest.raises(ObjectNotFound):
        await driver.append(stage, 5, pieces(b"678"))
    with pytest.raises(ObjectNotFound):
        await driver.complete(stage, 5)


async def test_a_fault_within_an_append(driver: S3Driver, bucket: MemoryBucket) -> None:
    data = pattern(3 * CHUNKSIZE)
    stage, tap = await driver.begin("u/data"), Tapped()
    bucket.faults = [Fault("upload_part", 2)]
    with pytest.raises(Unavailable):
        await driver.append(stage, 0, pieces(data), tap)
    assert tap.data == data[:CHUNKSIZE]
    with pytest.raises(OffsetMismatch) as caught:
        await driver.append(stage, 0, pieces(b"x"))
    assert caught.value.expected == CHUNKSIZE
    assert await driver.append(stage, CHUNKSIZE, pieces(data[CHUNKSIZE:])) == len(data)


# Copies


async def test_large_copies_go_in_ranges(bucket: MemoryBucket) -> None:
    settings = replace(SETTINGS, multipartcopythresholdsize=MIB, multipartcopychunksize=CHUNKSIZE)
    driver = S3Driver(settings, bucket)
    data = pattern(3 * CHUNKSIZE + 7)
    await driver.put("a", data)
    bucket.verbs()
    await driver.move("a", "b", len(data))
    verbs = ["head", "create_upload", *["copy_part"] * 3, "complete_upload", "delete"]
    assert bucket.verbs() == verbs
    assert await driver.read("b") == data
    await driver.touch("b")
    assert await driver.read("b") == data
    bucket.faults = [Fault("copy_part", 2)]
    with pytest.raises(Unavailable):
        await driver.move("b", "c", len(data))
    assert bucket.uploads == {}
    assert await driver.read("b") == data
    await driver.aclose()


@pytest.mark.parametrize(
    ("seconds", "at_once", "most"),
    [(0.0, 20, 20), (QUICK, 20, FIRST), (0.0, 3, 3)],
    ids=["quick", "slow", "few-allowed"],
)
async def test_more_ranges_are_copied_side_by_side_while_each_is_quick(
    bucket: MemoryBucket, seconds: float, at_once: int, most: int
) -> None:
    data, times = pattern(60 * MIB), count(step=seconds)
    bucket.store("a", data)
    # by this clock a copy takes at least `seconds`: it goes on by them at every look
    copier = Copier(bucket, MIB, MIB, at_once, clock=lambda: next(times))
    id = await bucket.create_upload("b")
    assert [part.size for part in await copier.parts("a", len(data), "b", id)] == [MIB] * 60
    assert bucket.most_copying == most
