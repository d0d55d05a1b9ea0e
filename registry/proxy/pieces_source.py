"""A repository of an upstream to fetch whole blobs from, of which pieces are here already: it asks for the gaps alone.

    fetch.py <── PatchedSource ┬── the upstream, for each gap
                               └── the pieces, which the gaps end at

What is under way when the fetch comes to it is waited for; what has come ahead of it meanwhile is not fetched again.
That pieces were wrong is found by the fetch, as it compares the digest; what follows is the shelf's business.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from registry.proxy.answers import Extent
from registry.proxy.blobs import Incoming, UpstreamBlob
from registry.proxy.download import Source, WrongContent
from registry.proxy.fetch import STEP
from registry.proxy.pieces import PIECE, Pieces
from storage.digest import Digest
from storage.driver import ObjectReader
from storage.names import RepositoryName
from storage.ranges import ByteRange, RangeRequest

Find = Callable[[Digest], Pieces | None]

_WORTH = 2
"""Pieces in a row for which an answer is cut off: what is on its way of it is lost, with its connection."""


class PatchedSource:
    """source: the upstream's `name`.   find: the pieces that there are now."""

    def __init__(self, source: Source, name: RepositoryName, find: Find) -> None:
        self._source, self._name, self._find = source, name, find
        self.tally = source.tally

    async def stat_blob(self, digest: Digest) -> int:
        return await self._source.stat_blob(digest)

    async def open_blob(self, digest: Digest, range: RangeRequest | None = None) -> ObjectReader:
        return await self._source.open_blob(digest, range)

    async def open_stream(self, digest: Digest, start: int = 0, stop: int | None = None) -> Incoming:
        """Of pieces alone only for a repository that may have the blob: its upstream has said so."""
        pieces = self._find(digest)
        if stop is not None or pieces is None or pieces.size is None:
            first, gap = await self._source.open_stream(digest, start, stop), None
        elif pieces.settled(start // PIECE):
            if self._name not in pieces.names:
                await self._source.stat_blob(digest)
                pieces.names.add(self._name)
            return PatchedStream(self._source, self._name, self._find, digest, start, pieces.size)
        else:
            gap = pieces.gap(start)
            first = await self._source.open_stream(digest, start, gap)
        size = first.extent.total
        if stop is not None or size is None:
            return first
        return PatchedStream(self._source, self._name, self._find, digest, start, size, first, gap)


class PatchedStream:
    """first: the answer for what is missing at the start, up to `gap` (None: to the end); None: nothing is."""

    def __init__(
        self,
        source: Source,
        name: RepositoryName,
        find: Find,
        digest: Digest,
        start: int,
        size: int,
        first: Incoming | None = None,
        gap: int | None = None,
    ) -> None:
        self.extent = Extent(start, size, size)
        self._source, self._name, self._find, self._digest = source, name, find, digest
        self._size = size
        self._stream, self._gap = first, gap

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Once. Raises what the upstream answers; UpstreamUnavailable when there are fewer bytes than announced."""
        at = self.extent.start
        while at < self._size:
            pieces = self._pieces()
            if self._stream is not None or pieces is None or not pieces.settled(at // PIECE):
                async with aclosing(self._answer(at, pieces)) as chunks:
                    async for chunk in chunks:
                        at += len(chunk)
                        yield chunk
            elif (end := pieces.stored(at)) > at:
                pieces.taken = self._source, self._name
                chunk = await pieces.read(at, min(end - at, STEP))
                at += len(chunk)
                yield chunk
            else:
                await pieces.moved()

    def _pieces(self) -> Pieces | None:
        found = self._find(self._digest)
        return found if found is not None and found.size == self._size else None

    async def _answer(self, at: int, pieces: Pieces | None) -> AsyncGenerator[bytes, None]:
        """What the upstream sends of the gap at `at`, unless what comes next has come otherwise meanwhile."""
        if self._stream is None:
            self._gap = None if pieces is None else pieces.gap(at)
            self._stream = await self._source.open_stream(self._digest, at, self._gap)
            if self._stream.extent.total not in (None, self._size):
                raise WrongContent
        stop = self._size if self._gap is None else self._gap
        try:
            async with aclosing(UpstreamBlob(self._stream, self._size, ByteRange(at, stop)).chunks()) as chunks:
                async for chunk in chunks:
                    before, at = at // PIECE, at + len(chunk)
                    yield chunk
                    if before != at // PIECE and at < stop and self._is_here(at // PIECE):
                        return
        finally:
            await self.aclose()

    def _is_here(self, number: int) -> bool:
        pieces = self._pieces()
        last = min(number + _WORTH, -(-self._size // PIECE))
        return pieces is not None and all(pieces.settled(each) for each in range(number, last))

    async def aclose(self) -> None:
        """Idempotent."""
        if self._stream is not None:
            stream, self._stream = self._stream, None
            await stream.aclose()
