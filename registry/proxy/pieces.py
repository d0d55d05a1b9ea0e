"""The pieces of one blob that were asked for by Range, while the cache does not have the whole.

    Pieces ┬─ a file without a name, as large as the blob and mostly holes: gone with the process
           ├─ which pieces are here, and how much of those that are not
           └─ Run, Run, ...: missing bytes on their way, one question to the upstream for each

Rules:
- Bytes are on their way once, for all who wait for them. A reader gets them as they come.
- A run is asked for by a reader, and ended by nobody: when its last reader leaves it goes on to the end of the piece
  that it is at, so that no part of an answer is thrown away, and who asks again finds more.
- Nothing here is verified, as only the whole has a digest. What readers get here they have to verify themselves;
  into the cache it comes by a fetch, which compares the whole (pieces_source.py).
"""

import asyncio
import io
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import aclosing
from functools import partial
from typing import Protocol

from registry.proxy.blobs import Incoming
from registry.proxy.download import Download, Sleep, Source, WrongContent
from registry.proxy.finishing import off_loop
from registry.proxy.spool import Writer, again, read_at
from registry.watching.spans import Span, begin_span
from storage.digest import Digest
from storage.driver import ObjectReader
from storage.errors import StorageError, Unavailable
from storage.names import RepositoryName
from storage.once import Once
from storage.ranges import ByteRange, RangeRequest

log = logging.getLogger(__name__)

PIECE = 1 << 20
"""Bytes. What is asked for is rounded up to this. Lazy pullers ask for spans of some MiB, and first for two bytes of
every layer: much more, and those two would be dear; much less would be more to keep account of, and save nothing."""

SEGMENT = 8 << 20
"""Bytes of one question to the upstream at most: containerd asks for all behind its offset, and leaves after a part."""

NEAR = 4 << 20
"""A fetch of the whole that is as close is waited for, not overtaken. Also: with so little ahead a reader has more
fetched, so that a question is on its way while the answer to the one before is read."""


class RangeIgnored(WrongContent):
    """The upstream answers with the whole, so it is fetched whole."""


class NoRoom(Unavailable):
    """The file cannot be written to."""

    def __init__(self) -> None:
        super().__init__("the registry cannot keep what it fetches")


class Reading(Protocol):
    """Whoever reads: where he is, and where he stops."""

    at: int
    span: ByteRange


class Run:
    """Bytes start to stop, on their way, for whoever waits for them.

    at: those before it are stored.   answered: the upstream has begun to send them.   over: nothing more comes.
    span: of the request that has begun it, and linked to the others that wait.
    """

    def __init__(self, source: Source, name: RepositoryName, start: int, stop: int, span: Span) -> None:
        self.source, self.name, self.span = source, name, span
        self.start, self.at, self.stop = start, start, stop
        self.error: StorageError | None = None
        self.answered = self.over = False


class Pieces:
    """Made by the shelf (pieces_shelf.py), which closes it.

    names: the repositories that may have the blob.   size: None as long as it is not known.
    ignored: the upstream does not know Range.
    failed: why nobody new is to come: there is no room, or the size has changed.
    looked: the loop's time, when the cache did not have the blob.
    taken: the source, and the name, of a fetch of the whole that has taken pieces.
    grown: called when a piece is whole, with the run that brought it.
    """

    def __init__(
        self,
        digest: Digest,
        file: io.FileIO,
        pool: Executor,
        grown: Callable[["Pieces", Run], None],
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self.digest, self.pool = digest, pool
        self.names: set[RepositoryName] = set()
        self.size: int | None = None
        self.ignored = False
        self.failed: StorageError | None = None
        self.looked = 0.0
        self.taken: tuple[Source, RepositoryName] | None = None
        self.readers: set[Reading] = set()
        self._file, self._grown, self._sleep = file, grown, sleep
        self._whole: set[int] = set()
        self._parts: dict[int, int] = {}
        self._runs: dict[asyncio.Task[None], Run] = {}
        self._learning: Once[RepositoryName, None] = Once()
        self._moved = asyncio.Event()
        self._closed = False

    @property
    def held(self) -> int:
        """Bytes on disk, and on their way there, rounded up."""
        coming = sum(_up(run.stop - run.at) for run in self._runs.values())
        return (len(self._whole) + len(self._parts)) * PIECE + coming

    @property
    def share(self) -> float:
        """Of the whole, from 0 to 1."""
        return min(len(self._whole) * PIECE / self.size, 1.0) if self.size else 0.0

    @property
    def idle(self) -> bool:
        return not self.readers and not self._runs

    # The size

    async def learn(self, source: Source, name: RepositoryName, range: RangeRequest) -> int:
        """The size, for a repository that may have the blob: its own upstream has said so.

        By the first bytes themselves where they are wanted; else by a HEAD, as a 416 need not tell the size.
        Raises BlobUnknown; UpstreamDenied; UpstreamUnavailable; RangeIgnored; RangeNotSatisfiable, of an empty blob.
        """
        if name not in self.names:
            await self._learning.run(name, partial(self._learn, source, name, range))
            self.names.add(name)
        assert self.size is not None
        return self.size

    def allow(self, name: RepositoryName, size: int) -> None:
        """Its upstream has said that the repository may have it. Raises UpstreamUnavailable, of another size."""
        self._sized(size)
        self.names.add(name)

    async def _learn(self, source: Source, name: RepositoryName, range: RangeRequest) -> None:
        if self.size is not None or range.suffix is not None or (range.start or 0) >= PIECE:
            self._sized(await source.stat_blob(self.digest))
            return
        run = self._begin(source, name, 0, _up(min(range.stop or SEGMENT, SEGMENT)))
        while not run.answered and not run.over:
            await self.moved()
        if not run.answered:
            raise run.error or Unavailable("the registry has stopped fetching that range")

    def _sized(self, size: int) -> None:
        if self.size not in (None, size):
            self.failed = WrongContent()
            raise self.failed
        self.size = size

    # What is here

    def stored(self, at: int) -> int:
        """Up to where the bytes behind `at` are here, without a gap, over some pieces; `at` itself where none is."""
        number = at // PIECE
        for each in range(number, number + SEGMENT // PIECE):
            if each not in self._whole:
                return self._clipped(max(at, each * PIECE + self._parts.get(each, 0)))
        return self._clipped((number + SEGMENT // PIECE) * PIECE)

    def coming(self, at: int) -> Run | None:
        """What is under way there."""
        return next((run for run in self._runs.values() if run.start <= at < run.stop), None)

    def settled(self, number: int) -> bool:
        """Is that piece here, or under way?"""
        return number in self._whole or any(
            run.start // PIECE <= number < _up(run.stop) // PIECE for run in self._runs.values()
        )

    def gap(self, at: int) -> int | None:
        """Where the first piece begins, behind the one of `at`, that is here or under way; None: nowhere."""
        assert self.size is not None
        numbers = range(at // PIECE + 1, _up(self.size) // PIECE)
        return next((number * PIECE for number in numbers if self.settled(number)), None)

    def open(self) -> io.FileIO:
        """Under a descriptor that is the caller's."""
        return again(self._file.fileno())

    async def moved(self) -> None:
        """Until something has come, or ended."""
        await self._moved.wait()

    async def read(self, at: int, size: int) -> bytes:
        """At least one byte of what is here."""
        with self.open() as file:  # it may be closed meanwhile
            return await read_at(self.pool, file, at, size)

    # Having it fetched

    def ask(self, source: Source, name: RepositoryName, at: int, stop: int) -> None:
        """Have the bytes behind `at` fetched, a SEGMENT of them at most, unless enough is here or under way."""
        if self._closed:
            raise Unavailable("the registry has stopped fetching that range")
        assert self.size is not None
        ahead = min(at + SEGMENT, stop)
        start = self._missing(at, ahead)
        if start >= min(at + NEAR, stop):
            return
        first = start // PIECE
        end = min(_up(ahead), self.gap(start) or self.size)
        self._begin(source, name, first * PIECE + self._parts.get(first, 0), min(end, self.size))

    def _missing(self, at: int, stop: int) -> int:
        """The first byte that is neither here nor under way."""
        while at < stop:
            run = self.coming(at)
            end = max(self.stored(at), at if run is None else run.stop)
            if end <= at:
                return at
            at = end
        return stop

    def _begin(self, source: Source, name: RepositoryName, start: int, stop: int) -> Run:
        span = begin_span("fetch range", {"digest": str(self.digest), "repository": name, "start": start, "stop": stop})
        run = Run(source, name, start, stop, span)
        task = asyncio.create_task(self._run(run), name=f"range of {self.digest}")
        self._runs[task] = run
        task.add_done_callback(self._ended)
        return run

    async def _run(self, run: Run) -> None:
        try:
            with run.span.current():
                await self._receive(run)
        except RangeIgnored as exc:
            self.ignored, run.error = True, exc
        except (NoRoom, WrongContent) as exc:
            self.failed = run.error = exc
        except StorageError as exc:
            run.error = exc

    async def _receive(self, run: Run) -> None:
        download = Download(_Strict(run.source), self.digest, self._sleep, run.start, run.stop)
        writer = Writer(partial(self._store, run))
        try:
            await download.begin()
            self._sized(download.size)
            run.answered = True
            self._wake()
            at = run.start
            try:
                async with aclosing(download.chunks()) as chunks:
                    async for chunk in chunks:
                        before, at = at, at + len(chunk)
                        await writer.add(chunk)
                        if before // PIECE != at // PIECE and not self._wanted(at):
                            break
            finally:
                await writer.flush()
        finally:
            await writer.aclose()
            await download.aclose()

    def _wanted(self, at: int) -> bool:
        """Is there a reader for whom the piece at `at` is fetched?"""
        start = at // PIECE * PIECE
        return any(each.at < start + PIECE and start < min(each.at + SEGMENT, each.span.stop) for each in self.readers)

    async def _store(self, run: Run, chunks: Sequence[bytes]) -> None:
        await off_loop(self.pool, _write, self._file.fileno(), chunks, run.at)
        start, run.at = run.at, run.at + sum(map(len, chunks))
        for number in range(start // PIECE, _up(run.at) // PIECE):
            size = min(run.at - number * PIECE, PIECE)
            if number * PIECE + size == self._clipped((number + 1) * PIECE):
                self._whole.add(number)
                self._parts.pop(number, None)
                self._grown(self, run)
            else:
                self._parts[number] = size
        self._wake()

    def _clipped(self, at: int) -> int:
        return at if self.size is None else min(at, self.size)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        run = self._runs.pop(task)
        run.over = True
        if run.error is not None:
            run.span.fail(type(run.error).__name__)
        run.span.end()
        if not task.cancelled() and (exc := task.exception()) is not None:
            log.error("the fetch of a range ended by a bug", exc_info=exc)
        self._wake()

    def _wake(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    def leave(self, reader: Reading) -> None:
        """Idempotent."""
        self.readers.discard(reader)
        self._wake()

    async def retire(self) -> None:
        """Close once the last reader has left: nobody new comes."""
        while self.readers:
            await self.moved()
        await self.aclose()

    async def aclose(self) -> None:
        """Ends what is under way. Readers keep what they have open, and get no more. Idempotent."""
        self._closed = True
        runs = list(self._runs)
        for task in runs:
            task.cancel()
        await self._learning.aclose()
        await asyncio.gather(*runs, return_exceptions=True)
        self._file.close()


def _up(at: int) -> int:
    return -(-at // PIECE) * PIECE


def _write(descriptor: int, chunks: Sequence[bytes], at: int) -> None:
    """Raises NoRoom."""
    try:
        for chunk in chunks:
            view = memoryview(chunk)
            while view:
                written = os.pwrite(descriptor, view, at)
                view, at = view[written:], at + written
    except OSError as exc:
        raise NoRoom from exc


class _Strict:
    """A source whose streams are what was asked for, or none."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.tally = source.tally

    async def stat_blob(self, digest: Digest) -> int:
        return await self._source.stat_blob(digest)

    async def open_stream(self, digest: Digest, start: int = 0, stop: int | None = None) -> Incoming:
        stream = await self._source.open_stream(digest, start, stop)
        extent = stream.extent
        if extent.start != start or extent.stop is None or (stop is not None and extent.stop > stop):
            await stream.aclose()
            raise RangeIgnored
        return stream

    async def open_blob(self, digest: Digest, range: RangeRequest | None = None) -> ObjectReader:
        return await self._source.open_blob(digest, range)
