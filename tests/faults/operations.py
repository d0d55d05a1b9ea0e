"""What clients do, as lists of requests that can be repeated, with what must hold before, between and after.

`Client.send` is where a fault is judged: the request that met it answers 503 or 507, and the same request, sent again
once the fault is over, succeeds.
"""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx

from registry.responses import ResponseBroken
from storage.errors import Unavailable
from tests.api import IMAGE, INDEX, Api, digest_of, error_of, image, with_query

NAME = "fault/y"
CONFIG = b"{}"
LAYER = b"layer " * 2000
OTHER = b"other " * 1000
EMPTY = b""
OLD = image(CONFIG, (LAYER,), annotations={"is": "old"})
NEW = image(CONFIG, (LAYER,), annotations={"is": "new"})


def referrer(subject: bytes, kind: str) -> bytes:
    named = {"mediaType": IMAGE, "digest": digest_of(subject), "size": len(subject)}
    return image(CONFIG, (), artifactType=f"application/vnd.test.{kind}", subject=named)


SIGNATURE, BILL = referrer(OLD, "signature"), referrer(OLD, "bill")


Step = Callable[["Client"], Awaitable[None]]


class Failing(Protocol):
    """What fails: a driver, or the way to the store. fault: the one that is due, which counts what it has `fired`."""

    fault: Any


@dataclass(frozen=True)
class Operation:
    """prepare: without faults. run: with them. reads: it changes nothing that a client sees.

    keeps: what was prepared is there all the time.
    """

    name: str
    run: Step
    prepare: Step | None = None
    reads: bool = False
    keeps: bool = True


@dataclass
class Client:
    """http: meets the faults. api: does not: for getting ready, and for looking at what is there.

    expected_fault: the status that a fault is answered with; None: nobody may notice (a pull from a full disk).
    restart: called once a fault was met: the registry that met it is never asked again.
    heals: a registry may get over a fault by itself.
    """

    http: httpx.AsyncClient
    api: Api
    driver: Failing
    operation: Operation
    expected_fault: int | None = 503
    restart: Callable[[], Awaitable[None]] | None = None
    heals: bool = False
    met: bool = field(default=False, init=False)

    async def send(self, method: str, path: str, *expected: int, **more: Any) -> httpx.Response:
        response = await self._send_once(method, path, **more)
        if response is None:
            await self.check_whole()
            response = await self.api.http.request(method, path, **more)
            if method == "DELETE" and response.status_code == 404:
                return response  # it had happened, and only the answer was lost
        assert response.status_code in expected, f"{method} {path}: {response.status_code} {response.text[:300]}"
        return response

    async def _send_once(self, method: str, path: str, **more: Any) -> httpx.Response | None:
        """None where a fault was met, and answered as it should be; then it is over."""
        fired = self.driver.fault.fired if self.driver.fault else 0
        broken = False
        response = httpx.Response(0)
        try:
            response = await self.http.request(method, path, **more)
        except ResponseBroken as exc:
            # in the middle of a body: the server drops the connection, which no client takes for an end
            if not isinstance(exc.__cause__, Unavailable):
                raise
            broken = True
        if self.driver.fault is None or self.driver.fault.fired == fired:
            assert not broken
            return response
        self.met = True
        if (self.operation.reads or self.heals) and not broken and response.is_success:
            return response  # it got by without what failed; whether it is right, the operation checks
        if self.expected_fault is None:
            return response
        self.driver.fault = None
        if not broken:
            what = f"{method} {path}: {response.status_code} {response.text[:300]}"
            assert response.status_code == self.expected_fault, what
            assert response.headers["Retry-After"].isdigit()
            if method != "HEAD":
                assert error_of(response)[1] == "UNAVAILABLE"
        if self.restart is not None:
            await self.restart()
        return None

    async def upload(self, location: str, data: bytes, closing: str = "", offset: int = 0) -> httpx.Response:
        """PATCH, or with a digest the closing PUT, at offset. After a fault it asks where to go on."""
        method, expected = ("PUT", 201) if closing else ("PATCH", 202)
        url = with_query(location, digest=closing) if closing else location
        response = await self._send_once(method, url, content=data)
        if response is None:
            await self.check_whole()
            status = await self.api.http.get(location)
            if status.status_code == 404 and closing:
                # the session is used up. Sent again, the request is known as done, or the client starts anew
                again = await self.api.http.put(url)
                if again.status_code == 201:
                    return again
                return await self.push_anew(data, closing)
            assert status.status_code == 204, status.text
            last = int(status.headers["Range"].removeprefix("0-"))
            stored = last + 1 if last else 0  # no chunk here is so small that one byte of it could have been stored
            assert stored >= offset
            url = status.headers["Location"]
            url = with_query(url, digest=closing) if closing else url
            response = await self.api.http.request(method, url, content=data[stored - offset :])
        assert response.status_code == expected, f"{method}: {response.status_code} {response.text[:300]}"
        return response

    async def push_anew(self, data: bytes, digest: str) -> httpx.Response:
        location = await self.api.start(NAME)
        response = await self.api.http.put(with_query(location, digest=digest), content=data)
        assert response.status_code == 201, response.text
        return response

    async def check_whole(self) -> None:
        """I1 to I4: what was acknowledged is there; what else is there is whole, and what is listed pulls."""
        if self.operation.prepare is not None and self.operation.keeps:
            assert (await self.api.get(f"/v2/{NAME}/manifests/{digest_of(OLD)}")).content == OLD
            assert (await self.api.get(f"/v2/{NAME}/blobs/{digest_of(LAYER)}")).content == LAYER
            assert "t" in await self.api.tags(NAME)
        for data in (CONFIG, LAYER, OTHER, EMPTY):
            found = await self.api.get(f"/v2/{NAME}/blobs/{digest_of(data)}")
            assert found.status_code in (200, 404), found.text
            assert found.status_code == 404 or found.content == data
        listed = await self.api.get(f"/v2/{NAME}/tags/list")
        assert listed.status_code in (200, 404)
        for tag in listed.json()["tags"] if listed.status_code == 200 else []:
            found = await self.api.get(f"/v2/{NAME}/manifests/{tag}")
            assert found.status_code == 200, f"the tag {tag} is listed and does not pull: {found.text}"
            assert found.content in (OLD, NEW, SIGNATURE, BILL)
            by_digest = await self.api.get(f"/v2/{NAME}/manifests/{digest_of(found.content)}")
            assert by_digest.content == found.content
            for named in [json.loads(found.content)["config"], *json.loads(found.content)["layers"]]:
                blob = await self.api.get(f"/v2/{NAME}/blobs/{named['digest']}")
                assert blob.status_code == 200, f"{tag} lost the blob {named}"
        for found_referrer in await self.api.referrers(NAME, digest_of(OLD)):
            found = await self.api.get(f"/v2/{NAME}/manifests/{found_referrer['digest']}")
            assert found.status_code == 200


class Current(httpx.AsyncBaseTransport):
    """Requests go to the registry that runs now."""

    inner: httpx.AsyncBaseTransport

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self.inner.handle_async_request(request)


class Calm(httpx.AsyncBaseTransport):
    """Requests that pass while the fault waits."""

    def __init__(self, inner: httpx.AsyncBaseTransport, driver: Failing) -> None:
        self._inner = inner
        self._driver = driver

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        fault, self._driver.fault = self._driver.fault, None
        try:
            return await self._inner.handle_async_request(request)
        finally:
            self._driver.fault = fault


async def prepare_image(client: Client) -> None:
    await client.api.push_blob(NAME, CONFIG)
    await client.api.push_blob(NAME, LAYER)
    await client.api.push_manifest(NAME, OLD, "t")


async def prepare_referrers(client: Client) -> None:
    await prepare_image(client)
    await client.api.push_manifest(NAME, SIGNATURE, "signature")
    await client.api.push_manifest(NAME, BILL)


async def push_chunks(client: Client) -> None:
    location = (await client.send("POST", f"/v2/{NAME}/blobs/uploads/", 202)).headers["Location"]
    location = (await client.upload(location, OTHER[:4000])).headers["Location"]
    location = (await client.upload(location, OTHER[4000:], offset=4000)).headers["Location"]
    await client.upload(location, b"", closing=digest_of(OTHER), offset=len(OTHER))
    await pulls(client, OTHER)


async def push_with_put(client: Client) -> None:
    for data in (OTHER, EMPTY):
        location = (await client.send("POST", f"/v2/{NAME}/blobs/uploads/", 202)).headers["Location"]
        await client.upload(location, data, closing=digest_of(data))
        await pulls(client, data)


async def push_with_post(client: Client) -> None:
    digest = digest_of(OTHER)
    await client.send("POST", f"/v2/{NAME}/blobs/uploads/?digest={digest}", 201, content=OTHER)
    await pulls(client, OTHER)


async def cancel(client: Client) -> None:
    location = (await client.send("POST", f"/v2/{NAME}/blobs/uploads/", 202)).headers["Location"]
    location = (await client.upload(location, OTHER)).headers["Location"]
    await client.send("GET", location, 204)
    await client.send("DELETE", location, 204)
    assert (await client.api.get(location)).status_code == 404


async def mount(client: Client) -> None:
    await client.send("POST", f"/v2/other/blobs/uploads/?mount={digest_of(LAYER)}&from={NAME}", 201)
    assert (await client.api.get(f"/v2/other/blobs/{digest_of(LAYER)}")).content == LAYER


async def put_by_tag(client: Client) -> None:
    """Over an existing tag, then one with a subject."""
    for body, tag in ((NEW, "t"), (SIGNATURE, "signature")):
        headers = {"Content-Type": IMAGE}
        await client.send("PUT", f"/v2/{NAME}/manifests/{tag}", 201, content=body, headers=headers)
        assert (await client.api.get(f"/v2/{NAME}/manifests/{tag}")).content == body
    assert (await client.api.get(f"/v2/{NAME}/manifests/{digest_of(OLD)}")).content == OLD
    assert [d["digest"] for d in await client.api.referrers(NAME, digest_of(OLD))] == [digest_of(SIGNATURE)]


async def put_by_digest(client: Client) -> None:
    path = f"/v2/{NAME}/manifests/{digest_of(NEW)}?tag=t&tag=u"
    await client.send("PUT", path, 201, content=NEW, headers={"Content-Type": IMAGE})
    assert await client.api.tags(NAME) == ["t", "u"]
    for tag in ("t", "u"):
        assert (await client.api.get(f"/v2/{NAME}/manifests/{tag}")).content == NEW


async def pull(client: Client) -> None:
    for reference in ("t", digest_of(OLD)):
        assert (await client.send("GET", f"/v2/{NAME}/manifests/{reference}", 200)).content == OLD
        await client.send("HEAD", f"/v2/{NAME}/manifests/{reference}", 200)
    blob = f"/v2/{NAME}/blobs/{digest_of(LAYER)}"
    assert (await client.send("GET", blob, 200)).content == LAYER
    await client.send("HEAD", blob, 200)
    part = await client.send("GET", blob, 206, headers={"Range": "bytes=10-99"})
    assert part.content == LAYER[10:100]
    parts = await client.send("GET", blob, 206, headers={"Range": "bytes=10-99,1000-1999"})
    assert LAYER[1000:2000] in parts.content


async def look(client: Client) -> None:
    tags = (await client.send("GET", f"/v2/{NAME}/tags/list", 200)).json()["tags"]
    assert tags == ["signature", "t"]
    assert (await client.send("GET", "/v2/_catalog", 200)).json()["repositories"] == [NAME]
    found = (await client.send("GET", f"/v2/{NAME}/referrers/{digest_of(OLD)}", 200)).json()
    assert found["mediaType"] == INDEX
    assert {d["digest"] for d in found["manifests"]} == {digest_of(SIGNATURE), digest_of(BILL)}


async def delete(client: Client) -> None:
    await client.send("DELETE", f"/v2/{NAME}/manifests/signature", 202)
    assert await client.api.tags(NAME) == ["t"]
    assert len(await client.api.referrers(NAME, digest_of(OLD))) == 2
    await client.send("DELETE", f"/v2/{NAME}/manifests/{digest_of(SIGNATURE)}", 202)
    assert [d["digest"] for d in await client.api.referrers(NAME, digest_of(OLD))] == [digest_of(BILL)]
    await client.send("DELETE", f"/v2/{NAME}/manifests/{digest_of(OLD)}", 202)
    assert await client.api.tags(NAME) == []
    await client.send("DELETE", f"/v2/{NAME}/blobs/{digest_of(LAYER)}", 202)
    for path in (f"manifests/{digest_of(OLD)}", "manifests/t", f"blobs/{digest_of(LAYER)}"):
        assert (await client.api.get(f"/v2/{NAME}/{path}")).status_code == 404


async def pulls(client: Client, data: bytes) -> None:
    found = await client.api.get(f"/v2/{NAME}/blobs/{digest_of(data)}")
    assert (found.status_code, found.content) == (200, data)


OPERATIONS = [
    Operation("push-chunks", push_chunks),
    Operation("push-with-put", push_with_put),
    Operation("push-with-post", push_with_post),
    Operation("cancel", cancel),
    Operation("mount", mount, prepare_image),
    Operation("put-by-tag", put_by_tag, prepare_image),
    Operation("put-by-digest", put_by_digest, prepare_image),
    Operation("pull", pull, prepare_image, reads=True),
    Operation("list", look, prepare_referrers, reads=True),
    Operation("delete", delete, prepare_referrers, keeps=False),
]
