"""Reading request bodies: with a limit where they are kept, in chunks where they pass through."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from typing import Any

from starlette.requests import Request

from registry.errors import BodyTooLarge
from registry.serving.inlet import EXTENSION, Inlet
from storage.errors import SizeInvalid


def content_length(request: Request) -> int | None:
    """Bytes that the body will have; None for a chunked one. The server has checked the syntax."""
    value = request.headers.get("content-length")
    return int(value) if value is not None and value.isascii() and value.isdigit() else None


async def read_body(request: Request, limit: int) -> bytes:
    """The whole of a small body. Raises BodyTooLarge, before reading where the length is announced."""
    if (content_length(request) or 0) > limit:
        raise BodyTooLarge(limit)
    parts, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise BodyTooLarge(limit)
        parts.append(chunk)
    return b"".join(parts)


class Body(AsyncIterator[bytes]):
    """A body as it arrives, without empty chunks. Raises ClientDisconnect when it ends early. Is a DirectChunks."""

    def __init__(self, request: Request) -> None:
        self._extensions: dict[str, Any] = request.scope.get("extensions") or {}
        self._stream = request.stream()

    async def __anext__(self) -> bytes:
        while not (chunk := await anext(self._stream)):
            pass
        return chunk

    def take_over(self) -> AbstractContextManager[Inlet] | None:
        opening: Callable[[], AbstractContextManager[Inlet] | None] | None = self._extensions.get(EXTENSION)
        return opening() if opening is not None else None


def chunks(request: Request) -> Body:
    return Body(request)


async def exactly(body: AsyncIterator[bytes], size: int) -> AsyncIterator[bytes]:
    """Hands body on and raises SizeInvalid once it has more or fewer than `size` bytes; never yields more."""
    seen = 0
    async for chunk in body:
        if seen + len(chunk) > size:
            raise SizeInvalid(size, seen + len(chunk))
        seen += len(chunk)
        yield chunk
    if seen != size:
        raise SizeInvalid(size, seen)
