"""Where one writer keeps files that are not objects yet, or no longer.

    <base>/<uuid>/lock     flocked as long as its writer lives
    <base>/<uuid>/<n>      a file being written, or a tree being removed

- The folder is made at the first write, so a read-only registry, and a parent that forks its workers, never has one.
- A kernel lock ends with its process, however that ends: a folder whose lock can be had is a leftover, and the next
  writer removes it. The lock is on a file, not on the folder, because NFS carries only those from machine to machine.
- A cleaner may come between a folder's mkdir and its lock. So the new writer looks whether its lock file is still in
  place once it is locked, and starts again with another name if not; nobody else does anything in a folder before that.
"""

import fcntl
import itertools
import logging
import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import EEXIST, ENOENT, ENOTEMPTY

from storage.drivers import folders

log = logging.getLogger(__name__)

_LOCK = "lock"
_ATTEMPTS = 100
"""At removing a tree into which others still write, before it is taken for a fault."""


def remove_tree(path: str) -> None:
    """Remove a folder, a file, or a link, though others may still be adding to it."""
    for attempt in itertools.count():
        try:
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path)
            else:
                os.unlink(path)
        except OSError as exc:
            if exc.errno not in (ENOENT, ENOTEMPTY, EEXIST) or attempt >= _ATTEMPTS:
                raise
            if not os.path.lexists(path):
                return
        else:
            return


class Scratch:
    """The scratch folder of this process, below base. Its methods block, and any thread may call them."""

    def __init__(self, root: str, base: str) -> None:
        self._root = root
        self._base = base
        self._folder: str | None = None
        self._lock = -1
        self._starting = threading.Lock()
        self._numbers = itertools.count()

    def now(self) -> float:
        """The store's clock, read off a file of ours; before the first write, this machine's."""
        with self._starting:
            if self._folder is None:
                return time.time()
            os.utime(self._lock)
            return os.fstat(self._lock).st_mtime

    def path(self) -> str:
        """A path that nobody else uses."""
        return f"{self._started()}/{next(self._numbers)}"

    @contextmanager
    def file(self, data: bytes, mode: int) -> Iterator[tuple[str, int]]:
        """A file that holds data, as path and descriptor. It is removed at the end unless it has been moved away."""
        path = self.path()
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            yield path, fd
        finally:
            os.close(fd)
            with suppress(FileNotFoundError):
                os.unlink(path)

    def close(self) -> None:
        """Remove what is left and let go of the lock. Idempotent."""
        with self._starting:
            if self._folder is not None:
                folder, self._folder = self._folder, None
                try:
                    _remove(folder)
                finally:
                    os.close(self._lock)

    def _started(self) -> str:
        with self._starting:
            if self._folder is not None and not folders.is_folder(self._folder):
                self._folder = None  # somebody has emptied the store under a running registry: it goes on
                os.close(self._lock)
            if self._folder is None:
                folders.make(self._base, self._root)
                self._folder, self._lock = _enter(self._base)
                _remove_leftovers(self._base)
            return self._folder


def _enter(base: str) -> tuple[str, int]:
    """A new locked folder: its path, and the descriptor that holds the lock."""
    while True:
        folder = f"{base}/{uuid.uuid4()}"
        os.mkdir(folder, folders.MODE)
        try:
            lock = os.open(f"{folder}/{_LOCK}", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:
            continue
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folders.is_at(f"{folder}/{_LOCK}", lock):
            return folder, lock
        os.close(lock)


def _remove_leftovers(base: str) -> None:
    for name in os.listdir(base):
        if _is_uuid(name):
            try:
                _remove_leftover(f"{base}/{name}")
            except OSError as exc:  # of another user, say: it only takes room
                log.warning("cannot remove what a killed process has left in the scratch folder", exc_info=exc)


def _remove_leftover(folder: str) -> None:
    try:
        lock = os.open(f"{folder}/{_LOCK}", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:  # killed in between, or just being made: then its maker starts again
        with suppress(OSError):
            os.rmdir(folder)
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pass  # its writer lives
    else:
        _remove(folder)
    finally:
        os.close(lock)


def _remove(folder: str) -> None:
    """The lock file goes last: a cleaner that is killed half-way leaves a folder that the next one still knows."""
    with suppress(FileNotFoundError):  # somebody else was faster
        for name in os.listdir(folder):
            if name != _LOCK:
                remove_tree(f"{folder}/{name}")
        os.unlink(f"{folder}/{_LOCK}")
        os.rmdir(folder)


def _is_uuid(name: str) -> bool:
    try:
        return str(uuid.UUID(name)) == name
    except ValueError:
        return False
