"""One upstream: how it is asked, with which login, how often, and when it is left alone.

    UpstreamRepository ── Upstream ┬─ Login      which Authorization (tokens.py)
      (repository.py)     attempts ├─ Asker      small answers over httpx (asking.py)
                                   └─ Transport  bodies and redirects (transport.py)

Rules: a question is asked again when that is safe and quick: after a connection that failed, or a 5xx. It is not after
a time-out, which would only double it, nor after a 429. What fails behind a redirect says nothing of the upstream: the
circuit breaker does not count it.
"""

import asyncio
import logging
import os
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

from registry.config.upstreams import UpstreamConfig
from registry.proxy import answers
from registry.proxy.answers import Answer, Head
from registry.proxy.asking import Asker
from registry.proxy.challenge import TokenRequest
from registry.proxy.credentials import Keeper, Source, source_for
from registry.proxy.limits import Budget, RateLimit, Throttle, parse_rate_limit, slowed, warning_of
from registry.proxy.patience import Breaker, Deadlines, backoff
from registry.proxy.patterns import parse_patterns, permits
from registry.proxy.realms import Realms
from registry.proxy.tally import Tally
from registry.proxy.tokens import Login
from registry.proxy.transport import REDIRECTS, Stream, Transport
from registry.proxy.trust import Trusts
from storage.errors import (
    TooManyRequests,
    UpstreamBusy,
    UpstreamDenied,
    UpstreamTimeout,
    UpstreamUnavailable,
)

log = logging.getLogger(__name__)

MAX_TOKEN_ANSWER = 1 << 20
MAX_ERROR = 64 << 10
ATTEMPTS = 3

MANIFEST, OTHER = "manifest", "other"
"""What upstreams count apart: Docker Hub limits manifests."""


class _Response(Protocol):
    @property
    def head(self) -> Head: ...

    async def aclose(self) -> None: ...


A = TypeVar("A", bound=_Response)
Arrived = Callable[[Head], None]
"""Told of each answer that is the upstream's own."""


@dataclass(frozen=True, slots=True)
class UpstreamState:
    """For people: `registry upstreams`, the log, metrics. No secret is in it.

    reachable: None as long as it was not asked.   left: seconds for which it is not asked, after a 429.
    """

    name: str
    origin: str
    reachable: bool | None
    username: str
    rate_limit: RateLimit | None
    left: float | None


class Upstream:
    """Made from settings, used in one event loop, closed by whoever made it.

    environ: for docker's variables. source: credentials from elsewhere than the settings. trusts: shared with others.
    The clocks, chance and sleep are arguments for tests: monotonic seconds, seconds since 1970, 0 to 1.
    """

    def __init__(
        self,
        config: UpstreamConfig,
        *,
        environ: Mapping[str, str] = os.environ,
        source: Source | None = None,
        trusts: Trusts | None = None,
        deadlines: Deadlines | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        draw: Callable[[], float] = random.random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.config = config
        self.name = config.called
        self.origin = config.origin
        self.deadlines = deadlines or Deadlines()
        self.tally = Tally()
        self._wall, self._draw, self._sleep = wall, draw, sleep
        self._allow, self._deny = parse_patterns(config.allow), parse_patterns(config.deny)
        trust = (trusts or Trusts()).of(self.origin, config.tls)
        self._asker = Asker(self.origin, trust, self.deadlines)
        self._transport = Transport(self.origin, trust, self.deadlines, private=config.privatenetworks)
        self._keeper = Keeper(source or source_for(config, environ), clock)
        self._login = Login(Realms(self.origin, config.realms), self._keeper, self._fetch_token, clock, wall)
        self._breaker = Breaker(clock, draw)
        self._throttle = Throttle(clock)
        self._reachable: bool | None = None
        self._budget = Budget(clock)

    def permits(self, name: str) -> bool:
        """May this repository be fetched, by `allow` and `deny`? name: as clients write it, below the upstream's."""
        return permits(self._allow, self._deny, self.remote_name(name))

    def remote_name(self, name: str) -> str:
        """What the upstream calls it: Docker Hub's official images stand in `library/`."""
        return f"library/{name}" if self.config.is_hub and "/" not in name else name

    def slowed(self, ttl: float) -> float:
        """The time to live of a tag, longer while little of the rate limit is left."""
        return slowed(ttl, self._budget.left)

    def state(self) -> UpstreamState:
        return UpstreamState(
            name=self.name,
            origin=str(self.origin),
            reachable=self._reachable and not self._breaker.open,
            username=self._keeper.username,
            rate_limit=self._budget.last,
            left=self._throttle.held(MANIFEST),
        )

    @property
    def left_alone(self) -> bool:
        """Has it failed so often that it is asked only now and then?"""
        return self._breaker.open

    async def greet(self) -> float | None:
        """Is anybody there? As Asker.greet."""
        return await self._asker.greet(f"{self.config.base}/v2/")

    async def ping(self) -> None:
        """Is it there, and does it take our credentials? Raises UpstreamUnavailable, UpstreamDenied."""
        answer = await self.ask("GET", "/v2/", "", OTHER, limit=MAX_ERROR)
        if answer.head.status in (401, 403):
            raise UpstreamDenied
        if answer.head.status != 200:
            raise UpstreamUnavailable(f"the upstream registry answered with status {answer.head.status}")

    async def aclose(self) -> None:
        """Idempotent."""
        await self._login.aclose()
        await self._keeper.aclose()
        await self._asker.aclose()
        await self._transport.aclose()

    # Questions

    async def ask(
        self, method: str, target: str, scope: str, kind: str, *, limit: int, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """A small answer, of any status below 500 but 429. target: from `/v2/` on; redirects are followed.

        Raises UpstreamUnavailable and its kin; UpstreamDenied for a 401 that no login helps against.
        """
        url = self.config.base + target
        fields = dict(headers or {})

        async def send(authorization: str | None, arrived: Arrived) -> Answer:
            secret = {} if authorization is None else {"Authorization": authorization}
            answer = await self._asker.ask(method, url, {**fields, **secret}, limit=limit, arrived=arrived)
            location = answer.head.get("location")
            if answer.head.status not in REDIRECTS or location is None:
                return answer
            # whatever a redirect names is asked by the one module that looks where it leads
            stream = await self._transport.open(method, url, fields, authorization, arrived, location)
            return await stream.answer(limit)

        return await self._in_time(self._authorized(scope, kind, send))

    async def open(self, target: str, scope: str, headers: Mapping[str, str]) -> Stream:
        """A body, of any status below 500 but 429; its head comes in time. Raises as ask does."""
        url = self.config.base + target

        async def send(authorization: str | None, arrived: Arrived) -> Stream:
            return await self._transport.open("GET", url, headers, authorization, arrived)

        return await self._in_time(self._authorized(scope, OTHER, send))

    async def _in_time(self, work: Awaitable[A]) -> A:
        try:
            async with asyncio.timeout(self.deadlines.answer):
                return await work
        except TimeoutError as exc:
            raise UpstreamTimeout("the upstream registry does not answer in time") from exc

    async def _authorized(self, scope: str, kind: str, send: Callable[[str | None, Arrived], Awaitable[A]]) -> A:
        """Send, and after a 401 log in and send once more."""
        ticket = await self._login.first(scope)
        answer = await self._attempted(kind, partial(send, ticket.authorization))
        if answer.head.status == 401 and not answer.head.elsewhere:
            await answer.aclose()
            ticket = await self._login.challenged(scope, answer.head.all("www-authenticate"), ticket)
            answer = await self._attempted(kind, partial(send, ticket.authorization))
            if answer.head.status == 401 and not answer.head.elsewhere:
                await answer.aclose()
                self._login.refused(ticket)
                raise UpstreamDenied
        self._login.accepted(ticket)
        return answer

    async def _attempted(self, kind: str, send: Callable[[Arrived], Awaitable[A]]) -> A:
        """Send until there is an answer that is no fault, or it is no use. For the breaker, that is one attempt."""
        waits = self._let_pass(kind)
        while True:
            own: list[Head] = []
            self.tally.requests += 1
            try:
                answer = await send(own.append)
            except UpstreamUnavailable as exc:
                answered = self._arrived(own, kind)
                self.tally.faults += 1
                judged = exc.__cause__ is None  # what it sent is not wanted: it would send the same again
                if judged or isinstance(exc, UpstreamTimeout) or (wait := next(waits, None)) is None:
                    if not answered:
                        self._failed(exc)
                    raise
            except BaseException:
                self._breaker.abandoned()
                raise
            else:
                self._arrived(own, kind)
                fault = answers.fault_of(answer.head, self._wall())
                if fault is None:
                    self._throttle.passed(kind)
                    return answer
                await answer.aclose()
                self.tally.faults += 1
                if isinstance(fault, TooManyRequests):
                    raise self._limited(kind, fault)
                if fault.retry_after is not None or (wait := next(waits, None)) is None:
                    if not answer.head.elsewhere:
                        self._failed(fault)
                    raise fault
            await self._sleep(wait)

    def _let_pass(self, kind: str) -> Iterator[float]:
        """The waits before further attempts; none where this is the trial of an open breaker."""
        if (wait := self._throttle.held(kind)) is not None:
            raise TooManyRequests(wait)
        if (wait := self._breaker.enter()) is not None:
            raise UpstreamBusy("the upstream registry failed several times and is left alone for a moment", wait)
        return backoff(1 if self._breaker.open else ATTEMPTS, self._draw)

    def _arrived(self, own: Sequence[Head], kind: str) -> bool:
        """Whatever came of it behind a redirect: has the upstream itself given an answer?"""
        for head in own if kind == MANIFEST else ():
            found = parse_rate_limit(dict(reversed(head.fields)))
            if found is not None and self._budget.told(found):
                log.warning("the upstream %s %s", self.name, warning_of(found, self._keeper.username))
        if not own or own[-1].status >= 500:
            return False
        self._reachable = True
        if self._breaker.answered():
            log.info("the upstream %s answers again", self.name)
        return True

    def _limited(self, kind: str, fault: TooManyRequests) -> TooManyRequests:
        """What a 429 is for whoever asked. In the log once: until the time is over, nobody is let through."""
        self.tally.limited += 1
        news = self._throttle.held(kind) is None
        wait = self._throttle.limited(kind, fault.retry_after)
        if news:
            log.warning("the upstream %s answers 429 and is left alone for %d s", self.name, self._throttle.held(kind))
        return TooManyRequests(wait)

    def _failed(self, exc: UpstreamUnavailable) -> None:
        news, self._reachable = self._reachable is not False, False
        if self._breaker.failed():
            log.warning("the upstream %s is left alone for a while: %s", self.name, exc.__cause__ or exc)
        elif news:
            log.warning("the upstream %s fails: %s", self.name, exc.__cause__ or exc)

    async def _fetch_token(self, request: TokenRequest) -> Answer:
        """Ask a token server; once more where the connection failed."""
        headers = {} if request.authorization is None else {"Authorization": request.authorization}
        ask = partial(self._asker.ask, request.method, request.url, headers, limit=MAX_TOKEN_ANSWER, form=request.form)
        try:
            return await ask()
        except UpstreamUnavailable as exc:
            if exc.__cause__ is None or isinstance(exc, UpstreamTimeout):
                raise
        await self._sleep(next(backoff(2, self._draw)))
        return await ask()
