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
        self.file: io.FileIO = pieces.open()
        self._pieces, self._source, self._name, self._fetches = pieces, source, name, fetches
        self._fetched: FetchReader | None = None
        pieces.readers.add(self)

    async def ready(self, at: int) -> int:
        """Wait until byte `at` is here. Returns up to where; `at` itself: go on with `beyond`.

        Raises what the upstream answers; Unavailable.
        """
        self.at = at
        while self._fetched is None:
            if (end := self._pieces.stored(at)) > at:
                if not self._is_near(end):
                    self._pieces.ask(self._source, self._name, at, self.span.stop)
                return min(end, self.span.stop)
            if self._is_near(at) and await self._gone_over(at):
                break
            self._pieces.ask(self._source, self._name, at, self.span.stop)
            run = self._pieces.coming(at)
            await self._pieces.moved()
            if run is None or run.error is None or run.name != self._name or self._pieces.stored(at) > at:
                continue
            if isinstance(run.error, NoRoom):
                return at
            raise run.error.with_traceback(None)  # many raise it, and each would add its own
        return await self._fetched.ready(at)

    def _is_near(self, at: int) -> bool:
        arrived = self._fetches.arrived(self._name, self._pieces.digest)
        return arrived is not None and at <= arrived + NEAR

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
        self.file.close()
        self._fetched, self.file = found, found.file
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
            end = min(await self.ready(at), at + STEP)
            if end == at:
                async for chunk in self.beyond(at):
                    yield chunk
                return
            chunk = await read_at(self._pieces.pool, self.file, at, end - at)
            at += len(chunk)
            yield chunk

    async def aclose(self) -> None:
        self._pieces.leave(self)
        self.file.close()
