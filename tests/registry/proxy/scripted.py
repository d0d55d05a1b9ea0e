"""An upstream on a real socket that does what a script says: a correct small registry, until it is told to misbehave.

    async with scripted() as hub:
        blob = hub.blob("a/b", b"...")
        hub.on("GET", "/v2/a/b/blobs/", reset(after=10), times=1)     # the first request breaks off, later ones do not
        ...
        assert hub.count("GET", "/v2/a/b/blobs/") == 2

An act is a coroutine that gets the Exchange and answers it, or does not. The first rule that fits a request decides;
a rule is used `times` times. Acts that wait do so until `hub.release` is set, which closing does: nothing stays behind.
`hub.login` makes it ask for Basic or Bearer; `/token` on any of these servers is a token server for the users it has.
"""

import asyncio
import base64
import gzip
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

from storage.digest import Digest
from storage.manifest import IMAGE_INDEX, IMAGE_MANIFEST

EMPTY = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": IMAGE_MANIFEST,
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": str(Digest.of(b"{}")), "size": 2},
        "layers": [],
    }
).encode()
"""A manifest; `manifest(n)` gives more that differ."""


def manifest(number: int = 0) -> bytes:
    return json.dumps({**json.loads(EMPTY), "annotations": {"n": str(number)}}).encode()


@dataclass(frozen=True)
class Seen:
    """A request that arrived. connection: a number for each."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    connection: int

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.target).query)


class Hangup(Exception):
    """The connection ends here. abort: with a reset."""

    def __init__(self, *, abort: bool = False) -> None:
        self.abort = abort


@dataclass
class Exchange:
    """One request on its connection."""

    hub: "Scripted"
    seen: Seen
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self, status: int, fields: list[tuple[str, str]]) -> None:
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *(f"{name}: {value}" for name, value in fields)]
        await self.send("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n")

    async def respond(self, status: int = 200, body: bytes = b"", **fields: str) -> None:
        """fields: underscores become hyphens."""
        named = [(name.replace("_", "-"), value) for name, value in fields.items()]
        await self.head(status, [("Content-Length", str(len(body))), *named])
        if self.seen.method != "HEAD" and body:
            await self.send(body)

    async def json(self, status: int, value: object, **fields: str) -> None:
        await self.respond(status, json.dumps(value).encode(), Content_Type="application/json", **fields)

    async def error(self, status: int, code: str, **fields: str) -> None:
        await self.json(status, {"errors": [{"code": code, "message": "scripted"}]}, **fields)


Act = Callable[[Exchange], Awaitable[None]]


@dataclass
class Rule:
    method: str
    prefix: str
    act: Act
    times: float

    def fits(self, seen: Seen) -> bool:
        return self.times > 0 and self.method in ("*", seen.method) and seen.target.startswith(self.prefix)


@dataclass
class Scripted:
    """host is an address; tls makes it https under the name `localhost`."""

    login: str = ""
    """"", "basic" or "bearer"."""
    realm: str = ""
    """Of the challenge; its own /token where empty."""
    users: dict[str, str] = field(default_factory=dict)
    anonymous: bool = True
    """Does the token server give tokens to nobody?"""
    expires_in: int = 300
    requests: list[Seen] = field(default_factory=list)
    manifests: dict[tuple[str, str], bytes] = field(default_factory=dict)
    blobs: dict[tuple[str, str], bytes] = field(default_factory=dict)
    rate: dict[str, str] = field(default_factory=dict)
    """Headers that go with manifests."""
    tokens: set[str] = field(default_factory=set)
    issued: int = 0
    rules: list[Rule] = field(default_factory=list)
    release: asyncio.Event = field(default_factory=asyncio.Event)
    port: int = 0
    tls: bool = False
    connections: int = 0
    writers: set[asyncio.StreamWriter] = field(default_factory=set)
    serving: set["asyncio.Task[None]"] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}" if self.tls else f"http://127.0.0.1:{self.port}"

    # What it holds

    def blob(self, name: str, data: bytes) -> Digest:
        digest = Digest.of(data)
        self.blobs[name, str(digest)] = data
        return digest

    def image(self, name: str, tag: str, body: bytes = EMPTY) -> Digest:
        digest = Digest.of(body)
        self.manifests[name, tag] = self.manifests[name, str(digest)] = body
        return digest

    # How it behaves

    def on(self, method: str, prefix: str, act: Act, times: float = float("inf")) -> None:
        """prefix: of the target. Later rules are looked at first."""
        self.rules.insert(0, Rule(method, prefix, act, times))

    def count(self, method: str, prefix: str) -> int:
        return sum(seen.method == method and seen.target.startswith(prefix) for seen in self.requests)

    def revoke(self) -> None:
        """No token that it gave is good any more."""
        self.tokens.clear()

    @property
    def secrets_seen(self) -> list[str]:
        """Every credential that arrived here, in whatever way."""
        return [
            value
            for seen in self.requests
            for name, value in seen.headers.items()
            if name in ("authorization", "cookie")
        ] + [seen.body.decode() for seen in self.requests if b"refresh_token" in seen.body]

    # Serving

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        self.writers.add(writer)
        task = asyncio.current_task()
        assert task is not None
        self.serving.add(task)
        try:
            while (seen := await _read(reader, number)) is not None:
                self.requests.append(seen)
                rule = next((rule for rule in self.rules if rule.fits(seen)), None)
                if rule is not None:
                    rule.times -= 1
                await (rule.act if rule else serve)(Exchange(self, seen, writer))
        except Hangup as end:
            if end.abort:
                writer.transport.abort()
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass  # the client has left
        finally:
            self.writers.discard(writer)
            self.serving.discard(task)
            writer.close()


async def _read(reader: asyncio.StreamReader, number: int) -> Seen | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head[:-4].split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Seen(method, target, headers, body, number)


@asynccontextmanager
async def scripted(tls: ssl.SSLContext | None = None, **settings: object) -> AsyncIterator[Scripted]:
    """settings: fields of Scripted."""
    hub = Scripted(**settings)  # type: ignore[arg-type]
    server = await asyncio.start_server(hub.connected, "127.0.0.1", 0, ssl=tls, limit=1 << 20)
    hub.port, hub.tls = server.sockets[0].getsockname()[1], tls is not None
    try:
        yield hub
    finally:
        hub.release.set()
        server.close()
        for writer in set(hub.writers):
            writer.transport.abort()
        await server.wait_closed()
        await asyncio.gather(*hub.serving)


# The correct registry


async def serve(exchange: Exchange) -> None:
    seen, hub = exchange.seen, exchange.hub
    if seen.path == "/token":
        await token(exchange)
    elif not authorized(hub, seen):
        await challenge(exchange)
    elif seen.path == "/v2/":
        await exchange.json(200, {})
    else:
        name, _, rest = seen.path.removeprefix("/v2/").rpartition("/")
        name, _, kind = name.rpartition("/")
        serving = {"manifests": serve_manifest, "blobs": serve_blob, "tags": serve_tags, "referrers": serve_referrers}
        await serving[kind](exchange, name, rest)


async def serve_manifest(exchange: Exchange, name: str, reference: str) -> None:
    body = exchange.hub.manifests.get((name, reference))
    if body is None:
        await exchange.error(404, "MANIFEST_UNKNOWN")
        return
    digest = str(Digest.of(body))
    fields: dict[str, Any] = {"ETag": f'"{digest}"', "Docker_Content_Digest": digest, **exchange.hub.rate}
    if exchange.seen.headers.get("if-none-match") == f'"{digest}"':
        await exchange.respond(304, **fields)
    else:
        await exchange.respond(200, body, Content_Type=json.loads(body)["mediaType"], **fields)


async def serve_blob(exchange: Exchange, name: str, digest: str) -> None:
    data = exchange.hub.blobs.get((name, digest))
    if data is None:
        await exchange.error(404, "BLOB_UNKNOWN")
        return
    await content(exchange, data)


async def content(exchange: Exchange, data: bytes) -> None:
    """With Range, as a store serves it."""
    fields: dict[str, Any] = {"Content_Type": "application/octet-stream", "ETag": '"x"', "Accept_Ranges": "bytes"}
    if (wanted := exchange.seen.headers.get("range")) is None:
        await exchange.respond(200, data, **fields)
        return
    first, _, last = wanted.removeprefix("bytes=").partition("-")
    start, stop = int(first), min(int(last) + 1 if last else len(data), len(data))
    if start >= len(data):
        await exchange.respond(416, Content_Range=f"bytes */{len(data)}")
        return
    await exchange.respond(206, data[start:stop], Content_Range=f"bytes {start}-{stop - 1}/{len(data)}", **fields)


async def serve_tags(exchange: Exchange, name: str, _: str) -> None:
    tags = sorted(ref for repository, ref in exchange.hub.manifests if repository == name and ":" not in ref)
    if not tags:
        await exchange.error(404, "NAME_UNKNOWN")
        return
    query = exchange.seen.query
    behind = [tag for tag in tags if tag > query.get("last", [""])[0]]
    page = behind[: int(query.get("n", ["1000"])[0])]
    more = (
        {"Link": f'</v2/{name}/tags/list?n={len(page)}&last={page[-1]}>; rel="next"'} if len(page) < len(behind) else {}
    )
    await exchange.json(200, {"name": name, "tags": page}, **more)


async def serve_referrers(exchange: Exchange, name: str, subject: str) -> None:
    found = [
        {"mediaType": IMAGE_MANIFEST, "digest": ref, "size": len(body)}
        for (repository, ref), body in exchange.hub.manifests.items()
        if repository == name and ":" in ref and json.loads(body).get("subject", {}).get("digest") == subject
    ]
    index = json.dumps({"schemaVersion": 2, "mediaType": IMAGE_INDEX, "manifests": found}).encode()
    await exchange.respond(200, index, Content_Type=IMAGE_INDEX)


# Logging in


def authorized(hub: Scripted, seen: Seen) -> bool:
    if not hub.login:
        return True
    scheme, _, value = seen.headers.get("authorization", "").partition(" ")
    if hub.login == "basic":
        return scheme == "Basic" and _known(hub, value)
    return scheme == "Bearer" and value in hub.tokens


def _known(hub: Scripted, value: str) -> bool:
    user, _, password = base64.b64decode(value).decode().partition(":")
    return hub.users.get(user) == password


async def challenge(exchange: Exchange) -> None:
    hub = exchange.hub
    scheme = 'Basic realm="scripted, \\"quoted\\""'
    if hub.login == "bearer":
        name = exchange.seen.path.removeprefix("/v2/").rpartition("/")[0].rpartition("/")[0]
        scheme = f'Bearer realm="{hub.realm or hub.url + "/token"}",service="scripted",scope="repository:{name}:pull"'
    await exchange.error(401, "UNAUTHORIZED", WWW_Authenticate=scheme)


async def token(exchange: Exchange) -> None:
    """GET as docker asks, POST with an identity token: a user's password serves as one."""
    hub, seen = exchange.hub, exchange.seen
    scheme, _, value = seen.headers.get("authorization", "").partition(" ")
    refresh = dict(parse_qsl(seen.body.decode())).get("refresh_token")
    if refresh is not None:
        allowed = refresh in hub.users.values()
    elif scheme == "Basic":
        allowed = _known(hub, value)
    else:
        allowed = hub.anonymous
    if not allowed:
        await exchange.error(401, "UNAUTHORIZED")
        return
    hub.issued += 1
    made = f"token-{hub.port}-{hub.issued}"
    hub.tokens.add(made)
    await exchange.json(200, {"token": made, "expires_in": hub.expires_in})


# Misbehaviour


def status(code: int, body: bytes = b"", **fields: str) -> Act:
    """Any answer at all."""

    async def act(exchange: Exchange) -> None:
        await exchange.respond(code, body, **fields)

    return act


def error(code: int, name: str, **fields: str) -> Act:
    """A registry's own error."""

    async def act(exchange: Exchange) -> None:
        await exchange.error(code, name, **fields)

    return act


def html(code: int) -> Act:
    """A portal's or a load balancer's page."""
    return status(code, b"<html>Sorry</html>", Content_Type="text/html; charset=utf-8")


def redirect(location: str, code: int = 307, **fields: str) -> Act:
    return status(code, b"", Location=location, **fields)


def body(data: bytes, content_type: str = "application/octet-stream", **fields: str) -> Act:
    """Other bytes than those asked for."""
    return status(200, data, Content_Type=content_type, **fields)


def data(content_: bytes) -> Act:
    """What a CDN serves, with Range."""

    async def act(exchange: Exchange) -> None:
        await content(exchange, content_)

    return act


def short(announced: int, sent: bytes) -> Act:
    """Fewer bytes than announced, then an orderly end."""

    async def act(exchange: Exchange) -> None:
        await exchange.head(200, [("Content-Length", str(announced))])
        await exchange.send(sent)
        raise Hangup

    return act


def reset(sent: bytes = b"", announced: int | None = None) -> Act:
    """A reset: before any answer, or after some bytes of one."""

    async def act(exchange: Exchange) -> None:
        if announced is not None:
            await exchange.head(200, [("Content-Length", str(announced))])
            await exchange.send(sent)
        raise Hangup(abort=True)

    return act


def stall(sent: bytes = b"", announced: int | None = None) -> Act:
    """Nothing more comes: before the head, or after some bytes of the body."""

    async def act(exchange: Exchange) -> None:
        if announced is not None:
            await exchange.head(200, [("Content-Length", str(announced))])
            await exchange.send(sent)
        await exchange.hub.release.wait()
        raise Hangup

    return act


def trickle(announced: int, pause: float) -> Act:
    """One byte after the other, for ever: no read ever times out."""

    async def act(exchange: Exchange) -> None:
        await exchange.head(200, [("Content-Length", str(announced))])
        while not exchange.hub.release.is_set():
            await exchange.send(b"x")
            await asyncio.sleep(pause)
        raise Hangup

    return act


def gate(event: asyncio.Event, then: Act = serve) -> Act:
    """A slow first byte: the answer comes when the test says so."""

    async def act(exchange: Exchange) -> None:
        await event.wait()
        await then(exchange)

    return act


def chunked(
    data: bytes, piece: int = 1000, *, ends: bool = True, content_type: str = "application/octet-stream"
) -> Act:
    """No Content-Length. ends: with the last chunk, as it must."""

    async def act(exchange: Exchange) -> None:
        await exchange.head(200, [("Transfer-Encoding", "chunked"), ("Content-Type", content_type)])
        for at in range(0, len(data), piece):
            part = data[at : at + piece]
            await exchange.send(b"%x\r\n%s\r\n" % (len(part), part))
        if not ends:
            raise Hangup
        await exchange.send(b"0\r\n\r\n")

    return act


def gzipped(data: bytes, content_type: str = "application/octet-stream") -> Act:
    """Encoded, though nobody asked for it."""
    packed = gzip.compress(data, mtime=0)
    return status(200, packed, Content_Encoding="gzip", Content_Type=content_type)


def flood(fields: int) -> Act:
    """Headers without end."""

    async def act(exchange: Exchange) -> None:
        await exchange.head(200, [(f"X-{number}", "y" * 100) for number in range(fields)])
        raise Hangup

    return act


def endless(content_type: str) -> Act:
    """A body that never ends, at full speed."""

    async def act(exchange: Exchange) -> None:
        await exchange.head(200, [("Transfer-Encoding", "chunked"), ("Content-Type", content_type)])
        while not exchange.hub.release.is_set():
            await exchange.send(b"10000\r\n" + b" " * 0x10000 + b"\r\n")

    return act


def raw(data: bytes) -> Act:
    """Bytes as they are, then the end."""

    async def act(exchange: Exchange) -> None:
        await exchange.send(data)
        raise Hangup

    return act
