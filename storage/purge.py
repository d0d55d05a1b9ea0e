"""Purging of upload sessions that nobody has touched for long, and of other writes that a crash has left unfinished.

Age counts from the last change, by the store's clock, not from the start: a slow upload of 20 GB is not abandoned.
"""

import logging
from collections.abc import Set
from dataclasses import dataclass

from storage import layout
from storage.content import ContentStore
from storage.driver import Unfinished
from storage.errors import ObjectNotFound
from storage.names import RepositoryName

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Purged:
    """sessions (each unfinished write counts as one) and bytes that were removed, or would have been in a dry run."""

    sessions: int
    bytes: int


async def purge_uploads(content: ContentStore, age: float, *, dry_run: bool = False) -> Purged:
    """Remove the sessions that have been idle for more than `age` seconds. Raises Unavailable when the store fails."""
    sessions = size = 0
    staged = set()
    limit = await content.driver.now() - age
    for name in await content.repositories_with(layout.UPLOADS_FOLDER):
        for id in await content.driver.list_folders(layout.uploads(name)):
            staged.add(layout.upload_data(name, id))
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
    for left in await unfinished(content, limit, staged):
        sessions, size = sessions + 1, size + left.offset
        log.info(
            "purging a write that was never finished", extra={"key": left.key, "bytes": left.offset, "dryrun": dry_run}
        )
        if not dry_run:
            await content.driver.drop_unfinished(left)
    return Purged(sessions, size)


async def unfinished(content: ContentStore, limit: float, staged: Set[str]) -> list[Unfinished]:
    """What has not changed since `limit`, but for the stages of sessions, whose keys are `staged`: each is its own."""
    return [left for left in await content.driver.list_unfinished(layout.ROOT, limit) if left.key not in staged]


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
