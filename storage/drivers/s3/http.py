"""The HTTP client under the calls: one pool of connections, TLS and proxy as the settings and variables say.

aiohttp's `trust_env` is not used: it asks a thread for the proxy and for ~/.netrc on every request, and refuses our
Authorization header where .netrc knows the host. The proxy variables are read once instead.
"""

import os
import ssl
import urllib.request
from typing import Any

import aiohttp
from aiohttp import payload

from storage.drivers.s3.endpoint import Endpoint
from storage.drivers.s3.settings import S3Settings

KEEPALIVE = 15.0
"""Seconds that an idle connection is kept: below what stores and load balancers close after, or the next call fails."""

_BUFFER = 256 << 10
"""Bytes of a body that wait for their reader before the socket is no longer read; aiohttp takes up to twice that."""

_PIECE = 256 << 10


class View(payload.Payload):
    """A body that is sent from a caller's buffer piece by piece, without a copy of the whole."""

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        super().__init__(data, content_type="application/octet-stream")
        self._view = memoryview(data).cast("B")
        self._size = self._view.nbytes

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return str(self._view, encoding, errors)

    async def write(self, writer: Any) -> None:
        for start in range(0, self._view.nbytes, _PIECE):
            await writer.write(self._view[start : start + _PIECE])

    async def write_with_length(self, writer: Any, content_length: int | None) -> None:
        await self.write(writer)  # the length that we announce is the buffer's


def open_session(settings: S3Settings, endpoint: Endpoint) -> aiohttp.ClientSession:
    """In a running event loop. Raises OSError for a CA bundle that cannot be read."""
    connector = aiohttp.TCPConnector(
        limit=settings.maxconnections,
        keepalive_timeout=KEEPALIVE,
        ssl=_tls(settings) if endpoint.scheme == "https" else True,
    )
    session = aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=settings.connecttimeout, sock_read=settings.readtimeout),
        auto_decompress=False,
        read_bufsize=_BUFFER,
        proxy=_proxy(endpoint),
        skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent", "Content-Type"),
    )
    # it would send an idempotent request again by itself, and a 412 to our own first try look like somebody else's
    session._retry_connection = False
    return session


def _tls(settings: S3Settings) -> ssl.SSLContext | bool:
    """cabundle, or AWS_CA_BUNDLE as every AWS tool has it; else what the system trusts."""
    if settings.skipverify:
        return False
    bundle = settings.cabundle or os.environ.get("AWS_CA_BUNDLE", "")
    return ssl.create_default_context(cafile=bundle) if bundle else True


def _proxy(endpoint: Endpoint) -> str | None:
    """HTTP_PROXY, HTTPS_PROXY and NO_PROXY."""
    if urllib.request.proxy_bypass(endpoint.host):
        return None
    return urllib.request.getproxies().get(endpoint.scheme)
