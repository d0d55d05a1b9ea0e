"""The doctor: one seeded fault of each kind, all found, and what lives is left alone by the repair. On each driver."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from storage import layout
from storage.digest import Digest
from storage.doctor.examine import Examined, Examiner, TooMuchIsGone
from storage.doctor.explain import Use, explain
from storage.doctor.findings import ADVICE, FIXES, Kind
from storage.doctor.repairs import DAMAGED
from storage.driver import StorageDriver
from storage.errors import Unavailable
from storage.names import parse_name, parse_tag
from storage.rules import ManifestRules
from tests.api import image, in_pieces
from tests.storage.shelf import DAY, A, B, Shelf, age, descriptor_of
from tests.storage.spying import Record, Spied

Seed = Callable[[Shelf], Awaitable[None]]


@pytest.fixture
def shelf(backing: StorageDriver) -> Shelf:
    return Shelf(backing)


async def look(shelf: Shelf, *, deep: bool = False, fix: bool = False, **rules: Any) -> Examined:
    examiner = Examiner(shelf.content, ManifestRules(**rules), idle=DAY, deep=deep)
    examined = await examiner.examine()
    if fix:
        await examiner.repair()
    return examined


def kinds(examined: Examined) -> list[Kind]:
    return [finding.kind for finding in examined.findings]


async def healthy(shelf: Shelf) -> dict[str, Any]:
    """Something of everything that can live."""
    plain = await shelf.image(A, b"layer", tag="plain")
    children = [await shelf.image(A, b"amd64"), await shelf.image(A, b"arm64")]
    await shelf.index(A, *children, tag="multi")
    signature = await shelf.image(A, b"signature", subject=plain)
    await shelf.image(B, b"layer", tag="shared")
    await shelf.image(B, b"", tag="empty-layer")
    strong = await shelf.blob(A, b"strong", "sha512")
    body = json.dumps({**json.loads(image(b"{}")), "layers": [descriptor_of(strong, 6)]}).encode()
    await shelf.manifest(A, body, "sha512", algorithm="sha512")
    assert len(await shelf.content.repository(A).list_referrers(plain)) == 1
    return {"plain": plain, "signature": signature, "amd64": children[0]}


async def lives(shelf: Shelf, made: dict[str, Any]) -> None:
    for tag in ("plain", "multi", "sha512"):
        await shelf.content.repository(A).get_manifest(parse_tag(tag))
    for name, data in ((A, b"layer"), (A, b"amd64"), (A, b"arm64"), (A, b"{}"), (B, b"layer"), (B, b"")):
        assert await shelf.has(name, data), data
    assert await shelf.has(A, b"strong", "sha512")
    found = await shelf.content.repository(A).list_referrers(made["plain"])
    assert [d.digest for d in found] == [made["signature"]]


async def test_nothing_is_found_where_all_is_well(shelf: Shelf) -> None:
    made = await healthy(shelf)
    age(shelf.driver)
    before = await shelf.keys()
    examined = await look(shelf, deep=True, fix=True)
    assert examined.findings == []
    assert (examined.repositories, examined.manifests) == (2, 8)
    assert examined.bytes > 0
    assert await shelf.keys() == before
    await lives(shelf, made)


async def test_a_push_under_way_is_no_damage(shelf: Shelf) -> None:
    """What a push writes first stands alone for a moment."""
    await healthy(shelf)
    absent = Digest.of(b"soon")
    await shelf.driver.put(layout.referrer_link(A, absent, absent), str(absent).encode())
    await shelf.driver.put(layout.tag_index_link(A, parse_tag("soon"), absent), str(absent).encode())
    await shelf.blob(parse_name("new"), b"a layer")
    repository = shelf.content.repository(A)
    await repository.append_upload(await repository.start_upload(), in_pieces(b"12345"))
    assert (await look(shelf)).findings == []


# One fault of each kind. The name of each function is the name of its kind.


async def put(shelf: Shelf, key: str, data: bytes) -> None:
    await shelf.driver.put(key, data)


async def blob_empty(shelf: Shelf) -> None:
    await shelf.image(A, b"will be empty", tag="blob-empty")
    await put(shelf, layout.blob_data(Digest.of(b"will be empty")), b"")


async def blob_damaged(shelf: Shelf) -> None:
    await shelf.image(A, b"0123456789", tag="blob-damaged")
    await put(shelf, layout.blob_data(Digest.of(b"0123456789")), b"012345678x")


async def blob_stray(shelf: Shelf) -> None:
    await put(shelf, f"{layout.BLOBS}/sha256/data", b"x")


async def link_damaged(shelf: Shelf) -> None:
    await put(shelf, layout.layer_link(A, Digest.of(b"amd64")), b"")


async def link_dangling(shelf: Shelf) -> None:
    await put(shelf, layout.layer_link(A, Digest.of(b"gone")), str(Digest.of(b"gone")).encode())


async def manifest_missing(shelf: Shelf) -> None:
    await put(shelf, layout.revision_link(A, Digest.of(b"gone")), str(Digest.of(b"gone")).encode())


async def manifest_damaged(shelf: Shelf) -> None:
    await put(shelf, layout.blob_data(await shelf.image(A, b"layer", annotations={"x": "y"})), b"{}")


async def part_missing(shelf: Shelf) -> None:
    await shelf.image(A, b"its blob goes", tag="part-missing")
    await shelf.driver.delete(layout.blob_data(Digest.of(b"its blob goes")))


async def part_unlinked(shelf: Shelf) -> None:
    """As distribution 3's collector leaves it."""
    await shelf.driver.delete(layout.layer_link(B, Digest.of(b"layer")))


async def part_size(shelf: Shelf) -> None:
    await shelf.image(A, b"9876543210", tag="part-size")
    await put(shelf, layout.blob_data(Digest.of(b"9876543210")), b"98765")


async def tag_damaged(shelf: Shelf) -> None:
    await put(shelf, layout.tag_link(A, parse_tag("plain")), b"\0" * 71)


async def tag_nothing(shelf: Shelf) -> None:
    await put(shelf, layout.tag_link(A, parse_tag("tag-nothing")), str(Digest.of(b"gone")).encode())


async def tag_unvouched(shelf: Shelf) -> None:
    manifest = await shelf.image(A, b"layer", tag="tag-unvouched", annotations={"a": "b"})
    await shelf.driver.delete(layout.revision_link(A, manifest))


async def tag_half(shelf: Shelf) -> None:
    gone = Digest.of(b"x")
    await put(shelf, layout.tag_index_link(A, parse_tag("tag-half"), gone), str(gone).encode())


async def upload_abandoned(shelf: Shelf) -> None:
    repository = shelf.content.repository(A)
    await repository.append_upload(await repository.start_upload(), in_pieces(b"12345"))


async def referrer_missing(shelf: Shelf) -> None:
    """The marker of the last look is written anew, so that it is younger than the revision."""
    await shelf.driver.delete_tree(f"{layout.referrers(A)}/sha256")
    await put(shelf, layout.referrers_scanned(A), b"%f" % await shelf.driver.now())


async def referrer_stale(shelf: Shelf) -> None:
    one, other = Digest.of(b"no subject"), Digest.of(b"no referrer")
    await put(shelf, layout.referrer_link(A, one, other), str(other).encode())


SEEDS: dict[Kind, Seed] = {kind: globals()[kind.name.lower()] for kind in Kind}

ONLY_DEEP = {Kind.BLOB_DAMAGED}
NO_REPAIR = {Kind.BLOB_STRAY, Kind.MANIFEST_DAMAGED, Kind.PART_MISSING, Kind.PART_SIZE, Kind.TAG_UNVOUCHED}


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(Kind), ids=lambda kind: kind.name.lower())
async def test_each_fault_is_found_and_repaired_if_it_can_be(shelf: Shelf, kind: Kind) -> None:
    made = await healthy(shelf)
    await SEEDS[kind](shelf)
    age(shelf.driver)
    found = await look(shelf, deep=kind in ONLY_DEEP)
    assert kind in kinds(found)
    before = await shelf.keys()
    examined = await look(shelf, deep=kind in ONLY_DEEP, fix=True)
    assert kinds(examined) == kinds(found)
    mine = [finding for finding in examined.findings if finding.kind is kind]
    assert [finding.fixed for finding in mine] == [kind not in NO_REPAIR] * len(mine)
    if kind in NO_REPAIR:
        assert all(finding.advice for finding in mine)
        assert await shelf.keys() == before
    assert kind not in kinds(await look(shelf, deep=True)) or kind in NO_REPAIR
    await lives(shelf, made)


@pytest.mark.slow
async def test_all_faults_at_once(shelf: Shelf) -> None:
    made = await healthy(shelf)
    for seed in SEEDS.values():
        await seed(shelf)
    age(shelf.driver)
    assert set(kinds(await look(shelf, deep=True, fix=True))) == set(Kind)
    await look(shelf, deep=True, fix=True)
    left = await look(shelf, deep=True)
    # what was set aside is missing now, and pushing it again is all that can be done
    assert set(kinds(left)) <= NO_REPAIR
    await lives(shelf, made)


def test_every_kind_says_what_to_do() -> None:
    assert set(ADVICE) == set(Kind) == set(SEEDS)
    assert set(FIXES) == set(Kind) - NO_REPAIR


# Details


async def test_damaged_bytes_are_set_aside_and_a_push_brings_them_back(shelf: Shelf) -> None:
    await blob_damaged(shelf)
    await look(shelf, deep=True, fix=True)
    digest = Digest.of(b"0123456789")
    assert await shelf.driver.read(f"{DAMAGED}/sha256/{digest.hex}") == b"012345678x"
    assert not await shelf.has(A, b"0123456789")
    await shelf.image(A, b"0123456789", tag="x")
    assert (await look(shelf, deep=True)).findings == []


async def test_a_tag_with_a_history_is_not_guessed(shelf: Shelf) -> None:
    await shelf.image(A, b"1", tag="x")
    await shelf.image(A, b"2", tag="x")
    await put(shelf, layout.tag_link(A, parse_tag("x")), b"")
    examined = await look(shelf, fix=True)
    assert [(f.kind, f.fixed) for f in examined.findings] == [(Kind.TAG_DAMAGED, False)]


async def test_what_somebody_wrote_since_is_not_repaired(shelf: Shelf) -> None:
    await link_dangling(shelf)
    await manifest_missing(shelf)
    examiner = Examiner(shelf.content, ManifestRules(), idle=DAY)
    examined = await examiner.examine()
    assert len(examined.findings) == 2
    await shelf.blob(A, b"gone")
    await shelf.driver.put(layout.revision_link(A, Digest.of(b"gone")), str(Digest.of(b"gone")).encode())
    await examiner.repair()
    assert [finding.fixed for finding in examined.findings] == [False, False]
    assert await shelf.has(A, b"gone")


async def test_a_disk_that_is_not_mounted_is_not_repaired_away(shelf: Shelf) -> None:
    for number in range(12):
        await shelf.image(A, tag=f"t{number}", annotations={"n": str(number)})
    await shelf.driver.delete_tree(layout.BLOBS)
    before = await shelf.keys()
    with pytest.raises(TooMuchIsGone, match="12 of 12"):
        await look(shelf, fix=True)
    assert await shelf.keys() == before


async def test_the_rules_decide_what_must_be_there(shelf: Shelf) -> None:
    await part_missing(shelf)
    await shelf.driver.delete(layout.layer_link(A, Digest.of(b"{}")))
    assert set(kinds(await look(shelf))) == {Kind.PART_MISSING, Kind.PART_UNLINKED}
    assert kinds(await look(shelf, sparse=True)) == []


async def test_layers_that_are_elsewhere_are_not_missed(shelf: Shelf) -> None:
    foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    layer = descriptor_of(Digest.of(b"elsewhere"), 9, foreign, urls=["https://example.com/1"])
    await shelf.blob(A, b"{}")
    await shelf.manifest(A, json.dumps({**json.loads(image(b"{}")), "layers": [layer]}).encode(), "t")
    assert (await look(shelf)).findings == []


async def test_an_alias_is_no_damage_and_a_stranger_is(shelf: Shelf) -> None:
    data, alias = await shelf.blob(A, b"data"), Digest.of(b"data", "sha512")
    await put(shelf, layout.layer_link(A, alias), str(data).encode())
    assert (await look(shelf, deep=True)).findings == []
    await put(shelf, layout.layer_link(A, data), str(Digest.of(b"other")).encode())
    assert (await look(shelf)).findings == []
    assert kinds(await look(shelf, deep=True)) == [Kind.LINK_DAMAGED]


async def test_a_fault_of_the_store_is_no_finding(shelf: Shelf) -> None:
    record = Record()
    await shelf.image(A, b"layer", tag="t")
    record.failing["read", "link"] = Unavailable("the disk is gone")
    with pytest.raises(Unavailable):
        await look(Shelf(Spied(shelf.driver, record)))


# Who needs it


async def test_explain(shelf: Shelf) -> None:
    made = await healthy(shelf)
    found = await explain(shelf.driver, made["plain"])
    assert found.info is not None
    assert [use for use in found.uses if use.repository == A] == [
        Use(A, "revision", "", True),
        Use(A, "tag", "plain", True),
        Use(A, "subject", str(made["signature"]), False),
    ]
    layer = await explain(shelf.driver, Digest.of(b"layer"))
    assert {(use.repository, use.how, use.keeps) for use in layer.uses} == {
        ("a", "link", False), ("b/c", "link", False), ("a", "manifest", True), ("b/c", "manifest", True)
    }  # fmt: skip
    garbage = await explain(shelf.driver, await shelf.blob(A, b"nobody"))
    assert (garbage.is_kept, len(garbage.uses)) == (False, 1)
    absent = await explain(shelf.driver, Digest.of(b"not here"))
    assert (absent.info, absent.uses, absent.is_kept) == (None, [], False)
