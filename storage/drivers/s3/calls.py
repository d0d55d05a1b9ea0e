"""One request to the store, signed, sent, and repeated where that is safe; its answer, or one of our errors.

Every operation of S3 is safe to repeat: a repeated conditional write may meet its own first try (412), a repeated
CreateMultipartUpload may leave an upload that nobody knows, a repeated completion may find it gone. Their callers know.
Between tries: full jitter under a bound that doubles, so that a fleet does not come back as one.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

import aiohttp
from yarl import URL

from storage.driver import CallSeen
from storage.drivers.s3 import errors, xml
from storage.drivers.s3.bucket import PerhapsOurs
from storage.drivers.s3.clock import TOLERANCE, StoreClock
from storage.drivers.s3.credentials import Source
from storage.drivers.s3.endpoint import Endpoint
from storage.drivers.s3.errors import Fault, Operation, Remedy
from storage.drivers.s3.http import View, open_session
from storage.drivers.s3.settings import S3Settings
from storage.drivers.s3.sign import Credentials, Signer, encode_query
from storage.drivers.s3.xml import ErrorAnswer
from storage.errors import PreconditionFailed

log = logging.getLogger(__name__)
T = TypeVar("T")

_ANSWER = 16 << 20
"""Bytes of an answer that is read whole: a page of a list has 1,000 keys of at most 1 KiB, escaped."""

_ERROR = 64 << 10
_SLOWEST = 64 << 10
"""Bytes a second: a body that is taken slower is a store that hangs."""

_SILENCES = 1
"""Tries without an answer that are repeated: a connection may be dead alone, but five of 30 s outlast every client."""


@dataclass(frozen=True, slots=True)
class Retries:
    """total: tries. The wait before the n-th repeat is random, at most base * 2**n and at most cap seconds."""

    total: int = 5
    base: float = 0.1
    cap: float = 5.0

    def wait(self, repeat: int) -> float:
        return random.uniform(0, min(self.cap, self.base * 2**repeat))  # noqa: S311 - jitter


@dataclass(frozen=True, slots=True)
class Request:
    """key: whole, "" for the bucket's own operations. headers: in lower case; all are signed.

    missing: the key that a 404 is about. conditional: 409 and 404 mean that a condition did not hold. patience: seconds
    without a byte that the store may take for what it does on its side; None: readtimeout.
    """

    operation: Operation
    method: str
    key: str = ""
    query: tuple[tuple[str, str], ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | bytearray | memoryview | None = None
    missing: str = ""
    conditional: bool = False
    patience: float | None = None
    check: Callable[[bytes], ErrorAnswer | None] = xml.parse_error


@dataclass(frozen=True, slots=True)
class Answer:
    """repeated: was it asked for more than once? Then an earlier try may have been carried out as well."""

    headers: Mapping[str, str]
    body: bytes
    date: float
    repeated: bool = False


class Calls:
    """Owns the pool of connections, the clock and the credentials of one bucket, in one event loop."""

    def __init__(self, settings: S3Settings, source: Source, retries: Retries) -> None:
        self.endpoint = Endpoint.of(settings)
        self.signer = Signer(settings.region, self.endpoint.host)
        self.clock = StoreClock()
        self.source = source
        self._settings, self._retries = settings, retries
        self._agent = f"moorage {settings.useragent}".strip()
        self._session: aiohttp.ClientSession | None = None
        self._closed = False
        self.seen: CallSeen | None = None
        self.met = False
        """Has an answer shown, and none denied since, that the bucket exists? A 404 to HEAD alone does not."""

    async def aclose(self) -> None:
        self._closed = True
        await self.source.aclose()
        if self._session is not None:
            await self._session.close()

    async def ask(self, request: Request) -> Answer:
        """An answer of 2xx, read whole. Some operations answer 200 before they know, with the error in the body."""

        async def read(response: aiohttp.ClientResponse) -> Answer:
            date = self.clock.observe(response.headers.get("Date", ""))
            body = await _read(response, _ANSWER)
            if found := request.check(body):
                raise _Refused(Fault(response.status, found, response.headers))
            return Answer(response.headers, body, date)

        answer, repeats = await self._run(request, read)
        return replace(answer, repeated=True) if repeats else answer

    async def open(self, request: Request) -> aiohttp.ClientResponse:
        """An answer of 2xx whose body is still to come; the caller closes it."""

        async def keep(response: aiohttp.ClientResponse) -> aiohttp.ClientResponse:
            self.clock.observe(response.headers.get("Date", ""))
            return response

        return (await self._run(request, keep))[0]

    def fail(self, request: Request, fault: Fault) -> Exception:
        """The error to raise for a fault that the caller has found, in a body or on its way."""
        return errors.translate(
            fault, request.operation, self._settings.bucket, request.missing, conditional=request.conditional
        )

    async def _run(self, request: Request, finish: Callable[[aiohttp.ClientResponse], Awaitable[T]]) -> tuple[T, int]:
        """What finish makes of the answer, and how often the request was repeated for it."""
        repeats = silences = 0
        tried: set[Remedy] = set()
        while True:
            credentials = await self.source.get()
            signed, began = self.clock.signing(), time.monotonic()
            found = await self._try(request, credentials, signed, finish)
            self._trace(request, found, began)
            if not isinstance(found, Fault):
                self.met = True
                return found, repeats
            self.met = (self.met or found.code in ("NoSuchKey", "NoSuchUpload")) and found.code != "NoSuchBucket"
            remedy = errors.remedy(found)
            silent = isinstance(found.cause, TimeoutError)
            silences += silent
            again = repeats + 1 < self._retries.total and silences <= _SILENCES and not self._closed
            if remedy is Remedy.REPEAT and again:
                said = errors.describe(found, request.operation, self._settings.bucket)
                log.log(logging.WARNING if silent else logging.DEBUG, "%s; trying again", said)
                await asyncio.sleep(self._retries.wait(repeats))
                repeats += 1
            elif remedy not in tried and await self._remedied(remedy, credentials, signed):
                tried.add(remedy)  # each once
            else:
                failure = self.fail(request, found)
                if repeats and isinstance(failure, PreconditionFailed):
                    raise PerhapsOurs from found.cause
                raise failure from found.cause

    async def _remedied(self, remedy: Remedy, refused: Credentials, signed: float) -> bool:
        """Is there anything now that was not there when the request was signed? signed: with which time."""
        # the Date of the answer has told: ours may be wrong, or what we took for the store's (a machine that slept)
        if remedy in (Remedy.CLOCK, Remedy.EITHER) and abs(self.clock.signing() - signed) > TOLERANCE:
            return True
        if remedy in (Remedy.CREDENTIALS, Remedy.EITHER):
            return not (await self.source.renew(refused)).has_keys_of(refused)
        return False

    async def _try(
        self,
        request: Request,
        credentials: Credentials,
        signed: float,
        finish: Callable[[aiohttp.ClientResponse], Awaitable[T]],
    ) -> T | Fault:
        try:
            response = await self._send(request, credentials, signed)
            try:
                if response.status < 300:
                    return await finish(response)
                return await self._fault(response)
            except BaseException:
                response.close()
                raise
        except _Refused as exc:
            return exc.fault
        except errors.FOREIGN as exc:
            return Fault(0, cause=exc)

    async def _send(self, request: Request, credentials: Credentials, signed: float) -> aiohttp.ClientResponse:
        if self._session is None:
            self._session = open_session(self._settings, self.endpoint)
        path, query = self.endpoint.path(request.key), encode_query(request.query)
        headers = self.signer.headers(credentials, request.method, path, query, request.headers, signed)
        headers["user-agent"] = self._agent
        headers["accept-encoding"] = "identity"
        size = 0 if request.body is None else memoryview(request.body).nbytes
        if request.method in ("PUT", "POST"):
            headers["content-length"] = str(size)
        patience = request.patience or self._settings.readtimeout
        return await self._session.request(
            request.method,
            URL(f"{self.endpoint.origin}{path}{f'?{query}' if query else ''}", encoded=True),
            headers=headers,
            data=View(request.body) if request.body is not None else None,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(
                # a time for the whole only where we send: a body that we read may take as long as its reader
                total=patience + size / _SLOWEST if size else None,
                connect=patience,  # and for a place among maxconnections, which slow clients may fill
                sock_connect=self._settings.connecttimeout,
                sock_read=patience,
            ),
        )

    async def _fault(self, response: aiohttp.ClientResponse) -> Fault:
        self.clock.observe(response.headers.get("Date", ""))
        body = await _read(response, _ERROR)
        return Fault(response.status, xml.parse_error(body) or xml.ErrorAnswer(""), response.headers)

    def _trace(self, request: Request, found: object, began: float) -> None:
        """loglevel: debug, as distribution's; keys and results, no queries and no headers."""
        seconds = time.monotonic() - began
        if self.seen:
            self.seen(request.operation.name, found.status if isinstance(found, Fault) else 200, seconds)
        if self._settings.loglevel:
            result = f"failed: {found.status} {found.code}" if isinstance(found, Fault) else "done"
            log.info("S3 %s %s %s in %.1f ms", request.operation.name, request.key, result, seconds * 1000)


class _Refused(Exception):
    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.code)
        self.fault = fault


async def _read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """The whole body. Raises Malformed above `limit` bytes."""
    pieces, size = [], 0
    while piece := await response.content.readany():
        pieces.append(piece)
        size += len(piece)
        if size > limit:
            raise xml.Malformed(f"an answer of more than {limit} bytes")
    return b"".join(pieces)
