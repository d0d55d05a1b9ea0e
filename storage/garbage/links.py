"""The links of a repository as a listing shows them, read only where the name does not say it all.

A link's folder is named after a digest, and almost always the link holds that digest: then its size is that of the
digest, and it need not be read. It is read where the size differs (damage) and under every name that is not sha256:
there distribution writes aliases, sha512 names with sha256 data.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from storage import layout
from storage.digest import SHA256, Digest
from storage.driver import ObjectInfo, StorageDriver
from storage.errors import DigestInvalid, ObjectNotFound
from storage.links import read_link
from storage.names import RepositoryName

LAYERS_FOLDER = "_layers"


@dataclass(frozen=True, slots=True)
class Link:
    """name: the digest after which the folder is named.   info: of the link itself.

    extra: it lies deeper, as the signatures of schema 1 did (registry 2.0 to 2.2).
    """

    name: Digest
    info: ObjectInfo
    extra: bool = False

    @property
    def looks_right(self) -> bool:
        """Has it the size of a link to its name, under a name that is never an alias?"""
        return self.name.algorithm == SHA256 and self.info.size == len(str(self.name))


@dataclass(frozen=True, slots=True)
class Foreign:
    """A link in a folder that is named after no digest that we compute."""

    info: ObjectInfo


async def links_below(driver: StorageDriver, folder: str) -> AsyncIterator[Link | Foreign]:
    """The links `<alg>/<hex>/link` below a folder, and those that lie deeper. Other objects are passed over."""
    async for info in driver.list_objects(folder):
        parts = info.key.removeprefix(f"{folder}/").split("/")
        if parts[-1] != "link" or len(parts) < 3:
            continue
        try:
            yield Link(Digest.parse(f"{parts[-3]}:{parts[-2]}"), info, extra=len(parts) > 3)
        except DigestInvalid:
            yield Foreign(info)


async def layer_links(driver: StorageDriver, name: RepositoryName) -> AsyncIterator[Link]:
    async for link in links_below(driver, f"{layout.repository(name)}/{LAYERS_FOLDER}"):
        if isinstance(link, Link) and not link.extra:
            yield link


async def target_of(driver: StorageDriver, link: Link) -> Digest | None:
    """The digest whose data is meant; None for a link that is damaged, or gone meanwhile."""
    if link.looks_right:
        return link.name
    try:
        return await read_link(driver, link.info.key)
    except ObjectNotFound:
        return None


async def repository_names(driver: StorageDriver) -> list[RepositoryName]:
    """Every repository that has manifests or layers, also under names that could not be pushed to here.

    About 100 bytes of memory for each.
    """
    found = set(await driver.find_folders(layout.REPOSITORIES, layout.MANIFESTS_FOLDER))
    found.update(await driver.find_folders(layout.REPOSITORIES, LAYERS_FOLDER))
    return [RepositoryName(name) for name in sorted(found)]


async def blobs(driver: StorageDriver) -> AsyncIterator[tuple[Digest, ObjectInfo]]:
    """Every blob of the store, ordered by algorithm and digits. What is no blob of the layout is passed over."""
    async for info in driver.list_objects(layout.BLOBS):
        if (digest := digest_of_data(info.key)) is not None:
            yield digest, info


def digest_of_data(key: str) -> Digest | None:
    """The digest whose bytes a key below BLOBS holds; None where it is none of ours."""
    parts = key.removeprefix(f"{layout.BLOBS}/").split("/")
    if len(parts) != 4:
        return None
    try:
        digest = Digest.parse(f"{parts[0]}:{parts[2]}")
    except DigestInvalid:
        return None
    return digest if layout.blob_data(digest) == key else None
