"""StorageDriver: the contract between the registry and a place that keeps objects under keys.

A driver knows keys, bytes and ranges; it never sees a digest, a tag or a manifest. `storage/testing` checks every
sentence below on any driver. What holds for all verbs:

- A key is `a/b/c`: components of letters, digits, `.`, `_`, `-`; no leading slash. What is none raises ValueError
  (check_key). A folder is what keys have in common; it exists while a key lies below it, and an emptied folder is not
  listed. No key is also a folder of others: the layout makes none, and a filesystem could not hold it.
- An object appears whole or not at all, and what a verb has returned for survives a crash of the process and, where the
  medium can promise it, of the machine. A verb that was cancelled or that raised has happened wholly or not at all,
  except `append`, which may have stored a prefix of its chunks.
- No verb needs a lock across calls, and none may hold one while it waits for its caller's chunks.
- Faults of the store raise Unavailable (StorageFull where space is the reason), never ObjectNotFound.
- Nothing grows with the size of an object: readers yield chunks of at most about 1 MiB and suspend at least once a
  chunk.

Stages are objects that are still growing. Any process can go on with a stage: its name is a string, and `find_stage`
gives it again for a key. Its bytes may already be visible under the key (on a filesystem the growing file is the
object), so keys that readers look at are staged directly only where `stages_are_hidden` says so.
"""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import BinaryIO, NewType, Self

from storage.errors import Unavailable
from storage.ranges import ByteRange, RangeRequest

CHUNK = 1 << 20
"""Bytes that a reader yields, and an append stores, at a time."""

_PAGE = 100
"""Folders that are asked for at a time."""

_KEY = re.compile(r"[A-Za-z0-9._-]+(?:/[A-Za-z0-9._-]+)*")

LARGEST_NOTE = 2000
"""Characters; S3 allows 2 KiB, the name that it goes by included."""

Stage = NewType("Stage", str)
"""Names an object that is still growing. It can be kept, printed and used by another process."""

Tap = Callable[[bytes | memoryview], None]
"""Called with bytes in the order in which they were stored, possibly in another thread, never concurrently."""


CallSeen = Callable[[str, int, float], None]
"""(operation, status, seconds). status: 200 for every success, 0 without an answer."""


def check_key(key: str) -> str:
    """Returns key. Raises ValueError for what no layout function makes, such as `..`: defence in depth."""
    if not is_key(key):
        raise ValueError(f"not a storage key: {key!r}")
    return key


def is_key(text: str) -> bool:
    return _KEY.fullmatch(text) is not None and not {".", ".."}.intersection(text.split("/"))


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What a store says of an object. size in bytes; modified in seconds since 1970 by the store's clock.

    version: changes whenever the object is written again; compared, never parsed.
    """

    key: str
    size: int
    version: str
    modified: float


@dataclass(frozen=True, slots=True)
class StageInfo:
    """offset: bytes stored so far. modified: seconds since 1970, store's clock, of the last change."""

    offset: int
    modified: float


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A write that was begun and has come to no end: no list of objects shows it, and it takes space.

    offset: bytes it holds. modified: seconds since 1970, store's clock, of its last change. name: the driver's for it.
    """

    key: str
    offset: int
    modified: float
    name: str


class ObjectReader(ABC):
    """An open object or a range of it. Whoever opened it closes it.

    size: bytes of the whole object.   span: the bytes that this reader yields.   note: see StorageDriver.put_noted.
    file: an open local file that holds the object, for servers that can send files; None elsewhere. It is the reader's:
    duplicate the descriptor to use it after aclose.
    """

    size: int
    span: ByteRange
    note: str = ""
    file: BinaryIO | None = None

    @abstractmethod
    def chunks(self) -> AsyncIterator[bytes]:
        """The bytes of span, once. Raises Unavailable when the store fails or ends early: never a quiet short end."""

    @abstractmethod
    async def aclose(self) -> None:
        """Release what is held. Idempotent; never raises for what happened before."""

    async def read(self, limit: int) -> bytes:
        """All bytes of a small span. Raises Unavailable when there are more than `limit`."""
        if len(self.span) > limit:
            raise Unavailable(f"an object of {len(self.span)} bytes stands where at most {limit} are expected")
        return b"".join([chunk async for chunk in self.chunks()])

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.aclose()


class StorageDriver(ABC):
    """Where objects live. Made by a factory (storage/drivers); `aclose` ends it."""

    name: str
    """For the start banner: "filesystem at /var/lib/registry"; no secrets."""

    offers_urls: bool = False
    """Can `url` give any?"""

    stages_are_hidden: bool = False
    """Are a stage's bytes invisible under its key until `complete`?"""

    calls_are_dear: bool = False
    """Is a call a round trip over a network? Then it pays to ask two things at once, and to begin nothing early."""

    # Reading

    @abstractmethod
    async def open(self, key: str, range: RangeRequest | None = None) -> ObjectReader:
        """Open an object, or a range of it, in one trip. Raises ObjectNotFound; RangeNotSatisfiable."""

    async def read(self, key: str, limit: int = 16 << 20) -> bytes:
        """All bytes of a small object: a link, a manifest. Raises ObjectNotFound; Unavailable above `limit` bytes."""
        async with await self.open(key) as reader:
            return await reader.read(limit)

    @abstractmethod
    async def head(self, key: str) -> ObjectInfo:
        """Raises ObjectNotFound."""

    @abstractmethod
    def list_objects(self, prefix: str, after: str = "") -> AsyncIterator[ObjectInfo]:
        """Every object below the folder `prefix` (whole components; "" is the root) with key > after, ordered by key.

        What is written or deleted meanwhile may or may not be listed; all else is listed once.
        """

    @abstractmethod
    async def list_folders(
        self, prefix: str, *, after: str = "", limit: int | None = None, containing: str = ""
    ) -> list[str]:
        """Names of the folders directly below `prefix`, ordered by code point, those > after, at most `limit` of them.

        containing: a key relative to such a folder: folders that lack an object there are left out.
        """

    async def find_folders(
        self, prefix: str, marker: str, *, hidden: str = "_", after: str = "", limit: int | None = None
    ) -> list[str]:
        """Paths, relative to `prefix`, of the folders below it at any depth that have a folder `marker`.

        Ordered by their components (a, a/b, a-b), those behind `after` (any text), at most `limit`. Folders whose name
        starts with `hidden` are not looked into. Drivers may know a faster way than this one, which asks for folder
        after folder.
        """
        walk = self._folders_with(prefix, marker, hidden, after.split("/") if after else None, "")
        found: list[str] = []
        if limit != 0:
            async for name in walk:
                found.append(name)
                if len(found) == limit:
                    break
        return found

    async def _folders_with(
        self, prefix: str, marker: str, hidden: str, after: list[str] | None, name: str
    ) -> AsyncIterator[str]:
        """after: components of the last one found, relative to `name`."""
        place, below = "/".join(filter(None, (prefix, name))), f"{name}/" if name else ""
        cursor = after[0] if after else ""
        folders = await self.list_folders(place, after=cursor, limit=_PAGE)
        # the first page has the marker, in all but the widest of folders
        if name and after is None and (marker in folders or (len(folders) == _PAGE and await self._has(place, marker))):
            yield name
        if after and is_key(cursor) and not cursor.startswith(hidden):
            async for found in self._folders_with(prefix, marker, hidden, after[1:], below + cursor):
                yield found
        while folders:
            for folder in folders:
                if not folder.startswith(hidden):
                    async for found in self._folders_with(prefix, marker, hidden, None, below + folder):
                        yield found
            if len(folders) < _PAGE:
                return
            folders = await self.list_folders(place, after=folders[-1], limit=_PAGE)

    async def _has(self, prefix: str, folder: str) -> bool:
        async for _ in self.list_objects(f"{prefix}/{folder}"):
            return True
        return False

    @abstractmethod
    async def url(self, key: str, method: str, expires: float) -> str | None:
        """Where anybody may `method` (GET or HEAD) the object for `expires` seconds, or None: not offered."""

    @abstractmethod
    async def now(self) -> float:
        """The store's clock, in seconds since 1970: ages are measured by it alone."""

    # Writing

    @abstractmethod
    async def put(
        self, key: str, data: bytes, *, if_absent: bool = False, if_version: str | None = None, private: bool = False
    ) -> str:
        """Store a small object; a reader sees the old bytes or the new. Returns its version.

        if_absent: only where nothing is stored; if_version: only over that version: else PreconditionFailed,
        atomically, also against other processes. private: for the registry's user alone, where the store knows users.
        """

    async def put_noted(self, key: str, data: bytes, note: str) -> None:
        """put, with a note that comes with the object (ObjectReader.note) until it is put again.

        note: ASCII, at most LARGEST_NOTE characters. Where the store keeps no such thing it is dropped.
        """
        await self.put(key, data)

    async def conditions_hold(self) -> bool:
        """Are if_absent and if_version atomic, as said above? There are stores that ignore them."""
        return True

    # Content: objects whose key names their bytes. Whoever writes such a key writes the same, so it is never replaced
    # for its bytes' sake; only damage (another size) is, and what a collector might sweep soon (older than `fresh`).

    async def put_content(self, key: str, data: bytes, *, sha256: bytes | None = None, fresh: float = math.inf) -> None:
        """Store a small object under a key that names its bytes.

        sha256: of data (32 bytes), for stores that check it. fresh: seconds; where an object of that size stands that
        is not older, a driver may leave it. What another one has written meanwhile is success.
        """
        await self.put(key, data)

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
        """Store a stream of any size under a key that names its bytes. Returns its length.

        tap: as in append. verify: called after the last byte has passed the tap, in the event loop; nothing is visible
        under key before it has returned, and nothing stays of it when it raises, chunks raises or the call is
        cancelled. staging: a key of the caller's own for drivers whose stages can be seen.
        length: bytes to come, where known. sha256, fresh: as in put_content.
        """
        try:
            stage = await self.begin(staging)
            size = await self.append(stage, 0, chunks, tap)
            verify()
            await self.publish(stage, staging, key, size)
        except BaseException:
            await self.abort(await self.find_stage(staging))  # also of a `begin` that was cancelled, and has happened
            raise
        return size

    async def publish(self, stage: Stage, source: str, target: str, size: int, *, fresh: float = math.inf) -> None:
        """complete, and move from the stage's key `source` to `target`, which names the bytes; in few calls.

        Raises what complete and move raise. fresh: as in put_content.
        """
        await self.complete(stage, size)
        await self.move(source, target, size)

    @abstractmethod
    async def delete(self, key: str, *, if_version: str | None = None) -> None:
        """Remove an object, and the folders that this empties. Idempotent.

        if_version: only that version; PreconditionFailed, atomically, where another one stands (none: it is gone).
        """

    @abstractmethod
    async def delete_tree(self, prefix: str) -> None:
        """Remove all objects below the folder `prefix`, and the folders that this empties. Idempotent.

        What is put below it meanwhile survives or goes, object by object.
        """

    @abstractmethod
    async def move(self, source: str, target: str, size: int) -> None:
        """Give an object of `size` bytes another key, replacing what is there; it is never seen in part.

        Raises ObjectNotFound; OffsetMismatch when the source has another size (a late append): then nothing moved.
        """

    @abstractmethod
    async def touch(self, key: str) -> None:
        """Set the time of modification to now: the object is in use. Raises ObjectNotFound."""

    # Stages: objects that grow

    @abstractmethod
    async def begin(self, key: str) -> Stage:
        """Start an empty stage of that key, in place of any older one."""

    @abstractmethod
    async def find_stage(self, key: str) -> Stage:
        """The stage of that key, which any process may have begun. Raises ObjectNotFound, here or at its first use."""

    @abstractmethod
    async def append(self, stage: Stage, offset: int, chunks: AsyncIterator[bytes], tap: Tap | None = None) -> int:
        """Add chunks to the stage, whose length the caller believes to be `offset`. Returns the new length in bytes.

        tap: called with every piece once it is stored, in order (the caller's running hash), off the event loop.
        Raises ObjectNotFound without a stage; OffsetMismatch before reading any chunk, and between chunks when somebody
        else has appended meanwhile (then nothing of theirs is lost, and ours ends where theirs began).
        When chunks itself raises, what it gave before is stored, and its error is raised on. When the call is cancelled
        a prefix may be stored: ask stage_info.
        """

    @abstractmethod
    async def stage_info(self, stage: Stage) -> StageInfo:
        """Raises ObjectNotFound."""

    @abstractmethod
    async def complete(self, stage: Stage, size: int) -> None:
        """Make the staged bytes an object under the stage's key, durable and readable. Idempotent.

        Raises ObjectNotFound without a stage; OffsetMismatch when it does not have `size` bytes: then it stays a stage.
        A later append may go on with it (drivers for which that is dear copy).
        """

    @abstractmethod
    async def abort(self, stage: Stage) -> None:
        """Drop a stage that is not completed and what it holds, visible or not. Idempotent.

        Of a completed one the object may stay or go: delete the key.
        """

    # What a crash has left

    async def list_unfinished(self, prefix: str, before: float) -> list[Unfinished]:
        """Writes to keys below the folder `prefix`, stages too, that were begun and neither completed nor dropped.

        Those alone that have not changed since `before`, by the store's clock: others may be under way. None where a
        store keeps nothing that its lists do not show.
        """
        return []

    async def drop_unfinished(self, found: Unfinished) -> None:  # noqa: B027 - where none are listed there is no other
        """Free what it holds. Idempotent; what has been completed meanwhile stays."""

    # Life

    def watch_calls(self, seen: CallSeen) -> None:  # noqa: B027 - a driver without a network has none to tell of
        """Tell `seen` of each request that goes to the store over a network from now on, repeats too."""

    async def check_writable(self) -> None:  # noqa: B027 - a driver that has nothing to check says nothing
        """Can this process write here? Asked once, when a writer starts; never of a read-only registry.

        Raises Unavailable with a sentence for the operator, which may name folders and buckets.
        """

    async def check_present(self) -> None:  # noqa: B027 - where each call goes to the store, none takes it for empty
        """Is the store still the one that this process has found? For stores whose absence looks like an empty one.

        Raises Unavailable with a sentence for anybody.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Release connections, threads and files. Idempotent."""
