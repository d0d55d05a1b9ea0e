"""PullThrough: a repository of an upstream, served from the cache, which it fills.

    digest   for ever from the cache, else fetched
    tag      within `ttl` from the cache, then a conditional HEAD, and only what has changed is fetched
    lists    the upstream's together with the cache's
    writes   refused, as every user

What an upstream's fault means: what is cached is served, with its age and a warning; what is not, is the fault itself.
A cache that cannot take what was fetched (a full disk) does not keep it from the client.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from typing import Any

from registry.proxy.fetches import Fetches
from registry.proxy.freshness import Freshness
from registry.proxy.leases import Leases
from registry.proxy.pieces_shelf import Shelf
from registry.proxy.platforms import MAX_CONFIG, Platforms
from registry.proxy.repository import UpstreamRepository, page_of
from registry.proxy.uses import Uses
from registry.stale import StaleManifest
from storage import layout
from storage.descriptor import Descriptor
from storage.digest import Digest
from storage.driver import ObjectReader, StorageDriver
from storage.errors import (
    BlobUnknown,
    ManifestUnknown,
    ObjectNotFound,
    RepositoryUnknown,
    StorageError,
    Unavailable,
    UpstreamDenied,
    UpstreamUnavailable,
)
from storage.manifest import parse_stored
from storage.names import Reference, RepositoryName, Tag
from storage.once import Once
from storage.publishing import Publishing, ThriftyPublishing
from storage.ranges import RangeRequest
from storage.referrers import Referrers
from storage.repository import RefuseWrites, RepositoryReader, StoredManifest, TagPage
from storage.tags import Tags

log = logging.getLogger(__name__)

_Answer = Coroutine[Any, Any, StoredManifest]

_IN_LOOP = 64 << 10
"""Bytes of a manifest that are looked through in the event loop; larger ones go to a thread."""

_ROUNDS = 3
"""Looks into the cache for a blob that others fetch and evict meanwhile."""

_TOUCH = 60.0
"""Seconds: a tag's link is not touched more often to say that it is still so."""


@dataclass(frozen=True, slots=True)
class Cache:
    """What all repositories of a cache share.

    fresh: seconds, as in StorageDriver.put_content.   leases: None where no other replica has this store.
    """

    driver: StorageDriver
    fetches: Fetches
    freshness: Freshness
    once: Once[tuple[RepositoryName, str], StoredManifest]
    fresh: float
    uses: Uses
    shelf: Shelf
    leases: Leases | None = None

    def publishing(self, name: RepositoryName) -> Publishing:
        """Manifests are written in the order of a push, and come before their blobs."""
        tags, referrers = Tags(name, self.driver), Referrers(name, self.driver, None)
        if self.driver.calls_are_dear:
            return ThriftyPublishing(name, self.driver, tags, referrers, self.fresh, deletes=False)
        return Publishing(name, self.driver, tags, referrers, self.fresh)


class PullThrough(RefuseWrites):
    """local: the repository of the cache.   ttl: seconds for which a tag is not asked about again.

    keep: is a tag served that the upstream has no more, or does not let us see any more?
    namespace: what clients call the upstream.   platforms: the images of an index that are fetched; None: all.
    """

    why = "this repository is a cache of another registry: push there (settings: proxy, upstreams, hosted)"

    def __init__(
        self,
        local: RepositoryReader,
        upstream: UpstreamRepository,
        cache: Cache,
        *,
        ttl: float,
        keep: bool = True,
        namespace: str = "",
        platforms: Platforms | None = None,
    ) -> None:
        self.name = local.name
        self.namespace = namespace
        self._local, self._upstream, self._cache = local, upstream, cache
        self._ttl, self._keep = ttl, keep
        self._platforms = platforms or Platforms(())
        self._tally = upstream.tally
        self._source = cache.shelf.patched(upstream, self.name)
        self._publishing = cache.publishing(self.name)

    # Blobs

    async def stat_blob(self, digest: Digest) -> int:
        try:
            return await self._local.stat_blob(digest)
        except BlobUnknown:
            size = self._cache.shelf.size(self.name, digest)
            if size is None:
                size = await self._cache.fetches.size(self.name, digest)
            return await self._upstream.stat_blob(digest) if size is None else size

    async def open_blob(self, digest: Digest, range: RangeRequest | None = None) -> ObjectReader:
        for _ in repeat(None, _ROUNDS):  # `range` is an argument
            await self._cache.uses.blob(self.name, digest)
            if (reader := await self._open_cached(digest, range)) is not None:
                self._tally.blob_hits += 1
                self._tally.hit_bytes += len(reader.span)
                self._tally.sent_blob_bytes += len(reader.span)
                return reader
            if range is not None:
                reader = await self._cache.shelf.open(self._upstream, self.name, digest, range)
            if reader is None:
                reader = await self._cache.fetches.open(self._source, self.name, digest, range)
            if reader is not None:
                self._tally.blob_misses += 1
                self._tally.sent_blob_bytes += len(reader.span)
                return reader
        raise Unavailable("the blob leaves the cache as soon as it is there")

    async def _open_cached(self, digest: Digest, range: RangeRequest | None) -> ObjectReader | None:
        try:
            return await self._local.open_blob(digest, range)
        except BlobUnknown:
            return None
        except Unavailable:
            try:
                await self._local.stat_blob(digest)
            except BlobUnknown:
                return None  # a crash of other software has emptied it: what is fetched replaces it
            raise

    async def blob_url(self, digest: Digest, method: str) -> str | None:
        if self._cache.driver.offers_urls:
            await self._cache.uses.blob(self.name, digest)
        try:
            url = await self._local.blob_url(digest, method)
        except BlobUnknown:
            return None
        self._tally.blob_hits += url is not None and method == "GET"
        return url

    async def has_blob(self, digest: Digest) -> bool:
        """Is it cached?"""
        try:
            await self._local.stat_blob(digest)
        except BlobUnknown:
            return False
        return True

    async def fill(self, digest: Digest, came: Callable[[int], None]) -> None:
        """Fetch a blob into the cache, and wait until it is there. came: gets the size of each piece.

        Raises as open_blob; Unavailable when it cannot be kept.
        """
        async with await self.open_blob(digest) as reader:
            async for chunk in reader.chunks():
                came(len(chunk))
        await self._cache.fetches.ended(digest)
        if not await self.has_blob(digest):
            raise Unavailable("the blob was fetched and cannot be kept; the log says why")

    # Manifests

    async def get_manifest(self, reference: Reference) -> StoredManifest:
        """As in RepositoryReader; raises PlatformDenied, too."""
        found = await self._manifest(reference)
        self._platforms.served(self.name, found)
        self._tally.sent_manifest_bytes += len(found.body)
        return found

    async def _manifest(self, reference: Reference) -> StoredManifest:
        if isinstance(reference, Digest):
            try:
                cached = await self._local.get_manifest(reference)
            except ManifestUnknown:
                self._platforms.check(self.name, reference)
                return await self._missed(reference)
            self._tally.manifest_hits += 1
            await self._cache.uses.manifest(self.name, reference)
            return cached
        known = await self._cached_tag(reference)
        if known is None:
            return await self._missed(reference)
        await self._cache.uses.manifest(self.name, known.digest)
        ttl = self._upstream.slowed(self._ttl)
        age = await self._age(reference, known.digest, ttl)
        if ttl > 0 and age < ttl:
            self._tally.manifest_hits += 1
            return known
        found = await self._once(reference, partial(self._revalidate, reference, known, age))
        if found.digest == known.digest:
            self._tally.manifest_hits += 1
            self._tally.stale += isinstance(found, StaleManifest)
        else:
            self._tally.manifest_misses += 1
        return found

    async def _missed(self, reference: Reference) -> StoredManifest:
        found = await self._once(reference, partial(self._fetch, reference))
        self._tally.manifest_misses += 1
        return found

    async def _once(self, reference: Reference, call: Callable[[], _Answer]) -> StoredManifest:
        """One question for all who ask at the same time."""
        return await self._cache.once.run((self.name, str(reference)), call)

    async def _cached_tag(self, tag: Tag) -> StoredManifest | None:
        try:
            return await self._local.get_manifest(tag)
        except ManifestUnknown:
            return None

    async def _age(self, tag: Tag, digest: Digest, unknown: float) -> float:
        """Seconds since the tag was last known to name that."""
        known = self._cache.freshness.age(self.name, tag, digest)
        if known is not None:
            return known
        try:
            link = await self._cache.driver.head(layout.tag_link(self.name, tag))
        except ObjectNotFound:
            return unknown
        age = max(0.0, await self._cache.driver.now() - link.modified)
        self._cache.freshness.checked(self.name, tag, digest, age)
        return age

    async def _revalidate(self, tag: Tag, cached: StoredManifest, age: float) -> StoredManifest:
        self._tally.revalidations += 1
        try:
            head = await self._upstream.head_manifest(tag, f'"{cached.digest}"')
            if head is not None and head.digest != cached.digest:
                return await self._fetch(tag, cached.digest)
        except UpstreamUnavailable as exc:
            return self._stale(cached, age, exc)
        except (ManifestUnknown, UpstreamDenied) as exc:
            if not self._keep:
                raise
            return self._stale(cached, age, exc)
        self._cache.freshness.checked(self.name, tag, cached.digest)
        if age >= _TOUCH:
            await self._kept(self._cache.driver.touch(layout.tag_link(self.name, tag)))
        return cached

    def _stale(self, cached: StoredManifest, age: float, why: StorageError) -> StaleManifest:
        extra = {"repository": self.name, "digest": str(cached.digest), "cause": str(why.__cause__ or "")}
        log.warning("served from the cache, %d s old: %s", age, why, extra=extra)
        return StaleManifest(cached.digest, cached.media_type, cached.body, age, f"served from the cache: {why}")

    async def _fetch(self, reference: Reference, known: Digest | None = None) -> StoredManifest:
        """known: what the tag named, in the cache. Raises ManifestUnknown; UpstreamDenied; UpstreamUnavailable."""
        self._cache.freshness.check_missing(self.name, str(reference))
        if self._cache.leases is None:
            return await self._ask(reference)
        # not for the load, which is small: Docker Hub counts manifests
        key = layout.manifest_lease(self.name, reference)
        return await self._cache.leases.once(
            key, partial(self._kept_meanwhile, reference, known), partial(self._ask, reference)
        )

    async def _kept_meanwhile(self, reference: Reference, known: Digest | None) -> StoredManifest | None:
        """By another replica."""
        try:
            found = await self._local.get_manifest(reference)
        except ManifestUnknown:
            return None
        return found if found.digest != known else None

    async def _ask(self, reference: Reference) -> StoredManifest:
        freshness = self._cache.freshness
        try:
            manifest = await self._upstream.get_manifest(reference)
        except (ManifestUnknown, UpstreamDenied) as exc:
            freshness.missed(self.name, str(reference), exc)
            raise
        tags = () if isinstance(reference, Digest) else (reference,)
        small = len(manifest.body) <= _IN_LOOP
        parsed = parse_stored(manifest.body) if small else await asyncio.to_thread(parse_stored, manifest.body)
        if isinstance(reference, Digest) and (config := self._platforms.config_of(parsed)) is not None:
            await self._check_platform(reference, config)
        subject = parsed.subject.digest if parsed.subject else None
        await self._kept(self._publishing.publish(manifest.digest, manifest.body, subject, tags, None))
        for tag in tags:
            freshness.checked(self.name, tag, manifest.digest)
        return manifest

    async def _check_platform(self, image: Digest, config: Digest) -> None:
        """Raises PlatformDenied. The client needs the config next: it costs the upstream nothing more."""
        try:
            async with await self.open_blob(config) as reader:
                self._platforms.check_config(self.name, image, await reader.read(MAX_CONFIG))
        except BlobUnknown:
            return  # nobody can run it

    async def _kept(self, write: Awaitable[object]) -> None:
        """What the cache cannot keep is served all the same, and fetched again the next time."""
        try:
            await write
        except (Unavailable, ObjectNotFound) as exc:
            log.warning("a manifest was fetched and cannot be kept: %s", exc, extra={"repository": self.name})

    # Lists

    async def list_tags(self, after: str, limit: int) -> TagPage:
        found = await self._upstream_tags(after, limit)
        try:
            mine = await self._local.list_tags(after, limit)
        except RepositoryUnknown:
            if found is None:
                raise
            mine = TagPage([], False)
        if found is None:
            return mine
        names = sorted({*mine.names, *found.names})
        return TagPage(names[:limit], mine.more or found.more or len(names) > limit)

    async def _upstream_tags(self, after: str, limit: int) -> TagPage | None:
        """None: the cache's alone, as the upstream is down or has none."""
        known = self._cache.freshness.tags(self.name)
        if known is None:
            try:
                if (page := await self._upstream.tags_after(after, limit)) is not None:
                    return page
                known = await self._upstream.all_tags()
            except (RepositoryUnknown, UpstreamDenied, UpstreamUnavailable) as exc:
                if not await self._has_tags():
                    raise
                log.warning("the tags of the cache alone: %s", exc, extra={"repository": self.name})
                return None
            self._cache.freshness.listed(self.name, known)
        return page_of(known, after, limit)

    async def _has_tags(self) -> bool:
        try:
            return bool((await self._local.list_tags("", 1)).names)
        except RepositoryUnknown:
            return False

    async def list_referrers(self, subject: Digest) -> list[Descriptor]:
        found = {each.digest: each for each in await self._local.list_referrers(subject)}
        try:
            found |= {each.digest: each for each in await self._upstream.list_referrers(subject)}
        except (UpstreamDenied, UpstreamUnavailable) as exc:
            log.warning("the referrers of the cache alone: %s", exc, extra={"repository": self.name})
        return [found[digest] for digest in sorted(found)]
