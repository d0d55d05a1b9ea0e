"""Listing a tree of files in the order of keys, a folder at a time; nothing stays open in between.

Keys are ordered as whole strings, so a folder `a` sorts as `a/`: behind `a-b` and `a.b`, before `a0`. What is no key
(lost+found), what is no regular file, and the scratch folder are passed over; so is what vanishes meanwhile. Symbolic
links are followed, as distribution does.
"""

import os
import stat
from collections.abc import Generator, Iterator
from contextlib import closing

from storage.driver import ObjectInfo, check_key
from storage.drivers.files import FileTree, info_of
from storage.drivers.listings import GONE as _GONE
from storage.drivers.listings import behind, is_folder


def objects(tree: FileTree, prefix: str, after: str) -> Iterator[ObjectInfo]:
    """Every object below prefix with a key > after, in order. A generator: each step blocks for a few folders."""
    for key, has_keys in _entries(tree, prefix):
        if has_keys:
            # all keys below start with this: either some may lie behind `after`, or none
            if f"{key}/" > after or after.startswith(f"{key}/"):
                yield from objects(tree, key, after)
        elif key > after and (status := _regular(tree.path(key))):
            yield info_of(key, status)


def folder_names(tree: FileTree, prefix: str, after: str, limit: int | None, containing: str) -> list[str]:
    """See StorageDriver.list_folders. Looks into no more folders than it must for `limit` names."""
    if containing:
        check_key(containing)
    names = _folders(tree, prefix)
    found: list[str] = []
    for index in range(behind(names, after), len(names)):
        if limit is not None and len(found) >= limit:
            break
        key = _join(prefix, names[index])
        if not _is_component(names[index]) or key == tree.scratch_key:
            continue
        if _regular(tree.path(f"{key}/{containing}")) if containing else _holds_object(tree, key):
            found.append(names[index])
    return found


def folders_with(
    tree: FileTree, prefix: str, marker: str, hidden: str, after: list[str] | None, name: str = ""
) -> Iterator[str]:
    """See StorageDriver.find_folders. after: components of the last one found, relative to `name`. A generator."""
    names = _folders(tree, _join(prefix, name))
    if name and after is None and _is_in(names, marker) and _holds_object(tree, f"{_join(prefix, name)}/{marker}"):
        yield name
    start = 0
    if after:
        start = behind(names, after[0])
        if _is_in(names, after[0]) and not after[0].startswith(hidden):
            yield from folders_with(tree, prefix, marker, hidden, after[1:], _join(name, after[0]))
    for index in range(start, len(names)):
        if not names[index].startswith(hidden) and _is_component(names[index]):
            yield from folders_with(tree, prefix, marker, hidden, None, _join(name, names[index]))


def _join(prefix: str, name: str) -> str:
    return f"{prefix}/{name}" if prefix and name else prefix or name


def _is_in(names: list[str], name: str) -> bool:
    index = behind(names, name) - 1
    return index >= 0 and names[index] == name


def _folders(tree: FileTree, prefix: str) -> list[str]:
    try:
        return tree.listings.folders(tree.folder(prefix))
    except OSError as exc:
        if exc.errno not in _GONE:
            raise
        return []


def _holds_object(tree: FileTree, prefix: str) -> bool:
    """A folder that a killed process, or distribution, has left empty is none."""
    known = tree.witnesses.of(prefix)
    if known is not None and _regular(known):
        return True
    found = _any_object(tree, prefix)
    if found is not None:
        tree.witnesses.keep(prefix, found)
    return found is not None


def _any_object(tree: FileTree, prefix: str) -> str | None:
    """The path of an object below. Goes down at once: most folders hold some."""
    with closing(_scan(tree, prefix)) as entries:
        for key, has_keys in entries:
            if has_keys:
                if (found := _any_object(tree, key)) is not None:
                    return found
            elif _regular(path := tree.path(key)):
                return path
    return None


def _entries(tree: FileTree, prefix: str) -> list[tuple[str, bool]]:
    return sorted(_scan(tree, prefix), key=lambda entry: f"{entry[0]}/" if entry[1] else entry[0])


def _scan(tree: FileTree, prefix: str) -> Generator[tuple[str, bool], None, None]:
    """The keys directly below prefix, and whether each is a folder."""
    try:
        with os.scandir(tree.folder(prefix)) as entries:
            for entry in entries:
                key = _join(prefix, entry.name)
                if _is_component(entry.name) and key != tree.scratch_key:
                    yield key, is_folder(entry)
    except OSError as exc:
        if exc.errno not in _GONE:
            raise


def _is_component(name: str) -> bool:
    try:
        check_key(name)
    except ValueError:
        return False
    return True


def _regular(path: str) -> os.stat_result | None:
    try:
        status = os.stat(path)
    except OSError as exc:
        if exc.errno not in _GONE:
            raise
        return None
    return status if stat.S_ISREG(status.st_mode) else None
