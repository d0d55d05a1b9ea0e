"""Is this registry well? Checks, and what they say at `/livez`, `/readyz`, `/debug/health` and to every client.

- A check is looked at once an `interval` at most, whoever asks. It has failed after `threshold` failures in a row.
- The storage is looked at while somebody asks (a probe, or with health.storagedriver any request) and never else: an
  idle replica makes no calls. The configured files, pages and addresses are looked at all the time, as by distribution.
- `/livez` says that the event loop turns, by being answered. `/readyz` says whether clients should be sent here: the
  last look at the storage, the configured checks, and not while this process is stopping. An upstream that fails is no
  reason: what is cached is served.
- While a configured check has failed, clients get 503 (probes.py), as from distribution. So they do while the
  store is known to be away (StorageDriver.check_present): what it does not hold then is not missing.
"""

import asyncio
import json
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

from registry.tasks import end_all
from registry.watching.debug import Answer
from storage.errors import StorageError

log = logging.getLogger(__name__)

PATIENCE = 3.0
"""Seconds after which a look that has no answer counts as one that failed."""
OK = "ok"


class Unwell(Exception):
    """A check failed. The message is for operators: it may name hosts and paths."""


class Check:
    """Something that is asked now and then.

    setting: its path in the configuration.   name: distribution's, at /debug/health.
    ask: raises Unwell or StorageError.
    """

    def __init__(
        self,
        setting: str,
        name: str,
        ask: Callable[[], Awaitable[None]],
        *,
        interval: float,
        threshold: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.setting, self.name = setting, name
        self._ask, self._interval, self._threshold, self._clock = ask, interval, max(1, threshold), clock
        self._look: asyncio.Task[None] | None = None
        self._began = -math.inf
        self._failures = 0
        self._said = self._cause = ""

    def nudge(self) -> None:
        """Begin to look, unless somebody is at it or the last look began less than the interval ago."""
        if (self._look is None or self._look.done()) and self._clock() - self._began >= self._interval:
            self._begin()

    async def now(self) -> str:
        """What a look says that is younger than the interval: OK, or why not in a sentence for anybody."""
        self.nudge()
        if self._look is not None:
            await asyncio.wait({self._look}, timeout=max(0.0, self._began + PATIENCE - self._clock()))
        return self._silence() or self._said or OK

    async def now_in_full(self) -> str:
        """As now, for operators: with hosts and paths."""
        said = await self.now()
        return self._in_full if said == self._said else said

    @property
    def failure(self) -> str:
        """In full, for operators; "" until it has failed often enough."""
        silence = self._silence()
        if silence and self._clock() - self._began >= self._interval * self._threshold:
            return silence
        if self._failures < self._threshold:
            return ""
        return self._in_full

    @property
    def _in_full(self) -> str:
        return f"{self._said} ({self._cause})" if self._cause not in self._said else self._said

    async def has_failed(self) -> bool:
        """By the look that is under way, if it ends in time, or else by the last."""
        if self._look is not None and not self._look.done():
            await asyncio.wait({self._look}, timeout=max(0.0, self._began + PATIENCE - self._clock()))
        return self._failures >= self._threshold

    async def poll(self) -> None:
        while True:
            await asyncio.wait({self._begin()})
            await asyncio.sleep(self._interval)

    async def aclose(self) -> None:
        if self._look is not None:
            await end_all([self._look])

    def _begin(self) -> asyncio.Task[None]:
        self._began = self._clock()
        self._look = asyncio.create_task(self._ask_once(), name=f"check {self.setting}")
        return self._look

    def _silence(self) -> str:
        waited = self._clock() - self._began
        if self._look is None or self._look.done() or waited < PATIENCE:
            return ""
        return f"no answer for {waited:.0f} seconds"

    async def _ask_once(self) -> None:
        before = self._failures
        try:
            await self._ask()
        except (Unwell, StorageError) as exc:
            self._failures, self._said, self._cause = before + 1, str(exc), str(exc.__cause__ or "")
            if self._failures == self._threshold:
                log.error("the check %s fails: %s", self.setting, exc, extra={"cause": self._cause})
        else:
            self._failures, self._said, self._cause = 0, "", ""
            if before >= self._threshold:
                log.info("the check %s succeeds again", self.setting)


class Health:
    """storage: asked only by whoever asks us.   polled: the configured checks.   gating: does storage count as one?

    presence: of a store whose absence looks like an empty one; asked before each request, at most once a second.
    images: of one that should not be empty; turns nobody away, as nobody can say that it is a fault.
    """

    def __init__(
        self,
        storage: Check,
        polled: Sequence[Check],
        *,
        gating: bool,
        presence: Check | None = None,
        images: Check | None = None,
    ) -> None:
        self._storage, self._polled, self._gating = storage, polled, gating
        self._presence, self._images = presence, images
        self._stopping = False

    def stop(self) -> None:
        """From now on nobody should be sent here. Idempotent."""
        self._stopping = True

    @property
    def gated(self) -> bool:
        """Can any check turn clients away?"""
        return self._gating or bool(self._polled) or self._presence is not None

    async def is_absent(self) -> bool:
        """Is the store known to be away? One that does not answer is not: the request finds out."""
        if self._presence is None:
            return False
        self._presence.nudge()
        return await self._presence.has_failed()

    def failing(self) -> dict[str, str]:
        """Name and failure of each configured check that has failed, by the last look. Has the next one begun."""
        checks = list(self._polled)
        if self._gating:
            self._storage.nudge()
            checks.append(self._storage)
        return {check.name: check.failure for check in checks if check.failure}

    async def live(self) -> Answer:
        return _answer({"live": True})

    async def root(self) -> Answer:
        """What distribution answers at `/`, which many balancers ask: nothing, with the status that clients get."""
        return Answer(b"", "text/plain", 503 if self.failing() else 200)

    async def ready(self) -> Answer:
        """For anybody: no hosts, no paths."""
        return await self._readiness(Check.now, lambda check: "fails")

    async def ready_in_full(self) -> Answer:
        return await self._readiness(Check.now_in_full, lambda check: check.failure)

    async def status(self) -> Answer:
        """distribution's /debug/health: what has failed, and nothing else."""
        if self._gating:
            await self._storage.now()
        failing = self.failing()
        return _answer(failing, 503 if failing else 200)

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Inside, the configured checks are looked at."""
        tasks = [asyncio.create_task(check.poll(), name=f"poll {check.setting}") for check in self._polled]
        try:
            yield
        finally:
            await end_all(tasks)
            for check in filter(None, (self._storage, self._presence, self._images, *self._polled)):
                await check.aclose()

    async def _readiness(self, now: Callable[[Check], Awaitable[str]], why: Callable[[Check], str]) -> Answer:
        """now: of what is looked at because somebody asks.   why: of the configured checks that have failed."""
        storage = await now(self._storage)
        if storage == OK and self._images is not None:
            storage = await now(self._images)
        said = {"serving": "stopping" if self._stopping else OK, "storage": storage}
        said |= {check.setting: why(check) if check.failure else OK for check in self._polled}
        ready = all(each == OK for each in said.values())
        return _answer({"ready": ready, "checks": said}, 200 if ready else 503)


def join_status(answers: Sequence[Answer]) -> Answer:
    """What all workers say at /debug/health."""
    failing: dict[str, str] = {}
    for answer in answers:
        failing |= json.loads(answer.body)
    return _answer(failing, 503 if failing else 200)


def _answer(said: Mapping[str, object], status: int = 200) -> Answer:
    return Answer(json.dumps(said).encode(), status=status)
