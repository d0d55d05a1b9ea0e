"""The doctor where a store has repositories that cache another registry's: what they lack is no damage."""

import json
from collections.abc import Awaitable, Callable

import pytest

from storage import layout
from storage.digest import Digest
from storage.doctor.examine import Examined, Examiner
from storage.doctor.findings import CACHE_ADVICE, Kind
from storage.doctor.repairs import DAMAGED
from storage.driver import StorageDriver
from storage.names import RepositoryName, parse_name, parse_tag
from storage.rules import ManifestRules
from tests.storage.shelf import DAY, A, Shelf, age

HUB = parse_name("hub.test/library/x")
LAYER = b"a layer of the image"


@pytest.fixture
def shelf(backing: StorageDriver) -> Shelf:
    return Shelf(backing)


def is_cached(name: RepositoryName) -> bool:
    return name.startswith("hub.test/")


async def look(shelf: Shelf, *, fix: bool = False, deep: bool = False) -> Examined:
    age(shelf.driver)
    examiner = Examiner(shelf.content, ManifestRules(), idle=DAY, caches=is_cached, deep=deep)
    examined = await examiner.examine()
    if fix:
        await examiner.repair()
    return examined


def kinds(examined: Examined) -> set[Kind]:
    return {finding.kind for finding in examined.findings}


async def lacking(shelf: Shelf, name: RepositoryName) -> None:
    """An index with one of its images, whose layer has not come yet, and a layer that only another repository has."""
    images = [await shelf.image(name, b"%s %d" % (name.encode(), number), b"shared") for number in range(2)]
    await shelf.index(name, *images, tag="multi")
    await shelf.driver.delete(layout.revision_link(name, images[0]))
    await shelf.driver.delete(layout.blob_data(images[0]))
    for data in (b"%s 0" % name.encode(), b"%s 1" % name.encode()):
        await shelf.driver.delete(layout.blob_data(Digest.of(data)))
    await shelf.driver.delete(layout.layer_link(name, Digest.of(b"%s 1" % name.encode())))
    await shelf.driver.delete(layout.layer_link(name, Digest.of(b"shared")))


async def test_what_a_cache_lacks_is_no_damage(shelf: Shelf) -> None:
    await shelf.image(A, b"shared", tag="t")
    await lacking(shelf, HUB)
    assert kinds(await look(shelf)) == {Kind.LINK_DANGLING}, "the layer of an image that is not there"
    await lacking(shelf, parse_name("pushed"))
    found = [finding for finding in (await look(shelf)).findings if finding.repository == "pushed"]
    assert {finding.kind for finding in found} == {Kind.LINK_DANGLING, Kind.PART_MISSING, Kind.PART_UNLINKED}


# What is broken in it goes, so that it is fetched anew


async def manifest_damaged(shelf: Shelf, image: Digest) -> None:
    await shelf.driver.put(layout.blob_data(image), b"{}")


async def part_size(shelf: Shelf, image: Digest) -> None:
    await shelf.driver.put(layout.blob_data(Digest.of(LAYER)), LAYER[:5])


async def blob_empty(shelf: Shelf, image: Digest) -> None:
    await shelf.driver.put(layout.blob_data(Digest.of(LAYER)), b"")


async def blob_damaged(shelf: Shelf, image: Digest) -> None:
    await shelf.driver.put(layout.blob_data(Digest.of(LAYER)), LAYER.upper())


async def tag_damaged(shelf: Shelf, image: Digest) -> None:
    await shelf.image(HUB, tag="v1", annotations={"moved": "here"})
    await shelf.driver.put(layout.tag_link(HUB, parse_tag("v1")), b"")


async def tag_unvouched(shelf: Shelf, image: Digest) -> None:
    await shelf.driver.delete(layout.revision_link(HUB, image))


DROPPED: dict[Kind, Callable[[Shelf, Digest], Awaitable[None]]] = {
    kind: globals()[kind.name.lower()]
    for kind in (
        Kind.MANIFEST_DAMAGED,
        Kind.PART_SIZE,
        Kind.BLOB_EMPTY,
        Kind.BLOB_DAMAGED,
        Kind.TAG_DAMAGED,
        Kind.TAG_UNVOUCHED,
    )
}


@pytest.mark.parametrize("kind", DROPPED, ids=lambda kind: kind.name.lower())
async def test_what_is_broken_in_a_cache_is_dropped(shelf: Shelf, kind: Kind) -> None:
    image = await shelf.image(HUB, LAYER, tag="v1")
    await DROPPED[kind](shelf, image)
    examined = await look(shelf, fix=True, deep=True)
    found = next(finding for finding in examined.findings if finding.kind is kind)
    assert (found.cached, found.fixed, found.advice) == (True, True, CACHE_ADVICE)
    assert found.fix
    assert "the next pull fetches it" in found.fix
    assert await shelf.keys(DAMAGED) == set(), "what can be fetched is not set aside"
    left = await look(shelf, fix=True, deep=True)
    assert kinds(left) <= {Kind.TAG_NOTHING}
    assert (await look(shelf, deep=True)).findings == []


async def test_what_others_have_as_well_is_not_dropped(shelf: Shelf) -> None:
    for name in (HUB, A):
        image = await shelf.image(name, LAYER, tag="v1")
    await blob_damaged(shelf, image)
    await manifest_damaged(shelf, image)
    before = await shelf.keys()
    examined = await look(shelf, fix=True, deep=True)
    found = {(f.repository, f.kind): (f.cached, f.fixed, f.fix) for f in examined.findings}
    aside = "sets it aside, so that the next push stores it"
    assert found["", Kind.BLOB_DAMAGED] == (False, True, aside)
    assert found[HUB, Kind.MANIFEST_DAMAGED] == found[A, Kind.MANIFEST_DAMAGED] == (False, False, None)
    assert len(await shelf.keys(DAMAGED)) == 2
    assert {key for key in before if "/repositories/" in key} <= await shelf.keys()


async def test_what_was_fetched_meanwhile_stays(shelf: Shelf) -> None:
    image = await shelf.image(HUB, LAYER, tag="v1")
    body = await shelf.driver.read(layout.blob_data(image))
    await manifest_damaged(shelf, image)
    await blob_damaged(shelf, image)
    age(shelf.driver)
    examiner = Examiner(shelf.content, ManifestRules(), idle=DAY, caches=is_cached, deep=True)
    examined = await examiner.examine()
    await shelf.driver.put(layout.blob_data(image), body)
    await shelf.driver.put(layout.blob_data(Digest.of(LAYER)), LAYER)
    await examiner.repair()
    assert len(examined.findings) == 3
    assert not any(finding.fixed for finding in examined.findings)
    assert await shelf.pulls(HUB, image)
    assert await shelf.has(HUB, LAYER)


# By what people know what is broken


async def test_findings_name_the_images_that_they_spoil(shelf: Shelf) -> None:
    amd64, arm64 = [await shelf.image(A, data, b"base") for data in (b"amd64", b"arm64")]
    index = await shelf.index(A, amd64, arm64, tag="multi")
    alone = await shelf.image(A, b"alone", tag="v1")
    await shelf.manifest(A, await shelf.driver.read(layout.blob_data(alone)), "v2")
    untagged = await shelf.image(A, b"untagged")
    await shelf.image(A, b"signature", subject=alone)
    for data in (b"arm64", b"alone", b"untagged", b"signature"):
        await shelf.driver.delete(layout.blob_data(Digest.of(data)))
    await shelf.driver.put(layout.blob_data(Digest.of(b"base")), b"")
    found = {(f.kind, f.digest): [str(image) for image in f.images] for f in (await look(shelf)).findings}
    assert found[Kind.PART_MISSING, str(Digest.of(b"arm64"))] == [f"a:multi (its index {index})"]
    assert found[Kind.PART_MISSING, str(Digest.of(b"alone"))] == ["a:v1", "a:v2"]
    assert found[Kind.PART_MISSING, str(Digest.of(b"untagged"))] == [f"a@{untagged}"]
    signed = [f"a:{tag} (its subject {alone})" for tag in ("v1", "v2")]
    assert found[Kind.PART_MISSING, str(Digest.of(b"signature"))] == signed
    assert found[Kind.BLOB_EMPTY, str(Digest.of(b"base"))] == [f"a:multi (its index {index})"] * 2


@pytest.mark.slow
async def test_a_finding_names_three_images_and_counts_the_others(shelf: Shelf) -> None:
    for number in range(10):
        await shelf.image((A, HUB)[number % 2], b"base", tag=f"v{number}", annotations={"n": str(number)})
    await shelf.driver.put(layout.blob_data(Digest.of(b"base")), b"")
    found = next(f for f in (await look(shelf)).findings if f.kind is Kind.BLOB_EMPTY)
    assert len(found.images) == 3
    assert found.more == 7
    assert not found.cached


async def test_of_a_damaged_manifest_and_a_damaged_link_as_well(shelf: Shelf) -> None:
    image = await shelf.image(A, b"layer", tag="t")
    await shelf.driver.put(layout.layer_link(A, Digest.of(b"layer")), b"")
    found = (await look(shelf)).findings
    assert [(f.kind, list(map(str, f.images))) for f in found] == [(Kind.LINK_DAMAGED, ["a:t"])]
    assert json.loads(await shelf.driver.read(layout.blob_data(image)))
    await manifest_damaged(shelf, image)
    found = [f for f in (await look(shelf)).findings if f.kind is Kind.MANIFEST_DAMAGED]
    assert [list(map(str, f.images)) for f in found] == [["a:t"]]
