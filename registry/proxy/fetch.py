"""One blob on its way from an upstream into the cache, for any number of readers meanwhile.

    upstream ──chunks──> Writer ──> Spool (a growing file, hashed) ──digest agrees──> the blob of the cache
                                      └─ FetchReader, FetchReader, ... each at its own speed

Rules:
- A fetch is nobody's: it goes on when the client that caused it leaves, and no reader makes it wait.
- Readers get bytes that are not verified yet, but never the last HELD of the blob: these come once length and digest
  agree. A wrong blob is for no client a complete answer, and it is not published.
- An upstream that breaks off is asked for the rest by Range, RESUMES times in a row without PROGRESS.
- Who has been told nothing yet gets the upstream's error as its status, everybody else a connection that is cut.
"""

import asyncio
import io
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from typing import Any, Protocol

from registry.proxy.answers import WRONG
from registry.proxy.blobs import BlobStream
from registry.proxy.patience import backoff
from registry.proxy.spool import Spool, Writer, duplicate, read_at
from registry.proxy.tally import Tally
from registry.proxy.transport import BROKEN
from storage.digest import Digest
from storage.driver import ObjectReader
from storage.errors import StorageError, TooManyRequests, Unavailable, UpstreamBusy, UpstreamUnavailable
from storage.names import RepositoryName
from storage.ranges import ByteRange, RangeRequest

log = logging.getLogger(__name__)

HELD = 64 << 10
"""Bytes at the end of a blob that wait for its digest."""

STEP = 256 << 10
"""Bytes that a reader takes from the file at a time."""

RESUMES = 3
PROGRESS = 1 << 20
"""Bytes after which an upstream that breaks off is given RESUMES attempts again."""

Sleep = Callable[[float], Awaitable[None]]


class Source(Protocol):
    """A repository of an upstream (repository.py)."""

    tally: Tally

    async def stat_blob(self, digest: Digest) -> int:
        """Raises BlobUnknown; UpstreamDenied; UpstreamUnavailable."""

    async def open_stream(self, digest: Digest, start: int = 0, stop: int | None = None) -> BlobStream:
        """Raises as stat_blob; RangeNotSatisfiable."""


class WrongContent(UpstreamUnavailable):
    """It is no use to ask for the rest."""

    def __init__(self) -> None:
        super().__init__(WRONG)


class Fetch:
    """One fetch. `run` is its task's; `open` may be called at any time, also before that.

    names: the repositories that may have the blob: they are linked to it once it is published.
    """

    def __init__(
        self,
        source: Source,
        digest: Digest,
        name: RepositoryName,
        begin: Callable[[], Awaitable[Spool]],
        pool: Executor,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self.digest = digest
        self.names = {name}
        self.pool = pool
        self.tally = source.tally
        self._source, self._begin, self._sleep = source, begin, sleep
        self._size: int | None = None
        self._spool: Spool | None = None
        self._verified = False
        self._error: StorageError | None = None
        self._over = False
        self._changed = asyncio.Event()

    @property
    def is_whole(self) -> bool:
        """All is here and agrees with its digest: what is left to do is to keep it."""
        return self._verified

    # Fetching

    async def run(self, publish: Callable[[Spool], Awaitable[None]]) -> None:
        """Fetch, compare, publish. What goes wrong reaches the readers, and nothing of it is raised here.

        publish: what to do with the whole. When that fails, readers still get what they were promised.
        """
        try:
            try:
                spool = await self._fetch()
            except StorageError as exc:
                self._fail(exc)
                return
            try:
                await publish(spool)
            except StorageError as exc:
                extra = {"digest": str(self.digest), "cause": str(exc.__cause__ or "")}
                log.warning("a blob was fetched and cannot be kept: %s", exc, extra=extra)
        finally:
            self._over = True
            self._fail(Unavailable("the registry has stopped fetching that blob"))
            await to_the_end(self._close())

    async def _fetch(self) -> Spool:
        stream = await self._source.open_stream(self.digest)
        try:
            size = stream.extent.total
            if size is None:
                size = await self._source.stat_blob(self.digest)
            spool = self._spool = await self._begin()
        except BaseException:
            await stream.aclose()
            raise
        self._size = size
        self._wake()
        await self._receive(stream, spool, size)
        if spool.size != size or spool.digest != self.digest:
            where = {"digest": str(self.digest), "repository": ", ".join(sorted(self.names))}
            log.error("an upstream sent other bytes than those of the digest", extra=where)
            raise WrongContent
        self._verified = True
        self._wake()
        return spool

    async def _receive(self, first: BlobStream, spool: Spool, size: int) -> None:
        """All bytes, from as many answers as it takes. The digest has yet to be compared."""
        stream: BlobStream | None = first
        mark, waits = 0, _waits()
        while True:
            try:
                if stream is None:
                    stream = await self._source.open_stream(self.digest, spool.size)
                await self._take(stream, spool, size)
            except UpstreamUnavailable as exc:
                if spool.size >= size:
                    return  # all has come but the end of the answer
                if spool.size - mark >= PROGRESS:
                    mark, waits = spool.size, _waits()
                wait = next(waits, None)
                if wait is None or isinstance(exc, (WrongContent, TooManyRequests, UpstreamBusy)):
                    raise
                log.info("an upstream broke off, going on at byte %d of %d: %s", spool.size, size, exc)
            else:
                return
            finally:
                if stream is not None:
                    await stream.aclose()
                    stream = None
            await self._sleep(wait)

    async def _take(self, stream: BlobStream, spool: Spool, size: int) -> None:
        """What one answer brings. Raises UpstreamUnavailable when it is not all; what came before that is stored."""
        at, have = stream.extent.start, spool.size  # an upstream that does not know Range begins again at 0
        if stream.extent.total not in (None, size) or at > have:
            raise WrongContent

        async def store(pieces: Sequence[bytes]) -> None:
            await spool.append(pieces)
            self._wake()

        writer = Writer(store)
        try:
            try:
                async for chunk in stream.chunks():
                    piece = chunk[have - at :] if at < have else chunk
                    at += len(chunk)
                    if at > size:
                        raise WrongContent
                    if piece:
                        have += len(piece)
                        await writer.add(piece)
            finally:
                await writer.flush()
        finally:
            await writer.aclose()
        if have < size:
            raise UpstreamUnavailable(BROKEN)

    async def _close(self) -> None:
        if self._spool is None:
            return
        try:
            await self._spool.aclose()
        except StorageError as exc:
            log.warning("the remains of a fetch cannot be removed: %s", exc)

    def _fail(self, exc: StorageError) -> None:
        """For readers that do not have it all; the first error counts."""
        if self._error is None and not self._verified:
            self._error = exc
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    # Reading

    async def size(self) -> int:
        """Raises what the upstream answered instead of the blob."""
        while self._size is None:
            self._check()
            await self._changed.wait()
        return self._size

    async def open(self, range: RangeRequest | None) -> "FetchReader | None":
        """As soon as the size is known. None: the fetch is over, look into the cache.

        Raises what the upstream answered; RangeNotSatisfiable.
        """
        size = await self.size()
        span = range.resolve(size) if range else ByteRange(0, size)
        self._check()
        if self._over or self._spool is None:
            return None
        return FetchReader(self, size, span, duplicate(self._spool.file))

    async def ready(self, at: int) -> int:
        """Wait until a byte behind `at` may be given away. Returns up to where. Raises what has ended the fetch."""
        assert self._size is not None
        assert self._spool is not None
        while not self._verified:
            self._check()
            if (free := min(self._spool.size, self._size - HELD)) > at:
                return free
            await self._changed.wait()
        return self._size

    def _check(self) -> None:
        if self._error is not None:
            raise self._error.with_traceback(None)  # many raise it, and each would add its own


class FetchReader(ObjectReader):
    """A blob, or a part of it, that is being fetched. `file` grows: `ready` says how far it may be sent."""

    def __init__(self, fetch: Fetch, size: int, span: ByteRange, file: io.FileIO) -> None:
        self.size, self.span = size, span
        self.file = file
        self._file = file
        self._fetch = fetch

    async def ready(self, at: int) -> int:
        """Wait until byte `at` may be sent. Returns up to where one may send. Raises what has ended the fetch."""
        return await self._fetch.ready(at)

    async def chunks(self) -> AsyncIterator[bytes]:
        at, stop = self.span.start, self.span.stop
        if not self.span.stop - self.span.start:
            await self.ready(at)  # that there is nothing has to be verified as well
        while at < stop:
            end = min(await self.ready(at), stop, at + STEP)
            chunk = await read_at(self._fetch.pool, self._file, at, end - at)
            at += len(chunk)
            yield chunk

    async def aclose(self) -> None:
        self._file.close()


async def to_the_end(work: Coroutine[Any, Any, None]) -> None:
    """Run what must not be left half done. Who is cancelled meanwhile, is so afterwards."""
    task = asyncio.create_task(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        raise


def _waits() -> Iterator[float]:
    return backoff(RESUMES + 1, random.random)
