"""Stages on a disk: files that grow at their key while others may grow, move or drop them.

Whoever writes to a stage holds an exclusive flock on the file for that one write, whoever publishes one a shared flock.
Under the lock, what was seen of the stage (it is at its path, it has so many bytes) stays true until it is let go.
"""

import fcntl
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from storage.driver import Tap
from storage.drivers import folders
from storage.drivers.writeback import start_writing
from storage.errors import ObjectNotFound, OffsetMismatch

_EARLY = 8 << 20
"""Bytes that are gathered before the disk is asked to begin with them."""


def regular(status: os.stat_result, key: str) -> os.stat_result:
    if not stat.S_ISREG(status.st_mode):
        raise ObjectNotFound(key)
    return status


def open_regular(path: str, key: str, flags: int) -> tuple[int, int]:
    """The descriptor of a regular file, and its size."""
    fd = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe must not block
    try:
        return fd, regular(os.fstat(fd), key).st_size
    except BaseException:
        os.close(fd)
        raise


@contextmanager
def flocked(fd: int, path: str, key: str, kind: int) -> Iterator[None]:
    """The stage, locked and still at its path. Raises ObjectNotFound when it has been moved, begun anew or dropped."""
    fcntl.flock(fd, kind)
    try:
        if not folders.is_at(path, fd):
            raise ObjectNotFound(key)
        yield
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)


class GrowingFile:
    """A stage that one caller appends to. Not concurrently; `close` ends it."""

    def __init__(self, path: str, key: str, offset: int) -> None:
        """Raises OffsetMismatch when the stage is not `offset` bytes long."""
        self.key = key
        self._path = path
        self._unwritten = offset
        self._fd, size = open_regular(path, key, os.O_WRONLY)
        if size != offset:
            self.close()
            raise OffsetMismatch(size)

    def write(self, pieces: Sequence[bytes | memoryview], offset: int, tap: Tap | None) -> int:
        """Add pieces, all or, when that fails, none, and hand them to tap. Returns the new length.

        The lock is held for this call alone, and the length is looked at under it: what two callers append at the same
        time is never mixed, and nothing is added to what `move` has published.
        """
        with flocked(self._fd, self._path, self.key, fcntl.LOCK_EX):
            if (size := os.fstat(self._fd).st_size) != offset:
                raise OffsetMismatch(size)
            try:
                end = _write_all(self._fd, pieces, offset)
            except OSError:
                os.ftruncate(self._fd, offset)  # a full disk has taken a part, which tap has not seen
                raise
        if end - self._unwritten >= _EARLY:
            start_writing(self._fd, self._unwritten, end - self._unwritten)
            self._unwritten = end
        if tap is not None:
            for piece in pieces:
                tap(piece)
        return end

    def close(self) -> None:
        os.close(self._fd)


def _write_all(fd: int, pieces: Sequence[bytes | memoryview], offset: int) -> int:
    views = [memoryview(piece) for piece in pieces if piece]
    while views:
        written = os.pwritev(fd, views, offset)
        offset += written
        while views and written >= len(views[0]):
            written -= len(views.pop(0))
        if written:
            views[0] = views[0][written:]
    return offset
