"""Listing a tree of files in the order of keys, a folder at a time; nothing stays open in between.

Keys are ordered as whole strings, so a folder `a` sorts as `a/`: behind `a-b` and `a.b`, before `a0`. What is no key
(lost+found), what is no regular file, and the scratch folder are passed over; so is what vanishes meanwhile. Symbolic
links are followed, as distribution does.
"""

import heapq
import os
import stat
from collections.abc import Iterator
from errno import ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR

from storage.driver import ObjectInfo, check_key
from storage.drivers.files import FileTree, info_of

_GONE = frozenset({ENOENT, ENOTDIR, ENAMETOOLONG, ELOOP})


def objects(tree: FileTree, prefix: str, after: str) -> Iterator[ObjectInfo]:
    """Every object below prefix with a key > after, in order. A generator: each step blocks for a few folders."""
    for key, is_folder in _entries(tree, prefix):
        if is_folder:
            # all keys below start with this: either some may lie behind `after`, or none
            if f"{key}/" > after or after.startswith(f"{key}/"):
                yield from objects(tree, key, after)
        elif key > after and (status := _regular(tree.path(key))):
            yield info_of(key, status)


def folder_names(tree: FileTree, prefix: str, after: str, limit: int | None, containing: str) -> list[str]:
    """See StorageDriver.list_folders. Looks into no more folders than it must for `limit` names."""
    if containing:
        check_key(containing)
    start = len(prefix) + 1 if prefix else 0
    names = [key[start:] for key, is_folder in _scan(tree, prefix) if is_folder and key[start:] > after]
    heapq.heapify(names)
    found: list[str] = []
    while names and (limit is None or len(found) < limit):
        name = heapq.heappop(names)
        key = f"{prefix}/{name}" if prefix else name
        if _regular(tree.path(f"{key}/{containing}")) if containing else _holds_object(tree, key):
            found.append(name)
    return found


def _holds_object(tree: FileTree, prefix: str) -> bool:
    """A folder that a killed process, or distribution, has left empty is none."""
    folders = []
    for key, is_folder in _scan(tree, prefix):
        if is_folder:
            folders.append(key)
        elif _regular(tree.path(key)):
            return True
    return any(_holds_object(tree, key) for key in folders)


def _entries(tree: FileTree, prefix: str) -> list[tuple[str, bool]]:
    return sorted(_scan(tree, prefix), key=lambda entry: f"{entry[0]}/" if entry[1] else entry[0])


def _scan(tree: FileTree, prefix: str) -> Iterator[tuple[str, bool]]:
    """The keys directly below prefix, and whether each is a folder."""
    try:
        with os.scandir(tree.folder(prefix)) as entries:
            for entry in entries:
                key = f"{prefix}/{entry.name}" if prefix else entry.name
                if _is_component(entry.name) and key != tree.scratch_key:
                    yield key, _is_folder(entry)
    except OSError as exc:
        if exc.errno not in _GONE:
            raise


def _is_component(name: str) -> bool:
    try:
        check_key(name)
    except ValueError:
        return False
    return True


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as exc:
        if exc.errno not in _GONE:
            raise  # pragma: no cover - a symbolic link on a disk that fails; DirEntry asks the kernel past os.stat
        return False


def _regular(path: str) -> os.stat_result | None:
    try:
        status = os.stat(path)
    except OSError as exc:
        if exc.errno not in _GONE:
            raise
        return None
    return status if stat.S_ISREG(status.st_mode) else None
