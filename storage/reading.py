"""Reading blobs and manifests of one repository: the link that gates, then what it names.

As it costs least where a call is cheap: one after the other, and each time anew, so that a delete in any process holds
at once. ThriftyReading (thrifty_reading.py) is the same for stores where a call is dear.
"""

import asyncio
import logging
from dataclasses import dataclass

from storage import layout
from storage.digest import Digest
from storage.driver import ObjectInfo, ObjectReader, StorageDriver
from storage.errors import BlobUnknown, ManifestUnknown, ObjectNotFound, Unavailable
from storage.facts import ManifestCache
from storage.garbage.renewals import Renewals
from storage.links import read_link
from storage.manifest import sniff
from storage.names import Reference, RepositoryName, Tag
from storage.ranges import RangeRequest
from storage.repository import StoredManifest

log = logging.getLogger(__name__)

LARGEST_MANIFEST = 64 << 20
"""Bytes; more than limits.manifestsize allows to push."""

_IN_LOOP = 64 << 10
"""Bytes of a manifest that are looked through in the event loop; larger ones go to a thread."""


@dataclass(frozen=True, slots=True)
class Held:
    """size: bytes behind a link.   needed: what keeps them from a collector of garbage while it is young."""

    size: int
    needed: ObjectInfo


class Reading:
    """The verbs of RepositoryReader that read one thing; see there for what they promise."""

    def __init__(self, name: RepositoryName, driver: StorageDriver, known: ManifestCache, renewals: Renewals) -> None:
        self._name = name
        self._driver = driver
        self._known = known
        self._renewals = renewals

    # Blobs

    async def stat(self, digest: Digest) -> int:
        return (await self._offered(digest)).size

    async def open(self, digest: Digest, range: RangeRequest | None = None) -> ObjectReader:
        return await self._checked(digest, await self._open(digest, range))

    async def url(self, digest: Digest, method: str, expires: float) -> str | None:
        if not self._driver.offers_urls:
            return None
        if method == "HEAD":
            info = await self._offered(digest)
        else:
            info = self._whole(await self._info(digest), digest)
        return await self._driver.url(info.key, method, expires)

    async def held(self, digest: Digest, *, manifest: bool) -> Held | None:
        """What the repository holds now under the digest; None: nothing.

        manifest: as a manifest, or else as a blob (BuildKit's cache index lists blobs); if not, as a blob alone.
        """
        for look in (self._held_manifest, self._held_blob) if manifest else (self._held_blob,):
            try:
                return await look(digest)
            except ObjectNotFound:
                continue
        return None

    def deleted(self, link: str) -> None:
        """That link was deleted: forget whatever is remembered of it."""

    async def _held_blob(self, digest: Digest) -> Held:
        """Raises ObjectNotFound."""
        info = await self._behind(layout.layer_link(self._name, digest), digest)
        return Held(info.size, info)

    async def _held_manifest(self, digest: Digest) -> Held:
        """A revision lives by its link, and keeps its bytes and all that it names. Raises ObjectNotFound."""
        link = layout.revision_link(self._name, digest)
        info = await self._behind(link, digest)
        return Held(info.size, await self._driver.head(link))

    async def _offered(self, digest: Digest) -> ObjectInfo:
        """For somebody who may skip an upload, since it is here. Raises BlobUnknown."""
        info = self._whole(await self._info(digest), digest)
        try:
            await self._renewals.offer(info)
        except ObjectNotFound as exc:
            raise BlobUnknown(digest) from exc
        return info

    async def _info(self, digest: Digest) -> ObjectInfo:
        """Raises BlobUnknown."""
        try:
            return await self._behind(layout.layer_link(self._name, digest), digest)
        except ObjectNotFound as exc:
            raise BlobUnknown(digest) from exc

    async def _open(self, digest: Digest, range: RangeRequest | None) -> ObjectReader:
        """Raises BlobUnknown."""
        try:
            target = await read_link(self._driver, layout.layer_link(self._name, digest))
            return await self._driver.open(layout.blob_data(target), range)
        except ObjectNotFound as exc:
            raise BlobUnknown(digest) from exc

    async def _behind(self, link: str, digest: Digest) -> ObjectInfo:
        """The data that a link named after digest leads to. Raises ObjectNotFound.

        The link may name another digest: distribution makes aliases from sha512 names to sha256 data.
        """
        return await self._driver.head(layout.blob_data(await read_link(self._driver, link)))

    def _whole(self, info: ObjectInfo, digest: Digest) -> ObjectInfo:
        """Raises BlobUnknown for an emptied one: a client that is told so pushes it again, and that repairs it."""
        if is_emptied(digest, info.size):
            log.warning("a blob is damaged in storage: empty", extra={"digest": str(digest), "repository": self._name})
            raise BlobUnknown(digest)
        return info

    async def _checked(self, digest: Digest, reader: ObjectReader) -> ObjectReader:
        """Raises Unavailable for an emptied blob."""
        if is_emptied(digest, reader.size):
            await reader.aclose()
            raise Unavailable(f"blob {digest} is damaged in storage; push it again")
        return reader

    # Manifests

    async def manifest(self, reference: Reference) -> StoredManifest:
        try:
            if not isinstance(reference, Digest):
                return await self._by_tag(reference)
            stored = await self._by_digest(reference)
        except ObjectNotFound as exc:
            raise ManifestUnknown(reference) from exc
        if reference != stored.digest:  # an alias of distribution's
            return StoredManifest(reference, stored.media_type, stored.body)
        return stored

    async def _by_tag(self, tag: Tag) -> StoredManifest:
        """The link lies in this repository and was written last: it needs no revision to vouch for it."""
        return await self._stored(await read_link(self._driver, layout.tag_link(self._name, tag)))

    async def _by_digest(self, digest: Digest) -> StoredManifest:
        return await self._stored(await read_link(self._driver, layout.revision_link(self._name, digest)))

    async def _stored(self, digest: Digest) -> StoredManifest:
        """Raises ObjectNotFound; Unavailable where the bytes are not those of the digest."""
        if (known := self._known.get(digest)) is not None:
            return known
        body = await self._driver.read(layout.blob_data(digest), LARGEST_MANIFEST)
        if Digest.of(body, digest.algorithm) != digest:
            raise Unavailable(f"manifest {digest} is damaged in storage; push it again")
        media_type = await asyncio.to_thread(sniff, body) if len(body) > _IN_LOOP else sniff(body)
        stored = StoredManifest(digest, media_type, body)
        self._known.keep(stored)
        return stored


def is_emptied(digest: Digest, size: int) -> bool:
    """Does an empty object stand under the digest of bytes? Crashes of other software leave such."""
    return size == 0 and digest != Digest.of(b"", digest.algorithm)
