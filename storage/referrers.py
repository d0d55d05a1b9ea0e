"""The referrers index of one repository: which manifests name which subject.

Each referrer is one small object of its own, so that pushes never race for a shared list. The index is a hint beside
distribution's layout and can be rebuilt: what it names is listed only while the revision exists, and what other
registries pushed into the same folder is found by a rescan of revisions that are younger than the last one. Listings
are merged with what old clients keep under the fallback tag `<alg>-<hex>` (spec: Referrers Tag Schema).
"""

import logging
from collections.abc import Awaitable

from storage import layout
from storage.digest import Digest
from storage.driver import StorageDriver
from storage.errors import DigestInvalid, ObjectNotFound, TagInvalid, Unavailable
from storage.links import read_link, write_link
from storage.manifest import Descriptor, Manifest, parse_index_lenient, parse_stored, referrer_descriptor
from storage.names import RepositoryName, parse_tag

log = logging.getLogger(__name__)

_OVERLAP = 300.0
"""Seconds: a rescan looks this far behind the last one, for clocks that differ and writes that were under way."""


class Referrers:
    """The index of one repository.

    rescan: seconds after which revisions are looked through again; None: never, as a registry that may not write.
    """

    def __init__(self, name: RepositoryName, driver: StorageDriver, rescan: float | None) -> None:
        self._name = name
        self._driver = driver
        self._rescan = rescan

    async def add(self, subject: Digest, referrer: Digest) -> None:
        await write_link(self._driver, layout.referrer_link(self._name, subject, referrer), referrer)

    async def keep(self, subject: Digest, referrer: Digest) -> None:
        """Add it again if a delete of the same manifest has removed it since."""
        try:
            await self._driver.head(layout.referrer_link(self._name, subject, referrer))
        except ObjectNotFound:
            await self.add(subject, referrer)

    async def remove(self, subject: Digest, referrer: Digest) -> None:
        await self._driver.delete(layout.referrer_link(self._name, subject, referrer))

    async def find(self, subject: Digest) -> list[Descriptor]:
        """What refers to subject, ordered by digest."""
        unwritten = await self._look_for_news()
        found = {d.digest: d for d in await self._of_fallback_tag(subject)}
        found |= {d.digest: d for d in await self._of_index(subject)}
        found |= {d.digest: d for of, d in unwritten if of == subject}
        return [found[digest] for digest in sorted(found)]

    async def _of_index(self, subject: Digest) -> list[Descriptor]:
        prefix = layout.referrers_of(self._name, subject)
        descriptors = []
        async for info in self._driver.list_objects(prefix):
            try:
                referrer = layout.digest_of_folder(info.key)
                manifest, size = await self._manifest(referrer)
            except (ObjectNotFound, DigestInvalid):
                continue  # deleted, or not ours
            if manifest.subject is not None and manifest.subject.digest == subject:
                descriptors.append(referrer_descriptor(manifest, referrer, size))
        return descriptors

    async def _of_fallback_tag(self, subject: Digest) -> list[Descriptor]:
        try:
            tag = parse_tag(f"{subject.algorithm}-{subject.hex}"[:128])
            target = await read_link(self._driver, layout.tag_link(self._name, tag))
            body = await self._driver.read(layout.blob_data(target))
        except (ObjectNotFound, TagInvalid):
            return []
        return [d for d in parse_index_lenient(body) if await self._exists(d.digest)]

    async def _exists(self, digest: Digest) -> bool:
        try:
            await self._driver.head(layout.revision_link(self._name, digest))
        except ObjectNotFound:
            return False
        return True

    async def _manifest(self, digest: Digest) -> tuple[Manifest, int]:
        target = await read_link(self._driver, layout.revision_link(self._name, digest))
        body = await self._driver.read(layout.blob_data(target))
        return parse_stored(body), len(body)

    async def _look_for_news(self) -> list[tuple[Digest, Descriptor]]:
        """Index the revisions that another registry has written since the last look.

        Returns (subject, referrer) of what could not be written: a full or broken disk must not spoil a listing.
        """
        if self._rescan is None:
            return []
        now, last = await self._driver.now(), 0.0
        marker = layout.referrers_scanned(self._name)
        try:
            last = _time(await self._driver.read(marker))
        except ObjectNotFound:
            if not await self._driver.list_folders(layout.revisions(self._name), limit=1):
                return []  # nobody writes into a repository that does not exist
        if last and now - last < self._rescan:
            return []
        unwritten = []
        async for info in self._driver.list_objects(layout.revisions(self._name)):
            if info.modified >= last - _OVERLAP and (news := await self._referrer(info.key)):
                subject, descriptor = news
                if not await _written(self.add(subject, descriptor.digest)):
                    unwritten.append(news)
        if not unwritten:
            await _written(self._driver.put(marker, b"%f" % now))
        return unwritten

    async def _referrer(self, revision_key: str) -> tuple[Digest, Descriptor] | None:
        """The subject that a revision names, and its descriptor; None where it names none."""
        try:
            digest = layout.digest_of_folder(revision_key)
            manifest, size = await self._manifest(digest)
        except (ObjectNotFound, DigestInvalid):
            return None  # not a revision, or one that cannot be served either
        if manifest.subject is None:
            return None
        return manifest.subject.digest, referrer_descriptor(manifest, digest, size)


def _time(marker: bytes) -> float:
    """When the last look began, by the store's clock; 0 where the marker does not say."""
    try:
        return float(marker)
    except ValueError:
        return 0.0


async def _written(write: Awaitable[object]) -> bool:
    """Whether the store took a part of the index, which is a hint and can wait for the next look."""
    try:
        await write
    except Unavailable as exc:
        log.warning("cannot update the index of referrers, trying again at the next listing: %s", exc)
        return False
    return True
