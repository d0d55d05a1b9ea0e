"""A driver around a driver, for tests: it tells of every call, may hold it up, and may let it fail.

Everything goes to a real driver; what is added is only what happens before a call.
"""

import asyncio
import math
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from storage.digest import Digest
from storage.driver import ObjectInfo, ObjectReader, Stage, StageInfo, StorageDriver, Tap, Unfinished
from storage.drivers.memory import MemoryDriver
from storage.names import Tag, parse_name
from storage.ranges import RangeRequest
from storage.repository import Repository
from tests.api import in_pieces

NAME = parse_name("a/b")
OTHER = parse_name("other")

Before = Callable[[str, str], Awaitable[None]]
"""Called with verb and key before a call reaches the driver. What it raises, the caller gets."""


class DearMemory(MemoryDriver):
    """As an object store behind a network: every call counts."""

    calls_are_dear = True


class DearWithUrls(DearMemory):
    """Clients may fetch objects from it themselves."""

    offers_urls = True

    async def url(self, key: str, method: str, expires: float) -> str | None:
        return f"https://store.test/{key}?method={method}&expires={expires:.0f}"


class Spied(StorageDriver):
    """Calls `before`, then the driver within."""

    def __init__(self, inner: StorageDriver, before: Before) -> None:
        self.inner = inner
        self.name = inner.name
        self.stages_are_hidden = inner.stages_are_hidden
        self.calls_are_dear = inner.calls_are_dear
        self.offers_urls = inner.offers_urls
        self._before = before

    async def open(self, key: str, range: RangeRequest | None = None) -> ObjectReader:
        await self._before("open", key)
        return await self.inner.open(key, range)

    async def read(self, key: str, limit: int = 16 << 20) -> bytes:
        await self._before("read", key)
        return await self.inner.read(key, limit)

    async def head(self, key: str) -> ObjectInfo:
        await self._before("head", key)
        return await self.inner.head(key)

    async def list_objects(self, prefix: str, after: str = "") -> AsyncIterator[ObjectInfo]:
        await self._before("list_objects", prefix)
        async for info in self.inner.list_objects(prefix, after):
            yield info

    async def list_folders(
        self, prefix: str, *, after: str = "", limit: int | None = None, containing: str = ""
    ) -> list[str]:
        await self._before("list_folders", prefix)
        return await self.inner.list_folders(prefix, after=after, limit=limit, containing=containing)

    async def url(self, key: str, method: str, expires: float) -> str | None:
        await self._before("url", key)
        return await self.inner.url(key, method, expires)

    async def now(self) -> float:
        return await self.inner.now()

    async def put(
        self, key: str, data: bytes, *, if_absent: bool = False, if_version: str | None = None, private: bool = False
    ) -> str:
        await self._before("put", key)
        return await self.inner.put(key, data, if_absent=if_absent, if_version=if_version, private=private)

    async def put_noted(self, key: str, data: bytes, note: str) -> None:
        await self._before("put", key)
        await self.inner.put_noted(key, data, note)

    async def conditions_hold(self) -> bool:
        return await self.inner.conditions_hold()

    async def delete(self, key: str, *, if_version: str | None = None) -> None:
        await self._before("delete", key)
        await self.inner.delete(key, if_version=if_version)

    async def delete_tree(self, prefix: str) -> None:
        await self._before("delete_tree", prefix)
        await self.inner.delete_tree(prefix)

    async def move(self, source: str, target: str, size: int) -> None:
        await self._before("move", target)
        await self.inner.move(source, target, size)

    async def touch(self, key: str) -> None:
        await self._before("touch", key)
        await self.inner.touch(key)

    async def begin(self, key: str) -> Stage:
        await self._before("begin", key)
        return await self.inner.begin(key)

    async def find_stage(self, key: str) -> Stage:
        return await self.inner.find_stage(key)

    async def append(self, stage: Stage, offset: int, chunks: AsyncIterator[bytes], tap: Tap | None = None) -> int:
        await self._before("append", stage)
        return await self.inner.append(stage, offset, chunks, tap)

    async def stage_info(self, stage: Stage) -> StageInfo:
        await self._before("stage_info", stage)
        return await self.inner.stage_info(stage)

    async def complete(self, stage: Stage, size: int) -> None:
        await self._before("complete", stage)
        await self.inner.complete(stage, size)

    async def abort(self, stage: Stage) -> None:
        await self._before("abort", stage)
        await self.inner.abort(stage)

    async def list_unfinished(self, prefix: str, before: float) -> list[Unfinished]:
        await self._before("list_unfinished", prefix)
        return await self.inner.list_unfinished(prefix, before)

    async def drop_unfinished(self, found: Unfinished) -> None:
        await self._before("drop_unfinished", found.key)
        await self.inner.drop_unfinished(found)

    async def aclose(self) -> None:
        await self.inner.aclose()


class Counted(Spied):
    """Tells of calls as an object store has them: content in one, `publish` in three, an address in none."""

    async def put_content(self, key: str, data: bytes, *, sha256: bytes | None = None, fresh: float = math.inf) -> None:
        await self._before("put", key)
        await self.inner.put_content(key, data, sha256=sha256, fresh=fresh)

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
        fresh: float = math.inf,
    ) -> int:
        await self._before("put", key)
        return await self.inner.write_content(
            key, chunks, staging=staging, tap=tap, verify=verify, length=length, sha256=sha256, fresh=fresh
        )

    async def publish(self, stage: Stage, source: str, target: str, size: int, *, fresh: float = math.inf) -> None:
        for verb, key in (("complete", source), ("copy", target), ("delete", source)):
            await self._before(verb, key)
        await self.inner.publish(stage, source, target, size, fresh=fresh)

    async def url(self, key: str, method: str, expires: float) -> str | None:
        return await self.inner.url(key, method, expires)


WRITING = frozenset(("put", "delete", "delete_tree", "move", "touch", "begin", "append", "complete", "abort"))


@dataclass
class Record:
    """A `before` that remembers; it lets everything through but what `failing` names (verb and end of the key)."""

    calls: list[tuple[str, str]] = field(default_factory=list)
    failing: dict[tuple[str, str], Exception] = field(default_factory=dict)

    async def __call__(self, verb: str, key: str) -> None:
        self.calls.append((verb, key))
        for (failing_verb, end), error in self.failing.items():
            if verb == failing_verb and key.endswith(end):
                raise error

    def taken(self) -> list[tuple[str, str]]:
        """The calls so far, which are forgotten."""
        calls, self.calls = self.calls, []
        return calls

    def written(self) -> list[tuple[str, str]]:
        """As `taken`, without what only reads."""
        return [call for call in self.taken() if call[0] in WRITING]


@dataclass
class Shuffle:
    """A `before` under which concurrent callers take their turns in an order that the seed decides."""

    seed: int

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    async def __call__(self, verb: str, key: str) -> None:
        for _ in range(self._random.choice((0, 0, 1, 2, 3, 5, 8, 13))):
            await asyncio.sleep(0)


async def push_blob(repository: Repository, data: bytes, algorithm: str = "sha256") -> Digest:
    digest = Digest.of(data, algorithm)
    session = await repository.start_upload(algorithm)
    await repository.finish_upload(session, digest, in_pieces(*([data] if data else [])))
    return digest


async def read_blob(repository: Repository, digest: Digest) -> bytes:
    async with await repository.open_blob(digest) as reader:
        return b"".join([chunk async for chunk in reader.chunks()])


async def tag_of(repository: Repository, tag: Tag) -> Digest:
    """The digest that a tag names."""
    return (await repository.get_manifest(tag)).digest
