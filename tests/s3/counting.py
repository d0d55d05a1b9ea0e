"""What clients ask of a registry, as cases whose calls to S3 are counted at the wire: the cost of each, as a table.

A case is played against a registry that has been started for it alone, and so knows nothing, but for what `before` has
shown it; only the calls of `act` count. Ours run in this process, distribution as a process of its own. Clients do not
follow redirects here: what they fetch from the store themselves is theirs, and costs the same with any registry.
"""

import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx

from registry.config.model import CacheConfig
from tests.api import IMAGE, INDEX, digest_of, image, index, with_query
from tests.interop.content import ACCEPT, answered
from tests.interop.peers import V3, started, write_config
from tests.ports import free_port
from tests.s3.registries import config_of, serving
from tests.s3.relay import Relay
from tests.s3.servers import S3Server

NAME, OTHER, NEW = "team/app", "team/other", "team/new"
CONFIG_BYTES = b'{"architecture":"amd64","os":"linux"}'
LAYERS = tuple(bytes([65 + n]) * 1000 for n in range(4))
IMAGE_BYTES = image(CONFIG_BYTES, LAYERS)
INDEX_BYTES = index(
    {
        "mediaType": IMAGE,
        "digest": digest_of(IMAGE_BYTES),
        "size": len(IMAGE_BYTES),
        "platform": {"architecture": "amd64", "os": "linux"},
    }
)
SIGNATURE = image(CONFIG_BYTES, subject={"mediaType": IMAGE, "digest": digest_of(IMAGE_BYTES), "size": 1})
TAGS = ("t", "all", "v1", "v2")
LARGE = 25 << 20
"""Bytes of a blob of three parts."""

_WRITES = frozenset(
    {"PutObject", "CopyObject", "CreateMultipartUpload", "UploadPart", "UploadPartCopy", "CompleteMultipartUpload"}
) | {"ListObjectsV2", "ListObjects", "ListMultipartUploads", "ListParts", "DeleteObjects"}
_FREE = frozenset({"DeleteObject", "AbortMultipartUpload"})


@dataclass(frozen=True)
class Cost:
    """Calls. writes: what Amazon bills as PUT, COPY, POST or LIST; reads: what it bills as GET; deletes are free."""

    writes: int
    reads: int
    deletes: int
    parts: int

    @classmethod
    def of(cls, calls: Counter[str]) -> "Cost":
        writes = sum(count for name, count in calls.items() if name in _WRITES)
        deletes = sum(count for name, count in calls.items() if name in _FREE)
        parts = calls["UploadPart"] + calls["UploadPartCopy"]
        return cls(writes, calls.total() - writes - deletes, deletes, parts)

    @property
    def calls(self) -> int:
        return self.writes + self.reads + self.deletes

    def __str__(self) -> str:
        kinds = ((self.writes, "w"), (self.reads, "r"), (self.deletes, "d"))
        split = ", ".join(f"{count} {letter}" for count, letter in kinds if count)
        return f"{self.calls} ({split})" if self.calls else "0"


@dataclass(frozen=True)
class Client:
    """Talks to a registry as docker and containerd do. salt: makes blobs that no other case has."""

    http: httpx.AsyncClient
    salt: str

    def blob(self, size: int) -> bytes:
        return random.Random(f"{self.salt} {size}").randbytes(size)

    async def ask(self, method: str, path: str, *statuses: int, **more: Any) -> httpx.Response:
        more["headers"] = ACCEPT | more.get("headers", {})
        answer = await self.http.request(method, path, **more)
        return answered(answer, answer.status_code if answer.status_code in statuses else statuses[0])

    # Pulls

    async def pull(self, *, by_index: bool = False) -> None:
        """HEAD of the tag, the manifest by its digest (through an index: both), config and layers."""
        await self.ask("HEAD", f"/v2/{NAME}/manifests/{'all' if by_index else 't'}", 200)
        if by_index:
            await self.ask("GET", f"/v2/{NAME}/manifests/{digest_of(INDEX_BYTES)}", 200)
        await self.ask("GET", f"/v2/{NAME}/manifests/{digest_of(IMAGE_BYTES)}", 200)
        for data in (CONFIG_BYTES, *LAYERS):
            await self.get_blob(data)

    async def get_blob(self, data: bytes, method: str = "GET") -> None:
        answer = await self.ask(method, f"/v2/{NAME}/blobs/{digest_of(data)}", 200, 307)
        if answer.status_code == 200 and method == "GET":
            assert answer.content == data

    # Pushes

    async def start(self, name: str) -> str:
        return (await self.ask("POST", f"/v2/{name}/blobs/uploads/", 202)).headers["Location"]

    async def push_known(self, data: bytes, name: str = NAME) -> None:
        """POST, and a PUT with all bytes and the digest."""
        location = await self.start(name)
        await self.ask("PUT", with_query(location, digest=digest_of(data)), 201, content=data)

    async def push_streamed(self, data: bytes, name: str = NAME) -> None:
        """POST, PATCH with all bytes, PUT with the digest."""
        location = (await self.ask("PATCH", await self.start(name), 202, content=data)).headers["Location"]
        await self.ask("PUT", with_query(location, digest=digest_of(data)), 201)

    async def push_manifest(self, body: bytes, reference: str, name: str = NAME, media_type: str = IMAGE) -> None:
        path = f"/v2/{name}/manifests/{reference}"
        await self.ask("PUT", path, 201, content=body, headers={"Content-Type": media_type})

    async def push_image(self, *, streamed: bool) -> None:
        """A config and one layer that are new, and their manifest. streamed: as docker, which asks for each first."""
        config, layer = self.blob(400), self.blob(1000)
        for data in (layer, config):
            if streamed:
                await self.ask("HEAD", f"/v2/{NAME}/blobs/{digest_of(data)}", 404)
                await self.push_streamed(data)
            else:
                await self.push_known(data)
        await self.push_manifest(image(config, (layer,)), "new")


Act = Callable[[Client], Awaitable[object]]


@dataclass(frozen=True)
class Case:
    """by: who is asked. goal: calls, without redirect and without parts; redirected: calls with redirect."""

    title: str
    act: Act
    before: Act | None = None
    by: str = "writer"
    goal: int | None = None
    redirected: int | None = None


async def warm_up(client: Client) -> None:
    """What a process that writes finds out once: whether the store honours conditions."""
    await client.push_known(client.blob(77))


PULLS = (
    Case("`/v2/` alone", lambda c: c.ask("GET", "/v2/", 200), by="replica", goal=0, redirected=0),
    Case("pull of 4 layers, cold", lambda c: c.pull(), by="replica", goal=3 + 4, redirected=2),
    # an index vouches for none of its images (storage/vouch.py): their links are read, which enclose them
    Case("… through an index", lambda c: c.pull(by_index=True), by="replica", goal=3 + 1 + 4, redirected=2 + 1),
    Case("… again within `cache.linkttl`", lambda c: c.pull(), lambda c: c.pull(), "replica", 1 + 1 + 4, 1),
    Case(
        "manifest by tag, again",
        lambda c: c.ask("GET", f"/v2/{NAME}/manifests/t", 200),
        lambda c: c.ask("GET", f"/v2/{NAME}/manifests/t", 200),
        "replica",
        goal=1,
        redirected=1,
    ),
    Case(
        "manifest by digest, cold",
        lambda c: c.ask("GET", f"/v2/{NAME}/manifests/{digest_of(IMAGE_BYTES)}", 200),
        by="replica",
        goal=1,
        redirected=1,
    ),
    Case("blob, its manifest never served", lambda c: c.get_blob(LAYERS[0]), by="replica", goal=2, redirected=2),
    Case("blob, again", lambda c: c.get_blob(LAYERS[0]), lambda c: c.get_blob(LAYERS[0]), "replica", 1, 0),
    Case(
        "HEAD of a blob, again",
        lambda c: c.get_blob(LAYERS[0], "HEAD"),
        lambda c: c.get_blob(LAYERS[0], "HEAD"),
        "replica",
        0,
        0,
    ),
    Case("pull of 4 layers, again, through a writer", lambda c: c.pull(), lambda c: c.pull(), "writer", 12, 12),
    Case("… with `cache.linkttl: 1m`", lambda c: c.pull(), lambda c: c.pull(), "trusting writer", 6, 1),
)

PUSHES = (
    Case("first push of a process: more than later ones", lambda c: c.push_known(c.blob(1000)), goal=2 + 4),
    Case("blob of 1 kB, digest first", lambda c: c.push_known(c.blob(1000)), warm_up, goal=2),
    Case("blob of 25 MiB, digest first", lambda c: c.push_known(c.blob(LARGE)), warm_up, goal=3),
    Case("blob of 1 kB, streamed", lambda c: c.push_streamed(c.blob(1000)), warm_up, goal=8),
    Case("blob of 25 MiB, streamed", lambda c: c.push_streamed(c.blob(LARGE)), warm_up, goal=8),
    Case("image of 1 layer, digest first", lambda c: c.push_image(streamed=False), warm_up, goal=12),
    Case("image of 1 layer, as docker does", lambda c: c.push_image(streamed=True), warm_up),
    Case(
        "HEAD of a blob that is there",
        lambda c: c.get_blob(LAYERS[0], "HEAD"),
        warm_up,
        goal=2,
    ),
    Case(
        "HEAD of a blob that is not",
        lambda c: c.ask("HEAD", f"/v2/{NAME}/blobs/{digest_of(b'none')}", 404),
        warm_up,
        goal=1,
    ),
    Case(
        "mount",
        lambda c: c.ask("POST", f"/v2/{NEW}/blobs/uploads/?mount={digest_of(LAYERS[0])}&from={NAME}", 201),
        warm_up,
    ),
    Case("another tag for an image of 4 layers", lambda c: c.push_manifest(IMAGE_BYTES, "v3"), warm_up),
    Case("delete of a tag", lambda c: c.ask("DELETE", f"/v2/{NAME}/manifests/v1", 202), warm_up, "deleter"),
    Case(
        "delete of a manifest, 1 of 2 tags naming it",
        lambda c: c.ask("DELETE", f"/v2/{OTHER}/manifests/{digest_of(image(CONFIG_BYTES))}", 202),
        warm_up,
        "deleter",
    ),
    Case(
        "delete of a blob",
        lambda c: c.ask("DELETE", f"/v2/{NAME}/blobs/{digest_of(LAYERS[3])}", 202),
        warm_up,
        "deleter",
    ),
    Case("tag list", lambda c: c.ask("GET", f"/v2/{NAME}/tags/list", 200), by="replica"),
    Case("catalogue of 2 repositories", lambda c: c.ask("GET", "/v2/_catalog", 200), by="replica"),
    Case(
        "referrers of an image with 1 signature",
        lambda c: c.ask("GET", f"/v2/{NAME}/referrers/{digest_of(IMAGE_BYTES)}", 200, 404),
        by="replica",
    ),
)


async def fill(client: Client) -> None:
    """What the cases find."""
    for data in (CONFIG_BYTES, *LAYERS):
        await client.push_known(data)
    for tag in ("t", "v1", "v2"):
        await client.push_manifest(IMAGE_BYTES, tag)
    await client.push_manifest(INDEX_BYTES, "all", media_type=INDEX)
    await client.push_manifest(SIGNATURE, digest_of(SIGNATURE))
    await client.push_known(CONFIG_BYTES, OTHER)
    await client.push_manifest(image(CONFIG_BYTES), "x", OTHER)
    await client.push_manifest(image(CONFIG_BYTES, annotations={"other": "yes"}), "y", OTHER)


# Registries

Start = Callable[[Case, bool], AbstractAsyncContextManager[httpx.AsyncClient]]


def ours(parameters: dict[str, Any]) -> Start:
    """As over a bucket at Amazon: of other stores we ask one call more after an upload in parts."""
    parameters = parameters | {"checkuploads": False}

    @asynccontextmanager
    async def start(case: Case, redirects: bool) -> AsyncIterator[httpx.AsyncClient]:
        read_only, deletes = case.by == "replica", case.by == "deleter"
        config = config_of(parameters, read_only=read_only, deletes=deletes, redirects=redirects)
        if case.by == "trusting writer":
            config = replace(config, cache=CacheConfig(linkttl=60.0))
        async with serving(config) as api:
            yield api.http

    return start


def distributions(parameters: dict[str, Any], folder: Path) -> Start:
    """registry:3 as its image configures it, but for its health check, which would be counted."""

    @asynccontextmanager
    async def start(case: Case, redirects: bool) -> AsyncIterator[httpx.AsyncClient]:
        port = free_port()
        storage = {
            "s3": parameters,
            "delete": {"enabled": case.by == "deleter"},
            "redirect": {"disable": not redirects},
            "cache": {"blobdescriptor": "inmemory"},
            "maintenance": {"readonly": {"enabled": case.by == "replica"}},
        }
        config = write_config(folder, folder, port, storage=storage, health={"storagedriver": {"enabled": False}})
        with started(V3, config, port, folder / f"distribution-{port}.log"):
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60) as http:
                yield http

    return start


@dataclass
class Counted:
    """case's title, with or without redirects: operations."""

    found: dict[tuple[str, bool], Counter[str]] = field(default_factory=dict)

    def cost(self, case: Case, *, redirects: bool = False) -> Cost:
        return Cost.of(self.found[case.title, redirects])


async def count(relay: Relay, start: Start, salt: str) -> Counted:
    """Play every case; pulls with redirects, too."""
    counted = Counted()
    plan = [(case, redirects) for redirects in (False, True) for case in PULLS] + [(case, False) for case in PUSHES]
    for case, redirects in plan:
        async with start(case, redirects) as http:
            client = Client(http, f"{salt} {case.title}")
            if case.before is not None:
                await case.before(client)
            with relay.counting() as calls:
                await case.act(client)
            counted.found[case.title, redirects] = Counter(call.operation for call in calls)
    return counted


async def count_both(server: S3Server, folder: Path, *, peers: bool) -> tuple[Counted, Counted | None]:
    """Ours, and distribution's where that is wanted."""
    mine = await count_one(server, ours)
    return mine, await count_one(server, lambda parameters: distributions(parameters, folder)) if peers else None


async def count_one(server: S3Server, starts: Callable[[dict[str, Any]], Start]) -> Counted:
    """On a folder of its own in a bucket, filled by ours."""
    bucket, root = server.new_root()
    async with serving(config_of(server.parameters(bucket, root))) as api:
        await fill(Client(api.http, root))
    async with Relay(server.endpoint) as relay:
        return await count(relay, starts(server.parameters(bucket, root, endpoint=relay.endpoint)), root)


# The table


def tables(mine: Counted, theirs: Counted | None) -> tuple[list[list[str]], list[list[str]]]:
    """Rows of cells, of pulls and of pushes; without distribution's where it was not counted."""
    pulls = []
    for case in PULLS:
        cells = [case.title]
        for counted in filter(None, (mine, theirs)):
            cells += [str(counted.cost(case, redirects=redirects).calls) for redirects in (True, False)]
        pulls.append(cells)
    pushes = [[case.title, *(str(counted.cost(case)) for counted in filter(None, (mine, theirs)))] for case in PUSHES]
    return pulls, pushes
