"""Which process fetches a blob, where several share a folder: the one that has locked the `startedat` of its upload.

The upload's id is made of the digest, so the next process finds what a killed one has left: a kernel lock ends with its
process, however that ends. distribution knows such uploads as abandoned ones, and purges them as we do.

The file goes when its owner has finished, or when somebody purges: whoever gets the lock of one that is no longer in
its place has nothing. Whoever removes the folder holds the lock, so nobody claims what is being removed.
"""

import fcntl
import io
import os
import uuid
from contextlib import suppress
from datetime import UTC, datetime

from storage import layout
from storage.digest import SHA256, Digest
from storage.driver import StorageDriver
from storage.errors import ObjectNotFound, PreconditionFailed
from storage.names import RepositoryName
from storage.uploads import new_session

_NAMESPACE = uuid.UUID("6f2c1c4b-6a0e-4d54-9e7c-0b7f0a3b1d55")


def fetch_id(digest: Digest) -> str:
    """The id of the upload that a fetch is."""
    return str(uuid.uuid5(_NAMESPACE, str(digest)))


class Claim:
    """On the upload `id` of `name`. `open` before `take`; whoever made it closes it."""

    def __init__(self, driver: StorageDriver, name: RepositoryName, id: str) -> None:
        self._driver = driver
        self._key = layout.upload_started(name, id)
        self._file: io.FileIO | None = None
        self._held = False

    async def open(self) -> bool:
        """False: the store has no local files. Raises ObjectNotFound when it is removed at that moment; Unavailable."""
        with suppress(PreconditionFailed):
            now = datetime.fromtimestamp(await self._driver.now(), UTC)
            await self._driver.put(self._key, new_session(SHA256, now).started.encode(), if_absent=True)
        async with await self._driver.open(self._key) as reader:
            if reader.file is None:
                return False
            self._file = io.FileIO(os.dup(reader.file.fileno()), "rb")
            return True

    async def take(self) -> bool:
        """Is it ours from now on? False: it is another's.

        Raises ObjectNotFound when it is nobody's any more; OSError where the store has no such locks (NFS, for files
        that are open for reading).
        """
        assert self._file is not None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        self._held = True
        async with await self._driver.open(self._key) as reader:
            assert reader.file is not None
            if not is_same_file(reader.file.fileno(), self._file.fileno()):
                raise ObjectNotFound(self._key)
        return True

    def close(self) -> None:
        """Idempotent."""
        if self._file is not None:
            if self._held:
                self._held = False
                fcntl.flock(self._file, fcntl.LOCK_UN)  # also for what was forked meanwhile and has it open
            self._file.close()


def is_same_file(one: int, other: int) -> bool:
    """Of two descriptors."""
    return os.path.sameopenfile(one, other)
