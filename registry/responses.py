"""Responses with a body that streams: they own their readers and close them, whatever ends them."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import BinaryIO, Protocol, runtime_checkable

from starlette.responses import Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from registry.headers import multipart_end, multipart_head
from storage.driver import ObjectReader
from storage.ranges import ByteRange, RangeRequest

ZERO_COPY_SEND = "http.response.zerocopysend"
"""ASGI's extension "Zero Copy Send": the server takes the bytes from an open file itself."""

SMALL = 64 << 10
"""Bytes: up to here a part is cheaper together with its head than as a piece of a file."""


@runtime_checkable
class Growing(Protocol):
    """What a reader is, too, whose file is still being written."""

    span: ByteRange
    file: BinaryIO | None

    async def ready(self, at: int) -> int:
        """Wait until byte `at` may be sent. Returns up to where; `at` itself: the file takes no more.

        Raises StorageError when it will never be.
        """

    def beyond(self, at: int) -> AsyncIterator[bytes]:
        """The rest of the span, from where the file takes no more."""


class ResponseBroken(Exception):
    """The store has failed in the middle of a response. It is logged: a server has nothing to do but to close."""


class Plain(Response):
    """A whole body, or none, with fields that are bytes already: names in lower case, and their own Content-Length."""

    def __init__(self, status: int, fields: list[tuple[bytes, bytes]], body: bytes = b"") -> None:
        self.status_code, self.raw_headers, self.body = status, fields, body
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body})


class BlobResponse(StreamingResponse):
    """One span of a blob. A client that leaves ends it; the reader is closed in every case."""

    def __init__(self, reader: ObjectReader, status: int, headers: Mapping[str, str]) -> None:
        super().__init__(reader.chunks(), status, headers)
        self._reader = reader
        self._growing: Growing | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            takes_files = _takes_files(scope)
            message = _from_file(self._reader) if takes_files else None
            if takes_files and isinstance(self._reader, Growing):
                self._growing = self._reader
            if message is None:
                await super().__call__(scope, receive, send)
            else:
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                await send(message)  # ends early when the client leaves, so nobody needs to listen for that
        finally:
            await self._reader.aclose()

    async def stream_response(self, send: Send) -> None:
        """In pieces: of a growing file as they come. Starlette ends this when the client leaves."""
        if self._growing is None:
            await super().stream_response(send)
            return
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        at, stop = self._growing.span.start, self._growing.span.stop
        while at < stop:
            end = min(await self._growing.ready(at), stop)
            if end == at:
                await self._send_beyond(at, send)
                return
            piece = {"type": ZERO_COPY_SEND, "file": self._growing.file, "offset": at, "count": end - at}
            await send({**piece, "more_body": end < stop})
            at = end

    async def _send_beyond(self, at: int, send: Send) -> None:
        assert self._growing is not None
        async for chunk in self._growing.beyond(at):
            await send(_piece(chunk))
        await send(_piece(b"", more=False))


class RangesResponse(StreamingResponse):
    """Several spans of a blob as multipart/byteranges (RFC 9110 section 14.6), each opened when its turn comes."""

    def __init__(
        self,
        open_range: Callable[[RangeRequest], Awaitable[ObjectReader]],
        spans: Sequence[ByteRange],
        size: int,
        boundary: str,
        part_headers: Mapping[str, str],
        headers: Mapping[str, str],
    ) -> None:
        super().__init__((), 206, headers)
        self._open_range, self._spans, self._size = open_range, spans, size
        self._boundary, self._part_headers = boundary, part_headers
        self._takes_files = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._takes_files = _takes_files(scope)
        await super().__call__(scope, receive, send)

    async def stream_response(self, send: Send) -> None:
        """Written out instead of yielded: a generator that is left at a yield closes its reader some day."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for span in self._spans:
            head = multipart_head(self._boundary, self._part_headers, span, self._size)
            async with await self._open_range(RangeRequest(span.start, span.stop)) as reader:
                await self._send_part(head, reader, send)
        await send(_piece(multipart_end(self._boundary), more=False))

    async def _send_part(self, head: bytes, reader: ObjectReader, send: Send) -> None:
        if len(reader.span) <= SMALL:
            await send(_piece(head + await reader.read(SMALL)))
            return
        await send(_piece(head))
        message = _from_file(reader) if self._takes_files else None
        if message is not None:
            await send({**message, "more_body": True})
            return
        async for chunk in reader.chunks():
            await send(_piece(chunk))


def _takes_files(scope: Scope) -> bool:
    return ZERO_COPY_SEND in (scope.get("extensions") or {})


def _from_file(reader: ObjectReader) -> Message | None:
    """The span as a message of the extension; None where no local file holds all of it."""
    if reader.file is None or isinstance(reader, Growing):
        return None
    return {"type": ZERO_COPY_SEND, "file": reader.file, "offset": reader.span.start, "count": len(reader.span)}


def _piece(data: bytes, *, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}
