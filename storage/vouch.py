"""Which blobs a manifest vouches for: those that cannot but be in the repository from which it was served.

A push of a manifest is refused while the repository lacks a blob that it names (here, and in distribution 2.8 and 3);
the collector of garbage keeps what a revision names; so whoever was served the manifest may have these blobs, and their
links need not be read. Where that argument has a gap, a pusher could name another repository's blob and read it. Hence:

- Only what our strict parser of pushes accepts: two readers cannot take such a manifest for different things.
- Only config and layers. Not `subject`, which may be absent. Nor the children of an index: see below.
- Not what has `urls`, nor a nondistributable type: distribution does not look for those. Nor what calls itself a
  manifest, which may have been found as one.
- Only sha256: a sha512 name may be an alias of distribution's, whose link says where the bytes are.
- Not where manifests come before their blobs: `sparse` pushes, a store that a pull-through cache fills.

Why an index does not vouch for its images, even where all of them had to be there when it was pushed: what had to be
there is their bytes, not that they are manifests of this repository. A child that is there as a blob passes with us
(BuildKit's cache index lists blobs), with distribution 2.8, which looks for manifests among the layers too, and with
distribution 3, whose cache of descriptors (on in its image) does not tell one from the other. So a pusher could upload
as a blob what reads as a manifest and names another repository's layer, whose digest he knows and which nobody has
checked; name it in an index; and pull the layer from a replica, since the index vouches for the blob as a manifest, and
that for the layer. Only the child's own revision link says that its blobs were looked for. So the link is what is read;
it brings the manifest with it (enclosed.py).
"""

import asyncio
from collections import OrderedDict

from storage import layout
from storage.digest import SHA256, Digest
from storage.errors import ManifestInvalid
from storage.linkcache import LinkCache
from storage.manifest import (
    DOCKER_SCHEMA1,
    DOCKER_SCHEMA1_SIGNED,
    MANIFEST_TYPES,
    NONDISTRIBUTABLE,
    Descriptor,
    parse,
)
from storage.names import RepositoryName
from storage.repository import StoredManifest

_IN_LOOP = 64 << 10
"""Bytes of a manifest that are parsed in the event loop; larger ones go to a thread."""

_UNPROVEN = NONDISTRIBUTABLE | MANIFEST_TYPES | {DOCKER_SCHEMA1, DOCKER_SCHEMA1_SIGNED}


def vouched_blobs(stored: StoredManifest) -> tuple[Digest, ...]:
    """The blobs that must be in whatever repository the manifest was served from. Pure."""
    try:
        manifest = parse(stored.body, stored.media_type)
    except ManifestInvalid:
        return ()
    return tuple(dict.fromkeys(blob.digest for blob in manifest.blobs if _is_proven(blob)))


def _is_proven(blob: Descriptor) -> bool:
    return blob.digest.algorithm == SHA256 and not blob.urls and blob.media_type not in _UNPROVEN


class Vouchers:
    """Tells a cache of links what served manifests vouch for; what each names is worked out once.

    limit: blobs that are remembered, of all manifests together.
    """

    def __init__(self, links: LinkCache, limit: int = 32_768) -> None:
        self._links = links
        self._limit = limit
        self._named: OrderedDict[Digest, tuple[Digest, ...]] = OrderedDict()
        self._count = 0

    async def vouch(self, name: RepositoryName, stored: StoredManifest, asked: float) -> None:
        """asked: when the link that led to the manifest was read, by the cache's clock."""
        if self._links.ttl <= 0:
            return
        for blob in await self._blobs(stored):
            self._links.vouch(layout.layer_link(name, blob), blob, asked)

    async def _blobs(self, stored: StoredManifest) -> tuple[Digest, ...]:
        if (named := self._named.get(stored.digest)) is not None:
            self._named.move_to_end(stored.digest)
            return named
        small = len(stored.body) <= _IN_LOOP
        named = vouched_blobs(stored) if small else await asyncio.to_thread(vouched_blobs, stored)
        if stored.digest not in self._named:
            self._named[stored.digest] = named
            self._count += len(named) + 1
        while self._count > self._limit:
            _, dropped = self._named.popitem(last=False)
            self._count -= len(dropped) + 1
        return named
