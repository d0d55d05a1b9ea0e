"""A blob of an upstream on its way: counted, and cut to the range that was asked for."""

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Protocol

from registry.proxy.answers import Extent
from registry.proxy.tally import Tally
from registry.proxy.transport import BROKEN, Stream
from storage.driver import ObjectReader
from storage.errors import UpstreamUnavailable
from storage.ranges import ByteRange


class Incoming(Protocol):
    """Raw bytes of a blob on their way, those of `extent`."""

    extent: Extent

    def chunks(self) -> AsyncIterator[bytes]:
        """Once. Raises UpstreamUnavailable when there are fewer bytes than announced, or more; UpstreamTimeout."""

    async def aclose(self) -> None:
        """Idempotent."""


class BlobStream:
    """Raw bytes of a blob on their way, exactly those of `extent`. Whoever opened it closes it."""

    def __init__(self, stream: Stream, extent: Extent, tally: Tally) -> None:
        self._stream, self._tally = stream, tally
        self.extent = extent
        self.etag = stream.head.get("etag")

    async def chunks(self) -> AsyncIterator[bytes]:
        """Once. Raises UpstreamUnavailable when there are fewer bytes than announced, or more; UpstreamTimeout."""
        at = self.extent.start
        async for chunk in self._stream.chunks():
            at += len(chunk)
            self._tally.fetched_bytes += len(chunk)
            if self.extent.stop is not None and at > self.extent.stop:
                raise UpstreamUnavailable(BROKEN)
            yield chunk
        if self.extent.stop is not None and at < self.extent.stop:
            raise UpstreamUnavailable(BROKEN)

    async def aclose(self) -> None:
        """Idempotent."""
        await self._stream.aclose()


class UpstreamBlob(ObjectReader):
    """An upstream's blob, or a range of it. Of one that does not know Range, what is not asked for is dropped."""

    def __init__(self, stream: Incoming, size: int, span: ByteRange) -> None:
        self._stream = stream
        self.size, self.span = size, span

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        at = self._stream.extent.start
        async for chunk in self._stream.chunks():
            first, last = max(self.span.start - at, 0), min(self.span.stop - at, len(chunk))
            at += len(chunk)
            if first < last:
                yield chunk if last - first == len(chunk) else chunk[first:last]
            if at >= self.span.stop and at > self.size:
                raise UpstreamUnavailable(BROKEN)
            if at >= self.span.stop and self.span.stop < self.size:
                return
        if at < self.span.stop:
            raise UpstreamUnavailable(BROKEN)

    async def aclose(self) -> None:
        await self._stream.aclose()
