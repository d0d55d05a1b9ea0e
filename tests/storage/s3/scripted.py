"""A store that answers from a script and keeps what it was asked: for faults and headers that no real one shows."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from urllib.parse import parse_qs, unquote, urlsplit

from storage.drivers.s3.calls import Retries
from storage.drivers.s3.credentials import Source
from storage.drivers.s3.rest import RestBucket
from storage.drivers.s3.settings import S3Settings

AT_ONCE = Retries(total=3, base=0.0)


@dataclass(frozen=True)
class Captured:
    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return unquote(urlsplit(self.target).path)

    @property
    def query(self) -> dict[str, str]:
        return {
            name: values[0] for name, values in parse_qs(urlsplit(self.target).query, keep_blank_values=True).items()
        }


@dataclass(frozen=True)
class Reply:
    """headers replace the usual ones; None leaves one out. cut: bytes of the body after which the connection ends."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str | None] = field(default_factory=dict)
    cut: int | None = None
    stall: bool = False
    """Wait, after `cut` bytes, instead of ending the connection."""


DROP = Reply(status=0)
"""The connection ends without an answer."""

HANG = Reply(status=0, stall=True)
"""No answer, ever."""

Script = list[Reply] | Callable[[Captured], Reply]


def fault(status: int, code: str, more: str = "", **headers: str) -> Reply:
    body = f"<Error><Code>{code}</Code><Message>It says so.</Message><RequestId>R-1</RequestId>{more}</Error>"
    return Reply(status, body.encode(), headers)


class Scripted:
    """script: replies in turn, the last of which is repeated; or a function of the request."""

    def __init__(self, script: Script) -> None:
        self.script, self.asked = script, list[Captured]()
        self.port = 0
        self._serving = dict[asyncio.Task[None], asyncio.StreamWriter]()

    def next(self, request: Captured) -> Reply:
        self.asked.append(request)
        if not isinstance(self.script, list):
            return self.script(request)
        return self.script.pop(0) if len(self.script) > 1 else self.script[0]

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self.serve(reader, writer))
        self._serving[task] = writer

    async def end(self) -> None:
        for writer in self._serving.values():
            writer.transport.abort()
        await asyncio.gather(*self._serving)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while await self.exchange(reader, writer):
                pass
        writer.close()

    async def exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, target, _ = head[0].split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        reply = self.next(Captured(method, target, headers, body))
        if reply.status:
            writer.write(_head(reply, method))
            if method != "HEAD":
                writer.write(reply.body[: reply.cut])
            await writer.drain()
        if reply.stall:
            await reader.read()  # until the client gives up
        return bool(reply.status) and reply.cut is None and not reply.stall


def _head(reply: Reply, method: str) -> bytes:
    usual: dict[str, str | None] = {
        "Content-Length": str(len(reply.body)),
        "Date": formatdate(usegmt=True),
        "Last-Modified": "Sun, 22 Nov 2026 10:00:00 GMT",
        "ETag": '"e"',
    }
    lines = [f"{name}: {value}" for name, value in {**usual, **reply.headers}.items() if value is not None]
    return "\r\n".join([f"HTTP/1.1 {reply.status} Whatever", *lines, "", ""]).encode()


@asynccontextmanager
async def scripted(script: Script, tls: ssl.SSLContext | None = None) -> AsyncIterator[Scripted]:
    store = Scripted(script)
    server = await asyncio.start_server(store.accept, "127.0.0.1", 0, ssl=tls)
    store.port = server.sockets[0].getsockname()[1]
    try:
        yield store
    finally:
        server.close()
        await store.end()


@asynccontextmanager
async def bucket_over(
    script: Script, *, source: Source | None = None, retries: Retries = AT_ONCE, **parameters: object
) -> AsyncIterator[tuple[RestBucket, Scripted]]:
    async with scripted(script) as store:
        given = {
            "bucket": "bkt",
            "accesskey": "AK",
            "secretkey": "SK",
            "regionendpoint": f"http://127.0.0.1:{store.port}",
        }
        bucket = RestBucket(S3Settings.parse(given | parameters), source=source, retries=retries)
        try:
            yield bucket, store
        finally:
            await bucket.aclose()
