"""Pushes beside a collection: at every call of the collector something comes in between, and nothing is lost.

`Writer` does what renewals.py asks of a registry that takes pushes.
"""

import asyncio
import fcntl
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from storage import layout
from storage.digest import Digest
from storage.driver import StorageDriver
from storage.drivers.filesystem import FilesystemDriver
from storage.drivers.memory import MemoryDriver
from storage.errors import ManifestBlobUnknown, ManifestUnknown, ObjectNotFound, Unavailable
from storage.garbage.named import named_digests
from storage.garbage.renewals import Renewals
from storage.names import RepositoryName, parse_name
from tests.api import image
from tests.storage.shelf import DAY, A, B, Shelf, age
from tests.storage.spying import Before, Record, Shuffle, Spied

BLOB = b"old, and nobody needs it yet"
DIGEST = Digest.of(BLOB)


class Writer:
    """A client and its registry: it asks with HEAD, uploads what is missing, and pushes the manifest."""

    def __init__(self, driver: StorageDriver) -> None:
        self.shelf = Shelf(driver)
        self.renewals = Renewals(driver, DAY)

    async def has(self, name: RepositoryName, digest: Digest) -> bool:
        """HEAD of a blob."""
        try:
            await self.shelf.driver.head(layout.layer_link(name, digest))
            await self.renewals.offer(await self.shelf.driver.head(layout.blob_data(digest)))
        except ObjectNotFound:
            return False
        return True

    async def push(self, name: RepositoryName, *layers: bytes, tag: str) -> Digest:
        for data in (b"{}", *layers):
            if not await self.has(name, Digest.of(data)):
                await self.shelf.blob(name, data)
        return await self.put(name, image(b"{}", layers), tag, [Digest.of(data) for data in (b"{}", *layers)])

    async def put(self, name: RepositoryName, body: bytes, tag: str, blobs: list[Digest]) -> Digest:
        """PUT of a manifest, with both looks. Raises ManifestBlobUnknown."""
        renewed = [blob for blob in blobs if await self._renew(blob)]
        digest = await self.shelf.manifest(name, body)
        for blob in renewed:
            try:
                await self.shelf.driver.head(layout.blob_data(blob))
            except ObjectNotFound as exc:
                await self.shelf.delete(name, digest)
                raise ManifestBlobUnknown([blob]) from exc
        return await self.shelf.manifest(name, body, tag)

    async def _renew(self, blob: Digest) -> bool:
        try:
            return await self.renewals.renew(await self.shelf.driver.head(layout.blob_data(blob)))
        except ObjectNotFound as exc:
            raise ManifestBlobUnknown([blob]) from exc


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
        writer = Writer(shelf.driver)
        pushed: list[Digest] = []

        async def push(verb: str, key: str, writer: Writer = writer, pushed: list[Digest] = pushed) -> None:
            pushed.append(await writer.push(A, BLOB, tag="new"))

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
            writer = Writer(shelf.driver)
            await one_push(shelf, writer, first, second)
            await shelf.content.aclose()


async def one_push(shelf: Shelf, writer: Writer, first: int, second: int) -> None:
    count, has, pushed = 0, False, False

    async def before(verb: str, key: str) -> None:
        nonlocal count, has, pushed
        count += 1
        if count == first:
            has = await writer.has(A, DIGEST)
        elif count == second and has:
            try:
                await writer.put(A, image(b"{}", (BLOB,)), "new", [DIGEST, Digest.of(b"{}")])
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


# Renewals


async def test_renewed_once_in_a_quarter_of_the_grace(shelf: Shelf) -> None:
    record = Record()
    driver = Spied(shelf.driver, record)
    renewals, key = Renewals(driver, DAY), layout.blob_data(await shelf.blob(A, b"x"))
    assert not await renewals.renew(await driver.head(key))
    age(shelf.driver, DAY / 4 - 60)
    assert not await renewals.renew(await driver.head(key))
    age(shelf.driver, 120)
    old = await driver.head(key)
    assert await renewals.renew(old)
    assert not await renewals.renew(await driver.head(key))
    assert [call for call in record.taken() if call[0] == "touch"] == [("touch", key)]
    assert (await driver.head(key)).version != old.version
    assert await driver.now() - (await driver.head(key)).modified < 60


async def test_many_at_once_are_one_touch(shelf: Shelf) -> None:
    record, begun, gate = Record(), asyncio.Event(), asyncio.Event()

    async def hold(verb: str, key: str) -> None:
        await record(verb, key)
        if verb == "touch":
            begun.set()
            await gate.wait()

    driver = Spied(shelf.driver, hold)
    renewals, key = Renewals(driver, DAY), layout.blob_data(await shelf.blob(A, b"x"))
    age(shelf.driver)
    info = await driver.head(key)
    asking = [asyncio.create_task(renewals.renew(info)) for _ in range(5)]
    await begun.wait()
    asking[0].cancel()
    gate.set()
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert answers[1:] == [True] * 4
    assert isinstance(answers[0], asyncio.CancelledError)
    assert len([call for call in record.calls if call[0] == "touch"]) == 1


async def test_what_has_gone_is_said_and_a_full_disk_spoils_no_answer(
    shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    record = Record()
    driver = Spied(shelf.driver, record)
    renewals, key = Renewals(driver, DAY), layout.blob_data(await shelf.blob(A, b"x"))
    age(shelf.driver)
    info = await driver.head(key)
    record.failing["touch", key] = Unavailable("the disk is gone")
    await renewals.offer(info)
    assert "cannot renew" in caplog.text
    with pytest.raises(Unavailable):
        await renewals.renew(info)
    record.failing.clear()
    await shelf.driver.delete(key)
    for verb in (renewals.offer, renewals.renew):
        with pytest.raises(ObjectNotFound):
            await verb(info)


async def test_without_a_grace_nothing_is_renewed(shelf: Shelf) -> None:
    key = layout.blob_data(await shelf.blob(A, b"x"))
    age(shelf.driver)
    assert not await Renewals(shelf.driver, 0.0).renew(await shelf.driver.head(key))


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


@pytest.fixture
async def memory() -> AsyncIterator[MemoryDriver]:
    driver = MemoryDriver()
    yield driver
    await driver.aclose()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
async def test_pushes_deletes_and_collections_side_by_side(memory: MemoryDriver, seed: int) -> None:
    """Turns in an order that the seed decides, a clock that jumps, and no blob of a tagged image is ever missing."""
    dice = random.Random(seed)
    driver = Spied(memory, Shuffle(seed))
    repositories = [parse_name(f"r{number}") for number in range(3)]
    layers = [b"layer %d" % number for number in range(8)]
    lost: list[str] = []

    pushing = 0

    async def client() -> None:
        nonlocal pushing
        writer = Writer(driver)
        for _ in range(25):
            name, tag = dice.choice(repositories), f"t{dice.randrange(2)}"
            pushing += 1
            try:
                if dice.random() < 0.5:
                    await writer.shelf.untag(name, tag)
                else:
                    await writer.push(name, *dice.sample(layers, 2), tag=tag)
            except (ManifestBlobUnknown, ManifestUnknown):
                pass  # told to push again; no such tag
            pushing -= 1
            if not pushing:  # no push takes longer than the grace, a collection may
                age(memory, dice.choice((DAY / 3, 2 * DAY)))

    async def collector() -> None:
        for _ in range(15):
            await Shelf(driver).collect(untagged=True)
            await whole(Shelf(memory), repositories, lost)

    await asyncio.gather(client(), client(), client(), collector())
    await Shelf(driver).collect(untagged=True)
    await whole(Shelf(memory), repositories, lost)
    assert lost == []


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
