"""Who needs a digest: every tag, manifest and link in any repository that names it."""

from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field

from storage import layout
from storage.digest import Digest
from storage.driver import ObjectInfo, StorageDriver
from storage.errors import ObjectNotFound
from storage.garbage.links import Link, links_below, repository_names
from storage.garbage.manifests import LARGEST, each
from storage.garbage.named import named_digests
from storage.garbage.watch import Watcher
from storage.links import read_link
from storage.manifest import parse_stored
from storage.names import RepositoryName, Tag
from storage.parallel import for_each


@dataclass(frozen=True, slots=True)
class Use:
    """One sentence of the answer. how: "tag", "manifest", "subject", "revision" or "link".

    by: the tag, or the digest of the manifest that names it. keeps: does garbage-collect keep it for that?
    """

    repository: RepositoryName
    how: str
    by: str
    keeps: bool


@dataclass(slots=True)
class Explained:
    """info: of the blob; None: it is not in the store."""

    digest: Digest
    info: ObjectInfo | None = None
    uses: list[Use] = field(default_factory=list)

    @property
    def is_kept(self) -> bool:
        return any(use.keeps for use in self.uses)


async def explain(driver: StorageDriver, digest: Digest, watcher: Watcher | None = None) -> Explained:
    """Reads every manifest of the store. Raises Unavailable."""
    found, watch = Explained(digest), watcher or Watcher()
    with suppress(ObjectNotFound):
        found.info = await driver.head(layout.blob_data(digest))
    names = await repository_names(driver)
    watch.phase("looking through repositories", total=len(names))
    for name in names:
        found.uses += [use async for use in _uses(driver, name, digest)]
        watch.step()
    return found


async def _uses(driver: StorageDriver, name: RepositoryName, digest: Digest) -> AsyncIterator[Use]:
    for key, how, keeps in (
        (layout.layer_link(name, digest), "link", False),
        (layout.revision_link(name, digest), "revision", True),
    ):
        try:
            await driver.head(key)
        except ObjectNotFound:
            continue
        yield Use(name, how, "", keeps)
    for tag in await driver.list_folders(layout.tags(name), containing=layout.CURRENT_LINK):
        try:
            if await read_link(driver, layout.tag_link(name, Tag(tag))) == digest:
                yield Use(name, "tag", tag, True)
        except ObjectNotFound:
            continue
    for use in await _in_manifests(driver, name, digest):
        yield use


async def _in_manifests(driver: StorageDriver, name: RepositoryName, digest: Digest) -> list[Use]:
    uses: list[Use] = []

    async def read(link: Link) -> None:
        try:
            body = await driver.read(layout.blob_data(link.name), LARGEST)
        except ObjectNotFound:
            return
        subject = parse_stored(body).subject
        if digest in named_digests(body):
            uses.append(Use(name, "manifest", str(link.name), True))
        if subject is not None and subject.digest == digest:
            uses.append(Use(name, "subject", str(link.name), False))

    links = [link async for link in links_below(driver, layout.revisions(name)) if isinstance(link, Link)]
    await for_each(each(links), read)
    return sorted(uses, key=lambda use: (use.how, use.by))
