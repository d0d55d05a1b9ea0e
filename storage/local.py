"""LocalRepository: a repository over one StorageDriver.

Kept thin: reading is in reading.py, what a manifest finds here in held.py, sessions in uploads.py, tags in tags.py, the
referrers index in referrers.py, what a manifest may be in manifest.py, the order of its writing in publishing.py. Where
a driver's calls are dear, the thrifty kinds of these do the work. Here is what joins them, and the order in which
things are deleted: the tags first, so that a crash leaves none that names nothing.
"""

import asyncio
from functools import partial

from storage import layout
from storage.digest import SHA256, Digest
from storage.driver import ObjectReader, StorageDriver
from storage.errors import BlobUnknown, ManifestUnknown, ObjectNotFound
from storage.garbage.renewals import Renewals
from storage.held import Holdings
from storage.links import read_link
from storage.manifest import Descriptor, Manifest, parse, parse_stored
from storage.names import Reference, RepositoryName, Tag
from storage.publishing import Publishing
from storage.ranges import RangeRequest
from storage.reading import LARGEST_MANIFEST, Reading
from storage.referrers import Referrers
from storage.repository import Action, Chunks, Precondition, PutManifest, StoredManifest, TagPage, UploadSession
from storage.rules import ManifestRules
from storage.tags import Tags
from storage.uploads import Uploads, mount

_IN_LOOP = 64 << 10
"""Bytes of a manifest that are parsed in the event loop; larger ones go to a thread."""


class LocalRepository:
    """Implements Repository. url_expires: seconds for which a redirect to the store is good; None: there are none."""

    def __init__(
        self,
        name: RepositoryName,
        driver: StorageDriver,
        *,
        reading: Reading,
        uploads: Uploads,
        tags: Tags,
        referrers: Referrers,
        publishing: Publishing,
        rules: ManifestRules,
        renewals: Renewals,
        url_expires: float | None,
    ) -> None:
        self.name = name
        self._driver = driver
        self._reading = reading
        self._uploads = uploads
        self._tags = tags
        self._referrers = referrers
        self._publishing = publishing
        self._rules = rules
        self._renewals = renewals
        self._holdings = Holdings(driver, reading, rules, renewals)
        self._url_expires = url_expires

    def allow(self, action: Action) -> None:
        """Everything is on offer here; wrappers take away."""

    # Blobs

    async def stat_blob(self, digest: Digest) -> int:
        return await self._reading.stat(digest)

    async def open_blob(self, digest: Digest, range: RangeRequest | None = None) -> ObjectReader:
        return await self._reading.open(digest, range)

    async def blob_url(self, digest: Digest, method: str) -> str | None:
        if self._url_expires is None:
            return None
        return await self._reading.url(digest, method, self._url_expires)

    async def mount_blob(self, digest: Digest, source: RepositoryName | None) -> None:
        await mount(self._driver, self._renewals, self.name, digest, source)

    async def delete_blob(self, digest: Digest) -> None:
        link = layout.layer_link(self.name, digest)
        try:
            await read_link(self._driver, link)
        except ObjectNotFound as exc:
            raise BlobUnknown(digest) from exc
        await self._driver.delete(link)
        self._reading.deleted(link)

    # Uploads

    async def start_upload(self, algorithm: str = SHA256) -> UploadSession:
        return await self._uploads.start(algorithm)

    async def upload_status(self, session: UploadSession) -> UploadSession:
        return await self._uploads.status(session)

    async def append_upload(self, session: UploadSession, chunks: Chunks, offset: int | None = None) -> UploadSession:
        return await self._uploads.append(session, chunks, offset)

    async def finish_upload(
        self,
        session: UploadSession,
        digest: Digest,
        chunks: Chunks,
        offset: int | None = None,
        length: int | None = None,
    ) -> None:
        await self._uploads.finish(session, digest, chunks, offset, length)

    async def put_blob(self, digest: Digest, chunks: Chunks, length: int | None = None) -> None:
        await self._uploads.put(digest, chunks, length)

    async def cancel_upload(self, session: UploadSession) -> None:
        await self._uploads.cancel(session)

    # Manifests

    async def get_manifest(self, reference: Reference) -> StoredManifest:
        return await self._reading.manifest(reference)

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
        presence = await self._holdings.check(manifest)
        if not isinstance(reference, Digest):
            tags = (reference, *tags)
        if precondition is not None:
            for tag in tags:  # all before the first is set; a rival between here and there is found by set()
                await self._tags.check(tag, precondition)
        subject = manifest.subject.digest if manifest.subject else None
        again = partial(self._holdings.look_again, presence) if presence.renewed else None
        await self._publishing.publish(digest, body, subject, tags, precondition, again)
        return PutManifest(digest, subject, presence.absent)

    async def delete_manifest(self, digest: Digest) -> None:
        body = await self._revision_body(digest)
        # before, so that a crash leaves no tag to nothing; and after, for a tag that was set in between
        await self._tags.delete_all_of(digest)
        await self._driver.delete_tree(layout.revision(self.name, digest))
        self._reading.deleted(layout.revision_link(self.name, digest))
        await self._tags.delete_all_of(digest)
        manifest = parse_stored(body)
        if manifest.subject is not None:
            await self._referrers.remove(manifest.subject.digest, digest)
            if await self._publishing.has_revision(digest):  # pushed again meanwhile, and perhaps before its entry went
                await self._referrers.add(manifest.subject.digest, digest)

    async def _revision_body(self, digest: Digest) -> bytes:
        """The bytes of a manifest, be they damaged: it can be deleted all the same. Raises ManifestUnknown."""
        try:
            target = await read_link(self._driver, layout.revision_link(self.name, digest))
            return await self._driver.read(layout.blob_data(target), LARGEST_MANIFEST)
        except ObjectNotFound as exc:
            raise ManifestUnknown(digest) from exc

    async def delete_tag(self, tag: Tag) -> None:
        await self._tags.delete(tag)

    async def list_tags(self, after: str, limit: int) -> TagPage:
        return await self._tags.page(after, limit)

    async def list_referrers(self, subject: Digest) -> list[Descriptor]:
        return await self._referrers.find(subject)


async def _parse(body: bytes, content_type: str | None) -> Manifest:
    if len(body) > _IN_LOOP:
        return await asyncio.to_thread(parse, body, content_type)
    return parse(body, content_type)
