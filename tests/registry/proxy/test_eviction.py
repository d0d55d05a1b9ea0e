"""When the cache is looked after, by whom, and what is recorded of its use. What goes: storage/test_eviction."""

import asyncio
import json
import logging
import math
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from registry.app import create_app
from registry.config import Config
from registry.config.model import CacheConfig, GarbageConfig, StorageConfig
from registry.config.upstreams import ProxyConfig, UpstreamConfig
from registry.proxy.directory import Directory
from registry.proxy.eviction import Bounds, Evictor, Record
from registry.proxy.mirrors import Mirrors
from registry.proxy.tally import Tally
from registry.proxy.uses import Uses
from registry.serving.lifespan import lifespan
from storage import layout
from storage.content import ContentStore
from storage.digest import Digest
from storage.driver import StorageDriver
from storage.drivers.filesystem import FilesystemDriver
from storage.drivers.memory import MemoryDriver
from storage.errors import Unavailable
from storage.names import RepositoryName, parse_name
from tests.api import image
from tests.storage import spying
from tests.storage.shelf import DAY, Shelf, age
from tests.storage.spying import DearMemory, Shuffle, Spied

from .conftest import Clock
from .scripted import Scripted, reset

HUB, TEAM = parse_name("hub/app"), parse_name("team/app")
LAYER = 10_000
BOUNDS = Bounds(size=3 * LAYER)


def layer(text: str) -> bytes:
    return text.encode().ljust(LAYER, b".")


@dataclass
class Process:
    """One of several that share a store."""

    driver: StorageDriver
    bounds: Bounds = BOUNDS
    clock: Clock = field(default_factory=Clock)
    tally: Tally = field(default_factory=Tally)
    fetched: int = 0

    def __post_init__(self) -> None:
        self.evictor = Evictor(
            self.driver,
            self.bounds,
            caches=lambda name: name.startswith("hub/"),
            fetched=lambda: self.fetched,
            tally=lambda name: self.tally,
            clock=self.clock,
            sleep=self.sleep,
        )
        self.left = math.inf

    async def sleep(self, seconds: float) -> None:
        self.clock.now += seconds
        self.left -= seconds
        if self.left < 0:
            raise asyncio.CancelledError

    async def live(self, seconds: float) -> None:
        """Let that time pass."""
        self.left = seconds
        with pytest.raises(asyncio.CancelledError):
            await self.evictor.run()


@pytest.fixture(params=["memory", pytest.param("filesystem", marks=pytest.mark.slow), "dear"])
async def driver(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[StorageDriver]:
    if request.param == "filesystem":
        made: StorageDriver = FilesystemDriver(tmp_path / "data", scratch=layout.SCRATCH)
    else:
        made = DearMemory() if request.param == "dear" else MemoryDriver()
    yield made
    await made.aclose()


async def four(driver: StorageDriver) -> list[Digest]:
    """Images of a layer each, the first used longest ago, all long ago."""
    shelf, made = Shelf(driver), []
    for number in range(4):
        made.append(await shelf.image(HUB, layer(str(number)), tag=f"t{number}"))
        age(driver, 3600.0)
    return made


async def pulls(driver: StorageDriver, *images: Digest) -> list[bool]:
    return [await Shelf(driver).pulls(HUB, digest) for digest in images]


async def record(driver: StorageDriver) -> Record:
    return Record.parse(await driver.read(layout.EVICTION))


# When


async def test_above_the_high_mark_it_goes_down_to_the_low_one(driver: StorageDriver) -> None:
    images = await four(driver)
    process = Process(driver)
    done = await process.evictor.tend()
    assert done is not None
    assert await pulls(driver, *images) == [False, False, True, True]
    assert done.size <= BOUNDS.low < BOUNDS.high < 4 * LAYER
    found = await record(driver)
    assert (found.size, process.tally.evicted_manifests, process.tally.evicted_blobs) == (done.size, 2, 4)
    assert process.tally.evicted_bytes == done.collected.size > 2 * LAYER
    assert await process.evictor.tend() is None, "it is not due"


async def test_below_the_high_mark_nothing_is_read(driver: StorageDriver) -> None:
    images = await four(driver)
    calls = spying.Record()
    assert await Process(Spied(driver, calls), Bounds(size=5 * LAYER)).evictor.tend() is None
    assert await pulls(driver, *images) == [True] * 4
    assert not {verb for verb, key in calls.taken() if key != layout.EVICTION} - {"list_objects", "list_folders"}
    assert (await record(driver)).size > 4 * LAYER


async def test_one_of_all_works(driver: StorageDriver) -> None:
    """And the others know what it has found, after a restart as well, for one question each."""
    images = await four(driver)
    await Process(driver).evictor.tend()
    calls = spying.Record()
    other = Process(Spied(driver, calls))
    assert await other.evictor.tend() is None
    assert [verb for verb, _ in calls.taken()] == ["head", "read"]
    await other.live(250.0)
    assert calls.taken() == [], "until the next look is due"
    assert await pulls(driver, *images) == [False, False, True, True]


@pytest.mark.parametrize("seed", range(6))
async def test_of_two_that_begin_at_once_one_works(seed: int) -> None:
    driver, calls = MemoryDriver(), spying.Record()
    await four(driver)
    shuffle = Shuffle(seed)

    async def before(verb: str, key: str) -> None:
        await calls(verb, key)
        await shuffle(verb, key)

    both = [Process(Spied(driver, before)) for _ in range(2)]
    done = await asyncio.gather(*(each.evictor.tend() for each in both))
    assert [each is None for each in done].count(True) == 1
    assert [key for verb, key in calls.taken() if verb == "list_objects"].count(layout.BLOBS) == 3  # look, table, sweep


async def test_who_dies_is_replaced(driver: StorageDriver) -> None:
    images = await four(driver)

    async def dies(verb: str, key: str) -> None:
        if (verb, key) == ("list_objects", layout.BLOBS):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await Process(Spied(driver, dies)).evictor.tend()
    other = Process(driver)
    assert await other.evictor.tend() is None, "he may live"
    claim = json.loads(await driver.read(layout.EVICTION))
    assert 0 < claim["due"] - await driver.now() <= 120
    await driver.put(layout.EVICTION, json.dumps(claim | {"due": 0.0, "soonest": 0.0}).encode())  # the time is over
    assert await other.evictor.tend() is not None
    assert await pulls(driver, *images) == [False, False, True, True]


async def test_a_process_looks_after_a_minute_and_then_every_five(driver: StorageDriver) -> None:
    calls = spying.Record()
    process = Process(Spied(driver, calls))
    looks = []
    for _ in range(4):
        await process.live(50.0)
    assert calls.taken() == []
    await process.live(65.0)
    looks.append([key for verb, key in calls.taken() if verb == "list_objects"])
    assert looks == [[layout.BLOBS]]
    found = await record(driver)
    assert 290 < found.due - await driver.now() <= 300


async def test_a_fast_download_does_not_wait_for_the_clock(driver: StorageDriver) -> None:
    process = Process(driver)
    await Shelf(driver).image(HUB, layer("first"), tag="t")
    age(driver)
    assert await process.evictor.tend() is None
    images = await four(driver)
    process.fetched += LAYER
    assert await process.evictor.tend() is None, "there is room"
    process.fetched += 4 * LAYER
    found = await record(driver)
    await driver.put(layout.EVICTION, bytes(Record(found.size, found.oldest, found.due, 0.0, found.seconds)))
    done = await process.evictor.tend()
    assert done is not None
    assert (await pulls(driver, *images))[3]
    assert done.size <= BOUNDS.low


async def test_by_age_the_next_look_is_when_the_first_image_reaches_it(driver: StorageDriver) -> None:
    images = await four(driver)
    process = Process(driver, Bounds(age=2.5 * 3600))
    done = await process.evictor.tend()
    assert done is not None
    assert await pulls(driver, *images) == [False, False, True, True]
    found = await record(driver)
    oldest = (await driver.head(layout.revision_link(HUB, images[2]))).modified
    assert (found.oldest, found.due) == (oldest, oldest + 2.5 * 3600)


async def test_what_was_used_a_moment_ago_is_not_looked_through_again_and_again(
    driver: StorageDriver, caplog: pytest.LogCaptureFixture
) -> None:
    images = await four(driver)
    for digest in images:
        await driver.touch(layout.revision_link(HUB, digest))
    done = await Process(driver).evictor.tend()
    assert done is not None
    assert await pulls(driver, *images) == [True] * 4
    assert "more than cache.size allows" in caplog.text
    found = await record(driver)
    assert found.soonest - await driver.now() > BOUNDS.grace / 2 - 60
    await driver.put(layout.EVICTION, bytes(Record(found.size, found.oldest, 0.0, found.soonest, found.seconds)))
    calls = spying.Record()
    assert await Process(Spied(driver, calls)).evictor.tend() is None
    assert "read" not in {verb for verb, key in calls.taken() if key != layout.EVICTION}
    assert (await record(driver)).soonest == found.soonest, "it is not put off for ever"


async def test_a_line_in_the_log_for_each_run(driver: StorageDriver, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    await four(driver)
    await Process(driver).evictor.tend()
    [line] = [each.getMessage() for each in caplog.records]
    assert line.startswith("evicted 2 manifests and 4 blobs of 2")


async def test_a_store_that_fails_is_tried_again_later(driver: StorageDriver, caplog: pytest.LogCaptureFixture) -> None:
    calls = spying.Record(failing={("list_objects", layout.BLOBS): Unavailable("the store is broken")})
    process = Process(Spied(driver, calls))
    await process.live(100.0)
    assert "could not look after the bounds of the cache" in caplog.text
    assert [verb for verb, _ in calls.taken()].count("list_objects") == 1


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"size": "x"}', b'{"size": 1}', b"\xff", b'{"size": Infinity}'])
def test_a_record_that_cannot_be_understood_is_none(data: bytes) -> None:
    assert Record.parse(data) == Record()


def test_records_never_look_alike() -> None:
    assert bytes(Record()) != bytes(Record())
    assert Record.parse(bytes(Record(1, 2.0, 3.0, 4.0, 5.0))) == Record(1, 2.0, 3.0, 4.0, 5.0)


def test_the_grace_is_as_the_store_needs_it() -> None:
    of = partial(Bounds.of, proxy=ProxyConfig())
    assert of(CacheConfig(size=1), driver=MemoryDriver()).grace == 600
    assert of(CacheConfig(size=1), driver=DearMemory()).grace == 8 * 3600
    assert of(CacheConfig(size=1, grace=7.0), driver=DearMemory()).grace == 7
    assert of(CacheConfig(grace=7.0), driver=DearMemory()).recorded == 0
    assert Bounds(age=1.0, grace=5.0).unused == 5


# Uses


class Clocked(MemoryDriver):
    """It writes its times by a clock of the test's."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    async def now(self) -> float:
        return self._clock.now

    async def touch(self, key: str) -> None:
        await super().touch(key)
        self._objects[key].modified = self._clock.now


async def test_uses_are_recorded_rarely_and_always_in_time(clock: Clock) -> None:
    """In two processes: at most a touch in a quarter of the grace, and never is a use older than half of it."""
    driver, calls, dice = Clocked(clock), spying.Record(), random.Random(1)
    digest, grace = Digest.of(b"x"), 600.0
    link = layout.revision_link(HUB, digest)
    await driver.put(link, b"x")
    driver._objects[link].modified = clock.now - DAY
    both = [Uses(Spied(driver, calls), grace, clock) for _ in range(2)]
    for each in both:
        each._renewals.clock = clock
    begun, uses = clock.now, 0
    while clock.now - begun < 4 * 3600:
        clock.now += dice.random() * 30
        uses += 1
        await dice.choice(both).manifest(HUB, digest)
        assert driver._objects[link].modified >= clock.now - grace / 2
    verbs = [verb for verb, _ in calls.taken()]
    quarters = 4 * 3600 / (grace / 4)
    assert verbs.count("touch") <= quarters + 1
    assert verbs.count("head") <= 2 * (quarters + 1)
    assert uses > 900


async def test_without_bounds_nothing_is_recorded() -> None:
    calls = spying.Record()
    uses = Uses(Spied(MemoryDriver(), calls), Bounds().recorded)
    await uses.manifest(HUB, Digest.of(b""))
    await uses.blob(HUB, Digest.of(b""))
    assert calls.taken() == []


async def test_what_cannot_be_recorded_fails_nobody(driver: StorageDriver, caplog: pytest.LogCaptureFixture) -> None:
    digest = Digest.of(b"x")
    link = layout.layer_link(HUB, digest)
    uses = Uses(Spied(driver, calls := spying.Record()), 600.0)
    await uses.blob(HUB, digest)
    await driver.put(link, str(digest).encode())
    age(driver)
    calls.failing["touch", link] = Unavailable("read-only file system")
    await uses.blob(HUB, digest)
    assert "cannot record that the cache is used" in caplog.text
    assert [verb for verb, _ in calls.taken()] == ["head", "head", "touch"]
    await uses.blob(HUB, digest)
    assert calls.taken() == [], "nor at each pull again"


# Whose


def test_what_is_of_the_cache() -> None:
    hub, lan = UpstreamConfig(url="https://docker.io"), UpstreamConfig(url="http://hub.lan:5000")
    several = Directory([hub, lan], ["ghcr.io/**", "docker.io/mine/**"])
    names = ["docker.io/library/alpine", "docker.io/mine/app", "docker.io", "hub.lan_5000/a", "team/app", "ghcr.io/a/b"]
    assert [several.cached(RepositoryName(name)) for name in names] == [0, None, None, 1, None, None]
    one = Directory([hub], ["team/**"], mirror=True)
    assert [one.cached(RepositoryName(name)) for name in ["library/alpine", "a", "team/app"]] == [0, 0, None]


@pytest.mark.parametrize(
    ("proxy", "cache", "bounds"),
    [
        ({}, {}, None),
        ({"ttl": 0.0}, {}, None),
        ({"remoteurl": "http://127.0.0.1:1"}, {}, Bounds(0, 7 * DAY)),
        ({"remoteurl": "http://127.0.0.1:1", "ttl": 0.0}, {}, None),
        ({"remoteurl": "http://127.0.0.1:1"}, {"age": 60.0}, Bounds(0, 60.0)),
        ({"remoteurl": "http://127.0.0.1:1"}, {"age": 0.0, "size": 5}, Bounds(5, 0.0)),
        ({}, {"size": 9, "age": 3.0, "grace": 1.0}, Bounds(9, 3.0, 1.0)),
    ],
)
async def test_settings(proxy: dict[str, Any], cache: dict[str, Any], bounds: Bounds | None) -> None:
    """`proxy.ttl` is the age, where it is not given, of what proxy.remoteurl brings."""
    upstreams = () if proxy.get("remoteurl") else (UpstreamConfig(url="http://127.0.0.1:1", name="hub"),)
    shelf = Shelf(MemoryDriver())
    made = Mirrors.of(
        ProxyConfig(**proxy), upstreams, (), shelf.driver, shelf.content.repository, DAY, CacheConfig(**cache)
    )
    assert made is not None
    assert (made.evictor.bounds if made.evictor else None) == bounds
    await made.aclose()


@pytest.mark.parametrize(
    ("settings", "renewed"),
    [
        ({}, 6 * 3600.0),
        ({"cache": CacheConfig(size=1)}, 150.0),
        ({"cache": CacheConfig(age=1.0, grace=60.0)}, 15.0),
        ({"cache": CacheConfig(size=1, grace=3 * DAY)}, 6 * 3600.0),
        ({"cache": CacheConfig(size=1), "garbage": GarbageConfig(grace=0.0)}, 150.0),
        ({"proxy": ProxyConfig(remoteurl="http://127.0.0.1:1")}, 150.0),
    ],
)
async def test_pushes_renew_what_they_find_before_the_bounds_of_the_cache_could_take_it(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], renewed: float
) -> None:
    """Also where the registry itself has no upstreams: the store may be that of one that has."""
    made: list[ContentStore] = []

    def remember(content: ContentStore, *_: object) -> None:
        made.append(content)

    monkeypatch.setattr("registry.app.make_mirrors", remember)
    create_app(Config(storage=StorageConfig(driver="inmemory", parameters={}), **settings))
    assert made[0].renewals.fresh == renewed
    await made[0].aclose()


# Over HTTP


@pytest.mark.slow
async def test_p10_pulls_keep_an_image_and_what_went_is_fetched_again(hub: Scripted, tmp_path: Path) -> None:
    storage = StorageConfig(driver="filesystem", parameters={"rootdirectory": str(tmp_path / "data")})
    upstreams = (UpstreamConfig(url=hub.url, name="hub", ttl=3600.0),)
    config = Config(storage=storage, upstreams=upstreams, cache=CacheConfig(size=3 * LAYER))
    driver = FilesystemDriver(tmp_path / "data", scratch=layout.SCRATCH)
    for text in ("one", "two"):
        hub.blob("app", b"{}")
        hub.blob("app", layer(text))
        hub.image("app", text, image(b"{}", (layer(text),)))

    async def pull(http: httpx.AsyncClient, text: str) -> None:
        found = await http.get(f"/v2/hub/app/manifests/{text}")
        assert found.status_code == 200
        for part in (found.json()["config"], *found.json()["layers"]):
            assert (await http.get(f"/v2/hub/app/blobs/{part['digest']}")).status_code == 200

    async def pulled(text: str) -> None:
        """By a registry that has just been started."""
        app = create_app(config)
        transport = httpx.ASGITransport(app)
        async with lifespan(app), httpx.AsyncClient(transport=transport, base_url="http://registry") as http:
            assert [task for task in asyncio.all_tasks() if task.get_name() == "evict"]
            await pull(http, text)

    await pulled("one")
    age(driver, 7200.0)
    await pulled("two")
    age(driver, 1800.0)
    await pulled("one")
    hub.requests.clear()
    assert await Process(driver, Bounds(size=2 * LAYER)).evictor.tend() is not None
    await pulled("one")
    assert [seen for seen in hub.requests if "manifests" not in seen.path] == [], "it was used last"
    await pulled("two")
    assert hub.count("GET", f"/v2/app/blobs/{Digest.of(layer('two'))}") == 1
    hub.on("*", "/", reset())
    await pulled("two")
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "evict"]
    await driver.aclose()
