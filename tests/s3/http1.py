"""Just enough HTTP/1.1 for a relay: heads are kept as they came, bodies pass in pieces with their framing."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import cached_property

PIECE = 1 << 18
LIMIT = 1 << 20


class Broken(Exception):
    """The peer closed in the middle of a message, or sent something else than HTTP."""


@dataclass(frozen=True)
class Head:
    """raw: as it came, with the empty line at its end."""

    raw: bytes

    @cached_property
    def start(self) -> list[str]:
        return self.raw.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)

    @cached_property
    def fields(self) -> dict[str, str]:
        """By name in lower case."""
        lines = self.raw.decode("latin-1").split("\r\n")[1:-2]
        pairs = (line.partition(":") for line in lines)
        return {name.strip().lower(): value.strip() for name, _, value in pairs}

    @property
    def status(self) -> int:
        return int(self.start[1])

    @property
    def is_chunked(self) -> bool:
        return self.fields.get("transfer-encoding", "").lower() == "chunked"

    @property
    def length(self) -> int:
        return int(self.fields.get("content-length", 0))

    @property
    def closes(self) -> bool:
        return self.fields.get("connection", "").lower() == "close" or self.start[0] == "HTTP/1.0"


def without(head: Head, names: frozenset[str]) -> Head:
    """names: of headers, in lower case, that are left out."""
    first, *lines = head.raw.split(b"\r\n")
    kept = [line for line in lines if line.partition(b":")[0].decode("latin-1").strip().lower() not in names]
    return Head(b"\r\n".join([first, *kept]))


async def read_head(reader: asyncio.StreamReader) -> Head | None:
    """None: the peer closed between two messages."""
    try:
        return Head(await reader.readuntil(b"\r\n\r\n"))
    except asyncio.IncompleteReadError as exc:
        if exc.partial:
            raise Broken from exc
        return None
    except ConnectionError as exc:
        raise Broken from exc


def has_body(answer: Head, method: str) -> bool:
    if method == "HEAD" or answer.status in (204, 304):
        return False
    return answer.is_chunked or answer.length > 0


async def body(reader: asyncio.StreamReader, head: Head) -> AsyncIterator[bytes]:
    """The bytes of a body as they stand on the wire, chunk sizes included."""
    try:
        if not head.is_chunked:
            async for piece in _exactly(reader, head.length):
                yield piece
            return
        while True:
            line = await reader.readuntil(b"\r\n")
            yield line
            size = int(line.split(b";")[0], 16)
            if not size:
                break
            async for piece in _exactly(reader, size + 2):
                yield piece
        while line != b"\r\n":  # trailers
            line = await reader.readuntil(b"\r\n")
            yield line
    except (asyncio.IncompleteReadError, ConnectionError) as exc:
        raise Broken from exc


async def half(pieces: AsyncIterator[bytes], head: Head) -> AsyncIterator[bytes]:
    """The first half; of a body in chunks, whose length nobody knows, half of the first one."""
    if head.is_chunked:
        async for piece in pieces:
            if piece[-2:] != b"\r\n" or len(piece) > 20:
                yield piece[: len(piece) // 2]
                return
            yield piece
        return
    left = head.length // 2
    async for piece in pieces:
        yield piece[:left]
        left -= len(piece[:left])
        if not left:
            return


async def _exactly(reader: asyncio.StreamReader, size: int) -> AsyncIterator[bytes]:
    while size:
        piece = await reader.read(min(size, PIECE))
        if not piece:
            raise Broken
        size -= len(piece)
        yield piece
