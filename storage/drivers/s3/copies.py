"""Copies on the server's side: in one request, or above a size in ranges side by side, as S3 demands above 5 GiB.

Amazon copies a hundred ranges as fast as one. A store on one machine copies each slower, the more there are, until it
runs into time limits of its own (SeaweedFS at 100). So few begin, and every one that was quick makes room for one more.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

from storage.drivers.s3.bucket import Bucket, Part, UploadGone
from storage.errors import StorageError, Unavailable
from storage.ranges import ByteRange

LARGEST_COPY = 5 << 30
"""Bytes that S3 copies in one request."""

MOST_PARTS = 10_000
"""Parts of one multipart upload."""

FIRST = 8
"""Ranges of one copy that begin side by side."""

QUICK = 4.0
"""Seconds. SeaweedFS on two busy cores took up to 4.4 for each of 8 ranges of 32 MiB; 100 took as long in all."""


@dataclass(frozen=True, slots=True)
class Copier:
    """threshold: size above which a copy is made in ranges of about `chunk` bytes, at most `at_once` side by side."""

    bucket: Bucket
    threshold: int
    chunk: int
    at_once: int
    clock: Callable[[], float] = time.monotonic

    async def copy(self, source: str, target: str, size: int, *, note: str = "") -> None:
        """Copy an object of `size` bytes, also onto itself. Raises ObjectNotFound.

        note: for the copy; what has one is small, and copied in one request.
        """
        if size <= min(self.threshold, LARGEST_COPY):
            await self.bucket.copy(source, target, size=size, note=note)
            return
        id = await self.bucket.create_upload(target, checksums=False)
        try:
            await self.bucket.complete_upload(target, id, await self.parts(source, size, target, id))
        except UploadGone as exc:
            raise Unavailable("a copy within the store was given up by somebody else") from exc
        except BaseException:
            await give_up(self.bucket, target, id)
            raise

    async def parts(self, source: str, size: int, target: str, id: str) -> list[Part]:
        """The first parts of an upload, copied from an object. Half of the numbers are left for what comes behind."""
        count = min(max(size // self.chunk, ceil(size / LARGEST_COPY), 1), MOST_PARTS // 2)
        ends = [size * n // count for n in range(count + 1)]  # all about the same, so that none is too small for S3
        width = min(FIRST, self.at_once)
        slots = asyncio.Semaphore(width)

        async def part(number: int) -> Part:
            nonlocal width
            async with slots:
                span, began = ByteRange(ends[number - 1], ends[number]), self.clock()
                copied = await self.bucket.copy_part(target, id, number, source, span, beside=min(count, self.at_once))
            if width < self.at_once and self.clock() - began < QUICK:
                width += 1
                slots.release()
            return copied

        copies = [asyncio.ensure_future(part(number)) for number in range(1, count + 1)]
        try:
            return list(await asyncio.gather(*copies))
        finally:
            for copy in copies:
                copy.cancel()
            await asyncio.wait(copies)


async def give_up(bucket: Bucket, key: str, id: str) -> None:
    """Abort an upload because of another fault, which is the one to tell of; a lifecycle rule removes what stays."""
    try:
        await bucket.abort_upload(key, id)
    except StorageError:
        return
