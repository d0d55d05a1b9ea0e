"""The repairs, each against a store in which others may work: by version, or after another look."""

from storage import layout
from storage.digest import Digest
from storage.driver import ObjectInfo, StorageDriver
from storage.errors import ObjectNotFound, PreconditionFailed
from storage.garbage.removal import is_as_listed
from storage.links import write_link

DAMAGED = f"{layout.ROOT}/_moorage/damaged"
"""Where damaged bytes are set aside: neither registry looks there."""


class Repairs:
    def __init__(self, driver: StorageDriver) -> None:
        self._driver = driver

    async def remove(self, info: ObjectInfo) -> bool:
        """If it is still the version that was looked at."""
        try:
            await self._driver.delete(info.key, if_version=info.version)
        except PreconditionFailed:
            return False
        return True

    async def remove_dangling(self, info: ObjectInfo, target: Digest) -> bool:
        """If what it names is still not there."""
        return await self.remove_unless(info, layout.blob_data(target))

    async def remove_tree(self, prefix: str, unless: str) -> bool:
        """If there is still no object `unless`."""
        if await self.exists(unless):
            return False
        await self._driver.delete_tree(prefix)
        return True

    async def relink(self, info: ObjectInfo, digest: Digest) -> bool:
        """Write a damaged link again; where its blob is gone, remove it."""
        if not await self.exists(layout.blob_data(digest)):
            return await self.remove(info)
        try:
            await self._driver.put(info.key, str(digest).encode("ascii"), if_version=info.version)
        except PreconditionFailed:
            return False
        return True

    async def link(self, key: str, digest: Digest) -> bool:
        await write_link(self._driver, key, digest)
        return True

    async def set_aside(self, info: ObjectInfo, digest: Digest) -> bool:
        """If nobody has stored it anew since it was looked at."""
        try:
            found = await self._driver.head(info.key)
            if found.version != info.version:
                return False
            await self._driver.move(info.key, f"{DAMAGED}/{digest.algorithm}/{digest.hex}", info.size)
        except ObjectNotFound:
            return False
        return True

    async def remove_unless(self, info: ObjectInfo, key: str) -> bool:
        """If there is still no object `key`."""
        return not await self.exists(key) and await self.remove(info)

    async def drop(self, *found: ObjectInfo) -> bool:
        """Of a cache: all of these in turn, unless one is no longer as it was. Another repair may have been first."""
        for info in found:
            if await self.exists(info.key) and not (await is_as_listed(self._driver, info) and await self.remove(info)):
                return False
        return True

    async def exists(self, key: str) -> bool:
        try:
            await self._driver.head(key)
        except ObjectNotFound:
            return False
        return True
