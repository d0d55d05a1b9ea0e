"""ThriftyUploads: upload sessions in few calls, for stores where a call is a round trip.

- A session begins in the store with its first PATCH; until then the signed Location is all there is of it, and a client
  that comes with the whole blob and its digest (POST, PUT) never makes one: the bytes go to their key at once.
- A session that began leaves exactly two keys, which are deleted by name: nothing is listed. What distribution adds to
  a session that it goes on with (hashstates) waits for the purge of abandoned uploads.
- A Location whose offset is 0 therefore does not say whether its session has begun, or has ended. The process that
  began or ended it knows; another one asks the store, and takes a session that is not there for one that has not begun.
  So an ended session can be begun again elsewhere, with the Location of its POST: by who was allowed to begin one, into
  the same repository, for as long as that Location is valid; what comes of it is an upload like any other. To remember
  the end everywhere would cost every push one more object and two more calls.
- `shareable`: distribution asks for startedat and a multipart upload before it goes on with a session. With it both are
  made at the POST.
"""

import asyncio
from collections import OrderedDict
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from weakref import WeakValueDictionary

from storage import layout
from storage.digest import SHA256, Digest, check_algorithm
from storage.driver import StorageDriver
from storage.errors import DigestMismatch, ObjectNotFound, OffsetMismatch, UploadUnknown
from storage.links import write_link
from storage.names import RepositoryName
from storage.parallel import at_once
from storage.repository import Chunks, UploadSession
from storage.uploads import RunningHashes, Uploads, joined, new_session


class Touched:
    """Sessions that have begun or ended in this process, the oldest forgotten first."""

    def __init__(self, limit: int = 16_384) -> None:
        self._ids: OrderedDict[str, None] = OrderedDict()
        self._limit = limit
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def add(self, session: UploadSession) -> None:
        self._ids[session.id] = None
        self._ids.move_to_end(session.id)
        if len(self._ids) > self._limit:
            self._ids.popitem(last=False)

    def __contains__(self, session: UploadSession) -> bool:
        return session.id in self._ids

    def alone(self, session: UploadSession) -> AbstractAsyncContextManager[None]:
        """One at a time for each session. Not to be held while waiting for a client."""
        lock = self._locks.get(session.id)
        if lock is None:
            self._locks[session.id] = lock = asyncio.Lock()
        return lock


class ThriftyUploads(Uploads):
    """shareable: a session is in the store from its start on."""

    def __init__(
        self,
        name: RepositoryName,
        driver: StorageDriver,
        hashes: RunningHashes,
        fresh: float,
        *,
        touched: Touched,
        shareable: bool,
    ) -> None:
        super().__init__(name, driver, hashes, fresh)
        self._touched = touched
        self._shareable = shareable

    async def start(self, algorithm: str = SHA256) -> UploadSession:
        # our own clock: the store's may cost a call, and this time is only shown
        session = new_session(check_algorithm(algorithm), datetime.now(UTC))
        if self._shareable:
            await self._begin(session)
        return session

    async def status(self, session: UploadSession) -> UploadSession:
        try:
            return await super().status(session)
        except UploadUnknown:
            if not self._may_begin(session):
                raise
            return session

    async def append(self, session: UploadSession, chunks: Chunks, offset: int | None = None) -> UploadSession:
        if self._may_begin(session):
            await self._begin_once(session, session.offset if offset is None else offset)
        self._touched.add(session)
        return await super().append(session, chunks, offset)

    async def finish(
        self,
        session: UploadSession,
        digest: Digest,
        chunks: Chunks,
        offset: int | None = None,
        length: int | None = None,
    ) -> None:
        first = await anext(chunks, b"")
        everything = bool(first) or digest == Digest.of(b"", digest.algorithm)
        if everything and not offset and session.offset == 0 and session not in self._touched:
            await self._finish_at_once(session, digest, joined(first, chunks), length)
        else:
            await self._finish(session, digest, first, chunks, offset)

    async def cancel(self, session: UploadSession) -> None:
        try:
            await super().cancel(session)
        except UploadUnknown:
            if not self._may_begin(session):
                raise
        self._touched.add(session)

    async def _finish_at_once(self, session: UploadSession, digest: Digest, chunks: Chunks, length: int | None) -> None:
        """The whole blob comes with the closing PUT."""
        try:
            await self._write(digest, chunks, length)
        except DigestMismatch:
            await self._end_unused(session)
            raise
        await self._end_unused(session)

    async def _end_unused(self, session: UploadSession) -> None:
        if self._shareable:
            stage = await self._driver.find_stage(self._key(session))
            await at_once(self._driver.abort(stage), self._driver.delete(self._started_key(session)))
        self._touched.add(session)

    def _may_begin(self, session: UploadSession) -> bool:
        """Is a session that the store does not know one that has not begun?"""
        return not self._shareable and session.offset == 0 and session not in self._touched

    async def _begin_once(self, session: UploadSession, offset: int) -> None:
        """Begin the session, unless another request has, in whatever process. Raises OffsetMismatch."""
        async with self._touched.alone(session):
            if session in self._touched:
                return
            try:
                await self._driver.stage_info(await self._driver.find_stage(self._key(session)))
            except ObjectNotFound:
                if offset:
                    raise OffsetMismatch(0) from None
                await self._begin(session)
            self._touched.add(session)

    async def _begin(self, session: UploadSession) -> None:
        await at_once(
            self._driver.put(self._started_key(session), session.started.encode("ascii")),
            self._driver.begin(self._key(session)),
        )

    async def _conclude(self, session: UploadSession, digest: Digest) -> None:
        """The staged bytes have moved: startedat is all that is left."""
        self._hashes.drop(session)
        self._touched.add(session)
        await at_once(
            write_link(self._driver, layout.layer_link(self._name, digest), digest),
            self._driver.delete(self._started_key(session)),
        )

    async def _remove(self, session: UploadSession) -> None:
        self._hashes.drop(session)
        key = self._key(session)
        await self._driver.abort(await self._driver.find_stage(key))
        # the staged bytes are an object where they had to be read again
        await at_once(self._driver.delete(key), self._driver.delete(self._started_key(session)))
