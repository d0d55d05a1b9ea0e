"""BlobTable: every blob of a store in 9 bytes: half a word of its digest, and what is known of it.

A listing of the store comes ordered by key, so the table is sorted as it is filled, and looking up is bisecting.
Of a digest only the first 64 bits are kept. Two blobs that share these share one entry: then garbage may stay because
its namesake lives. Never the other way round, so an accident, or an attack, costs space and no blob.
"""

from array import array
from bisect import bisect_left

from storage.digest import HEX_LENGTH, Digest

NEEDED, FRESH, SWEPT, HELD = 1, 2, 4, 8
"""Marks: a manifest names it; a link to it is young; it was removed (or would be); what is no cache links to it."""

_SHIFT = 48
"""A place is the algorithm's number above that many bits for the position in its column."""

_ALGORITHMS = tuple(sorted(HEX_LENGTH))


class BlobTable:
    """with_sizes: remember the bytes of each blob as well: 8 more bytes for each."""

    def __init__(self, *, with_sizes: bool = False) -> None:
        self._keys = {name: array("Q") for name in _ALGORITHMS}
        self._marks = {name: bytearray() for name in _ALGORITHMS}
        self._sizes = {name: array("q") for name in _ALGORITHMS} if with_sizes else None

    def __len__(self) -> int:
        return sum(map(len, self._keys.values()))

    def add(self, digest: Digest, size: int) -> None:
        """In the order of their hexadecimal digits, for each algorithm. Raises ValueError for another order."""
        keys, key = self._keys[digest.algorithm], _key(digest)
        if keys and keys[-1] > key:
            raise ValueError("blobs come in order")
        keys.append(key)
        self._marks[digest.algorithm].append(0)
        if self._sizes is not None:
            self._sizes[digest.algorithm].append(size)

    def find(self, digest: Digest) -> int | None:
        """A number that stands for the blob; None where it is not in the table."""
        keys, key = self._keys[digest.algorithm], _key(digest)
        position = bisect_left(keys, key)
        if position == len(keys) or keys[position] != key:
            return None
        return _ALGORITHMS.index(digest.algorithm) << _SHIFT | position

    def mark(self, place: int, mark: int = NEEDED) -> bool:
        """Returns whether that is news."""
        marks, position = self._marks[_ALGORITHMS[place >> _SHIFT]], place & ((1 << _SHIFT) - 1)
        news = not marks[position] & mark
        marks[position] |= mark
        return news

    def is_marked(self, place: int, mark: int = NEEDED) -> bool:
        """Has it one of the marks?"""
        return bool(self._marks[_ALGORITHMS[place >> _SHIFT]][place & ((1 << _SHIFT) - 1)] & mark)

    def size(self, place: int) -> int:
        if self._sizes is None:
            raise ValueError("this table keeps no sizes")
        return self._sizes[_ALGORITHMS[place >> _SHIFT]][place & ((1 << _SHIFT) - 1)]

    def needs(self, digest: Digest) -> bool:
        """Is it in the table, and does somebody name it?"""
        return (place := self.find(digest)) is not None and self.is_marked(place)


def _key(digest: Digest) -> int:
    return int(digest.hex[:16], 16)
