"""What listing folders has found, remembered with a bound, and looked at again before it is believed.

Listings: the folders in a folder, sorted, as long as its time of modification says that they are the same.
Witnesses: an object somewhere below a folder, as long as it is there.

A page of a long list then costs what is on it: a folder of 10,000 tags is read and sorted once, not for every page. The
kernel counts time in steps of some milliseconds, so a folder that has changed just now may change again without showing
it; a list is kept only when the last change is older than that by far (git's index has the same rule, "racily clean").
"""

import os
import time
from bisect import bisect_right
from collections import OrderedDict
from errno import ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR
from threading import Lock

GONE = frozenset({ENOENT, ENOTDIR, ENAMETOOLONG, ELOOP})
"""What the system says of a folder that is not there, or no longer."""

_SETTLED_NS = 2_000_000_000
_MANY = 200_000
"""Names that are kept in all: about 20 MB."""
_WITNESSES = 50_000
"""Folders of which one file is known: about 20 MB."""

_Key = tuple[int, int]


class Listings:
    """Used by threads of one driver."""

    def __init__(self, many: int = _MANY) -> None:
        self._found: OrderedDict[_Key, tuple[int, list[str]]] = OrderedDict()
        self._size = 0
        self._many = many
        self._lock = Lock()

    def folders(self, path: str) -> list[str]:
        """Names of the folders in a folder, ordered by code point; not to be changed. Raises OSError."""
        status = os.stat(path)
        key, changed = (status.st_dev, status.st_ino), status.st_mtime_ns
        with self._lock:
            known = self._found.get(key)
            if known is not None and known[0] == changed:
                self._found.move_to_end(key)
                return known[1]
        before = time.time_ns()
        with os.scandir(path) as entries:
            names = sorted(entry.name for entry in entries if is_folder(entry))
        # changed is from before the folder was read: what came in between makes the next look differ
        if 0 <= changed < before - _SETTLED_NS:
            self._keep(key, changed, names)
        return names

    def _keep(self, key: _Key, changed: int, names: list[str]) -> None:
        with self._lock:
            if old := self._found.pop(key, None):
                self._size -= len(old[1]) + 1
            self._found[key] = changed, names
            self._size += len(names) + 1
            while self._size > self._many:
                _, (_, dropped) = self._found.popitem(last=False)
                self._size -= len(dropped) + 1


class Witnesses:
    """For each folder the path of one file below it: one look instead of a search, whether it holds any object.

    Used by threads of one driver.
    """

    def __init__(self, many: int = _WITNESSES) -> None:
        self._found: OrderedDict[str, str] = OrderedDict()
        self._many = many
        self._lock = Lock()

    def of(self, folder: str) -> str | None:
        """To be looked at: it may have gone."""
        return self._found.get(folder)

    def keep(self, folder: str, path: str) -> None:
        with self._lock:
            self._found[folder] = path
            if len(self._found) > self._many:
                self._found.popitem(last=False)


def behind(names: list[str], after: str) -> int:
    """The index of the first name > after."""
    return bisect_right(names, after)


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Also a symbolic link to one; not one that leads nowhere."""
    try:
        return entry.is_dir()
    except OSError as exc:
        if exc.errno not in GONE:
            raise  # pragma: no cover - a symbolic link on a disk that fails; DirEntry asks the kernel past os.stat
        return False
