"""The bounds of a cache on a store of objects: its times, touches that are no new versions, and who works."""

import asyncio
import math
from collections.abc import AsyncIterator

import pytest

from registry.proxy.eviction import Bounds, Evictor, Record
from registry.proxy.tally import Tally
from registry.proxy.uses import Uses
from storage import layout
from storage.digest import Digest
from storage.driver import StorageDriver
from storage.drivers.s3.driver import S3Driver
from storage.drivers.s3.rest import RestBucket
from storage.drivers.s3.settings import S3Settings
from storage.garbage.eviction import Evicted, Eviction
from storage.names import RepositoryName, parse_name
from tests.s3.servers import S3Server
from tests.s3.test_garbage import Later
from tests.storage import spying
from tests.storage.shelf import DAY, Shelf

pytestmark = pytest.mark.slow

HUB, TEAM = parse_name("hub/app"), parse_name("team/app")
LAYER = 10_000
GRACE = 8 * 3600.0


def layer(text: str) -> bytes:
    return text.encode().ljust(LAYER, b".")


def caches(name: RepositoryName) -> bool:
    return name.startswith("hub/")


def driver_of(server: S3Server, place: tuple[str, str]) -> S3Driver:
    settings = S3Settings.parse(server.parameters(*place))
    return S3Driver(settings, RestBucket(settings))


@pytest.fixture
def place(seaweedfs: S3Server) -> tuple[str, str]:
    return seaweedfs.new_root()


@pytest.fixture
async def driver(place: tuple[str, str], seaweedfs: S3Server) -> AsyncIterator[StorageDriver]:
    made = driver_of(seaweedfs, place)
    yield made
    await made.aclose()


async def another_second(driver: StorageDriver) -> None:
    """The store counts whole ones."""
    await driver.put("second", b"")
    begun = (await driver.head("second")).modified
    while (await driver.head("second")).modified <= begun:
        await asyncio.sleep(0.05)
        await driver.put("second", b"")
    await driver.delete("second")


async def three(driver: StorageDriver) -> list[Digest]:
    shelf, made = Shelf(driver), []
    for number in range(3):
        made.append(await shelf.image(HUB, layer(str(number)), tag=f"t{number}"))
        await another_second(driver)
    return made


async def evict(driver: StorageDriver, room: float, record: spying.Before | None = None) -> Evicted:
    """A month later."""
    run = Eviction(Later(driver, record or spying.Record()), caches, GRACE)
    await run.look()
    return await run.run(room=room, age=math.inf)


async def pulls(driver: StorageDriver, *images: Digest) -> list[bool]:
    return [await Shelf(driver).pulls(HUB, digest) for digest in images]


async def test_the_order_is_that_of_the_last_use_also_after_a_restart(
    driver: StorageDriver, place: tuple[str, str], seaweedfs: S3Server
) -> None:
    images = await three(driver)
    calls = spying.Record()
    uses = Uses(Later(driver, calls), GRACE)
    for _ in range(3):
        await uses.manifest(HUB, images[0])
    assert [verb for verb, _ in calls.taken()] == ["head", "touch"]
    again = driver_of(seaweedfs, place)
    done = await evict(again, 2.5 * LAYER)
    await again.aclose()
    assert await pulls(driver, *images) == [True, False, True]
    assert (done.manifests, done.collected.swept) == (1, 2)
    assert await Shelf(driver).has(HUB, layer("0"))


async def test_hosted_content_is_not_touched(driver: StorageDriver) -> None:
    shelf = Shelf(driver)
    hosted = await shelf.image(TEAM, layer("shared"), tag="t")
    await shelf.blob(TEAM, layer("in no manifest"))
    child = await shelf.image(HUB, layer("shared"), layer("in no manifest"), layer("theirs"))
    index = await shelf.index(HUB, child, tag="t")
    before = await shelf.keys(layout.repository(TEAM))
    done = await evict(driver, 0)
    assert (done.manifests, done.collected.swept, done.size) == (2, 3, 0)
    assert await pulls(driver, child, index) == [False, False]
    assert await shelf.keys(layout.repository(TEAM)) == before
    assert await shelf.pulls(TEAM, hosted)
    assert [await shelf.has(TEAM, layer(text)) for text in ("shared", "in no manifest")] == [True, True]


async def test_a_touch_is_no_new_version_and_is_seen_all_the_same(driver: StorageDriver) -> None:
    """Of the first image's revision right before it is removed, and of the second's layer right before it is swept."""
    images = await three(driver)
    revision = layout.revision_link(HUB, images[0])
    link, data = layout.layer_link(HUB, Digest.of(layer("1"))), layout.blob_data(Digest.of(layer("1")))
    version, touched = (await driver.head(revision)).version, []

    async def before(verb: str, key: str) -> None:
        if verb == "head" and key in (revision, data) and key not in touched:
            touched.append(key)
            await driver.touch(revision if key == revision else link)

    await evict(driver, 0, before)
    assert touched == [revision, data]
    assert (await driver.head(revision)).version == version
    assert await pulls(driver, *images) == [True, False, False]
    assert await Shelf(driver).has(HUB, layer("1"))
    assert not await Shelf(driver).has(HUB, layer("2"))


async def test_of_two_replicas_one_works(driver: StorageDriver, place: tuple[str, str], seaweedfs: S3Server) -> None:
    images = await three(driver)
    other, calls = driver_of(seaweedfs, place), spying.Record()
    both = [
        Evictor(
            Later(each, calls),
            Bounds(2 * LAYER, 0.0, GRACE),
            caches=caches,
            fetched=int,
            tally=lambda name: Tally(),
        )
        for each in (driver, other)
    ]
    done = await asyncio.gather(*(each.tend() for each in both))
    assert [each is None for each in done].count(True) == 1
    assert await pulls(driver, *images) == [False, False, True]
    assert [each for each in calls.taken() if each == ("list_objects", layout.BLOBS)] == [
        ("list_objects", layout.BLOBS)
    ] * 3
    found = Record.parse(await driver.read(layout.EVICTION))
    assert found.due > await driver.now() + 29 * DAY
    await other.aclose()
