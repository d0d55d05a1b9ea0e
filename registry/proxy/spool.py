"""Where the bytes of a fetch go while it runs: a file that grows, hashed on its way, for any number of readers.

    StageSpool   a stage of the store, where stages are files (a filesystem): publishing renames it, nothing is copied
    FileSpool    a file without a name in the folder for temporary files (S3, memory): publishing reads it once more

Nothing here looks at what the bytes should be: whoever publishes has compared the digest. Neither blocks the loop.
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
from contextlib import suppress
from typing import ParamSpec, TypeVar

from storage import layout
from storage.digest import SHA256, Digest, RunningHash
from storage.driver import CHUNK, Stage, StorageDriver
from storage.errors import ObjectNotFound, StorageFull, Unavailable
from storage.names import RepositoryName

P = ParamSpec("P")
T = TypeVar("T")

ROOM = 4 << 20
"""Bytes of one fetch that wait in memory to be stored; as many are being stored meanwhile."""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


async def off_loop(pool: Executor, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run in a thread. Who is cancelled waits for its end: no descriptor is closed below a running read."""
    future = asyncio.get_running_loop().run_in_executor(pool, lambda: work(*args, **kwargs))
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        while not future.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([future])
        raise


class Spool(ABC):
    """One blob on its way. size: bytes stored.   file: it, for readers, who duplicate the descriptor."""

    file: io.FileIO

    def __init__(self, algorithm: str) -> None:
        self._hash = RunningHash(algorithm)

    @property
    def size(self) -> int:
        return self._hash.offset

    @property
    def digest(self) -> Digest:
        """Of what is stored."""
        return self._hash.digest

    @abstractmethod
    async def append(self, pieces: Sequence[bytes]) -> None:
        """Raises Unavailable, StorageFull. Stored and hashed once this returns."""

    @abstractmethod
    async def publish(self, fresh: float) -> None:
        """Make it the blob of its digest. fresh: seconds, as in StorageDriver.put_content. Raises Unavailable."""

    @abstractmethod
    async def aclose(self) -> None:
        """Remove what was not published. Readers keep what they have open. Idempotent."""


class StageSpool(Spool):
    """The file of an upload of `name`: what a killed process leaves is purged as any abandoned upload is."""

    def __init__(self, driver: StorageDriver, name: RepositoryName, algorithm: str) -> None:
        super().__init__(algorithm)
        self._driver = driver
        self._folder = layout.upload(name, id := str(uuid.uuid4()))
        self._key = layout.upload_data(name, id)
        self._stage: Stage | None = None

    @classmethod
    async def begin(cls, driver: StorageDriver, name: RepositoryName, algorithm: str) -> "StageSpool | None":
        """None: the driver's stages are no local files."""
        spool = cls(driver, name, algorithm)
        try:
            spool._stage = await driver.begin(spool._key)
            async with await driver.open(spool._key) as reader:
                if reader.file is not None:
                    spool.file = _again(reader.file.fileno())
                    return spool
        except BaseException:
            await spool.aclose()
            raise
        await spool.aclose()
        return None

    async def append(self, pieces: Sequence[bytes]) -> None:
        assert self._stage is not None
        await self._driver.append(self._stage, self.size, _each(pieces), self._hash.update)

    async def publish(self, fresh: float) -> None:
        assert self._stage is not None
        target = layout.blob_data(self.digest)
        try:
            await self._driver.publish(self._stage, self._key, target, self.size, fresh=fresh)
        except ObjectNotFound as exc:
            raise Unavailable("what was fetched has been removed before it could be kept") from exc

    async def aclose(self) -> None:
        if hasattr(self, "file"):
            self.file.close()
        if self._stage is not None:
            stage, self._stage = self._stage, None
            await self._driver.abort(stage)
            await self._driver.delete_tree(self._folder)


class FileSpool(Spool):
    """A file that has no name, so that it is gone with its process. folder: None for the system's (TMPDIR)."""

    def __init__(
        self, driver: StorageDriver, name: RepositoryName, algorithm: str, pool: Executor, folder: str | None
    ) -> None:
        """Raises Unavailable."""
        super().__init__(algorithm)
        self._driver, self._pool = driver, pool
        self._staging = layout.upload_data(name, str(uuid.uuid4()))
        try:
            with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
                self.file = _again(file.fileno())
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
                self._hash.update(piece)
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

    async def aclose(self) -> None:
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


async def _each(pieces: Sequence[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def _again(descriptor: int) -> io.FileIO:
    """The same open file under another descriptor, which is the caller's."""
    return io.FileIO(os.dup(descriptor), "rb")


def duplicate(file: io.FileIO) -> io.FileIO:
    return _again(file.fileno())


def _translated(exc: OSError) -> Unavailable:
    return StorageFull() if exc.errno in _FULL else Unavailable("the registry cannot keep what it fetches")
