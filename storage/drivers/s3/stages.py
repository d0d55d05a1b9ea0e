"""Stages as multipart uploads, which distribution can go on with, and we with its.

What is true is in the store: the open upload of exactly that key and its parts, or an object that it has become. What
this process remembers of a stage is used only while its length is what the caller believes, and looked up again when
the store does not know the upload any more.

- A part is sent while the next is received: two parts of memory for an upload, no more. Parts have `chunksize` bytes;
  behind the 8,000th they grow, so that the 10,000 that S3 allows hold any object that it allows.
- S3 takes no small part but the last. When bytes come behind a small one, the upload is completed, and a new one starts
  with its bytes: read when they are few, copied on the server's side when they are many. distribution does the same.
- S3 knows no condition for parts: two processes that append to one stage at the same time are not kept apart, as two
  of this process are. The digest at the end tells; nothing wrong is published.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from math import ceil
from typing import Any

from storage.driver import StageInfo, Tap
from storage.drivers.s3.bucket import Bucket, Part, UploadGone
from storage.drivers.s3.copies import LARGEST_COPY, MOST_PARTS, Copier, give_up
from storage.drivers.s3.parts import PartBuffer
from storage.drivers.threads import Threads
from storage.errors import ObjectNotFound, OffsetMismatch, Unavailable

SMALLEST = 5 << 20
"""Bytes of a part that others follow."""

_MIB = 1 << 20
_STEADY = 8_000
_STEP = 140

_STAGES = 1024
"""Stages that are remembered; a forgotten one costs two calls."""

_KEPT = 64 << 20
"""Bytes of small stages that are kept in memory, in all: they are published without a copy."""


def part_size(number: int, chunksize: int, length: int | None = None) -> int:
    """Bytes of part `number` (from 1): constant, then doubled every 140 parts. length: of the whole, where known."""
    if length is not None:
        return min(max(chunksize, ceil(length / MOST_PARTS / _MIB) * _MIB), LARGEST_COPY)
    return int(min(chunksize << max(0, (number - _STEADY - 1) // _STEP + 1), LARGEST_COPY))


@dataclass(eq=False, slots=True)
class Growing:
    """What is known of a stage. id: of the upload that is open; "": the bytes are an object. started: as StageInfo's.

    lock: held while a part is sent or the upload is replaced, never while a caller's chunks are waited for.
    dropped: begun anew or aborted.
    """

    key: str
    id: str
    parts: list[Part]
    size: int
    modified: float
    dropped: bool = False
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def become(self, other: "Growing") -> None:
        self.id, self.parts, self.size, self.modified = other.id, other.parts, other.size, other.modified


class Stages:
    """The stages of one bucket. Keys are whole keys."""

    def __init__(self, bucket: Bucket, copier: Copier, threads: Threads, chunksize: int) -> None:
        self._bucket = bucket
        self._copier = copier
        self._threads = threads
        self._chunksize = chunksize
        self._known: OrderedDict[str, Growing] = OrderedDict()
        self._ended: OrderedDict[str, None] = OrderedDict()
        self._kept = _Kept(_KEPT)

    async def begin(self, key: str) -> None:
        old = self._known.get(key)
        if old is not None:
            await self.abort(key)
        id = await self._bucket.create_upload(key, checksums=False, alone=True)
        self._ended.pop(key, None)
        self._remember(Growing(key, id, [], 0, await self._bucket.date()))

    async def append(self, key: str, offset: int, chunks: AsyncIterator[bytes], tap: Tap | None) -> int:
        growing = await self._of_size(key, offset)
        sender = _Sender(self, growing, offset, tap)
        try:
            async for chunk in chunks:
                await sender.add(chunk)
        except Exception:
            await sender.flush()
            raise
        else:
            return await sender.flush()
        finally:
            await sender.aclose()

    async def info(self, key: str) -> StageInfo:
        """Asks the store: another process may have gone on with the stage."""
        growing = self._known.get(key) or await self._find(key)
        async with growing.lock:
            await self._refresh(growing)
            return StageInfo(growing.size, growing.modified)

    async def complete(self, key: str, size: int) -> None:
        growing = await self._of_size(key, size)
        async with growing.lock:
            if growing.size != size:  # somebody has appended while we waited
                raise OffsetMismatch(growing.size)
            try:
                await self._complete(growing)
            except UploadGone:
                await self._refresh(growing)
                if growing.size != size:
                    raise OffsetMismatch(growing.size) from None
                if growing.id:
                    await self._completed_again(growing)

    async def abort(self, key: str) -> None:
        """Of a completed stage the object stays."""
        growing = self._known.get(key)
        if growing is not None:
            async with growing.lock:
                if growing.id:
                    await self._bucket.abort_upload(key, growing.id)
                self._end(growing)
        elif key not in self._ended:
            for upload in await self._bucket.list_uploads(key):
                if upload.key == key:
                    await self._bucket.abort_upload(key, upload.id)

    async def whole(self, key: str, size: int) -> bytes | memoryview | None:
        """All bytes of an open stage, where this process still has them. Raises what complete raises."""
        growing = await self._of_size(key, size)
        if not growing.id:
            return None
        return self._kept.get(growing) if size else b""

    def forget(self, key: str) -> None:
        """The stage's object has been moved or deleted: there is no stage any more."""
        growing = self._known.get(key)
        if growing is not None and not growing.id:
            self._end(growing)

    # For the sender

    def part_size(self, growing: Growing, ahead: int) -> int:
        """Bytes of the part that comes behind `ahead` more."""
        return part_size(len(growing.parts) + ahead + 1, self._chunksize)

    async def store(self, growing: Growing, offset: int, data: memoryview, tap: Tap | None) -> int:
        """Add a part. Returns the new length."""
        async with growing.lock:
            self._check(growing, offset)
            try:
                await self._add(growing, data)
            except UploadGone:
                # completed, aborted or begun anew by another process
                await self._refresh(growing)
                self._check(growing, offset)
                try:
                    await self._add(growing, data)
                except UploadGone as exc:
                    raise ObjectNotFound(growing.key) from exc
        if tap is not None:
            await self._threads.run(tap, data)
        return offset + len(data)

    def start(self, work: Coroutine[Any, Any, int]) -> "asyncio.Task[int]":
        return asyncio.ensure_future(work)

    async def finish(self, task: "asyncio.Task[int]") -> int:
        """What the task gives; a caller who is cancelled waits for its end."""
        return await self._threads.finish(task)

    # Steps; the lock is held

    def _check(self, growing: Growing, offset: int) -> None:
        if growing.dropped:
            raise ObjectNotFound(growing.key)
        if growing.size != offset:
            raise OffsetMismatch(growing.size)

    async def _add(self, growing: Growing, data: memoryview) -> None:
        if not growing.id or (growing.parts and growing.parts[-1].size < SMALLEST):
            await self._start_anew(growing, data)
        else:
            number = growing.parts[-1].number + 1 if growing.parts else 1
            self._kept.drop(growing)  # before the part behind it: two are in memory, no more
            part = await self._bucket.upload_part(growing.key, growing.id, number, data, checksum=False)
            growing.parts.append(part)
            if number == 1:
                self._kept.keep(growing, data)
        growing.size += len(data)
        growing.modified = growing.parts[-1].modified

    async def _start_anew(self, growing: Growing, data: memoryview) -> None:
        """A new upload that starts with the bytes so far, and goes on with data."""
        key, size = growing.key, growing.size
        self._kept.drop(growing)
        if growing.id:
            await self._complete(growing)
        head = await self._read(key, size) if size < SMALLEST else b""
        id = await self._bucket.create_upload(key, checksums=False, alone=True)
        try:
            parts = [] if size < SMALLEST else await self._copier.parts(key, size, key, id)
            first = memoryview(head + data) if head else data
            parts.append(await self._bucket.upload_part(key, id, len(parts) + 1, first, checksum=False))
        except BaseException:
            await give_up(self._bucket, key, id)  # then the object is the stage
            raise
        growing.id, growing.parts = id, parts

    async def _read(self, key: str, size: int) -> bytes:
        body = await self._bucket.get(key)
        try:
            if body.head.size != size:
                raise OffsetMismatch(body.head.size)
            found = b"".join([chunk async for chunk in body.chunks()])
        finally:
            await body.aclose()
        if len(found) != size:
            raise Unavailable("the store has given fewer bytes than it holds")
        return found

    async def _complete(self, growing: Growing) -> None:
        """Raises UploadGone where the store does not know the upload, and its bytes are no object either."""
        if not growing.id:
            return
        if growing.parts:
            try:
                await self._bucket.complete_upload(growing.key, growing.id, growing.parts)
            except UploadGone:
                # an earlier try, whose answer was lost?
                try:
                    found = await self._bucket.head(growing.key)
                except ObjectNotFound:
                    found = None
                if found is None or found.size != growing.size:
                    raise
        else:  # S3 completes nothing that has no parts
            await self._bucket.put(growing.key, b"")
            await give_up(self._bucket, growing.key, growing.id)
        growing.id, growing.parts = "", []
        self._kept.drop(growing)

    async def _completed_again(self, growing: Growing) -> None:
        try:
            await self._complete(growing)
        except UploadGone as exc:
            raise ObjectNotFound(growing.key) from exc

    # What is known

    async def _of_size(self, key: str, size: int) -> Growing:
        """The stage, which has `size` bytes as far as is known. Raises ObjectNotFound; OffsetMismatch."""
        growing = self._known.get(key)
        if growing is None:
            growing = await self._find(key)
        elif growing.size != size:
            async with growing.lock:  # a part may be on its way
                if growing.size != size:
                    await self._refresh(growing)
        if growing.size != size:
            raise OffsetMismatch(growing.size)
        if key in self._known:
            self._known.move_to_end(key)
        return growing

    async def _find(self, key: str) -> Growing:
        found = await self._load(key)
        return self._known.get(key) or self._remember(found)  # another caller may have been faster

    async def _refresh(self, growing: Growing) -> None:
        """Look at the store; parts first, since most often the upload is still the same."""
        if growing.dropped:
            raise ObjectNotFound(growing.key)
        try:
            if growing.id:
                try:
                    parts = await self._bucket.list_parts(growing.key, growing.id)
                    found = _growing(growing.key, growing.id, parts, growing.modified)
                except UploadGone:
                    found = await self._load(growing.key)
            else:
                found = await self._load(growing.key)
        except ObjectNotFound:
            self._end(growing)
            raise
        if found.size != growing.size:
            self._kept.drop(growing)
        growing.become(found)

    async def _load(self, key: str) -> Growing:
        """From the store alone. Raises ObjectNotFound."""
        uploads = [upload for upload in await self._bucket.list_uploads(key) if upload.key == key]
        head = asyncio.ensure_future(self._head(key))
        best: Growing | None = None
        try:
            for upload in sorted(uploads, key=lambda upload: upload.started, reverse=True):
                with suppress(UploadGone):  # ended between the two calls
                    found = _growing(key, upload.id, await self._bucket.list_parts(key, upload.id), upload.started)
                    best = found if best is None or found.size > best.size else best
        finally:
            await _ended(head)
        standing = head.result()
        # An upload that goes on where an object ended holds all of it, or it is a try whose answer was lost: then what
        # was acknowledged is the object, or in another try.
        if best is not None and (standing is None or best.size >= standing.size):
            return best
        if standing is None:
            raise ObjectNotFound(key)
        return standing

    async def _head(self, key: str) -> Growing | None:
        try:
            head = await self._bucket.head(key)
        except ObjectNotFound:
            return None
        return Growing(key, "", [], head.size, head.modified)

    def _remember(self, growing: Growing) -> Growing:
        self._known[growing.key] = growing
        if len(self._known) > _STAGES:
            _, oldest = self._known.popitem(last=False)
            self._kept.drop(oldest)
        return growing

    def _end(self, growing: Growing) -> None:
        growing.dropped = True
        self._kept.drop(growing)
        if self._known.get(growing.key) is growing:
            del self._known[growing.key]
        self._ended[growing.key] = None
        if len(self._ended) > _STAGES:
            self._ended.popitem(last=False)


def _growing(key: str, id: str, parts: list[Part], started: float) -> Growing:
    size = sum(part.size for part in parts)
    return Growing(key, id, parts, size, parts[-1].modified if parts else started)


class _Kept:
    """Stages that are one part, in memory; the oldest go when there are too many bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._data: OrderedDict[Growing, memoryview] = OrderedDict()

    def keep(self, growing: Growing, data: memoryview) -> None:
        self.drop(growing)
        self._data[growing] = data
        self._size += _held(data)
        while self._size > self._limit:
            self.drop(next(iter(self._data)))

    def get(self, growing: Growing) -> memoryview | None:
        data = self._data.get(growing)
        return data if data is not None and len(data) == growing.size else None

    def drop(self, growing: Growing) -> None:
        data = self._data.pop(growing, None)
        if data is not None:
            self._size -= _held(data)


def _held(data: memoryview) -> int:
    """Bytes of memory that a view keeps, of which it may show fewer."""
    return memoryview(data.obj).nbytes


class _Sender:
    """Chunks on their way to a stage: one part is being sent while the next is received, and no more than that."""

    def __init__(self, stages: Stages, growing: Growing, offset: int, tap: Tap | None) -> None:
        self._stages = stages
        self._growing = growing
        self._offset = offset
        self._tap = tap
        self._part = PartBuffer(stages.part_size(growing, 0))
        self._spare: PartBuffer | None = None
        self._begun = False
        self._sending: asyncio.Task[int] | None = None
        self._failed = False

    async def add(self, chunk: bytes) -> None:
        left = memoryview(chunk)
        while left:
            left = self._part.add(left)
            if self._part.is_full:
                await self._send()

    async def flush(self) -> int:
        """Store what has been added. Returns the length of the stage."""
        if self._part.filled and not self._failed:
            await self._send()
        await self._sent()
        return self._offset

    async def aclose(self) -> None:
        """Waits for what is being sent; what is not yet, is dropped."""
        if self._sending is not None:
            await _ended(self._sending)

    async def _send(self) -> None:
        await self._sent()
        part, size = self._part, self._stages.part_size(self._growing, 1)
        self._sending = self._stages.start(self._stages.store(self._growing, self._offset, part.view, self._tap))
        self._part = self._spare or PartBuffer(size)
        self._part.begin(size)
        # the first may be kept to be published as it is, so it is not filled again
        self._spare, self._begun = part if self._begun else None, True

    async def _sent(self) -> None:
        if self._sending is not None:
            sending, self._sending = self._sending, None
            self._failed = True
            self._offset = await self._stages.finish(sending)
            self._failed = False


async def _ended(task: "asyncio.Task[Any]") -> None:
    """Wait for the end of a task, whatever it brings. A caller who is cancelled meanwhile must raise on."""
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([task])
    if not task.cancelled():
        task.exception()  # retrieved, or asyncio would log it as lost
