"""Removing a manifest from its repository, with the entries that only it has.

What the manifest leads to goes first: tags' histories, then its entry among the referrers, then the revision. So a run
that is killed in between leaves the revision, and the next one finds it and finishes.
"""

from collections.abc import Set

from storage import layout
from storage.digest import Digest
from storage.driver import ObjectInfo, StorageDriver
from storage.errors import DigestInvalid, ObjectNotFound, PreconditionFailed
from storage.garbage.manifests import Node
from storage.links import write_link
from storage.names import RepositoryName


async def is_as_listed(driver: StorageDriver, listed: ObjectInfo) -> bool:
    """Has nobody written, touched or removed it since? On S3 a touch is no other version, only a later time."""
    try:
        found = await driver.head(listed.key)
    except ObjectNotFound:
        return False
    return found.version == listed.version and found.modified == listed.modified


async def remove_manifest(driver: StorageDriver, name: RepositoryName, node: Node) -> bool:
    """Its revision, and what goes with it. False: it was pushed or renewed since it was listed, and stays."""
    if node.info is None:  # only a tag named it, and that is gone
        return False
    if not await is_as_listed(driver, node.info):
        return False
    entry = None if node.subject is None else layout.referrer_link(name, node.subject, node.digest)
    if entry is not None:
        await driver.delete(entry)
    try:
        await driver.delete(node.info.key, if_version=node.info.version)
    except PreconditionFailed:
        if entry is not None:
            await write_link(driver, entry, node.digest)
        return False
    for info in node.extra:
        await driver.delete(info.key)
    return True


async def remove_from_tags(driver: StorageDriver, name: RepositoryName, doomed: Set[Digest]) -> None:
    """Out of what tags once named, as distribution does. One that lives on in the end loses nothing but that."""
    if not doomed:
        return
    async for info in driver.list_objects(layout.tags(name)):
        if "/index/" in info.key and info.key.endswith("/link"):
            try:
                digest = layout.digest_of_folder(info.key)
            except DigestInvalid:
                continue
            if digest in doomed:
                await driver.delete(info.key)
