"""S3Driver: objects in a bucket, in the layout of distribution, whose registries may share it.

- Nothing is locked and nobody is asked but the store: conditions hold between processes because it checks them
  (probe.py finds out whether it does). A version is an ETag: equal bytes have equal versions.
- A refused condition may be our own write, sent again after its answer was lost: what stands there decides.
- A write that is cancelled is waited for: it has happened or not by then, and does not turn up later.
- Reads are one call (reading.py), lists are in order whatever the store's (listing.py), stages are multipart uploads
  (stages.py), and objects whose digest is known first go straight to their key (contents.py); what a crash leaves of
  the last two is found by unfinished.py.
"""

import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from math import inf
from typing import Any, TypeVar

from storage.driver import CallSeen, ObjectInfo, ObjectReader, Stage, StageInfo, StorageDriver, Tap, Unfinished
from storage.drivers.s3.bucket import Bucket, PerhapsOurs, Refused
from storage.drivers.s3.contents import Contents
from storage.drivers.s3.copies import Copier
from storage.drivers.s3.keys import Keys
from storage.drivers.s3.listing import Lister
from storage.drivers.s3.lookahead import LookAhead
from storage.drivers.s3.probe import Probe
from storage.drivers.s3.reading import S3Reader
from storage.drivers.s3.settings import S3Settings
from storage.drivers.s3.stages import Stages
from storage.drivers.s3.unfinished import list_unfinished
from storage.drivers.threads import Threads
from storage.errors import ObjectNotFound, OffsetMismatch, PreconditionFailed, RangeNotSatisfiable
from storage.ranges import RangeRequest

log = logging.getLogger(__name__)
T = TypeVar("T")

_SCRATCH = "docker/registry/v2/_moorage"
"""As storage/layout.py has it; distribution looks at nothing there."""

_HASHING = 4
"""Threads for taps, which hash."""


class S3Driver(StorageDriver):
    """bucket: closed with the driver."""

    offers_urls = True
    stages_are_hidden = True
    calls_are_dear = True

    def __init__(self, settings: S3Settings, bucket: Bucket) -> None:
        self.name = f"s3 bucket {settings.bucket}"
        self._bucket = bucket
        self._keys = Keys(settings.rootdirectory)
        self._lister = Lister(bucket, self._keys)
        self._notes = not settings.keyid  # they are metadata, which S3 does not encrypt with the key
        self._threads = Threads("s3", _HASHING)
        self._ahead = LookAhead()
        self._probe = Probe(bucket, self._keys.of(_SCRATCH))
        self._copier = Copier(
            bucket,
            settings.multipartcopythresholdsize,
            settings.multipartcopychunksize,
            settings.multipartcopymaxconcurrency,
        )
        self._stages = Stages(bucket, self._copier, self._threads, settings.chunksize)
        self._contents = Contents(bucket, self._probe, self._threads, settings.chunksize, looks=settings.checkuploads)

    # Reading

    async def open(self, key: str, range: RangeRequest | None = None) -> ObjectReader:
        whole = self._keys.of(key)
        start, stop = _asked(range)
        if start is not None and stop is not None and start >= stop:  # S3 would send all of it
            raise RangeNotSatisfiable((await self._bucket.head(whole)).size)
        try:
            return S3Reader(self._bucket, whole, await self._bucket.get(whole, start, stop), self._ahead)
        except ObjectNotFound as exc:
            raise ObjectNotFound(key) from exc

    async def head(self, key: str) -> ObjectInfo:
        try:
            found = await self._bucket.head(self._keys.of(key))
        except ObjectNotFound as exc:
            raise ObjectNotFound(key) from exc
        return ObjectInfo(key, found.size, found.etag, found.modified)

    def list_objects(self, prefix: str, after: str = "") -> AsyncIterator[ObjectInfo]:
        return self._lister.objects(prefix, after)

    async def list_folders(
        self, prefix: str, *, after: str = "", limit: int | None = None, containing: str = ""
    ) -> list[str]:
        return await self._lister.folders(prefix, after, limit, containing)

    async def find_folders(
        self, prefix: str, marker: str, *, hidden: str = "_", after: str = "", limit: int | None = None
    ) -> list[str]:
        """Without a call for each folder: what lies within hidden ones is leapt over."""
        return await self._lister.folders_with(prefix, marker, hidden, after, limit)

    async def url(self, key: str, method: str, expires: float) -> str | None:
        return await self._bucket.presign(self._keys.of(key), method, expires)

    async def now(self) -> float:
        return await self._bucket.date()

    # Writing

    async def put(
        self, key: str, data: bytes, *, if_absent: bool = False, if_version: str | None = None, private: bool = False
    ) -> str:
        whole = self._keys.of(key)
        return await self._finish(self._put(whole, data, if_absent, if_version))

    async def put_noted(self, key: str, data: bytes, note: str) -> None:
        await self._finish(self._put_noted(self._keys.of(key), data, note))

    async def _put_noted(self, whole: str, data: bytes, note: str) -> None:
        if not self._notes:
            await self._bucket.put(whole, data)
            return
        try:
            await self._bucket.put(whole, data, note=note)
        except Refused:  # there are stores that take little metadata, or none
            await self._bucket.put(whole, data)
            self._notes = False
            log.warning("the S3 store takes no metadata of %d bytes: manifests by digest cost a call more", len(note))

    async def _put(self, whole: str, data: bytes, if_absent: bool, if_version: str | None) -> str:
        if not if_absent and if_version is None:
            return await self._bucket.put(whole, data)
        if not await self._probe.honoured():
            await self._check(whole, if_version)  # not atomic: the log has said so
            return await self._bucket.put(whole, data)
        try:
            return await self._bucket.put(whole, data, if_absent=if_absent, if_match=if_version)
        except PerhapsOurs:
            if (etag := await self._etag_if_same(whole, data)) is None:
                raise
            return etag

    async def conditions_hold(self) -> bool:
        return await self._probe.honoured()

    async def put_content(self, key: str, data: bytes, *, sha256: bytes | None = None, fresh: float = inf) -> None:
        await self._finish(self._contents.put(self._keys.of(key), data, sha256, fresh))

    async def write_content(
        self,
        key: str,
        chunks: AsyncIterator[bytes],
        *,
        staging: str,
        tap: Tap,
        verify: Callable[[], None],
        length: int | None = None,
        sha256: bytes | None = None,
        fresh: float = inf,
    ) -> int:
        """Straight to the key: what is not completed is not seen. Two parts of memory, whatever the length."""
        return await self._contents.write(self._keys.of(key), chunks, tap, verify, length, sha256, fresh)

    async def publish(self, stage: Stage, source: str, target: str, size: int, *, fresh: float = inf) -> None:
        """Complete, copy, delete; where all bytes are one part and still in memory, one PUT and one abort."""
        await self._finish(self._publish(self._keys.of(source), self._keys.of(target), size, fresh))

    async def _publish(self, source: str, target: str, size: int, fresh: float) -> None:
        data = await self._stages.whole(source, size)
        if data is not None:
            await self._contents.put(target, data, None, fresh)
            await self._stages.abort(source)
            return
        await self._stages.complete(source, size)
        await self._copier.copy(source, target, size)
        await self._delete(source)

    async def delete(self, key: str, *, if_version: str | None = None) -> None:
        await self._finish(self._delete(self._keys.of(key), if_version))

    async def _delete(self, whole: str, if_version: str | None = None) -> None:
        try:
            if if_version is not None and not await self._probe.honoured():
                await self._check(whole, if_version)
                if_version = None
            await self._bucket.delete(whole, if_match=if_version)
        except ObjectNotFound:
            pass
        except PreconditionFailed:
            try:
                await self._bucket.head(whole)
            except ObjectNotFound:
                pass  # SeaweedFS refuses to delete a version of what is not there
            else:
                raise
        self._stages.forget(whole)

    async def delete_tree(self, prefix: str) -> None:
        self._keys.below(prefix)
        await self._finish(self._delete_tree(prefix))

    async def _delete_tree(self, prefix: str) -> None:
        async for keys in self._lister.everything(prefix):
            await self._bucket.delete_many(keys)
            for key in keys:
                self._stages.forget(key)

    async def move(self, source: str, target: str, size: int) -> None:
        """Copies, on the server's side, and deletes: another process may see both for a moment."""
        await self._finish(self._move(self._keys.of(source), self._keys.of(target), size))

    async def _move(self, source: str, target: str, size: int) -> None:
        found = await self._bucket.head(source)
        if found.size != size:
            raise OffsetMismatch(found.size)
        await self._copier.copy(source, target, size)
        await self._delete(source)

    async def touch(self, key: str) -> None:
        await self._finish(self._touch(self._keys.of(key)))

    async def _touch(self, whole: str) -> None:
        found = await self._bucket.head(whole)
        await self._copier.copy(whole, whole, found.size, note=found.note if self._notes else "")

    # Stages: a stage's name is its key

    async def begin(self, key: str) -> Stage:
        """Older stages that other processes have begun under the key are not looked for: keys of stages are new."""
        await self._finish(self._stages.begin(self._keys.of(key)))
        return Stage(key)

    async def find_stage(self, key: str) -> Stage:
        self._keys.of(key)
        return Stage(key)

    async def append(self, stage: Stage, offset: int, chunks: AsyncIterator[bytes], tap: Tap | None = None) -> int:
        return await self._stages.append(self._keys.of(stage), offset, chunks, tap)

    async def stage_info(self, stage: Stage) -> StageInfo:
        return await self._stages.info(self._keys.of(stage))

    async def complete(self, stage: Stage, size: int) -> None:
        await self._finish(self._stages.complete(self._keys.of(stage), size))

    async def abort(self, stage: Stage) -> None:
        await self._finish(self._stages.abort(self._keys.of(stage)))

    # What a crash has left

    async def list_unfinished(self, prefix: str, before: float) -> list[Unfinished]:
        return await list_unfinished(self._bucket, self._keys, prefix, before)

    async def drop_unfinished(self, found: Unfinished) -> None:
        await self._finish(self._bucket.abort_upload(self._keys.of(found.key), found.name))

    # Life

    def watch_calls(self, seen: CallSeen) -> None:
        self._bucket.watch_calls(seen)

    async def aclose(self) -> None:
        await self._bucket.aclose()
        await self._threads.aclose()

    async def _finish(self, work: Coroutine[Any, Any, T]) -> T:
        return await self._threads.finish(work)

    async def _check(self, whole: str, if_version: str | None) -> None:
        """What a store without conditions does not do itself: if_version, None for "absent"."""
        try:
            found = (await self._bucket.head(whole)).etag
        except ObjectNotFound:
            found = None
        if found != if_version:
            raise PreconditionFailed

    async def _etag_if_same(self, whole: str, data: bytes) -> str | None:
        """The ETag of what is stored, where it is exactly data."""
        try:
            body = await self._bucket.get(whole)
        except ObjectNotFound:
            return None
        async with S3Reader(self._bucket, whole, body, self._ahead) as reader:
            if reader.size != len(data) or await reader.read(len(data)) != data:
                return None
            return body.head.etag


def _asked(range: RangeRequest | None) -> tuple[int | None, int | None]:
    """start and stop as Bucket.get has them."""
    if range is None:
        return None, None
    if range.suffix is not None:
        return (-range.suffix, None) if range.suffix else (0, 0)
    return range.start or 0, range.stop
