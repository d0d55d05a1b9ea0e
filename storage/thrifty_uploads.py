"""ThriftyUploads: upload sessions in few calls, for stores where a call is a round trip.

- A session begins in the store with its first PATCH; until then the signed Location is all there is of it, and a client
  that comes with the whole blob and its digest (POST, PUT) never makes one: the bytes go to their key at once.
- It begins under a new id, which the Location of that PATCH has. So no id is ever begun twice: a digest that we signed,
  or that ran along, for so many bytes of an id would else be taken for that of other bytes, and these be published.
- Which id the Location of a POST has become, and that it has ended, is known to the process that did it. Another one
  takes it for a session that has not begun, which is as good as a new POST: whoever has it may send that as well. Only
  bytes of a first PATCH that broke off are lost with that, and the client sends them again. To remember it everywhere
  would cost every push one more object and two more calls.
- A session leaves exactly two keys, which are deleted by name: nothing is listed. What distribution adds to a session
  that it goes on with (hashstates) waits for the purge of abandoned uploads.
- `shareable`: distribution asks for startedat and a multipart upload before it goes on with a session. With it both are
  made at the POST. A session that is so (`stored`), as all of distribution's are, keeps its id wherever it goes on.
"""

import asyncio
import uuid
from collections import OrderedDict
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import UTC, datetime
from weakref import WeakValueDictionary

from storage import layout
from storage.digest import SHA256, Digest, check_algorithm
from storage.driver import StorageDriver
from storage.errors import DigestMismatch, OffsetMismatch
from storage.garbage.renewals import Renewals
from storage.links import write_link
from storage.names import RepositoryName
from storage.parallel import at_once
from storage.repository import Chunks, UploadSession
from storage.uploads import RunningHashes, Uploads, body_of, new_session


class Begun:
    """Ids of sessions that this process has begun or ended, and the ids under which they are staged.

    The oldest are forgotten first. What has ended is staged nowhere, under its own id.
    """

    def __init__(self, limit: int = 16_384) -> None:
        self._staged: OrderedDict[str, str] = OrderedDict()
        self._limit = limit
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def get(self, session: UploadSession) -> str | None:
        return self._staged.get(session.id)

    def keep(self, session: UploadSession, staged: str) -> None:
        self._staged[session.id] = staged
        self._staged.move_to_end(session.id)
        if len(self._staged) > self._limit:
            self._staged.popitem(last=False)

    def end(self, session: UploadSession) -> None:
        self.keep(session, session.id)

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
        renewals: Renewals,
        *,
        begun: Begun,
        shareable: bool,
    ) -> None:
        super().__init__(name, driver, hashes, renewals)
        self._begun = begun
        self._shareable = shareable

    async def start(self, algorithm: str = SHA256) -> UploadSession:
        # our own clock: the store's may cost a call, and this time is only shown
        session = new_session(check_algorithm(algorithm), datetime.now(UTC))
        if not self._shareable:
            return session
        await self._begin(session)
        return replace(session, stored=True)

    async def status(self, session: UploadSession) -> UploadSession:
        if self._may_begin(session):
            return session
        return await super().status(self._staged(session))

    async def append(self, session: UploadSession, chunks: Chunks, offset: int | None = None) -> UploadSession:
        if self._may_begin(session):
            if offset:
                raise OffsetMismatch(0)
            await self._begin_once(session)
        return await super().append(self._staged(session), chunks, offset)

    async def finish(
        self,
        session: UploadSession,
        digest: Digest,
        chunks: Chunks,
        offset: int | None = None,
        length: int | None = None,
    ) -> None:
        body = await body_of(chunks, length)
        everything = body is not None or digest == Digest.of(b"", digest.algorithm)
        if everything and not offset and session.offset == 0 and self._begun.get(session) is None:
            await self._finish_at_once(session, digest, chunks if body is None else body, length)
        else:
            await self._finish(self._staged(session), digest, body, offset)

    async def cancel(self, session: UploadSession) -> None:
        if not self._may_begin(session):
            await super().cancel(self._staged(session))
        self._begun.end(session)

    async def _finish_at_once(self, session: UploadSession, digest: Digest, chunks: Chunks, length: int | None) -> None:
        """The whole blob comes with the closing PUT."""
        try:
            await self._write(digest, chunks, length)
        except DigestMismatch:
            await self._end_unused(session)
            raise
        await self._end_unused(session)

    async def _end_unused(self, session: UploadSession) -> None:
        if self._shareable or session.stored:
            stage = await self._driver.find_stage(self._key(session))
            await at_once(self._driver.abort(stage), self._driver.delete(self._started_key(session)))
        self._begun.end(session)

    def _may_begin(self, session: UploadSession) -> bool:
        """Has the session not begun, for all that is known here?"""
        return not self._shareable and not session.stored and session.offset == 0 and self._begun.get(session) is None

    def _staged(self, session: UploadSession) -> UploadSession:
        """The session under the id that its bytes are staged under."""
        if session.offset or (id := self._begun.get(session)) is None:
            return session
        return replace(session, id=id)

    async def _begin_once(self, session: UploadSession) -> None:
        """Unless another request has, in this process."""
        async with self._begun.alone(session):
            if self._begun.get(session) is None:
                staged = replace(session, id=str(uuid.uuid4()))
                await self._begin(staged)
                self._begun.keep(session, staged.id)
                self._begun.keep(staged, staged.id)

    async def _begin(self, session: UploadSession) -> None:
        """Once for every id: see the module's docstring."""
        await at_once(
            self._driver.put(self._started_key(session), session.started.encode("ascii")),
            self._driver.begin(self._key(session)),
        )

    async def _conclude(self, session: UploadSession, digest: Digest) -> None:
        """The staged bytes have moved: startedat is all that is left."""
        self._hashes.drop(session)
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
