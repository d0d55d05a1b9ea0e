"""Bodies of blobs, and whatever stands behind a redirect: the one module that imports another HTTP client than httpx.

Measured over loopback (docs/proxy.md): aiohttp moves a body with a third of httpx's CPU, plain and over TLS.
What is fetched here is streamed as raw bytes, never decoded; its head comes within `first_byte`, its body at `rate`.

Redirects are followed by hand, five at most:
- Authorization goes to the upstream's own origin and nowhere else, and not even there once another has been visited.
- From https only to https. Not to user names in URLs, not to other schemes.
- Not to private addresses, unless `privatenetworks` says so: the name is resolved once, the addresses are checked, and
  the connection is made to one of those. Behind an HTTP proxy, the proxy resolves; then only literal addresses are.
- A presigned URL that is refused is asked for once more at the upstream.
"""

import asyncio
import http.cookiejar
import logging
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import urljoin, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from registry.proxy.addresses import is_public, is_tolerable
from registry.proxy.answers import Answer, Head, check_encoding
from registry.proxy.patience import Deadlines, Pace
from registry.proxy.realms import Origin
from registry.proxy.trust import Trust, proxy_for
from registry.watching.spans import asking
from storage.errors import UpstreamTimeout, UpstreamUnavailable

log = logging.getLogger(__name__)

AGENT = "moorage"
MAX_HOPS = 5
MAX_FIELD = 16 << 10
"""Bytes of one header of an answer: a presigned URL with a session's token takes some thousands."""

BUFFER = 256 << 10
"""Bytes that wait in memory, for each body, while its reader is slow; twice as many at worst."""

UNREACHABLE = "the upstream registry, or where it keeps its blobs, cannot be reached"
BROKEN = "the upstream registry broke off in the middle"
SLOW = "the upstream registry sends too slowly"

REDIRECTS = frozenset({301, 302, 303, 307, 308})
_STALE = frozenset({400, 401, 403, 410})
"""What a store says of a presigned URL that has expired."""

TRANSLATED: Mapping[type[Exception], type[UpstreamUnavailable]] = {
    TimeoutError: UpstreamTimeout,
    aiohttp.ServerTimeoutError: UpstreamTimeout,  # both a ClientError and a TimeoutError
    aiohttp.ClientError: UpstreamUnavailable,
    OSError: UpstreamUnavailable,
    ValueError: UpstreamUnavailable,  # of yarl and aiohttp, for what is no URL or header
}


@contextmanager
def translated(message: str) -> Iterator[None]:
    """Errors of aiohttp become ours. Entered around the request and around its body."""
    try:
        yield
    except tuple(TRANSLATED) as exc:
        kind = next(TRANSLATED[each] for each in type(exc).__mro__ if each in TRANSLATED)
        raise kind(SLOW if kind is UpstreamTimeout else message) from exc


class Forbidden(OSError):
    """A name that leads to no address that may be visited."""


class Stream:
    """An answer whose body is still to come. Whoever opened it closes it. head.elsewhere: a redirect led away."""

    def __init__(self, response: aiohttp.ClientResponse, head: Head, deadlines: Deadlines) -> None:
        self._response = response
        self._deadlines = deadlines
        self.head = head

    async def chunks(self) -> AsyncIterator[bytes]:
        """The raw bytes, once, in pieces of at most about half a MiB; it suspends at least once for each.

        Raises UpstreamUnavailable when the upstream breaks off, UpstreamTimeout when it is too slow. How long the
        reader takes between two pieces does not count.
        """
        content = self._response.content
        watch = _Watch(Pace(self._deadlines.rate, self._deadlines.window), self._response.close)
        try:
            with translated(BROKEN):
                while True:
                    if chunk := content.read_nowait():
                        await asyncio.sleep(0)
                    else:
                        watch.wait()
                        chunk = await content.readany()
                        if not chunk:
                            return
                    watch.got(len(chunk))
                    yield chunk
        except UpstreamUnavailable as exc:
            if watch.late:
                raise UpstreamTimeout(SLOW) from exc.__cause__
            raise
        finally:
            watch.end()

    async def answer(self, limit: int) -> Answer:
        """The body, whole, and the stream closed. Raises UpstreamUnavailable, also above `limit` bytes."""
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._deadlines.answer):
                async for chunk in self.chunks():
                    size += len(chunk)
                    if size > limit:
                        raise UpstreamUnavailable(f"the upstream registry's answer is larger than {limit} bytes")
                    parts.append(chunk)
        except TimeoutError as exc:
            raise UpstreamTimeout(SLOW) from exc
        finally:
            await self.aclose()
        return Answer(self.head, b"".join(parts))

    async def aclose(self) -> None:
        """Release the connection: for another request when the body was read whole, else it is cut. Idempotent."""
        self._response.close()


class _Watch:
    """Calls `cut` when a body comes too slowly. One timer for all reads: one for each costs a third more over TLS."""

    def __init__(self, pace: Pace, cut: Callable[[], None]) -> None:
        self._pace, self._cut = pace, cut
        self._since: float | None = None
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(pace.allowance(), self._look)
        self.late = False

    def wait(self) -> None:
        """From now on we wait for the upstream."""
        self._since = time.monotonic()

    def got(self, size: int) -> None:
        """Bytes have come, and we wait no more."""
        slow = self._pace.got(self._waited(), size)
        self._since = None
        if slow:
            self._end_it()

    def end(self) -> None:
        self._timer.cancel()

    def _waited(self) -> float:
        return 0.0 if self._since is None else time.monotonic() - self._since

    def _look(self) -> None:
        slow = self._pace.got(self._waited(), 0)
        if self._since is not None:
            self._since = time.monotonic()
        if slow:
            self._end_it()
        else:
            self._timer = self._loop.call_later(max(self._pace.allowance(), 0.01), self._look)

    def _end_it(self) -> None:
        self.late = True
        self._cut()


class Transport:
    """HTTP for bodies, to one upstream and to where that redirects. Bound to the loop that it is first used in."""

    def __init__(self, origin: Origin, trust: Trust, deadlines: Deadlines, *, private: bool = False) -> None:
        self._origin, self._trust, self._deadlines = origin, trust, deadlines
        self._may_visit = is_tolerable if private else is_public
        self._made: aiohttp.ClientSession | None = None

    async def open(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        authorization: str | None,
        arrived: Callable[[Head], None] = lambda head: None,
        location: str | None = None,
    ) -> Stream:
        """Follow redirects to an answer that is none, of any status.

        arrived: called with the upstream's own answer, before a redirect of it is followed.
        location: what the upstream has answered to just that with a redirect, so that it is not asked again.
        Raises UpstreamUnavailable, UpstreamTimeout.
        """
        for last in (False, True):
            start = url if location is None or last else self._next(url, location)
            stream = await self._follow(method, start, headers, authorization, arrived)
            if last or not stream.head.elsewhere or stream.head.status not in _STALE:
                break
            await stream.aclose()
        try:
            check_encoding(stream.head)
        except UpstreamUnavailable:
            await stream.aclose()
            raise
        return stream

    async def _follow(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        authorization: str | None,
        arrived: Callable[[Head], None],
    ) -> Stream:
        elsewhere = False
        for _ in range(MAX_HOPS + 1):
            here = self._checked(url)
            elsewhere = elsewhere or here != self._origin
            secret = {} if elsewhere or authorization is None else {"Authorization": authorization}
            response = await self._request(method, url, {**headers, **secret}, here)
            fields = tuple((key.lower(), value) for key, value in response.headers.items())
            head = Head(response.status, fields, elsewhere)
            if not elsewhere:
                arrived(head)
            if head.status not in REDIRECTS or (location := head.get("location")) is None:
                return Stream(response, head, self._deadlines)
            await _drain(response)
            url = self._next(url, location)
        raise UpstreamUnavailable("the upstream registry redirects in circles")

    def _next(self, url: str, location: str) -> str:
        try:
            found = urljoin(url, location)
            target = Origin.of(found.partition("#")[0])
        except ValueError as exc:
            raise self._refused(f"a Location that cannot be used: {exc}") from None
        if urlsplit(url).scheme == "https" and target.scheme != "https":
            raise self._refused(f"from https to {target}")
        return found.partition("#")[0]

    def _checked(self, url: str) -> Origin:
        """Where a URL leads, if it may be visited as far as one can tell without resolving it."""
        here = Origin.of(url)
        literal = here != self._origin and (":" in here.host or here.host.replace(".", "").isdigit())
        if literal and not self._may_visit(here.host):
            raise self._refused(f"to {here}, which is a private address (setting: privatenetworks)")
        return here

    def _refused(self, why: str) -> UpstreamUnavailable:
        log.warning("a redirect of the upstream %s was not followed: %s", self._origin, why)
        return UpstreamUnavailable("the upstream registry redirects to a place that is not allowed")

    async def _request(self, method: str, url: str, headers: Mapping[str, str], here: Origin) -> aiohttp.ClientResponse:
        try:
            with translated(UNREACHABLE), asking(method, url) as answered:
                async with asyncio.timeout(self._deadlines.first_byte):
                    response = await self._session().request(
                        method,
                        URL(url, encoded=True),  # a presigned URL is signed as it is written
                        headers=headers,
                        allow_redirects=False,
                        ssl=self._trust.context(here.host),
                        proxy=proxy_for(url),
                    )
                answered(response.status)
                return response
        except UpstreamUnavailable as exc:
            if isinstance(cause := getattr(exc.__cause__, "os_error", None), Forbidden):
                raise self._refused(str(cause)) from None
            raise

    def _session(self) -> aiohttp.ClientSession:
        if self._made is None:
            resolver = _Guard(self._origin, self._may_visit)
            self._made = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(resolver=resolver, limit=0, keepalive_timeout=60),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._deadlines.connect),
                headers={"User-Agent": AGENT, "Accept-Encoding": "identity"},
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,  # it would read ~/.netrc, and send what stands there; proxy_for reads the rest
                read_bufsize=BUFFER,
                max_field_size=MAX_FIELD,
                max_line_size=MAX_FIELD,
            )
        return self._made

    async def aclose(self) -> None:
        """Idempotent."""
        if self._made is not None:
            await self._made.close()
            self._made = None


async def _drain(response: aiohttp.ClientResponse) -> None:
    """Read what little a redirect says, so that its connection can be used again."""
    try:
        async with asyncio.timeout(1.0):
            for _ in range(4):
                if not await response.content.readany():
                    break
    except (TimeoutError, aiohttp.ClientError, OSError):
        pass  # then the connection is of no more use, which is not worth an error
    finally:
        response.close()


class _Guard(AbstractResolver):
    """Resolves names, and gives away only addresses that may be visited. aiohttp connects to what it is given."""

    def __init__(self, origin: Origin, may_visit: Callable[[str], bool]) -> None:
        self._inner = ThreadedResolver()
        self._origin, self._may_visit = origin, may_visit

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        if (host, port) in self._configured():
            return found
        allowed = [each for each in found if self._may_visit(each["host"])]
        if found and not allowed:
            raise Forbidden(f"to {host}, which has a private address (setting: privatenetworks)")
        return allowed

    def _configured(self) -> set[tuple[str, int]]:
        """The upstream itself, and the proxies that lead out: the operator has named them."""
        urls = (proxy_for(f"{scheme}://moorage.invalid/") for scheme in ("http", "https"))
        proxies = {(parts.hostname or "", parts.port or 80) for parts in map(urlsplit, filter(None, urls))}
        return {(self._origin.host, self._origin.port)} | proxies

    async def close(self) -> None:
        await self._inner.close()


def no_cookies() -> http.cookiejar.CookieJar:
    """For httpx, which always has a jar: one that takes nothing."""
    return http.cookiejar.CookieJar(http.cookiejar.DefaultCookiePolicy(allowed_domains=()))
