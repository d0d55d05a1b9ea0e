"""Responses with a body that streams: they own their readers and close them, whatever ends them."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import BinaryIO

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from registry.headers import multipart_end, multipart_head
from storage.driver import ObjectReader
from storage.ranges import ByteRange, RangeRequest

ZERO_COPY_SEND = "http.response.zerocopysend"
"""ASGI's extension "Zero Copy Send": the server takes the bytes from an open file itself."""


class BlobResponse(StreamingResponse):
    """One span of a blob. A client that leaves ends it; the reader is closed in every case."""

    def __init__(self, reader: ObjectReader, status: int, headers: Mapping[str, str]) -> None:
        super().__init__(reader.chunks(), status, headers)
        self._reader = reader

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if self._reader.file is not None and ZERO_COPY_SEND in (scope.get("extensions") or {}):
                await self._send_file(self._reader.file, send)
            else:
                await super().__call__(scope, receive, send)
        finally:
            await self._reader.aclose()

    async def _send_file(self, file: BinaryIO, send: Send) -> None:
        span = self._reader.span
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": ZERO_COPY_SEND, "file": file, "offset": span.start, "count": len(span)})


class RangesResponse(StreamingResponse):
    """Several spans of a blob as multipart/byteranges (RFC 9110 section 14.6), each opened when its turn comes."""

    def __init__(
        self,
        open_range: Callable[[RangeRequest], Awaitable[ObjectReader]],
        spans: list[ByteRange],
        size: int,
        boundary: str,
        part_headers: Mapping[str, str],
        headers: Mapping[str, str],
    ) -> None:
        super().__init__(self._parts(open_range, spans, size, boundary, part_headers), 206, headers)

    @staticmethod
    async def _parts(
        open_range: Callable[[RangeRequest], Awaitable[ObjectReader]],
        spans: list[ByteRange],
        size: int,
        boundary: str,
        part_headers: Mapping[str, str],
    ) -> AsyncIterator[bytes]:
        for span in spans:
            yield multipart_head(boundary, part_headers, span, size)
            async with await open_range(RangeRequest(span.start, span.stop)) as reader:
                async for chunk in reader.chunks():
                    yield chunk
        yield multipart_end(boundary)
