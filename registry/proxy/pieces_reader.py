"""A reader of a range of a blob that the cache does not have: of its pieces, and of the fetch of the whole from where
that has come as far as the reader."""

import io
from collections.abc import AsyncIterator

from registry.proxy.download import Source
from registry.proxy.fetch import STEP, FetchReader
from registry.proxy.fetches import Fetches
from registry.proxy.pieces import NEAR, NoRoom, Pieces
from registry.proxy.spool import read_at
from storage.driver import ObjectReader
from storage.errors import StorageError
from storage.names import RepositoryName
from storage.ranges import ByteRange, RangeRequest


class RangeReader(ObjectReader):
    """`file` grows: `ready` says how far it may be sent. It is another one once the reader has gone over."""

    def __init__(self, pieces: Pieces, source: Source, name: RepositoryName, span: ByteRange, fetches: Fetches) -> None:
        assert pieces.size is not None
        self.size, self.span = pieces.size, span
        self.at = span.start
        self.file = self._file = pieces.open()
        self._pieces, self._source, self._name, self._fetches = pieces, source, name, fetches
        self._fetched: FetchReader | None = None
        pieces.readers.add(self)

    async def ready(self, at: int) -> int:
        """Wait until byte `at` is here. Returns up to where; `at` itself: go on with `beyond`.

        Raises what the upstream answers; Unavailable.
        """
        self.at = at
        while (fetched := self._fetched) is None:
            end = self._pieces.stored(at)
            if self._is_near(at, NEAR if end <= at else 0) and await self._gone_over(at):
                continue
            if end <= at or not self._is_near(end, NEAR):
                self._pieces.ask(self._source, self._name, at, self.span.stop)
            if end > at:
                return end
            if (run := self._pieces.coming(at)) is not None:
                run.span.wait()
            await self._pieces.moved()
            if run is None or run.error is None or run.name != self._name or self._pieces.stored(at) > at:
                continue
            if isinstance(run.error, NoRoom):
                return at
            raise run.error.with_traceback(None)  # many raise it, and each would add its own
        return await fetched.ready(at)

    def _is_near(self, at: int, gap: int) -> bool:
        """Has a fetch of the whole come there, or will it soon? Then nobody needs to ask for that."""
        arrived = self._fetches.arrived(self._name, self._pieces.digest)
        return arrived is not None and at <= arrived + gap

    async def _gone_over(self, at: int) -> bool:
        try:
            wanted = RangeRequest(at, self.span.stop)
            found = await self._fetches.follow(self._source, self._name, self._pieces.digest, wanted)
        except StorageError:
            return False  # it is failing: by itself a range may fare better
        if not isinstance(found, FetchReader):
            if found is not None:
                await found.aclose()
            return False
        assert isinstance(found.file, io.FileIO)
        self._file.close()
        self.file = self._file = found.file
        self._fetched = found
        self._pieces.leave(self)
        return True

    async def beyond(self, at: int) -> AsyncIterator[bytes]:
        """The rest of the span, which no file will ever hold."""
        if self._fetched is not None:
            async for chunk in self._fetched.beyond(at):
                yield chunk
            return
        async with await self._source.open_blob(self._pieces.digest, RangeRequest(at, self.span.stop)) as rest:
            async for chunk in rest.chunks():
                yield chunk

    async def chunks(self) -> AsyncIterator[bytes]:
        at = self.span.start
        while at < self.span.stop:
            end = min(await self.ready(at), self.span.stop, at + STEP)
            if end == at:
                async for chunk in self.beyond(at):
                    yield chunk
                return
            chunk = await read_at(self._pieces.pool, self._file, at, end - at)
            at += len(chunk)
            yield chunk

    async def aclose(self) -> None:
        self._pieces.leave(self)
        self._file.close()
