"""The verbs of the filesystem driver, each as one call that blocks: durable steps in their right order.

    put     write a scratch file, fsync it, rename it over the key, fsync the folder
    move    rename, fsync the folder that gained the entry, then the one that lost it
    delete  unlink, remove emptied folders, fsync the one that stays

New folders are entered and synced before anything is put into them (folders.py). Each step leaves the tree whole: a
process that is killed between two of them leaves at most scratch files and empty folders, which nobody sees.

OSError leaves this module as it came; the caller translates it. What stands at a key but is no regular file (a folder,
a pipe) is not an object.
"""

import errno
import fcntl
import io
import os
import re
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from storage.driver import ObjectInfo, check_key
from storage.drivers import folders
from storage.drivers.cached import LARGEST, PAGE, open_cached, read_cached, read_first_page
from storage.drivers.growing import flocked, open_regular, regular
from storage.drivers.listings import Listings, Witnesses
from storage.drivers.oserrors import translated
from storage.drivers.scratch import Scratch, remove_tree
from storage.errors import ObjectNotFound, OffsetMismatch, PreconditionFailed, StorageError, Unavailable

T = TypeVar("T")

_ATTEMPTS = 100
"""At putting something into a folder that others keep removing, before it is taken for a fault."""

_PLAIN_KEY = re.compile(r"(?:[A-Za-z0-9_-][A-Za-z0-9._-]*/)*[A-Za-z0-9_-][A-Za-z0-9._-]*")
"""Keys without a component that begins with a dot, so without `..`; nearly all, and half as dear to check."""

_PUBLIC = 0o666  # less the umask, as distribution: its volumes are shared between users
_PRIVATE = 0o600


def version_of(status: os.stat_result) -> str:
    """Another one after every put: it makes a new file, whose time of modification is never the old one's (_place)."""
    return f"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"


def info_of(key: str, status: os.stat_result) -> ObjectInfo:
    return ObjectInfo(key, status.st_size, version_of(status), status.st_mtime)


class FileTree:
    """Objects as files below root. scratch: the key of a folder that holds no objects."""

    def __init__(self, root: str, scratch: str) -> None:
        self.root = root
        self.scratch_key = check_key(scratch)
        self.scratch = Scratch(root, f"{root}/{scratch}")
        self.listings = Listings()
        self.witnesses = Witnesses()

    def path(self, key: str) -> str:
        """Raises ValueError for what is not a key, or lies in the scratch folder."""
        if _PLAIN_KEY.fullmatch(key) is None:
            check_key(key)
        if key.startswith(self.scratch_key) and f"{key}/".startswith(f"{self.scratch_key}/"):
            raise ValueError(f"not an object's key: {key!r}")
        return f"{self.root}/{key}"

    def folder(self, prefix: str) -> str:
        return self.path(prefix) if prefix else self.root

    # Reading

    def open(self, key: str) -> tuple[io.FileIO, int]:
        """The file and its size."""
        fd, size = open_regular(self.path(key), key, os.O_RDONLY)
        return io.FileIO(fd, "rb"), size

    def open_at_once(self, key: str) -> tuple[io.FileIO, int]:
        """As `open`. Raises BlockingIOError where that may wait for the disk."""
        fd = open_cached(self.path(key))
        try:
            size = regular(os.fstat(fd), key).st_size
            return io.FileIO(fd, "rb"), size
        except BaseException:
            os.close(fd)
            raise

    def read_at_once(self, key: str, limit: int) -> bytes:
        """As `read`, of a few KiB. Raises BlockingIOError where that may wait for the disk, or takes long."""
        path = self.path(key)
        if limit < PAGE:
            data = read_first_page(path)
            if len(data) > limit:
                raise BlockingIOError
            return data
        fd = open_cached(path)
        try:
            size = regular(os.fstat(fd), key).st_size
            if size > min(limit, LARGEST):
                raise BlockingIOError
            return read_cached(fd, 0, size)
        finally:
            os.close(fd)

    def stat_at_once(self, key: str) -> os.stat_result:
        """As `stat`. Raises BlockingIOError where that may wait for the disk."""
        fd = open_cached(self.path(key))
        try:
            return regular(os.fstat(fd), key)
        finally:
            os.close(fd)

    def read(self, key: str, limit: int) -> bytes:
        file, size = self.open(key)
        with file:
            if size > limit:
                raise Unavailable(f"an object of {size} bytes stands where at most {limit} are expected")
            data = b""
            while piece := file.read(limit + 1 - len(data)):
                data += piece
        if len(data) != size:
            raise Unavailable(f"a stored object of {size} bytes changes while it is read")
        return data

    def stat(self, key: str) -> os.stat_result:
        return regular(os.stat(self.path(key)), key)

    # Writing

    def check_writable(self) -> None:
        with self.scratch.file(b"writable", _PUBLIC) as (_, fd):
            os.fsync(fd)

    def put(self, key: str, data: bytes, if_absent: bool, if_version: str | None, private: bool) -> str:
        path = self.path(key)
        with self.scratch.file(data, _PRIVATE if private else _PUBLIC) as (temp, fd):
            os.fsync(fd)
            return self._place(temp, fd, path, if_absent, if_version)

    def begin(self, key: str) -> None:
        """An empty file in place of any other: whoever still writes to the old one no longer finds it at its path.

        Not synced: a session need not survive a power cut before `complete`, which syncs both file and folder.
        """
        path = self.path(key)
        with self.scratch.file(b"", _PUBLIC) as (temp, fd):
            self._place(temp, fd, path, durable=False)

    def delete(self, key: str, if_version: str | None = None) -> None:
        path = self.path(key)
        parent, _, name = path.rpartition("/")
        with suppress(FileNotFoundError, NotADirectoryError), folders.locked(parent) as [fd]:
            if stat.S_ISDIR(os.lstat(path).st_mode):
                return
            if if_version is not None and version_of(os.stat(name, dir_fd=fd)) != if_version:
                raise PreconditionFailed
            os.unlink(name, dir_fd=fd)
        folders.prune(parent, self.root)  # also when it was gone: an earlier delete may have been killed half-way

    def delete_tree(self, prefix: str) -> None:
        """The tree is renamed into the scratch folder, so that it goes at once, and is taken apart there."""
        path = self.folder(prefix)
        if not folders.is_folder(path):
            return
        if f"{self.scratch_key}/".startswith(f"{prefix}/" if prefix else ""):
            self._delete_entries(prefix)
            return
        parent, _, name = path.rpartition("/")
        doomed = self.scratch.path()
        try:
            with folders.locked(parent) as [fd]:
                os.rename(name, doomed, src_dir_fd=fd)
        except FileNotFoundError:
            folders.prune(parent, self.root)  # somebody else was faster
        except OSError as exc:
            if exc.errno not in (errno.EXDEV, errno.EBUSY):  # a mount point, or a folder of an image's layer
                raise
            self._delete_entries(prefix)
        else:
            folders.prune(parent, self.root)
            remove_tree(doomed)

    def _delete_entries(self, prefix: str) -> None:
        """For a folder that cannot be renamed: each of its entries goes at once, the whole does not."""
        for name in os.listdir(self.folder(prefix)):
            key = f"{prefix}/{name}" if prefix else name
            if key != self.scratch_key:
                with suppress(ValueError):  # not a key, so not ours: lost+found, for one
                    if folders.is_folder(self.path(key)):
                        self.delete_tree(key)
                    else:
                        self.delete(key)
        folders.prune(self.folder(prefix), self.root)

    def move(self, source: str, target: str, size: int) -> None:
        """The source's lock is shared: appenders, who hold it alone while they write, are kept out, and see it gone."""
        old, new = self.path(source), self.path(target)
        with translated(source):  # what is missing from here on is a fault of the store
            fd, _ = open_regular(old, source, os.O_RDONLY)
        try:
            with flocked(fd, old, source, fcntl.LOCK_SH):
                if (actual := os.fstat(fd).st_size) != size:
                    raise OffsetMismatch(actual)
                if old != new:
                    self._into(new.rpartition("/")[0], lambda: self._move(old, new, fd, source))
        finally:
            os.close(fd)

    def _move(self, old: str, new: str, file: int, source: str) -> None:
        old_parent, _, old_name = old.rpartition("/")
        new_parent, _, new_name = new.rpartition("/")
        folders.make(new_parent, self.root)
        if not folders.is_at(old, file):
            raise ObjectNotFound(source)
        with folders.locked(old_parent, new_parent) as [old_fd, new_fd]:
            if not folders.is_at(old, file):
                raise ObjectNotFound(source)
            os.rename(old_name, new_name, src_dir_fd=old_fd, dst_dir_fd=new_fd)
            folders.sync(new_fd)
        if old_parent != new_parent:
            folders.prune(old_parent, self.root)

    def touch(self, key: str) -> None:
        """Not synced: it protects from a collector of garbage, and none runs through a power cut."""
        path = self.path(key)
        regular(os.stat(path), key)
        with folders.locked(path.rpartition("/")[0]):  # not between the two steps of a delete by version
            os.utime(path)  # without times: the store's clock, and allowed to whoever may write

    def complete(self, key: str, size: int) -> None:
        path = self.path(key)
        fd, _ = open_regular(path, key, os.O_RDONLY)
        try:
            with flocked(fd, path, key, fcntl.LOCK_SH):
                if (actual := os.fstat(fd).st_size) != size:
                    raise OffsetMismatch(actual)
            os.fsync(fd)
            with folders.opened(path.rpartition("/")[0]) as folder:
                folders.sync(folder)
        finally:
            os.close(fd)

    def _place(
        self,
        temp: str,
        file: int,
        path: str,
        if_absent: bool = False,
        if_version: str | None = None,
        durable: bool = True,
    ) -> str:
        parent, _, name = path.rpartition("/")

        def attempt() -> str:
            folders.make(parent, self.root)
            with folders.locked(parent) as [folder]:
                old = _status(name, folder)
                if (if_absent and old) or (if_version is not None and (not old or version_of(old) != if_version)):
                    raise PreconditionFailed
                _make_newer(file, old)
                if not (if_absent and _link(temp, name, folder)):
                    os.rename(temp, name, dst_dir_fd=folder)
                if durable:
                    folders.sync(folder)
            return version_of(os.fstat(file))

        return self._into(parent, attempt)

    def _into(self, folder: str, attempt: Callable[[], T]) -> T:
        """Do something that makes a folder and uses it. Others may remove it in between: then it is made again."""
        try:
            for _ in range(_ATTEMPTS):
                with suppress(FileNotFoundError):
                    return attempt()
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        except (OSError, StorageError):
            with suppress(OSError):
                folders.prune(folder, self.root)  # distribution would list an empty folder as a tag, say
            raise


def _status(name: str, folder: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder)
    except FileNotFoundError:
        return None


def _link(temp: str, name: str, folder: int) -> bool:
    """Enter the file where nothing stands, which is one step for other machines, too, and for those that take no lock.

    False where the filesystem knows no hard links. Raises PreconditionFailed.
    """
    try:
        os.link(temp, name, dst_dir_fd=folder)
    except FileExistsError as exc:
        raise PreconditionFailed from exc
    except OSError as exc:
        if exc.errno in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
            return False
        raise
    return True


def _make_newer(file: int, old: os.stat_result | None) -> None:
    """Many filesystems count time in steps of some milliseconds and give inode numbers again at once.

    So that two versions never look alike, a file that replaces one of the same step is dated a nanosecond later.
    """
    new = os.fstat(file)
    if old and 0 <= old.st_mtime_ns - new.st_mtime_ns < 1_000_000_000:
        os.utime(file, ns=(new.st_atime_ns, old.st_mtime_ns + 1))
