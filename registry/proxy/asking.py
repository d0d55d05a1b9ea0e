"""Small questions over httpx: manifests, tags, tokens. Each answer is read whole, up to a limit, within a deadline.

This asks the configured upstream and its token servers, and nobody else: it follows no redirect (transport.py does, and
looks where they lead), keeps no cookie, and decodes nothing. httpx's errors end here, around the reading of a body too.
"""

import asyncio
import logging
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import httpx

from registry.proxy.answers import Answer, Head, check_encoding
from registry.proxy.patience import Deadlines
from registry.proxy.realms import Origin
from registry.proxy.transport import AGENT, no_cookies
from registry.proxy.trust import Trust
from registry.watching.spans import asking
from storage.errors import UpstreamTimeout, UpstreamUnavailable

# httpx logs each request at INFO; httpcore logs the headers of answers at DEBUG, presigned URLs among them.
for _name in ("httpx", "httpcore"):
    logging.getLogger(_name).setLevel(logging.WARNING)

UNREACHABLE = "the upstream registry cannot be reached"
SLOW = "the upstream registry does not answer in time"

TRANSLATED: Mapping[type[Exception], type[UpstreamUnavailable]] = {
    httpx.TimeoutException: UpstreamTimeout,
    httpx.RequestError: UpstreamUnavailable,
    httpx.InvalidURL: UpstreamUnavailable,
    OSError: UpstreamUnavailable,  # of TLS, where httpcore lets one through
}
"""By the most specific class. httpx's StreamError and CookieConflict are not here: they would be bugs of ours."""


@contextmanager
def translated() -> Iterator[None]:
    """Errors of httpx become ours. Entered around the request and around its body."""
    try:
        yield
    except tuple(TRANSLATED) as exc:
        kind = next(TRANSLATED[each] for each in type(exc).__mro__ if each in TRANSLATED)
        raise kind(SLOW if kind is UpstreamTimeout else UNREACHABLE) from exc


class Asker:
    """HTTP for what is small. Bound to the loop that it is used in."""

    def __init__(self, origin: Origin, trust: Trust, deadlines: Deadlines) -> None:
        self._deadlines = deadlines
        self._trust = trust
        self._own = self._client(own=True)
        self._others = self._own if trust.own is trust.others else self._client(own=False)
        self._origin = origin

    def _client(self, *, own: bool) -> httpx.AsyncClient:
        limits = self._deadlines
        return httpx.AsyncClient(
            verify=self._trust.own if own else self._trust.others,
            headers={"User-Agent": AGENT, "Accept": "*/*", "Accept-Encoding": "identity"},
            cookies=no_cookies(),
            follow_redirects=False,
            timeout=httpx.Timeout(limits.first_byte, connect=limits.connect),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=32, keepalive_expiry=60),
        )

    async def ask(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        *,
        limit: int,
        form: bytes | None = None,
        arrived: Callable[[Head], None] = lambda head: None,
    ) -> Answer:
        """Any status is an answer. limit: bytes of the body; more of them raise UpstreamUnavailable.

        arrived: called with the head, before the body is read.

        Raises UpstreamUnavailable, UpstreamTimeout.
        """
        client = self._own if _host(url) == self._origin.host else self._others
        if form is not None:
            headers = {**headers, "Content-Type": "application/x-www-form-urlencoded"}
        with translated(), asking(method, url) as answered:
            request = client.build_request(method, url, headers=headers, content=form)
            try:
                async with asyncio.timeout(self._deadlines.first_byte):
                    response = await client.send(request, stream=True)
                answered(response.status_code)
                async with asyncio.timeout(self._deadlines.answer):
                    return await _read(response, limit, arrived)
            except TimeoutError as exc:
                raise UpstreamTimeout(SLOW) from exc

    async def greet(self, url: str) -> float | None:
        """Connect to the upstream itself, and wait for an answer of whatever status.

        Returns when its certificate expires, in seconds since 1970; None where there is none, or nobody checks it.
        Raises UpstreamUnavailable, UpstreamTimeout.
        """
        with translated():
            try:
                async with asyncio.timeout(self._deadlines.first_byte), self._own.stream("GET", url) as response:
                    tls: ssl.SSLObject | None = response.extensions["network_stream"].get_extra_info("ssl_object")
            except TimeoutError as exc:
                raise UpstreamTimeout(SLOW) from exc
        until = ((tls and tls.getpeercert()) or {}).get("notAfter")
        return ssl.cert_time_to_seconds(until) if isinstance(until, str) else None

    async def aclose(self) -> None:
        """Idempotent."""
        await self._own.aclose()
        await self._others.aclose()


async def _read(response: httpx.Response, limit: int, arrived: Callable[[Head], None]) -> Answer:
    try:
        head = Head(response.status_code, tuple((key.lower(), value) for key, value in response.headers.multi_items()))
        arrived(head)
        check_encoding(head)
        parts: list[bytes] = []
        size = 0
        async for chunk in response.aiter_raw():
            size += len(chunk)
            if size > limit:
                raise UpstreamUnavailable(f"the upstream registry's answer is larger than {limit} bytes")
            parts.append(chunk)
        return Answer(head, b"".join(parts))
    finally:
        await response.aclose()


def _host(url: str) -> str:
    try:
        return Origin.of(url).host
    except ValueError as exc:
        raise UpstreamUnavailable(UNREACHABLE) from exc
