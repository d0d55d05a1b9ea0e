"""Objects as streams: one GET, which is taken up again where it breaks.

- A body that breaks, stalls or ends early is asked for again from the byte it has come to, a bounded number of times
  without progress; what cannot be had is Unavailable, never a short end.
- The rest must be of the same object. Its size has to agree, and for a small object its ETag as well: what is written
  again under its key (links, states) is small, and what is large lies under a key that names its bytes, where another
  ETag means other parts and the same bytes.
"""

import asyncio
from collections.abc import AsyncIterator

from storage.driver import CHUNK, ObjectReader
from storage.drivers.s3.bucket import Body, Bucket
from storage.errors import ObjectNotFound, RangeNotSatisfiable, Unavailable

_TRIES = 4
"""Breaks without progress in between before a reader gives up."""


class S3Reader(ObjectReader):
    """body: the answer to the first GET; it is the reader's from here on."""

    def __init__(self, bucket: Bucket, key: str, body: Body) -> None:
        self.size = body.head.size
        self.span = body.span
        self._bucket = bucket
        self._key = key
        self._etag = body.head.etag
        self._body: Body | None = body
        self._closed = False

    async def chunks(self) -> AsyncIterator[bytes]:
        position, tries = self.span.start, _TRIES
        while position < self.span.stop:
            body = self._body or await self._go_on(position)
            began = position
            try:
                async for chunk in body.chunks():
                    await asyncio.sleep(0)  # what is in memory already comes without a turn of the loop
                    position += len(chunk)
                    yield chunk
            except Unavailable:
                tries = _TRIES if position - began > CHUNK else tries - 1
                if not tries or self._closed:
                    raise
            else:
                tries -= 1
                if position < self.span.stop and not tries:
                    raise Unavailable("the store ends objects early")
            await self._let_go()

    async def aclose(self) -> None:
        self._closed = True
        await self._let_go()

    async def _let_go(self) -> None:
        body, self._body = self._body, None
        if body is not None:
            await body.aclose()

    async def _go_on(self, position: int) -> Body:
        try:
            body = await self._bucket.get(self._key, position, self.span.stop)
        except (ObjectNotFound, RangeNotSatisfiable) as exc:
            raise Unavailable("an object went away while it was read") from exc
        head = body.head
        same = head.size == self.size and (self.size > CHUNK or head.etag == self._etag)
        if not same or (body.span.start, body.span.stop) != (position, self.span.stop) or self._closed:
            await body.aclose()
            raise Unavailable("an object was replaced while it was read")
        self._body = body
        return body
