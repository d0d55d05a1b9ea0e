"""Objects under keys that name their bytes: written straight there, and seen only when they are whole and verified.

Up to one part is one PutObject; more is a multipart upload on the final key, completed when the bytes are verified, and
aborted by whatever comes in between. Both ask the store to refuse where an object stands. A refusal is no failure: who
writes such a key writes the same bytes, another one just now or ourselves in a try whose answer was lost. What stands
there is looked at: another size is damage and is replaced; what is older than `fresh` is written again, so that a
collector takes it for new; all else is left.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from math import inf

from storage.driver import Tap
from storage.drivers.s3.bucket import Bucket, Part, UploadGone
from storage.drivers.s3.copies import give_up
from storage.drivers.s3.parts import PartBuffer
from storage.drivers.s3.probe import Probe
from storage.drivers.s3.stages import part_size
from storage.drivers.threads import Threads
from storage.errors import ObjectNotFound, PreconditionFailed, Unavailable


class Contents:
    """chunksize: bytes of a part, and the most that one PutObject sends.

    looks: does it look for what an upload in parts has made, as some stores only say that they made it?
    """

    def __init__(self, bucket: Bucket, probe: Probe, threads: Threads, chunksize: int, *, looks: bool) -> None:
        self._bucket = bucket
        self._probe = probe
        self._threads = threads
        self._chunksize = chunksize
        self._looks = looks

    async def put(self, key: str, data: bytes | memoryview, sha256: bytes | None, fresh: float) -> None:
        try:
            await self._bucket.put(key, data, if_absent=await self._probe.honoured(), sha256=sha256)
        except PreconditionFailed:
            if not await self._stands(key, len(data), fresh):
                await self._bucket.put(key, data, sha256=sha256)

    async def write(
        self,
        key: str,
        chunks: AsyncIterator[bytes],
        tap: Tap,
        verify: Callable[[], None],
        length: int | None,
        sha256: bytes | None,
        fresh: float,
    ) -> int:
        """write_content of the driver."""
        size = part_size(1, self._chunksize, length)
        part, other = PartBuffer(size), PartBuffer(size)
        parts = _Parts(self._bucket, self._threads, key, tap)
        try:
            async for chunk in chunks:
                left = memoryview(chunk)
                while left:
                    if part.is_full:  # not before more has come: what fills one part alone is put as it is
                        await parts.send(part.view)
                        part, other = other, part
                        part.begin(part_size(parts.count + 1, self._chunksize, length))
                    left = part.add(left)
            if not parts.begun:
                data = part.view
                await self._tap(tap, data)
                verify()
                await self._threads.finish(self.put(key, data, sha256, fresh))
                return len(data)
            await parts.send(part.view)
            await parts.sent()
            verify()
            await self._threads.finish(self._complete(key, parts, fresh))
        except BaseException:
            await parts.give_up()
            raise
        return parts.size

    async def _complete(self, key: str, parts: "_Parts", fresh: float) -> None:
        try:
            await self._completed(key, parts, if_absent=await self._probe.honoured())
        except PreconditionFailed:
            if await self._stands(key, parts.size, fresh):
                await give_up(self._bucket, key, parts.id)
            else:
                await self._completed(key, parts, if_absent=False)

    async def _completed(self, key: str, parts: "_Parts", *, if_absent: bool) -> None:
        """Raises PreconditionFailed; Unavailable where the object is not there in the end."""
        try:
            await self._bucket.complete_upload(key, parts.id, parts.parts, if_absent=if_absent)
        except UploadGone as exc:
            # an earlier try, whose answer was lost?
            if not await self._stands(key, parts.size, inf):
                raise Unavailable("an upload to the store was given up by somebody else; push it again") from exc
        else:
            if self._looks and not await self._stands(key, parts.size, inf):
                raise Unavailable("the store does not have what it says to have stored; push it again")

    async def _stands(self, key: str, size: int, fresh: float) -> bool:
        """Does an object of that size stand there that is not older than `fresh`?"""
        try:
            found = await self._bucket.head(key)
        except ObjectNotFound:
            return False
        return found.size == size and found.date - found.modified <= fresh

    async def _tap(self, tap: Tap, data: memoryview) -> None:
        if data:
            await self._threads.run(tap, data)


class _Parts:
    """A multipart upload to a final key: one part is sent and hashed while the next is received.

    What is sent stays as it is until the next but one is.
    """

    def __init__(self, bucket: Bucket, threads: Threads, key: str, tap: Tap) -> None:
        self.id = ""
        self.parts: list[Part] = []
        self.size = 0
        self.count = 0
        self._bucket = bucket
        self._threads = threads
        self._key = key
        self._tap = tap
        self._sending: asyncio.Task[None] | None = None

    @property
    def begun(self) -> bool:
        return self.count > 0

    async def send(self, data: memoryview) -> None:
        await self.sent()
        self.count += 1
        self.size += len(data)
        self._sending = asyncio.ensure_future(self._send(data, self.count))

    async def sent(self) -> None:
        if self._sending is not None:
            sending = self._sending
            await self._threads.finish(sending)
            self._sending = None

    async def _send(self, data: memoryview, number: int) -> None:
        hashing = self._threads.start(self._tap, data)
        try:
            if not self.id:
                self.id = await self._bucket.create_upload(self._key)
            self.parts.append(await self._bucket.upload_part(self._key, self.id, number, data))
        except UploadGone as exc:
            raise Unavailable("an upload to the store was given up by somebody else") from exc
        finally:
            await self._threads.ended(hashing)
        hashing.result()

    async def give_up(self) -> None:
        """Nothing stays of it. The part on its way is waited for, or it might arrive behind the abort."""
        await self._threads.finish(self._give_up())

    async def _give_up(self) -> None:
        if self._sending is not None:
            await asyncio.wait([self._sending])
            if not self._sending.cancelled():
                self._sending.exception()  # retrieved: another fault is told of, or it has been already
        if self.id:
            await give_up(self._bucket, self._key, self.id)
