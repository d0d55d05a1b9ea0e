"""Fetches that grow in the store itself, where its stages are files: found again after a crash, and by other processes.

    docker/registry/v2/repositories/<name>/_uploads/<made of the digest>/{startedat,data}

- One process at a time fetches (claim.py). Another that is asked for the blob follows: it reads the same growing file,
  has it when the first has published it, and goes on where the first has died.
- What a killed process leaves is the start of the blob: written in order, never overwritten. It is hashed again before
  anything is added, and like all that is fetched it is published only with the right digest.
- What nobody asks for again is an abandoned upload, and purged as such.
"""

import asyncio
import io
import os
import uuid
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Executor
from itertools import repeat

from registry.proxy.claim import Claim, fetch_id, is_same_file
from registry.proxy.finishing import off_loop
from registry.proxy.spool import FileSpool, HashedSpool, Spool, again
from storage import layout
from storage.digest import Digest
from storage.driver import ObjectInfo, Stage, StorageDriver
from storage.errors import ObjectNotFound, OffsetMismatch, Unavailable, UpstreamUnavailable
from storage.names import RepositoryName

WORTH = 1 << 20
"""Bytes that are kept of a fetch that came to nothing; fewer are fetched again as quickly."""

LOOK = 0.05
"""Seconds between two looks at what another process fetches."""

_LOOKS = 100
"""At what is neither another's nor free, before it is taken for a fault."""


class StageSpool(HashedSpool):
    """The file of an upload. claim: says that it is ours alone; None: it has an id that nobody else knows."""

    def __init__(
        self, driver: StorageDriver, name: RepositoryName, algorithm: str, pool: Executor, id: str, claim: Claim | None
    ) -> None:
        super().__init__(algorithm, pool)
        self._driver, self._claim = driver, claim
        self._folder, self._key = layout.upload(name, id), layout.upload_data(name, id)
        self._stage: Stage | None = None
        self._closed = False

    async def open(self) -> None:
        """What is there, or a new stage. Raises Unavailable; then nothing is left open."""
        try:
            self._stage = await self._driver.find_stage(self._key)
            try:
                self.kept = (await self._driver.stage_info(self._stage)).offset
            except ObjectNotFound:
                self._stage = await self._driver.begin(self._key)
            async with await self._driver.open(self._key) as reader:
                assert reader.file is not None
                self.file = again(reader.file.fileno())
        except BaseException:
            await self.aclose(keep=True)
            raise

    async def append(self, pieces: Sequence[bytes]) -> None:
        assert self._stage is not None
        try:
            await self._driver.append(self._stage, self.size, _each(pieces), self.hash.update)
        except (ObjectNotFound, OffsetMismatch) as exc:
            raise Unavailable("what is being fetched was purged, or changed by somebody else") from exc

    async def publish(self, fresh: float) -> None:
        assert self._stage is not None
        target = layout.blob_data(self.digest)
        try:
            await self._driver.publish(self._stage, self._key, target, self.size, fresh=fresh)
        except ObjectNotFound as exc:
            raise Unavailable("what was fetched has been removed before it could be kept") from exc

    async def aclose(self, *, keep: bool = False) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            if hasattr(self, "file"):
                self.file.close()
            if not (keep and await self._is_worth_it()):
                if self._stage is not None:
                    await self._driver.abort(self._stage)
                await self._driver.delete_tree(self._folder)
        finally:
            if self._claim is not None:
                self._claim.close()

    async def _is_worth_it(self) -> bool:
        if self._claim is None or self._stage is None:
            return False
        try:
            return (await self._driver.stage_info(self._stage)).offset >= WORTH
        except ObjectNotFound:
            return False  # it is the blob by now, or purged


class Followed(Spool):
    """What another process fetches. `look` from time to time; what has come by then may be read."""

    def __init__(
        self, driver: StorageDriver, name: RepositoryName, digest: Digest, pool: Executor, claim: Claim
    ) -> None:
        self._driver, self._name, self._digest, self._pool, self._claim = driver, name, digest, pool, claim
        self._size = 0
        self._taken = False

    async def open(self) -> None:
        """Raises ObjectNotFound: it has not begun yet, or ended already."""
        async with await self._driver.open(layout.upload_data(self._name, fetch_id(self._digest))) as reader:
            assert reader.file is not None
            self.file = again(reader.file.fileno())

    @property
    def size(self) -> int:
        return self._size

    async def look(self, whole: int) -> "Followed | StageSpool | None":
        """Itself: the other process has published it.   A spool: it has left it to us.   None: it goes on.

        Raises UpstreamUnavailable: it has ended without a blob, and what was read of it is worth nothing.
        """
        before, self._size = self._size, os.fstat(self.file.fileno()).st_size
        if self._size >= whole and await self._is_at(layout.blob_data(self._digest)):
            return self
        if self._size > before:
            return None
        try:
            if not await self._claim.take():
                return None
            id = fetch_id(self._digest)
            if await self._is_at(layout.upload_data(self._name, id)):
                spool = StageSpool(self._driver, self._name, self._digest.algorithm, self._pool, id, self._claim)
                self._taken = True
                await spool.open()
                return spool
        except ObjectNotFound:
            pass  # it has ended: did it publish?
        if await self._is_at(layout.blob_data(self._digest)):
            return self
        raise UpstreamUnavailable("the process of this registry that was fetching the blob has given up")

    async def _is_at(self, key: str) -> bool:
        try:
            async with await self._driver.open(key) as reader:
                assert reader.file is not None
                return is_same_file(reader.file.fileno(), self.file.fileno())
        except ObjectNotFound:
            return False

    async def publish(self, fresh: float) -> None:
        """The other process has."""

    async def aclose(self, *, keep: bool = False) -> None:
        self.file.close()
        if not self._taken:
            self._claim.close()


class Kept(Spool):
    """The blob itself, which another process has published since we looked for it."""

    def __init__(self, file: io.FileIO, size: int) -> None:
        self.file, self._size = file, size

    @property
    def size(self) -> int:
        return self._size

    async def publish(self, fresh: float) -> None:
        """The other process has."""

    async def aclose(self, *, keep: bool = False) -> None:
        self.file.close()


class Place:
    """Where one blob of one repository goes, in this store.

    folder: for temporary files; None for the system's.   damaged: what stands in the blob's place, and is wrong.
    """

    def __init__(
        self,
        driver: StorageDriver,
        name: RepositoryName,
        digest: Digest,
        pool: Executor,
        folder: str | None,
        damaged: ObjectInfo | None = None,
    ) -> None:
        self._driver, self._name, self._digest, self._pool, self._folder = driver, name, digest, pool, folder
        self._damaged = damaged
        self._id = fetch_id(digest)

    async def begin(self) -> Spool:
        """A new one, what an earlier fetch has left, or what another process fetches or has. Raises Unavailable."""
        found = None if self._driver.stages_are_hidden else await self._in_store()
        if found is not None:
            return found
        algorithm = self._digest.algorithm
        return await off_loop(self._pool, FileSpool, self._driver, self._name, algorithm, self._pool, self._folder)

    async def _in_store(self) -> Spool | None:
        """None: the driver's stages are no local files."""
        for _ in repeat(None, _LOOKS):
            claim = Claim(self._driver, self._name, self._id)
            try:
                spool = await self._claimed(claim)
            except ObjectNotFound:
                claim.close()
                await asyncio.sleep(LOOK)  # another process is at its beginning, or at its end
                continue
            except BaseException:
                claim.close()
                raise
            return spool
        raise Unavailable("another process of this registry neither fetches that blob nor lets it go")

    async def _claimed(self, claim: Claim) -> Spool | None:
        """Raises ObjectNotFound when it is no longer, or not yet, what it looked like."""
        if not await claim.open():
            await self._driver.delete_tree(layout.upload(self._name, self._id))
            return None
        try:
            taken = await claim.take()
        except OSError:
            await self._driver.delete_tree(layout.upload(self._name, self._id))
            ours = StageSpool(self._driver, self._name, self._digest.algorithm, self._pool, str(uuid.uuid4()), None)
            await ours.open()
            claim.close()
            return ours
        if taken:
            if (kept := await self._published()) is not None:
                await self._driver.delete_tree(layout.upload(self._name, self._id))
                claim.close()
                return kept
            spool = StageSpool(self._driver, self._name, self._digest.algorithm, self._pool, self._id, claim)
            await spool.open()
            return spool
        followed = Followed(self._driver, self._name, self._digest, self._pool, claim)
        await followed.open()
        return followed

    async def _published(self) -> Kept | None:
        """The blob, if somebody has ended with it between our look into the store and our claim."""
        key = layout.blob_data(self._digest)
        try:
            if self._damaged is not None and (await self._driver.head(key)).version == self._damaged.version:
                return None
            async with await self._driver.open(key) as reader:
                assert reader.file is not None
                return Kept(again(reader.file.fileno()), reader.size)
        except ObjectNotFound:
            return None


async def _each(pieces: Sequence[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
