"""The registry as a pull-through cache, over HTTP: F25 to F32, P9, S14, S20 and S23 of the design."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from registry.app import create_app
from registry.config import Config
from registry.config.model import StorageConfig
from registry.config.upstreams import ProxyConfig, UpstreamConfig
from registry.serving.lifespan import lifespan
from tests.api import INDEX, Api, digest_of, error_of, image, index

from . import scripted as act
from .scripted import EMPTY, Act, Scripted, manifest

DATA = bytes(range(256)) * 2000
NAME = "team/app"


@pytest.fixture(params=["inmemory", "filesystem"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> StorageConfig:
    parameters = {"rootdirectory": str(tmp_path / "data")} if request.param == "filesystem" else {}
    return StorageConfig(driver=request.param, parameters=parameters)


Serve = Callable[..., Any]


@pytest.fixture
def serve(storage: StorageConfig) -> Serve:
    """The registry with these top-level settings, as a client of it."""

    @asynccontextmanager
    async def serving(**settings: Any) -> AsyncIterator[Api]:
        app = create_app(Config(storage=storage, **settings))
        async with (
            lifespan(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://registry") as client,
        ):
            yield Api(client)

    return serving


@pytest.fixture
async def api(hub: Scripted, serve: Serve) -> AsyncIterator[Api]:
    """The hub, whose tags are asked about at every pull, and what it does not have is hosted nowhere."""
    async with serve(upstreams=(UpstreamConfig(url=hub.url, name="hub", ttl=0.0, default=True),)) as found:
        yield found


def stop(hub: Scripted) -> None:
    """It answers nothing any more."""
    hub.on("*", "/", act.reset())


async def pull(api: Api, reference: str, name: str = NAME, query: str = "") -> httpx.Response:
    return await api.get(f"/v2/{name}/manifests/{reference}{query}")


# Manifests


async def test_twice_and_without_the_upstream(hub: Scripted, api: Api) -> None:
    digest = hub.image(NAME, "v1")
    first = await pull(api, "v1")
    assert (first.status_code, first.content) == (200, EMPTY)
    assert first.headers["Docker-Content-Digest"] == str(digest)
    assert "Warning" not in first.headers
    assert hub.count("GET", "/v2/") == 1
    assert (await pull(api, "v1")).content == EMPTY
    assert (await pull(api, str(digest))).content == EMPTY
    assert hub.count("GET", "/v2/") == 1
    stop(hub)
    again = await pull(api, "v1")
    assert (again.status_code, again.content) == (200, EMPTY)
    assert again.headers["Warning"].startswith('299 - "served from the cache: ')
    assert int(again.headers["Age"]) >= 0
    by_digest = await pull(api, str(digest))
    assert by_digest.content == EMPTY
    assert "Warning" not in by_digest.headers


async def test_a_tag_that_moves(hub: Scripted, api: Api) -> None:
    """F31: the old one by its digest is still there."""
    old = hub.image(NAME, "v1")
    await pull(api, "v1")
    new = hub.image(NAME, "v1", manifest(1))
    moved = await pull(api, "v1")
    assert moved.headers["Docker-Content-Digest"] == str(new)
    del hub.manifests[NAME, str(old)]
    assert (await pull(api, str(old))).content == EMPTY


async def test_within_its_time_a_tag_is_not_asked_about(hub: Scripted, serve: Serve, storage: StorageConfig) -> None:
    """Nor after a restart, as the store knows how old it is."""
    settings = {"upstreams": (UpstreamConfig(url=hub.url, name="hub", ttl=3600.0, default=True),)}
    hub.image(NAME, "v1")
    async with serve(**settings) as api:
        for _ in range(3):
            assert (await pull(api, "v1")).status_code == 200
        assert len(hub.requests) == 1
    if storage.driver == "filesystem":
        async with serve(**settings) as api:
            assert (await pull(api, "v1")).status_code == 200
        assert len(hub.requests) == 1


async def test_after_its_time_it_costs_a_head(hub: Scripted, api: Api) -> None:
    hub.image(NAME, "v1")
    for _ in range(3):
        assert (await pull(api, "v1")).status_code == 200
    assert [seen.method for seen in hub.requests] == ["GET", "HEAD", "HEAD"]
    assert hub.requests[1].headers["if-none-match"] == f'"{digest_of(EMPTY)}"'


async def test_many_who_ask_at_once_are_one_question(hub: Scripted, api: Api) -> None:
    hub.image(NAME, "v1")
    go = asyncio.Event()
    hub.on("GET", "/v2/", act.gate(go))
    asking = [asyncio.create_task(pull(api, "v1")) for _ in range(20)]
    while not hub.requests:  # noqa: ASYNC110 - of what has no event
        await asyncio.sleep(0)
    go.set()
    assert {each.status_code for each in await asyncio.gather(*asking)} == {200}
    assert len(hub.requests) == 1


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (act.error(429, "TOOMANYREQUESTS", Retry_After="7"), 429, "TOOMANYREQUESTS"),
        (act.status(503), 503, "UNAVAILABLE"),
        (act.html(200), 502, "UNAVAILABLE"),
        (act.error(403, "DENIED"), 403, "DENIED"),
        (act.error(404, "MANIFEST_UNKNOWN"), 404, "MANIFEST_UNKNOWN"),
    ],
)
async def test_what_is_cached_is_served_and_what_is_not_is_the_fault(
    hub: Scripted, api: Api, fault: Act, status: int, code: str
) -> None:
    """F26, F27, F32."""
    hub.image(NAME, "v1")
    await pull(api, "v1")
    hub.on("*", "/v2/", fault)
    cached = await pull(api, "v1")
    assert cached.status_code == 200
    assert "Age" in cached.headers
    missing = await pull(api, "v2")
    assert error_of(missing) == (status, code)
    if status == 429:
        assert int(missing.headers["Retry-After"]) <= 7


async def test_a_deleted_tag_goes_where_a_setting_says_so(hub: Scripted, serve: Serve) -> None:
    digest = hub.image(NAME, "v1")
    upstream = UpstreamConfig(url=hub.url, name="hub", ttl=0.0, default=True, deleted="drop")
    async with serve(upstreams=(upstream,)) as api:
        await pull(api, "v1")
        hub.manifests.clear()
        assert error_of(await pull(api, "v1")) == (404, "MANIFEST_UNKNOWN")
        assert (await pull(api, str(digest))).status_code == 200


async def test_what_is_missing_is_remembered_briefly(hub: Scripted, api: Api) -> None:
    for _ in range(3):
        assert error_of(await pull(api, "v1")) == (404, "MANIFEST_UNKNOWN")
    assert len(hub.requests) == 1


async def test_an_index_and_its_images(hub: Scripted, api: Api) -> None:
    """The index comes before them."""
    child = hub.image(NAME, "child")
    body = index({"mediaType": json.loads(EMPTY)["mediaType"], "digest": str(child), "size": len(EMPTY)})
    hub.image(NAME, "v1", body)
    found = await pull(api, "v1")
    assert found.headers["Content-Type"] == INDEX
    stop(hub)
    assert (await pull(api, "v1")).content == body
    assert (await pull(api, str(child))).status_code == 502


# Blobs


async def test_a_blob_twice_and_without_the_upstream(hub: Scripted, api: Api) -> None:
    digest = hub.blob(NAME, DATA)
    path = f"/v2/{NAME}/blobs/{digest}"
    head = await api.http.head(path)
    assert (head.status_code, head.headers["Content-Length"]) == (200, str(len(DATA)))
    found = await api.get(path)
    assert (found.status_code, found.content) == (200, DATA)
    stop(hub)
    assert (await api.get(path)).content == DATA
    part = await api.get(path, Range="bytes=5-9")
    assert (part.status_code, part.content) == (206, DATA[5:10])
    assert (await api.http.head(path)).status_code == 200
    assert hub.count("GET", "/v2/") == 1


async def test_a_small_wrong_blob_is_a_502(hub: Scripted, api: Api) -> None:
    hub.on("GET", "/v2/", act.body(b"other"))
    answer = await api.get(f"/v2/{NAME}/blobs/{digest_of(b'small')}")
    assert error_of(answer) == (502, "UNAVAILABLE")


async def test_an_unknown_blob(hub: Scripted, api: Api) -> None:
    assert error_of(await api.get(f"/v2/{NAME}/blobs/{digest_of(b'?')}")) == (404, "BLOB_UNKNOWN")
    assert (await api.http.head(f"/v2/{NAME}/blobs/{digest_of(b'?')}")).status_code == 404


async def test_a_blob_of_one_repository_is_not_anothers(hub: Scripted, api: Api) -> None:
    """P9; and it is without a download where the upstream says that it is."""
    digest = hub.blob(NAME, DATA)
    assert (await api.get(f"/v2/{NAME}/blobs/{digest}")).content == DATA
    assert error_of(await api.get(f"/v2/other/blobs/{digest}")) == (404, "BLOB_UNKNOWN")
    hub.blob("third", DATA)
    assert (await api.get(f"/v2/third/blobs/{digest}")).content == DATA
    assert hub.count("GET", "/v2/third/") == 0


# Lists


async def test_tags_of_both(hub: Scripted, api: Api) -> None:
    hub.image(NAME, "v1")
    await pull(api, "v1")
    del hub.manifests[NAME, "v1"]
    for tag in ("a", "b", "z"):
        hub.image(NAME, tag, manifest(ord(tag)))
    assert await api.tags(NAME) == ["a", "b", "v1", "z"]
    assert await api.tags(NAME, "?n=2") == ["a", "b"]
    assert await api.tags(NAME, "?n=2&last=b") == ["v1", "z"]


async def test_tags_of_the_cache_alone(hub: Scripted, api: Api) -> None:
    hub.image(NAME, "v1")
    await pull(api, "v1")
    stop(hub)
    assert await api.tags(NAME) == ["v1"]
    assert error_of(await api.get("/v2/other/tags/list"))[0] == 502


async def test_tags_of_nothing(api: Api) -> None:
    assert error_of(await api.get("/v2/other/tags/list")) == (404, "NAME_UNKNOWN")


async def test_referrers_of_both(hub: Scripted, api: Api) -> None:
    subject = hub.image(NAME, "v1")
    described = {"mediaType": json.loads(EMPTY)["mediaType"], "digest": str(subject), "size": len(EMPTY)}
    first = hub.image(NAME, "s1", image(subject=described))
    await pull(api, str(first))
    hub.manifests.pop((NAME, str(first)))
    second = hub.image(NAME, "s2", image(subject=described, annotations={"n": "2"}))
    assert {each["digest"] for each in await api.referrers(NAME, str(subject))} == {str(first), str(second)}
    stop(hub)
    assert [each["digest"] for each in await api.referrers(NAME, str(subject))] == [str(first)]


# Names


async def test_one_cache_for_all_ways_to_ask(hub: Scripted, serve: Serve) -> None:
    hub.image(NAME, "v1")
    upstream = UpstreamConfig(url=hub.url, name="hub.lan:5000", default=True)
    async with serve(upstreams=(upstream,)) as api:
        for name, query in ((NAME, ""), (NAME, "?ns=hub.lan:5000"), (f"hub.lan_5000/{NAME}", "")):
            answer = await pull(api, "v1", name, query)
            assert answer.status_code == 200
            assert answer.headers.get("OCI-Namespace") == ("hub.lan:5000" if query else None)
        assert len(hub.requests) == 1
        assert (await api.get("/v2/_catalog")).json() == {"repositories": [f"hub.lan_5000/{NAME}"]}


@pytest.mark.parametrize("ns", ["ghcr.io", "169.254.169.254", "127.0.0.1:1", "[::ffff:127.0.0.1]", ""])
async def test_an_unknown_namespace(hub: Scripted, api: Api, ns: str) -> None:
    """S14: neither asked nor answered with another registry's image."""
    hub.image(NAME, "v1")
    assert error_of(await pull(api, "v1", query=f"?ns={ns}")) == (404, "NAME_UNKNOWN")
    assert not hub.requests


@pytest.mark.parametrize(
    "path", ["manifests/v1", "blobs/sha256:" + "0" * 64, "tags/list", "referrers/sha256:" + "0" * 64]
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_what_is_not_allowed_is_not_asked(hub: Scripted, serve: Serve, path: str, method: str) -> None:
    """S23."""
    upstream = UpstreamConfig(url=hub.url, name="hub", default=True, deny=("team/**",))
    async with serve(upstreams=(upstream,)) as api:
        assert (await api.http.request(method, f"/v2/{NAME}/{path}")).status_code == 403
    assert not hub.requests


async def test_hosted_beside_it(hub: Scripted, serve: Serve) -> None:
    upstream = UpstreamConfig(url=hub.url, name="hub", default=True)
    async with serve(upstreams=(upstream,), hosted=("mine/**",)) as api:
        await api.push_image("mine/app", "v1")
        assert (await pull(api, "v1", "mine/app")).status_code == 200
        assert error_of(await pull(api, "v2", "mine/app")) == (404, "MANIFEST_UNKNOWN")
    assert not hub.requests


async def test_a_mirror_as_distribution_has_it(hub: Scripted, serve: Serve) -> None:
    hub.image(NAME, "v1")
    async with serve(proxy=ProxyConfig(remoteurl=hub.url)) as api:
        assert (await pull(api, "v1")).content == EMPTY
        stop(hub)
        assert (await pull(api, "v1")).content == EMPTY
        assert (await api.get("/v2/_catalog")).json() == {"repositories": [NAME]}


# Writes (S20)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "blobs/uploads/"),
        ("POST", "blobs/uploads/?mount={digest}&from=other"),
        ("POST", "blobs/uploads/?digest={digest}"),
        ("PATCH", "blobs/uploads/x"),
        ("PUT", "blobs/uploads/x?digest={digest}"),
        ("PUT", "manifests/v1"),
        ("PUT", "manifests/{digest}"),
        ("DELETE", "manifests/v1"),
        ("DELETE", "manifests/{digest}"),
        ("DELETE", "blobs/{digest}"),
    ],
)
async def test_s15_nobody_writes(hub: Scripted, serve: Serve, storage: StorageConfig, method: str, path: str) -> None:
    upstream = UpstreamConfig(url=hub.url, name="hub", default=True)
    for settings in ({"upstreams": (upstream,)}, {"proxy": ProxyConfig(remoteurl=hub.url)}):
        async with serve(**settings) as api:
            answer = await api.http.request(
                method, f"/v2/{NAME}/{path.format(digest=digest_of(b'data'))}", content=b"data"
            )
            assert error_of(answer) == (405, "UNSUPPORTED")
    assert not hub.requests


async def test_it_starts_without_its_upstream(serve: Serve) -> None:
    upstream = UpstreamConfig(url="http://127.0.0.1:9", name="hub")
    async with serve(upstreams=(upstream,)) as api:
        assert (await api.get("/v2/")).status_code == 200
        await api.push_image("a", "v1")
        assert error_of(await pull(api, "v1", "hub/a"))[0] == 502
