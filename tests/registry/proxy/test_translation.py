"""Errors of the HTTP clients, all of them, against what becomes of them."""

import inspect

import aiohttp
import httpx
import pytest

from registry.config.upstreams import UpstreamTLSConfig
from registry.proxy import asking, transport
from registry.proxy.asking import Asker
from registry.proxy.patience import Deadlines
from registry.proxy.realms import Origin
from registry.proxy.trust import Trusts
from storage.errors import UpstreamTimeout, UpstreamUnavailable

BUGS_OF_OURS = {
    httpx.StreamError,  # a body read twice, or after its end
    httpx.StreamClosed,
    httpx.StreamConsumed,
    httpx.RequestNotRead,
    httpx.ResponseNotRead,
    httpx.CookieConflict,  # there are no cookies
    httpx.HTTPError,  # nobody raises the base
    httpx.HTTPStatusError,  # of raise_for_status, which nobody calls
}

HTTPX = {thing for thing in vars(httpx).values() if inspect.isclass(thing) and issubclass(thing, Exception)}
AIOHTTP = {thing for thing in vars(aiohttp).values() if inspect.isclass(thing) and issubclass(thing, Exception)}
WEBSOCKETS = {aiohttp.WebSocketError, aiohttp.WSMessageTypeError}


@pytest.mark.parametrize("kind", sorted(HTTPX - BUGS_OF_OURS, key=str), ids=lambda kind: kind.__name__)
def test_every_error_of_httpx(kind: type[Exception]) -> None:
    with pytest.raises(UpstreamUnavailable) as caught, asking.translated():
        raise kind("canary")
    assert (type(caught.value) is UpstreamTimeout) == issubclass(kind, httpx.TimeoutException)
    assert "canary" not in str(caught.value)
    assert isinstance(caught.value.__cause__, kind)


@pytest.mark.parametrize("kind", sorted(BUGS_OF_OURS, key=str), ids=lambda kind: kind.__name__)
def test_bugs_of_ours_stay_what_they_are(kind: type[Exception]) -> None:
    assert not any(issubclass(kind, each) for each in asking.TRANSLATED)


@pytest.mark.parametrize("kind", sorted(AIOHTTP, key=str), ids=lambda kind: kind.__name__)
def test_every_error_of_aiohttp(kind: type[Exception]) -> None:
    known = any(issubclass(kind, each) for each in transport.TRANSLATED)
    assert known or kind in WEBSOCKETS or not issubclass(kind, aiohttp.ClientError | OSError)


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (TimeoutError(), UpstreamTimeout),
        (aiohttp.ServerTimeoutError(), UpstreamTimeout),
        (aiohttp.ConnectionTimeoutError(), UpstreamTimeout),
        (aiohttp.SocketTimeoutError(), UpstreamTimeout),
        (aiohttp.ClientPayloadError("canary"), UpstreamUnavailable),
        (aiohttp.InvalidURL("canary"), UpstreamUnavailable),
        (ConnectionResetError("canary"), UpstreamUnavailable),
        (UnicodeError("canary"), UpstreamUnavailable),
    ],
    ids=lambda value: type(value).__name__,
)
def test_errors_of_aiohttp(raised: Exception, expected: type[Exception]) -> None:
    with pytest.raises(UpstreamUnavailable) as caught, transport.translated("it broke"):
        raise raised
    assert type(caught.value) is expected
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("url", ["ftp://x/", "http://", "http://u:p@x/", "nonsense", "http://x:99999/"])
async def test_no_url(url: str) -> None:
    origin = Origin.of("http://127.0.0.1:1")
    asker = Asker(origin, Trusts().of(origin, UpstreamTLSConfig()), Deadlines())
    with pytest.raises(UpstreamUnavailable):
        await asker.ask("GET", url, {}, limit=1)
    await asker.aclose()
    await asker.aclose()
