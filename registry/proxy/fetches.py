"""All fetches of a process: at most one for each digest, and who may read from it.

A blob has one copy in the cache, however many repositories have it. That another repository fetches or has fetched it
does not say that this one may have it: before its first reader gets a byte, its upstream is asked by a HEAD.
"""

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import repeat

from registry.proxy.fetch import Fetch, Sleep, Source
from registry.proxy.spool import FileSpool, Spool, StageSpool, off_loop
from storage import layout
from storage.digest import Digest
from storage.driver import ObjectReader, StorageDriver
from storage.errors import ObjectNotFound, Unavailable
from storage.links import write_link
from storage.names import RepositoryName
from storage.ranges import RangeRequest

log = logging.getLogger(__name__)

_THREADS = 8
_ROUNDS = 5
_LAST = 10.0
"""Seconds that publishing may take when the registry stops."""


class Fetches:
    """Bound to the loop that it is used in; `aclose` ends what runs.

    fresh: seconds, as in StorageDriver.put_content.   folder: for what cannot grow in the store itself; None: TMPDIR.
    """

    def __init__(
        self,
        driver: StorageDriver,
        *,
        fresh: float,
        folder: str | None = None,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._driver, self._fresh, self._folder, self._sleep = driver, fresh, folder, sleep
        self._running: dict[Digest, Fetch] = {}
        self._tasks: dict[asyncio.Task[None], Fetch] = {}
        self._pool = ThreadPoolExecutor(_THREADS, "fetch")

    def __len__(self) -> int:
        return len(self._tasks)

    async def size(self, name: RepositoryName, digest: Digest) -> int | None:
        """Of a blob that is being fetched for the repository; None: it is not. Raises what the upstream answered."""
        fetch = self._running.get(digest)
        return await fetch.size() if fetch is not None and name in fetch.names else None

    async def open(
        self, source: Source, name: RepositoryName, digest: Digest, range: RangeRequest | None = None
    ) -> ObjectReader | None:
        """A reader of what is being fetched for the repository `name`, begun now if it was not. None: it is cached.

        Raises BlobUnknown; UpstreamDenied; UpstreamUnavailable; Unavailable, when there is no place for it.
        """
        for _ in repeat(None, _ROUNDS):  # `range` is an argument
            fetch = self._running.get(digest)
            if fetch is None:
                if await self._adopted(source, name, digest):
                    return None
                fetch = self._running.get(digest) or self._start(source, name, digest)
            if name not in fetch.names:
                await source.stat_blob(digest)
                if self._running.get(digest) is not fetch:
                    continue  # it has ended meanwhile
                fetch.names.add(name)
            if (reader := await fetch.open(range)) is not None:
                return reader
        raise Unavailable("the blob cannot be kept, and is fetched again and again")

    async def _adopted(self, source: Source, name: RepositoryName, digest: Digest) -> bool:
        """Has another repository of the cache the blob, and may this one have it, too? Then it has it now."""
        try:
            held = await self._driver.head(layout.blob_data(digest))
        except ObjectNotFound:
            return False
        if held.size != await source.stat_blob(digest):
            return False  # it is damaged: a fetch replaces it
        await self._link(name, digest)
        return True

    def _start(self, source: Source, name: RepositoryName, digest: Digest) -> Fetch:
        fetch = Fetch(source, digest, name, partial(self._begin, name, digest), self._pool, self._sleep)
        self._running[digest] = fetch
        fetch.tally.fills_begun += 1
        task = asyncio.create_task(fetch.run(partial(self._publish, fetch)), name=f"fetch {digest}")
        self._tasks[task] = fetch
        task.add_done_callback(self._ended)
        return fetch

    async def _begin(self, name: RepositoryName, digest: Digest) -> Spool:
        if not self._driver.stages_are_hidden:
            stage = await StageSpool.begin(self._driver, name, digest.algorithm)
            if stage is not None:
                return stage
        return await off_loop(self._pool, FileSpool, self._driver, name, digest.algorithm, self._pool, self._folder)

    async def _publish(self, fetch: Fetch, spool: Spool) -> None:
        await spool.publish(self._fresh)
        linked: set[RepositoryName] = set()
        while left := fetch.names - linked:  # others may join meanwhile
            for name in left:
                await self._link(name, fetch.digest)
            linked |= left
        fetch.tally.fills_kept += 1
        self._forget(fetch)

    async def _link(self, name: RepositoryName, digest: Digest) -> None:
        await write_link(self._driver, layout.layer_link(name, digest), digest)

    def _forget(self, fetch: Fetch) -> None:
        if self._running.get(fetch.digest) is fetch:
            del self._running[fetch.digest]

    def _ended(self, task: "asyncio.Task[None]") -> None:
        fetch = self._tasks.pop(task)
        fetch.tally.fills_ended += 1
        self._forget(fetch)
        if not task.cancelled() and (exc := task.exception()) is not None:
            log.error("a fetch ended by a bug", exc_info=exc)

    async def aclose(self) -> None:
        """What has come whole is still kept, the rest cancelled. Idempotent."""
        tasks = dict(self._tasks)
        publishing = [task for task, fetch in tasks.items() if fetch.is_whole]
        for task in tasks.keys() - publishing:
            task.cancel()
        if publishing:
            await asyncio.wait(publishing, timeout=_LAST)
        for task in publishing:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._pool.shutdown(wait=False)
