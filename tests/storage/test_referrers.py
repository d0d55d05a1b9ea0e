"""The referrers index: a hint that may be stale, missing or wrong, beside what other registries and clients write."""

import asyncio

import pytest

from storage import layout
from storage.content import ContentStore
from storage.digest import Digest
from storage.driver import StorageDriver
from storage.drivers.memory import MemoryDriver
from storage.errors import ManifestUnknown, StorageFull
from storage.links import write_link
from storage.local import LocalRepository
from storage.manifest import IMAGE_INDEX, Descriptor
from storage.names import parse_name, parse_tag
from storage.rules import ManifestRules
from tests.api import IMAGE, index
from tests.storage.spying import NAME, Record, Shuffle, Spied

SUBJECT = Digest.of(b"a subject")
SHA512 = Digest.of(b"a subject", "sha512")


def referrer(number: int, subject: Digest | None = SUBJECT) -> bytes:
    named = {"mediaType": IMAGE, "digest": str(subject), "size": 9} if subject else None
    more = {"subject": named} if named else {}
    return index(annotations={"number": str(number)}, artifactType=f"application/x{number}", **more)


async def push(repository: LocalRepository, number: int, subject: Digest | None = SUBJECT) -> Digest:
    body = referrer(number, subject)
    return (await repository.put_manifest(Digest.of(body), IMAGE_INDEX, body)).digest


async def listed(repository: LocalRepository, subject: Digest = SUBJECT) -> list[Digest]:
    return [descriptor.digest for descriptor in await repository.list_referrers(subject)]


async def push_as_distribution(driver: StorageDriver, number: int, subject: Digest | None = SUBJECT) -> Digest:
    """A revision, and no entry in an index that it knows nothing of."""
    body = referrer(number, subject)
    digest = Digest.of(body)
    await driver.put(layout.blob_data(digest), body)
    await write_link(driver, layout.revision_link(NAME, digest), digest)
    return digest


async def test_what_a_listing_shows(repository: LocalRepository) -> None:
    digest = await push(repository, 1)
    assert await repository.list_referrers(SUBJECT) == [
        Descriptor(
            media_type=IMAGE_INDEX,
            digest=digest,
            size=len(referrer(1)),
            artifact_type="application/x1",
            annotations={"number": "1"},
        )
    ]


@pytest.mark.parametrize("subject", [SUBJECT, SHA512], ids=["sha256", "sha512"])
async def test_pushed_listed_and_deleted(repository: LocalRepository, subject: Digest) -> None:
    assert await listed(repository, subject) == []
    pushed = [await push(repository, number, subject) for number in range(5)]
    assert await listed(repository, subject) == sorted(pushed)
    assert await listed(repository, Digest.of(b"another")) == []
    await repository.delete_manifest(pushed[0])
    assert await listed(repository, subject) == sorted(pushed[1:])
    await push(repository, 0, subject)
    assert await listed(repository, subject) == sorted(pushed)


async def test_referrers_stay_in_their_repository(content: ContentStore, repository: LocalRepository) -> None:
    await push(repository, 1)
    assert await listed(content.repository(parse_name("a/b/c"))) == []


async def test_the_entry_is_written_before_the_manifest(repository: LocalRepository, record: Record) -> None:
    """A crash in between leaves an entry of nothing, which is not listed; the other way round it would be missing."""
    body = referrer(1)
    digest = Digest.of(body)
    record.failing["put", layout.revision_link(NAME, digest)] = StorageFull()
    with pytest.raises(StorageFull):
        await push(repository, 1)
    assert ("put", layout.referrer_link(NAME, SUBJECT, digest)) in record.written()
    assert await listed(repository) == []
    record.failing.clear()
    await push(repository, 1)
    assert await listed(repository) == [digest]


# An index that is wrong


async def test_entries_of_nothing_and_lies_are_not_listed(repository: LocalRepository, backing: StorageDriver) -> None:
    digest = await push(repository, 1)
    plain = await push(repository, 2, None)
    for lie in (Digest.of(b"nothing"), plain, Digest.of(b"sha512", "sha512")):
        await write_link(backing, layout.referrer_link(NAME, SUBJECT, lie), lie)
    await write_link(backing, layout.referrer_link(NAME, Digest.of(b"another"), digest), digest)
    await backing.put(f"{layout.referrers_of(NAME, SUBJECT)}/md5/0/link", b"x")
    await backing.put(f"{layout.referrers_of(NAME, SUBJECT)}/junk", b"x")
    assert await listed(repository) == [digest]
    assert await listed(repository, Digest.of(b"another")) == []


async def test_an_empty_entry_is_as_good_as_a_full_one(repository: LocalRepository, backing: StorageDriver) -> None:
    digest = await push(repository, 1)
    await backing.put(layout.referrer_link(NAME, SUBJECT, digest), b"")
    assert await listed(repository) == [digest]


@pytest.mark.parametrize("body", [b"", b"{", b"null", b'{"subject": 5}'])
async def test_damaged_referrers_are_left_out(repository: LocalRepository, backing: StorageDriver, body: bytes) -> None:
    digest, whole = await push(repository, 1), await push(repository, 2)
    await backing.put(layout.blob_data(digest), body)
    assert await listed(repository) == [whole]


async def test_a_lost_index_is_rebuilt(backing: StorageDriver) -> None:
    repository = ContentStore(backing).repository(NAME)
    pushed = sorted([await push(repository, number) for number in range(3)])
    await backing.delete_tree(layout.referrers(NAME))
    assert await listed(repository) == pushed


# What other registries push


async def test_a_first_look_finds_what_distribution_has_pushed(
    repository: LocalRepository, backing: StorageDriver
) -> None:
    theirs = await push_as_distribution(backing, 1)
    await push_as_distribution(backing, 2, None)
    ours = await push(repository, 3)
    assert await listed(repository) == sorted([theirs, ours])


async def test_looks_are_rare(backing: StorageDriver) -> None:
    record = Record()
    repository = ContentStore(Spied(backing, record), rescan=600.0).repository(NAME)
    await push(repository, 1)
    for _ in range(3):
        await listed(repository)
    looks = [call for call in record.calls if call == ("list_objects", layout.revisions(NAME))]
    assert len(looks) == 1


async def test_the_next_look_reads_only_what_is_younger(
    backing: StorageDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the store's clock; everything here is younger than the overlap, unless that is cut off."""
    record = Record()
    repository = ContentStore(Spied(backing, record), rescan=1e-9).repository(NAME)
    await push(repository, 1)
    await listed(repository)
    theirs = await push_as_distribution(backing, 2)
    assert theirs in await listed(repository)
    monkeypatch.setattr("storage.referrers._OVERLAP", -3600.0)
    unseen = await push_as_distribution(backing, 3)
    assert unseen not in await listed(repository)


async def test_a_read_only_registry_looks_at_the_index_alone(backing: StorageDriver) -> None:
    record = Record()
    reader = ContentStore(Spied(backing, record), rescan=None).repository(NAME)
    await push_as_distribution(backing, 1)
    assert await listed(reader) == []
    ours = await push(ContentStore(backing).repository(NAME), 2)
    assert await listed(reader) == [ours]
    assert record.written() == []


async def test_asking_about_a_repository_that_is_none_makes_none(
    repository: LocalRepository, backing: StorageDriver
) -> None:
    assert await listed(repository) == []
    assert [info.key async for info in backing.list_objects("")] == []


# The fallback tag of old clients


async def fallback(repository: LocalRepository, subject: Digest, *children: tuple[Digest, int]) -> None:
    """Push the index that an old client keeps: digests and sizes of its children."""
    named = [{"mediaType": IMAGE_INDEX, "digest": str(d), "size": size, "artifactType": "old"} for d, size in children]
    tag = parse_tag(f"{subject.algorithm}-{subject.hex}"[:128])
    await repository.put_manifest(tag, IMAGE_INDEX, index(*named))


@pytest.fixture
def lenient(backing: StorageDriver) -> LocalRepository:
    """Takes an index that names what is not there, as old clients push it."""
    return ContentStore(backing, rules=ManifestRules(sparse=True)).repository(NAME)


@pytest.mark.parametrize("subject", [SUBJECT, SHA512], ids=["sha256", "sha512"])
async def test_the_fallback_tag_is_merged(lenient: LocalRepository, subject: Digest) -> None:
    old, both, new = await push(lenient, 1, None), await push(lenient, 2, subject), await push(lenient, 3, subject)
    sizes = len(referrer(1, None)), len(referrer(2, subject))
    await fallback(lenient, subject, (old, sizes[0]), (both, sizes[1]), (Digest.of(b"gone"), 4))
    assert await listed(lenient, subject) == sorted([old, both, new])
    of_old = {d.digest: d.artifact_type for d in await lenient.list_referrers(subject)}
    assert (of_old[old], of_old[both]) == ("old", "application/x2"), "what the manifest says counts, where it says it"


@pytest.mark.parametrize("body", [index(), b"{", b'{"manifests": 5}', b'{"manifests": [5, {}]}'])
async def test_a_fallback_tag_that_is_no_index(lenient: LocalRepository, backing: StorageDriver, body: bytes) -> None:
    digest = await push(lenient, 1)
    await fallback(lenient, SUBJECT)
    target = Digest.of(body)
    await backing.put(layout.blob_data(target), body)
    tag = parse_tag(f"{SUBJECT.algorithm}-{SUBJECT.hex}")
    await write_link(backing, layout.tag_link(NAME, tag), target)
    assert await listed(lenient) == [digest]


# Racing writers


def view(backing: StorageDriver, seed: int) -> LocalRepository:
    return ContentStore(Spied(backing, Shuffle(seed))).repository(NAME)


@pytest.mark.parametrize("seed", range(5))
async def test_f20_a_hundred_pushes_at_once_are_all_listed(seed: int) -> None:
    backing = MemoryDriver()
    pushed = await asyncio.gather(*(push(view(backing, seed * 1000 + n), n) for n in range(100)))
    assert await listed(ContentStore(backing, rescan=None).repository(NAME)) == sorted(pushed)


@pytest.mark.parametrize("seed", range(150))
async def test_i1_pushed_again_while_it_is_deleted(seed: int) -> None:
    """If the manifest is there in the end, it is listed, too."""
    print(f"seed {seed}")
    backing = MemoryDriver()
    plain = ContentStore(backing, rescan=None).repository(NAME)
    digest = await push(plain, 1)
    await asyncio.gather(push(view(backing, seed), 1), view(backing, seed + 1000).delete_manifest(digest))
    try:
        await plain.get_manifest(digest)
    except ManifestUnknown:
        assert await listed(plain) == []
    else:
        assert await listed(plain) == [digest]
