"""Caches count what they are asked and what they know."""

from storage.digest import Digest
from storage.facts import ManifestCache, Sizes
from storage.linkcache import LinkCache
from storage.lookups import Asked
from storage.repository import StoredManifest

DIGEST = Digest.of(b"{}")


def test_manifests() -> None:
    asked = Asked()
    cache = ManifestCache(asked=asked)
    cache.get(DIGEST)
    cache.keep(StoredManifest(DIGEST, "application/json", b"{}"))
    cache.get(DIGEST)
    assert asked == Asked(requests=2, hits=1)


def test_sizes() -> None:
    asked = Asked()
    sizes = Sizes(asked=asked)
    sizes.get(DIGEST)
    sizes.keep(DIGEST, 2)
    sizes.get(DIGEST)
    assert asked == Asked(requests=2, hits=1)


def test_links_that_are_too_old_are_no_hits() -> None:
    asked, now = Asked(), [0.0]
    links = LinkCache(60.0, clock=lambda: now[0], asked=asked)
    links.get("a")
    links.keep("a", DIGEST, 0.0)
    links.get("a")
    now[0] = 60.0
    links.get("a")
    assert asked == Asked(requests=3, hits=1)


def test_what_keeps_no_links_is_no_cache() -> None:
    asked = Asked()
    links = LinkCache(0.0, asked=asked)
    links.keep("a", DIGEST, 0.0)
    assert links.get("a") is None
    assert asked == Asked()
