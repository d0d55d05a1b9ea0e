"""When what is in the cache was last used: the time of modification of its link, so that restarts and replicas know it.

    manifest   its revision's link, at each pull by tag or digest; not the tag's, which says when that was last compared
    blob       its layer's link, before it is read or a client is sent to the store for it

No write per pull: a link is touched when its time is older than a quarter of the grace (renewals.py), and after it was
looked at it is not for another quarter, in this process. So of each object there is at most one `head` in that time for
a process, and about one touch for all of them; on S3 a touch copies some 71 bytes onto themselves. What is used is seen
to be so for half of the grace at least, and no eviction beside it takes it away (storage/garbage/eviction.py).
"""

import logging
import time
from collections.abc import Callable

from registry.proxy.freshness import Recent
from storage import layout
from storage.digest import Digest
from storage.driver import StorageDriver
from storage.errors import ObjectNotFound, Unavailable
from storage.garbage.renewals import Renewals
from storage.names import RepositoryName

log = logging.getLogger(__name__)


class Uses:
    """grace: seconds; 0: the cache has no bounds, and nothing is recorded.   clock: seconds that never go back."""

    def __init__(self, driver: StorageDriver, grace: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._driver = driver
        self._renewals = Renewals(driver, grace)
        self._records = grace > 0
        self._clock = clock
        self._seen: Recent[float] = Recent(32_768)

    async def manifest(self, name: RepositoryName, digest: Digest) -> None:
        await self._use(name, layout.revision_link(name, digest))

    async def blob(self, name: RepositoryName, digest: Digest) -> None:
        await self._use(name, layout.layer_link(name, digest))

    async def _use(self, name: RepositoryName, link: str) -> None:
        """Never fails: what cannot be recorded is served all the same, and so is what is not there (any more)."""
        if not self._records:
            return
        now, seen = self._clock(), self._seen.get((name, link))
        if seen is not None and now - seen < self._renewals.fresh:
            return
        try:
            await self._renewals.renew(await self._driver.head(link))
        except ObjectNotFound:
            return
        except Unavailable as exc:
            log.warning("cannot record that the cache is used: %s", exc, extra={"key": link})
        self._seen.keep((name, link), now)
