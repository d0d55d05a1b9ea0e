"""Renewals: a writer that tells somebody "this is here" makes it young again, so that no collector takes it away.

Why and against what: collect.py. Only objects older than a quarter of the grace are touched, so that each is at most
once in that time, whoever asks and in however many processes: the store's own time of modification is the memory.
A read-only registry renews nothing: its clients fall back on nothing, and it may not write. It has no Renewals.

How a writer uses it, with `info` from driver.head():

    HEAD of a blob         await renewals.offer(info)     failing to write does not spoil an answer
    mount                  await renewals.renew(info)     before the link; ObjectNotFound: as if the blob were not there
    upload of what exists  nothing: `move` and `put_content(fresh=...)` write it, or leave it while it is young:
                           fresh=renewals.fresh
    PUT of a manifest      for each blob, and for each image of an index its revision link, that is there:
                               renewed |= await renewals.renew(info)    ObjectNotFound: it is missing
                           then, if any was renewed: when the revision is written, and before any tag, `head` those
                           again; if one is gone, delete the revision (unless it stood there before) and raise
                           ManifestBlobUnknown
"""

import asyncio
import logging

from storage.driver import ObjectInfo, StorageDriver
from storage.errors import ObjectNotFound, Unavailable

log = logging.getLogger(__name__)

_PART = 4
"""Touched when a quarter of the grace is over: three quarters are left for the push."""


class Renewals:
    """grace: seconds, as `garbage.grace`; 0: nothing is renewed, since no collector runs beside a push."""

    def __init__(self, driver: StorageDriver, grace: float) -> None:
        self._driver = driver
        self.fresh = grace / _PART
        """Seconds for which an object needs no renewal."""
        self._running: dict[str, asyncio.Task[None]] = {}

    async def renew(self, info: ObjectInfo) -> bool:
        """Touch the object if it is old. Returns whether it was. Raises ObjectNotFound: it has gone; Unavailable.

        Many who ask at once wait for one touch: on an object store it copies the object.
        """
        if not self.fresh or await self._driver.now() - info.modified <= self.fresh:
            return False
        task = self._running.get(info.key)
        if task is None:
            task = self._running[info.key] = asyncio.create_task(self._driver.touch(info.key))
            task.add_done_callback(lambda done: self._over(info.key, done))
        await asyncio.shield(task)
        return True

    async def offer(self, info: ObjectInfo) -> None:
        """As renew, for an answer that must not fail for it. Raises ObjectNotFound: it has gone."""
        try:
            await self.renew(info)
        except ObjectNotFound:
            raise
        except Unavailable as exc:
            log.warning("cannot renew a blob that a client has asked for: %s", exc, extra={"key": info.key})

    def _over(self, key: str, task: "asyncio.Task[None]") -> None:
        del self._running[key]
        if not task.cancelled():
            task.exception()  # whoever waited has it; when all have left, nobody is to be told
