"""Holdings: what of all that a manifest names is in its repository, at the PUT of the manifest.

This is where a push and a collector of garbage meet (garbage/renewals.py): what is here and old is renewed, so that the
collector leaves it alone; and what was renewed is looked at again, when the collector can see the manifest.
"""

from dataclasses import dataclass

from storage.digest import Digest
from storage.driver import StorageDriver
from storage.errors import ManifestBlobUnknown, ManifestInvalid, ObjectNotFound
from storage.garbage.renewals import Renewals
from storage.manifest import Descriptor, Manifest
from storage.parallel import for_all
from storage.reading import Reading
from storage.rules import ManifestRules


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
        named = [*((blob, False) for blob in manifest.blobs), *((child, True) for child in manifest.children)]
        found = await for_all(named, self._find)
        pairs = [(descriptor, here) for (descriptor, _), here in zip(named, found, strict=True)]
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
        stand = await for_all([key for _, key in presence.renewed], self._stands)
        gone = [digest for (digest, _), stands in zip(presence.renewed, stand, strict=True) if not stands]
        if gone:
            raise ManifestBlobUnknown(list(dict.fromkeys(gone)))

    async def _find(self, named: tuple[Descriptor, bool]) -> _Found:
        """named: what, and whether it has to be here as a manifest."""
        descriptor, manifest = named
        held = await self._reading.held(descriptor.digest, manifest=manifest)
        if held is None:
            return _Found()
        try:
            renewed = await self._renewals.renew(held.needed)
        except ObjectNotFound:  # collected between the two
            return _Found()
        return _Found(held.size, held.needed.key if renewed else None)

    async def _stands(self, key: str) -> bool:
        try:
            await self._driver.head(key)
        except ObjectNotFound:
            return False
        return True
