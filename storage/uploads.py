"""Upload sessions of one repository: offsets, the hash that runs along, and the step from stage to blob.

The staged bytes are the record. What else we know is a cache that is used only while its length is the stored length:
the running hash of this process, and the digest of the bytes so far that the client carries in its signed session. So
the usual push (POST, PATCH, PUT without body) never reads the staged bytes again, in whichever process the PUT arrives.

A blob whose digest is known before its bytes needs no session: it goes to its key at once, or not at all.
"""

import asyncio
import uuid
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

from storage import layout
from storage.digest import SHA256, Digest, RunningHash, check_algorithm
from storage.driver import StorageDriver
from storage.errors import (
    BlobUnknown,
    DigestMismatch,
    ObjectNotFound,
    OffsetMismatch,
    StorageError,
    StorageFull,
    UploadUnknown,
)
from storage.garbage.renewals import Renewals
from storage.links import read_link, write_link
from storage.names import RepositoryName
from storage.repository import Chunks, UploadSession


class RunningHashes:
    """The running hashes of this process's sessions, the least recently used dropped first."""

    def __init__(self, limit: int = 1024) -> None:
        self._hashes: OrderedDict[str, RunningHash] = OrderedDict()
        self._limit = limit

    def take(self, session: UploadSession, offset: int) -> RunningHash | None:
        """The hash of bytes 0 to offset, handed over to the caller; None where it is not known."""
        running = self._hashes.get(session.id)
        if running is not None and running.offset == offset and running.algorithm == session.algorithm:
            return self._hashes.pop(session.id)
        return RunningHash(session.algorithm) if offset == 0 else None

    def keep(self, session: UploadSession, running: RunningHash) -> None:
        self._hashes[session.id] = running
        if len(self._hashes) > self._limit:
            self._hashes.popitem(last=False)

    def drop(self, session: UploadSession) -> None:
        self._hashes.pop(session.id, None)


class Uploads:
    """The upload verbs of a repository; see RepositoryWriter for what they promise."""

    def __init__(self, name: RepositoryName, driver: StorageDriver, hashes: RunningHashes, renewals: Renewals) -> None:
        self._name = name
        self._driver = driver
        self._hashes = hashes
        self._renewals = renewals

    async def start(self, algorithm: str = SHA256) -> UploadSession:
        check_algorithm(algorithm)
        now = datetime.fromtimestamp(await self._driver.now(), UTC)
        session = new_session(algorithm, now)
        # distribution asks for both before it goes on with a session
        await self._driver.put(self._started_key(session), session.started.encode("ascii"))
        await self._driver.begin(self._key(session))
        return session

    async def put(self, digest: Digest, chunks: Chunks, length: int | None = None) -> None:
        """A whole blob whose digest is known first."""
        await self._write(digest, chunks, length)

    async def status(self, session: UploadSession) -> UploadSession:
        try:
            stage = await self._driver.find_stage(self._key(session))
            info = await self._driver.stage_info(stage)
        except ObjectNotFound as exc:
            raise UploadUnknown from exc
        return session if info.offset == session.offset else replace(session, offset=info.offset, prefix=None)

    async def append(self, session: UploadSession, chunks: Chunks, offset: int | None = None) -> UploadSession:
        offset = session.offset if offset is None else offset
        running = self._hashes.take(session, offset)
        try:
            stage = await self._driver.find_stage(self._key(session))
            stored = await self._driver.append(stage, offset, chunks, running.update if running else None)
        except ObjectNotFound as exc:
            raise UploadUnknown from exc
        except StorageFull:
            if offset == 0:
                await self._give_back(session)
            raise
        finally:
            # also after a broken connection: the client may come back for the rest
            if running is not None and running.offset:
                self._hashes.keep(session, running)
        known = running is not None and running.offset == stored
        return replace(session, offset=stored, prefix=running.digest if running is not None and known else None)

    async def finish(
        self,
        session: UploadSession,
        digest: Digest,
        chunks: Chunks,
        offset: int | None = None,
        length: int | None = None,
    ) -> None:
        """length: bytes that chunks will bring. With it nothing is read ahead, and a direct way stays open."""
        await self._finish(session, digest, await body_of(chunks, length), offset)

    async def cancel(self, session: UploadSession) -> None:
        try:
            await self._driver.stage_info(await self._driver.find_stage(self._key(session)))
        except ObjectNotFound as exc:
            raise UploadUnknown from exc
        await self._remove(session)

    async def _give_back(self, session: UploadSession) -> None:
        """A body that did not fit: it would fill the store until it is purged, as most clients begin anew with POST."""
        with suppress(StorageError):
            await self._driver.begin(self._key(session))

    # Steps of put and finish

    async def _write(self, digest: Digest, chunks: Chunks, length: int | None) -> None:
        running = RunningHash(digest.algorithm)

        def verify() -> None:
            if running.digest != digest:
                raise DigestMismatch(digest, running.digest)

        # of no session, and of nobody else: two clients may send the same at once
        staging = layout.upload_data(self._name, str(uuid.uuid4()))
        try:
            await self._driver.write_content(
                layout.blob_data(digest),
                chunks,
                staging=staging,
                tap=running.update,
                verify=verify,
                length=length,
                sha256=bytes.fromhex(digest.hex) if digest.algorithm == SHA256 else None,
                fresh=self._renewals.fresh,
            )
        except ObjectNotFound as exc:  # purged while it came, or taken away
            raise UploadUnknown from exc
        await write_link(self._driver, layout.layer_link(self._name, digest), digest)

    async def _finish(self, session: UploadSession, digest: Digest, body: Chunks | None, offset: int | None) -> None:
        """body: what is still to be appended; None where there is nothing."""
        if session.offset == 0:  # nothing is hashed yet: do it in the algorithm that is asked for
            session = replace(session, algorithm=digest.algorithm, prefix=None)
        try:
            whole = await self._received(session, digest, body, offset)
            actual = await self._digest(whole, digest.algorithm)
            if actual != digest:
                if body is not None:
                    await self._remove(whole)
                raise DigestMismatch(digest, actual)
            await self._publish(whole, digest)
        except UploadUnknown:
            if not await self._is_finished(session, digest):
                raise

    async def _received(
        self, session: UploadSession, digest: Digest, body: Chunks | None, offset: int | None
    ) -> UploadSession:
        if body is not None:
            return await self.append(session, body, offset)
        if session.prefix == digest and offset in (None, session.offset):
            return session  # all that it needs; should there be more bytes by now, publishing finds them
        stored = await self.status(session)
        if offset is not None and offset != stored.offset:
            raise OffsetMismatch(stored.offset)
        return stored

    async def _digest(self, session: UploadSession, algorithm: str) -> Digest:
        """The digest of the staged bytes: as it was computed on their way in, else by reading them once."""
        if session.prefix is not None and session.prefix.algorithm == algorithm:
            return session.prefix
        running = self._hashes.take(session, session.offset)
        if running is not None and running.algorithm == algorithm:
            return running.digest
        running = RunningHash(algorithm)
        if session.offset:
            try:
                stage = await self._driver.find_stage(self._key(session))
                await self._driver.complete(stage, session.offset)
                async with await self._driver.open(self._key(session)) as reader:
                    async for chunk in reader.chunks():
                        await asyncio.to_thread(running.update, chunk)
            except ObjectNotFound as exc:
                raise UploadUnknown from exc
        return running.digest

    async def _publish(self, session: UploadSession, digest: Digest) -> None:
        try:
            stage = await self._driver.find_stage(self._key(session))
            await self._driver.publish(
                stage, self._key(session), layout.blob_data(digest), session.offset, fresh=self._renewals.fresh
            )
        except ObjectNotFound as exc:
            raise UploadUnknown from exc
        await self._conclude(session, digest)

    async def _conclude(self, session: UploadSession, digest: Digest) -> None:
        """The blob is there: link it, then forget the session."""
        await write_link(self._driver, layout.layer_link(self._name, digest), digest)
        await self._remove(session)

    async def _is_finished(self, session: UploadSession, digest: Digest) -> bool:
        """Has an earlier request finished this session, so that only its answer was lost?

        Either the blob is in this repository; or a crash came between blob and link, and the session, which we signed,
        says that its client has sent all of these bytes: then the link is due.
        """
        try:
            target = await read_link(self._driver, layout.layer_link(self._name, digest))
            await self._renewals.renew(await self._driver.head(layout.blob_data(target)))
        except ObjectNotFound:
            if session.prefix != digest:
                return False
        else:
            return True
        try:
            info = await self._driver.head(layout.blob_data(digest))
            if info.size != session.offset:
                return False
            await self._renewals.renew(info)
        except ObjectNotFound:
            return False
        await write_link(self._driver, layout.layer_link(self._name, digest), digest)
        return True

    async def _remove(self, session: UploadSession) -> None:
        self._hashes.drop(session)
        await self._driver.abort(await self._driver.find_stage(self._key(session)))
        await self._driver.delete_tree(layout.upload(self._name, session.id))

    def _key(self, session: UploadSession) -> str:
        return layout.upload_data(self._name, session.id)

    def _started_key(self, session: UploadSession) -> str:
        return layout.upload_started(self._name, session.id)


def new_session(algorithm: str, now: datetime) -> UploadSession:
    return UploadSession(str(uuid.uuid4()), 0, now.strftime("%Y-%m-%dT%H:%M:%SZ"), algorithm)


async def mount(
    driver: StorageDriver, renewals: Renewals, target: RepositoryName, digest: Digest, source: RepositoryName | None
) -> None:
    """Link a blob of `source` (None: of any repository) into `target`. Raises BlobUnknown."""
    try:
        data = digest
        if source is not None:
            data = await read_link(driver, layout.layer_link(source, digest))
        info = await driver.head(layout.blob_data(data))
    except ObjectNotFound as exc:
        raise BlobUnknown(digest) from exc
    if data != digest:
        # a link by distribution from a sha512 name to sha256 data: its garbage collector would delete such data
        raise BlobUnknown(digest)
    if info.size == 0 and digest != Digest.of(b"", digest.algorithm):
        raise BlobUnknown(digest)  # emptied by a crash: the client now uploads it, and so heals it everywhere
    try:
        await renewals.renew(info)
    except ObjectNotFound as exc:
        raise BlobUnknown(digest) from exc
    await write_link(driver, layout.layer_link(target, digest), digest)


async def body_of(chunks: Chunks, length: int | None) -> Chunks | None:
    """The chunks; None where there are none. As they are where their length is known: they may be a DirectChunks."""
    if length is not None:
        return chunks if length else None
    first = await anext(chunks, b"")
    return joined(first, chunks) if first else None


async def joined(first: bytes, rest: Chunks) -> AsyncIterator[bytes]:
    """rest, with what was taken from it before."""
    yield first
    async for chunk in rest:
        yield chunk
