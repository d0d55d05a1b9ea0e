"""Facts that can never change, kept in memory with a bound: what a digest stands for.

Whether a repository holds something is no such fact: links are read afresh every time, so a delete holds at once and in
every process (where a call is dear, linkcache.py says for how long they are believed). Here are only the bytes and the
type of a manifest and the size of a blob, which their digests fix.
"""

from collections import OrderedDict

from storage.digest import Digest
from storage.lookups import Asked
from storage.repository import StoredManifest

_ENTRY_OVERHEAD = 512
"""Bytes: about what the objects around a body take."""


class ManifestCache:
    """Manifests by digest, the least recently used dropped first.

    capacity: bytes of all of them.   largest: bytes of one; larger ones are rare and would push out many.
    asked: where its requests are counted.
    """

    def __init__(self, capacity: int = 32 << 20, largest: int = 1 << 20, asked: Asked | None = None) -> None:
        self._asked = asked or Asked()
        self._found: OrderedDict[Digest, StoredManifest] = OrderedDict()
        self._capacity = capacity
        self._largest = largest
        self.size = 0

    def get(self, digest: Digest) -> StoredManifest | None:
        found = self._found.get(digest)
        self._asked.requests += 1
        if found is not None:
            self._asked.hits += 1
            self._found.move_to_end(digest)
        return found

    def keep(self, manifest: StoredManifest) -> None:
        """manifest: whose body has been compared with its digest."""
        if manifest.digest in self._found or len(manifest.body) > self._largest:
            return
        self._found[manifest.digest] = manifest
        self.size += len(manifest.body) + _ENTRY_OVERHEAD
        while self.size > self._capacity:
            _, dropped = self._found.popitem(last=False)
            self.size -= len(dropped.body) + _ENTRY_OVERHEAD


class Sizes:
    """Bytes of blobs by digest, the least recently used dropped first. limit: blobs. asked: as in ManifestCache."""

    def __init__(self, limit: int = 16_384, asked: Asked | None = None) -> None:
        self._asked = asked or Asked()
        self._sizes: OrderedDict[Digest, int] = OrderedDict()
        self._limit = limit

    def get(self, digest: Digest) -> int | None:
        size = self._sizes.get(digest)
        self._asked.requests += 1
        if size is not None:
            self._asked.hits += 1
            self._sizes.move_to_end(digest)
        return size

    def keep(self, digest: Digest, size: int) -> None:
        """size: as the store has said it, never as a manifest does."""
        self._sizes[digest] = size
        self._sizes.move_to_end(digest)
        if len(self._sizes) > self._limit:
            self._sizes.popitem(last=False)
