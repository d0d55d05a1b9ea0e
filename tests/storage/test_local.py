"""LocalRepository: the order in which a manifest is written and deleted, what gates what, and damage."""

import json
from typing import Any

import pytest

from storage import layout
from storage.content import ContentStore
from storage.digest import Digest
from storage.driver import StorageDriver
from storage.errors import (
    BlobUnknown,
    DigestMismatch,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    RangeNotSatisfiable,
    RepositoryUnknown,
    StorageError,
    StorageFull,
    Unavailable,
)
from storage.links import write_link
from storage.local import LocalRepository
from storage.manifest import IMAGE_INDEX, IMAGE_MANIFEST
from storage.names import parse_name, parse_tag
from storage.ranges import RangeRequest
from storage.rules import ManifestRules
from tests.api import IMAGE, descriptor, digest_of, image, index
from tests.storage.conftest import EAGER
from tests.storage.spying import NAME, OTHER, WRITING, Record, Spied, push_blob, read_blob, tag_of

LAYER = b"the bytes of a layer"
LAYER_DIGEST = Digest.of(LAYER)
MANIFEST = image(b"{}", (LAYER,))
DIGEST = Digest.of(MANIFEST)
V1, V2 = parse_tag("v1"), parse_tag("v2")
SUBJECT = Digest.of(b"a subject")
WITH_SUBJECT = image(b"{}", (LAYER,), subject={"mediaType": IMAGE, "digest": str(SUBJECT), "size": 9})


async def push_blobs(repository: LocalRepository) -> None:
    for data in (b"{}", LAYER):
        await push_blob(repository, data)


async def push(repository: LocalRepository, body: bytes = MANIFEST, **more: Any) -> Digest:
    await push_blobs(repository)
    return (await repository.put_manifest(V1, IMAGE_MANIFEST, body, **more)).digest


# Order


@EAGER
async def test_order_of_a_push(repository: LocalRepository, record: Record) -> None:
    """The bytes, the hint, what gates them, the tags: nobody ever sees a tag of nothing."""
    await push_blobs(repository)
    record.taken()
    digest = Digest.of(WITH_SUBJECT)
    done = await repository.put_manifest(digest, IMAGE_MANIFEST, WITH_SUBJECT, (V1, V2))
    assert (done.digest, done.subject, done.absent) == (digest, SUBJECT, ())
    assert record.written() == [
        ("put", layout.blob_data(digest)),
        ("put", layout.referrer_link(NAME, SUBJECT, digest)),
        ("put", layout.revision_link(NAME, digest)),
        ("put", layout.tag_index_link(NAME, V1, digest)),
        ("put", layout.tag_link(NAME, V1)),
        ("put", layout.tag_index_link(NAME, V2, digest)),
        ("put", layout.tag_link(NAME, V2)),
    ]


async def test_order_of_a_delete(repository: LocalRepository, record: Record) -> None:
    """The tags first, so that a crash leaves none that names nothing; the bytes stay for the garbage collector."""
    digest = await push(repository, WITH_SUBJECT)
    record.taken()
    await repository.delete_manifest(digest)
    assert record.written() == [
        ("delete", layout.tag_link(NAME, V1)),
        ("delete_tree", layout.tag_index(NAME, V1)),
        ("delete_tree", layout.revision(NAME, digest)),
        ("delete", layout.referrer_link(NAME, SUBJECT, digest)),
    ]


async def test_deleting_a_blob_takes_the_link_alone(
    content: ContentStore, repository: LocalRepository, record: Record
) -> None:
    await push_blobs(repository)
    await content.repository(OTHER).mount_blob(LAYER_DIGEST, NAME)
    record.taken()
    await repository.delete_blob(LAYER_DIGEST)
    assert record.written() == [("delete", layout.layer_link(NAME, LAYER_DIGEST))]
    assert await read_blob(content.repository(OTHER), LAYER_DIGEST) == LAYER
    for call in (repository.stat_blob(LAYER_DIGEST), repository.delete_blob(LAYER_DIGEST)):
        with pytest.raises(BlobUnknown):
            await call


# Pulling


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
async def test_byte_for_byte_under_the_digest_it_was_pushed_with(repository: LocalRepository, algorithm: str) -> None:
    await push_blobs(repository)
    body = json.dumps(json.loads(MANIFEST), indent=3).encode() + b"\n\n"
    digest = Digest.of(body, algorithm)
    done = await repository.put_manifest(digest, IMAGE_MANIFEST, body, (V1,))
    assert done.digest == digest
    for reference in (digest, V1):
        stored = await repository.get_manifest(reference)
        assert (stored.digest, stored.media_type, stored.body) == (digest, IMAGE_MANIFEST, body)
    other = Digest.of(body, "sha512" if algorithm == "sha256" else "sha256")
    with pytest.raises(ManifestUnknown):
        await repository.get_manifest(other)


async def test_ranges_of_a_blob(repository: LocalRepository) -> None:
    await push_blobs(repository)
    async with await repository.open_blob(LAYER_DIGEST, RangeRequest(4, 9)) as reader:
        assert b"".join([chunk async for chunk in reader.chunks()]) == LAYER[4:9]
        assert reader.size == len(LAYER)
    with pytest.raises(RangeNotSatisfiable):
        await repository.open_blob(LAYER_DIGEST, RangeRequest(len(LAYER)))
    with pytest.raises(BlobUnknown):
        await repository.open_blob(SUBJECT, RangeRequest(0, 1))


async def test_no_redirects_from_these_drivers(repository: LocalRepository) -> None:
    await push_blobs(repository)
    assert await repository.blob_url(LAYER_DIGEST, "GET") is None
    assert await repository.blob_url(SUBJECT, "GET") is None


async def test_what_is_in_one_repository_is_in_no_other(content: ContentStore, repository: LocalRepository) -> None:
    digest = await push(repository)
    other = content.repository(parse_name("a"))  # its folder holds ours
    for call in (other.get_manifest(digest), other.get_manifest(V1), other.delete_manifest(digest)):
        with pytest.raises(ManifestUnknown):
            await call
    with pytest.raises(BlobUnknown):
        await other.stat_blob(LAYER_DIGEST)
    with pytest.raises(RepositoryUnknown):
        await other.list_tags("", 10)


async def test_c3_blobs_are_no_manifests_and_manifests_no_blobs(repository: LocalRepository) -> None:
    digest = await push(repository)
    with pytest.raises(ManifestUnknown):
        await repository.get_manifest(LAYER_DIGEST)
    with pytest.raises(BlobUnknown):
        await repository.stat_blob(digest)


# What a push needs


async def test_missing_blobs_are_named_and_nothing_is_written(repository: LocalRepository, record: Record) -> None:
    await push_blob(repository, b"{}")
    record.taken()
    with pytest.raises(ManifestBlobUnknown) as caught:
        await repository.put_manifest(V1, IMAGE_MANIFEST, image(b"{}", (LAYER, b"another", LAYER)))
    assert caught.value.digests == (str(LAYER_DIGEST), digest_of(b"another"))
    assert record.written() == []


async def test_a_fault_is_not_a_missing_blob(repository: LocalRepository, record: Record) -> None:
    await push_blobs(repository)
    record.failing["read", "/link"] = Unavailable("the disk is gone")
    for call in (
        repository.put_manifest(V1, IMAGE_MANIFEST, MANIFEST),
        repository.get_manifest(DIGEST),
        repository.stat_blob(LAYER_DIGEST),
        repository.mount_blob(LAYER_DIGEST, OTHER),
        repository.delete_blob(LAYER_DIGEST),
    ):
        with pytest.raises(Unavailable):
            await call


@pytest.mark.parametrize("size", [0, len(LAYER) - 1, len(LAYER) + 1])
async def test_sizes_must_be_right(repository: LocalRepository, size: int) -> None:
    await push_blobs(repository)
    document = json.loads(MANIFEST)
    document["layers"][0]["size"] = size
    with pytest.raises(ManifestInvalid, match="its descriptor says"):
        await repository.put_manifest(V1, IMAGE_MANIFEST, json.dumps(document).encode())


async def test_a_layer_is_a_blob_though_a_manifest_of_that_digest_is_here(repository: LocalRepository) -> None:
    """As distribution has it; and a manifest vouches for its layers (vouch.py), which are pulled as blobs."""
    await push(repository)
    with pytest.raises(ManifestBlobUnknown):
        await repository.put_manifest(V2, IMAGE_MANIFEST, image(b"{}", (MANIFEST,)))
    await push_blob(repository, MANIFEST)
    await repository.put_manifest(V2, IMAGE_MANIFEST, image(b"{}", (MANIFEST,)))


async def test_children_may_be_manifests_or_blobs(repository: LocalRepository) -> None:
    """BuildKit's cache index lists layers where an index has manifests."""
    await push(repository)
    body = index(descriptor(MANIFEST, IMAGE), descriptor(LAYER))
    done = await repository.put_manifest(V2, IMAGE_INDEX, body)
    assert done.absent == ()
    with pytest.raises(ManifestBlobUnknown):
        await repository.put_manifest(V2, IMAGE_INDEX, index(descriptor(b"nowhere", IMAGE)))
    assert await tag_of(repository, V2) == Digest.of(body)


async def test_sparse_says_what_is_absent(backing: StorageDriver) -> None:
    repository = ContentStore(backing, rules=ManifestRules(sparse=True)).repository(NAME)
    done = await repository.put_manifest(V1, IMAGE_MANIFEST, image(b"{}", (LAYER, LAYER)))
    assert done.absent == (Digest.of(b"{}"), LAYER_DIGEST)


async def test_wrong_digest(repository: LocalRepository, record: Record) -> None:
    await push_blobs(repository)
    record.taken()
    for digest in (SUBJECT, Digest.of(MANIFEST + b" "), Digest.of(b"", "sha512")):
        with pytest.raises(DigestMismatch):
            await repository.put_manifest(digest, IMAGE_MANIFEST, MANIFEST, (V1,))
    assert record.written() == []


# Aliases and damage


async def test_aliases_of_distribution_count_as_present(repository: LocalRepository, backing: StorageDriver) -> None:
    await push_blobs(repository)
    alias = Digest.of(LAYER, "sha512")
    await write_link(backing, layout.layer_link(NAME, alias), LAYER_DIGEST)
    document = json.loads(MANIFEST)
    document["layers"][0]["digest"] = str(alias)
    await repository.put_manifest(V1, IMAGE_MANIFEST, json.dumps(document).encode())
    assert await read_blob(repository, alias) == LAYER


async def test_a_revision_of_distribution_under_another_name(
    repository: LocalRepository, backing: StorageDriver
) -> None:
    digest = await push(repository)
    alias = Digest.of(MANIFEST, "sha512")
    await write_link(backing, layout.revision_link(NAME, alias), digest)
    stored = await repository.get_manifest(alias)
    assert (stored.digest, stored.body) == (alias, MANIFEST), "answered as what was asked for"


@pytest.mark.parametrize("damaged", [b"", b"junk", b"sha256:" + b"g" * 64, b"\xff\xfe"])
async def test_damaged_links_are_absent_and_healed_by_a_push(
    repository: LocalRepository, backing: StorageDriver, caplog: pytest.LogCaptureFixture, damaged: bytes
) -> None:
    digest = await push(repository)
    for link in (layout.layer_link(NAME, LAYER_DIGEST), layout.revision_link(NAME, digest)):
        await backing.put(link, damaged)
    with pytest.raises(BlobUnknown):
        await repository.stat_blob(LAYER_DIGEST)
    with pytest.raises(ManifestUnknown):
        await repository.get_manifest(digest)
    with pytest.raises(ManifestBlobUnknown):
        await repository.put_manifest(V2, IMAGE_MANIFEST, MANIFEST)
    assert "damaged link" in caplog.text
    await push(repository)
    assert (await repository.get_manifest(digest)).body == MANIFEST
    assert await read_blob(repository, LAYER_DIGEST) == LAYER


async def test_dangling_links_are_absent(repository: LocalRepository, backing: StorageDriver) -> None:
    digest = await push(repository)
    await backing.delete(layout.blob_data(digest))
    await backing.delete(layout.blob_data(LAYER_DIGEST))
    for reference in (digest, V1):
        with pytest.raises(ManifestUnknown):
            await repository.get_manifest(reference)
    for call in (repository.stat_blob(LAYER_DIGEST), repository.open_blob(LAYER_DIGEST)):
        with pytest.raises(BlobUnknown):
            await call
    await push(repository)
    assert (await repository.get_manifest(V1)).body == MANIFEST
    assert await read_blob(repository, LAYER_DIGEST) == LAYER


@pytest.mark.parametrize("damaged", [b"", MANIFEST[:-1], MANIFEST + b" ", b"\0" * len(MANIFEST)])
async def test_f25_a_damaged_manifest_is_never_served(
    repository: LocalRepository, backing: StorageDriver, damaged: bytes
) -> None:
    digest = await push(repository)
    await backing.put(layout.blob_data(digest), damaged)
    for reference in (digest, V1):
        with pytest.raises(Unavailable, match="push it again"):
            await repository.get_manifest(reference)
    await repository.put_manifest(V1, IMAGE_MANIFEST, MANIFEST)
    assert (await repository.get_manifest(V1)).body == MANIFEST


async def test_f25_an_emptied_blob_is_a_fault_until_it_is_pushed_again(
    repository: LocalRepository, backing: StorageDriver
) -> None:
    """For who pulls; who asks in order to push is told that it is not there, or he would never push it."""
    await push_blobs(repository)
    await backing.put(layout.blob_data(LAYER_DIGEST), b"")
    with pytest.raises(Unavailable, match="push it again"):
        await repository.open_blob(LAYER_DIGEST)
    with pytest.raises(BlobUnknown):
        await repository.stat_blob(LAYER_DIGEST)
    await push_blob(repository, LAYER)
    assert await read_blob(repository, LAYER_DIGEST) == LAYER


async def test_an_empty_blob_is_not_damaged(repository: LocalRepository) -> None:
    for algorithm in ("sha256", "sha512"):
        assert await repository.stat_blob(await push_blob(repository, b"", algorithm)) == 0


async def test_a_damaged_manifest_can_be_deleted(repository: LocalRepository, backing: StorageDriver) -> None:
    digest = await push(repository)
    await backing.put(layout.blob_data(digest), b"{}")
    await repository.delete_manifest(digest)
    for reference in (digest, V1):
        with pytest.raises(ManifestUnknown):
            await repository.get_manifest(reference)


async def test_a_manifest_above_the_usual_limit_is_served(repository: LocalRepository) -> None:
    """limits.manifestsize may be raised."""
    document = json.dumps({**json.loads(image()), "annotations": {"padding": "x" * (17 << 20)}}).encode()
    await push_blob(repository, b"{}")
    await repository.put_manifest(V1, IMAGE_MANIFEST, document)
    assert len((await repository.get_manifest(V1)).body) == len(document)


# A fault at any step


class FailAt:
    """A `before` that lets the n-th writing call fail."""

    def __init__(self, at: int) -> None:
        self.left = at

    async def __call__(self, verb: str, key: str) -> None:
        if verb in WRITING:
            self.left -= 1
            if self.left == -1:
                raise StorageFull


async def consistent(repository: LocalRepository) -> None:
    """Whatever is listed is there as a whole."""
    try:
        tags = (await repository.list_tags("", 100)).names
    except RepositoryUnknown:
        tags = []
    for tag in tags:
        stored = await repository.get_manifest(parse_tag(tag))
        assert (await repository.get_manifest(stored.digest)).body == stored.body
        for layer in json.loads(stored.body)["layers"]:
            assert await read_blob(repository, Digest.parse(layer["digest"])) == LAYER
    for found in await repository.list_referrers(SUBJECT):
        assert (await repository.get_manifest(found.digest)).body == WITH_SUBJECT


@pytest.mark.slow
async def test_f2_a_fault_at_any_write_of_a_push_and_a_delete(backing: StorageDriver) -> None:
    """After each the registry is whole, and doing it again succeeds."""
    plain = ContentStore(backing, rescan=None).repository(NAME)
    failures = 0
    for at in range(100):
        failing = ContentStore(Spied(backing, FailAt(at)), rescan=None).repository(NAME)
        try:
            digest = await push(failing, WITH_SUBJECT, tags=(V2,))
            await failing.delete_tag(V2)
            await failing.delete_manifest(digest)
            await failing.delete_blob(LAYER_DIGEST)
        except StorageFull:
            failures += 1
        else:
            break
        await consistent(plain)
        await push(plain, WITH_SUBJECT, tags=(V2,))
        await consistent(plain)
        assert [d.digest for d in await plain.list_referrers(SUBJECT)] == [Digest.of(WITH_SUBJECT)]
        await plain.delete_manifest(Digest.of(WITH_SUBJECT))
        assert await plain.list_referrers(SUBJECT) == []
        for data in (LAYER_DIGEST, Digest.of(b"{}")):
            await plain.delete_blob(data)
    assert failures > 20


async def test_f5_a_failed_push_leaves_the_tag_where_it_was(repository: LocalRepository, record: Record) -> None:
    before = await push(repository)
    for end in ("/data", "/link"):
        record.failing["put", end] = StorageFull()
        with pytest.raises(StorageError):
            await repository.put_manifest(V1, IMAGE_MANIFEST, WITH_SUBJECT)
        record.failing.clear()
        assert await tag_of(repository, V1) == before


async def test_a_manifest_of_four_megabytes(repository: LocalRepository) -> None:
    """Parsed in a thread, and stored all the same."""
    await push_blobs(repository)
    body = image(b"{}", (LAYER,), annotations={f"k{n}": "x" * 10_000 for n in range(390)})
    digest = (await repository.put_manifest(V1, IMAGE_MANIFEST, body)).digest
    assert (await repository.get_manifest(digest)).body == body
