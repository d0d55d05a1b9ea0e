"""Pushing where calls are dear: how many there are, in which order, and sessions that begin late and end for good."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from storage import layout
from storage.content import ContentStore
from storage.digest import Digest
from storage.drivers.memory import MemoryDriver
from storage.errors import (
    BlobUnknown,
    DigestMismatch,
    DigestUnsupported,
    ObjectNotFound,
    OffsetMismatch,
    PreconditionFailed,
    StorageFull,
    Unavailable,
    UploadUnknown,
)
from storage.local import LocalRepository
from storage.manifest import IMAGE_MANIFEST
from storage.names import parse_tag
from storage.repository import Precondition, UploadSession
from storage.thrift import Thrift
from storage.thrifty_uploads import Begun
from tests.api import IMAGE, image, in_pieces
from tests.storage.spying import NAME, Counted, DearMemory, Record, Shuffle, Spied, push_blob, read_blob
from tests.storage.test_uploads import DATA, DIGEST, HALF, leftovers, never, nothing

CONFIG, LAYER = b"{}", b"the bytes of a layer"
MANIFEST = image(CONFIG, (LAYER,))
V1, V2 = parse_tag("v1"), parse_tag("v2")
SUBJECT = Digest.of(b"a subject")


@pytest.fixture
async def backing() -> AsyncIterator[MemoryDriver]:
    driver = DearMemory()
    yield driver
    await driver.aclose()


@pytest.fixture
def content(backing: MemoryDriver, record: Record) -> ContentStore:
    return ContentStore(Counted(backing, record), thrift=Thrift(deletes=False))


@pytest.fixture
def elsewhere(backing: MemoryDriver, elsewhere_record: Record) -> LocalRepository:
    return ContentStore(Counted(backing, elsewhere_record), thrift=Thrift(deletes=False)).repository(NAME)


@pytest.fixture
def shareable(backing: MemoryDriver, record: Record) -> LocalRepository:
    return ContentStore(Counted(backing, record), thrift=Thrift(deletes=False, shareable=True)).repository(NAME)


# How many calls, and in which order


async def test_calls_of_an_image_whose_digests_come_first(repository: LocalRepository, record: Record) -> None:
    """POST, PUT for config and layer, then the manifest under a tag: distribution makes 50 (s3.md)."""
    for data in (CONFIG, LAYER):
        await push_blob(repository, data)
        assert record.taken() == [
            ("put", layout.blob_data(Digest.of(data))),
            ("put", layout.layer_link(NAME, Digest.of(data))),
        ]
    digest = (await repository.put_manifest(V1, IMAGE_MANIFEST, MANIFEST)).digest
    calls = record.taken()
    assert len(calls) == 8
    assert sorted(calls[:4]) == sorted(
        call
        for data in (CONFIG, LAYER)
        for call in (
            ("read", layout.layer_link(NAME, Digest.of(data))),
            ("head", layout.blob_data(Digest.of(data))),
        )
    )
    assert calls[4:] == [
        ("put", layout.blob_data(digest)),
        ("put", layout.revision_link(NAME, digest)),
        ("put", layout.tag_index_link(NAME, V1, digest)),
        ("put", layout.tag_link(NAME, V1)),
    ]


async def test_calls_of_a_blob_in_one_request(repository: LocalRepository, record: Record) -> None:
    await repository.put_blob(DIGEST, in_pieces(DATA), len(DATA))
    assert [verb for verb, _ in record.taken()] == ["put", "put"]
    assert await read_blob(repository, DIGEST) == DATA


async def test_calls_of_a_blob_whose_digest_comes_last(repository: LocalRepository, record: Record) -> None:
    """POST, PATCH, PUT without a body: seven, and the parts; `append` sends one here."""
    first = await repository.start_upload()
    assert record.taken() == []
    session = await repository.append_upload(first, in_pieces(DATA[:HALF], DATA[HALF:]))
    key, started = layout.upload_data(NAME, session.id), layout.upload_started(NAME, session.id)
    assert record.taken() == [("put", started), ("begin", key), ("append", key)]
    assert session.id != first.id
    await repository.finish_upload(session, DIGEST, nothing())
    assert record.taken() == [
        ("complete", key),
        ("copy", layout.blob_data(DIGEST)),
        ("delete", key),
        ("put", layout.layer_link(NAME, DIGEST)),
        ("delete", started),
    ]


async def test_calls_of_sessions_that_can_be_shared(
    shareable: LocalRepository, backing: MemoryDriver, record: Record
) -> None:
    session = await shareable.start_upload()
    key, started = layout.upload_data(NAME, session.id), layout.upload_started(NAME, session.id)
    assert record.taken() == [("put", started), ("begin", key)]
    assert (await backing.read(started)).decode() == session.started
    await shareable.finish_upload(session, DIGEST, in_pieces(DATA), None, len(DATA))
    assert [verb for verb, _ in record.taken()] == ["put", "put", "abort", "delete"]
    session = await shareable.append_upload(await shareable.start_upload(), in_pieces(DATA))
    await shareable.finish_upload(session, DIGEST, nothing())
    verbs = ["put", "begin", "append", "complete", "copy", "delete", "put", "delete"]
    assert [verb for verb, _ in record.taken()] == verbs
    assert await leftovers(backing) == []
    assert await read_blob(shareable, DIGEST) == DATA


@pytest.mark.parametrize("deletes", [False, True])
async def test_order_of_a_manifest_with_tags_and_a_subject(
    backing: MemoryDriver, record: Record, deletes: bool
) -> None:
    """Bytes and hint; then what gates them; then the tags. With deletes about, a look whether all is still there."""
    repository = ContentStore(Counted(backing, record), thrift=Thrift(deletes=deletes)).repository(NAME)
    for data in (CONFIG, LAYER):
        await push_blob(repository, data)
    body = image(CONFIG, (LAYER,), subject={"mediaType": IMAGE, "digest": str(SUBJECT), "size": 9})
    digest = Digest.of(body)
    record.taken()
    await repository.put_manifest(digest, IMAGE_MANIFEST, body, (V1, V2))
    calls = record.taken()[4:]
    steps = [
        {("put", layout.blob_data(digest)), ("put", layout.referrer_link(NAME, SUBJECT, digest))},
        {
            ("put", layout.revision_link(NAME, digest)),
            ("put", layout.tag_index_link(NAME, V1, digest)),
            ("put", layout.tag_index_link(NAME, V2, digest)),
        },
        {("put", layout.tag_link(NAME, V1)), ("put", layout.tag_link(NAME, V2))},
    ]
    if deletes:
        steps.append({("head", layout.revision_link(NAME, digest))})
        steps.append({("head", layout.referrer_link(NAME, SUBJECT, digest))})
    for step in steps:
        now, calls = calls[: len(step)], calls[len(step) :]
        assert set(now) == step
    assert calls == []


@pytest.mark.parametrize("end", ["/data", "/_manifests/revisions/sha256/{0}/link", "/index/sha256/{0}/link"])
async def test_no_tag_before_all_else_is_there(
    repository: LocalRepository, backing: MemoryDriver, record: Record, end: str
) -> None:
    for data in (CONFIG, LAYER):
        await push_blob(repository, data)
    record.failing["put", end.format(Digest.of(MANIFEST).hex)] = StorageFull()
    with pytest.raises(StorageFull):
        await repository.put_manifest(V1, IMAGE_MANIFEST, MANIFEST)
    with pytest.raises(ObjectNotFound):
        await backing.read(layout.tag_link(NAME, V1))
    record.failing.clear()
    await repository.put_manifest(V1, IMAGE_MANIFEST, MANIFEST)
    assert (await repository.get_manifest(V1)).body == MANIFEST


async def test_preconditions_hold(repository: LocalRepository) -> None:
    for data in (CONFIG, LAYER):
        await push_blob(repository, data)
    absent = Precondition(absent=True)
    digest = (await repository.put_manifest(V1, IMAGE_MANIFEST, MANIFEST, (), absent)).digest
    newer = image(CONFIG)
    with pytest.raises(PreconditionFailed):
        await repository.put_manifest(V1, IMAGE_MANIFEST, newer, (), absent)
    held = Precondition(one_of=frozenset({str(digest)}))
    await repository.put_manifest(V1, IMAGE_MANIFEST, newer, (), held)
    with pytest.raises(PreconditionFailed):
        await repository.put_manifest(V1, IMAGE_MANIFEST, MANIFEST, (), held)
    assert (await repository.get_manifest(V1)).body == newer


@pytest.mark.parametrize("how", ["patch", "put", "cancel"])
async def test_a_session_that_is_stored_keeps_its_id(
    shareable: LocalRepository, repository: LocalRepository, backing: MemoryDriver, how: str
) -> None:
    """Begun by distribution, or where it is shareable: to begin it again would leave an upload that nobody ends."""
    session = await shareable.start_upload()
    assert session.stored
    assert await repository.upload_status(session) == session
    if how == "cancel":
        await repository.cancel_upload(session)
    elif how == "put":
        await repository.finish_upload(session, DIGEST, in_pieces(DATA))
    else:
        grown = await repository.append_upload(session, in_pieces(DATA))
        assert grown.id == session.id
        await repository.finish_upload(grown, DIGEST, nothing())
    assert await leftovers(backing) == []
    if how != "cancel":
        assert await read_blob(shareable, DIGEST) == DATA


# A session that has not begun


async def test_a_session_that_has_not_begun(repository: LocalRepository, elsewhere: LocalRepository) -> None:
    session = await repository.start_upload()
    for each in (repository, elsewhere):
        assert await each.upload_status(session) == session
        with pytest.raises(OffsetMismatch) as caught:
            await each.append_upload(session, never(), 5)
        assert caught.value.expected == 0
        with pytest.raises(OffsetMismatch):
            await each.finish_upload(session, DIGEST, in_pieces(DATA), 5)
        with pytest.raises(DigestMismatch):
            await each.finish_upload(session, DIGEST, nothing())
        assert await each.upload_status(session) == session, "the session is kept, as nothing came"
    await elsewhere.finish_upload(session, DIGEST, in_pieces(DATA))
    assert await read_blob(repository, DIGEST) == DATA


async def test_unsupported_algorithm(repository: LocalRepository) -> None:
    with pytest.raises(DigestUnsupported):
        await repository.start_upload("md5")


async def test_an_empty_blob(repository: LocalRepository, record: Record) -> None:
    empty = Digest.of(b"")
    await repository.finish_upload(await repository.start_upload(), empty, nothing(), None, 0)
    assert [verb for verb, _ in record.taken()] == ["put", "put"]
    assert await read_blob(repository, empty) == b""


async def test_cancelled_before_it_has_begun(repository: LocalRepository, record: Record) -> None:
    session = await repository.start_upload()
    await repository.cancel_upload(session)
    for call in (
        repository.upload_status(session),
        repository.cancel_upload(session),
        repository.append_upload(session, in_pieces(b"x")),
        repository.finish_upload(session, DIGEST, in_pieces(DATA)),
    ):
        with pytest.raises(UploadUnknown):
            await call


@pytest.mark.parametrize("with_body", [True, False])
async def test_a_finished_session_is_unknown_and_finishing_again_succeeds(
    repository: LocalRepository, elsewhere: LocalRepository, backing: MemoryDriver, with_body: bool
) -> None:
    first = session = await repository.start_upload()
    if not with_body:
        session = await repository.append_upload(session, in_pieces(DATA))
    for each in (repository, repository, elsewhere):  # its first answer may have been lost
        await each.finish_upload(session, DIGEST, in_pieces(DATA) if with_body else nothing())
    for stale in (first, session):
        with pytest.raises(UploadUnknown):
            await repository.upload_status(stale)
        with pytest.raises(UploadUnknown):
            await repository.append_upload(stale, in_pieces(b"x"))
        with pytest.raises(UploadUnknown):
            await repository.finish_upload(stale, Digest.of(b"x"), in_pieces(b"x"))
    assert await leftovers(backing) == []


async def test_wrong_bytes_end_the_session_and_leave_nothing(
    repository: LocalRepository, backing: MemoryDriver
) -> None:
    session = await repository.start_upload()
    with pytest.raises(DigestMismatch):
        await repository.finish_upload(session, DIGEST, in_pieces(b"wrong"))
    with pytest.raises(UploadUnknown):
        await repository.upload_status(session)
    assert [info.key async for info in backing.list_objects("docker")] == []


async def test_a_body_that_breaks_off_leaves_the_session_as_it_was(repository: LocalRepository) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield DATA[:HALF]
        raise ConnectionResetError

    session = await repository.start_upload()
    with pytest.raises(ConnectionResetError):
        await repository.finish_upload(session, DIGEST, broken())
    assert await repository.upload_status(session) == session
    with pytest.raises(BlobUnknown):
        await repository.stat_blob(DIGEST)
    await repository.finish_upload(session, DIGEST, in_pieces(DATA))
    assert await read_blob(repository, DIGEST) == DATA


async def test_the_first_location_after_the_first_bytes(
    repository: LocalRepository, elsewhere: LocalRepository
) -> None:
    """Where they arrived it shows them, as to a client whose first PATCH broke off; elsewhere it is as good as new."""
    first = await repository.start_upload()
    session = await repository.append_upload(first, in_pieces(DATA[:HALF]))
    assert await repository.upload_status(first) == replace(session, prefix=None)
    with pytest.raises(OffsetMismatch):
        await repository.append_upload(first, never())
    with pytest.raises(OffsetMismatch):
        await repository.finish_upload(first, DIGEST, in_pieces(DATA[HALF:]))
    assert await elsewhere.upload_status(first) == first
    other = await elsewhere.append_upload(first, in_pieces(b"anew"))
    session = await elsewhere.append_upload(session, in_pieces(DATA[HALF:]))
    await repository.finish_upload(session, DIGEST, nothing())
    await repository.finish_upload(other, Digest.of(b"anew"), nothing())
    assert await read_blob(elsewhere, DIGEST) == DATA
    assert await read_blob(elsewhere, Digest.of(b"anew")) == b"anew"


async def test_a_first_patch_that_breaks_off_goes_on_where_it_was(repository: LocalRepository) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield DATA[:HALF]
        raise ConnectionResetError

    first = await repository.start_upload()
    with pytest.raises(ConnectionResetError):
        await repository.append_upload(first, broken())
    status = await repository.upload_status(first)
    assert status.offset == HALF
    session = await repository.append_upload(status, in_pieces(DATA[HALF:]))
    assert session.prefix == DIGEST
    await repository.finish_upload(session, DIGEST, nothing())
    assert await read_blob(repository, DIGEST) == DATA


async def test_a_patch_of_nothing(repository: LocalRepository, backing: MemoryDriver) -> None:
    session = await repository.append_upload(await repository.start_upload(), nothing())
    again = await repository.append_upload(session, in_pieces(DATA))
    assert again.id == session.id
    await repository.finish_upload(again, DIGEST, nothing())
    assert await leftovers(backing) == []


async def test_a_session_that_ended_elsewhere(repository: LocalRepository, elsewhere: LocalRepository) -> None:
    """With a Location that shows bytes it is unknown; the one of the POST is as good as a new one."""
    first = await repository.start_upload()
    session = await repository.append_upload(first, in_pieces(DATA))
    await repository.finish_upload(session, DIGEST, nothing())
    with pytest.raises(UploadUnknown):
        await elsewhere.upload_status(session)
    assert (await elsewhere.upload_status(first)).offset == 0
    await elsewhere.finish_upload(first, Digest.of(b"x"), in_pieces(b"x"))
    assert await read_blob(repository, Digest.of(b"x")) == b"x"


@pytest.mark.parametrize("finish", ["here", "elsewhere"])
async def test_s6_no_digest_outlives_the_bytes_it_was_signed_for(
    repository: LocalRepository, elsewhere: LocalRepository, finish: str
) -> None:
    """Signed for good bytes, cancelled, begun again with as many bad ones: nothing may be published of that."""
    first = await repository.start_upload()
    good = await repository.append_upload(first, in_pieces(DATA))
    assert good.prefix == DIGEST
    await repository.cancel_upload(good)
    bad = b"x" * len(DATA)
    await elsewhere.append_upload(first, in_pieces(bad))
    closing = repository if finish == "here" else elsewhere
    with pytest.raises(UploadUnknown):
        await closing.finish_upload(good, DIGEST, nothing())
    for each in (repository, elsewhere):
        with pytest.raises(BlobUnknown):
            await each.stat_blob(DIGEST)


async def test_a_shareable_session_that_was_purged_is_unknown(
    shareable: LocalRepository, backing: MemoryDriver
) -> None:
    session = await shareable.start_upload()
    await backing.abort(await backing.find_stage(layout.upload_data(NAME, session.id)))
    await backing.delete_tree(layout.upload(NAME, session.id))
    for call in (shareable.upload_status(session), shareable.append_upload(session, in_pieces(b"x"))):
        with pytest.raises(UploadUnknown):
            await call


async def test_a_fault_is_never_a_session_that_has_not_begun(repository: LocalRepository, record: Record) -> None:
    session = await repository.start_upload()
    record.failing["put", ""] = Unavailable("the store is gone")
    with pytest.raises(Unavailable):
        await repository.append_upload(session, never())
    record.failing.clear()
    session = await repository.append_upload(session, in_pieces(b"x"))
    record.failing["stage_info", ""] = Unavailable("the store is gone")
    for call in (repository.upload_status(session), repository.cancel_upload(session)):
        with pytest.raises(Unavailable):
            await call


# The end, step by step

STEPS = ["complete", "copy", "put", "delete"]


@pytest.mark.parametrize("verb", STEPS)
@pytest.mark.parametrize("resumed_elsewhere", [False, True], ids=["here", "elsewhere"])
async def test_a_fault_at_any_step_of_the_end_heals(
    repository: LocalRepository,
    elsewhere: LocalRepository,
    record: Record,
    verb: str,
    resumed_elsewhere: bool,
) -> None:
    session = await repository.append_upload(await repository.start_upload(), in_pieces(DATA))
    record.failing[verb, ""] = StorageFull()
    with pytest.raises(StorageFull):
        await repository.finish_upload(session, DIGEST, nothing())
    record.failing.clear()
    await (elsewhere if resumed_elsewhere else repository).finish_upload(session, DIGEST, nothing())
    assert await read_blob(repository, DIGEST) == DATA


@pytest.mark.parametrize("verb", ["put", "begin"])
async def test_a_fault_at_the_beginning_heals(
    repository: LocalRepository, backing: MemoryDriver, record: Record, verb: str
) -> None:
    session = await repository.start_upload()
    record.failing[verb, ""] = StorageFull()
    with pytest.raises(StorageFull):
        await repository.append_upload(session, never())
    record.failing.clear()
    session = await repository.append_upload(session, in_pieces(DATA))
    await repository.finish_upload(session, DIGEST, nothing())
    assert await read_blob(repository, DIGEST) == DATA
    # a session that half began waits for the purge: nobody knows its id
    assert [key.rpartition("/")[2] for key in await leftovers(backing)] in ([], ["startedat"])


# Concurrent clients


@pytest.mark.parametrize("seed", range(40))
async def test_of_two_first_appends_in_one_process_one_wins(seed: int) -> None:
    """They agree on one stage; what either was told is what is stored."""
    backing = DearMemory()
    repository = ContentStore(Spied(backing, Shuffle(seed))).repository(NAME)
    session = await repository.start_upload()
    done = await asyncio.gather(
        *(repository.append_upload(session, in_pieces(body * 10, body)) for body in (b"a", b"b")),
        return_exceptions=True,
    )
    assert all(isinstance(result, UploadSession | OffsetMismatch) for result in done), done
    status = await repository.upload_status(session)
    for result in done:
        if isinstance(result, UploadSession):
            assert result.offset <= status.offset
    await backing.aclose()


@pytest.mark.parametrize("seed", range(40))
async def test_two_first_appends_in_two_processes_are_two_sessions(seed: int) -> None:
    backing = DearMemory()
    repositories = [ContentStore(Spied(backing, Shuffle(seed + n))).repository(NAME) for n in (0, 1000)]
    session = await repositories[0].start_upload()
    bodies = (b"a" * 10, b"b" * 10)
    done = await asyncio.gather(
        *(r.append_upload(session, in_pieces(b[:9], b[9:])) for r, b in zip(repositories, bodies, strict=True))
    )
    for result, body in zip(done, bodies, strict=True):
        await repositories[0].finish_upload(result, Digest.of(body), nothing())
        assert await read_blob(repositories[1], Digest.of(body)) == body
    await backing.aclose()


@pytest.mark.parametrize("seed", range(20))
async def test_finished_twice_at_once(seed: int) -> None:
    backing = DearMemory()
    repositories = [ContentStore(Spied(backing, Shuffle(seed + n))).repository(NAME) for n in (0, 1000)]
    for bodies in (True, False):
        session = await repositories[0].start_upload()
        if not bodies:
            session = await repositories[0].append_upload(session, in_pieces(DATA))
        await asyncio.gather(
            *(r.finish_upload(session, DIGEST, in_pieces(DATA) if bodies else nothing()) for r in repositories)
        )
        assert await read_blob(repositories[0], DIGEST) == DATA
        assert await leftovers(backing) == []
    await backing.aclose()


def test_sessions_that_are_remembered_are_bounded() -> None:
    begun = Begun(limit=2)
    sessions = [UploadSession(f"id{n}", 0, "") for n in range(3)]
    for session in sessions:
        begun.end(session)
    assert [begun.get(session) for session in sessions] == [None, "id1", "id2"]
