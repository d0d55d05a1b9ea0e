"""Purging of upload sessions that nobody has touched for long.

Age counts from the last change, by the store's clock, not from the start: a slow upload of 20 GB is not abandoned.
"""

import logging
from dataclasses import dataclass

from storage import layout
from storage.content import ContentStore
from storage.errors import ObjectNotFound
from storage.names import RepositoryName

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Purged:
    """sessions and bytes that were removed, or would have been in a dry run."""

    sessions: int
    bytes: int


async def purge_uploads(content: ContentStore, age: float, *, dry_run: bool = False) -> Purged:
    """Remove the sessions that have been idle for more than `age` seconds. Raises Unavailable when the store fails."""
    sessions = size = 0
    limit = await content.driver.now() - age
    for name in await content.repositories_with(layout.UPLOADS_FOLDER):
        for id in await content.driver.list_folders(layout.uploads(name)):
            changed, held = await last_change(content, name, id)
            if changed is None or changed > limit:
                continue
            sessions, size = sessions + 1, size + held
            log.info(
                "purging an abandoned upload",
                extra={"repository": name, "upload": id, "bytes": held, "dryrun": dry_run},
            )
            if not dry_run:
                await content.driver.abort(await content.driver.find_stage(layout.upload_data(name, id)))
                await content.driver.delete_tree(layout.upload(name, id))
    return Purged(sessions, size)


async def last_change(content: ContentStore, name: RepositoryName, id: str) -> tuple[float | None, int]:
    """When the session was last changed (None: it is gone), and how many bytes it holds."""
    times, held = [], 0
    try:
        info = await content.driver.stage_info(await content.driver.find_stage(layout.upload_data(name, id)))
        times.append(info.modified)
        held = info.offset
    except ObjectNotFound:
        pass
    async for found in content.driver.list_objects(layout.upload(name, id)):
        times.append(found.modified)
    return max(times, default=None), held
