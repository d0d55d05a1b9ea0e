"""The collector and the doctor on a store of objects, seeded with what each is there for."""

from collections.abc import AsyncIterator

import pytest

from storage import layout
from storage.digest import Digest
from storage.doctor.findings import Kind
from storage.driver import StorageDriver
from storage.drivers.s3.driver import S3Driver
from storage.drivers.s3.rest import RestBucket
from storage.drivers.s3.settings import S3Settings
from storage.purge import Purged
from tests.api import image, in_pieces
from tests.s3.servers import S3Server
from tests.storage.shelf import DAY, A, B, Shelf
from tests.storage.spying import Record, Spied
from tests.storage.test_doctor import blob_damaged, blob_empty, healthy, kinds, lives, look

pytestmark = pytest.mark.slow

LAYER = b"a layer that two images share"


@pytest.fixture
async def place(seaweedfs: S3Server) -> AsyncIterator[tuple[str, str, StorageDriver]]:
    """Bucket, folder, and a driver for it."""
    bucket, root = seaweedfs.new_root()
    settings = S3Settings.parse(seaweedfs.parameters(bucket, root))
    driver = S3Driver(settings, RestBucket(settings))
    yield bucket, root, driver
    await driver.aclose()


def open_uploads(server: S3Server, bucket: str, root: str) -> list[str]:
    return [key for key in server.open_uploads(bucket) if key.startswith(f"{root}/")]


async def test_a_collection(place: tuple[str, str, StorageDriver], seaweedfs: S3Server) -> None:
    bucket, root, driver = place
    shelf = Shelf(driver)
    kept = await shelf.image(A, LAYER, tag="t")
    index = await shelf.index(A, await shelf.image(A, b"of an index"), tag="all")
    untagged = await shelf.image(B, LAYER, b"of nobody")
    dead = await shelf.blob(B, b"never in a manifest")
    repository = shelf.content.repository(B)
    await repository.append_upload(await repository.start_upload(), in_pieces(b"12345"))
    assert open_uploads(seaweedfs, bucket, root)

    done = await shelf.collect(untagged=True, purge=DAY)
    assert (done.removed, done.swept, done.uploads) == (0, 0, Purged(0, 0)), "all is young"
    done = await shelf.collect(untagged=True, purge=0.0, grace=0.0)
    assert (done.removed, done.swept, done.uploads) == (1, 3, Purged(1, 5))
    left = await shelf.digests()
    assert not left & {dead, untagged, Digest.of(b"of nobody")}
    assert [await shelf.pulls(A, digest) for digest in (kept, index)] == [True, True]
    assert [await shelf.has(A, data) for data in (LAYER, b"of an index", b"{}")] == [True] * 3
    assert await shelf.keys(layout.uploads(B)) == set()
    assert open_uploads(seaweedfs, bucket, root) == []


class Later(Spied):
    """A month after everything was written."""

    async def now(self) -> float:
        return await super().now() + 30 * DAY


async def test_a_push_of_old_blobs_renews_them(place: tuple[str, str, StorageDriver]) -> None:
    """The copies onto themselves, and the second look."""
    driver, record = place[2], Record()
    shelf, later = Shelf(driver), Shelf(Later(driver, record))
    digest = await shelf.blob(A, LAYER)
    await shelf.blob(A, b"{}")
    key = layout.blob_data(digest)
    assert await later.content.repository(A).stat_blob(digest) == len(LAYER)
    assert [verb for verb, at in record.taken() if at == key] == ["head", "touch"]
    manifest = await later.manifest(A, image(b"{}", (LAYER,)), "t")
    assert [verb for verb, at in record.taken() if at == key] == ["head", "touch", "head"]
    assert await shelf.pulls(A, manifest)
    assert await shelf.has(A, LAYER)


async def test_the_doctor(place: tuple[str, str, StorageDriver]) -> None:
    shelf = Shelf(place[2])
    made = await healthy(shelf)
    assert (await look(shelf, deep=True)).findings == []
    await blob_empty(shelf)
    await blob_damaged(shelf)
    examined = await look(shelf, deep=True, fix=True)
    assert set(kinds(examined)) == {Kind.BLOB_DAMAGED, Kind.BLOB_EMPTY, Kind.PART_SIZE}
    await lives(shelf, made)
    for data in (b"0123456789", b"will be empty"):
        assert not await shelf.has(A, data)
        await shelf.blob(A, data)
    assert (await look(shelf, deep=True)).findings == []
