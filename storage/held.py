"""Holdings: what of all that a manifest names is in its repository, at the PUT of the manifest.

This is where a push and a collector of garbage meet (garbage/renewals.py): what is here and old is renewed, so that the
collector leaves it alone; and what was renewed is looked at again, when the collector can see the manifest.
"""

import asyncio
from dataclasses import dataclass

from storage.digest import Digest
from storage.driver import StorageDriver
from storage.errors import ManifestBlobUnknown, ManifestInvalid, ObjectNotFound
from storage.garbage.renewals import Renewals
from storage.manifest import Descriptor, Manifest
from storage.reading import Reading
from storage.rules import ManifestRules

_AT_ONCE = 16
"""Checks of presence that run side by side."""


@dataclass(frozen=True, slots=True)
class _Found:
    """size: None where nothing is here.   renewed: the key to be looked at again."""

    size: int | None = None
    renewed: str | None = None


@dataclass(frozen=True, slots=True)
class Presence:
    """absent: what is not here, where rules allow that.   renewed: what was old, and the key that has to be there."""

    absent: tuple[Digest, ...]
    renewed: tuple[tuple[Digest, str], ...]


class Holdings:
    """Of one repository."""

    def __init__(self, driver: StorageDriver, reading: Reading, rules: ManifestRules, renewals: Renewals) -> None:
        self._driver = driver
        self._reading = reading
        self._rules = rules
        self._renewals = renewals

    async def check(self, manifest: Manifest) -> Presence:
        """Raises ManifestBlobUnknown for what is missing and has to be here; ManifestInvalid for what has another size
        than announced."""
        required = self._rules.required(manifest)
        named = (*manifest.blobs, *manifest.children)
        slots = asyncio.Semaphore(_AT_ONCE)
        found = await asyncio.gather(
            *(self._find(d, slots, manifest=False) for d in manifest.blobs),
            *(self._find(d, slots, manifest=True) for d in manifest.children),
        )
        pairs = list(zip(named, found, strict=True))
        absent = tuple(dict.fromkeys(d.digest for d, here in pairs if here.size is None))
        if missing := [digest for digest in absent if digest in required]:
            raise ManifestBlobUnknown(missing)
        for descriptor, here in pairs:
            if here.size is not None and here.size != descriptor.size:
                raise ManifestInvalid(
                    f"{descriptor.digest} has {here.size} bytes, its descriptor says {descriptor.size}"
                )
        return Presence(absent, tuple((d.digest, here.renewed) for d, here in pairs if here.renewed is not None))

    async def look_again(self, presence: Presence) -> None:
        """Raises ManifestBlobUnknown for what was renewed and is gone all the same."""
        slots = asyncio.Semaphore(_AT_ONCE)
        stand = await asyncio.gather(*(self._stands(key, slots) for _, key in presence.renewed))
        gone = [digest for (digest, _), stands in zip(presence.renewed, stand, strict=True) if not stands]
        if gone:
            raise ManifestBlobUnknown(list(dict.fromkeys(gone)))

    async def _find(self, descriptor: Descriptor, slots: asyncio.Semaphore, *, manifest: bool) -> _Found:
        async with slots:
            held = await self._reading.held(descriptor.digest, manifest=manifest)
            if held is None:
                return _Found()
            try:
                renewed = await self._renewals.renew(held.needed)
            except ObjectNotFound:  # collected between the two
                return _Found()
            return _Found(held.size, held.needed.key if renewed else None)

    async def _stands(self, key: str, slots: asyncio.Semaphore) -> bool:
        async with slots:
            try:
                await self._driver.head(key)
            except ObjectNotFound:
                return False
            return True
