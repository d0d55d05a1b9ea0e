"""The wrappers that make a mode of the registry: what they refuse, and that they hand on all the rest.

A verb that joins the protocols joins these tests by itself: without a line in CALLS they fail.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, get_args

import pytest

from storage.content import ContentStore
from storage.digest import Digest
from storage.driver import StorageDriver
from storage.errors import Unsupported
from storage.local import LocalRepository
from storage.manifest import IMAGE_MANIFEST
from storage.names import parse_tag
from storage.repository import (
    Action,
    ReadOnly,
    RefuseDeletes,
    Repository,
    RepositoryReader,
    RepositoryWriter,
    UploadSession,
)
from tests.api import image, in_pieces
from tests.storage.spying import NAME, OTHER, Record, push_blob, read_blob, tag_of

LAYER = b"the bytes of a layer"
LAYER_DIGEST = Digest.of(LAYER)
MANIFEST = image(b"{}", (LAYER,))
DIGEST = Digest.of(MANIFEST)
V1, V2 = parse_tag("v1"), parse_tag("v2")

Call = Callable[[Repository, UploadSession], Awaitable[Any]]


async def never() -> AsyncIterator[bytes]:
    raise AssertionError("a refusal reads no body")
    yield b""


async def close(opening: Awaitable[Any]) -> int:
    async with await opening as reader:
        return int(reader.size)


READS: Mapping[str, Call] = {
    "stat_blob": lambda r, s: r.stat_blob(LAYER_DIGEST),
    "open_blob": lambda r, s: close(r.open_blob(LAYER_DIGEST)),
    "blob_url": lambda r, s: r.blob_url(LAYER_DIGEST, "GET"),
    "get_manifest": lambda r, s: r.get_manifest(V1),
    "list_tags": lambda r, s: r.list_tags("", 10),
    "list_referrers": lambda r, s: r.list_referrers(DIGEST),
}
DELETES: Mapping[str, Call] = {
    "delete_tag": lambda r, s: r.delete_tag(V1),
    "delete_manifest": lambda r, s: r.delete_manifest(DIGEST),
    "delete_blob": lambda r, s: r.delete_blob(LAYER_DIGEST),
}
PUSHES: Mapping[str, Call] = {
    "start_upload": lambda r, s: r.start_upload(),
    "upload_status": lambda r, s: r.upload_status(s),
    "append_upload": lambda r, s: r.append_upload(s, in_pieces(b"x")),
    "finish_upload": lambda r, s: r.finish_upload(s, Digest.of(b"x"), in_pieces(b"x")),
    "cancel_upload": lambda r, s: r.cancel_upload(s),
    "put_blob": lambda r, s: r.put_blob(Digest.of(b"x"), in_pieces(b"x")),
    "mount_blob": lambda r, s: r.mount_blob(LAYER_DIGEST, NAME),
    "put_manifest": lambda r, s: r.put_manifest(V2, IMAGE_MANIFEST, MANIFEST, ()),
}
UNREAD: Mapping[str, Call] = {
    **PUSHES,
    "append_upload": lambda r, s: r.append_upload(s, never(), 0),
    "finish_upload": lambda r, s: r.finish_upload(s, LAYER_DIGEST, never(), 0),
    "put_blob": lambda r, s: r.put_blob(LAYER_DIGEST, never()),
}


def verbs(protocol: type) -> set[str]:
    return {name for name, value in vars(protocol).items() if callable(value) and not name.startswith("_")}


def test_every_verb_is_tried_here() -> None:
    assert set(READS) == verbs(RepositoryReader)
    assert {*PUSHES, *DELETES, "allow"} == verbs(RepositoryWriter)


@pytest.fixture
async def filled(repository: LocalRepository) -> LocalRepository:
    for data in (b"{}", LAYER):
        await push_blob(repository, data)
    await repository.put_manifest(V1, IMAGE_MANIFEST, MANIFEST)
    return repository


@pytest.fixture
async def session(filled: LocalRepository) -> UploadSession:
    return await filled.start_upload()


async def everything(driver: StorageDriver) -> dict[str, str]:
    return {info.key: info.version async for info in driver.list_objects("")}


WRAPPERS: Mapping[str, Callable[[Repository], Repository]] = {"read-only": ReadOnly, "deletes-off": RefuseDeletes}


@pytest.mark.parametrize("wrapper", WRAPPERS.values(), ids=WRAPPERS)
@pytest.mark.parametrize("verb", READS)
async def test_reading_is_handed_on(
    filled: LocalRepository, session: UploadSession, wrapper: Callable[[Repository], Repository], verb: str
) -> None:
    wrapped = wrapper(filled)
    assert wrapped.name == NAME
    assert await READS[verb](wrapped, session) == await READS[verb](filled, session)


@pytest.mark.parametrize("verb", [*PUSHES, *DELETES])
async def test_s5_read_only_refuses_every_write_without_a_look(
    filled: LocalRepository, session: UploadSession, backing: StorageDriver, record: Record, verb: str
) -> None:
    before = await everything(backing)
    record.taken()
    with pytest.raises(Unsupported, match=r"storage\.maintenance\.readonly"):
        await {**UNREAD, **DELETES}[verb](ReadOnly(filled), session)
    assert record.taken() == []
    assert await everything(backing) == before


@pytest.mark.parametrize("verb", DELETES)
async def test_s5_deletes_that_are_off(
    filled: LocalRepository, session: UploadSession, backing: StorageDriver, record: Record, verb: str
) -> None:
    before = await everything(backing)
    record.taken()
    with pytest.raises(Unsupported, match=r"storage\.delete\.enabled"):
        await DELETES[verb](RefuseDeletes(filled), session)
    assert record.taken() == []
    assert await everything(backing) == before
    assert await tag_of(filled, V1) == DIGEST


@pytest.mark.parametrize("verb", PUSHES)
async def test_pushing_goes_on_while_deletes_are_off(
    filled: LocalRepository, session: UploadSession, backing: StorageDriver, record: Record, verb: str
) -> None:
    record.taken()
    await PUSHES[verb](RefuseDeletes(filled), session)
    through = record.taken()
    # where calls are dear, a session is begun by its first bytes
    unbegun = backing.calls_are_dear and verb in ("start_upload", "upload_status", "cancel_upload")
    assert (through == []) == unbegun
    if verb == "finish_upload":
        assert await read_blob(filled, Digest.of(b"x")) == b"x"


@pytest.mark.parametrize("action", get_args(Action))
def test_what_is_on_offer(repository: LocalRepository, action: Action) -> None:
    """Asked before a body is read; nested wrappers refuse what any of them refuses."""
    offers: list[tuple[Repository, set[str]]] = [
        (repository, {"pull", "push", "delete"}),
        (RefuseDeletes(repository), {"pull", "push"}),
        (ReadOnly(repository), {"pull"}),
        (RefuseDeletes(ReadOnly(repository)), {"pull"}),
        (ReadOnly(RefuseDeletes(repository)), {"pull"}),
    ]
    for offering, offered in offers:
        if action in offered:
            offering.allow(action)
        else:
            with pytest.raises(Unsupported):
                offering.allow(action)


async def test_a_mount_from_a_repository_through_a_wrapper(content: ContentStore, filled: LocalRepository) -> None:
    other = RefuseDeletes(content.repository(OTHER))
    await other.mount_blob(LAYER_DIGEST, NAME)
    assert await read_blob(other, LAYER_DIGEST) == LAYER
