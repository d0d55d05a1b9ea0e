"""FaultyDriver: a real driver that fails when it is told to.

It wraps; it pretends nothing. What it lets through really happens, and a fault comes at one of these moments:

    before    the call has done nothing
    after     the call has done everything, and only its answer is lost
    halfway   half of what is read, listed or appended has come through; other verbs happen wholly or not at all
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, TypeVar

from storage.driver import ObjectInfo, ObjectReader, Stage, StageInfo, StorageDriver, Tap
from storage.errors import StorageError, StorageFull, Unavailable
from storage.ranges import RangeRequest

T = TypeVar("T")
Moment = Literal["before", "after", "halfway"]

NEED_SPACE = frozenset({"put", "begin", "append", "move"})
HAVE_HALVES = frozenset({"open", "list_objects", "append"})


@dataclass
class Fault:
    """call: the how-manieth of the calls that count fails, and with `lasting` every one behind it.

    full: no space is left: only what needs some counts and fails. fired: how many calls it has hit.
    crash: `lasting` is how a killed process looks to its store: nothing more comes. Another process goes on.
    """

    call: int
    moment: Moment = "before"
    lasting: bool = False
    full: bool = False
    crash: bool = False
    counted: int = 0
    fired: int = 0

    def hits(self, verb: str) -> bool:
        if (self.full and verb not in NEED_SPACE) or (self.moment == "halfway" and verb not in HAVE_HALVES):
            return False
        self.counted += 1
        hit = self.counted == self.call or (self.lasting and self.counted > self.call)
        self.fired += hit
        return hit

    def error(self) -> Unavailable:
        return StorageFull() if self.full else Unavailable("the registry's storage failed: injected")


class FaultyReader(ObjectReader):
    """Yields the first half of its bytes."""

    def __init__(self, inner: ObjectReader, error: Unavailable) -> None:
        self.size = inner.size
        self.span = inner.span
        self._inner = inner
        self._error = error

    async def chunks(self) -> AsyncIterator[bytes]:
        left = len(self.span) // 2
        async for chunk in self._inner.chunks():
            if left:
                yield chunk[:left]
                left -= len(chunk[:left])
        raise self._error

    async def aclose(self) -> None:
        await self._inner.aclose()


class FaultyDriver(StorageDriver):
    """fault: the one that is due; None: all is well."""

    def __init__(self, inner: StorageDriver) -> None:
        self.inner = inner
        self.name = f"faulty {inner.name}"
        self.stages_are_hidden = inner.stages_are_hidden
        self.fault: Fault | None = None

    def _due(self, verb: str) -> Fault | None:
        return self.fault if self.fault is not None and self.fault.hits(verb) else None

    async def _through(
        self, verb: str, work: Callable[[], Awaitable[T]], discard: Callable[[T], Awaitable[None]] | None = None
    ) -> T:
        """discard: lets go of what a call has returned whose answer is lost."""
        fault = self._due(verb)
        if fault is not None and fault.moment == "before":
            raise fault.error()
        if fault is None:
            return await work()
        with suppress(StorageError):  # "not found" is an answer, too, and gets lost
            result = await work()
            if discard is not None:
                await discard(result)
        raise fault.error()

    # Reading

    async def open(self, key: str, range: RangeRequest | None = None) -> ObjectReader:
        if self.fault is not None and self.fault.moment == "halfway":
            fault = self._due("open")
            reader = await self.inner.open(key, range)
            return FaultyReader(reader, fault.error()) if fault else reader
        return await self._through("open", lambda: self.inner.open(key, range), lambda reader: reader.aclose())

    async def read(self, key: str, limit: int = 16 << 20) -> bytes:
        return await self._through("read", lambda: self.inner.read(key, limit))

    async def head(self, key: str) -> ObjectInfo:
        return await self._through("head", lambda: self.inner.head(key))

    async def list_objects(self, prefix: str, after: str = "") -> AsyncIterator[ObjectInfo]:
        fault = self._due("list_objects")
        if fault is not None and fault.moment == "before":
            raise fault.error()
        async for info in self.inner.list_objects(prefix, after):
            yield info
            if fault is not None and fault.moment == "halfway":
                raise fault.error()
        if fault is not None:
            raise fault.error()

    async def list_folders(
        self, prefix: str, *, after: str = "", limit: int | None = None, containing: str = ""
    ) -> list[str]:
        return await self._through(
            "list_folders", lambda: self.inner.list_folders(prefix, after=after, limit=limit, containing=containing)
        )

    async def url(self, key: str, method: str, expires: float) -> str | None:
        return await self._through("url", lambda: self.inner.url(key, method, expires))

    async def now(self) -> float:
        return await self._through("now", self.inner.now)

    # Writing

    async def put(
        self, key: str, data: bytes, *, if_absent: bool = False, if_version: str | None = None, private: bool = False
    ) -> str:
        return await self._through(
            "put", lambda: self.inner.put(key, data, if_absent=if_absent, if_version=if_version, private=private)
        )

    async def put_noted(self, key: str, data: bytes, note: str) -> None:
        await self._through("put", lambda: self.inner.put_noted(key, data, note))

    async def delete(self, key: str, *, if_version: str | None = None) -> None:
        await self._through("delete", lambda: self.inner.delete(key, if_version=if_version))

    async def delete_tree(self, prefix: str) -> None:
        await self._through("delete_tree", lambda: self.inner.delete_tree(prefix))

    async def move(self, source: str, target: str, size: int) -> None:
        await self._through("move", lambda: self.inner.move(source, target, size))

    async def touch(self, key: str) -> None:
        await self._through("touch", lambda: self.inner.touch(key))

    # Stages

    async def begin(self, key: str) -> Stage:
        return await self._through("begin", lambda: self.inner.begin(key))

    async def find_stage(self, key: str) -> Stage:
        return await self._through("find_stage", lambda: self.inner.find_stage(key))

    async def append(self, stage: Stage, offset: int, chunks: AsyncIterator[bytes], tap: Tap | None = None) -> int:
        if self.fault is not None and self.fault.moment == "halfway" and (fault := self._due("append")):
            return await self.inner.append(stage, offset, _half(chunks, fault.error()), tap)
        return await self._through("append", lambda: self.inner.append(stage, offset, chunks, tap))

    async def stage_info(self, stage: Stage) -> StageInfo:
        return await self._through("stage_info", lambda: self.inner.stage_info(stage))

    async def complete(self, stage: Stage, size: int) -> None:
        await self._through("complete", lambda: self.inner.complete(stage, size))

    async def abort(self, stage: Stage) -> None:
        await self._through("abort", lambda: self.inner.abort(stage))

    async def aclose(self) -> None:
        await self.inner.aclose()


async def _half(chunks: AsyncIterator[bytes], error: Unavailable) -> AsyncIterator[bytes]:
    """What a store has taken when it fails: a part of the first chunk."""
    async for chunk in chunks:
        yield chunk[: len(chunk) // 2]
        break
    raise error
