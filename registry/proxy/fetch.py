"""One blob on its way from an upstream into the cache, for any number of readers meanwhile.

    upstream ──Download──> Writer ──> Spool (a growing file, hashed) ──digest agrees──> the blob of the cache
                                        └─ FetchReader, FetchReader, ... each at its own speed

Rules:
- A fetch is nobody's: it goes on when the client that caused it leaves, and no reader makes it wait.
- Readers get bytes that are not verified yet, but never the last HELD of the blob: these come once length and digest
  agree. A wrong blob is for no client a complete answer, and it is not published.
- It goes on where an earlier one has ended, also one of a process that was killed; and while another process fetches
  the same blob into the same store, it follows that one (stages.py).
- A store that takes no more does not keep the blob from those who read it: each gets the rest by a download of its own.
- Who has been told nothing yet gets the upstream's error as its status, everybody else a connection that is cut.
"""

import asyncio
import io
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import Executor
from contextlib import aclosing

from registry.proxy.download import Download, Sleep, Source, WrongContent
from registry.proxy.finishing import finished
from registry.proxy.passing import HELD, Passing, pass_on
from registry.proxy.spool import HashedSpool, Spool, Writer, again, read_all, read_at
from registry.proxy.stages import LOOK, Followed, Kept, Place
from registry.watching.spans import begin_span
from storage.digest import Digest
from storage.driver import ObjectReader
from storage.errors import StorageError, Unavailable, UpstreamTimeout, UpstreamUnavailable
from storage.names import RepositoryName
from storage.ranges import ByteRange, RangeRequest

log = logging.getLogger(__name__)

STEP = 256 << 10
"""Bytes that a reader takes from the file at a time."""

PATIENCE = 180.0
"""Seconds without a byte of the process that is followed: longer than it waits itself before it gives up."""


class Fetch:
    """One fetch. `run` is its task's; `open` may be called at any time, also before that.

    names: the repositories that may have the blob: they are linked to it once it is published.
    unkept: why the store does not take it; readers get it all the same.
    span: of the request that has begun it, and linked to the others that wait. Whoever runs the fetch ends it.
    """

    def __init__(
        self,
        source: Source,
        digest: Digest,
        name: RepositoryName,
        place: Place,
        pool: Executor,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self.digest = digest
        self.names = {name}
        self.pool = pool
        self.tally = source.tally
        self.unkept: StorageError | None = None
        self.span = begin_span("fetch blob", {"digest": str(digest), "repository": name})
        self._source, self._place, self._sleep = source, place, sleep
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

    @property
    def is_wrong(self) -> bool:
        """It has ended with other bytes than those of the digest."""
        return isinstance(self._error, WrongContent)

    @property
    def arrived(self) -> int:
        """Bytes that are here."""
        return 0 if self._spool is None else self._spool.size

    # Fetching

    async def run(self, publish: Callable[[Spool], Awaitable[None]]) -> None:
        """Fetch, compare, publish. What goes wrong reaches the readers, and nothing of it is raised here.

        publish: what to do with the whole. When that fails, readers still get what they were promised.
        """
        keep = True  # also when the registry stops
        try:
            try:
                spool = await self._fetch()
            except UpstreamUnavailable as exc:
                keep = not isinstance(exc, WrongContent)
                self._fail(exc)
                return
            except Unavailable as exc:
                keep = False  # others need the room
                self._stop_keeping(exc)
                return
            except StorageError as exc:
                keep = False
                self._fail(exc)
                return
            try:
                await publish(spool)
            except StorageError as exc:
                keep = False
                self._stop_keeping(exc)
        finally:
            self._over = True
            self._fail(Unavailable("the registry has stopped fetching that blob"))
            await finished(self._close(keep))

    async def _fetch(self) -> Spool:
        spool = await finished(self._begin())
        if isinstance(spool, Followed):
            self._spool = await self._follow(spool)
            if self._spool is spool:
                return self._whole(spool)
            await spool.aclose()
            spool = self._spool
        if isinstance(spool, Kept):
            self._size = await self._source.stat_blob(self.digest)
            if spool.size != self._size:
                raise WrongContent
            return self._whole(spool)
        assert isinstance(spool, HashedSpool)
        async with aclosing(Download(self._source, self.digest, self._sleep, spool.kept)) as download:
            self._size = (await download.begin()).size
            self._wake()
            await self._receive(download, spool)
        if spool.size != self._size or spool.digest != self.digest:
            where = {"digest": str(self.digest), "repository": ", ".join(sorted(self.names)), "kept": spool.kept}
            log.error("an upstream sent other bytes than those of the digest", extra=where)
            raise WrongContent
        return self._whole(spool)

    async def _begin(self) -> Spool:
        """To its end, also when the registry stops: what a thread has opened by then, is closed with the rest."""
        self._spool = await self._place.begin()
        return self._spool

    async def _follow(self, spool: Followed) -> Spool:
        """Until the other process has published it: then what it was. Or has left it to us: then that.

        That this repository may have it, has its upstream to say. Raises UpstreamUnavailable.
        """
        self._size = await self._source.stat_blob(self.digest)
        seen, since = -1, 0.0
        while (found := await spool.look(self._size)) is None:
            if spool.size != seen:
                seen, since = spool.size, time.monotonic()
                self._wake()
            elif time.monotonic() - since > PATIENCE:
                raise UpstreamTimeout("another process of this registry fetches that blob, and does not get on")
            await self._sleep(LOOK)
        return found

    async def _receive(self, download: Download, spool: HashedSpool) -> None:
        """All bytes. The digest has yet to be compared."""

        async def store(pieces: Sequence[bytes]) -> None:
            await spool.append(pieces)
            self._wake()

        while spool.size < spool.kept:
            await spool.recover()
            self._wake()
        writer = Writer(store)
        try:
            try:
                async with aclosing(download.chunks()) as pieces:
                    async for piece in pieces:
                        await writer.add(piece)
            finally:
                await writer.flush()
        finally:
            await writer.aclose()

    def _whole(self, spool: Spool) -> Spool:
        self._verified = True
        self._wake()
        return spool

    async def _close(self, keep: bool) -> None:
        if self._spool is None:
            return
        try:
            await self._spool.aclose(keep=keep)
        except StorageError as exc:
            log.warning("the remains of a fetch cannot be removed: %s", exc)

    def _fail(self, exc: StorageError) -> None:
        """For readers that do not have it all; the first error counts."""
        if self._error is None and self.unkept is None and not self._verified:
            self._error = exc
            self.span.fail(type(exc).__name__)
        self._wake()

    def _stop_keeping(self, exc: StorageError) -> None:
        self.unkept = exc
        self.span.fail(type(exc).__name__)
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    # Reading

    async def size(self) -> int | None:
        """None: ask the upstream. Raises what it answered instead of the blob."""
        self.span.wait()
        while self._size is None and self.unkept is None:
            self._check()
            await self._changed.wait()
        return self._size

    async def open(self, source: Source, range: RangeRequest | None) -> ObjectReader | None:
        """As soon as the size is known. None: the fetch is over, look into the cache.

        source: of whoever asks; it is asked when the store does not take the blob.
        Raises what the upstream answered; RangeNotSatisfiable.
        """
        size = await self.size()
        if self.unkept is not None:
            return await pass_on(source, self.digest, range, self.pool, self._sleep)
        assert size is not None
        span = range.resolve(size) if range else ByteRange(0, size)
        self._check()
        if self._over or self._spool is None:
            return None
        return FetchReader(self, size, span, again(self._spool.file.fileno()))

    async def ready(self, at: int) -> int:
        """Wait until a byte behind `at` may be given away. Returns up to where; `at` itself: the file takes no more.

        Raises what has ended the fetch.
        """
        assert self._size is not None
        assert self._spool is not None
        while not self._verified:
            self._check()
            if (free := min(self._spool.size, self._size - HELD)) > at:
                return free
            if self.unkept is not None:
                return at
            await self._changed.wait()
        return self._size

    async def beyond(self, at: int, stop: int, file: io.FileIO) -> Passing:
        """What follows on `at` when `ready` says that the file takes no more. file: a reader's."""
        assert self._size is not None
        assert isinstance(self._spool, HashedSpool)
        stored = self._spool.hash
        compared = at <= stored.offset and stop > self._size - HELD
        ahead = await read_all(self.pool, file, at, stored.offset) if compared else b""
        start, end = (stored.offset, None) if compared else (at, stop)
        download = Download(self._source, self.digest, self._sleep, start, end)
        try:
            await download.begin()
        except BaseException:
            await download.aclose()
            raise
        return Passing(download, self.digest, stop, self.pool, stored.copy() if compared else None, ahead)

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
        """Wait until byte `at` may be sent. Returns up to where one may send; `at` itself: go on with `beyond`.

        Raises what has ended the fetch.
        """
        return await self._fetch.ready(at)

    async def beyond(self, at: int) -> AsyncIterator[bytes]:
        """The rest of the span, which the file will never hold."""
        async with await self._fetch.beyond(at, self.span.stop, self._file) as rest:
            async for chunk in rest.chunks():
                yield chunk

    async def chunks(self) -> AsyncIterator[bytes]:
        at, stop = self.span.start, self.span.stop
        if not self.span.stop - self.span.start:
            await self.ready(at)  # that there is nothing has to be verified as well
        while at < stop:
            end = min(await self.ready(at), stop, at + STEP)
            if end == at:
                async for chunk in self.beyond(at):
                    yield chunk
                return
            chunk = await read_at(self._fetch.pool, self._file, at, end - at)
            at += len(chunk)
            yield chunk

    async def aclose(self) -> None:
        self._file.close()
