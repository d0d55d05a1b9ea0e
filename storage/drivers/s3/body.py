"""The body of an answer to GET: in the pieces that the socket yields, or straight into a caller's buffer."""

import re
from collections.abc import AsyncIterator, Callable, Mapping

import aiohttp

from storage.drivers.s3.bucket import Head
from storage.drivers.s3.errors import FOREIGN, Fault
from storage.drivers.s3.taken import take
from storage.drivers.s3.xml import Malformed
from storage.ranges import ByteRange

_LONG = 16 << 20
"""Bytes to come that are worth a connection."""

_CONTENT_RANGE = re.compile(r"bytes ([0-9]+)-([0-9]+)/([0-9]+)")


class RestBody:
    """fail: makes our error of a fault on the way, and logs it. taken: does the rest come past aiohttp?"""

    def __init__(
        self, response: aiohttp.ClientResponse, head: Head, span: ByteRange, fail: Callable[[Fault], Exception]
    ) -> None:
        self.head, self.span = head, span
        self._response, self._fail = response, fail
        self.taken = False

    async def chunks(self) -> AsyncIterator[bytes]:
        left = size = len(self.span)
        read = self._response.content.readany
        while left:
            try:
                chunk = await read()
                if not chunk or len(chunk) > left:
                    raise Malformed(_wrong_length(left - len(chunk)))
            except FOREIGN as exc:
                raise self._failed(exc) from exc
            left -= len(chunk)
            if left > _LONG and not self.taken and (taken := take(self._response, size - left)):
                self.taken, read = True, taken.read
            yield chunk

    async def readinto(self, buffer: memoryview) -> None:
        done, size = 0, len(self.span)
        content = self._response.content
        if buffer.nbytes != size:
            raise ValueError(f"a buffer of {buffer.nbytes} bytes for {size}")
        while done < size:
            try:
                chunk, _ = await content.readchunk()  # one piece as the socket gave it, not joined with the next
                if (not chunk and content.at_eof()) or len(chunk) > size - done:
                    raise Malformed(_wrong_length(size - done - len(chunk)))
            except FOREIGN as exc:
                raise self._failed(exc) from exc
            buffer[done : done + len(chunk)] = chunk
            done += len(chunk)

    async def aclose(self) -> None:
        if self._response.content.at_eof():
            self._response.release()
        else:
            self._response.close()

    def _failed(self, exc: BaseException) -> Exception:
        self._response.close()
        return self._fail(Fault(0, cause=exc))


def _wrong_length(left: int) -> str:
    return f"a body that is {left} bytes too short" if left > 0 else f"a body that is {-left} bytes too long"


def range_header(start: int | None, stop: int | None) -> str | None:
    """Of a half-open range; start < 0: the last -start bytes."""
    if start is None:
        return None
    return f"bytes={start}" if start < 0 else f"bytes={start}-{'' if stop is None else stop - 1}"


def measure(headers: Mapping[str, str], start: int | None, stop: int | None) -> tuple[ByteRange, int]:
    """The bytes that an answer holds, and the size of the whole object. Raises Malformed unless they are those asked.

    The status does not count: some stores answer the right bytes with 200, and a proxy may drop Range.
    """
    length = headers.get("Content-Length", "")
    if found := _CONTENT_RANGE.fullmatch(headers.get("Content-Range", "")):
        first, last, size = map(int, found.groups())
        span = ByteRange(first, last + 1)
    elif length.isascii() and length.isdigit():
        size = int(length)
        span = ByteRange(0, size)
    else:
        raise Malformed("an object without its size")
    asked = ByteRange(0, size)
    if start is not None:
        asked = ByteRange(max(0, size + start) if start < 0 else start, min(size if stop is None else stop, size))
    if span != asked or (length and length != str(len(span))):
        raise Malformed(f"bytes {span.start} to {span.stop} (half-open) where {asked.start} to {asked.stop} were asked")
    return span, size
