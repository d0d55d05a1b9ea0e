"""ThriftyReading: the same answers as Reading in few calls, for stores where a call is a round trip.

What cannot be left out is asked at once: the link and what it most likely names. What was asked of an object whose link
then is missing is dropped unseen, error or bytes. Left out is, for as long as `linkttl` allows, the link (linkcache.py:
it was read lately, or a manifest that was served vouches for it), and in a read-only registry the size, which a digest
fixes; and the link of a manifest may enclose it there (enclosed.py): where the last one did, nothing is asked beside
the next. A tag is read every time. A registry that takes pushes answers no HEAD of a blob from memory, and gives no
manifest that is enclosed: whoever finds it skips an upload that would have healed lost bytes.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from storage import layout
from storage.digest import Digest
from storage.driver import ObjectInfo, ObjectReader, StorageDriver
from storage.enclosed import enclosed
from storage.errors import BlobUnknown, ObjectNotFound
from storage.facts import ManifestCache, Sizes
from storage.garbage.renewals import Renewals
from storage.linkcache import LinkCache
from storage.links import read_link, read_noted_link
from storage.manifest import sniff
from storage.names import RepositoryName, Tag
from storage.ranges import RangeRequest
from storage.reading import Held, Reading
from storage.repository import StoredManifest
from storage.vouch import Vouchers

T = TypeVar("T")


class ThriftyReading(Reading):
    """vouchers: None where a manifest says nothing about its blobs (vouch.py)."""

    def __init__(
        self,
        name: RepositoryName,
        driver: StorageDriver,
        known: ManifestCache,
        renewals: Renewals,
        *,
        links: LinkCache,
        sizes: Sizes,
        vouchers: Vouchers | None,
        read_only: bool,
    ) -> None:
        super().__init__(name, driver, known, renewals)
        self._links = links
        self._sizes = sizes
        self._vouchers = vouchers
        self._read_only = read_only

    # Blobs

    async def stat(self, digest: Digest) -> int:
        if not self._read_only:
            # link first, then data: most of what a pusher asks for is not there, and then that is one call
            return await super().stat(digest)
        size = self._sizes.get(digest)
        if size is not None and self._links.get(layout.layer_link(self._name, digest)) is not None:
            return size
        size = self._whole(await self._head(digest), digest).size
        self._sizes.keep(digest, size)
        return size

    async def url(self, digest: Digest, method: str, expires: float) -> str | None:
        if not self._driver.offers_urls:
            return None
        if method == "HEAD" and not self._read_only:
            return await super().url(digest, method, expires)
        known = self._links.get(layout.layer_link(self._name, digest))
        key = layout.blob_data(known.target) if known else self._whole(await self._head(digest), digest).key
        return await self._driver.url(key, method, expires)

    def deleted(self, link: str) -> None:
        self._links.drop(link)

    async def _open(self, digest: Digest, range: RangeRequest | None) -> ObjectReader:
        async def opened(target: Digest) -> ObjectReader:
            return await self._driver.open(layout.blob_data(target), range)

        reader = await self._known_or_at_once(digest, opened)
        if reader.size:
            self._sizes.keep(digest, reader.size)
        return reader

    async def _head(self, digest: Digest) -> ObjectInfo:
        return await self._known_or_at_once(digest, self._head_data)

    async def _head_data(self, target: Digest) -> ObjectInfo:
        return await self._driver.head(layout.blob_data(target))

    async def _known_or_at_once(self, digest: Digest, ask: Callable[[Digest], Awaitable[T]]) -> T:
        """Raises BlobUnknown."""
        link = layout.layer_link(self._name, digest)
        try:
            if (known := self._links.get(link)) is not None:
                return await ask(known.target)
            return await self._at_once(link, read_link(self._driver, link), digest, ask)
        except ObjectNotFound as exc:
            self._links.forget(link)
            raise BlobUnknown(digest) from exc

    async def _behind(self, link: str, digest: Digest) -> ObjectInfo:
        """For a pusher's checks, hence never from memory."""
        return await self._at_once(link, read_link(self._driver, link), digest, self._head_data)

    async def _held_manifest(self, digest: Digest) -> Held:
        link = layout.revision_link(self._name, digest)
        needed = asyncio.ensure_future(self._driver.head(link))
        try:
            return Held((await self._behind(link, digest)).size, await needed)
        except BaseException:
            await _discarded(needed)
            raise

    async def _info(self, digest: Digest) -> ObjectInfo:
        try:
            return await super()._behind(layout.layer_link(self._name, digest), digest)
        except ObjectNotFound as exc:
            raise BlobUnknown(digest) from exc

    # Manifests

    async def _by_tag(self, tag: Tag) -> StoredManifest:
        asked = self._links.clock()
        digest = await read_link(self._driver, layout.tag_link(self._name, tag))
        stored = await self._stored(digest)
        self._links.vouch(layout.revision_link(self._name, digest), digest, asked)
        return await self._vouching(stored, asked)

    async def _by_digest(self, digest: Digest) -> StoredManifest:
        link = layout.revision_link(self._name, digest)
        if (known := self._links.get(link)) is not None:
            return await self._vouching(await self._stored(known.target), known.asked)
        asked = self._links.clock()
        if self._read_only and self._links.enclosing:
            target = await self._revision(link)
            self._links.keep(link, target, asked)
            stored = await self._stored(target)
        else:
            reading = self._revision(link) if self._read_only else read_link(self._driver, link)
            stored = await self._at_once(link, reading, digest, self._stored)
        return await self._vouching(stored, asked)

    async def _revision(self, link: str) -> Digest:
        """What the link names; the manifest is known from here on, if it is enclosed. Raises ObjectNotFound."""
        digest, note = await read_noted_link(self._driver, link)
        body = enclosed(note, digest)
        if body is not None:
            self._known.keep(StoredManifest(digest, sniff(body), body))
        self._links.enclosing = body is not None
        return digest

    async def _vouching(self, stored: StoredManifest, asked: float) -> StoredManifest:
        if self._vouchers is not None:
            await self._vouchers.vouch(self._name, stored, asked)
        return stored

    # At once

    async def _at_once(
        self, link: str, reading: Awaitable[Digest], digest: Digest, ask: Callable[[Digest], Awaitable[T]]
    ) -> T:
        """ask of what the link names, while it is being read. Raises ObjectNotFound, for the link or by ask.

        Without a link it is as if ask had never been called: not even its error shows, which would tell what another
        repository holds.
        """
        guess = asyncio.ensure_future(ask(digest))
        try:
            asked = self._links.clock()
            target = await reading
            self._links.keep(link, target, asked)
            if target == digest:
                return await guess
            await _discarded(guess)
            return await ask(target)
        except BaseException:
            await _discarded(guess)
            raise


async def _discarded(guess: "asyncio.Future[T]") -> None:
    """Its answer is not wanted. What was opened is closed; idempotent."""
    guess.cancel()
    await asyncio.wait([guess])
    if not guess.cancelled() and guess.exception() is None:
        result = guess.result()
        if isinstance(result, ObjectReader):
            await result.aclose()
