"""Tags over a real driver: links, pages, conditions, and racing writers."""

import asyncio
import random
import string

import pytest

from storage import layout
from storage.content import ContentStore
from storage.digest import Digest
from storage.driver import StorageDriver
from storage.drivers.memory import MemoryDriver
from storage.errors import ManifestUnknown, PreconditionFailed, RepositoryUnknown, StorageFull, Unavailable
from storage.local import LocalRepository
from storage.manifest import IMAGE_INDEX
from storage.names import Tag, parse_tag
from storage.repository import Precondition
from tests.api import index
from tests.storage.spying import NAME, Record, Shuffle, Spied, tag_of

V1 = parse_tag("v1")
V2 = parse_tag("v2")
ABSENT = Precondition(absent=True)
ANY = Precondition(one_of=frozenset("*"))


def manifest(number: int) -> bytes:
    return index(annotations={"number": str(number)})


def digest(number: int) -> Digest:
    return Digest.of(manifest(number))


async def put(
    repository: LocalRepository,
    tag: Tag | Digest,
    number: int = 0,
    precondition: Precondition | None = None,
    tags: tuple[Tag, ...] = (),
) -> Digest:
    done = await repository.put_manifest(tag, IMAGE_INDEX, manifest(number), tags, precondition)
    return done.digest


async def names(repository: LocalRepository, after: str = "", limit: int = 1000) -> list[str]:
    return (await repository.list_tags(after, limit)).names


# One writer


async def test_a_tag_moves(repository: LocalRepository, backing: StorageDriver) -> None:
    for number in (0, 1, 0):
        assert await put(repository, V1, number) == await tag_of(repository, V1) == digest(number)
        assert await backing.read(layout.tag_link(NAME, V1)) == str(digest(number)).encode()
    for number in (0, 1):  # what it has ever named, as distribution keeps it
        link = layout.tag_index_link(NAME, V1, digest(number))
        assert await backing.read(link) == str(digest(number)).encode()
    assert await names(repository) == ["v1"]


async def test_delete_leaves_the_manifest_and_nothing_of_the_tag(
    repository: LocalRepository, backing: StorageDriver
) -> None:
    await put(repository, V1)
    await repository.delete_tag(V1)
    assert await names(repository) == []
    assert [info.key async for info in backing.list_objects(layout.tags(NAME))] == []
    assert (await repository.get_manifest(digest(0))).body == manifest(0)
    for call in (repository.delete_tag(V1), repository.get_manifest(V1)):
        with pytest.raises(ManifestUnknown):
            await call


async def test_a_deleted_manifest_takes_its_tags_along_and_no_others(repository: LocalRepository) -> None:
    for tag, number in (("a", 0), ("b", 1), ("c", 0)):
        await put(repository, parse_tag(tag), number)
    await repository.delete_manifest(digest(0))
    assert await names(repository) == ["b"]
    with pytest.raises(ManifestUnknown):
        await repository.delete_manifest(digest(0))


async def test_a_delete_of_a_manifest_asks_tags_of_others_once_a_look(
    repository: LocalRepository, record: Record
) -> None:
    for number in range(5):
        await put(repository, parse_tag(f"of{number}"), number)
    record.taken()
    await repository.delete_manifest(digest(0))
    asked = [(verb, key) for verb, key in record.taken() if key.endswith(layout.CURRENT_LINK)]
    for number in range(1, 5):
        link = layout.tag_link(NAME, parse_tag(f"of{number}"))
        assert [verb for verb, key in asked if key == link] == ["read", "read"]  # before the revision goes, and after


@pytest.mark.parametrize("damaged", [b"", b"sha256:", b"\xff", b"sha256:" + b"0" * 63, b"md5:" + b"0" * 32, b"x" * 900])
async def test_a_damaged_link_is_no_tag_until_it_is_pushed_again(
    repository: LocalRepository, backing: StorageDriver, damaged: bytes
) -> None:
    await put(repository, V2)
    await backing.put(layout.tag_link(NAME, V1), damaged)
    with pytest.raises(ManifestUnknown):
        await repository.get_manifest(V1)
    await repository.delete_manifest(digest(0))
    await put(repository, V1)
    assert await tag_of(repository, V1) == digest(0)


async def test_a_damaged_link_can_be_deleted(repository: LocalRepository, backing: StorageDriver) -> None:
    await put(repository, V2)
    await backing.put(layout.tag_link(NAME, V1), b"")
    await repository.delete_tag(V1)
    assert await names(repository) == ["v2"]


async def test_a_damaged_link_is_absent_for_a_condition(repository: LocalRepository, backing: StorageDriver) -> None:
    await backing.put(layout.tag_link(NAME, V1), b"")
    with pytest.raises(PreconditionFailed):
        await put(repository, V1, 0, ANY)
    await put(repository, V1, 0, ABSENT)
    assert await tag_of(repository, V1) == digest(0)


async def test_a_link_with_a_newline_is_read(repository: LocalRepository, backing: StorageDriver) -> None:
    await put(repository, V1)
    await backing.put(layout.tag_link(NAME, V1), f"{digest(0)}\n".encode())
    assert await tag_of(repository, V1) == digest(0)


async def test_a_fault_is_not_an_absent_tag(repository: LocalRepository, record: Record) -> None:
    await put(repository, V1)
    record.failing["read", layout.CURRENT_LINK] = record.failing["head", layout.CURRENT_LINK] = Unavailable("gone")
    for call in (repository.get_manifest(V1), repository.delete_tag(V1), put(repository, V1, 1, ABSENT)):
        with pytest.raises(Unavailable):
            await call
    record.failing.clear()
    assert await tag_of(repository, V1) == digest(0)


async def test_a_crash_before_the_current_link_leaves_no_tag(repository: LocalRepository, record: Record) -> None:
    await put(repository, V2)
    record.failing["put", layout.CURRENT_LINK] = StorageFull()
    with pytest.raises(StorageFull):
        await put(repository, V1)
    assert await names(repository) == ["v2"]
    record.failing.clear()
    await put(repository, V1)
    assert await names(repository) == ["v1", "v2"]


# Pages


async def test_unknown_and_empty(repository: LocalRepository) -> None:
    with pytest.raises(RepositoryUnknown):
        await repository.list_tags("", 10)
    await put(repository, digest(0))
    page = await repository.list_tags("", 10)
    assert (page.names, page.more) == ([], False)


async def test_pages_at_their_borders(repository: LocalRepository) -> None:
    tags = sorted(["0", "9", "A", "Z", "_", "a", "a-", "a.", "a.b", "aa", "latest", "x" * 128, "z"])
    await repository.put_manifest(digest(0), IMAGE_INDEX, manifest(0), tuple(Tag(t) for t in tags))
    for limit in range(1, len(tags) + 2):
        found: list[str] = []
        while True:
            page = await repository.list_tags(found[-1] if found else "", limit)
            found += page.names
            assert len(page.names) <= limit
            if not page.more:
                break
            assert len(page.names) == limit
        assert found == tags
    for after in ["", *tags, "zz", "!", "~", "m"]:
        assert await names(repository, after) == [tag for tag in tags if tag > after]


@pytest.mark.slow
async def test_many_tags_at_once(repository: LocalRepository) -> None:
    tags = tuple(Tag(f"t{n}") for n in range(50))
    await repository.put_manifest(digest(0), IMAGE_INDEX, manifest(0), tags)
    assert await names(repository) == sorted(tags)
    await repository.delete_manifest(digest(0))
    with pytest.raises(RepositoryUnknown):
        await names(repository)


# Conditions


async def test_only_where_nothing_stands(repository: LocalRepository) -> None:
    await put(repository, V1, 0, ABSENT)
    for number in (0, 1):
        with pytest.raises(PreconditionFailed):
            await put(repository, V1, number, ABSENT)
    assert await tag_of(repository, V1) == digest(0)
    await repository.delete_tag(V1)
    await put(repository, V1, 1, ABSENT)


async def test_only_from_what_was_read(repository: LocalRepository) -> None:
    expected = Precondition(one_of=frozenset({str(digest(0)), "another"}))
    for precondition in (expected, ANY, Precondition(one_of=frozenset())):
        with pytest.raises(PreconditionFailed):
            await put(repository, V1, 1, precondition)
    await put(repository, V1, 0)
    with pytest.raises(PreconditionFailed):
        await put(repository, V1, 1, Precondition(one_of=frozenset()))
    await put(repository, V1, 1, expected)
    with pytest.raises(PreconditionFailed):
        await put(repository, V1, 2, expected)
    await put(repository, V1, 2, ANY)
    assert await tag_of(repository, V1) == digest(2)


@pytest.mark.parametrize("order", [(V1, V2), (V2, V1)], ids=["free-one-first", "taken-one-first"])
async def test_a_condition_that_fails_for_one_of_several_tags_changes_none(
    repository: LocalRepository, order: tuple[Tag, Tag]
) -> None:
    await put(repository, V2, 0)
    with pytest.raises(PreconditionFailed):
        await put(repository, digest(1), 1, ABSENT, tags=order)
    assert await names(repository) == ["v2"]
    assert await tag_of(repository, V2) == digest(0)


# Racing writers


@pytest.fixture
def stores() -> "Stores":
    return Stores()


class Stores:
    """One store in memory, and views of it whose calls are held up as a seed says."""

    def __init__(self) -> None:
        self.backing = MemoryDriver()
        self.plain = ContentStore(self.backing).repository(NAME)

    def view(self, seed: int) -> LocalRepository:
        return ContentStore(Spied(self.backing, Shuffle(seed))).repository(NAME)


@pytest.mark.parametrize("seed", range(60))
async def test_f16_racing_puts_of_one_tag(stores: Stores, seed: int) -> None:
    """Everyone succeeds, one is last, and the losers can still be pulled by digest."""
    await asyncio.gather(*(put(stores.view(seed * 10 + n), V1, n) for n in range(4)))
    assert await tag_of(stores.plain, V1) in {digest(n) for n in range(4)}
    for number in range(4):
        assert (await stores.plain.get_manifest(digest(number))).body == manifest(number)


@pytest.mark.parametrize("seed", range(60))
async def test_racing_creators_have_one_winner(stores: Stores, seed: int) -> None:
    done = await asyncio.gather(
        *(put(stores.view(seed * 10 + n), V1, n, ABSENT) for n in range(4)), return_exceptions=True
    )
    winners = [result for result in done if isinstance(result, Digest)]
    assert all(isinstance(result, Digest | PreconditionFailed) for result in done), done
    assert winners == [await tag_of(stores.plain, V1)]


@pytest.mark.parametrize("seed", range(60))
async def test_racing_compare_and_swap_has_one_winner(stores: Stores, seed: int) -> None:
    await put(stores.plain, V1, 9)
    expected = Precondition(one_of=frozenset({str(digest(9))}))
    done = await asyncio.gather(
        *(put(stores.view(seed * 10 + n), V1, n, expected) for n in range(4)), return_exceptions=True
    )
    winners = [result for result in done if isinstance(result, Digest)]
    assert winners == [await tag_of(stores.plain, V1)]


@pytest.mark.parametrize("seed", range(100))
async def test_i3_a_tag_never_names_nothing(stores: Stores, seed: int) -> None:
    """Pushes, tag deletes and manifest deletes at once: whatever tag is there can be pulled, also by its digest."""
    print(f"seed {seed}")
    choice = random.Random(seed)
    await put(stores.plain, V1, 0)

    async def someone(number: int) -> None:
        repository = stores.view(seed * 100 + number)
        for _ in range(4):
            verb, tag, which = (
                choice.choice(("put", "put", "untag", "delete")),
                choice.choice((V1, V2)),
                choice.randrange(2),
            )
            try:
                if verb == "put":
                    await put(repository, tag, which)
                elif verb == "untag":
                    await repository.delete_tag(tag)
                else:
                    await repository.delete_manifest(digest(which))
            except ManifestUnknown:
                continue

    await asyncio.gather(*(someone(number) for number in range(3)))
    try:
        left = await names(stores.plain)
    except RepositoryUnknown:
        return
    for name in left:
        stored = await stores.plain.get_manifest(parse_tag(name))
        assert (await stores.plain.get_manifest(stored.digest)).body == stored.body


@pytest.mark.slow
async def test_i1_a_put_survives_the_delete_of_what_the_tag_named_before() -> None:
    """v1 moves from one manifest to the next while the old one is deleted: in any order v1 must name the new one."""
    lost = []
    for seed in range(100):
        stores = Stores()
        await put(stores.plain, V1, 0)
        await asyncio.gather(put(stores.view(seed), V1, 1), stores.view(seed + 1000).delete_manifest(digest(0)))
        if await names(stores.plain) != ["v1"]:
            lost.append(seed)
    assert lost == []


@pytest.mark.parametrize("seed", range(60))
async def test_a_put_of_what_is_being_deleted(stores: Stores, seed: int) -> None:
    """Either it is there as a whole, or the tag is gone."""
    await put(stores.plain, V1, 0)
    await asyncio.gather(put(stores.view(seed), V1, 0), stores.view(seed + 1000).delete_manifest(digest(0)))
    try:
        found = await stores.plain.get_manifest(V1)
    except ManifestUnknown:
        return
    assert (await stores.plain.get_manifest(found.digest)).body == manifest(0)


def test_a_tag_of_any_characters_is_a_key() -> None:
    for character in string.ascii_letters + string.digits + "_":
        assert layout.tag_link(NAME, parse_tag(f"{character}.-_")).endswith(f"/{character}.-_/current/link")
