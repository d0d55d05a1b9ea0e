"""The pieces of all blobs of a process that were asked for by Range and are not cached: which, where, and how many.

    a Range ── Shelf.open ┬─ of the whole, or of what a fetch of the whole has or will have soon     that fetch
                          ├─ cached for another repository, or the upstream does not know Range     fetch the whole
                          ├─ no room                                                  straight from the upstream
                          └─ else                                                     pieces, which are kept here

Rules:
- Bounded by `size` bytes and BLOBS blobs: what was asked for least recently goes first, but not while it is read.
- Once `fillafter` percent of a blob are here, the whole is fetched, in the background: from what is here and, for the
  gaps, from the upstream. When the blob is cached, its pieces go. If the whole is not what its digest says, the pieces
  go as well, and it is fetched once more without them; if that fails, nothing is tried before somebody asks again.
"""

import asyncio
import io
import logging
import os
import tempfile
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from registry.proxy.download import Sleep, Source
from registry.proxy.fetch import Fetch
from registry.proxy.fetches import Fetches
from registry.proxy.finishing import off_loop
from registry.proxy.pieces import PIECE, NoRoom, Pieces, RangeIgnored, Run
from registry.proxy.pieces_reader import RangeReader
from registry.proxy.pieces_source import PatchedSource
from storage import layout
from storage.digest import Digest
from storage.driver import ObjectReader, StorageDriver
from storage.errors import ObjectNotFound, StorageError
from storage.names import RepositoryName
from storage.once import Once
from storage.ranges import RangeRequest

log = logging.getLogger(__name__)

BLOBS = 256
"""Each is an open file."""

_THREADS = 4
_LOOK = 10.0
"""Seconds between two looks whether another process has cached a blob of which there are pieces here."""

_PAUSE = 60.0
"""Seconds for which nothing is kept once the disk was full."""


class Shelf:
    """Bound to the loop that it is used in; `aclose` ends what runs.

    folder: for the files; None: TMPDIR.   size: bytes of all.   fillafter: percent; 0: at once, 100: never.
    """

    def __init__(
        self,
        driver: StorageDriver,
        fetches: Fetches,
        *,
        folder: str | None,
        size: int,
        fillafter: int,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._driver, self._fetches, self._folder = driver, fetches, folder
        self._size, self._fillafter, self._sleep = size, fillafter, sleep
        self._blobs: OrderedDict[Digest, Pieces] = OrderedDict()
        self._making: Once[Digest, Pieces] = Once()
        self._retired: dict[asyncio.Task[None], Pieces] = {}
        self._pool = ThreadPoolExecutor(_THREADS, "pieces")
        self._resume = 0.0
        self._closed = False
        fetches.after = self._fetched

    def __len__(self) -> int:
        return len(self._blobs)

    @property
    def held(self) -> int:
        """Bytes on disk, and on their way there, rounded up."""
        return sum(each.held for each in self._blobs.values())

    def find(self, digest: Digest) -> Pieces | None:
        return self._blobs.get(digest)

    def size(self, name: RepositoryName, digest: Digest) -> int | None:
        """Of a blob of which the repository has pieces here. None: ask elsewhere."""
        pieces = self._blobs.get(digest)
        return pieces.size if pieces is not None and name in pieces.names else None

    def patched(self, source: Source, name: RepositoryName) -> PatchedSource:
        """The source that whole blobs are to be fetched from."""
        return PatchedSource(source, name, self.find)

    async def open(
        self, source: Source, name: RepositoryName, digest: Digest, range: RangeRequest
    ) -> ObjectReader | None:
        """A reader of a range. None: fetch the whole, or follow who does. Nothing of it is verified.

        Raises BlobUnknown; RangeNotSatisfiable; UpstreamDenied; UpstreamUnavailable; Unavailable.
        """
        if range.suffix is None and not range.start and range.stop is None:
            return None
        if self._has_come(name, digest, range.start) or await self._is_cached(digest):
            return None
        self._leave_failed(digest)
        if not self._has_room(0 if digest in self._blobs else 1):
            return await source.open_blob(digest, range)
        try:
            pieces = await self._pieces(digest)
        except NoRoom as exc:
            self._pause(exc)
            return await source.open_blob(digest, range)
        if pieces.ignored:
            return None
        size = await self._learn(pieces, source, name, range)
        if size is None:
            return None
        span = range.resolve(size)
        if len(span) == size or self._has_come(name, digest, span.start):
            return None
        self._consider(pieces, source, name)
        return RangeReader(pieces, source, name, span, self._fetches)

    def _has_come(self, name: RepositoryName, digest: Digest, at: int | None) -> bool:
        """Does a fetch of the whole have the byte `at`, or is it about to? None: of a suffix."""
        arrived = self._fetches.arrived(name, digest)
        return arrived is not None and at is not None and at <= arrived

    async def _is_cached(self, digest: Digest) -> bool:
        """For any repository, by any process: then this one may have it as well, which is the fetches' business."""
        pieces, now = self._blobs.get(digest), asyncio.get_running_loop().time()
        if pieces is not None and now - pieces.looked < _LOOK:
            return False
        try:
            await self._driver.head(layout.blob_data(digest))
        except ObjectNotFound:
            if pieces is not None:
                pieces.looked = now
            return False
        if pieces is not None:
            self._drop(pieces)
        return True

    async def _pieces(self, digest: Digest) -> Pieces:
        """Raises NoRoom."""
        pieces = self._blobs.get(digest)
        if pieces is None:
            pieces = await self._making.run(digest, partial(self._make, digest))
        if digest in self._blobs:
            self._blobs.move_to_end(digest)
        return pieces

    async def _make(self, digest: Digest) -> Pieces:
        file = await off_loop(self._pool, _new_file, self._folder)
        made = self._blobs[digest] = Pieces(digest, file, self._pool, self._grown, self._sleep)
        made.looked = asyncio.get_running_loop().time()
        return made

    async def _learn(self, pieces: Pieces, source: Source, name: RepositoryName, range: RangeRequest) -> int | None:
        """The size; None: the upstream does not know Range."""
        try:
            if name not in pieces.names and (size := await self._fetches.size(name, pieces.digest)) is not None:
                pieces.allow(name, size)
            return await pieces.learn(source, name, range)
        except RangeIgnored:
            return None
        except StorageError:
            if pieces.size is None and pieces.idle:
                self._drop(pieces)
            raise

    # Bounds

    def _leave_failed(self, digest: Digest) -> None:
        pieces = self._blobs.get(digest)
        if pieces is not None and pieces.failed is not None:
            self._drop(pieces)
            if isinstance(pieces.failed, NoRoom):
                self._pause(pieces.failed)

    def _has_room(self, more: int) -> bool:
        """For so many more blobs, once all have gone that need not be there."""
        if self._closed or asyncio.get_running_loop().time() < self._resume:
            return False
        for pieces in list(self._blobs.values()):
            if self._fits(more):
                break
            if pieces.idle and not self._fetches.is_fetching(pieces.digest):
                self._drop(pieces)
        return self._fits(more)

    def _fits(self, more: int) -> bool:
        return len(self._blobs) + more <= BLOBS and self.held + more * PIECE <= self._size

    def _pause(self, why: NoRoom) -> None:
        self._resume = asyncio.get_running_loop().time() + _PAUSE
        extra = {"cause": str(why.__cause__ or "")}
        log.warning("ranges of blobs that are not cached are not kept for %d s: no room on disk", _PAUSE, extra=extra)

    def _drop(self, pieces: Pieces) -> None:
        if self._blobs.get(pieces.digest) is pieces:
            del self._blobs[pieces.digest]
        task = asyncio.create_task(pieces.retire())
        self._retired[task] = pieces
        task.add_done_callback(self._retired.pop)

    # Filling the cache

    def _grown(self, pieces: Pieces, run: Run) -> None:
        if self._blobs.get(pieces.digest) is pieces:
            self._has_room(0)
            self._consider(pieces, run.source, run.name)

    def _consider(self, pieces: Pieces, source: Source, name: RepositoryName) -> None:
        if self._fillafter < 100 and pieces.share * 100 >= self._fillafter:
            self._fetches.fill(self.patched(source, name), name, pieces.digest)

    def _fetched(self, fetch: Fetch) -> None:
        """A fetch of the whole has ended."""
        pieces = self._blobs.get(fetch.digest)
        if pieces is None or self._closed:
            return
        wrong = pieces.taken if fetch.is_wrong else None
        if fetch.is_whole or wrong is not None:
            self._drop(pieces)
        if wrong is not None:
            log.warning("pieces of a blob were wrong: it is fetched again", extra={"digest": str(fetch.digest)})
            self._fetches.fill(*wrong, fetch.digest)

    async def aclose(self) -> None:
        """Before the fetches are. Idempotent."""
        self._closed = True
        await self._making.aclose()
        open = [*self._blobs.values(), *self._retired.values()]
        self._blobs.clear()
        for pieces in open:
            await pieces.aclose()
        for task in list(self._retired):
            task.cancel()
        await asyncio.gather(*self._retired, return_exceptions=True)
        self._pool.shutdown(wait=False)


def _new_file(folder: str | None) -> io.FileIO:
    """Without a name, so that it goes with its process. Raises NoRoom."""
    try:
        if folder is not None:
            os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            return io.FileIO(os.dup(file.fileno()), "rb+")
    except OSError as exc:
        raise NoRoom from exc
