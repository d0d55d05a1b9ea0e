"""FilesystemDriver: objects as files below a folder, in the tree that CNCF distribution makes.

- Durable: what `put`, `move`, `delete`, `delete_tree` and `complete` have returned for is on the disk (files.py has
  the order of the steps). `begin`, `append` and `touch` are not synced: staged bytes survive the death of the process,
  and a power cut only once `complete` has returned; nothing but a 202 was answered for them before that.
- A stage is the file at its key, so that distribution's replicas can go on with it; its name is the key.
- Every call that may block runs in a thread, one per verb, one per megabyte of a stream; what the kernel holds in
  memory is answered without one (cached.py). OSError becomes one of our errors here and nowhere else.
- Any number of processes, and distribution, may share the folder. Conditions of `put` hold against every process of
  this machine that runs this driver (folders.py); `if_absent` against everybody.
"""

import asyncio
import io
import os
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import ParamSpec, TypeVar

import aiofiles.threadpool
from aiofiles.threadpool.binary import AsyncFileIO

from storage.direct import DirectChunks
from storage.driver import CHUNK, ObjectInfo, ObjectReader, Stage, StageInfo, StorageDriver, Tap
from storage.drivers import walk
from storage.drivers.cached import LARGEST, open_cached, read_cached
from storage.drivers.files import FileTree, info_of
from storage.drivers.growing import GrowingFile
from storage.drivers.oserrors import FULL, translate, translated
from storage.drivers.receiving import receive_all
from storage.drivers.threads import Threads
from storage.errors import ObjectNotFound, RangeNotSatisfiable, StorageFull, Unavailable
from storage.ranges import ByteRange, RangeRequest

P = ParamSpec("P")
T = TypeVar("T")

_PIECES = 1024
"""At most in one batch: more cannot be given to pwritev (IOV_MAX)."""

_AT_ONCE = 16
"""Calls that are answered from memory before others take their turn."""

_PAGE = 1024
"""Objects listed by one thread at a time, at most."""


class FileReader(ObjectReader):
    """An open file. It yields what it held when it was opened, also when its key is written or deleted meanwhile."""

    def __init__(self, file: io.FileIO, size: int, span: ByteRange, threads: Threads) -> None:
        self.file = file
        self.size = size
        self.span = span
        self._file = file
        self._threads = threads

    async def chunks(self) -> AsyncIterator[bytes]:
        stream: AsyncFileIO = aiofiles.threadpool.wrap(
            self._file, loop=asyncio.get_running_loop(), executor=self._threads.pool
        )
        self._file.seek(self.span.start)
        left = len(self.span)
        while left:
            with translated():
                chunk = await self._threads.finish(stream.read(min(left, CHUNK)))
            if not chunk:
                raise Unavailable(f"a stored object ends {left} bytes early")
            left -= len(chunk)
            yield chunk

    async def read(self, limit: int) -> bytes:
        if len(self.span) <= min(limit, LARGEST):
            with translated():
                try:
                    return read_cached(self._file.fileno(), self.span.start, len(self.span))
                except BlockingIOError:
                    pass  # by the long way
        return await super().read(limit)

    async def aclose(self) -> None:
        if self.size > CHUNK and not self._threads.closed:
            await self._threads.release(self._file.close)  # if it was deleted meanwhile, its blocks are freed here
        else:
            self._file.close()


class FilesystemDriver(StorageDriver):
    """root: the folder, made at the first write. scratch: a key below it for files that are no objects (scratch.py).

    threads: how many calls may be in the filesystem at once; None for the cores and four more.
    """

    def __init__(self, root: Path, *, scratch: str, threads: int | None = None) -> None:
        path = os.path.abspath(root)
        self.name = f"filesystem at {path}"
        self._tree = FileTree(path, scratch)
        self._threads = Threads("filesystem", threads)
        self._at_once = 0
        self._found: tuple[int, int] | None = None

    async def check_writable(self) -> None:
        """Makes the root and the scratch folder, and removes what killed processes have left there."""
        try:
            await self._threads.run(self._tree.check_writable)
        except OSError as exc:
            if exc.errno in FULL:
                raise StorageFull from exc
            reason = (exc.strerror or "no reason is known").lower()
            raise Unavailable(f"cannot write to {self._tree.root} as user {os.geteuid()}: {reason}") from exc
        await self.check_present()

    async def check_present(self) -> None:
        """A volume that is unmounted leaves an empty folder, in which nothing is found and pushes are lost.

        The root is known by its device and its number: a volume that is mounted again has the same number, and a folder
        that is made again under a running registry lies on the same device.
        """
        try:
            status = await self._root_status()
        except ObjectNotFound as exc:
            if self._found is None:
                return  # nobody has pushed yet
            raise Unavailable("the folder of the registry's storage is gone: is its volume mounted?") from exc
        device, number = self._found or (status.st_dev, status.st_ino)
        if status.st_dev != device and status.st_ino != number:
            raise Unavailable(
                "the folder of the registry's storage is another one now: mount its volume, or restart the registry if"
                " it was exchanged on purpose"
            )
        self._found = status.st_dev, status.st_ino

    async def _root_status(self) -> os.stat_result:
        """Mostly without a thread, as this is asked with every request. Raises ObjectNotFound."""
        root = self._tree.root
        try:
            fd = open_cached(root)
        except BlockingIOError:
            return await self._run(root, os.stat, root)
        except OSError as exc:
            raise translate(exc, root) from exc
        try:
            return os.fstat(fd)
        finally:
            os.close(fd)

    # Reading

    async def open(self, key: str, range: RangeRequest | None = None) -> ObjectReader:
        file, size = await self._open(key)
        try:
            return FileReader(file, size, range.resolve(size) if range else ByteRange(0, size), self._threads)
        except RangeNotSatisfiable:
            file.close()
            raise

    async def read(self, key: str, limit: int = 16 << 20) -> bytes:
        """In no trip to a thread, or in one, where `open` and `chunks` would take two or three."""
        try:
            data = self._tree.read_at_once(key, limit)
        except BlockingIOError:
            return await self._run(key, self._tree.read, key, limit)
        except OSError as exc:
            raise translate(exc, key) from exc
        await self._pace()
        return data

    async def head(self, key: str) -> ObjectInfo:
        try:
            status = self._tree.stat_at_once(key)
        except BlockingIOError:
            status = await self._run(key, self._tree.stat, key)
        except OSError as exc:
            raise translate(exc, key) from exc
        else:
            await self._pace()
        return info_of(key, status)

    async def list_objects(self, prefix: str, after: str = "") -> AsyncIterator[ObjectInfo]:
        found = walk.objects(self._tree, prefix, after)
        size = 16  # small at first: many callers want to know whether there is anything
        while page := await self._run(None, _page, found, size):
            for info in page:
                yield info
            size = min(size * 4, _PAGE)

    async def list_folders(
        self, prefix: str, *, after: str = "", limit: int | None = None, containing: str = ""
    ) -> list[str]:
        return await self._run(None, walk.folder_names, self._tree, prefix, after, limit, containing)

    async def find_folders(
        self, prefix: str, marker: str, *, hidden: str = "_", after: str = "", limit: int | None = None
    ) -> list[str]:
        """All in one trip to a thread."""
        found = walk.folders_with(self._tree, prefix, marker, hidden, after.split("/") if after else None)
        return await self._run(None, lambda: list(islice(found, limit)))

    async def url(self, key: str, method: str, expires: float) -> str | None:
        return None

    async def now(self) -> float:
        """By the times of files, which an NFS server gives them by its own clock; before the first write, ours."""
        return await self._run(None, self._tree.scratch.now)

    # Writing

    async def put(
        self, key: str, data: bytes, *, if_absent: bool = False, if_version: str | None = None, private: bool = False
    ) -> str:
        return await self._run(None, self._tree.put, key, data, if_absent, if_version, private)

    async def delete(self, key: str, *, if_version: str | None = None) -> None:
        with suppress(ObjectNotFound):
            await self._run(key, self._tree.delete, key, if_version)

    async def delete_tree(self, prefix: str) -> None:
        await self._run(None, self._tree.delete_tree, prefix)

    async def move(self, source: str, target: str, size: int) -> None:
        await self._run(None, self._tree.move, source, target, size)

    async def touch(self, key: str) -> None:
        await self._run(key, self._tree.touch, key)

    # Stages

    async def begin(self, key: str) -> Stage:
        await self._run(None, self._tree.begin, key)
        return Stage(key)

    async def find_stage(self, key: str) -> Stage:
        self._tree.path(key)
        return Stage(key)

    async def append(self, stage: Stage, offset: int, chunks: AsyncIterator[bytes], tap: Tap | None = None) -> int:
        start = self._threads.start(GrowingFile, self._tree.path(stage), stage, offset)
        with translated(stage):
            file = await self._threads.result(start, discard=GrowingFile.close)
        if isinstance(chunks, DirectChunks) and (opening := chunks.take_over()) is not None:
            try:
                with opening as inlet:
                    return await receive_all(inlet, file, offset, tap, self._threads)
            finally:
                await self._threads.release(file.close)
        batches = _Batches(file, offset, tap, self._threads)
        try:
            async for chunk in chunks:
                await batches.add(chunk)
        except Exception:
            await batches.flush()
            raise
        else:
            return await batches.flush()
        finally:
            await batches.aclose()

    async def stage_info(self, stage: Stage) -> StageInfo:
        info = await self.head(stage)
        return StageInfo(info.size, info.modified)

    async def complete(self, stage: Stage, size: int) -> None:
        await self._run(stage, self._tree.complete, stage, size)

    async def abort(self, stage: Stage) -> None:
        await self.delete(stage)

    async def aclose(self) -> None:
        if not self._threads.closed:
            try:
                with translated():
                    await self._threads.release(self._tree.scratch.close)
            finally:
                await self._threads.aclose()

    async def _open(self, key: str) -> tuple[io.FileIO, int]:
        with translated(key):
            try:
                return self._tree.open_at_once(key)
            except BlockingIOError:
                opening = self._threads.start(self._tree.open, key)
                return await self._threads.result(opening, discard=lambda opened: opened[0].close())

    async def _pace(self) -> None:
        """What is answered at once costs some 10 us: others take their turn after a few of them."""
        self._at_once = (self._at_once + 1) % _AT_ONCE
        if not self._at_once:
            await asyncio.sleep(0)

    async def _run(self, key: str | None, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """key: the object that the work looks for; None where nothing has to be there."""
        with translated(key):
            return await self._threads.run(work, *args, **kwargs)


class _Batches:
    """Chunks on their way to a stage: one batch is being stored while the next is received, and no more than that."""

    def __init__(self, file: GrowingFile, offset: int, tap: Tap | None, threads: Threads) -> None:
        self._file = file
        self._offset = offset
        self._tap = tap
        self._threads = threads
        self._pieces: list[bytes] = []
        self._size = 0
        self._storing: Future[int] | None = None
        self._failed = False

    async def add(self, chunk: bytes) -> None:
        self._pieces.append(chunk)
        self._size += len(chunk)
        if self._size >= CHUNK or len(self._pieces) >= _PIECES:
            await self._store()

    async def flush(self) -> int:
        """Store what has been added. Returns the length of the stage."""
        if self._pieces and not self._failed:
            await self._store()
        await self._stored()
        return self._offset

    async def aclose(self) -> None:
        """Waits for what is being stored; what is not yet, is dropped."""
        if self._storing is not None:
            await self._threads.ended(self._storing)
        await self._threads.release(self._file.close)

    async def _store(self) -> None:
        await self._stored()
        self._storing = self._threads.start(self._file.write, self._pieces, self._offset, self._tap)
        self._pieces, self._size = [], 0

    async def _stored(self) -> None:
        if self._storing is not None:
            storing, self._storing = self._storing, None
            self._failed = True
            with translated(self._file.key):
                self._offset = await self._threads.result(storing)
            self._failed = False


def _page(found: Iterator[ObjectInfo], size: int) -> list[ObjectInfo]:
    return list(islice(found, size))
