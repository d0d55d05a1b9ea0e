"""Folders on a disk: made durably, locked one against another, pruned when they are empty.

- Whoever changes the entries of a folder holds an exclusive flock on its descriptor, so that "look, then rename" is one
  step for every process on this machine. A lock is held within one call in one thread, never while a client is awaited.
- A new folder is entered in its parent, and the parent is synced, under the parent's lock. Whoever finds the new folder
  already there waits for that lock, so that nothing is acknowledged inside a folder that a power cut may take away.
- Nobody waits for a lock while holding one, but for `locked` with several folders, which takes them by inode number.
- A folder may vanish whenever it is not locked (and, when an ancestor is removed as a tree, even then):
  FileNotFoundError means to make it and to try again.
"""

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from errno import EACCES, EBUSY, EEXIST, EINVAL, ENAMETOOLONG, ENOENT, ENOTDIR, ENOTEMPTY, EOPNOTSUPP, EPERM

_STAYS = frozenset({ENOTEMPTY, EEXIST, ENOTDIR, EBUSY, EACCES, EPERM})
"""Why a folder is not removed: in use; a symbolic link; a mount point; in a folder that others own."""

MODE = 0o777  # less the umask, as distribution: its volumes are shared between users


@contextmanager
def opened(path: str) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def sync(fd: int) -> None:
    """fsync of a folder. Some network filesystems know none and say EINVAL: more they cannot promise."""
    try:
        os.fsync(fd)
    except OSError as exc:
        if exc.errno not in (EINVAL, EOPNOTSUPP):
            raise


def is_folder(path: str) -> bool:
    """Unlike os.path.isdir, a disk that is broken raises."""
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except OSError as exc:
        if exc.errno not in (ENOENT, ENOTDIR, ENAMETOOLONG):
            raise
        return False


def is_at(path: str, fd: int) -> bool:
    """Does the path still name the open file or folder?"""
    try:
        return os.path.samestat(os.stat(path), os.fstat(fd))
    except (FileNotFoundError, NotADirectoryError):
        return False


@contextmanager
def locked(*paths: str) -> Iterator[list[int]]:
    """The folders, open, nobody else changing their entries. Raises FileNotFoundError."""
    while True:
        with ExitStack() as stack:
            fds = [stack.enter_context(opened(path)) for path in paths]
            # by inode, and each once: two paths may name one folder, whose second lock would wait for the first
            by_inode = {(status.st_dev, status.st_ino): fd for fd in fds for status in [os.fstat(fd)]}
            for _, fd in sorted(by_inode.items()):
                fcntl.flock(fd, fcntl.LOCK_EX)
            if all(is_at(path, fd) for path, fd in zip(paths, fds, strict=True)):
                yield fds
                return
        # removed, and perhaps made anew, before we had the lock


def make(path: str, root: str) -> None:
    """Make a folder below root, with its parents, durably. Raises FileNotFoundError when one is removed meanwhile."""
    if path == root:
        _make_root(root)
        return
    parent, _, name = path.rpartition("/")
    if is_folder(path):
        with opened(parent) as fd:
            fcntl.flock(fd, fcntl.LOCK_SH)  # who has just made it may not have synced it yet
        return
    make(parent, root)
    with locked(parent) as [fd]:
        try:
            os.mkdir(name, MODE, dir_fd=fd)
        except FileExistsError:
            return
        sync(fd)


def _make_root(root: str) -> None:
    if is_folder(root):
        return
    parent = os.path.dirname(root)
    _make_root(parent)
    with suppress(FileExistsError):
        os.mkdir(root, MODE)
    with opened(parent) as fd:
        sync(fd)


def prune(path: str, root: str) -> None:
    """Remove a folder if it is empty, then its parent, below root; sync the first that stays, durably."""
    while path != root:
        try:
            os.rmdir(path)
        except FileNotFoundError:
            pass  # somebody else has emptied it, too
        except OSError as exc:
            if exc.errno not in _STAYS:
                raise
            break
        path = path.rpartition("/")[0]
    with suppress(FileNotFoundError, NotADirectoryError), opened(path) as fd:
        sync(fd)
