"""Pulling where calls are dear: how many there are, what is believed and for how long, and what never is."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from storage import layout
from storage.content import ContentStore
from storage.digest import Digest
from storage.drivers.memory import MemoryDriver, MemoryReader
from storage.enclosed import enclose
from storage.errors import BlobUnknown, ManifestUnknown, RangeNotSatisfiable, Unavailable
from storage.links import write_link, write_noted_link
from storage.local import LocalRepository
from storage.manifest import IMAGE_INDEX, IMAGE_MANIFEST
from storage.names import parse_tag
from storage.ranges import RangeRequest
from storage.rules import ManifestRules
from storage.thrift import Thrift
from tests.api import IMAGE, descriptor, image, index
from tests.storage.spying import NAME, OTHER, Counted, DearMemory, DearWithUrls, Record, push_blob, read_blob
from tests.storage.test_linkcache import Clock

CONFIG, LAYERS = b"{}", (b"layer one", b"layer two", b"layer three")
LAYER = Digest.of(LAYERS[0])
MANIFEST = image(CONFIG, LAYERS)
DIGEST = Digest.of(MANIFEST)
V1 = parse_tag("v1")
REPLICA = Thrift(linkttl=60.0, read_only=True)
WRITER = Thrift(deletes=False)


class Replica:
    """A registry of its own over a store: repositories, calls and clock."""

    def __init__(self, backing: MemoryDriver, thrift: Thrift = REPLICA, *, sparse: bool = False) -> None:
        self.record, self.clock = Record(), Clock()
        self.content = ContentStore(Counted(backing, self.record), rules=ManifestRules(sparse=sparse), thrift=thrift)
        self.content._links.clock = self.clock
        self.repository: LocalRepository = self.content.repository(NAME)

    def calls(self) -> int:
        return len(self.record.taken())


@pytest.fixture(params=[DearMemory, DearWithUrls])
async def backing(request: pytest.FixtureRequest) -> AsyncIterator[MemoryDriver]:
    """A store with one image, tagged v1, whose drivers have calls that are dear."""
    driver: MemoryDriver = request.param()
    await push(ContentStore(driver).repository(NAME))
    yield driver
    await driver.aclose()


async def push(repository: LocalRepository) -> None:
    for data in (CONFIG, *LAYERS):
        await push_blob(repository, data)
    await repository.put_manifest(V1, IMAGE_MANIFEST, MANIFEST)


async def pull_blobs(repository: LocalRepository) -> None:
    """As a handler does: to the store, where it says where that is."""
    for data in (CONFIG, *LAYERS):
        digest = Digest.of(data)
        if await repository.blob_url(digest, "GET") is None:
            assert await read_blob(repository, digest) == data


# How many


async def test_calls_of_a_pull(backing: MemoryDriver) -> None:
    """HEAD by tag, GET by digest, config and layers: as docker and containerd pull."""
    replica = Replica(backing)
    await replica.repository.get_manifest(V1)
    assert (await replica.repository.get_manifest(DIGEST)).body == MANIFEST
    assert replica.calls() == 2
    for _ in range(2):
        await pull_blobs(replica.repository)
        assert replica.calls() == (0 if backing.offers_urls else 1 + len(LAYERS))
    await replica.repository.get_manifest(V1)
    assert replica.calls() == 1, "warm by tag: the tag"
    await replica.repository.get_manifest(DIGEST)
    assert replica.calls() == 0, "warm by digest"


async def test_calls_of_a_cold_manifest_by_digest(backing: MemoryDriver) -> None:
    replica = Replica(backing)
    assert (await replica.repository.get_manifest(DIGEST)).media_type == IMAGE_MANIFEST
    assert replica.calls() == 1
    await pull_blobs(replica.repository)
    assert replica.calls() == (0 if backing.offers_urls else 1 + len(LAYERS))


async def test_calls_of_an_index(backing: MemoryDriver) -> None:
    """It does not vouch for its children (vouch.py): their links are read, which enclose them (enclosed.py)."""
    await ContentStore(backing).repository(NAME).put_manifest(V1, IMAGE_INDEX, index(descriptor(MANIFEST, IMAGE)))
    replica = Replica(backing)
    await replica.repository.get_manifest(V1)
    assert (await replica.repository.get_manifest(DIGEST)).body == MANIFEST
    assert replica.calls() == 3


async def test_calls_of_manifests_that_distribution_has_pushed(backing: MemoryDriver) -> None:
    """Their links enclose nothing: the first is found so, and after it the bytes are asked for beside the link."""
    bodies = [image(CONFIG, LAYERS[:count]) for count in range(3)]
    for body in bodies:
        await ContentStore(backing).repository(NAME).put_manifest(Digest.of(body), IMAGE_MANIFEST, body)
        await write_link(backing, layout.revision_link(NAME, Digest.of(body)), Digest.of(body))
    replica = Replica(backing)
    for body in bodies:
        assert (await replica.repository.get_manifest(Digest.of(body))).body == body
        assert replica.calls() == 2
        assert not replica.content._links.enclosing
    await replica.repository.get_manifest(DIGEST)
    assert replica.calls() == 2, "asked for in vain"
    assert replica.content._links.enclosing


@pytest.mark.parametrize("note", [enclose(image(CONFIG, ())), "junk"])
async def test_a_link_that_encloses_something_else_is_a_link(backing: MemoryDriver, note: str) -> None:
    await write_noted_link(backing, layout.revision_link(NAME, DIGEST), DIGEST, note)
    assert (await Replica(backing).repository.get_manifest(DIGEST)).body == MANIFEST


async def test_only_a_replica_gives_what_is_enclosed_while_the_bytes_are_lost(backing: MemoryDriver) -> None:
    """Whoever pushes, or fetches from an upstream, is told, and heals them."""
    await backing.delete(layout.blob_data(DIGEST))
    assert (await Replica(backing).repository.get_manifest(DIGEST)).body == MANIFEST
    writer = ContentStore(backing).repository(NAME)
    with pytest.raises(ManifestUnknown):
        await writer.get_manifest(DIGEST)
    await writer.put_manifest(V1, IMAGE_MANIFEST, MANIFEST)
    assert (await writer.get_manifest(DIGEST)).body == MANIFEST


async def test_a_deleted_manifest_is_not_served_from_its_link(backing: MemoryDriver) -> None:
    await ContentStore(backing).repository(NAME).delete_manifest(DIGEST)
    with pytest.raises(ManifestUnknown):
        await Replica(backing).repository.get_manifest(DIGEST)


async def test_calls_of_a_cold_blob(backing: MemoryDriver) -> None:
    replica = Replica(backing)
    for expected in (2, 0 if backing.offers_urls else 1):
        if await replica.repository.blob_url(LAYER, "GET") is None:
            await read_blob(replica.repository, LAYER)
        assert replica.calls() == expected


async def test_calls_of_a_size(backing: MemoryDriver) -> None:
    replica = Replica(backing)
    for expected in (2, 0):
        assert await replica.repository.stat_blob(LAYER) == len(LAYERS[0])
        assert replica.calls() == expected
    writer = Replica(backing, Thrift(linkttl=60.0))
    for _ in range(2):
        assert await writer.repository.stat_blob(LAYER) == len(LAYERS[0])
        assert writer.calls() == 2
        with pytest.raises(BlobUnknown):
            await writer.repository.stat_blob(Digest.of(b"nowhere"))
        assert writer.calls() == 1, "a push asks for what is mostly not there"


async def test_a_writer_believes_nothing_by_default(backing: MemoryDriver) -> None:
    writer = Replica(backing, WRITER)
    await writer.repository.get_manifest(V1)
    assert writer.calls() == 2
    for _ in range(2):
        await pull_blobs(writer.repository)
        assert writer.calls() == 2 * (1 + len(LAYERS))
        await writer.repository.get_manifest(DIGEST)
        assert writer.calls() == 1
        await writer.repository.get_manifest(V1)
        assert writer.calls() == 1


class Together:
    """A `before` under which nobody gets on until two calls wait."""

    def __init__(self) -> None:
        self._barrier = asyncio.Barrier(2)

    async def __call__(self, verb: str, key: str) -> None:
        async with asyncio.timeout(5):
            await self._barrier.wait()


@pytest.mark.parametrize("thrift", [REPLICA, WRITER], ids=["replica", "writer"])
async def test_what_gates_and_what_is_gated_are_asked_at_once(backing: MemoryDriver, thrift: Thrift) -> None:
    def repository() -> LocalRepository:
        content = ContentStore(Counted(backing, Together()), thrift=thrift)
        content._links.enclosing = False
        return content.repository(NAME)

    await repository().get_manifest(DIGEST)
    assert await read_blob(repository(), LAYER) == LAYERS[0]
    await repository().blob_url(LAYER, "GET")


# What is believed, and what is not


async def test_no_longer_than_the_link_may_be_believed(backing: MemoryDriver) -> None:
    replica = Replica(backing)
    await replica.repository.get_manifest(V1)
    replica.clock.now += 59
    await replica.repository.get_manifest(DIGEST)
    assert replica.calls() == 2
    replica.clock.now += 2
    await pull_blobs(replica.repository)
    assert replica.calls() == 2 * (1 + len(LAYERS)), "served by what was known, it vouches from when that was read"
    await replica.repository.get_manifest(DIGEST)
    assert replica.calls() == 1


async def test_what_another_process_deletes_is_gone_when_the_time_is_over(backing: MemoryDriver) -> None:
    replica = Replica(backing)
    await replica.repository.get_manifest(V1)
    writer = ContentStore(backing).repository(NAME)
    await writer.delete_blob(LAYER)
    await writer.delete_manifest(DIGEST)
    with pytest.raises(ManifestUnknown):
        await replica.repository.get_manifest(V1)
    assert (await replica.repository.get_manifest(DIGEST)).body == MANIFEST
    assert await read_blob(replica.repository, LAYER) == LAYERS[0]
    replica.clock.now += 60
    with pytest.raises(ManifestUnknown):
        await replica.repository.get_manifest(DIGEST)
    for call in (replica.repository.open_blob(LAYER), replica.repository.stat_blob(LAYER)):
        with pytest.raises(BlobUnknown):
            await call


async def test_what_this_process_deletes_is_gone_at_once(backing: MemoryDriver) -> None:
    """Though the manifest that names it is still served, and would vouch for it."""
    writer = Replica(backing, Thrift(linkttl=60.0))
    await writer.repository.get_manifest(V1)
    await writer.repository.delete_blob(LAYER)
    for _ in range(2):
        with pytest.raises(BlobUnknown):
            await writer.repository.open_blob(LAYER)
        if backing.offers_urls:
            with pytest.raises(BlobUnknown):
                await writer.repository.blob_url(LAYER, "GET")
        await writer.repository.get_manifest(V1)
    await writer.repository.delete_manifest(DIGEST)
    with pytest.raises(ManifestUnknown):
        await writer.repository.get_manifest(DIGEST)


async def test_a_tag_is_seen_at_once_by_every_replica(backing: MemoryDriver) -> None:
    replica = Replica(backing)
    await replica.repository.get_manifest(V1)
    newer = image(CONFIG, LAYERS[:1])
    await ContentStore(backing).repository(NAME).put_manifest(V1, IMAGE_MANIFEST, newer)
    assert (await replica.repository.get_manifest(V1)).body == newer


async def test_a_pusher_is_told_what_is_in_the_store_now(backing: MemoryDriver) -> None:
    writer = Replica(backing, Thrift(linkttl=60.0, deletes=False))
    await writer.repository.get_manifest(V1)
    await pull_blobs(writer.repository)
    elsewhere = ContentStore(backing).repository(NAME)
    await elsewhere.delete_blob(LAYER)
    with pytest.raises(BlobUnknown):
        await writer.repository.stat_blob(LAYER)
    if backing.offers_urls:
        with pytest.raises(BlobUnknown):
            await writer.repository.blob_url(LAYER, "HEAD")


async def test_bytes_that_a_collector_took_are_unknown_and_asked_for_again(backing: MemoryDriver) -> None:
    replica = Replica(backing)
    await replica.repository.get_manifest(V1)
    await backing.delete(layout.blob_data(LAYER))
    with pytest.raises(BlobUnknown):
        await replica.repository.open_blob(LAYER)
    await push_blob(ContentStore(backing).repository(NAME), LAYERS[0])
    assert await read_blob(replica.repository, LAYER) == LAYERS[0]


async def test_a_sparse_registry_lets_nothing_vouch(backing: MemoryDriver) -> None:
    """Its manifests come before their blobs: a pusher could name what lies in another repository."""
    await push_blob(ContentStore(backing).repository(OTHER), b"secret")
    replica = Replica(backing, sparse=True)
    pusher = ContentStore(backing, rules=ManifestRules(sparse=True)).repository(NAME)
    await pusher.put_manifest(V1, IMAGE_MANIFEST, image(b"secret"))
    await replica.repository.get_manifest(V1)
    for call in (
        replica.repository.open_blob(Digest.of(b"secret")),
        replica.repository.stat_blob(Digest.of(b"secret")),
    ):
        with pytest.raises(BlobUnknown):
            await call


@pytest.mark.parametrize("thrift", [REPLICA, WRITER], ids=["replica", "writer"])
async def test_an_index_makes_no_manifest_of_a_blob(backing: MemoryDriver, thrift: Thrift) -> None:
    """Nobody has checked what a blob names that reads as a manifest; an index may name it all the same."""
    await push_blob(ContentStore(backing).repository(OTHER), b"secret")
    pusher, smuggled = ContentStore(backing).repository(NAME), image(CONFIG, (b"secret",))
    await push_blob(pusher, smuggled)
    put = await pusher.put_manifest(V1, IMAGE_INDEX, index(descriptor(smuggled, IMAGE)))
    assert not put.absent, "a blob counts as being there"
    replica = Replica(backing, thrift)
    for _ in range(2):
        await replica.repository.get_manifest(V1)
        with pytest.raises(ManifestUnknown):
            await replica.repository.get_manifest(Digest.of(smuggled))
        with pytest.raises(BlobUnknown):
            await replica.repository.open_blob(Digest.of(b"secret"))


# What gates is never passed by


class Watched(DearMemory):
    """Remembers its readers."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: list[MemoryReader] = []

    async def open(self, key: str, range: RangeRequest | None = None) -> MemoryReader:
        reader = await super().open(key, range)
        assert isinstance(reader, MemoryReader)
        self.readers.append(reader)
        return reader


@pytest.mark.parametrize("thrift", [REPLICA, WRITER], ids=["replica", "writer"])
async def test_what_another_repository_has_is_dropped_unseen(thrift: Thrift) -> None:
    backing = Watched()
    await push_blob(ContentStore(backing).repository(OTHER), b"secret")
    secret, replica = Digest.of(b"secret"), Replica(backing, thrift)
    for range in (None, RangeRequest(0, 1), RangeRequest(1000)):
        with pytest.raises(BlobUnknown):  # nor does 416 tell that there is something
            await replica.repository.open_blob(secret, range)
    with pytest.raises(BlobUnknown):
        await replica.repository.stat_blob(secret)
    with pytest.raises(ManifestUnknown):
        await replica.repository.get_manifest(secret)
    assert all(reader._data == b"" for reader in backing.readers), "closed"
    await backing.aclose()


async def test_the_faults_of_what_is_not_ours_do_not_show(backing: MemoryDriver) -> None:
    replica = Replica(backing)
    replica.record.failing["open", "/data"] = replica.record.failing["read", "/data"] = Unavailable("no")
    with pytest.raises(BlobUnknown):
        await replica.repository.open_blob(Digest.of(b"nowhere"))
    with pytest.raises(ManifestUnknown):
        await replica.repository.get_manifest(Digest.of(b"nowhere"))
    with pytest.raises(Unavailable):
        await replica.repository.open_blob(LAYER)
    replica = Replica(backing)
    replica.record.failing["open", "/link"] = replica.record.failing["read", "/link"] = Unavailable("no")
    for call in (replica.repository.open_blob(LAYER), replica.repository.get_manifest(DIGEST)):
        with pytest.raises(Unavailable):
            await call


async def test_a_range_that_is_not_there(backing: MemoryDriver) -> None:
    with pytest.raises(RangeNotSatisfiable):
        await Replica(backing).repository.open_blob(LAYER, RangeRequest(1000))


async def test_aliases_of_distribution(backing: MemoryDriver) -> None:
    """The link says where the bytes are; what was guessed is dropped."""
    alias, revision = Digest.of(LAYERS[0], "sha512"), Digest.of(MANIFEST, "sha512")
    await write_link(backing, layout.layer_link(NAME, alias), LAYER)
    await write_link(backing, layout.revision_link(NAME, revision), DIGEST)
    for _ in range(2):
        replica = Replica(backing)
        for _ in range(2):
            assert await read_blob(replica.repository, alias) == LAYERS[0]
            assert await replica.repository.stat_blob(alias) == len(LAYERS[0])
            stored = await replica.repository.get_manifest(revision)
            assert (stored.digest, stored.body) == (revision, MANIFEST)
            url = await replica.repository.blob_url(alias, "GET")
            assert url is None or layout.blob_data(LAYER) in url
        # the same with bytes under the name of the alias that are not meant
        await backing.put(layout.blob_data(alias), b"not meant")


@pytest.mark.parametrize("warm", [False, True])
async def test_f25_an_emptied_blob(backing: MemoryDriver, warm: bool) -> None:
    await backing.put(layout.blob_data(LAYER), b"")
    replica = Replica(backing)
    if warm:
        await replica.repository.get_manifest(V1)
    with pytest.raises(Unavailable, match="push it again"):
        await replica.repository.open_blob(LAYER)
    with pytest.raises(BlobUnknown):
        await replica.repository.stat_blob(LAYER)
    await push_blob(ContentStore(backing).repository(NAME), LAYERS[0])
    assert await read_blob(replica.repository, LAYER) == LAYERS[0]


async def test_a_pull_that_is_given_up_leaves_no_reader_open() -> None:
    backing = Watched()
    await push(ContentStore(backing).repository(NAME))
    arrived = asyncio.Event()

    async def hold(verb: str, key: str) -> None:
        if verb == "read":
            arrived.set()
            await asyncio.Event().wait()

    repository = ContentStore(Counted(backing, hold), thrift=REPLICA).repository(NAME)
    pulling = asyncio.create_task(repository.open_blob(LAYER))
    await arrived.wait()
    pulling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pulling
    assert all(reader._data == b"" for reader in backing.readers)
    await backing.aclose()


# Redirects


async def test_redirects_are_for_one_method_and_bytes_that_are_there() -> None:
    backing = DearWithUrls()
    await push(ContentStore(backing).repository(NAME))
    for thrift in (REPLICA, WRITER):
        replica = Replica(backing, thrift)
        for method in ("GET", "HEAD"):
            url = await replica.repository.blob_url(LAYER, method)
            assert url == f"https://store.test/{layout.blob_data(LAYER)}?method={method}&expires=1200"
            with pytest.raises(BlobUnknown):
                await replica.repository.blob_url(Digest.of(b"nowhere"), method)
    await backing.put(layout.blob_data(LAYER), b"")
    with pytest.raises(BlobUnknown):
        await Replica(backing, WRITER).repository.blob_url(LAYER, "HEAD")
    without = ContentStore(backing, thrift=REPLICA, url_expires=None).repository(NAME)
    assert await without.blob_url(LAYER, "GET") is None
    await backing.aclose()
