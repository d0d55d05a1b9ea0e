"""Upload sessions over a real driver: the order of writes, what is hashed when, and what concurrent clients can do."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from storage import layout
from storage.content import ContentStore
from storage.digest import Digest, RunningHash
from storage.driver import StorageDriver
from storage.drivers.filesystem import FilesystemDriver
from storage.drivers.memory import MemoryDriver
from storage.errors import (
    BlobUnknown,
    DigestMismatch,
    DigestUnsupported,
    OffsetMismatch,
    StorageFull,
    Unavailable,
    UploadUnknown,
)
from storage.links import write_link
from storage.local import LocalRepository
from storage.names import RepositoryName
from storage.repository import UploadSession
from storage.uploads import RunningHashes
from tests.api import in_pieces
from tests.storage.conftest import EAGER
from tests.storage.spying import NAME, OTHER, Record, Shuffle, Spied, push_blob, read_blob

DATA = b"0123456789" * 1000
HALF = len(DATA) // 2
DIGEST = Digest.of(DATA)


async def nothing() -> AsyncIterator[bytes]:
    return
    yield b""


async def never() -> AsyncIterator[bytes]:
    raise AssertionError("a chunk was read")
    yield b""


def re_reads(record: Record, session: UploadSession) -> int:
    """How often the staged bytes were read."""
    return sum(verb in ("open", "read") and session.id in key for verb, key in record.calls)


async def leftovers(driver: StorageDriver) -> list[str]:
    """Whatever an upload session has left behind."""
    return [info.key async for info in driver.list_objects(layout.uploads(NAME))]


# The usual ways


@EAGER
async def test_order_of_writes(repository: LocalRepository, record: Record) -> None:
    """First the bytes, then the link that gates them: a crash in between leaves a blob that nobody sees."""
    session = await repository.start_upload()
    folder, data = layout.upload(NAME, session.id), layout.upload_data(NAME, session.id)
    assert record.written() == [("put", f"{folder}/startedat"), ("begin", data)]
    session = await repository.append_upload(session, in_pieces(DATA[:HALF], DATA[HALF:]))
    assert record.written() == [("append", data)]
    await repository.finish_upload(session, DIGEST, nothing())
    assert record.written() == [
        ("complete", data),
        ("move", layout.blob_data(DIGEST)),
        ("put", layout.layer_link(NAME, DIGEST)),
        ("abort", data),
        ("delete_tree", folder),
    ]


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("data", [DATA, b"", b"{}"], ids=["some", "empty", "json"])
async def test_at_once(repository: LocalRepository, backing: StorageDriver, algorithm: str, data: bytes) -> None:
    digest = await push_blob(repository, data, algorithm)
    assert await read_blob(repository, digest) == data
    assert await repository.stat_blob(digest) == len(data)
    assert await backing.read(layout.layer_link(NAME, digest)) == str(digest).encode()
    assert await leftovers(backing) == []


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("data", [DATA, b""], ids=["some", "empty"])
async def test_without_a_session(
    repository: LocalRepository, backing: StorageDriver, record: Record, algorithm: str, data: bytes
) -> None:
    """The digest comes first: no `startedat`, and nothing is left below `_uploads`."""
    digest = Digest.of(data, algorithm)
    for _ in range(2):
        await repository.put_blob(digest, in_pieces(*([data] if data else [])), len(data))
        assert not [key for _, key in record.taken() if key.endswith("startedat")]
    assert await read_blob(repository, digest) == data
    assert await leftovers(backing) == []
    assert await backing.list_folders(layout.uploads(NAME)) == []


@pytest.mark.parametrize("body", [[], [b"wrong"], [DATA[:-1]], [DATA, b"x"]])
async def test_without_a_session_wrong_bytes_leave_nothing(
    content: ContentStore, repository: LocalRepository, backing: StorageDriver, body: list[bytes]
) -> None:
    await push_blob(content.repository(OTHER), DATA)
    with pytest.raises(DigestMismatch):
        await repository.put_blob(DIGEST, in_pieces(*body))
    with pytest.raises(BlobUnknown):
        await repository.stat_blob(DIGEST)
    assert await leftovers(backing) == []
    assert await read_blob(content.repository(OTHER), DIGEST) == DATA


async def test_without_a_session_a_body_that_breaks_off_leaves_nothing(
    repository: LocalRepository, backing: StorageDriver
) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield DATA[:HALF]
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await repository.put_blob(DIGEST, broken(), len(DATA))
    assert [info.key async for info in backing.list_objects(layout.ROOT)] == []


async def test_what_a_session_knows(repository: LocalRepository) -> None:
    session = await repository.start_upload()
    assert (session.offset, session.algorithm) == (0, "sha256")
    assert session.started.endswith("Z")
    session = await repository.append_upload(session, in_pieces(DATA[:HALF]))
    assert (session.offset, session.prefix) == (HALF, Digest.of(DATA[:HALF]))
    assert await repository.upload_status(session) == session
    later = await repository.append_upload(session, in_pieces(DATA[HALF:]), HALF)
    assert (later.offset, later.prefix) == (len(DATA), DIGEST)
    assert await repository.upload_status(session) == replace(later, prefix=None), "the old one knows no new digest"


async def test_unsupported_algorithm_leaves_nothing(repository: LocalRepository, backing: StorageDriver) -> None:
    with pytest.raises(DigestUnsupported):
        await repository.start_upload("md5")
    assert await leftovers(backing) == []


# Which bytes are read again


async def test_usual_push_reads_nothing_again(repository: LocalRepository, record: Record) -> None:
    session = await repository.start_upload()
    for piece in (DATA[:100], DATA[100:HALF], DATA[HALF:]):
        session = await repository.append_upload(session, in_pieces(piece))
    await repository.finish_upload(session, DIGEST, nothing())
    assert re_reads(record, session) == 0
    assert await read_blob(repository, DIGEST) == DATA


async def test_a_put_without_body_in_another_process_reads_nothing_again(
    repository: LocalRepository, elsewhere: LocalRepository, elsewhere_record: Record
) -> None:
    session = await repository.append_upload(await repository.start_upload(), in_pieces(DATA))
    await elsewhere.finish_upload(session, DIGEST, nothing())
    assert re_reads(elsewhere_record, session) == 0
    assert await read_blob(repository, DIGEST) == DATA


async def test_a_put_with_a_body_in_another_process_reads_once(
    repository: LocalRepository, elsewhere: LocalRepository, elsewhere_record: Record
) -> None:
    session = await repository.append_upload(await repository.start_upload(), in_pieces(DATA[:HALF]))
    await elsewhere.finish_upload(session, DIGEST, in_pieces(DATA[HALF:]))
    assert re_reads(elsewhere_record, session) == 1
    assert await read_blob(repository, DIGEST) == DATA


async def test_a_running_hash_that_missed_bytes_is_not_believed(
    repository: LocalRepository, elsewhere: LocalRepository, record: Record, elsewhere_record: Record
) -> None:
    """Bytes that another process has added are in nobody's running hash: a PATCH never reads, the PUT reads once."""
    session = await repository.append_upload(await repository.start_upload(), in_pieces(DATA[:100]))
    session = await elsewhere.append_upload(session, in_pieces(DATA[100:HALF]))
    assert session.prefix is None
    session = await repository.append_upload(session, in_pieces(DATA[HALF:]))
    assert session.prefix is None
    assert re_reads(record, session) == re_reads(elsewhere_record, session) == 0
    await repository.finish_upload(session, DIGEST, nothing())
    assert re_reads(record, session) == 1
    assert await read_blob(elsewhere, DIGEST) == DATA


async def test_a_running_hash_of_the_same_length_is_of_the_same_bytes(
    repository: LocalRepository, elsewhere: LocalRepository
) -> None:
    """A session that was cancelled and begun again has another id, so that no old hash fits it."""
    first = await repository.append_upload(await repository.start_upload(), in_pieces(DATA[:HALF]))
    await elsewhere.cancel_upload(first)
    second = await repository.start_upload()
    assert second.id != first.id
    second = await elsewhere.append_upload(second, in_pieces(DATA[HALF:]))
    digest = Digest.of(DATA[HALF:])
    await repository.finish_upload(replace(second, prefix=None), digest, nothing())
    assert await read_blob(repository, digest) == DATA[HALF:]


@pytest.mark.parametrize(("started", "closed"), [("sha256", "sha512"), ("sha512", "sha256")])
async def test_a_put_in_another_algorithm_reads_once(
    repository: LocalRepository, record: Record, started: str, closed: str
) -> None:
    session = await repository.append_upload(await repository.start_upload(started), in_pieces(DATA))
    digest = Digest.of(DATA, closed)
    await repository.finish_upload(session, digest, nothing())
    assert re_reads(record, session) == 1
    assert await read_blob(repository, digest) == DATA
    with pytest.raises(BlobUnknown):
        await repository.stat_blob(Digest.of(DATA, started))


async def test_a_put_of_everything_in_another_algorithm_reads_nothing(
    repository: LocalRepository, record: Record
) -> None:
    session = await repository.start_upload("sha256")
    digest = Digest.of(DATA, "sha512")
    await repository.finish_upload(session, digest, in_pieces(DATA[:7], DATA[7:]))
    assert re_reads(record, session) == 0
    assert await read_blob(repository, digest) == DATA


def test_only_so_many_running_hashes_are_kept() -> None:
    hashes = RunningHashes(limit=2)
    sessions = [UploadSession(f"id{n}", 0, "") for n in range(3)]
    for session in sessions:
        running = RunningHash()
        running.update(b"x")
        hashes.keep(session, running)
    assert [hashes.take(session, 1) is not None for session in sessions] == [False, True, True]
    assert hashes.take(sessions[2], 1) is None, "it is handed over"
    fresh = hashes.take(sessions[0], 0)
    assert fresh is not None
    assert fresh.offset == 0


# What goes wrong


async def test_wrong_digest_without_body_keeps_the_session(repository: LocalRepository) -> None:
    session = await repository.append_upload(await repository.start_upload(), in_pieces(DATA))
    with pytest.raises(DigestMismatch):
        await repository.finish_upload(session, Digest.of(b"other"), nothing())
    with pytest.raises(BlobUnknown):
        await repository.stat_blob(Digest.of(b"other"))
    await repository.finish_upload(session, DIGEST, nothing())
    assert await read_blob(repository, DIGEST) == DATA


@pytest.mark.parametrize("before", [b"", DATA[:HALF]], ids=["at-once", "after-a-chunk"])
async def test_wrong_digest_with_body_ends_the_session(
    repository: LocalRepository, backing: StorageDriver, before: bytes
) -> None:
    session = await repository.start_upload()
    if before:
        session = await repository.append_upload(session, in_pieces(before))
    with pytest.raises(DigestMismatch):
        await repository.finish_upload(session, Digest.of(b"other"), in_pieces(DATA))
    with pytest.raises(UploadUnknown):
        await repository.upload_status(session)
    with pytest.raises(BlobUnknown):
        await repository.stat_blob(Digest.of(b"other"))
    assert await leftovers(backing) == []


@pytest.mark.parametrize("offset", [0, 1, HALF - 1, HALF + 1, 1 << 40])
async def test_a_chunk_elsewhere_is_refused_before_it_is_read(repository: LocalRepository, offset: int) -> None:
    session = await repository.append_upload(await repository.start_upload(), in_pieces(DATA[:HALF]))
    with pytest.raises(OffsetMismatch) as caught:
        await repository.append_upload(session, never(), offset)
    assert caught.value.expected == HALF
    with pytest.raises(OffsetMismatch):
        await repository.finish_upload(session, DIGEST, in_pieces(DATA[HALF:]), offset)
    with pytest.raises(OffsetMismatch):
        await repository.finish_upload(session, Digest.of(DATA[:HALF]), nothing(), offset)
    session = await repository.append_upload(session, in_pieces(DATA[HALF:]), HALF)
    assert session.prefix == DIGEST, "the session goes on, and its hash is still right"
    await repository.finish_upload(session, DIGEST, nothing(), len(DATA))
    assert await read_blob(repository, DIGEST) == DATA


async def test_an_old_location_is_refused(repository: LocalRepository) -> None:
    old = await repository.start_upload()
    await repository.append_upload(old, in_pieces(DATA[:HALF]))
    with pytest.raises(OffsetMismatch):
        await repository.append_upload(old, never())


async def test_f35_a_body_that_breaks_off_keeps_what_came(
    repository: LocalRepository, backing: StorageDriver, record: Record
) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield DATA[:100]
        yield DATA[100:HALF]
        raise ConnectionResetError

    session = await repository.start_upload()
    with pytest.raises(ConnectionResetError):
        await repository.append_upload(session, broken())
    status = await repository.upload_status(session)
    assert status.offset == HALF
    with pytest.raises(ConnectionResetError):
        await repository.finish_upload(status, Digest.of(DATA[:HALF] * 2), broken())
    with pytest.raises(BlobUnknown):
        await repository.stat_blob(Digest.of(DATA[:HALF] * 2))
    status = await repository.upload_status(status)
    assert status.offset == 2 * HALF
    await repository.finish_upload(status, Digest.of(DATA[:HALF] * 2), nothing())
    assert re_reads(record, session) == 0, "the hash went along with what was stored"


async def test_cancel(repository: LocalRepository, backing: StorageDriver) -> None:
    session = await repository.append_upload(await repository.start_upload(), in_pieces(DATA))
    await repository.cancel_upload(session)
    assert await leftovers(backing) == []
    for call in (
        repository.cancel_upload(session),
        repository.upload_status(session),
        repository.append_upload(session, in_pieces(b"x")),
        repository.finish_upload(session, DIGEST, nothing()),
        repository.finish_upload(session, DIGEST, in_pieces(DATA)),
    ):
        with pytest.raises(UploadUnknown):
            await call


async def test_finishing_again_succeeds(repository: LocalRepository, elsewhere: LocalRepository) -> None:
    """The first answer may have been lost on its way."""
    session = await repository.append_upload(await repository.start_upload(), in_pieces(DATA))
    for again in (repository, repository, elsewhere):
        await again.finish_upload(session, DIGEST, nothing())
    with pytest.raises(UploadUnknown):
        await repository.finish_upload(session, Digest.of(b"another"), nothing())


STEPS = ["complete", "move", "put", "abort", "delete_tree"]


@EAGER
@pytest.mark.parametrize("verb", STEPS)
@pytest.mark.parametrize("resumed_elsewhere", [False, True], ids=["here", "elsewhere"])
async def test_a_fault_at_any_step_of_the_end_heals(
    repository: LocalRepository,
    elsewhere: LocalRepository,
    backing: StorageDriver,
    record: Record,
    verb: str,
    resumed_elsewhere: bool,
) -> None:
    session = await repository.append_upload(await repository.start_upload(), in_pieces(DATA))
    record.failing[verb, ""] = StorageFull()
    with pytest.raises(StorageFull):
        await repository.finish_upload(session, DIGEST, nothing())
    if verb in ("complete", "move", "put"):
        with pytest.raises(BlobUnknown):
            await repository.stat_blob(DIGEST)
    record.failing.clear()
    await (elsewhere if resumed_elsewhere else repository).finish_upload(session, DIGEST, nothing())
    assert await read_blob(repository, DIGEST) == DATA


@pytest.mark.parametrize("verb", ["append", "stage_info"])
async def test_a_fault_is_never_unknown(repository: LocalRepository, record: Record, verb: str) -> None:
    session = await repository.append_upload(await repository.start_upload(), in_pieces(DATA))
    record.failing[verb, ""] = Unavailable("the disk is gone")
    with pytest.raises(Unavailable):
        await (
            repository.append_upload(session, in_pieces(b"x"))
            if verb == "append"
            else repository.upload_status(session)
        )
    record.failing.clear()
    await repository.finish_upload(session, DIGEST, nothing())


# S6: having a digest is not having the bytes


@pytest.mark.parametrize("prefix", [None, Digest.of(DATA[:-1])])
async def test_s6_finishing_an_unknown_session_gives_no_blob_of_another_repository(
    content: ContentStore, repository: LocalRepository, prefix: Digest | None
) -> None:
    await push_blob(content.repository(OTHER), DATA)
    session = await repository.start_upload()
    await repository.cancel_upload(session)
    for offset in (0, len(DATA)):
        forged = replace(session, prefix=prefix, offset=offset)
        with pytest.raises(UploadUnknown):
            await repository.finish_upload(forged, DIGEST, nothing())
    with pytest.raises(BlobUnknown):
        await repository.stat_blob(DIGEST)


async def test_s6_wrong_bytes_for_a_digest_that_another_repository_has(
    content: ContentStore, repository: LocalRepository
) -> None:
    await push_blob(content.repository(OTHER), DATA)
    for body in ([], [b"wrong"], [DATA[:-1]], [DATA, b"x"]):
        with pytest.raises(DigestMismatch):
            await repository.finish_upload(await repository.start_upload(), DIGEST, in_pieces(*body))
    with pytest.raises(BlobUnknown):
        await repository.stat_blob(DIGEST)
    assert await read_blob(content.repository(OTHER), DIGEST) == DATA


# Mounts


async def test_mount(content: ContentStore, repository: LocalRepository, record: Record) -> None:
    await push_blob(content.repository(OTHER), DATA)
    record.taken()
    await repository.mount_blob(DIGEST, OTHER)
    assert record.written() == [("put", layout.layer_link(NAME, DIGEST))]
    assert await read_blob(repository, DIGEST) == DATA


async def test_mount_from_anywhere(content: ContentStore, repository: LocalRepository) -> None:
    await push_blob(content.repository(OTHER), DATA)
    await repository.mount_blob(DIGEST, None)
    assert await read_blob(repository, DIGEST) == DATA


async def test_mount_of_what_is_not_there(
    content: ContentStore, repository: LocalRepository, backing: StorageDriver, record: Record
) -> None:
    other = content.repository(OTHER)
    await push_blob(other, DATA)
    await other.delete_blob(DIGEST)
    await write_link(backing, layout.layer_link(OTHER, Digest.of(b"dangling")), Digest.of(b"dangling"))
    record.taken()
    for digest, source in [
        (Digest.of(b"nobody's"), OTHER),
        (Digest.of(b"nobody's"), None),
        (DIGEST, OTHER),
        (Digest.of(b"dangling"), OTHER),
        (Digest.of(DATA, "sha512"), OTHER),
    ]:
        with pytest.raises(BlobUnknown):
            await repository.mount_blob(digest, source)
    assert record.written() == []


@pytest.mark.parametrize("source", [OTHER, None], ids=["from", "anywhere"])
async def test_f25_an_emptied_blob_is_not_mounted(
    content: ContentStore, repository: LocalRepository, backing: StorageDriver, source: RepositoryName | None
) -> None:
    """The client uploads it instead, and it is whole again."""
    await push_blob(content.repository(OTHER), DATA)
    await backing.put(layout.blob_data(DIGEST), b"")
    with pytest.raises(BlobUnknown):
        await repository.mount_blob(DIGEST, source)
    await push_blob(repository, DATA)
    assert await read_blob(content.repository(OTHER), DIGEST) == DATA
    for algorithm in ("sha256", "sha512"):
        empty = await push_blob(content.repository(OTHER), b"", algorithm)
        await repository.mount_blob(empty, source)


async def test_aliases_are_read_and_never_written(
    content: ContentStore, repository: LocalRepository, backing: StorageDriver, record: Record
) -> None:
    """distribution links a sha512 name to sha256 data, which its garbage collector then takes for garbage."""
    other = content.repository(OTHER)
    await push_blob(other, DATA)
    alias = Digest.of(DATA, "sha512")
    await write_link(backing, layout.layer_link(OTHER, alias), DIGEST)
    assert await read_blob(other, alias) == DATA
    assert await other.stat_blob(alias) == len(DATA)
    record.taken()
    with pytest.raises(BlobUnknown):
        await repository.mount_blob(alias, OTHER)
    assert record.written() == []
    assert await push_blob(other, DATA, "sha512") == alias
    assert await backing.read(layout.layer_link(OTHER, alias)) == str(alias).encode()
    assert await backing.read(layout.blob_data(alias)) == DATA


# Concurrent clients

SEEDS = range(40)


@pytest.mark.parametrize("seed", SEEDS)
async def test_of_two_appends_at_one_offset_one_wins(seed: int) -> None:
    backing = MemoryDriver()
    repositories = [ContentStore(Spied(backing, Shuffle(seed + n))).repository(NAME) for n in (0, 1000)]
    session = await repositories[0].start_upload()
    bodies = [[b"a" * 10, b"b" * 10], [b"c" * 10, b"d" * 10]]
    done = await asyncio.gather(
        *(r.append_upload(session, in_pieces(*b)) for r, b in zip(repositories, bodies, strict=True)),
        return_exceptions=True,
    )
    won = [index for index, result in enumerate(done) if isinstance(result, UploadSession)]
    assert all(isinstance(result, UploadSession | OffsetMismatch) for result in done), done
    status = await repositories[0].upload_status(session)
    key = layout.upload_data(NAME, session.id)
    await backing.complete(await backing.find_stage(key), status.offset)
    stored = await backing.read(key)
    assert all(stored.startswith(b"".join(bodies[index])) for index in won), (stored, won)
    digest = Digest.of(stored)
    for result in done:  # whatever digest an answer has carried is that of the bytes
        if isinstance(result, UploadSession) and result.prefix is not None:
            assert result.prefix == Digest.of(stored[: result.offset])
    await repositories[1].finish_upload(status, digest, nothing())
    assert await read_blob(repositories[0], digest) == stored
    await backing.aclose()


@pytest.mark.parametrize("seed", SEEDS)
async def test_finished_twice_at_once(seed: int) -> None:
    backing = MemoryDriver()
    repositories = [ContentStore(Spied(backing, Shuffle(seed + n))).repository(NAME) for n in (0, 1000)]
    session = await repositories[0].append_upload(await repositories[0].start_upload(), in_pieces(DATA))
    await asyncio.gather(*(r.finish_upload(session, DIGEST, nothing()) for r in repositories))
    assert await read_blob(repositories[0], DIGEST) == DATA
    assert await leftovers(backing) == []
    await backing.aclose()


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_late_append_never_changes_a_finished_blob(seed: int) -> None:
    backing = MemoryDriver()
    repositories = [ContentStore(Spied(backing, Shuffle(seed + n))).repository(NAME) for n in (0, 1000)]
    session = await repositories[0].append_upload(await repositories[0].start_upload(), in_pieces(DATA))
    done = await asyncio.gather(
        repositories[0].finish_upload(session, DIGEST, nothing()),
        repositories[1].append_upload(session, in_pieces(b"late", b"r")),
        return_exceptions=True,
    )
    assert done[0] is None or isinstance(done[0], OffsetMismatch | DigestMismatch), done
    assert isinstance(done[1], UploadSession | OffsetMismatch | UploadUnknown), done
    if done[0] is None:
        assert await read_blob(repositories[1], DIGEST) == DATA
    else:
        with pytest.raises(BlobUnknown):
            await repositories[1].stat_blob(DIGEST)
    await backing.aclose()


@pytest.mark.parametrize("seed", range(20))
async def test_f17_the_same_blob_pushed_at_once(seed: int) -> None:
    backing = MemoryDriver()
    repositories = [ContentStore(Spied(backing, Shuffle(seed + n))).repository(NAME) for n in range(4)]
    await asyncio.gather(*(push_blob(r, DATA) for r in repositories))
    assert await read_blob(repositories[0], DIGEST) == DATA
    assert [info.key async for info in backing.list_objects(layout.BLOBS)] == [layout.blob_data(DIGEST)]
    assert await leftovers(backing) == []
    await backing.aclose()


# The direct way to a body


@dataclass
class Arrived:
    """An inlet for which everything has come."""

    first: list[bytes]
    left: int = 0

    def receive(self, buffer: memoryview) -> int:
        return 0

    async def ready(self) -> None:
        raise AssertionError("nothing is missing")


@dataclass
class Direct:
    """Chunks that only go the direct way."""

    pieces: list[bytes]
    taken: int = field(default=0)

    def __aiter__(self) -> "Direct":
        return self

    async def __anext__(self) -> bytes:
        raise AssertionError("read through the loop")

    @contextmanager
    def take_over(self) -> Iterator[Arrived]:
        self.taken += 1
        yield Arrived(self.pieces)


@pytest.mark.parametrize("half", [0, HALF])
async def test_the_body_of_a_closing_put_goes_the_direct_way(tmp_path: Path, half: int) -> None:
    """Where its length is told, nothing is read ahead of it."""
    driver = FilesystemDriver(tmp_path, scratch=layout.SCRATCH)
    repository = ContentStore(driver).repository(NAME)
    session = await repository.start_upload()
    if half:
        session = await repository.append_upload(session, in_pieces(DATA[:half]))
    body = Direct([DATA[half:]])
    await repository.finish_upload(session, DIGEST, body, half, len(DATA) - half)
    assert body.taken == 1
    assert await read_blob(repository, DIGEST) == DATA
    await driver.aclose()


async def test_no_body_is_neither_read_nor_taken(repository: LocalRepository) -> None:
    session = await repository.append_upload(await repository.start_upload(), in_pieces(DATA))
    await repository.finish_upload(session, DIGEST, never(), length=0)
    assert await read_blob(repository, DIGEST) == DATA
