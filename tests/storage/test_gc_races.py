"""Pushes beside a collection: at every call of the collector something comes in between, and nothing is lost.

Clients push through the whole repository. What it does for them says renewals.py, and test_renewals.py shows it.
"""

import asyncio
import fcntl
import math
import os
import random
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from storage import layout
from storage.content import ContentStore
from storage.digest import Digest
from storage.driver import Stage, StorageDriver, Tap
from storage.drivers.filesystem import FilesystemDriver
from storage.drivers.memory import MemoryDriver
from storage.errors import BlobUnknown, ManifestBlobUnknown, ManifestUnknown, ObjectNotFound
from storage.garbage.named import named_digests
from storage.names import RepositoryName, parse_name
from tests.api import image
from tests.storage.shelf import DAY, A, B, Shelf, age
from tests.storage.spying import Before, Shuffle, Spied

BLOB = b"old, and nobody needs it yet"
DIGEST = Digest.of(BLOB)


class Client:
    """It asks with HEAD, uploads what is missing, and pushes the manifest."""

    def __init__(self, driver: StorageDriver) -> None:
        self.shelf = Shelf(driver)

    async def has(self, name: RepositoryName, data: bytes) -> bool:
        """HEAD of a blob."""
        try:
            await self.shelf.content.repository(name).stat_blob(Digest.of(data))
        except BlobUnknown:
            return False
        return True

    async def push(self, name: RepositoryName, *layers: bytes, tag: str) -> Digest:
        """Raises ManifestBlobUnknown."""
        for data in (b"{}", *layers):
            if not await self.has(name, data):
                await self.shelf.blob(name, data)
        return await self.shelf.manifest(name, image(b"{}", layers), tag)


@pytest.fixture
def shelf(backing: StorageDriver) -> Shelf:
    return Shelf(backing)


async def beside(shelf: Shelf, call: int, work: Before) -> bool:
    """Collect; before the given call of the collector, work is done. Was there such a call?"""
    count = 0

    async def before(verb: str, key: str) -> None:
        nonlocal count
        count += 1
        if count == call:
            await work(verb, key)

    await Shelf(Spied(shelf.driver, before)).collect(untagged=True)
    return count >= call


async def old_store(shelf: Shelf) -> None:
    await shelf.image(B, b"alive", tag="t")
    await shelf.blob(A, BLOB)
    await shelf.blob(A, b"{}")
    age(shelf.driver)


@pytest.mark.slow
async def test_a_push_that_skips_an_old_blob_in_the_middle_of_a_collection() -> None:
    """Wherever it falls, the push succeeds or is told what is missing; what it made can be pulled whole."""
    call = 1
    while True:
        shelf = Shelf(MemoryDriver())
        await old_store(shelf)
        client = Client(shelf.driver)
        pushed: list[Digest] = []

        async def push(verb: str, key: str, client: Client = client, pushed: list[Digest] = pushed) -> None:
            pushed.append(await client.push(A, BLOB, tag="new"))

        if not await beside(shelf, call, push):
            break
        assert await shelf.pulls(A, pushed[0])
        assert await shelf.has(A, BLOB)
        assert await shelf.has(A, b"{}")
        call += 1
        await shelf.content.aclose()
    assert call > 20


@pytest.mark.slow
async def test_each_half_of_a_push_in_another_moment() -> None:
    """HEAD at one call, the manifest at a later one."""
    for first in range(1, 40, 3):
        for second in range(first + 1, 40, 4):
            shelf = Shelf(MemoryDriver())
            await old_store(shelf)
            await one_push(shelf, Client(shelf.driver), first, second)
            await shelf.content.aclose()


async def one_push(shelf: Shelf, client: Client, first: int, second: int) -> None:
    count, has, pushed = 0, False, False

    async def before(verb: str, key: str) -> None:
        nonlocal count, has, pushed
        count += 1
        if count == first:
            has = await client.has(A, BLOB) and await client.has(A, b"{}")
        elif count == second and has:
            try:
                await client.shelf.manifest(A, image(b"{}", (BLOB,)), "new")
            except ManifestBlobUnknown:
                return
            pushed = True

    await Shelf(Spied(shelf.driver, before)).collect(untagged=True)
    if pushed:
        assert await shelf.has(A, BLOB)
        assert await shelf.has(A, b"{}")


async def test_a_touch_between_look_and_delete_keeps_the_blob(shelf: Shelf) -> None:
    await old_store(shelf)
    key = layout.blob_data(DIGEST)

    async def touch(verb: str, at: str) -> None:
        if (verb, at) == ("delete", key):
            await shelf.driver.touch(key)

    await Shelf(Spied(shelf.driver, touch)).collect()
    assert await shelf.has(A, BLOB)


async def test_a_manifest_that_came_since_the_mark_keeps_its_blobs(shelf: Shelf) -> None:
    """Also from a writer that renews nothing, such as distribution."""
    await old_store(shelf)
    await shelf.blob(B, b"dead")
    age(shelf.driver)
    listings = 0

    async def at_sweep(verb: str, key: str) -> None:
        nonlocal listings
        if verb == "list_objects" and key == layout.BLOBS:
            listings += 1
            if listings == 2:
                body = image(b"{}", (BLOB,))
                digest = Digest.of(body)
                await shelf.driver.put(layout.blob_data(digest), body)
                await shelf.driver.put(layout.revision_link(A, digest), str(digest).encode())

    done = await Shelf(Spied(shelf.driver, at_sweep)).collect()
    assert done.swept == 1
    assert await shelf.has(A, BLOB)


async def test_a_manifest_that_is_tagged_before_its_delete_stays(shelf: Shelf) -> None:
    untagged = await shelf.image(A, b"layer")
    body = (await shelf.content.repository(A).get_manifest(untagged)).body
    age(shelf.driver)

    async def tag(verb: str, key: str) -> None:
        if (verb, key) == ("delete", layout.revision_link(A, untagged)):
            await shelf.manifest(A, body, "t")

    done = await Shelf(Spied(shelf.driver, tag)).collect(untagged=True)
    assert (done.removed, done.swept) == (0, 0)
    assert await shelf.pulls(A, untagged)
    assert await shelf.has(A, b"layer")


async def test_a_manifest_that_is_tagged_after_the_mark_stays(shelf: Shelf) -> None:
    untagged = await shelf.image(A, b"layer")
    age(shelf.driver)
    seen = 0

    async def tag(verb: str, key: str) -> None:
        nonlocal seen
        if (verb, key) == ("list_folders", layout.tags(A)):
            seen += 1
            if seen == 2:
                await shelf.driver.put(f"{layout.tags(A)}/t/current/link", str(untagged).encode())

    assert (await Shelf(Spied(shelf.driver, tag)).collect(untagged=True)).swept == 0
    assert await shelf.has(A, b"layer")


async def test_a_link_that_is_written_before_its_removal_stays(shelf: Shelf) -> None:
    await old_store(shelf)
    link = layout.layer_link(A, DIGEST)

    async def push(verb: str, key: str) -> None:
        if (verb, key) == ("delete", link):
            await shelf.blob(A, BLOB)

    await Shelf(Spied(shelf.driver, push)).collect()
    assert await shelf.has(A, BLOB)


async def test_a_touch_waits_for_a_delete_by_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it could fall between the look at the version and the removal, and the writer believe in it."""
    driver = FilesystemDriver(tmp_path, scratch=layout.SCRATCH)
    await driver.put("a/b", b"x")
    locked, utime = [], os.utime

    def spied(path: str) -> None:
        fd = os.open(tmp_path / "a", os.O_RDONLY)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            locked.append(path)
        finally:
            os.close(fd)
        utime(path)

    monkeypatch.setattr(os, "utime", spied)
    await driver.touch("a/b")
    assert locked == [str(tmp_path / "a/b")]
    await driver.aclose()


# Everything at once


class Clocked(MemoryDriver):
    """A store whose clock is set by hand, and gives its times to what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = 1e9

    async def now(self) -> float:
        return self.clock

    async def touch(self, key: str) -> None:
        await super().touch(key)
        self._objects[key].modified = self.clock

    async def append(self, stage: Stage, offset: int, chunks: AsyncIterator[bytes], tap: Tap | None = None) -> int:
        """Hashes without a thread, whose time would decide over turns."""

        async def tapped() -> AsyncIterator[bytes]:
            async for chunk in chunks:
                if tap is not None:
                    tap(chunk)
                yield chunk

        return await super().append(stage, offset, tapped())

    def _store(self, key: str, data: bytes, note: str = "") -> str:
        version = super()._store(key, data, note)
        self._objects[key].modified = self.clock
        return version


class Town:
    """Clients that push and untag, and a collector, in turns that the seed decides, while the clock jumps by hours.

    No push takes longer than 3/4 of the grace: that is what operators are asked for. grace: of the clients' registry.
    """

    def __init__(self, seed: int, grace: float) -> None:
        self.store = Clocked()
        self.driver = Spied(self.store, self.before)
        self.grace = grace
        self.dice = random.Random(seed)
        self.turns = Shuffle(seed)
        self.repositories = [parse_name(f"r{number}") for number in range(3)]
        self.layers = [b"layer %d" % number for number in range(30)]
        self.clients = 3
        self.begun: dict[str, float] = {}
        self.lost: list[str] = []
        self.pushed = self.collected = 0

    async def before(self, verb: str, key: str) -> None:
        for _ in range(60 if verb == "put" and "/revisions/" in key else 1):
            await self.turns(verb, key)  # mostly between the check of a manifest and its revision
        if self.dice.random() < 0.03:
            room = min(self.begun.values(), default=math.inf) + 0.7 * DAY - self.store.clock
            self.store.clock += min(self.dice.choice((DAY / 10, DAY / 3, 2 * DAY)), room)

    async def run(self) -> None:
        try:
            await asyncio.gather(*(self.client(str(number)) for number in range(self.clients)), self.collector())
        finally:
            await self.store.aclose()

    async def client(self, who: str) -> None:
        client = Client(self.driver)
        client.shelf.content = ContentStore(self.driver, grace=self.grace)
        client.shelf.content.renewals.clock = lambda: self.store.clock
        for _ in range(20):
            name, tag = self.dice.choice(self.repositories), f"t{self.dice.randrange(2)}"
            with suppress(ManifestBlobUnknown, ManifestUnknown):  # told to push again; no such tag
                if self.dice.random() < 0.3:
                    await client.shelf.untag(name, tag)
                    continue
                if self.dice.random() < 0.5:  # a push that is given up
                    for layer in self.dice.sample(self.layers, 8):
                        await client.shelf.blob(name, layer)
                    continue
                self.begun[who] = self.store.clock
                try:
                    await client.push(name, *self.dice.sample(self.layers, 4), tag=tag)
                finally:
                    del self.begun[who]
                self.pushed += 1
        self.clients -= 1

    async def collector(self) -> None:
        while self.clients:
            for _ in range(self.dice.randrange(1500)):  # garbage gathers
                await asyncio.sleep(0)
            await self.collect()
        await self.collect()

    async def collect(self) -> None:
        self.collected += (await Shelf(self.driver).collect(untagged=True)).swept
        await whole(Shelf(self.store), self.repositories, self.lost)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
async def test_pushes_deletes_and_collections_side_by_side(seed: int) -> None:
    """No blob of a tagged image is ever missing."""
    town = Town(seed, DAY)
    await town.run()
    assert town.lost == []
    assert town.pushed > 10
    assert town.collected > 10


@pytest.mark.slow
async def test_side_by_side_without_renewals_loses() -> None:
    """So the test above looks where it matters."""
    for seed in range(12):
        town = Town(seed, 0.0)
        await town.run()
        if town.lost:
            return
    pytest.fail("no image has lost a blob")


async def whole(shelf: Shelf, repositories: list[RepositoryName], lost: list[str]) -> None:
    """Everything that a tag names can be pulled; tags may go meanwhile."""
    for name in repositories:
        for tag in await shelf.driver.list_folders(layout.tags(name), containing=layout.CURRENT_LINK):
            try:
                digest = Digest.parse((await shelf.driver.read(f"{layout.tags(name)}/{tag}/current/link")).decode())
                for named in (digest, *named_digests(await shelf.driver.read(layout.blob_data(digest)))):
                    await shelf.driver.head(layout.blob_data(named))
            except ObjectNotFound as exc:
                if tag in await shelf.driver.list_folders(layout.tags(name), containing=layout.CURRENT_LINK):
                    lost.append(f"{name}:{tag} {exc.key}")
