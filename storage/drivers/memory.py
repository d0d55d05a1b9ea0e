"""MemoryDriver: objects in this process's memory, gone with it. Reference and verified fake.

It behaves as an object store does: stages are hidden until `complete`, and a key may also be a folder of others. Every
verb but `append` is one step of the event loop, so nothing needs a lock; `append` looks at its stage again for every
chunk, because it waits for its caller.
"""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

from storage.driver import CHUNK, ObjectInfo, ObjectReader, Stage, StageInfo, StorageDriver, Tap, check_key
from storage.drivers.threads import Threads
from storage.errors import ObjectNotFound, OffsetMismatch, PreconditionFailed
from storage.ranges import ByteRange, RangeRequest


@dataclass(slots=True)
class _Object:
    data: bytes
    version: str
    modified: float
    note: str = ""


@dataclass(slots=True)
class _Growing:
    data: bytearray
    modified: float


class MemoryReader(ObjectReader):
    def __init__(self, data: bytes, span: ByteRange, note: str = "") -> None:
        self.size = len(data)
        self.span = span
        self.note = note
        self._data: bytes = data

    async def chunks(self) -> AsyncIterator[bytes]:
        for start in range(self.span.start, self.span.stop, CHUNK):
            await asyncio.sleep(0)  # a source that never suspends cannot be cancelled
            yield self._data[start : min(start + CHUNK, self.span.stop)]

    async def aclose(self) -> None:
        self._data = b""


class MemoryDriver(StorageDriver):
    """Starts empty. For tests and for trying things out."""

    name = "memory (gone when the registry stops)"
    stages_are_hidden = True

    def __init__(self) -> None:
        self._objects: dict[str, _Object] = {}
        self._stages: dict[str, _Growing] = {}
        self._versions = itertools.count(1)
        self._threads = Threads("memory", 1)

    # Reading

    async def open(self, key: str, range: RangeRequest | None = None) -> ObjectReader:
        found = self._object(key)
        whole = ByteRange(0, len(found.data))
        return MemoryReader(found.data, range.resolve(whole.stop) if range else whole, found.note)

    async def head(self, key: str) -> ObjectInfo:
        return self._info(key)

    async def list_objects(self, prefix: str, after: str = "") -> AsyncIterator[ObjectInfo]:
        for key in [key for key in self._below(prefix) if key > after]:
            await asyncio.sleep(0)
            if key in self._objects:
                yield self._info(key)

    async def list_folders(
        self, prefix: str, *, after: str = "", limit: int | None = None, containing: str = ""
    ) -> list[str]:
        start = len(prefix) + 1 if prefix else 0
        folders = {rest[: rest.index("/")] for key in self._below(prefix) if "/" in (rest := key[start:])}
        if containing:
            check_key(containing)
            folders = {name for name in folders if f"{prefix}/{name}/{containing}".lstrip("/") in self._objects}
        return sorted(name for name in folders if name > after)[:limit]

    async def url(self, key: str, method: str, expires: float) -> str | None:
        return None

    async def now(self) -> float:
        return time.time()

    # Writing

    async def put(
        self, key: str, data: bytes, *, if_absent: bool = False, if_version: str | None = None, private: bool = False
    ) -> str:
        old = self._objects.get(check_key(key))
        if (if_absent and old) or (if_version is not None and (not old or old.version != if_version)):
            raise PreconditionFailed
        return self._store(key, data)

    async def put_noted(self, key: str, data: bytes, note: str) -> None:
        self._store(check_key(key), data, note)

    async def delete(self, key: str, *, if_version: str | None = None) -> None:
        found = self._objects.get(check_key(key))
        if found is not None:
            if if_version is not None and found.version != if_version:
                raise PreconditionFailed
            del self._objects[key]

    async def delete_tree(self, prefix: str) -> None:
        for key in list(self._below(prefix)):
            del self._objects[key]

    async def move(self, source: str, target: str, size: int) -> None:
        check_key(target)
        data = self._object(source).data
        if len(data) != size:
            raise OffsetMismatch(len(data))
        del self._objects[source]
        self._store(target, data)

    async def touch(self, key: str) -> None:
        found = self._object(key)
        found.modified, found.version = time.time(), str(next(self._versions))  # so that no delete overlooks it

    # Stages

    async def begin(self, key: str) -> Stage:
        self._stages[check_key(key)] = _Growing(bytearray(), time.time())
        return Stage(key)

    async def find_stage(self, key: str) -> Stage:
        return Stage(check_key(key))

    async def append(self, stage: Stage, offset: int, chunks: AsyncIterator[bytes], tap: Tap | None = None) -> int:
        growing = self._stage(stage)
        if len(growing.data) != offset:
            raise OffsetMismatch(len(growing.data))
        self._stages[stage] = growing  # of a completed one, the bytes are copied: the object stays as it is
        async for chunk in chunks:
            for start in range(0, len(chunk), CHUNK):
                piece = chunk[start : start + CHUNK]
                self._check_offset(stage, growing, offset)
                growing.data += piece
                growing.modified = time.time()
                offset += len(piece)
                await asyncio.sleep(0)
                if tap is not None:
                    await self._threads.run(tap, piece)
        return offset

    async def stage_info(self, stage: Stage) -> StageInfo:
        growing = self._stage(stage)
        return StageInfo(len(growing.data), growing.modified)

    async def complete(self, stage: Stage, size: int) -> None:
        growing = self._stage(stage)
        if len(growing.data) != size:
            raise OffsetMismatch(len(growing.data))
        if self._stages.pop(stage, None):
            self._store(stage, bytes(growing.data))

    async def abort(self, stage: Stage) -> None:
        self._stages.pop(stage, None)

    # Life

    async def aclose(self) -> None:
        await self._threads.aclose()

    def _object(self, key: str) -> _Object:
        try:
            return self._objects[check_key(key)]
        except KeyError as exc:
            raise ObjectNotFound(key) from exc

    def _info(self, key: str) -> ObjectInfo:
        found = self._object(key)
        return ObjectInfo(key, len(found.data), found.version, found.modified)

    def _store(self, key: str, data: bytes, note: str = "") -> str:
        self._objects[key] = _Object(data, str(next(self._versions)), time.time(), note)
        return self._objects[key].version

    def _below(self, prefix: str) -> Iterator[str]:
        start = f"{check_key(prefix)}/" if prefix else ""
        return (key for key in sorted(self._objects) if key.startswith(start))

    def _stage(self, stage: Stage) -> _Growing:
        """The stage, or one with the bytes of the object that it has become."""
        if stage in self._stages:
            return self._stages[stage]
        completed = self._object(stage)
        return _Growing(bytearray(completed.data), completed.modified)

    def _check_offset(self, stage: Stage, growing: _Growing, offset: int) -> None:
        if self._stages.get(stage) is not growing:
            raise ObjectNotFound(stage)
        if len(growing.data) != offset:
            raise OffsetMismatch(len(growing.data))
