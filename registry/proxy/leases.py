"""One replica works, the others wait or go beside it: whose turn a piece of work is, in a fleet on one store.

    turn(key, done) ── lease free, or holder dead ──> Turn, leading: work, and keep what comes of it
                    ── done meanwhile ──────────────> None: it is in the store
                    ── held, patience is over ──────> Turn, not leading: work for one's own clients

Rules:
- A store that fails, or knows no conditions, keeps nobody from working: each replica then does all for itself.
- Who has done the work beside a leader leaves it to him to keep what comes of it, as long as he lives (`take_lead`),
  and serves his own clients meanwhile. Who has led once keeps it in any case: a successor has yet to get so far.
- Leases that were left by the killed are replaced by whoever wants the same, and swept by the next process that works.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Self, TypeVar

from registry.proxy.finishing import finished
from registry.proxy.lease import Lease, Terms, Watch
from storage import layout
from storage.driver import ObjectInfo, StorageDriver
from storage.errors import ObjectNotFound, PreconditionFailed, Unavailable

log = logging.getLogger(__name__)

T = TypeVar("T")

Done = Callable[[], Awaitable[bool]]
"""Looks into the store: is it there what the work is to bring?"""

_LITTER = 3600.0
"""Seconds: what is older is nobody's. By the store's clock, and far from any lease that is held."""


class Leases:
    """All leases of one process on one store.

    waits: is another's work waited for, or done a second time at once?   clock: monotonic seconds.
    """

    def __init__(
        self,
        driver: StorageDriver,
        *,
        waits: bool,
        terms: Terms | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.driver, self.clock, self.sleep = driver, clock, sleep
        self.terms = terms or Terms()
        self.patience = self.terms.patience if waits else 0.0
        self._told = False
        self._swept = False

    async def turn(self, key: str, done: Done) -> "Turn | None":
        """Whose turn it is; None: it has been done. A Turn is entered and left by the caller, leading or not."""
        turn = Turn(self, key, done)
        try:
            if not await self.driver.conditions_hold():
                self._tell()
                turn.leads = True
            elif not await turn.wait():
                return None
        except Unavailable as exc:
            log.warning("no lease can be had, so other replicas may do the same: %s", exc)
            turn.leads = True
        return turn

    async def once(self, key: str, find: Callable[[], Awaitable[T | None]], work: Callable[[], Awaitable[T]]) -> T:
        """What stands in the store as soon as `find` finds it there, or what `work` brings, which stores it."""
        found: list[T] = []

        async def done() -> bool:
            if (here := await find()) is not None:
                found[:] = [here]
            return here is not None

        turn = await self.turn(key, done)
        if turn is None:
            return found[0]
        async with turn:
            return await work()

    async def sweep(self) -> None:
        """Once a process: remove what the killed have left and nobody has asked for since. One list."""
        if self._swept:
            return
        self._swept = True
        try:
            now = await self.driver.now()
            async for info in self.driver.list_objects(layout.LEASES):
                if now - info.modified > _LITTER:
                    with suppress(PreconditionFailed):
                        await self.driver.delete(info.key, if_version=info.version)
        except Unavailable as exc:
            log.info("leases of the killed could not be removed: %s", exc)

    def _tell(self) -> None:
        if not self._told:
            self._told = True
            log.warning("the store ignores conditional writes: each replica fetches for itself what is not cached")


class Turn:
    """Our part of a piece of work: `async with turn: ...`. Its lease is renewed meanwhile, and removed at the end.

    leads: are we to keep what comes of it, as far as is known?
    """

    def __init__(self, leases: Leases, key: str, done: Done) -> None:
        self.leads = False
        self._leases, self._done = leases, done
        self._lease, self._watch = Lease(leases.driver, key), Watch(leases.terms)
        self._beating: asyncio.Task[None] | None = None

    async def wait(self) -> bool:
        """For the lease or the end of patience. False: it has been done meanwhile. Raises Unavailable."""
        clock, sleep = self._leases.clock, self._leases.sleep
        until, pauses = clock() + self._leases.patience, self._pauses()
        try:
            taken: bool | None = await self._lease.claim()
            while taken is False:
                taken = await self._seize()
                left = until - clock()
                if taken is False:
                    if left <= 0:
                        return True
                    await sleep(min(next(pauses), left))
            if taken is None:
                return False
            self.leads = not await self._done()  # between our look into the store and our claim
        finally:
            if not self.leads:
                await self._release()
        return self.leads

    async def take_lead(self) -> bool:
        """Are we to keep what came of the work, which is done? False: the leader has.

        Returns when that is certain: when he has kept it, has gone without or is dead. If we have led once: at once.
        """
        try:
            pauses = self._pauses()
            while not self.leads:
                taken = await self._seize()
                if taken is None:
                    return False
                self.leads = taken
                if not taken:
                    await self._leases.sleep(next(pauses))
        except Unavailable as exc:
            log.warning("no lease can be had, so other replicas may keep the same: %s", exc)
            self.leads = True
        self._begin()
        return True

    async def _seize(self) -> bool | None:
        """Take the lease if its holder has gone or is dead. False: he lives, or another one was quicker. None: done."""
        rival = await self._rival()
        if rival is None:
            return None if await self._done() else await self._lease.claim()
        age = await self._leases.driver.now() - rival.modified
        if not self._watch.is_dead(rival.version, age, self._leases.clock()):
            return False
        if not await self._lease.take_over(rival.version):
            return False
        log.info("another replica has died at its work: taking it over", extra={"key": self._lease.key})
        return True

    async def _rival(self) -> ObjectInfo | None:
        try:
            return await self._leases.driver.head(self._lease.key)
        except ObjectNotFound:
            return None

    def _pauses(self) -> Iterator[float]:
        """Seconds between looks: short ones first, as most work is."""
        beat = self._leases.terms.beat
        pause = min(0.1, beat / 4)
        while True:
            yield pause
            pause = min(pause * 1.5, 1.0, beat)

    def _begin(self) -> None:
        if self._lease.held and self._beating is None:
            self._beating = asyncio.create_task(self._beat(), name=f"beat {self._lease.key}")

    async def _beat(self) -> None:
        while self._lease.held:
            await self._leases.sleep(self._leases.terms.beat)
            try:
                if not await self._lease.beat():
                    log.info("a lease was lost, it was not renewed in time", extra={"key": self._lease.key})
            except Unavailable as exc:
                log.debug("a lease could not be renewed, trying again: %s", exc)

    async def _end(self) -> None:
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.wait([self._beating])  # a beat under way ends first, or its version would not be known
        await self._release()

    async def _release(self) -> None:
        try:
            await self._lease.release()
        except Unavailable as exc:
            log.info("a lease could not be removed, it ends by itself: %s", exc)

    async def __aenter__(self) -> Self:
        self._begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        led = self._lease.held
        await finished(self._end())
        if led and kind is None:
            await self._leases.sweep()
