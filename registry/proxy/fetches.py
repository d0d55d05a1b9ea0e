"""All fetches of a process: at most one for each digest, and who may read from it.

A blob has one copy in the cache, however many repositories have it. That another repository fetches or has fetched it
does not say that this one may have it: before its first reader gets a byte, its upstream is asked by a HEAD.

Of several replicas on one store one fetches, while the others wait for it or fetch for their own clients (leases.py).
A blob that the store did not take (a full disk) is passed on to each client by itself, and tried again after a while.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from itertools import repeat

from registry.proxy.download import Sleep, Source
from registry.proxy.fetch import Fetch
from registry.proxy.leases import Leases, Turn
from registry.proxy.passing import pass_on
from registry.proxy.spool import Spool
from registry.proxy.stages import Place
from storage import layout
from storage.digest import Digest
from storage.driver import ObjectInfo, ObjectReader, StorageDriver
from storage.errors import ObjectNotFound, StorageError, StorageFull, Unavailable, UpstreamUnavailable
from storage.links import write_link
from storage.names import RepositoryName
from storage.once import Once
from storage.ranges import RangeRequest

log = logging.getLogger(__name__)

_THREADS = 8
_ROUNDS = 5
_LAST = 10.0
"""Seconds that publishing may take when the registry stops."""

PAUSE = 60.0
"""Seconds for which a blob that the store did not take is not tried again: it would fill the disk to the brim anew."""

_UNKEPT = 1024
"""Of which that is remembered."""


class Fetches:
    """Bound to the loop that it is used in; `aclose` ends what runs.

    fresh: seconds, as in StorageDriver.put_content.   folder: for what cannot grow in the store itself; None: TMPDIR.
    leases: None where no other replica has this store.
    """

    def __init__(
        self,
        driver: StorageDriver,
        *,
        fresh: float,
        folder: str | None = None,
        leases: Leases | None = None,
        sleep: Sleep = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._driver, self._fresh, self._folder, self._sleep, self._clock = driver, fresh, folder, sleep, clock
        self._leases = leases
        self._turns: Once[Digest, Fetch | None] = Once()
        self._running: dict[Digest, Fetch] = {}
        self._tasks: dict[asyncio.Task[None], Fetch] = {}
        self._fills: dict[Digest, asyncio.Task[None]] = {}
        self.after: Callable[[Fetch], None] = lambda fetch: None
        """Called when a fetch has ended, however it did."""
        self._pool = ThreadPoolExecutor(_THREADS, "fetch")
        self._unkept: OrderedDict[Digest, float] = OrderedDict()
        self._complained = False

    def __len__(self) -> int:
        return len(self._tasks) + len(self._fills)

    async def size(self, name: RepositoryName, digest: Digest) -> int | None:
        """Of a blob that is being fetched for the repository; None: it is not. Raises what the upstream answered."""
        fetch = self._running.get(digest)
        return await fetch.size() if fetch is not None and name in fetch.names else None

    async def open(
        self, source: Source, name: RepositoryName, digest: Digest, range: RangeRequest | None = None
    ) -> ObjectReader | None:
        """A reader of what is being fetched for the repository `name`, begun now if it was not. None: it is cached.

        Raises BlobUnknown; UpstreamDenied; UpstreamUnavailable.
        """
        for _ in repeat(None, _ROUNDS):  # `range` is an argument
            fetch = self._running.get(digest)
            if fetch is None:
                held = None
                try:
                    held = await self._held(digest)
                    if held is not None and await self._adopted(source, name, digest, held):
                        return None
                except UpstreamUnavailable:
                    raise
                except Unavailable as exc:
                    self._pass_by(digest, exc)
                if self._clock() < self._unkept.get(digest, 0.0):
                    return await pass_on(source, digest, range, self._pool, self._sleep)
                fetch = self._running.get(digest) or await self._begun(source, name, digest, held)
                if fetch is None:
                    if await self._is_linked(name, digest):
                        return None
                    continue  # it was kept for another repository
            if name not in fetch.names:
                await source.stat_blob(digest)
                if self._running.get(digest) is not fetch:
                    continue  # it has ended meanwhile
                fetch.names.add(name)
            if (reader := await fetch.open(source, range)) is not None:
                return reader
        raise Unavailable("the blob cannot be kept, and is fetched again and again")

    def is_fetching(self, digest: Digest) -> bool:
        return digest in self._running

    def arrived(self, name: RepositoryName, digest: Digest) -> int | None:
        """Bytes that have come of what is being fetched for the repository; None: it is not."""
        fetch = self._running.get(digest)
        return fetch.arrived if fetch is not None and name in fetch.names else None

    async def follow(
        self, source: Source, name: RepositoryName, digest: Digest, range: RangeRequest
    ) -> ObjectReader | None:
        """As open, of what is being fetched already; None: it is not."""
        fetch = self._running.get(digest)
        return await fetch.open(source, range) if fetch is not None and name in fetch.names else None

    def fill(self, source: Source, name: RepositoryName, digest: Digest) -> None:
        """Fetch the blob for the repository, which may have it, though nobody reads it yet."""
        if digest in self._running or digest in self._fills or self._clock() < self._unkept.get(digest, 0.0):
            return
        task = asyncio.create_task(self._fill(source, name, digest), name=f"fill {digest}")
        self._fills[digest] = task
        task.add_done_callback(lambda _: self._fills.pop(digest))

    async def _fill(self, source: Source, name: RepositoryName, digest: Digest) -> None:
        try:
            if await self._held(digest) is None and digest not in self._running:
                await self._begun(source, name, digest, None)
        except StorageError as exc:
            log.warning("a blob cannot be fetched now: %s", exc, extra={"digest": str(digest)})

    async def _held(self, digest: Digest) -> ObjectInfo | None:
        try:
            return await self._driver.head(layout.blob_data(digest))
        except ObjectNotFound:
            return None

    async def _is_linked(self, name: RepositoryName, digest: Digest) -> bool:
        try:
            await self._driver.head(layout.layer_link(name, digest))
        except ObjectNotFound:
            return False
        return True

    async def _adopted(self, source: Source, name: RepositoryName, digest: Digest, held: ObjectInfo) -> bool:
        """Another repository of the cache has the blob: may this one have it, too? Then it has it now."""
        if held.size != await source.stat_blob(digest):
            return False  # it is damaged: a fetch replaces it
        await self._link(name, digest)
        return True

    async def _begun(
        self, source: Source, name: RepositoryName, digest: Digest, held: ObjectInfo | None
    ) -> Fetch | None:
        """A fetch, as soon as it is our turn. None: another replica has fetched and kept it.

        held: what stands in the blob's place, and is damaged.
        """
        if self._leases is None:
            return self._start(source, name, digest, held)
        return await self._turns.run(digest, partial(self._turn, self._leases, source, name, digest, held))

    async def _turn(
        self, leases: Leases, source: Source, name: RepositoryName, digest: Digest, damaged: ObjectInfo | None
    ) -> Fetch | None:
        async def is_kept() -> bool:
            held = await self._held(digest)
            return held is not None and (damaged is None or held.version != damaged.version)

        turn = await leases.turn(layout.blob_lease(digest), is_kept)
        return None if turn is None else self._start(source, name, digest, damaged, turn)

    def _start(
        self,
        source: Source,
        name: RepositoryName,
        digest: Digest,
        damaged: ObjectInfo | None,
        turn: Turn | None = None,
    ) -> Fetch:
        place = Place(self._driver, name, digest, self._pool, self._folder, damaged)
        fetch = Fetch(source, digest, name, place, self._pool, self._sleep)
        self._running[digest] = fetch
        fetch.tally.fills_begun += 1
        task = asyncio.create_task(self._run(fetch, turn), name=f"fetch {digest}")
        self._tasks[task] = fetch
        task.add_done_callback(self._ended)
        return fetch

    async def _run(self, fetch: Fetch, turn: Turn | None) -> None:
        with fetch.span.current():
            async with turn or nullcontext():
                await fetch.run(partial(self._publish, fetch, turn))

    async def _publish(self, fetch: Fetch, turn: Turn | None, spool: Spool) -> None:
        if turn is None or await turn.take_lead():
            await spool.publish(self._fresh)
        linked: set[RepositoryName] = set()
        while left := fetch.names - linked:  # others may join meanwhile
            for name in left:
                await self._link(name, fetch.digest)
            linked |= left
        fetch.tally.fills_kept += 1
        self._complained = False
        self._forget(fetch)

    async def _link(self, name: RepositoryName, digest: Digest) -> None:
        await write_link(self._driver, layout.layer_link(name, digest), digest)

    def _forget(self, fetch: Fetch) -> None:
        if self._running.get(fetch.digest) is fetch:
            del self._running[fetch.digest]

    def _ended(self, task: "asyncio.Task[None]") -> None:
        fetch = self._tasks.pop(task)
        fetch.span.end()
        fetch.tally.fills_ended += 1
        self._forget(fetch)
        if fetch.unkept is not None:
            self._pass_by(fetch.digest, fetch.unkept)
        if not task.cancelled() and (exc := task.exception()) is not None:
            log.error("a fetch ended by a bug", exc_info=exc)
        self.after(fetch)

    def _pass_by(self, digest: Digest, why: StorageError) -> None:
        """Said once, until the store takes something again."""
        self._unkept[digest] = self._clock() + PAUSE
        self._unkept.move_to_end(digest)
        if len(self._unkept) > _UNKEPT:
            self._unkept.popitem(last=False)
        if not self._complained:
            self._complained = True
            full = "make room there, or let the cache have less"
            help = full if isinstance(why, StorageFull) else str(why.__cause__ or "its cause is not known")
            extra = {"digest": str(digest)}
            log.error("what is fetched cannot be kept, and is passed on to clients: %s; %s", why, help, extra=extra)

    async def ended(self, digest: Digest) -> None:
        """Until nothing of it is fetched or published any more."""
        if tasks := [task for task, fetch in self._tasks.items() if fetch.digest == digest]:
            await asyncio.wait(tasks)

    async def aclose(self) -> None:
        """What has come whole is still kept, the rest cancelled. Idempotent."""
        await self._turns.aclose()
        fills = list(self._fills.values())
        for fill in fills:
            fill.cancel()
        await asyncio.gather(*fills, return_exceptions=True)
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
