"""Renewals: a writer that tells somebody "this is here" makes it young again, so that no collector takes it away.

Why and against what: collect.py. Only objects older than a quarter of the grace are touched, so that each is at most
once in that time, whoever asks and in however many processes: the store's own time of modification is the memory.
A read-only registry renews nothing: its clients fall back on nothing, and it may not write. Its grace here is 0.

Who uses it, with `info` from driver.head():

    HEAD of a blob         await renewals.offer(info)     reading.py: failing to write does not spoil an answer
    mount                  await renewals.renew(info)     uploads.py, before the link; ObjectNotFound: no such blob
    upload of what exists  nothing: `move` and `put_content(fresh=...)` write it, or leave it while it is young:
                           fresh=renewals.fresh
    PUT of a manifest      held.py: for each blob, and for each image of an index its revision link, that is there:
                               renewed |= await renewals.renew(info)    ObjectNotFound: it is missing
                           then, if any was renewed: publishing.py, when the revision is written, and before any tag,
                           `head`s those again; if one is gone, it deletes the revision (unless it stood there before)
                           and raises ManifestBlobUnknown

The second look is for stores that cannot delete by version. There it matters as well who has touched: a collector that
looked before our HEAD of a blob may delete after our check of the manifest, which finds the blob young. So what this
process has touched a moment ago counts as renewed.

What is young costs nothing but a comparison: the store's clock is asked once a minute, and reckoned in between.
"""

import logging
import math
import time
from collections import OrderedDict

from storage.driver import ObjectInfo, StorageDriver
from storage.errors import ObjectNotFound, Unavailable
from storage.once import Once

log = logging.getLogger(__name__)

_PART = 4
"""Touched when a quarter of the grace is over: three quarters are left for the push."""

_RECKONED = 60.0
"""Seconds for which the store's clock is reckoned with ours; at most an eighth of `fresh`."""

_MOMENT = 600.0
"""Seconds after a touch in which a manifest's second look goes to the object, too."""

_TOUCHED = 4096
"""Touched objects that are remembered."""


class Renewals:
    """grace: seconds, as `garbage.grace`; 0: nothing is renewed, since no collector runs beside a push."""

    def __init__(self, driver: StorageDriver, grace: float) -> None:
        self._driver = driver
        self.fresh = grace / _PART or math.inf
        """Seconds for which an object needs no renewal."""
        self.clock = time.time
        """Not the monotonic one, which stands still while the machine sleeps."""
        self._asked = -math.inf  # by our clock, and what the store's was ahead of it then
        self._ahead = 0.0
        self._touches: Once[str, None] = Once()
        self._touched: OrderedDict[str, float] = OrderedDict()

    async def renew(self, info: ObjectInfo) -> bool:
        """Touch the object if it is old. Returns whether it was, now or a moment ago in this process.

        Many who ask at once wait for one touch: on an object store it copies the object.
        Raises ObjectNotFound: it has gone; Unavailable.
        """
        if self.fresh == math.inf:
            return False
        now = await self._now()
        if now - info.modified <= self.fresh:
            return now - self._touched.get(info.key, -math.inf) <= _MOMENT
        await self._touches.run(info.key, lambda: self._touch(info.key))
        return True

    async def offer(self, info: ObjectInfo) -> None:
        """As renew, for an answer that must not fail for it. Raises ObjectNotFound: it has gone."""
        try:
            await self.renew(info)
        except ObjectNotFound:
            raise
        except Unavailable as exc:
            log.warning("cannot renew a blob that a client has asked for: %s", exc, extra={"key": info.key})

    async def _touch(self, key: str) -> None:
        await self._driver.touch(key)
        self._touched[key] = await self._now()
        self._touched.move_to_end(key)
        if len(self._touched) > _TOUCHED:
            self._touched.popitem(last=False)

    async def _now(self) -> float:
        """By the store's clock: a filesystem writes a file to know it."""
        ours = self.clock()
        if not 0 <= ours - self._asked <= min(_RECKONED, self.fresh / 8):
            self._ahead, self._asked = await self._driver.now() - ours, ours
        return ours + self._ahead
