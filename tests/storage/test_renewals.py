"""What a writer renews, so that no collector of garbage takes what a push has found: call by call, on each driver."""

import asyncio

import pytest

from storage import layout
from storage.content import ContentStore
from storage.digest import Digest
from storage.driver import StorageDriver
from storage.errors import BlobUnknown, ManifestBlobUnknown, ManifestUnknown, ObjectNotFound, Unavailable
from storage.garbage.renewals import Renewals
from storage.manifest import IMAGE_INDEX, IMAGE_MANIFEST
from storage.names import parse_tag
from storage.rules import ManifestRules
from storage.thrift import Thrift
from tests.api import IMAGE, descriptor, image, in_pieces, index
from tests.storage.shelf import DAY, A, B, Shelf, age
from tests.storage.spying import DearWithUrls, Record, Spied, push_blob

DATA = b"old, and nobody needs it yet"
DIGEST = Digest.of(DATA)
KEY = layout.blob_data(DIGEST)
CONFIG_KEY = layout.blob_data(Digest.of(b"{}"))
BODY = image(b"{}", (DATA,))
MANIFEST = Digest.of(BODY)
REVISION = layout.revision_link(A, MANIFEST)
TAG = parse_tag("t")


@pytest.fixture
def shelf(backing: StorageDriver) -> Shelf:
    return Shelf(backing)


@pytest.fixture
def writer(backing: StorageDriver, record: Record) -> ContentStore:
    return ContentStore(Spied(backing, record))


def touches(calls: list[tuple[str, str]]) -> list[str]:
    return [key for verb, key in calls if verb == "touch"]


# HEAD of a blob


async def test_a_head_renews_an_old_blob_once(shelf: Shelf, writer: ContentStore, record: Record) -> None:
    await shelf.blob(A, DATA)
    link, repository = layout.layer_link(A, DIGEST), writer.repository(A)
    assert await repository.stat_blob(DIGEST) == len(DATA)
    assert record.taken() == [("read", link), ("head", KEY)], "young: nothing more"
    age(shelf.driver)
    assert await repository.stat_blob(DIGEST) == len(DATA)
    assert record.taken() == [("read", link), ("head", KEY), ("touch", KEY)]
    await repository.stat_blob(DIGEST)
    assert touches(record.taken()) == []


async def test_a_head_that_is_redirected_renews_and_a_get_does_not(record: Record) -> None:
    store = DearWithUrls()
    await push_blob(ContentStore(store).repository(A), DATA)
    age(store)
    repository = ContentStore(Spied(store, record)).repository(A)
    assert await repository.blob_url(DIGEST, "GET")
    assert touches(record.taken()) == []
    assert await repository.blob_url(DIGEST, "HEAD")
    assert touches(record.taken()) == [KEY]
    await store.aclose()


async def test_a_head_of_what_goes_meanwhile_is_a_404(shelf: Shelf, writer: ContentStore, record: Record) -> None:
    await shelf.blob(A, DATA)
    age(shelf.driver)
    record.failing["touch", KEY] = ObjectNotFound(KEY)
    with pytest.raises(BlobUnknown):
        await writer.repository(A).stat_blob(DIGEST)
    record.failing["touch", KEY] = Unavailable("the disk is full")
    assert await writer.repository(A).stat_blob(DIGEST) == len(DATA)


@pytest.mark.parametrize("thrift", [Thrift(read_only=True, linkttl=60.0), Thrift()])
async def test_a_grace_of_0_writes_nothing(shelf: Shelf, record: Record, thrift: Thrift) -> None:
    """As a read-only registry has it."""
    await shelf.blob(A, DATA)
    age(shelf.driver)
    repository = ContentStore(Spied(shelf.driver, record), grace=0.0, thrift=thrift).repository(A)
    assert await repository.stat_blob(DIGEST) == len(DATA)
    assert record.written() == []


# Mounts, and a PUT that is sent again


async def test_a_mount_renews_before_it_links(shelf: Shelf, writer: ContentStore, record: Record) -> None:
    await shelf.blob(A, DATA)
    age(shelf.driver)
    await writer.repository(B).mount_blob(DIGEST, A)
    assert record.written() == [("touch", KEY), ("put", layout.layer_link(B, DIGEST))]
    await writer.repository(B).mount_blob(DIGEST, A)
    assert touches(record.taken()) == []


async def test_a_mount_of_what_goes_meanwhile_links_nothing(shelf: Shelf, writer: ContentStore, record: Record) -> None:
    await shelf.blob(A, DATA)
    age(shelf.driver)
    record.failing["touch", KEY] = ObjectNotFound(KEY)
    with pytest.raises(BlobUnknown):
        await writer.repository(B).mount_blob(DIGEST, A)
    assert not [call for call in record.written() if call[0] == "put"]


async def test_a_lost_answer_is_given_again_for_a_blob_that_is_renewed(
    shelf: Shelf, writer: ContentStore, record: Record
) -> None:
    repository = writer.repository(A)
    session = await repository.append_upload(await repository.start_upload(), in_pieces(DATA))
    await repository.finish_upload(session, DIGEST, in_pieces())
    age(shelf.driver)
    record.taken()
    await repository.finish_upload(session, DIGEST, in_pieces())
    assert touches(record.taken()) == [KEY]


# PUT of a manifest


async def test_a_manifest_of_young_blobs_is_looked_at_once(shelf: Shelf, writer: ContentStore, record: Record) -> None:
    await shelf.image(A, DATA)
    record.taken()
    await writer.repository(A).put_manifest(TAG, IMAGE_MANIFEST, BODY)
    calls = record.taken()
    assert touches(calls) == []
    assert [calls.count(("head", key)) for key in (KEY, CONFIG_KEY)] == [1, 1]


async def test_a_manifest_renews_and_looks_again_between_revision_and_tag(
    shelf: Shelf, writer: ContentStore, record: Record
) -> None:
    await shelf.blob(A, DATA)
    await shelf.blob(A, b"{}")
    age(shelf.driver, 30 * DAY, KEY)
    await writer.repository(A).put_manifest(TAG, IMAGE_MANIFEST, BODY)
    calls = record.taken()
    assert touches(calls) == [KEY]
    revision, tag = calls.index(("put", REVISION)), calls.index(("put", layout.tag_link(A, TAG)))
    heads = [place for place, call in enumerate(calls) if call == ("head", KEY)]
    assert len(heads) == 2
    assert heads[0] < calls.index(("touch", KEY)) < revision < heads[1] < tag
    assert calls.count(("head", CONFIG_KEY)) == 1


async def test_an_index_renews_the_links_of_its_images(shelf: Shelf, writer: ContentStore, record: Record) -> None:
    await shelf.image(A, DATA)
    body = index(descriptor(BODY, IMAGE))
    age(shelf.driver)
    await writer.repository(A).put_manifest(TAG, IMAGE_INDEX, body)
    calls = record.taken()
    assert touches(calls) == [REVISION]
    again = len(calls) - 1 - calls[::-1].index(("head", REVISION))
    assert calls.index(("put", layout.revision_link(A, Digest.of(body)))) < again
    assert again < calls.index(("put", layout.tag_link(A, TAG)))


async def test_a_blob_that_an_index_names_is_renewed_itself(shelf: Shelf, writer: ContentStore, record: Record) -> None:
    """BuildKit's cache is such an index."""
    await shelf.blob(A, DATA)
    age(shelf.driver)
    await writer.repository(A).put_manifest(TAG, IMAGE_INDEX, index(descriptor(DATA, IMAGE)))
    assert touches(record.taken()) == [KEY]


async def test_what_goes_before_it_is_renewed_is_missing(shelf: Shelf, writer: ContentStore, record: Record) -> None:
    await shelf.blob(A, DATA)
    await shelf.blob(A, b"{}")
    age(shelf.driver)
    record.failing["touch", KEY] = ObjectNotFound(KEY)
    with pytest.raises(ManifestBlobUnknown):
        await writer.repository(A).put_manifest(TAG, IMAGE_MANIFEST, BODY)
    assert not [call for call in record.written() if call[0] == "put"]
    sparse = ContentStore(Spied(shelf.driver, record), rules=ManifestRules(sparse=True)).repository(A)
    assert (await sparse.put_manifest(TAG, IMAGE_MANIFEST, BODY)).absent == (DIGEST,)


class Sweeping:
    """A collector that has looked, and deletes without a condition when the writer comes to a call: S3 without them."""

    def __init__(self, store: StorageDriver, verb: str, key: str) -> None:
        self.store, self.at, self.over = store, (verb, key), False

    async def __call__(self, verb: str, key: str) -> None:
        if (verb, key) == self.at and not self.over:
            self.over = True
            await self.store.delete(KEY)


async def test_what_goes_after_it_was_renewed_takes_the_manifest_with_it(shelf: Shelf) -> None:
    await shelf.blob(A, DATA)
    await shelf.blob(A, b"{}")
    age(shelf.driver)
    sweeping = Sweeping(shelf.driver, "put", REVISION)
    repository = ContentStore(Spied(shelf.driver, sweeping)).repository(A)
    with pytest.raises(ManifestBlobUnknown) as raised:
        await repository.put_manifest(TAG, IMAGE_MANIFEST, BODY)
    assert str(DIGEST) in str(raised.value)
    for reference in (TAG, MANIFEST):
        with pytest.raises(ManifestUnknown):
            await shelf.content.repository(A).get_manifest(reference)
    assert await shelf.keys(layout.manifests(A)) == set()
    await push_blob(repository, DATA)
    await repository.put_manifest(TAG, IMAGE_MANIFEST, BODY)
    assert await shelf.pulls(A, MANIFEST)


async def test_a_revision_that_stood_before_stays(shelf: Shelf) -> None:
    """Another tag may name it: it is no worse than it was."""
    await shelf.image(A, DATA, tag="before")
    age(shelf.driver)
    sweeping = Sweeping(shelf.driver, "put", REVISION)
    with pytest.raises(ManifestBlobUnknown):
        await ContentStore(Spied(shelf.driver, sweeping)).repository(A).put_manifest(TAG, IMAGE_MANIFEST, BODY)
    assert await shelf.pulls(A, MANIFEST)
    with pytest.raises(ManifestUnknown):
        await shelf.content.repository(A).get_manifest(TAG)


async def test_what_a_head_has_renewed_is_looked_at_again_as_well(shelf: Shelf) -> None:
    """The collector looked before the HEAD, and deletes after the check, which finds the blob young."""
    await shelf.blob(A, DATA)
    await shelf.blob(A, b"{}")
    age(shelf.driver)
    sweeping = Sweeping(shelf.driver, "put", REVISION)
    content = ContentStore(Spied(shelf.driver, sweeping))
    await content.repository(A).stat_blob(DIGEST)
    with pytest.raises(ManifestBlobUnknown):
        await content.repository(A).put_manifest(TAG, IMAGE_MANIFEST, BODY)
    assert not await shelf.pulls(A, MANIFEST)


# Renewals alone


async def test_the_clock_of_the_store_is_asked_once_a_minute(shelf: Shelf) -> None:
    asked = 0

    class Asked(Spied):
        async def now(self) -> float:
            nonlocal asked
            asked += 1
            return await super().now()

    clock = 0.0
    driver = Asked(shelf.driver, Record())
    renewals, key = Renewals(driver, DAY), layout.blob_data(await shelf.blob(A, DATA))
    renewals.clock = lambda: clock
    info = await driver.head(key)
    for clock, expected in ((0.0, 1), (60.0, 1), (61.0, 2), (DAY, 3), (0.0, 4)):  # noqa: B007 - the clock reads it
        await renewals.renew(info)
        assert asked == expected


async def test_renewed_once_in_a_quarter_of_the_grace(shelf: Shelf) -> None:
    record = Record()
    driver = Spied(shelf.driver, record)
    renewals, key = Renewals(driver, DAY), layout.blob_data(await shelf.blob(A, b"x"))
    assert not await renewals.renew(await driver.head(key))
    age(shelf.driver, DAY / 4 - 60)
    assert not await renewals.renew(await driver.head(key))
    age(shelf.driver, 120)
    old = await driver.head(key)
    assert await renewals.renew(old)
    assert await renewals.renew(await driver.head(key)), "a moment ago: look again"
    assert not await Renewals(driver, DAY).renew(await driver.head(key)), "in another process"
    assert [call for call in record.taken() if call[0] == "touch"] == [("touch", key)]
    assert (await driver.head(key)).version != old.version
    assert await driver.now() - (await driver.head(key)).modified < 60


async def test_many_at_once_are_one_touch(shelf: Shelf) -> None:
    record, begun, gate = Record(), asyncio.Event(), asyncio.Event()

    async def hold(verb: str, key: str) -> None:
        await record(verb, key)
        if verb == "touch":
            begun.set()
            await gate.wait()

    driver = Spied(shelf.driver, hold)
    renewals, key = Renewals(driver, DAY), layout.blob_data(await shelf.blob(A, b"x"))
    await renewals.renew(await driver.head(key))  # it is young: but now the store's clock is known, and nobody waits
    age(shelf.driver)
    info = await driver.head(key)
    asking = [asyncio.create_task(renewals.renew(info)) for _ in range(5)]
    await begun.wait()
    asking[0].cancel()
    gate.set()
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert answers[1:] == [True] * 4
    assert isinstance(answers[0], asyncio.CancelledError)
    assert len([call for call in record.calls if call[0] == "touch"]) == 1


async def test_what_has_gone_is_said_and_a_full_disk_spoils_no_answer(
    shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    record = Record()
    driver = Spied(shelf.driver, record)
    renewals, key = Renewals(driver, DAY), layout.blob_data(await shelf.blob(A, b"x"))
    age(shelf.driver)
    info = await driver.head(key)
    record.failing["touch", key] = Unavailable("the disk is gone")
    await renewals.offer(info)
    assert "cannot renew" in caplog.text
    with pytest.raises(Unavailable):
        await renewals.renew(info)
    record.failing.clear()
    await shelf.driver.delete(key)
    for verb in (renewals.offer, renewals.renew):
        with pytest.raises(ObjectNotFound):
            await verb(info)


async def test_without_a_grace_nothing_is_renewed(shelf: Shelf) -> None:
    key = layout.blob_data(await shelf.blob(A, b"x"))
    age(shelf.driver)
    assert not await Renewals(shelf.driver, 0.0).renew(await shelf.driver.head(key))
