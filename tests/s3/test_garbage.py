"""The collector and the doctor on a store of objects, seeded with what each is there for."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from typing import Self

import pytest

from storage import layout
from storage.digest import Digest
from storage.doctor.findings import Kind
from storage.driver import ObjectInfo, StorageDriver
from storage.drivers.s3.driver import S3Driver
from storage.drivers.s3.rest import RestBucket
from storage.drivers.s3.settings import S3Settings
from storage.errors import ManifestBlobUnknown, Unavailable
from storage.garbage.collect import Collected
from storage.garbage.manifests import UnreadableManifest
from storage.garbage.watch import Watcher
from storage.purge import Purged, purge_uploads
from tests.api import image, in_pieces
from tests.s3.calls import READS
from tests.s3.registries import QUICK
from tests.s3.relay import FOREVER, Fault, Relay, denied, no_bucket
from tests.s3.servers import S3Server
from tests.storage.shelf import DAY, A, B, Shelf, Told
from tests.storage.spying import Before, Record, Shuffle, Spied
from tests.storage.test_doctor import blob_damaged, blob_empty, healthy, kinds, lives, look
from tests.storage.test_gc_races import Client

pytestmark = pytest.mark.slow

LAYER = b"a layer that two images share"


@pytest.fixture
async def place(seaweedfs: S3Server) -> AsyncIterator[tuple[str, str, StorageDriver]]:
    """Bucket, folder, and a driver for it."""
    bucket, root = seaweedfs.new_root()
    settings = S3Settings.parse(seaweedfs.parameters(bucket, root))
    driver = S3Driver(settings, RestBucket(settings))
    yield bucket, root, driver
    await driver.aclose()


def open_uploads(server: S3Server, bucket: str, root: str) -> list[str]:
    return [key for key in server.open_uploads(bucket) if key.startswith(f"{root}/")]


async def test_a_collection(place: tuple[str, str, StorageDriver], seaweedfs: S3Server) -> None:
    bucket, root, driver = place
    shelf = Shelf(driver)
    kept = await shelf.image(A, LAYER, tag="t")
    index = await shelf.index(A, await shelf.image(A, b"of an index"), tag="all")
    untagged = await shelf.image(B, LAYER, b"of nobody")
    dead = await shelf.blob(B, b"never in a manifest")
    repository = shelf.content.repository(B)
    await repository.append_upload(await repository.start_upload(), in_pieces(b"12345"))
    assert open_uploads(seaweedfs, bucket, root)

    done = await shelf.collect(untagged=True, purge=DAY)
    assert (done.removed, done.swept, done.uploads) == (0, 0, Purged(0, 0)), "all is young"
    done = await shelf.collect(untagged=True, purge=0.0, grace=0.0)
    assert (done.removed, done.swept, done.uploads) == (1, 3, Purged(1, 5))
    left = await shelf.digests()
    assert not left & {dead, untagged, Digest.of(b"of nobody")}
    assert [await shelf.pulls(A, digest) for digest in (kept, index)] == [True, True]
    assert [await shelf.has(A, data) for data in (LAYER, b"of an index", b"{}")] == [True] * 3
    assert await shelf.keys(layout.uploads(B)) == set()
    assert open_uploads(seaweedfs, bucket, root) == []


async def test_what_a_crash_left_of_a_large_blob(place: tuple[str, str, StorageDriver], seaweedfs: S3Server) -> None:
    """F14: killed in the middle of a write straight to the blob's key."""
    bucket, root, driver = place
    shelf, client = Shelf(driver), seaweedfs.client()
    kept = await shelf.image(A, LAYER, tag="t")
    key = f"{root}/{layout.blob_data(Digest.of(b'a large blob'))}"
    id = client.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
    client.upload_part(Bucket=bucket, Key=key, UploadId=id, PartNumber=1, Body=b"a large")
    elsewhere = {"Bucket": bucket, "Key": f"elsewhere-{key}"}
    not_ours = client.create_multipart_upload(**elsewhere)["UploadId"]

    assert await purge_uploads(shelf.content, DAY) == Purged(0, 0)
    assert await purge_uploads(shelf.content, -DAY, dry_run=True) == Purged(1, 7)
    assert open_uploads(seaweedfs, bucket, root) == [key]
    assert await purge_uploads(shelf.content, -DAY) == Purged(1, 7)
    assert open_uploads(seaweedfs, bucket, root) == []
    client.abort_multipart_upload(**elsewhere, UploadId=not_ours)  # is there still
    assert await shelf.pulls(A, kept)


class Later(Spied):
    """A month after everything was written."""

    async def now(self) -> float:
        return await super().now() + 30 * DAY


async def test_a_push_of_old_blobs_renews_them(place: tuple[str, str, StorageDriver]) -> None:
    """The copies onto themselves, and the second look."""
    driver, record = place[2], Record()
    shelf, later = Shelf(driver), Shelf(Later(driver, record))
    digest = await shelf.blob(A, LAYER)
    await shelf.blob(A, b"{}")
    key = layout.blob_data(digest)
    assert await later.content.repository(A).stat_blob(digest) == len(LAYER)
    assert [verb for verb, at in record.taken() if at == key] == ["head", "touch"]
    manifest = await later.manifest(A, image(b"{}", (LAYER,)), "t")
    assert [verb for verb, at in record.taken() if at == key] == ["head", "touch", "head"]
    assert await shelf.pulls(A, manifest)
    assert await shelf.has(A, LAYER)


# Collections beside pushes, beside each other, and beside faults (F22 to F24), with a way to the store that fails


class Aged(Spied):
    """What is among `old` was written a month ago, until somebody writes it again; all that look share the set."""

    def __init__(self, inner: StorageDriver, before: Before, old: set[str]) -> None:
        super().__init__(inner, before)
        self._old = old

    def _as_old(self, info: ObjectInfo) -> ObjectInfo:
        return replace(info, modified=info.modified - 30 * DAY) if info.key in self._old else info

    async def head(self, key: str) -> ObjectInfo:
        return self._as_old(await super().head(key))

    async def list_objects(self, prefix: str, after: str = "") -> AsyncIterator[ObjectInfo]:
        async for info in super().list_objects(prefix, after):
            yield self._as_old(info)

    async def put(
        self, key: str, data: bytes, *, if_absent: bool = False, if_version: str | None = None, private: bool = False
    ) -> str:
        version = await super().put(key, data, if_absent=if_absent, if_version=if_version, private=private)
        self._old.discard(key)
        return version

    async def put_noted(self, key: str, data: bytes, note: str) -> None:
        await super().put_noted(key, data, note)
        self._old.discard(key)

    async def move(self, source: str, target: str, size: int) -> None:
        await super().move(source, target, size)
        self._old.discard(target)

    async def touch(self, key: str) -> None:
        await super().touch(key)
        self._old.discard(key)


class Scene:
    """A store with one image that lives, blobs that are old and nobody needs, and an old upload; and a relay to it.

    pusher: pushes as a client does, beside what collect() does.
    """

    def __init__(self, server: S3Server, relay: Relay) -> None:
        bucket, root = server.new_root()
        self.settings = S3Settings.parse(server.parameters(bucket, root, endpoint=relay.endpoint))
        self.relay = relay
        self.old: set[str] = set()
        self._drivers: list[StorageDriver] = []

    async def __aenter__(self) -> Self:
        self.pusher = Client(self.driver(Record()))
        shelf = self.pusher.shelf
        self.alive = await shelf.image(B, LAYER, tag="t")
        for data in (BLOB, b"{}", b"dead"):
            await shelf.blob(A, data)
        self.old |= await shelf.keys()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.relay.clear()
        assert await self.pusher.shelf.pulls(B, self.alive)
        assert await self.pusher.shelf.has(B, LAYER)
        for driver in self._drivers:
            await driver.aclose()

    def driver(self, before: Before) -> StorageDriver:
        """Another process's."""
        driver = S3Driver(self.settings, RestBucket(self.settings, retries=QUICK))
        self._drivers.append(driver)
        return Aged(driver, before, self.old)

    async def collect(self, before: Before, watcher: Watcher | None = None) -> Collected:
        return await Shelf(self.driver(before)).collect(untagged=True, watcher=watcher)

    async def has_pushed(self) -> bool:
        """HEAD of the blobs, and a manifest that needs them. False: the pusher was told that one is missing."""
        try:
            await self.pusher.shelf.manifest(A, image(b"{}", (BLOB,)), "new")
        except ManifestBlobUnknown:
            return False
        return True


BLOB = b"old, and nobody needs it yet"
STEP = 1 if os.environ.get("MOORAGE_SWEEP") == "all" else 4


async def test_f22_a_push_of_what_is_being_collected(seaweedfs: S3Server) -> None:
    """HEAD at one call of the collector, the manifest three calls later; both at every call, one after the other."""
    async with Relay(seaweedfs.endpoint) as relay:
        call, refused, pushed = 1, 0, 0
        while True:
            async with Scene(seaweedfs, relay) as scene:
                beside = Beside(scene, call)
                await scene.collect(beside)
                if beside.count < call:
                    break
                if beside.pushed is None:  # it ended before the manifest came
                    beside.pushed = beside.here and await scene.has_pushed()
                pushed, refused = pushed + beside.pushed, refused + (not beside.pushed)
                shelf = scene.pusher.shelf
                if beside.pushed:
                    assert [await shelf.has(A, data) for data in (BLOB, b"{}")] == [True, True], call
                    assert await shelf.pulls(A, Digest.of(image(b"{}", (BLOB,)))), call
                assert not await shelf.has(A, b"dead"), call
            call += STEP
    assert call > 20
    assert pushed
    assert refused


class Beside:
    """A `before` of the collector: at a call of it a pusher asks for the blobs, three calls later it pushes."""

    def __init__(self, scene: Scene, call: int) -> None:
        self._scene, self._call = scene, call
        self.count = 0
        self.here = False
        self.pushed: bool | None = None

    async def __call__(self, verb: str, key: str) -> None:
        self.count += 1
        if self.count == self._call:
            self.here = all([await self._scene.pusher.has(A, data) for data in (BLOB, b"{}")])
        elif self.count == self._call + 3:
            self.pushed = self.here and await self._scene.has_pushed()


OUTAGES = {
    "error": Fault("answer", times=FOREVER, status=500, code="InternalError"),
    "denied": denied(times=FOREVER),
    "broken": Fault("broken", times=FOREVER),
    "no-bucket": replace(no_bucket(times=FOREVER), where=lambda call: call.method != "HEAD"),
    "blip": Fault("reset-after"),
}


@pytest.mark.parametrize("name", OUTAGES)
async def test_f23_a_fault_at_every_call_of_a_collection(seaweedfs: S3Server, name: str) -> None:
    """While it lists and marks, a fault ends it with nothing deleted; behind that it has deleted garbage alone."""
    async with Relay(seaweedfs.endpoint) as relay:
        call = 1
        while True:
            async with Scene(seaweedfs, relay) as scene:
                fault, told = relay.inject(replace(OUTAGES[name], call=call)), Told()
                with relay.counting() as calls, suppress(Unavailable):
                    await scene.collect(Record(), told)
                if not fault.fired:
                    break
                if "sweeping" not in told.phases:
                    assert not [found for found in calls if found.operation not in READS], call
                relay.clear()
                await scene.collect(Record())
                assert not await scene.pusher.shelf.has(A, b"dead"), call
            call += STEP
    assert call > 20


@pytest.mark.parametrize("body", [b"", b"{", b'{"schemaVersion": 2, "layers": 1}'])
async def test_f23_a_manifest_that_cannot_be_read(seaweedfs: S3Server, body: bytes) -> None:
    async with Relay(seaweedfs.endpoint) as relay, Scene(seaweedfs, relay) as scene:
        shelf = scene.pusher.shelf
        broken = await shelf.image(A, b"of a broken image", tag="broken")
        await shelf.driver.put(layout.blob_data(broken), body)
        scene.old |= await shelf.keys()
        with relay.counting() as calls, pytest.raises(UnreadableManifest):
            await scene.collect(Record())
        assert {found.operation for found in calls} <= READS


async def test_f24_two_collections_at_once_beside_a_push(seaweedfs: S3Server) -> None:
    """No lease keeps them apart: both may run. In some of the runs one of them ends early, as by a fault."""
    async with Relay(seaweedfs.endpoint) as relay:
        for seed in range(6):
            async with Scene(seaweedfs, relay) as scene:
                if seed % 2:
                    relay.inject(Fault("answer", 40 + 10 * seed, times=3, status=500, code="InternalError"))

                async def push(scene: Scene = scene) -> bool:
                    return await scene.pusher.has(A, BLOB) and await scene.has_pushed()

                done = await asyncio.gather(
                    *(scene.collect(Shuffle(seed + n)) for n in range(2)), push(), return_exceptions=True
                )
                for failure in done:
                    assert not isinstance(failure, BaseException) or isinstance(failure, Unavailable)
                relay.clear()
                await scene.collect(Record())
                if done[-1] is True:
                    assert [await scene.pusher.shelf.has(A, data) for data in (BLOB, b"{}")] == [True, True], seed
                assert not await scene.pusher.shelf.has(A, b"dead"), seed


async def test_the_doctor(place: tuple[str, str, StorageDriver]) -> None:
    shelf = Shelf(place[2])
    made = await healthy(shelf)
    assert (await look(shelf, deep=True)).findings == []
    await blob_empty(shelf)
    await blob_damaged(shelf)
    examined = await look(shelf, deep=True, fix=True)
    assert set(kinds(examined)) == {Kind.BLOB_DAMAGED, Kind.BLOB_EMPTY, Kind.PART_SIZE}
    await lives(shelf, made)
    for data in (b"0123456789", b"will be empty"):
        assert not await shelf.has(A, data)
        await shelf.blob(A, data)
    assert (await look(shelf, deep=True)).findings == []
