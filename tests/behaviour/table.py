"""Rows of the negative table, and the world that a bad request must leave as it was."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from registry.errors import SPEC_CODES
from registry.serving.server import RunningServer
from tests import rawsocket
from tests.api import IMAGE, Api, digest_of, image

NAME = "a"
LAYER_DATA = b"the bytes of a layer"
LAYER_DIGEST = digest_of(LAYER_DATA)
CONFIG_DIGEST = digest_of(b"{}")
MANIFEST = image(b"{}", (LAYER_DATA,))
MANIFEST_DIGEST = digest_of(MANIFEST)
ABSENT = digest_of(b"what nobody has ever pushed")


@dataclass(frozen=True)
class Bad:
    """A request that must be refused. target: as it stands on the wire.   allow: the Allow header of a 405."""

    row: str
    what: str
    method: str
    target: str
    status: int
    code: str
    fields: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    allow: str | None = None

    @property
    def id(self) -> str:
        return f"row-{self.row}-{self.what}"

    def raw(self) -> bytes:
        lines = [f"{name}: {value}" for name, value in self.fields.items()]
        return rawsocket.request(self.method, self.target, *lines, body=self.body)


def by_id(cases: Iterable[Bad]) -> pytest.MarkDecorator:
    """Parametrize `case`. Fails on a doubled id: a row that would hide another."""
    listed = list(cases)
    ids = [case.id for case in listed]
    assert len(set(ids)) == len(ids), sorted(i for i in ids if ids.count(i) > 1)
    return pytest.mark.parametrize("case", listed, ids=ids)


def check_error(status: int, headers: Mapping[str, str], body: bytes, case: Bad) -> None:
    """The exact status and code, in the spec's error format."""
    assert status == case.status, (status, body)
    assert headers["docker-distribution-api-version"] == "registry/2.0"
    if case.allow is not None:
        assert headers["allow"] == case.allow
    if case.method == "HEAD":
        assert body == b""
        return
    assert headers["content-type"] == "application/json"
    document = json.loads(body)
    assert list(document) == ["errors"]
    (error,) = document["errors"]
    assert error["code"] == case.code, error
    assert error["code"] in SPEC_CODES
    assert isinstance(error["message"], str)
    assert error["message"]
    assert set(error) <= {"code", "message", "detail"}


@dataclass
class World:
    """A registry with one image in it. root: of the filesystem driver, None for another."""

    api: Api
    root: Path | None

    async def begin(self) -> "World":
        """Push the image `a:v1`, unless it is there."""
        head = await self.api.http.head(f"/v2/{NAME}/manifests/v1")
        if head.headers.get("Docker-Content-Digest") == MANIFEST_DIGEST:
            return self
        await self.api.push_blob(NAME, b"{}")
        await self.api.push_blob(NAME, LAYER_DATA)
        await self.api.push_manifest(NAME, MANIFEST, "v1")
        return self

    async def seen(self) -> dict[str, Any]:
        """All that can be seen of the registry: over HTTP, and on the disk where there is one."""
        found: dict[str, Any] = {"files": self.files()}
        repositories = (await self.api.get("/v2/_catalog?n=1000")).json()["repositories"]
        for name in repositories:
            for tag in await self.api.tags(name):
                head = await self.api.http.head(f"/v2/{name}/manifests/{tag}")
                found[f"{name}:{tag}"] = (head.status_code, head.headers.get("Docker-Content-Digest"))
        blob = await self.api.get(f"/v2/{NAME}/blobs/{LAYER_DIGEST}")
        return found | {"repositories": repositories, "blob": (blob.status_code, blob.content)}

    def files(self) -> frozenset[str]:
        if self.root is None:
            return frozenset()
        paths = (path for path in self.root.rglob("*") if path.is_file())
        # ours and not a client's: the secret and scratch files; when referrers were last looked for
        return frozenset(
            str(path.relative_to(self.root))
            for path in paths
            if "_moorage" not in path.parts and path.name != "scanned"
        )


@dataclass
class Wire:
    """A live server: bytes as they are sent, and the world behind it."""

    server: RunningServer
    world: World

    @property
    def api(self) -> Api:
        return self.world.api

    def ask(self, data: bytes, method: str = "GET") -> rawsocket.Response:
        """One request on a connection of its own."""
        with rawsocket.connected(self.server.host, self.server.port) as client:
            client.send_until_closed(data)
            return client.response(method)

    async def refuses(self, *cases: Bad) -> list[rawsocket.Response]:
        """Send bad requests, each on its own connection; they change nothing, and good ones are still served."""
        before = await self.world.seen()
        responses = []
        for case in cases:
            response = self.ask(case.raw(), case.method)
            check_error(response.status, response.headers, response.body, case)
            responses.append(response)
        assert await self.world.seen() == before
        return responses


async def refused(world: World, case: Bad) -> httpx.Response:
    """Send the bad request in-process; it changes nothing."""
    before = await world.seen()
    response = await world.api.http.request(
        case.method, case.target, headers=dict(case.fields), content=case.body or None
    )
    check_error(response.status_code, response.headers, response.content, case)
    assert await world.seen() == before
    return response


def put_manifest(row: str, what: str, reference: str, status: int, code: str, body: bytes = MANIFEST) -> Bad:
    """A PUT that the manifest's type comes with."""
    return Bad(row, what, "PUT", f"/v2/{NAME}/manifests/{reference}", status, code, {"Content-Type": IMAGE}, body)
