"""Where the bytes of a fetch go while it runs: a file that grows, for any number of readers.

    HashedSpool ─┬─ StageSpool   a stage of the store, where stages are files (stages.py): publishing renames it
                 └─ FileSpool    a file without a name below TMPDIR (S3, memory): publishing reads it once more
    Followed                     the stage of another process that fetches the same blob (stages.py)

Nothing here looks at what the bytes should be: whoever publishes has compared the digest. None blocks the loop.
"""

import asyncio
import errno
import io
import os
import tempfile
import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import Executor

from registry.proxy.finishing import off_loop
from storage import layout
from storage.digest import SHA256, Digest, RunningHash
from storage.driver import CHUNK, StorageDriver
from storage.errors import StorageFull, Unavailable
from storage.names import RepositoryName

ROOM = 4 << 20
"""Bytes of one fetch that wait in memory to be stored; as many are being stored meanwhile."""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Spool(ABC):
    """One blob on its way. file: it, for readers, who duplicate the descriptor."""

    file: io.FileIO

    @property
    @abstractmethod
    def size(self) -> int:
        """Bytes that readers may have."""

    @abstractmethod
    async def publish(self, fresh: float) -> None:
        """Make it the blob of its digest. fresh: seconds, as in StorageDriver.put_content. Raises Unavailable."""

    @abstractmethod
    async def aclose(self, *, keep: bool = False) -> None:
        """Remove what was not published. Readers keep what they have open. Idempotent.

        keep: leave it for whoever asks next, where it can be found again.
        """


class HashedSpool(Spool):
    """One that we fill ourselves, hashed on its way.

    kept: bytes that an earlier fetch has left in the file: `recover` them before the first `append`.
    """

    kept = 0

    def __init__(self, algorithm: str, pool: Executor) -> None:
        self.hash = RunningHash(algorithm)
        self._pool = pool

    @property
    def size(self) -> int:
        return self.hash.offset

    @property
    def digest(self) -> Digest:
        """Of what is stored."""
        return self.hash.digest

    async def recover(self) -> None:
        """Hash the next part of what was kept: it counts as stored then. Raises Unavailable."""
        data = await read_at(self._pool, self.file, self.size, min(ROOM, self.kept - self.size))
        await off_loop(self._pool, self.hash.update, data)

    @abstractmethod
    async def append(self, pieces: Sequence[bytes]) -> None:
        """Raises Unavailable, StorageFull. Stored and hashed once this returns."""


class FileSpool(HashedSpool):
    """A file that has no name, so that it is gone with its process. folder: None for the system's (TMPDIR)."""

    def __init__(
        self, driver: StorageDriver, name: RepositoryName, algorithm: str, pool: Executor, folder: str | None
    ) -> None:
        """Raises Unavailable."""
        super().__init__(algorithm, pool)
        self._driver = driver
        self._staging = layout.upload_data(name, str(uuid.uuid4()))
        try:
            with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
                self.file = again(file.fileno())
        except OSError as exc:
            raise _translated(exc) from exc

    async def append(self, pieces: Sequence[bytes]) -> None:
        await off_loop(self._pool, self._write, pieces)

    def _write(self, pieces: Sequence[bytes]) -> None:
        try:
            for piece in pieces:
                view, at = memoryview(piece), self.size
                while view:
                    written = os.pwrite(self.file.fileno(), view, at)
                    view, at = view[written:], at + written
                self.hash.update(piece)
        except OSError as exc:
            raise _translated(exc) from exc

    async def publish(self, fresh: float) -> None:
        digest = self.digest
        await self._driver.write_content(
            layout.blob_data(digest),
            self._chunks(),
            staging=self._staging,
            tap=lambda piece: None,
            verify=lambda: None,
            length=self.size,
            sha256=bytes.fromhex(digest.hex) if digest.algorithm == SHA256 else None,
            fresh=fresh,
        )

    async def _chunks(self) -> AsyncIterator[bytes]:
        at = 0
        while at < self.size:
            chunk = await read_at(self._pool, self.file, at, min(CHUNK, self.size - at))
            at += len(chunk)
            yield chunk

    async def aclose(self, *, keep: bool = False) -> None:
        self.file.close()


async def read_at(pool: Executor, file: io.FileIO, offset: int, size: int) -> bytes:
    """At least one byte of what has been stored. Raises Unavailable."""
    try:
        data = await off_loop(pool, os.pread, file.fileno(), size, offset)
    except OSError as exc:
        raise _translated(exc) from exc
    if not data:
        raise Unavailable("what was fetched became shorter while it was read")
    return data


async def read_all(pool: Executor, file: io.FileIO, offset: int, end: int) -> bytes:
    """Of a small part. Raises as read_at."""
    data = b""
    while offset + len(data) < end:
        data += await read_at(pool, file, offset + len(data), end - offset - len(data))
    return data


class Writer:
    """Pieces on their way into a spool: what has come is stored at once, and what comes meanwhile next, together.

    So a slow upstream's bytes are there for readers as they come, and a fast one's go in large steps.
    """

    def __init__(self, store: Callable[[Sequence[bytes]], Awaitable[None]]) -> None:
        self._store = store
        self._pieces: list[bytes] = []
        self._size = 0
        self._task: asyncio.Task[None] | None = None
        self._taken = asyncio.Event()

    async def add(self, piece: bytes) -> None:
        """Waits while ROOM is used up. Raises what storing raised."""
        if self._task is not None and self._task.done():
            self._task.result()
            self._task = None
        self._pieces.append(piece)
        self._size += len(piece)
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        while self._size >= ROOM and not self._task.done():
            self._taken.clear()
            await self._taken.wait()

    async def flush(self) -> None:
        """Wait until all is stored. Raises what storing raised."""
        if self._task is not None:
            await asyncio.shield(self._task)

    async def aclose(self) -> None:
        """Waits for what is being stored; the rest is dropped. Raises nothing of that."""
        self._pieces, self._size = [], 0
        if self._task is not None:
            await asyncio.wait([self._task])
            if not self._task.cancelled():
                self._task.exception()

    async def _run(self) -> None:
        try:
            while self._pieces:
                pieces, self._pieces, self._size = self._pieces, [], 0
                self._taken.set()
                await self._store(pieces)
        finally:
            self._taken.set()


def again(descriptor: int) -> io.FileIO:
    """The same open file under another descriptor, which is the caller's."""
    return io.FileIO(os.dup(descriptor), "rb")


def _translated(exc: OSError) -> Unavailable:
    return StorageFull() if exc.errno in _FULL else Unavailable("the registry cannot keep what it fetches")
