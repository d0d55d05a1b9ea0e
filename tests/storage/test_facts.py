"""The cache of manifests: bounded by bytes, and never a word about what a repository holds."""

import pytest

from storage.content import ContentStore
from storage.digest import Digest
from storage.drivers.memory import MemoryDriver
from storage.errors import ManifestUnknown
from storage.facts import ManifestCache, Sizes
from storage.manifest import IMAGE_MANIFEST
from storage.names import parse_name, parse_tag
from storage.repository import StoredManifest
from storage.rules import ManifestRules
from tests.api import image


def manifest(size: int, mark: bytes) -> StoredManifest:
    body = mark * size
    return StoredManifest(Digest.of(body), IMAGE_MANIFEST, body)


def test_bounded_by_bytes_and_the_oldest_goes_first() -> None:
    cache = ManifestCache(capacity=5000, largest=2000)
    old, used, new = (manifest(1000, mark) for mark in (b"a", b"b", b"c"))
    for each in (old, used):
        cache.keep(each)
    assert cache.get(old.digest) is old
    assert cache.get(used.digest) is used
    cache.get(old.digest)
    cache.keep(new)
    cache.keep(manifest(1000, b"d"))
    assert cache.size <= 5000
    assert cache.get(used.digest) is None
    assert cache.get(old.digest) is old


def test_no_large_ones_and_none_twice() -> None:
    cache = ManifestCache(capacity=5000, largest=2000)
    large = manifest(2001, b"x")
    cache.keep(large)
    assert cache.get(large.digest) is None
    for _ in range(20):
        cache.keep(manifest(1000, b"x"))
    assert cache.size < 2000


def test_sizes_are_bounded_and_the_least_used_goes_first() -> None:
    sizes = Sizes(limit=2)
    one, two, three = (Digest.of(data) for data in (b"1", b"2", b"3"))
    sizes.keep(one, 1)
    sizes.keep(two, 2)
    assert sizes.get(one) == 1
    sizes.keep(three, 0)
    assert [sizes.get(digest) for digest in (one, two, three)] == [1, None, 0]


async def test_a_deleted_manifest_is_gone_though_its_bytes_are_known() -> None:
    content = ContentStore(MemoryDriver(), rules=ManifestRules(sparse=True))
    one, two = content.repository(parse_name("a/one")), content.repository(parse_name("a/two"))
    for repository in (one, two):
        await repository.put_manifest(parse_tag("v1"), IMAGE_MANIFEST, image())
    digest = (await one.get_manifest(parse_tag("v1"))).digest
    await one.delete_manifest(digest)
    for reference in (digest, parse_tag("v1")):
        with pytest.raises(ManifestUnknown):
            await one.get_manifest(reference)
        assert (await two.get_manifest(reference)).body == image()
