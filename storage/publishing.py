"""Writing a manifest: the order in which its objects appear, so that nobody ever sees a tag of nothing.

The bytes; the entry among the referrers, a hint that counts only once the revision is there; the revision, which gates
the bytes; what the tag has ever named (distribution's order, and its `garbage-collect -m` reads it); the tag, last. A
crash between any two leaves nothing half visible, and a push done again heals.

A collector of garbage sees what a manifest needs from its revision on. What it may have taken before that is found by a
second look between revision and tag (garbage/renewals.py); then the revision goes again.
"""

from collections.abc import Awaitable, Callable

from storage import layout
from storage.digest import SHA256, Digest
from storage.driver import StorageDriver
from storage.enclosed import enclose
from storage.errors import ManifestBlobUnknown, ObjectNotFound
from storage.links import write_link, write_noted_link
from storage.names import RepositoryName, Tag
from storage.parallel import at_once
from storage.referrers import Referrers
from storage.repository import Precondition
from storage.tags import Tags

Look = Callable[[], Awaitable[None]]
"""Raises ManifestBlobUnknown when something that the manifest needs has gone."""


class Publishing:
    """One after the other: as it costs least where a call is cheap. fresh: seconds, see StorageDriver.put_content."""

    def __init__(
        self, name: RepositoryName, driver: StorageDriver, tags: Tags, referrers: Referrers, fresh: float
    ) -> None:
        self._name = name
        self._driver = driver
        self._tags = tags
        self._referrers = referrers
        self._fresh = fresh

    async def publish(
        self,
        digest: Digest,
        body: bytes,
        subject: Digest | None,
        tags: tuple[Tag, ...],
        precondition: Precondition | None,
        look_again: Look | None = None,
    ) -> None:
        """look_again: called where it is due; None: there is nothing to look at."""
        await self._put_body(digest, body)
        if subject is not None:
            await self._referrers.add(subject, digest)
        await self._reveal(digest, body, look_again)
        for tag in tags:
            await self._tags.set(tag, digest, precondition)
        await self._keep(digest, body, subject, tags)

    async def has_revision(self, digest: Digest) -> bool:
        try:
            await self._driver.head(layout.revision_link(self._name, digest))
        except ObjectNotFound:
            return False
        return True

    async def _put_body(self, digest: Digest, body: bytes) -> None:
        sha256 = bytes.fromhex(digest.hex) if digest.algorithm == SHA256 else None
        await self._driver.put_content(layout.blob_data(digest), body, sha256=sha256, fresh=self._fresh)

    async def _reveal(self, digest: Digest, body: bytes, look_again: Look | None) -> None:
        if look_again is None:
            await self._put_revision(digest, body)
            return
        stood = await self.has_revision(digest)
        await self._put_revision(digest, body)
        try:
            await look_again()
        except ManifestBlobUnknown:
            if not stood:  # else it was no worse before, and tags may name it
                await self._driver.delete(layout.revision_link(self._name, digest))
            raise

    async def _put_revision(self, digest: Digest, body: bytes) -> None:
        await write_link(self._driver, layout.revision_link(self._name, digest), digest)

    async def _keep(self, digest: Digest, body: bytes, subject: Digest | None, tags: tuple[Tag, ...]) -> None:
        """Write again what a delete of the same manifest has removed between its being written and the tag."""
        if tags and not await self.has_revision(digest):
            await self._put_revision(digest, body)
        if subject is not None:
            await self._referrers.keep(subject, digest)


class ThriftyPublishing(Publishing):
    """At once what need not wait for another: three steps in time, for stores where a call is a round trip.

    The hint may appear with the bytes, and what a tag has ever named with the revision: neither is looked at without
    what follows. deletes: can a delete come in between at all? If not, nothing is looked at again.
    """

    def __init__(
        self,
        name: RepositoryName,
        driver: StorageDriver,
        tags: Tags,
        referrers: Referrers,
        fresh: float,
        *,
        deletes: bool,
    ) -> None:
        super().__init__(name, driver, tags, referrers, fresh)
        self._deletes = deletes

    async def publish(
        self,
        digest: Digest,
        body: bytes,
        subject: Digest | None,
        tags: tuple[Tag, ...],
        precondition: Precondition | None,
        look_again: Look | None = None,
    ) -> None:
        hint = [] if subject is None else [self._referrers.add(subject, digest)]
        await at_once(self._put_body(digest, body), *hint)
        if look_again is not None:  # it may end here: then no half a tag is to be left
            await self._reveal(digest, body, look_again)
        revision = [self._put_revision(digest, body)] if look_again is None else []
        await at_once(*revision, *(self._tags.record(tag, digest) for tag in tags))
        await at_once(*(self._tags.point(tag, digest, precondition) for tag in tags))
        if self._deletes:
            await self._keep(digest, body, subject, tags)

    async def _put_revision(self, digest: Digest, body: bytes) -> None:
        await write_noted_link(self._driver, layout.revision_link(self._name, digest), digest, enclose(body))
