"""What a cache gives up to keep its bounds, and what it never does: on each driver, aged through the back door."""

import asyncio
import math
import os
from pathlib import Path

import pytest

from storage import layout
from storage.content import ContentStore
from storage.digest import Digest
from storage.driver import StorageDriver
from storage.drivers.filesystem import FilesystemDriver
from storage.drivers.memory import MemoryDriver
from storage.errors import ObjectNotFound, Unavailable
from storage.garbage.eviction import Evicted, Eviction
from storage.garbage.manifests import UnreadableManifest
from storage.links import read_link, write_link
from storage.manifest import parse_stored
from storage.names import RepositoryName, parse_name, parse_tag
from tests.storage.shelf import DAY, Shelf, Told, age, behind
from tests.storage.spying import Record, Shuffle, Spied, read_blob

HUB, GHCR, TEAM = parse_name("hub/app"), parse_name("ghcr/app"), parse_name("team/app")
GRACE = 600.0
LAYER = 10_000


def layer(text: str) -> bytes:
    return text.encode().ljust(LAYER, b".")


def caches(name: RepositoryName) -> bool:
    return name.startswith(("hub/", "ghcr/"))


@pytest.fixture
def shelf(backing: StorageDriver) -> Shelf:
    return Shelf(backing)


def used(shelf: Shelf, name: RepositoryName, digest: Digest, ago: float) -> None:
    """Let it have been used last that long ago."""
    key = layout.revision_link(name, digest)
    driver = behind(shelf.driver)
    if isinstance(driver, MemoryDriver):
        driver._objects[key].modified = driver._objects[layout.EVICTION].modified - ago
    else:
        assert isinstance(driver, FilesystemDriver)
        root = Path(driver._tree.root)
        moment = (root / layout.EVICTION).stat().st_mtime - ago
        os.utime(root / key, (moment, moment))


async def old(shelf: Shelf) -> None:
    """All that is there was written long ago. What `used` counts back from is now."""
    age(shelf.driver)
    await shelf.driver.put(layout.EVICTION, b"")


async def evict(shelf: Shelf, room: float = math.inf, unused: float = math.inf, **more: object) -> Evicted:
    run = Eviction(shelf.driver, caches, GRACE, **more)  # type: ignore[arg-type]
    await run.look()
    return await run.run(room=room, age=unused)


async def left(shelf: Shelf, *images: tuple[RepositoryName, Digest]) -> list[bool]:
    """Which of them can be pulled, each with all of its blobs?"""
    return [await whole(shelf, name, digest) for name, digest in images]


async def whole(shelf: Shelf, name: RepositoryName, digest: Digest) -> bool:
    if not await shelf.pulls(name, digest):
        return False
    body = (await shelf.content.repository(name).get_manifest(digest)).body
    blobs = [blob.digest for blob in parse_stored(body).blobs]
    for blob in blobs:
        await read_blob(shelf.content.repository(name), blob)  # raises BlobUnknown
    return True


async def three(shelf: Shelf) -> list[tuple[RepositoryName, Digest]]:
    """Images of a layer each, in the order of their last use, the first longest ago."""
    images = [
        (HUB, await shelf.image(HUB, layer("one"), tag="1")),
        (GHCR, await shelf.image(GHCR, layer("two"), tag="2")),
        (HUB, await shelf.image(HUB, layer("three"), tag="3")),
    ]
    await old(shelf)
    for hours, (name, digest) in enumerate(reversed(images), start=1):
        used(shelf, name, digest, hours * 3600.0)
    return images


async def test_the_least_recently_used_goes_first_whole_and_with_its_tag(shelf: Shelf) -> None:
    images = await three(shelf)
    told = Told()
    done = await evict(shelf, room=2.5 * LAYER, watcher=told)
    assert await left(shelf, *images) == [False, True, True]
    assert (done.manifests, done.collected.swept) == (1, 2)
    assert told.manifests == [images[0]]
    assert done.kept <= 2.5 * LAYER
    assert not [key for key in await shelf.keys() if images[0][1].hex in key or "/tags/1/" in key]
    assert Digest.of(layer("one")) not in await shelf.digests()
    assert await shelf.has(HUB, b"{}")


async def test_the_order_is_the_stores(shelf: Shelf) -> None:
    """Whoever asks next, after a restart or elsewhere, sees it: what was used in between does not go first."""
    images = await three(shelf)
    used(shelf, *images[0], 60.0)
    await evict(shelf, room=2.5 * LAYER)
    assert await left(shelf, *images) == [True, False, True]


async def test_what_was_not_used_for_long_goes(shelf: Shelf) -> None:
    images = await three(shelf)
    done = await evict(shelf, unused=1.5 * 3600)
    assert await left(shelf, *images) == [False, False, True]
    assert done.manifests == 2
    link = await shelf.driver.head(layout.revision_link(*images[2]))
    assert done.oldest == link.modified
    assert (await evict(shelf, unused=1.5 * 3600)).manifests == 0


async def test_what_fits_stays(shelf: Shelf) -> None:
    images = await three(shelf)
    done = await evict(shelf, room=4 * LAYER, unused=DAY)
    assert await left(shelf, *images) == [True] * 3
    assert (done.manifests, done.collected.swept) == (0, 0)
    assert done.kept == done.size


async def test_nothing_older_stays_in_the_stead_of_what_does_not_fit(shelf: Shelf) -> None:
    small = await shelf.image(HUB, b"small", tag="s")
    large = await shelf.image(HUB, layer("a"), layer("b"), layer("c"), tag="l")
    new = await shelf.image(HUB, layer("new"), tag="n")
    await old(shelf)
    for ago, digest in ((3000.0, small), (2000.0, large), (1000.0, new)):
        used(shelf, HUB, digest, ago)
    await evict(shelf, room=2 * LAYER)
    assert await left(shelf, (HUB, small), (HUB, large), (HUB, new)) == [False, False, True]


async def test_p10_a_layer_that_two_share_stays_with_the_other(shelf: Shelf) -> None:
    first = await shelf.image(HUB, layer("shared"), layer("first"), tag="1")
    second = await shelf.image(GHCR, layer("shared"), tag="2")
    await old(shelf)
    used(shelf, HUB, first, 7200.0)
    used(shelf, GHCR, second, 3600.0)
    done = await evict(shelf, room=1.5 * LAYER)
    assert await left(shelf, (HUB, first), (GHCR, second)) == [False, True]
    assert done.kept < 1.5 * LAYER


async def test_an_index_is_one_image_with_what_it_names(shelf: Shelf) -> None:
    """Its images were used with it, also those that nobody has pulled."""
    children = [await shelf.image(HUB, layer(text)) for text in ("amd64", "arm64")]
    index = await shelf.index(HUB, *children, tag="latest")
    other = await shelf.image(HUB, layer("other"), tag="other")
    await old(shelf)
    used(shelf, HUB, other, 2000.0)
    used(shelf, HUB, index, 1000.0)
    everything = [(HUB, digest) for digest in (*children, index, other)]
    await evict(shelf, room=2.5 * LAYER)
    assert await left(shelf, *everything) == [True, True, True, False]
    used(shelf, HUB, index, 3000.0)
    used(shelf, HUB, children[0], 2500.0)
    done = await evict(shelf, unused=2700.0)
    assert done.manifests == 2
    assert await left(shelf, *everything) == [True, False, False, False], "one of its images was used after it"


async def test_referrers_live_and_go_with_their_subject(shelf: Shelf) -> None:
    subject = await shelf.image(HUB, layer("subject"), tag="t")
    signature = await shelf.image(HUB, b"signature", subject=subject)
    note = await shelf.image(HUB, b"note", subject=signature)
    everything = [(HUB, digest) for digest in (subject, signature, note)]
    await old(shelf)
    used(shelf, HUB, subject, 1000.0)
    assert (await evict(shelf, unused=2000.0)).manifests == 0
    assert await left(shelf, *everything) == [True] * 3
    assert [each.digest for each in await shelf.content.repository(HUB).list_referrers(subject)] == [signature]
    used(shelf, HUB, subject, 3000.0)
    assert (await evict(shelf, unused=2000.0)).manifests == 3
    assert not [key for key in await shelf.keys(layout.repository(HUB)) if not key.endswith("/scanned")]


async def test_hosted_content_is_not_touched(shelf: Shelf) -> None:
    """Neither what its manifests need, nor what it has beside them; and it counts for nothing."""
    await shelf.image(TEAM, layer("base"), tag="t")
    await shelf.image(TEAM, layer("by digest"))
    await shelf.blob(TEAM, layer("in no manifest yet"))
    await shelf.blob(TEAM, layer("sha512"), "sha512")
    cached = await shelf.image(HUB, layer("base"), layer("in no manifest yet"), layer("theirs"), tag="t")
    await old(shelf)
    before = await shelf.keys(layout.repository(TEAM))
    run = Eviction(shelf.driver, caches, GRACE)
    manifest = shelf.sizes[cached]
    assert await run.look() == LAYER + manifest
    done = await run.run(room=0, age=math.inf)
    assert (done.manifests, done.collected.swept, done.size) == (1, 2, 0)
    assert await shelf.keys(layout.repository(TEAM)) == before
    for text in ("base", "by digest", "in no manifest yet"):
        assert await shelf.has(TEAM, layer(text))
    assert await shelf.has(TEAM, layer("sha512"), "sha512")
    assert not await shelf.has(HUB, layer("theirs"))


async def test_a_hosted_alias_keeps_its_bytes(shelf: Shelf) -> None:
    """Distribution links its sha512 names to bytes under sha256."""
    data = layer("alias")
    await shelf.blob(HUB, data)
    await write_link(shelf.driver, layout.layer_link(TEAM, Digest.of(data, "sha512")), Digest.of(data))
    await old(shelf)
    assert (await evict(shelf, room=0)).collected.swept == 0
    assert await shelf.has(TEAM, data, "sha512")


async def test_what_was_used_a_moment_ago_stays_whatever_the_bounds(shelf: Shelf) -> None:
    images = await three(shelf)
    for name, digest in images[1:]:
        used(shelf, name, digest, GRACE / 2)
    done = await evict(shelf, room=0, unused=1.0)
    assert await left(shelf, *images) == [False, True, True]
    assert done.size > 2 * LAYER


async def test_a_blob_that_was_read_a_moment_ago_outlives_its_image(shelf: Shelf) -> None:
    images = await three(shelf)
    await shelf.driver.touch(layout.layer_link(HUB, Digest.of(layer("one"))))
    done = await evict(shelf, room=0)
    assert done.collected.young_size == LAYER
    assert await left(shelf, *images) == [False] * 3
    assert await shelf.has(HUB, layer("one"))
    age(shelf.driver)
    assert (await evict(shelf, room=0)).collected.swept == 1
    assert not await shelf.has(HUB, layer("one"))


async def test_an_image_that_is_pulled_meanwhile_stays(shelf: Shelf) -> None:
    """As one that is being removed it loses its tag at most."""
    images = await three(shelf)
    link = layout.revision_link(*images[0])
    seen = 0

    async def before(verb: str, key: str) -> None:
        nonlocal seen
        if (verb, key) == ("head", link):
            seen += 1
            if seen == 1:
                await shelf.driver.touch(link)

    await evict(Shelf(Spied(shelf.driver, before)), room=0)
    assert seen == 1
    assert await left(shelf, *images) == [True, False, False]
    assert (await shelf.content.repository(HUB).list_tags("", 9)).names == ["1"]


async def test_f38_a_blob_that_is_read_right_before_its_delete_stays(shelf: Shelf) -> None:
    """Also where nothing but its link says so."""
    await three(shelf)
    link, data = (at(HUB, Digest.of(layer("one"))) for at in (layout.layer_link, _data))
    seen = []

    async def before(verb: str, key: str) -> None:
        seen.append((verb, key))
        if (verb, key) == ("head", data):
            await shelf.driver.touch(link)

    await evict(Shelf(Spied(shelf.driver, before)), room=0)
    assert seen.index(("head", data)) < seen.index(("head", link))
    assert ("delete", data) not in seen
    assert await shelf.has(HUB, layer("one"))


def _data(name: RepositoryName, digest: Digest) -> str:
    return layout.blob_data(digest)


async def test_an_image_that_is_fetched_again_meanwhile_keeps_its_blobs(shelf: Shelf) -> None:
    """Its revision came after the mark: the look for news before the sweep sees it."""
    images = await three(shelf)
    body = (await shelf.content.repository(HUB).get_manifest(images[0][1])).body
    link, again = layout.revision_link(*images[0]), Shelf(shelf.driver)
    swept = False

    async def before(verb: str, key: str) -> None:
        nonlocal swept
        if verb == "list_objects" and key == layout.BLOBS and link not in await shelf.keys(layout.revisions(HUB)):
            if swept:
                await again.manifest(HUB, body, "1")
            swept = True

    await evict(Shelf(Spied(shelf.driver, before)), room=0)
    assert await left(shelf, *images) == [True, False, False]


@pytest.mark.parametrize("verb", ["head", "delete"])
@pytest.mark.parametrize("way", ["mount", "upload", "head"])
async def test_a_push_that_finds_what_is_being_swept_keeps_it(shelf: Shelf, verb: str, way: str) -> None:
    """In the last moment: before the last look at the blob, and before its delete by version."""
    await three(shelf)
    pushed = layer("one")
    data, client = layout.blob_data(Digest.of(pushed)), Shelf(shelf.driver)
    client.content = ContentStore(shelf.driver, grace=GRACE)
    team = client.content.repository(TEAM)
    done = False

    async def before(at: str, key: str) -> None:
        nonlocal done
        if (at, key) != (verb, data) or done:
            return
        done = True
        if way == "mount":
            await team.mount_blob(Digest.of(pushed), HUB)
        elif way == "upload":
            await client.blob(TEAM, pushed)
        else:
            await client.content.repository(HUB).stat_blob(Digest.of(pushed))

    await evict(Shelf(Spied(shelf.driver, before)), room=0)
    assert done
    assert await shelf.has(HUB if way == "head" else TEAM, pushed)


class Killed(BaseException):
    pass


@pytest.mark.slow
async def test_a_run_that_is_killed_at_any_call() -> None:
    """What is left is a valid store, hosted content is whole, and the next run ends where one alone would have."""
    call = 0
    while True:
        call += 1
        shelf = Shelf(MemoryDriver())
        hosted = await shelf.image(TEAM, layer("two"), layer("hosted"), tag="h")
        images = await three(shelf)
        count = 0

        async def before(verb: str, key: str, call: int = call) -> None:
            nonlocal count
            count += 1
            if count == call:
                raise Killed

        try:
            await evict(Shelf(Spied(shelf.driver, before)), room=1.5 * LAYER)
        except Killed:
            await valid(shelf)
            await evict(shelf, room=1.5 * LAYER)
        await valid(shelf)
        assert await left(shelf, *images, (TEAM, hosted)) == [False, True, True, True]
        await shelf.content.aclose()
        if count < call:
            break
    assert call > 50


async def valid(shelf: Shelf) -> None:
    """No tag names what cannot be pulled, and no manifest lacks a blob."""
    for name in (HUB, GHCR, TEAM):
        for folder in await shelf.driver.list_folders(f"{layout.revisions(name)}/sha256"):
            assert await whole(shelf, name, Digest("sha256", folder))
        for tag in await shelf.driver.list_folders(layout.tags(name), containing=layout.CURRENT_LINK):
            assert await whole(shelf, name, await read_link(shelf.driver, f"{layout.tags(name)}/{tag}/current/link"))


@pytest.mark.parametrize("seed", range(8))
async def test_two_at_once_leave_what_one_would(seed: int) -> None:
    shelf = Shelf(MemoryDriver())
    hosted = await shelf.image(TEAM, layer("two"), tag="h")
    images = await three(shelf)
    both = [Shelf(Spied(shelf.driver, Shuffle(2 * seed + one))) for one in (0, 1)]
    await asyncio.gather(*(evict(each, room=1.5 * LAYER) for each in both))
    await valid(shelf)
    assert await left(shelf, *images, (TEAM, hosted)) == [False, True, True, True]
    await shelf.content.aclose()


async def damaged(shelf: Shelf, digest: Digest, *, gone: bool) -> None:
    if gone:
        await shelf.driver.delete(layout.blob_data(digest))
    else:
        await shelf.driver.put(layout.blob_data(digest), b"damaged")


@pytest.mark.parametrize("gone", [True, False])
async def test_a_cached_manifest_that_cannot_be_read_goes(shelf: Shelf, gone: bool) -> None:
    """It is fetched again. Alone, though an index that stays names it."""
    child = await shelf.image(HUB, layer("child"))
    index = await shelf.index(HUB, child, tag="t")
    broken = await shelf.image(HUB, layer("broken"), tag="broken")
    await old(shelf)
    await damaged(shelf, child, gone=gone)
    await damaged(shelf, broken, gone=gone)
    used(shelf, HUB, index, 1000.0)
    await evict(shelf)
    assert not [key for key in await shelf.keys(layout.repository(HUB)) if child.hex in key or broken.hex in key]
    assert await shelf.pulls(HUB, index)


@pytest.mark.parametrize("gone", [True, False])
async def test_a_hosted_manifest_that_cannot_be_read_stops_nothing(shelf: Shelf, gone: bool) -> None:
    """What it needs is unknown, but its repository has links to all of that."""
    hosted = await shelf.image(TEAM, layer("one"), tag="h")
    images = await three(shelf)
    await damaged(shelf, hosted, gone=gone)
    with pytest.raises(UnreadableManifest):
        await shelf.collect()
    await evict(shelf, room=0)
    assert await left(shelf, *images) == [False] * 3
    assert await shelf.has(TEAM, layer("one"))
    assert not await shelf.has(HUB, layer("two"))


async def test_a_store_that_fails_stops_it(shelf: Shelf) -> None:
    images = await three(shelf)
    record = Record(failing={("read", "/data"): Unavailable("the store is broken")})
    with pytest.raises(Unavailable):
        await evict(Shelf(Spied(shelf.driver, record)), room=0)
    assert await left(shelf, *images) == [True] * 3


async def test_what_a_look_costs(shelf: Shelf) -> None:
    """Of the cache itself not a link is read, nor listed."""
    await three(shelf)
    await shelf.image(TEAM, layer("hosted"), tag="h")
    record = Record()
    run = Eviction(Spied(shelf.driver, record), caches, GRACE)
    await run.look()
    calls = record.taken()
    assert [verb for verb, key in calls if not key.startswith(layout.repository(TEAM))].count("list_objects") == 1
    assert not {verb for verb, _ in calls} - {"list_objects", "list_folders"}


async def test_an_empty_store(shelf: Shelf) -> None:
    done = await evict(shelf, room=0, unused=1.0)
    assert (done.manifests, done.size, done.oldest) == (0, 0, math.inf)


async def test_entries_of_a_tag_that_moved_on_go_with_what_they_name(shelf: Shelf) -> None:
    was = await shelf.image(HUB, layer("was"), tag="latest")
    now = await shelf.image(HUB, layer("is"), tag="latest")
    await old(shelf)
    used(shelf, HUB, was, 7200.0)
    used(shelf, HUB, now, 3600.0)
    await evict(shelf, unused=5000.0)
    assert await left(shelf, (HUB, was), (HUB, now)) == [False, True]
    with pytest.raises(ObjectNotFound):
        await shelf.driver.head(layout.tag_index_link(HUB, parse_tag("latest"), was))
    assert await read_link(shelf.driver, layout.tag_link(HUB, parse_tag("latest"))) == now
