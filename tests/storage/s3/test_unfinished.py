"""What a crash leaves of a write to S3 is found by those who purge and who examine, and by nobody else."""

from dataclasses import replace
from math import inf

import pytest

from storage import layout
from storage.content import ContentStore
from storage.digest import Digest
from storage.doctor.examine import Examined, Examiner
from storage.doctor.findings import Kind
from storage.drivers.s3.bucket import UploadGone
from storage.drivers.s3.driver import S3Driver
from storage.names import parse_name
from storage.purge import Purged, purge_uploads
from storage.rules import ManifestRules
from tests.api import in_pieces
from tests.storage.s3.memorybucket import Fault, MemoryBucket

DAY = 24 * 3600.0
KEY = layout.blob_data(Digest.of(b"large"))


async def crash(bucket: MemoryBucket, key: str = f"root/{KEY}", *, age: float = 0.0, grew: float | None = None) -> str:
    """A process is killed in the middle of a write. grew: seconds since its last part."""
    id = await bucket.create_upload(key)
    bucket.uploads[id].started -= age
    part = await bucket.upload_part(key, id, 1, b"12345")
    aged = replace(part, modified=part.modified - (age if grew is None else grew))
    bucket.uploads[id].parts[1] = aged, b"12345"
    return id


async def test_by_the_time_of_its_last_part(driver: S3Driver, bucket: MemoryBucket) -> None:
    old, slow = await crash(bucket, age=2 * DAY), await crash(bucket, age=2 * DAY, grew=60.0)
    await crash(bucket)
    now = await driver.now()
    bucket.verbs()
    [found] = await driver.list_unfinished(layout.ROOT, now - DAY)
    assert (found.key, found.offset, found.name) == (KEY, 5, old)
    assert bucket.verbs() == ["list_uploads", "list_parts", "list_parts"], "what is young is not looked at"
    assert {left.name for left in await driver.list_unfinished("", now - 59)} == {old, slow}
    assert await driver.list_unfinished(f"{layout.BLOBS}/sha512", inf) == []


async def test_what_is_not_ours_is_left_alone(driver: S3Driver, bucket: MemoryBucket) -> None:
    for key in (f"elsewhere/{KEY}", f"root{KEY}", "root/docker/registry/v2/no key"):
        await crash(bucket, key, age=DAY)
    assert await driver.list_unfinished("", inf) == []


async def test_what_ends_meanwhile_is_none(driver: S3Driver, bucket: MemoryBucket) -> None:
    await crash(bucket, age=DAY)
    bucket.faults = [Fault("list_parts", error=UploadGone)]
    assert await driver.list_unfinished("", inf) == []
    [found] = await driver.list_unfinished("", inf)
    await driver.drop_unfinished(found)
    await driver.drop_unfinished(found)
    assert bucket.uploads == {}


@pytest.mark.parametrize("dry_run", [True, False])
async def test_purged_when_idle_for_long(driver: S3Driver, bucket: MemoryBucket, dry_run: bool) -> None:
    """A session's stage is counted with its session, whatever is purged first."""
    content = ContentStore(driver)
    repository = content.repository(parse_name("a/b"))
    await repository.append_upload(await repository.start_upload(), in_pieces(b"1234567"))
    await crash(bucket, age=2 * DAY)
    bucket.verbs()
    assert await purge_uploads(content, DAY, dry_run=dry_run) == Purged(1, 5)
    verbs = bucket.verbs()
    assert verbs.count("list_uploads") == 1, "beside what is asked for the session"
    assert ("abort_upload" in verbs) == (not dry_run)
    assert await purge_uploads(content, -DAY, dry_run=dry_run) == (Purged(2, 12) if dry_run else Purged(1, 7))
    assert bool(bucket.uploads) == dry_run


async def test_the_doctor_finds_and_removes_it(driver: S3Driver, bucket: MemoryBucket) -> None:
    await crash(bucket, age=2 * DAY)

    async def look(*, fix: bool = False) -> Examined:
        examiner = Examiner(ContentStore(driver), ManifestRules(), idle=DAY)
        examined = await examiner.examine()
        if fix:
            await examiner.repair()
        return examined

    [finding] = (await look()).findings
    assert (finding.kind, finding.repository) == (Kind.UPLOAD_ABANDONED, "")
    assert finding.what == f"a write of {KEY} was never finished, and holds 5 bytes"
    assert (await look(fix=True)).left == []
    assert (await look()).findings == []
    assert bucket.uploads == {}
