"""Evictor: when the cache is looked after, by one process for all, and what is written of it in the log.

The work itself is storage/garbage/eviction.py. Here is only how often:

- A look costs a listing of the store, so at most a twentieth of the time is spent on it: the next one comes after five
  minutes, or after twenty times what the last one took. Earlier, when this process alone has fetched what was left up
  to the high mark, so that a fast download into a small cache does not wait for the clock.
- Above HIGH of the size, images are given up until what stays takes LOW of it. Where that does not help, since all was
  used a moment ago, it is not tried again before half of the grace is over.
- Of age is known when the first image reaches it: nothing is read before that.

One small object of the store (layout.EVICTION) says when the next look is due and what the last one found. Whoever is
due replaces it under the condition that it is still the version he has read, so of all replicas and workers one works.
It is thrift and no lock: where the store knows no conditions, or somebody takes longer than he has asked for, two do
the same, which does no harm (storage/garbage/eviction.py). Who dies is replaced when the time he asked for is over.
"""

import asyncio
import json
import logging
import math
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, replace

from registry.config.model import CacheConfig
from registry.config.upstreams import ProxyConfig
from registry.proxy.tally import Tally
from storage import layout
from storage.digest import Digest
from storage.driver import StorageDriver
from storage.errors import ObjectNotFound, PreconditionFailed, StorageError
from storage.garbage.eviction import Evicted, Eviction
from storage.garbage.watch import Watcher
from storage.names import RepositoryName

log = logging.getLogger(__name__)

HIGH, LOW = 0.95, 0.85
"""Parts of the size: between them lies what a run wins, so that not every download makes one."""

FIRST = 60.0
"""Seconds after the start: a registry that starts has more urgent things to do."""

_INTERVAL = 300.0
_SHARE = 20
_TICK = 15.0
"""Seconds between two looks at the clock, which cost nothing; and from a look to one that comes early."""

_CLAIM = 120.0
"""Seconds that are asked for at least; three times what the last look took, if that is more."""

_DAY = 24 * 3600.0
_LIMIT = 4096
"""Bytes of the record."""

_DEAR, _CHEAP = 8 * 3600.0, 600.0
"""Seconds of grace where it is not set. On S3 each touch costs a call, and a download cannot outlive its object."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """size: bytes; 0: any.   age: seconds without use; 0: any.   grace: see storage/garbage/eviction.py."""

    size: int = 0
    age: float = 0.0
    grace: float = _CHEAP

    @classmethod
    def of(cls, cache: CacheConfig, proxy: ProxyConfig, driver: StorageDriver) -> "Bounds":
        age = cache.age if cache.age is not None else proxy.ttl if proxy.remoteurl else 0.0
        return cls(cache.size, age, cache.grace or (_DEAR if driver.calls_are_dear else _CHEAP))

    @property
    def recorded(self) -> float:
        """The grace for which uses are recorded: 0, since nothing goes, without a bound."""
        return self.grace if self.size or self.age else 0.0

    @property
    def high(self) -> float:
        return self.size * HIGH if self.size else math.inf

    @property
    def low(self) -> float:
        return self.size * LOW

    @property
    def unused(self) -> float:
        """Seconds after which an image goes. What was used within the grace stays, whatever the age."""
        return max(self.age, self.grace) if self.age else math.inf


@dataclass(frozen=True, slots=True)
class Record:
    """What the last look found, for all. Times in seconds since 1970, store's clock.

    size: bytes of the cache then.   oldest: no image was used last before that.   due: of the next look.
    soonest: before that nobody runs for the size's sake.   seconds: that the last look took, with what came of it.
    by: makes every record another one.
    """

    size: int = 0
    oldest: float = 0.0
    due: float = 0.0
    soonest: float = 0.0
    seconds: float = 0.0
    by: str = ""

    @classmethod
    def parse(cls, data: bytes) -> "Record":
        """What cannot be understood is as if there were none."""
        try:
            found = json.loads(data)
            size = int(found["size"])
            oldest, due, soonest, seconds = (float(found[name]) for name in ("oldest", "due", "soonest", "seconds"))
        except (ValueError, KeyError, TypeError, OverflowError):
            return cls()
        known = all(map(math.isfinite, (oldest, due, soonest, seconds)))
        return cls(size, oldest, due, soonest, seconds) if known else cls()

    def __bytes__(self) -> bytes:
        return json.dumps(asdict(replace(self, by=uuid.uuid4().hex))).encode()


class Evictor:
    """caches: is a repository one of the cache?   fetched: bytes that this process has fetched so far.

    tally: of the upstream that a repository of the cache is of.   clock: seconds that never go back.
    """

    def __init__(
        self,
        driver: StorageDriver,
        bounds: Bounds,
        *,
        caches: Callable[[RepositoryName], bool],
        fetched: Callable[[], int],
        tally: Callable[[RepositoryName], Tally],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._driver, self.bounds = driver, bounds
        self._caches, self._fetched, self._tally = caches, fetched, tally
        self._clock, self._sleep = clock, sleep
        self._due = self._soonest = -math.inf  # by our clock
        self._known: Record | None = None
        self._mark = 0

    async def run(self) -> None:
        """For ever: for a task that whoever starts it cancels."""
        await self._sleep(FIRST)
        while True:
            if self._clock() >= self._due or (self._filled() and self._clock() >= self._soonest):
                try:
                    await self.tend()
                except StorageError as exc:
                    log.warning("could not look after the bounds of the cache, trying again later: %s", exc)
                    self._due = self._soonest = self._clock() + _INTERVAL
            await self._sleep(_TICK)

    async def tend(self) -> Evicted | None:
        """Look, if it is time and nobody else does, and evict what has to go. None: nothing had to, or it was not.

        Raises Unavailable.
        """
        now = await self._driver.now()
        record = await self._claim(now)
        if record is None:
            return None
        begun = time.monotonic()
        eviction = Eviction(self._driver, self._caches, self.bounds.grace, Told(self._tally))
        size = await eviction.look()
        over = size > self.bounds.high and now >= record.soonest
        done, record = None, replace(record, size=size)
        if over or record.oldest + self.bounds.unused <= now:
            done = await eviction.run(room=self.bounds.low if over else math.inf, age=self.bounds.unused)
            self._tell(done)
            soonest = now + self.bounds.grace / 2 if done.size > self.bounds.high else record.soonest
            record = replace(record, size=done.size, oldest=min(done.oldest, now), soonest=soonest)
        await self._finish(record, now, time.monotonic() - begun)
        return done

    def _filled(self) -> bool:
        """Has this process alone fetched more than there was room for?"""
        return self._known is not None and self._known.size + self._fetched() - self._mark > self.bounds.high

    async def _claim(self, now: float) -> Record | None:
        """The last record, and all others know that this process is at work. None: it is not its turn."""
        record, version = Record(), None
        try:
            version = (await self._driver.head(layout.EVICTION)).version
            record = Record.parse(await self._driver.read(layout.EVICTION, _LIMIT))
        except ObjectNotFound:
            pass
        if now < record.due and not (self._filled() and now >= record.soonest):
            self._learn(record, now)
            return None
        claim = replace(record, due=now + max(_CLAIM, 3 * record.seconds), soonest=max(record.soonest, now + _CLAIM))
        try:
            await self._driver.put(layout.EVICTION, bytes(claim), if_absent=version is None, if_version=version)
        except PreconditionFailed:
            self._learn(claim, now)
            return None
        self._mark = self._fetched()  # what comes from here on, the look may have missed
        return record

    async def _finish(self, record: Record, now: float, seconds: float) -> None:
        """Tell the others."""
        now += seconds
        pause = now + max(_TICK, 2 * seconds)
        look = max(_INTERVAL, _SHARE * seconds) if self.bounds.size else _DAY
        due = max(pause, min(now + look, record.oldest + self.bounds.unused))
        record = replace(record, due=due, soonest=max(pause, record.soonest), seconds=seconds)
        await self._driver.put(layout.EVICTION, bytes(record))
        self._known = record
        self._wait(record, now)

    def _learn(self, record: Record, now: float) -> None:
        """From another's record."""
        if self._known is None or record.size != self._known.size:
            self._known, self._mark = record, self._fetched()
        self._wait(record, now)

    def _wait(self, record: Record, now: float) -> None:
        self._due = self._clock() + min(record.due - now, _DAY)
        self._soonest = self._clock() + min(max(record.soonest - now, _TICK), _DAY)

    def _tell(self, done: Evicted) -> None:
        extra = {"kept": done.kept, "seconds": round(done.seconds, 1)}
        if done.manifests or done.collected.swept:
            counts = (done.manifests, done.collected.swept, done.collected.size, done.size)
            log.info("evicted %d manifests and %d blobs of %d bytes; the cache has %d bytes", *counts, extra=extra)
        if done.size > self.bounds.high:
            why = "the cache has %d bytes, more than cache.size allows: all else was used within the last %d s"
            log.warning(why, done.size, self.bounds.grace, extra=extra)


class Told(Watcher):
    """Counts for the upstream of the manifest's repository; for a layer, of that of the first link that led to it."""

    def __init__(self, tally: Callable[[RepositoryName], Tally]) -> None:
        self._tally = tally
        self._removed: dict[Digest, RepositoryName] = {}
        self._swept: dict[Digest, int] = {}

    def manifest(self, name: RepositoryName, digest: Digest) -> None:
        self._tally(name).evicted_manifests += 1
        self._removed[digest] = name

    def blob(self, digest: Digest, size: int) -> None:
        if (name := self._removed.get(digest)) is not None:
            self._count(name, size)
        else:
            self._swept[digest] = size

    def link(self, name: RepositoryName, digest: Digest) -> None:
        if (size := self._swept.pop(digest, None)) is not None:
            self._count(name, size)

    def _count(self, name: RepositoryName, size: int) -> None:
        tally = self._tally(name)
        tally.evicted_blobs += 1
        tally.evicted_bytes += size
