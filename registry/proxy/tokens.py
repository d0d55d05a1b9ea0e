"""Logging in to one upstream: which Authorization a request gets, and when a token is fetched.

    first(scope)        before a request: what is known to be wanted, nothing at the very first
    challenged(...)     after a 401: log in, once
    accepted(ticket), refused(ticket)    how the request with it ended

Rules, because too many logins are what bans a fleet:
- A token is kept for its scope until it expires, and one login runs at a time for each; others wait for it, and it goes
  on when the one who asked first has left.
- A token that was good and gets a 401 is dropped once. One that never was good is not: what its owner may not see, or
  what does not exist, is answered with 401 by many registries, and logging in again would change nothing.
- A login that failed is not tried again for a while: for all scopes when it was the server's fault or the credentials
  were not taken, for its scope when just that was denied.
- Nothing is sent to a realm that realms.py refuses; no redirect of a token server is followed.
"""

import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from registry.proxy.answers import Answer
from registry.proxy.challenge import (
    ANONYMOUS,
    Basic,
    Bearer,
    ChallengeInvalid,
    Credentials,
    TokenRequest,
    parse_challenges,
    parse_token,
    select,
    token_request,
)
from registry.proxy.credentials import Keeper
from registry.proxy.limits import parse_retry_after
from registry.proxy.realms import RealmRefused, Realms
from storage.errors import StorageError, TooManyRequests, UpstreamDenied, UpstreamUnavailable
from storage.once import Once

log = logging.getLogger(__name__)

MAX_KEPT = 4096
"""Tokens, and failures: one for each repository that is pulled from."""

_NOT_TAKEN = "the upstream registry does not take the credentials that this registry has for it"
_BAD_LOGINS = 3  # refused in a row before it is the credentials, and not what was asked for with them


@dataclass(frozen=True, slots=True)
class Account:
    """For whom a token server answers alike."""

    realm: str
    service: str
    credentials: Credentials


@dataclass(frozen=True, slots=True)
class Key:
    account: Account
    scope: str


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a request carries. key: of the token; None where it is none of ours."""

    authorization: str | None = field(default=None, repr=False)
    key: Key | None = None
    credentials: Credentials = ANONYMOUS


@dataclass(slots=True)
class _Token:
    authorization: str = field(repr=False)
    until: float
    proved: bool = False


@dataclass(slots=True)
class _Failure:
    """make: the error again, told how many seconds are left."""

    make: Callable[[float], StorageError]
    until: float
    times: int


class Login:
    """One upstream's. ask: sends a TokenRequest. clock: monotonic; wall: since 1970; both in seconds."""

    def __init__(
        self,
        realms: Realms,
        keeper: Keeper,
        ask: Callable[[TokenRequest], Awaitable[Answer]],
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self._realms, self._keeper, self._ask = realms, keeper, ask
        self._clock, self._wall = clock, wall
        self._way: Bearer | Basic | None = None
        self._tokens: OrderedDict[Key, _Token] = OrderedDict()
        self._failures: OrderedDict[Key | Account, _Failure] = OrderedDict()
        self._bad: dict[Account, int] = {}
        self._once: Once[Key, _Token] = Once()

    # What requests call

    async def first(self, scope: str) -> Ticket:
        """Raises what a login raises, where one is needed first."""
        credentials = await self._keeper.get()
        if credentials.registry_token:
            return Ticket(f"Bearer {credentials.registry_token}", credentials=credentials)
        if isinstance(self._way, Basic):
            return self._basic(credentials)
        if isinstance(self._way, Bearer):
            return await self._bearer(self._way, scope, credentials)
        return Ticket(credentials=credentials)

    async def challenged(self, scope: str, headers: list[str], used: Ticket) -> Ticket:
        """What to send after a 401. Raises UpstreamDenied where nothing better is left, UpstreamUnavailable."""
        way = self._understood(headers)
        credentials = await self._keeper.get()
        if credentials.registry_token and used.credentials == credentials:
            raise UpstreamDenied  # that was all there is
        self._way = way
        if isinstance(way, Basic):
            ticket = self._basic(credentials)
            if ticket.authorization is None or ticket.authorization == used.authorization:
                self.refused(used)
                raise UpstreamDenied
            return ticket
        key = Key(Account(way.realm, way.service, credentials), scope)
        if used.key == key and (held := self._tokens.get(key)) and held.authorization == used.authorization:
            if not held.proved:
                raise UpstreamDenied
            del self._tokens[key]
        return await self._bearer(way, scope, credentials)

    def accepted(self, ticket: Ticket) -> None:
        """The upstream answered the request with something other than 401."""
        if ticket.key is not None and (held := self._tokens.get(ticket.key)):
            held.proved = held.proved or held.authorization == ticket.authorization
        elif ticket.authorization is not None and isinstance(self._way, Basic):
            self._well(self._basic_account(ticket.credentials))

    def refused(self, ticket: Ticket) -> None:
        """401 to what was sent last. Of a token that says something of its scope; of a password, of the password."""
        if ticket.key is None and ticket.authorization is not None and isinstance(self._way, Basic):
            self._badly(self._basic_account(ticket.credentials))

    async def aclose(self) -> None:
        await self._once.aclose()

    # How

    def _understood(self, headers: list[str]) -> Bearer | Basic:
        try:
            way = select(parse_challenges(headers))
            if isinstance(way, Bearer):
                self._realms.check(way.realm)
                way = replace(way, scope="")  # ours is asked for, never a wider one of the upstream's choice
        except (ChallengeInvalid, RealmRefused) as exc:
            log.warning("no login at an upstream: %s", exc)
            raise UpstreamUnavailable("the upstream registry asks for a login at a place that is not allowed") from exc
        if way is None:
            raise UpstreamDenied
        return way

    def _basic(self, credentials: Credentials) -> Ticket:
        self._raise_failure(self._basic_account(credentials))
        return Ticket(credentials.basic(), credentials=credentials)

    def _basic_account(self, credentials: Credentials) -> Account:
        return Account("", "", credentials)

    async def _bearer(self, bearer: Bearer, scope: str, credentials: Credentials) -> Ticket:
        key = Key(Account(bearer.realm, bearer.service, credentials), scope)
        held = self._tokens.get(key)
        if held is None or held.until <= self._clock():
            self._raise_failure(key)
            self._raise_failure(key.account)
            held = await self._once.run(key, lambda: self._fetch(key))
        if key in self._tokens:
            self._tokens.move_to_end(key)
        return Ticket(held.authorization, key, credentials)

    async def _fetch(self, key: Key) -> _Token:
        account = key.account
        request = token_request(
            Bearer(account.realm, account.service), [key.scope] if key.scope else [], account.credentials
        )
        try:
            answer = await self._ask(request)
        except UpstreamUnavailable:
            self._remember(account, _unreachable, first=1.0, longest=30.0)
            raise
        if answer.head.status == 200:
            return self._keep(key, answer)
        raise self._refusal(key, answer)

    def _keep(self, key: Key, answer: Answer) -> _Token:
        try:
            now = datetime.fromtimestamp(self._wall(), UTC)
            grant = parse_token(answer.body, now=now, date=answer.head.get("date"))
        except ChallengeInvalid as exc:
            log.warning("no login at an upstream: %s", exc)
            self._remember(key.account, _unreachable, first=1.0, longest=30.0)
            raise _unreachable(1.0) from exc
        until = self._clock() + grant.lifetime - min(10.0, grant.lifetime / 10)  # it must not expire on its way
        held = _Token(f"Bearer {grant.token}", until)
        self._tokens[key] = held
        self._tokens.move_to_end(key)
        self._failures.pop(key, None)
        self._well(key.account)
        while len(self._tokens) > MAX_KEPT:
            self._tokens.popitem(last=False)
        return held

    def _refusal(self, key: Key, answer: Answer) -> StorageError:
        """The error that an answer of the token server means; it is remembered."""
        status = answer.head.status
        if status == 429:
            wait = parse_retry_after(answer.head.get("retry-after"), self._wall())
            return self._remember(key.account, TooManyRequests, first=wait or 5.0, longest=max(wait or 0.0, 300.0))
        if status == 401 and not key.account.credentials.anonymous:
            if self._badly(key.account):
                return UpstreamUnavailable(_NOT_TAKEN)
            return self._remember(key, lambda left: UpstreamUnavailable(_NOT_TAKEN, left), first=10.0, longest=300.0)
        if status in (400, 401, 403, 404):
            return self._remember(key, lambda left: UpstreamDenied(), first=10.0, longest=300.0)
        log.warning("no login at an upstream: its token server answered %d", status)
        return self._remember(key.account, _unreachable, first=1.0, longest=30.0)

    # What failed before

    def _badly(self, account: Account) -> bool:
        """These credentials were refused once more. True: so it is them, and they are left alone for a while."""
        self._keeper.refused(account.credentials)
        times = self._bad.get(account, _BAD_LOGINS - 1) + 1  # never accepted: one time is enough
        self._bad[account] = times
        if times < _BAD_LOGINS:
            return False
        log.error("an upstream does not take the credentials of %r", account.credentials.username or "(token)")
        self._remember(account, lambda left: UpstreamUnavailable(_NOT_TAKEN, left), first=5.0, longest=300.0)
        return True

    def _well(self, account: Account) -> None:
        self._bad = {account: 0}  # what was refused under other credentials no longer matters
        self._failures.pop(account, None)

    def _raise_failure(self, of: Key | Account) -> None:
        failure = self._failures.get(of)
        if failure is not None and (left := failure.until - self._clock()) > 0:
            raise failure.make(left)

    def _remember(
        self, of: Key | Account, make: Callable[[float], StorageError], *, first: float, longest: float
    ) -> StorageError:
        before = self._failures.pop(of, None)
        times = before.times if before else 0
        wait = min(first * 2.0 ** min(times, 16), longest)
        self._failures[of] = _Failure(make, self._clock() + wait, times + 1)
        while len(self._failures) > MAX_KEPT:
            self._failures.popitem(last=False)
        return make(wait)


def _unreachable(left: float) -> UpstreamUnavailable:
    return UpstreamUnavailable("the upstream registry's token server does not answer as it should", left)
