"""The collector: what it removes, what it keeps, and that it removes nothing where it cannot know. On each driver."""

import asyncio
import hashlib
import json
from contextlib import suppress
from typing import Any

import pytest

from storage import layout
from storage.digest import Digest
from storage.driver import StorageDriver
from storage.drivers.memory import MemoryDriver
from storage.errors import Unavailable
from storage.garbage.collect import Collector, Options
from storage.garbage.manifests import UnreadableManifest
from storage.garbage.watch import Watcher
from storage.names import RepositoryName, parse_tag
from storage.purge import Purged
from tests.api import DOCKER_IMAGE, DOCKER_LIST, IMAGE, image, in_pieces
from tests.faults.faulty import Fault, FaultyDriver
from tests.interop.content import docker_image
from tests.storage.shelf import DAY, A, B, Shelf, Told, age, descriptor_of, docker_list
from tests.storage.spying import Spied, push_blob


@pytest.fixture
def shelf(backing: StorageDriver) -> Shelf:
    return Shelf(backing)


async def test_what_no_manifest_names_goes_and_all_else_stays(shelf: Shelf) -> None:
    kept = await shelf.image(A, b"layer", tag="t")
    dead = await shelf.blob(A, b"nobody names this")
    age(shelf.driver)
    before = await shelf.keys()
    done = await shelf.collect()
    assert before - await shelf.keys() == {layout.blob_data(dead), layout.layer_link(A, dead)}
    assert (done.swept, done.size, done.links, done.removed) == (1, len(b"nobody names this"), 1, 0)
    assert (done.repositories, done.manifests, done.blobs, done.marked) == (1, 1, 4, 3)
    assert await shelf.pulls(A, kept)
    assert await shelf.has(A, b"layer")
    again = await shelf.collect()
    assert (again.swept, again.links, again.blobs) == (0, 0, 3)


async def test_an_empty_store(shelf: Shelf) -> None:
    done = await shelf.collect(untagged=True, purge=0.0)
    assert (done.repositories, done.blobs, done.swept) == (0, 0, 0)


async def test_a_dry_run_tells_the_same_and_changes_nothing(shelf: Shelf) -> None:
    await shelf.image(A, b"kept", tag="t")
    untagged = await shelf.image(A, b"kept", b"gone")
    dead = await shelf.blob(B, b"dead")
    repository = shelf.content.repository(A)
    await repository.append_upload(await repository.start_upload(), in_pieces(b"12345"))
    age(shelf.driver)
    before, told, done = await shelf.keys(), Told(), Told()
    dry = await shelf.collect(untagged=True, purge=DAY, dry_run=True, watcher=told)
    assert await shelf.keys() == before
    wet = await shelf.collect(untagged=True, purge=DAY, watcher=done)
    assert (dry.swept, dry.size, dry.removed, dry.links, dry.uploads) == (
        wet.swept, wet.size, wet.removed, wet.links, wet.uploads,
    )  # fmt: skip
    assert (told.manifests, sorted(told.blobs), sorted(told.links)) == (
        done.manifests, sorted(done.blobs), sorted(done.links),
    )  # fmt: skip
    assert told.manifests == [(A, untagged)]
    assert set(told.blobs) == {untagged, Digest.of(b"gone"), dead}
    assert wet.uploads == Purged(1, 5)


async def test_a_blob_that_several_share_goes_with_the_last_of_them(shelf: Shelf) -> None:
    first, second = await shelf.image(A, b"shared", b"1", tag="1"), await shelf.image(B, b"shared", b"2", tag="2")
    await shelf.delete(A, first)
    age(shelf.driver)
    await shelf.collect()
    assert await shelf.digests() == {second, *map(Digest.of, (b"{}", b"shared", b"2"))}
    await shelf.delete(B, second)
    age(shelf.driver)
    await shelf.collect()
    assert await shelf.digests() == set()


async def test_without_untagged_every_manifest_lives(shelf: Shelf) -> None:
    image = await shelf.image(A, b"by digest")
    moved = await shelf.image(A, b"old", tag="t")
    await shelf.image(A, b"new", tag="t")
    age(shelf.driver)
    done = await shelf.collect()
    assert (done.swept, done.removed) == (0, 0)
    assert await shelf.pulls(A, image)
    assert await shelf.pulls(A, moved)


async def test_untagged_goes_with_its_entries(shelf: Shelf) -> None:
    old = await shelf.image(A, b"old", tag="t")
    new = await shelf.image(A, b"new", tag="t")
    age(shelf.driver)
    done = await shelf.collect(untagged=True)
    assert (done.removed, done.swept) == (1, 2)
    assert await shelf.digests() == {new, Digest.of(b"{}"), Digest.of(b"new")}
    assert not [key for key in await shelf.keys() if old.hex in key]


async def test_the_images_of_an_index_live_with_it(shelf: Shelf) -> None:
    """Distribution 2.8 deletes them; see tests/interop/test_gc.py."""
    children = [await shelf.image(A, layer) for layer in (b"amd64", b"arm64")]
    nested = await shelf.index(A, *children)
    await shelf.index(A, nested, tag="v1")
    dead_child = await shelf.image(A, b"riscv")
    dead = await shelf.index(A, dead_child, children[0])
    age(shelf.driver)
    done = await shelf.collect(untagged=True)
    assert done.removed == 2
    assert [await shelf.pulls(A, d) for d in (*children, nested, dead_child, dead)] == [True, True, True, False, False]
    assert await shelf.has(A, b"arm64")
    assert not await shelf.has(A, b"riscv")


async def test_a_docker_list_keeps_its_images(shelf: Shelf) -> None:
    await shelf.blob(A, b"{}")
    await shelf.blob(A, b"layer")
    body = docker_image(b"{}", b"layer")
    child = await shelf.manifest(A, body, media_type=DOCKER_IMAGE)
    await shelf.manifest(A, docker_list([descriptor_of(child, len(body), DOCKER_IMAGE)]), "t", DOCKER_LIST)
    age(shelf.driver)
    assert (await shelf.collect(untagged=True)).removed == 0
    assert await shelf.has(A, b"layer")


async def test_a_child_known_in_one_repository_only_keeps_its_layers(shelf: Shelf) -> None:
    """A collector that does not look into what is marked already loses them: a was marked where it is no manifest."""
    child = await shelf.image(B, b"only in b")
    body = (await shelf.content.repository(B).get_manifest(child)).body
    await shelf.blob(A, body)  # an index may name a blob
    await shelf.index(A, child, tag="a")
    await shelf.index(B, child, tag="b")
    age(shelf.driver)
    await shelf.collect(untagged=True)
    assert await shelf.pulls(B, child)
    assert await shelf.has(B, b"only in b")


async def test_referrers_live_with_their_subject(shelf: Shelf) -> None:
    subject = await shelf.image(A, b"image", tag="t")
    signature = await shelf.image(A, b"signature", subject=subject)
    note = await shelf.image(A, b"note on the signature", subject=signature)
    listed = await shelf.index(A, subject=subject)
    age(shelf.driver)
    assert (await shelf.collect(untagged=True)).removed == 0
    assert {d.digest for d in await shelf.content.repository(A).list_referrers(subject)} == {signature, listed}
    await shelf.untag(A, "t")
    age(shelf.driver)
    done = await shelf.collect(untagged=True)
    assert done.removed == 4
    assert await shelf.digests() == set()
    assert not [key for key in await shelf.keys() if signature.hex in key or note.hex in key]


async def test_a_referrer_without_its_subject_lives_while_it_is_young_or_tagged(shelf: Shelf) -> None:
    absent = Digest.of(b"not pushed yet")
    first = await shelf.image(A, b"pushed before its subject", subject=absent)
    tagged = await shelf.image(A, b"tagged", subject=absent, tag="sig")
    assert (await shelf.collect(untagged=True)).removed == 0
    age(shelf.driver)
    assert (await shelf.collect()).removed == 0  # it is a manifest, and nobody has deleted it
    assert (await shelf.collect(untagged=True)).removed == 1
    assert [await shelf.pulls(A, first), await shelf.pulls(A, tagged)] == [False, True]


async def test_a_subject_lives_by_tags_and_not_by_its_referrers(shelf: Shelf) -> None:
    subject = await shelf.image(A, b"image")
    signature = await shelf.image(A, b"signature", subject=subject, tag="sig")
    age(shelf.driver)
    assert (await shelf.collect(untagged=True)).removed == 1
    assert [await shelf.pulls(A, subject), await shelf.pulls(A, signature)] == [False, True]
    assert subject not in await shelf.digests()


async def test_sha512(shelf: Shelf) -> None:
    await shelf.blob(A, b"{}")
    layer = await shelf.blob(A, b"strong", "sha512")
    manifest = await shelf.manifest(A, _image_of(layer), "t", algorithm="sha512")
    dead = await shelf.blob(A, b"dead", "sha512")
    age(shelf.driver)
    await shelf.collect(untagged=True)
    assert await shelf.digests() == {Digest.of(b"{}"), layer, manifest}
    assert layout.layer_link(A, dead) not in await shelf.keys()


def _image_of(layer: Digest) -> bytes:
    config = descriptor_of(Digest.of(b"{}"), 2, "application/vnd.oci.image.config.v1+json")
    body: dict[str, Any] = {"schemaVersion": 2, "mediaType": IMAGE, "config": config}
    return json.dumps({**body, "layers": [descriptor_of(layer, len(b"strong"))]}).encode()


async def test_the_data_of_an_alias_lives(shelf: Shelf) -> None:
    """Distribution stores a sha512 upload under sha256 with a link to it, and its own collector deletes such data."""
    alias, data = Digest.of(b"strong", "sha512"), await shelf.blob(A, b"strong")
    await shelf.blob(A, b"{}")
    await shelf.driver.delete(layout.layer_link(A, data))
    await shelf.driver.put(layout.layer_link(A, alias), str(data).encode())
    await shelf.manifest(A, _image_of(alias), "t")
    age(shelf.driver)
    assert (await shelf.collect(untagged=True)).swept == 0
    assert await shelf.has(A, b"strong", "sha512")


async def test_layers_that_are_elsewhere(shelf: Shelf) -> None:
    """Nondistributable ones, that were not pushed; and one that was, all the same."""
    foreign = "application/vnd.oci.image.layer.nondistributable.v1.tar"
    here = await shelf.blob(A, b"foreign, and here")
    await shelf.blob(A, b"{}")
    layers = [
        descriptor_of(Digest.of(b"elsewhere"), 9, foreign, urls=["https://example.com/1"]),
        descriptor_of(here, len(b"foreign, and here"), foreign, urls=["https://example.com/2"]),
    ]
    manifest = await shelf.manifest(A, json.dumps({**json.loads(image(b"{}")), "layers": layers}).encode(), "t")
    age(shelf.driver)
    await shelf.collect(untagged=True)
    assert await shelf.digests() == {manifest, here, Digest.of(b"{}")}


async def raw_manifest(shelf: Shelf, name: RepositoryName, body: bytes, tag: str = "") -> Digest:
    """As another registry has stored it: no rules of ours."""
    digest = Digest.of(body)
    await shelf.driver.put(layout.blob_data(digest), body)
    await shelf.driver.put(layout.revision_link(name, digest), str(digest).encode())
    if tag:
        await shelf.driver.put(layout.tag_link(name, parse_tag(tag)), str(digest).encode())
    return digest


async def test_schema_1_and_its_signatures(shelf: Shelf) -> None:
    """Of registry 2.0 to 2.7: layers have another name there, and signatures lay below the revision."""
    layer, signature = await shelf.blob(A, b"old layer"), Digest.of(b"signature")
    manifest = await raw_manifest(
        shelf,
        A,
        json.dumps({"schemaVersion": 1, "fsLayers": [{"blobSum": str(layer)}], "signatures": []}).encode(),
        "t",
    )
    await shelf.driver.put(layout.blob_data(signature), b"signature")
    link = f"{layout.revision(A, manifest)}/signatures/sha256/{signature.hex}/link"
    await shelf.driver.put(link, str(signature).encode())
    age(shelf.driver)
    await shelf.collect(untagged=True)
    assert await shelf.digests() == {layer, manifest, signature}
    await shelf.untag(A, "t")
    age(shelf.driver)
    await shelf.collect(untagged=True)
    assert await shelf.digests() == set()
    assert link not in await shelf.keys()


async def test_what_we_know_no_format_of_keeps_all_that_it_names(shelf: Shelf) -> None:
    one, two = await shelf.blob(A, b"one"), await shelf.blob(A, b"two")
    await raw_manifest(shelf, A, json.dumps({"mediaType": "x", "blobs": [{"digest": str(one)}]}).encode())
    await raw_manifest(shelf, A, b"no JSON, " + str(two).encode())
    age(shelf.driver)
    assert (await shelf.collect()).swept == 0


async def test_a_tag_keeps_what_it_serves_even_without_a_revision(shelf: Shelf) -> None:
    manifest = await shelf.image(A, b"layer", tag="t")
    await shelf.driver.delete(layout.revision_link(A, manifest))
    age(shelf.driver)
    assert (await shelf.collect(untagged=True)).swept == 0
    assert (await shelf.content.repository(A).get_manifest(parse_tag("t"))).digest == manifest


async def test_a_tag_to_nothing_stops_nobody(shelf: Shelf) -> None:
    """Distribution 2.8 deletes a manifest and leaves its tag."""
    dead = await shelf.image(A, b"layer", tag="t")
    await shelf.driver.delete(layout.revision_link(A, dead))
    await shelf.driver.delete(layout.blob_data(dead))
    age(shelf.driver)
    assert (await shelf.collect()).swept == 2


async def test_repositories_under_names_that_cannot_be_pushed(shelf: Shelf) -> None:
    name = RepositoryName("Upper_-Case")
    await shelf.blob(A, b"layer")
    await raw_manifest(shelf, name, image(b"{}", (b"layer",)))
    age(shelf.driver)
    assert (await shelf.collect()).swept == 0


# Grace


async def test_what_is_younger_than_the_grace_stays(shelf: Shelf) -> None:
    await shelf.blob(A, b"just pushed, its manifest comes later")
    done = await shelf.collect()
    assert (done.swept, done.young, done.young_size) == (0, 1, 37)
    untagged = await shelf.image(A, b"an index comes later")
    assert (await shelf.collect(untagged=True)).removed == 0
    assert await shelf.pulls(A, untagged)


async def test_a_grace_of_nothing_takes_what_was_pushed_a_moment_ago(shelf: Shelf) -> None:
    manifest = await shelf.image(A, b"layer", tag="t")
    await shelf.delete(A, manifest)
    await shelf.image(A, b"kept", tag="kept")
    done = await shelf.collect(grace=0.0)
    assert (done.swept, done.young) == (2, 0)
    assert not await shelf.has(A, b"layer")
    assert await shelf.has(A, b"kept")


async def test_a_young_link_keeps_an_old_blob(shelf: Shelf) -> None:
    """A mount writes a link, and its manifest comes later; distribution does the same."""
    digest = await shelf.blob(A, b"old")
    age(shelf.driver)
    await shelf.driver.put(layout.layer_link(B, digest), str(digest).encode())
    assert (await shelf.collect()).swept == 0
    age(shelf.driver)
    assert (await shelf.collect()).swept == 1


async def test_the_links_of_what_lives_elsewhere_stay(shelf: Shelf) -> None:
    """Only links to nothing go. Distribution 3 also removes those of blobs that live in other repositories."""
    digest = await shelf.blob(A, b"layer")
    await shelf.image(B, b"layer", tag="t")
    age(shelf.driver)
    assert (await shelf.collect()).links == 0
    assert layout.layer_link(A, digest) in await shelf.keys()


async def test_after_a_sweep_the_blob_is_unknown_and_can_be_pushed(shelf: Shelf) -> None:
    await shelf.blob(A, b"x")
    age(shelf.driver)
    await shelf.collect()
    assert not await shelf.has(A, b"x")
    await shelf.image(A, b"x", tag="t")
    assert await shelf.has(A, b"x")


async def test_abandoned_uploads(shelf: Shelf) -> None:
    repository = shelf.content.repository(A)
    await repository.append_upload(await repository.start_upload(), in_pieces(b"12345"))
    assert (await shelf.collect(purge=DAY)).uploads == Purged(0, 0)
    assert (await shelf.collect()).uploads == Purged(0, 0)
    assert (await shelf.collect(purge=0.0)).uploads == Purged(1, 5)


async def test_files_that_are_none_of_ours_stay(shelf: Shelf) -> None:
    hex = hashlib.sha384(b"x").hexdigest()
    strange = {
        f"{layout.BLOBS}/sha384/{hex[:2]}/{hex}/data",
        f"{layout.BLOBS}/data",
        f"{layout.BLOBS}/sha256/aa/{'b' * 64}/data",
        f"{layout.BLOBS}/sha256/aa/{'a' * 64}/other",
        f"{layout.ROOT}/_moorage/secret",
        f"{layout.repository(A)}/_other/sha256/{'a' * 64}/link",
    }
    for key in strange:
        await shelf.driver.put(key, b"x")
    age(shelf.driver)
    await shelf.collect(untagged=True, grace=0.0)
    assert strange <= await shelf.keys()


# What stops it


@pytest.mark.parametrize("untagged", [False, True])
@pytest.mark.parametrize(
    ("damage", "said"),
    [(None, "has lost its bytes"), (b"", "is damaged"), (b'{"config": {}}', "is damaged")],
)
async def test_an_unreadable_manifest_stops_it_with_nothing_deleted(
    shelf: Shelf, damage: bytes | None, said: str, untagged: bool
) -> None:
    await shelf.blob(A, b"dead")
    manifest = await shelf.image(B, b"layer", tag="t")
    await shelf.image(A, b"untagged")
    if damage is None:
        await shelf.driver.delete(layout.blob_data(manifest))
    else:
        await shelf.driver.put(layout.blob_data(manifest), damage)
    age(shelf.driver)
    before = await shelf.keys()
    with pytest.raises(UnreadableManifest, match=f"{manifest} in b/c {said}.*registry doctor"):
        await shelf.collect(untagged=untagged)
    assert await shelf.keys() == before


async def test_a_revision_of_an_unknown_algorithm_stops_it(shelf: Shelf) -> None:
    hex = hashlib.sha384(b"x").hexdigest()
    await shelf.image(A, tag="t")
    await shelf.driver.put(f"{layout.revisions(A)}/sha384/{hex}/link", f"sha384:{hex}".encode())
    age(shelf.driver)
    with pytest.raises(UnreadableManifest, match="unknown algorithm"):
        await shelf.collect()


@pytest.mark.parametrize("body", [b"", b"sha256:12", b"\xff" * 71])
async def test_a_damaged_link_of_a_revision_is_as_good_as_its_name(shelf: Shelf, body: bytes) -> None:
    """A push heals it, and then needs all of it."""
    manifest = await shelf.image(A, b"layer")
    await shelf.driver.put(layout.revision_link(A, manifest), body)
    age(shelf.driver)
    assert (await shelf.collect()).swept == 0


async def faulty_shelf(shelf: Shelf) -> tuple[FaultyDriver, Shelf]:
    for name in (A, B):
        await shelf.image(name, b"kept", tag="t")
        await shelf.image(name, b"untagged")
        await shelf.blob(name, b"dead")
    age(shelf.driver)
    driver = FaultyDriver(shelf.driver)
    return driver, Shelf(driver)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before", "after", "halfway"])
async def test_any_fault_while_looking_stops_it_with_nothing_deleted(shelf: Shelf, moment: Any) -> None:
    """Each call in turn fails until one comes behind which something was deleted."""
    driver, faulty = await faulty_shelf(shelf)
    before, call = await shelf.keys(), 0
    while True:
        call += 1
        driver.fault = fault = Fault(call, moment, lasting=True)
        try:
            await faulty.collect(untagged=True)
        except Unavailable:
            if await shelf.keys() != before:
                break
        else:
            assert not fault.fired
            break
    assert call > 5
    driver.fault = None
    await faulty.collect(untagged=True)
    assert await shelf.digests() == {
        *map(Digest.of, (b"{}", b"kept")), Digest.of(image(b"{}", (b"kept",)))
    }  # fmt: skip


async def living_and_dead(driver: StorageDriver) -> Shelf:
    """Of all that dies something: with a referrer, a tag's history, a child, signatures of schema 1, and an upload."""
    shelf = Shelf(driver)
    for name in (A, B):
        await shelf.image(name, b"kept", tag="t")
    child = await shelf.image(B, b"child")
    await shelf.index(B, child)
    gone = await shelf.image(A, b"gone", tag="moved")
    await shelf.image(A, b"kept", tag="moved", annotations={"a": "b"})
    await shelf.image(A, b"signature", subject=gone)
    signed = await shelf.blob(A, b"of schema 1")
    await driver.put(f"{layout.revision(A, gone)}/signatures/sha256/{signed.hex}/link", str(signed).encode())
    await shelf.blob(B, b"dead")
    repository = shelf.content.repository(A)
    await repository.append_upload(await repository.start_upload(), in_pieces(b"12345"))
    age(driver)
    return shelf


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_killed_at_any_call_the_next_run_leaves_what_one_alone_does(moment: Any) -> None:
    """tests/crash does so on a folder and in a bucket."""
    undisturbed = await living_and_dead(MemoryDriver())
    before = await undisturbed.keys()
    await undisturbed.collect(untagged=True, purge=DAY)
    expected, halfway, call = await undisturbed.keys(), 0, 0
    while True:
        call += 1
        driver = FaultyDriver(MemoryDriver())
        shelf = await living_and_dead(driver.inner)
        driver.fault = fault = Fault(call, moment, lasting=True, crash=True)
        with suppress(Unavailable):
            await Shelf(driver).collect(untagged=True, purge=DAY)
        left = await shelf.keys()
        assert expected <= left, call
        halfway += len(expected) < len(left) < len(before)
        driver.fault = None
        await Shelf(driver).collect(untagged=True, purge=DAY)
        assert await shelf.keys() == expected, call
        if not fault.fired:
            break
    assert halfway > 20


async def test_a_link_to_nothing_stays_while_it_is_young_or_needed(shelf: Shelf) -> None:
    """A push may be at work on the one, and bytes that come back, from a backup, make the other whole."""
    await shelf.image(A, b"layer", tag="t")
    dead = await shelf.blob(A, b"dead")
    age(shelf.driver)
    young = await shelf.blob(A, b"young")
    for digest in (Digest.of(b"layer"), dead, young):
        await shelf.driver.delete(layout.blob_data(digest))
    dry = await shelf.collect(dry_run=True)
    assert (dry.swept, dry.links) == (0, 1)
    assert layout.layer_link(A, dead) in await shelf.keys()
    assert (await shelf.collect()).links == 1
    links = {key for key in await shelf.keys() if "/_layers/" in key}
    assert links == {layout.layer_link(A, digest) for digest in map(Digest.of, (b"layer", b"young", b"{}"))}


async def test_a_link_to_nothing_that_a_push_fills_meanwhile_stays(shelf: Shelf) -> None:
    dead = await shelf.blob(A, b"dead")
    await shelf.driver.delete(layout.blob_data(dead))
    age(shelf.driver)

    async def push(verb: str, key: str) -> None:
        if (verb, key) == ("head", layout.blob_data(dead)):
            await shelf.blob(A, b"dead")

    assert (await Shelf(Spied(shelf.driver, push)).collect()).links == 0
    assert await shelf.has(A, b"dead")


async def test_a_referrer_that_is_pushed_while_it_is_removed_stays_listed(shelf: Shelf) -> None:
    subject = await shelf.image(A, b"kept", tag="t")
    other = await shelf.image(A, b"other")
    referrer = await shelf.image(A, b"signature", subject=other)
    age(shelf.driver)

    async def touch(verb: str, key: str) -> None:
        if (verb, key) == ("delete", layout.revision_link(A, referrer)):
            await shelf.driver.put(key, str(referrer).encode())

    done = await Shelf(Spied(shelf.driver, touch)).collect(untagged=True)
    assert done.removed == 1
    assert await shelf.pulls(A, subject)
    assert [d.digest for d in await shelf.content.repository(A).list_referrers(other)] == [referrer]


async def test_two_at_once(shelf: Shelf) -> None:
    """Each finds what the other has deleted gone, and neither stops for it."""
    _, second = await faulty_shelf(shelf)
    state = {"armed": True}

    async def other_runs(verb: str, key: str) -> None:
        if verb == "delete" and state.pop("armed", False):
            await second.collect(untagged=True)

    await Shelf(Spied(shelf.driver, other_runs)).collect(untagged=True)
    assert await shelf.digests() == {*map(Digest.of, (b"{}", b"kept")), Digest.of(image(b"{}", (b"kept",)))}


async def test_a_repository_that_is_deleted_meanwhile(shelf: Shelf) -> None:
    manifest = await shelf.image(A, b"layer", tag="t")
    age(shelf.driver)

    async def delete(verb: str, key: str) -> None:
        if (verb, key) == ("read", layout.blob_data(manifest)):
            await shelf.driver.delete(layout.revision_link(A, manifest))
            await shelf.driver.delete(layout.blob_data(manifest))

    await Shelf(Spied(shelf.driver, delete)).collect()


async def test_what_was_done_is_known_after_a_fault(shelf: Shelf) -> None:
    _, two = sorted([await push_blob(shelf.content.repository(A), data) for data in (b"1", b"2")])
    swept = asyncio.Event()

    class Waking(Watcher):
        def blob(self, digest: Digest, size: int) -> None:
            swept.set()

    async def fail(verb: str, key: str) -> None:
        if (verb, key) == ("delete", layout.blob_data(two)):
            await swept.wait()  # else it may cancel the other one
            raise Unavailable("the disk is gone")

    spied = Shelf(Spied(shelf.driver, fail))
    age(shelf.driver)
    collector = Collector(spied.content, Options(grace=DAY), Waking())
    with pytest.raises(Unavailable):
        await collector.run()
    assert collector.done.swept == 1
    assert collector.done.seconds > 0
    assert await shelf.digests() == {two}
