"""What a registry does beside its requests: it looks whether it may write, purges abandoned uploads, bounds a cache."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from registry.config import Config
from registry.tasks import end_all
from registry.watching.health import Health
from storage.content import ContentStore
from storage.errors import StorageError, StorageFull
from storage.purge import purge_uploads

if TYPE_CHECKING:
    from registry.proxy.mirrors import Mirrors

log = logging.getLogger(__name__)

_FIRST_PURGE = 60.0
"""Seconds after the start."""


@asynccontextmanager
async def at_work(
    content: ContentStore, config: Config, mirrors: "Mirrors | None", health: Health
) -> AsyncIterator[None]:
    """From the start of an application to its end, which closes what it has used. Raises what forbids a start."""
    maintenance = config.storage.maintenance
    tasks = []
    try:
        if not maintenance.readonly.enabled:
            await _check_writable(content)
            if maintenance.uploadpurging.enabled:
                tasks.append(asyncio.create_task(_purge_for_ever(content, config), name="purge uploads"))
            if mirrors is not None and mirrors.evictor is not None:
                tasks.append(asyncio.create_task(mirrors.evictor.run(), name="evict"))
        async with health.watching():
            yield
    finally:
        await end_all(tasks)
        if mirrors is not None:
            await mirrors.aclose()
        await content.aclose()


async def _check_writable(content: ContentStore) -> None:
    """Raises Unavailable, but not for want of space: what is stored can be pulled, and a collector makes room."""
    try:
        await content.driver.check_writable()
    except StorageFull:
        log.error(
            "the storage is full: pulls go on, pushes are refused with 507 until there is space; see what"
            " `registry garbage-collect --dry-run` would free"
        )


async def _purge_for_ever(content: ContentStore, config: Config) -> None:
    purging, first = config.storage.maintenance.uploadpurging, True
    while True:
        # not at once: a registry that starts has more urgent things to do
        await asyncio.sleep(min(purging.interval, _FIRST_PURGE) if first else purging.interval)
        first = False
        try:
            purged = await purge_uploads(content, purging.age, dry_run=purging.dryrun)
        except StorageError as exc:
            log.warning("could not purge abandoned uploads, trying again later: %s", exc)
        else:
            if purged.sessions:
                log.info("purged %d abandoned uploads, %d bytes", purged.sessions, purged.bytes)
