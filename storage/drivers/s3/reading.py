"""Objects as streams: one GET, which is taken up again where it breaks, and parts ahead of it where that helps.

- A body that breaks, stalls or ends early is asked for again from the byte it has come to, a bounded number of times
  without progress; what cannot be had is Unavailable, never a short end.
- The rest must be of the same object. Its size has to agree, and for a small object its ETag as well: what is written
  again under its key (links, states) is small, and what is large lies under a key that names its bytes, where another
  ETag means other parts and the same bytes.
- What is delivered now streams straight through, without a buffer. How many parts behind it are fetched at the same
  time is learned (lookahead.py), and 0 to begin with. A part ahead that fails is only a part that is fetched again.
- A slow client holds all of it back: nothing is asked for but what is next, and the parts ahead, which have buffers.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import dataclass

from storage.driver import CHUNK, ObjectReader
from storage.drivers.s3.bucket import Body, Bucket
from storage.drivers.s3.lookahead import PART, SPAN, TRYING, LookAhead
from storage.errors import ObjectNotFound, RangeNotSatisfiable, StorageError, Unavailable
from storage.ranges import ByteRange

_TRIES = 4
"""Breaks without progress in between before a reader gives up."""

_WORTH = 4 * PART
"""Bytes to come below which nothing is fetched ahead: leaving a body in its middle costs its connection."""


@dataclass(slots=True)
class _Ahead:
    """A part on its way into a buffer. The result says whether it has come."""

    span: ByteRange
    buffer: bytearray
    task: "asyncio.Task[bool]"
    dropped: bool = False


class S3Reader(ObjectReader):
    """body: the answer to the first GET; it is the reader's from here on."""

    def __init__(self, bucket: Bucket, key: str, body: Body, ahead: LookAhead) -> None:
        self.size = body.head.size
        self.span = body.span
        self._bucket = bucket
        self._key = key
        self.note = body.head.note
        self._etag = body.head.etag
        self._body: Body | None = body
        self._shared = ahead
        self._tries = len(body.span) >= TRYING
        self._ahead: deque[_Ahead] = deque()
        self._current: _Ahead | None = None
        self._closed = False
        self._counted = False

    async def chunks(self) -> AsyncIterator[bytes]:
        if len(self.span) > _WORTH and not self._counted:
            self._shared.readers += 1
            self._counted = True
        position, meter = self.span.start, _Meter(self._shared) if self._tries else None
        source = self._pieces()
        async with aclosing(source):
            while position < self.span.stop:
                began = time.perf_counter()
                chunk = await anext(source)
                position += len(chunk)
                if meter is not None:
                    meter.add(len(chunk), time.perf_counter() - began)
                yield chunk

    @property
    def _parts(self) -> int:
        """That may be fetched ahead now."""
        return self._shared.window.parts(self._shared.readers, tries=self._tries)

    async def _pieces(self) -> AsyncGenerator[bytes, None]:
        position, tries = self.span.start, _TRIES
        while position < self.span.stop:
            began = position
            try:
                is_next = self._ahead and self._ahead[0].span.start == position
                pieces = self._buffered() if is_next else self._streamed(position)
                async with aclosing(pieces):
                    async for piece in pieces:
                        position += len(piece)
                        yield piece
            except Unavailable:
                tries = _TRIES if position - began > CHUNK else tries - 1
                if not tries or self._closed:
                    raise
            else:
                tries = _TRIES if position > began else tries - 1
                if not tries:
                    raise Unavailable("the store ends objects early")

    async def _streamed(self, position: int) -> AsyncGenerator[bytes, None]:
        """From position up to the first part ahead, straight from the socket."""
        body = self._body or await self._go_on(position)
        end = body.span.stop
        try:
            async for chunk in body.chunks():
                await asyncio.sleep(0)  # what is in memory already comes without a turn of the loop
                if end - position > _WORTH and self._parts:
                    end = position + PART  # the window has opened: the rest comes in parts
                if end < self.span.stop:
                    self._fetch_ahead(end)
                piece = chunk[: end - position]
                position += len(piece)
                yield piece
                if position >= end:
                    return
        finally:
            await self._let_go()

    async def _buffered(self) -> AsyncGenerator[bytes, None]:
        """The bytes of the first part ahead; none, if it could not be had."""
        ahead = self._current = self._ahead.popleft()
        try:
            if not await ahead.task:
                return
            self._fetch_ahead(ahead.span.stop)
            size = len(ahead.span)
            view = memoryview(ahead.buffer)
            for start in range(0, size, CHUNK):
                if self._closed:
                    raise Unavailable("a reader was closed while it was read")
                yield bytes(view[start : min(start + CHUNK, size)])
                await asyncio.sleep(0)
        finally:
            await self._drop(ahead)

    def _fetch_ahead(self, position: int) -> None:
        """Start parts behind position, as far as the window and the buffers go."""
        position = self._ahead[-1].span.stop if self._ahead else position
        while not self._closed and position < self.span.stop and len(self._ahead) < self._parts:
            buffer = self._shared.buffers.take()
            if buffer is None:
                return
            span = ByteRange(position, min(position + PART, self.span.stop))
            self._ahead.append(_Ahead(span, buffer, asyncio.ensure_future(self._fill(span, buffer))))
            position = span.stop

    async def _fill(self, span: ByteRange, buffer: bytearray) -> bool:
        try:
            body = await self._bucket.get(self._key, span.start, span.stop)
            try:
                if not self._is_rest(body, span):
                    return False
                await body.readinto(memoryview(buffer)[: len(span)])
            finally:
                await body.aclose()
        except StorageError:
            return False  # asked for again when its turn has come
        return True

    async def aclose(self) -> None:
        self._closed = True
        if self._counted:
            self._shared.readers -= 1
            self._counted = False
        await self._let_go()
        if self._current is not None:
            await self._drop(self._current)
        while self._ahead:
            await self._drop(self._ahead.popleft())

    async def _drop(self, ahead: _Ahead) -> None:
        """The buffer goes back when nothing is written into it any more."""
        if ahead.dropped:
            return
        ahead.dropped = True
        if not ahead.task.done():
            ahead.task.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.wait([ahead.task])
        if ahead.task.done():
            self._shared.buffers.give(ahead.buffer)
        else:  # cancelled ourselves, while it ends
            ahead.task.add_done_callback(lambda _: self._shared.buffers.give(ahead.buffer))

    async def _let_go(self) -> None:
        body, self._body = self._body, None
        if body is not None:
            await body.aclose()

    async def _go_on(self, position: int) -> Body:
        stop = self.span.stop
        if self._ahead:
            stop = self._ahead[0].span.start
        elif stop - position > _WORTH and self._parts:
            stop = position + PART
        span = ByteRange(position, stop)
        try:
            body = await self._bucket.get(self._key, span.start, span.stop)
        except (ObjectNotFound, RangeNotSatisfiable) as exc:
            raise Unavailable("an object went away while it was read") from exc
        if self._closed or not self._is_rest(body, span):
            await body.aclose()
            raise Unavailable("an object was replaced while it was read")
        self._body = body
        return body

    def _is_rest(self, body: Body, span: ByteRange) -> bool:
        same = body.head.size == self.size and (self.size > CHUNK or body.head.etag == self._etag)
        return same and body.span == span


class _Meter:
    """Tells the window of every span that was read in one way.

    Behind a change what was fetched in the other way comes to its end, or what is ahead is being filled: not counted.
    """

    def __init__(self, shared: LookAhead) -> None:
        self._shared = shared
        self._way = (0, 0)
        self._start(0)

    def add(self, size: int, waited: float) -> None:
        """waited: seconds for the store."""
        way = self._shared.window.parts(self._shared.readers), self._shared.readers
        if way != self._way:
            self._start(max(way[0], self._way[0]) * PART)
            self._way = way
        if self._left_out > 0:
            self._left_out -= size
            if self._left_out <= 0:
                self._start(0)
            return
        self._size += size
        self._waited += waited
        if self._size >= SPAN:
            now = time.perf_counter()
            self._shared.window.record(*way, self._size, now - self._began, self._waited, now)
            self._start(0)

    def _start(self, left_out: int) -> None:
        self._left_out, self._size, self._waited = left_out, 0, 0.0
        self._began = time.perf_counter()
