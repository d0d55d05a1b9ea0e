"""LocalRepository: a repository over one StorageDriver.

Kept thin: sessions are in uploads.py, tags in tags.py, the referrers index in referrers.py, what a manifest may be in
manifest.py. Here is the order in which things are written, so that a crash between any two steps leaves nothing half
visible and a push done again heals: first the bytes, then what gates them, then the tags.
"""

import asyncio
import logging

from storage import layout
from storage.digest import SHA256, Digest
from storage.driver import ObjectReader, StorageDriver
from storage.errors import (
    BlobUnknown,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    ObjectNotFound,
    Unavailable,
)
from storage.facts import ManifestCache
from storage.links import read_link, write_link
from storage.manifest import Descriptor, Manifest, parse, parse_stored, sniff
from storage.names import Reference, RepositoryName, Tag
from storage.ranges import RangeRequest
from storage.referrers import Referrers
from storage.repository import Action, Chunks, Precondition, PutManifest, StoredManifest, TagPage, UploadSession
from storage.rules import ManifestRules
from storage.tags import Tags
from storage.uploads import RunningHashes, Uploads, mount

log = logging.getLogger(__name__)

_IN_LOOP = 64 << 10
"""Bytes of a manifest that are parsed in the event loop; larger ones go to a thread."""

_LARGEST_MANIFEST = 64 << 20
"""Bytes; more than limits.manifestsize allows to push."""

_AT_ONCE = 16
"""Checks of presence that run side by side."""


class LocalRepository:
    """Implements Repository."""

    def __init__(
        self,
        name: RepositoryName,
        driver: StorageDriver,
        *,
        hashes: RunningHashes,
        known: ManifestCache,
        rules: ManifestRules,
        rescan: float | None,
        url_expires: float = 1200.0,
    ) -> None:
        self.name = name
        self._driver = driver
        self._known = known
        self._rules = rules
        self._url_expires = url_expires
        self._tags = Tags(name, driver)
        self._referrers = Referrers(name, driver, rescan)
        self._uploads = Uploads(name, driver, hashes)

    def allow(self, action: Action) -> None:
        """Everything is on offer here; wrappers take away."""

    # Blobs

    async def stat_blob(self, digest: Digest) -> int:
        try:
            info = await self._driver.head(await self._blob_key(digest))
        except ObjectNotFound as exc:
            raise BlobUnknown(digest) from exc
        if _is_emptied(digest, info.size):
            # a client that is told so pushes it again, and that repairs it
            log.warning("a blob is damaged in storage: empty", extra={"digest": str(digest), "repository": self.name})
            raise BlobUnknown(digest)
        return info.size

    async def open_blob(self, digest: Digest, range: RangeRequest | None = None) -> ObjectReader:
        try:
            reader = await self._driver.open(await self._blob_key(digest), range)
        except ObjectNotFound as exc:
            raise BlobUnknown(digest) from exc
        if _is_emptied(digest, reader.size):
            await reader.aclose()
            raise Unavailable(f"blob {digest} is damaged in storage; push it again")
        return reader

    async def blob_url(self, digest: Digest, method: str) -> str | None:
        if not self._driver.offers_urls:
            return None
        return await self._driver.url(await self._blob_key(digest), method, self._url_expires)

    async def mount_blob(self, digest: Digest, source: RepositoryName | None) -> None:
        await mount(self._driver, self.name, digest, source)

    async def delete_blob(self, digest: Digest) -> None:
        await self._blob_key(digest)
        await self._driver.delete(layout.layer_link(self.name, digest))

    async def _blob_key(self, digest: Digest) -> str:
        """Where the bytes are. The link gates them, and may name another digest (distribution's sha512 aliases)."""
        try:
            return layout.blob_data(await read_link(self._driver, layout.layer_link(self.name, digest)))
        except ObjectNotFound as exc:
            raise BlobUnknown(digest) from exc

    # Uploads

    async def start_upload(self, algorithm: str = SHA256) -> UploadSession:
        return await self._uploads.start(algorithm)

    async def upload_status(self, session: UploadSession) -> UploadSession:
        return await self._uploads.status(session)

    async def append_upload(self, session: UploadSession, chunks: Chunks, offset: int | None = None) -> UploadSession:
        return await self._uploads.append(session, chunks, offset)

    async def finish_upload(
        self, session: UploadSession, digest: Digest, chunks: Chunks, offset: int | None = None
    ) -> None:
        await self._uploads.finish(session, digest, chunks, offset)

    async def cancel_upload(self, session: UploadSession) -> None:
        await self._uploads.cancel(session)

    # Manifests

    async def get_manifest(self, reference: Reference) -> StoredManifest:
        try:
            if isinstance(reference, Digest):
                digest = await read_link(self._driver, layout.revision_link(self.name, reference))
            else:
                # the link lies in this repository and was written last: it needs no revision to vouch for it
                digest = await self._tags.get(reference)
            stored = self._known.get(digest) or await self._read_manifest(digest)
        except ObjectNotFound as exc:
            raise ManifestUnknown(reference) from exc
        if isinstance(reference, Digest) and reference != digest:  # an alias of distribution's
            return StoredManifest(reference, stored.media_type, stored.body)
        return stored

    async def _read_manifest(self, digest: Digest) -> StoredManifest:
        """Raises ObjectNotFound; Unavailable where the bytes are not those of the digest."""
        body = await self._driver.read(layout.blob_data(digest), _LARGEST_MANIFEST)
        if Digest.of(body, digest.algorithm) != digest:
            raise Unavailable(f"manifest {digest} is damaged in storage; push it again")
        media_type = await asyncio.to_thread(sniff, body) if len(body) > _IN_LOOP else sniff(body)
        stored = StoredManifest(digest, media_type, body)
        self._known.keep(stored)
        return stored

    async def put_manifest(
        self,
        reference: Reference,
        content_type: str | None,
        body: bytes,
        tags: tuple[Tag, ...] = (),
        precondition: Precondition | None = None,
    ) -> PutManifest:
        digest = reference if isinstance(reference, Digest) else Digest.of(body)
        digest.verify(body)
        manifest = await _parse(body, content_type)
        self._rules.check(manifest)
        absent = await self._check_presence(manifest)
        if not isinstance(reference, Digest):
            tags = (reference, *tags)
        if precondition is not None:
            for tag in tags:  # all before the first is set; a rival between here and there is found by set()
                await self._tags.check(tag, precondition)
        subject = manifest.subject.digest if manifest.subject else None
        await self._driver.put(layout.blob_data(digest), body)
        if subject is not None:
            await self._referrers.add(subject, digest)
        await write_link(self._driver, layout.revision_link(self.name, digest), digest)
        for tag in tags:
            await self._tags.set(tag, digest, precondition)
        if tags:
            await self._keep_revision(digest)
        if subject is not None:
            await self._referrers.keep(subject, digest)
        return PutManifest(digest, subject, absent)

    async def delete_manifest(self, digest: Digest) -> None:
        body = await self._revision_body(digest)
        # before, so that a crash leaves no tag to nothing; and after, for a tag that was set in between
        await self._tags.delete_all_of(digest)
        await self._driver.delete_tree(layout.revision(self.name, digest))
        await self._tags.delete_all_of(digest)
        manifest = parse_stored(body)
        if manifest.subject is not None:
            await self._referrers.remove(manifest.subject.digest, digest)
            if await self._has_revision(digest):  # pushed again meanwhile, and perhaps before its entry went
                await self._referrers.add(manifest.subject.digest, digest)

    async def _revision_body(self, digest: Digest) -> bytes:
        """The bytes of a manifest, be they damaged: it can be deleted all the same. Raises ManifestUnknown."""
        try:
            target = await read_link(self._driver, layout.revision_link(self.name, digest))
            return await self._driver.read(layout.blob_data(target), _LARGEST_MANIFEST)
        except ObjectNotFound as exc:
            raise ManifestUnknown(digest) from exc

    async def delete_tag(self, tag: Tag) -> None:
        await self._tags.delete(tag)

    async def list_tags(self, after: str, limit: int) -> TagPage:
        return await self._tags.page(after, limit)

    async def list_referrers(self, subject: Digest) -> list[Descriptor]:
        return await self._referrers.find(subject)

    async def _keep_revision(self, digest: Digest) -> None:
        """Write the revision again if a delete of the same manifest came between it and the tag."""
        if not await self._has_revision(digest):
            await write_link(self._driver, layout.revision_link(self.name, digest), digest)

    async def _has_revision(self, digest: Digest) -> bool:
        try:
            await self._driver.head(layout.revision_link(self.name, digest))
        except ObjectNotFound:
            return False
        return True

    async def _check_presence(self, manifest: Manifest) -> tuple[Digest, ...]:
        """What the manifest names and is not here, where the rules allow that.

        Raises ManifestBlobUnknown where they do not; ManifestInvalid for what has another size than announced.
        """
        required = self._rules.required(manifest)
        named = (*manifest.blobs, *manifest.children)
        slots = asyncio.Semaphore(_AT_ONCE)
        sizes = await asyncio.gather(*(self._size(d, slots) for d in named))
        absent = tuple(dict.fromkeys(d.digest for d, size in zip(named, sizes, strict=True) if size is None))
        if missing := [digest for digest in absent if digest in required]:
            raise ManifestBlobUnknown(missing)
        for descriptor, size in zip(named, sizes, strict=True):
            if size is not None and size != descriptor.size:
                raise ManifestInvalid(f"{descriptor.digest} has {size} bytes, its descriptor says {descriptor.size}")
        return absent

    async def _size(self, descriptor: Descriptor, slots: asyncio.Semaphore) -> int | None:
        """Bytes of what this repository holds under the digest, as manifest or as blob; None: nothing."""
        async with slots:
            for link in (layout.layer_link, layout.revision_link):
                try:
                    target = await read_link(self._driver, link(self.name, descriptor.digest))
                    return (await self._driver.head(layout.blob_data(target))).size
                except ObjectNotFound:
                    continue
        return None


def _is_emptied(digest: Digest, size: int) -> bool:
    """Does an empty object stand under the digest of bytes? Crashes of other software leave such."""
    return size == 0 and digest != Digest.of(b"", digest.algorithm)


async def _parse(body: bytes, content_type: str | None) -> Manifest:
    if len(body) > _IN_LOOP:
        return await asyncio.to_thread(parse, body, content_type)
    return parse(body, content_type)
