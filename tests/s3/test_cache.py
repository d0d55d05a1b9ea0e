"""A bucket as the cache of upstreams: what one replica has fetched serves all, and redirects lead to what is there."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest

from registry.config import Config
from registry.config.model import CacheConfig
from registry.config.upstreams import UpstreamConfig
from storage import layout
from storage.digest import Digest
from storage.names import parse_name
from tests.api import Api, image
from tests.registry.proxy import scripted as act
from tests.registry.proxy.scripted import Scripted
from tests.s3.caching import LAYERS, NAME, Bucket, gets, have, pull, settled, slow
from tests.s3.registries import config_of, serving
from tests.s3.relay import Relay

pytestmark = pytest.mark.slow

Replica = Callable[..., Any]


@pytest.fixture
def replica(bucket: Bucket, hub: Scripted) -> Replica:
    """Another registry on the bucket, which knows nothing but what is there."""

    @asynccontextmanager
    async def start(
        *, redirects: bool = False, ttl: float = 3600.0, followers: str = "wait", endpoint: str = ""
    ) -> AsyncIterator[Api]:
        through = {"regionendpoint": endpoint} if endpoint else {}
        config: Config = config_of(bucket.parameters | through, redirects=redirects, deletes=False)
        upstream = UpstreamConfig(url=hub.url, name="hub", ttl=ttl, default=True)
        config = replace(config, upstreams=(upstream,), cache=CacheConfig(followers=followers))
        async with serving(config) as api:
            yield api

    return start


async def test_what_one_has_fetched_serves_all(hub: Scripted, replica: Replica, bucket: Bucket) -> None:
    have(hub)
    async with replica() as first, replica() as second:
        await pull(first)
        await settled(bucket)
        asked = len(hub.requests)
        await pull(second)
        part = await second.get(f"/v2/{NAME}/blobs/{Digest.of(LAYERS[2])}", Range="bytes=5900000-5900099")
        assert (part.status_code, part.content) == (206, LAYERS[2][5900000:5900100])
        assert [seen.target for seen in hub.requests[asked:]] == []
    assert set(gets(hub).values()) == {1}


async def test_a_restart_without_the_upstream(hub: Scripted, replica: Replica, bucket: Bucket) -> None:
    have(hub)
    async with replica() as api:
        await pull(api)
        await settled(bucket)
    hub.on("*", "/", act.reset())
    async with replica(ttl=0.0) as api:
        await pull(api)
        stale = await api.get(f"/v2/{NAME}/manifests/v1")
        assert stale.headers["Warning"].startswith("299 - ")


async def test_another_repository_needs_no_download(hub: Scripted, replica: Replica, bucket: Bucket) -> None:
    have(hub)
    have(hub, "team/other")
    async with replica() as first:
        await pull(first)
        await settled(bucket)
    async with replica() as second:
        await pull(second, "team/other")
    assert hub.count("GET", "/v2/team/other/blobs/") == 0
    assert hub.count("HEAD", "/v2/team/other/blobs/") == 4


async def test_a_redirect_only_to_what_is_there(hub: Scripted, replica: Replica, bucket: Bucket) -> None:
    """A cache has manifests whose blobs it lacks: they vouch for none."""
    have(hub)
    blob = f"/v2/{NAME}/blobs/{Digest.of(LAYERS[1])}"
    async with replica(redirects=True) as api, replica(redirects=True) as other:
        for each in (api, other):
            digest = (await each.get(f"/v2/{NAME}/manifests/v1")).json()["manifests"][0]["digest"]
            assert (await each.get(f"/v2/{NAME}/manifests/{digest}")).status_code == 200
        assert (await other.http.head(blob)).status_code == 200
        first = await api.get(blob)
        assert (first.status_code, first.content) == (200, LAYERS[1])
        await settled(bucket)
        for each in (api, other):
            told = await each.get(blob)
            assert told.status_code == 307
            async with httpx.AsyncClient(trust_env=False) as client:
                assert (await client.get(told.headers["Location"])).content == LAYERS[1]
        bucket.delete(layout.blob_data(Digest.of(LAYERS[1])))
        for each in (other, api):
            again = await each.get(blob)
            assert again.status_code in (200, 307)
            if again.status_code == 200:
                assert again.content == LAYERS[1]
                await settled(bucket)
    assert hub.count("GET", blob) == 2


async def test_what_is_damaged_is_fetched_again(hub: Scripted, replica: Replica, bucket: Bucket) -> None:
    """A PUT that died leaves an empty object in some stores."""
    have(hub)
    blob = f"/v2/{NAME}/blobs/{Digest.of(LAYERS[1])}"
    for damage in (b"", b"shorter"):
        bucket.put(layout.blob_data(Digest.of(LAYERS[1])), damage)
        async with replica() as api, replica() as other:
            for each in (api, other):
                found = await each.get(blob)
                assert (found.status_code, found.content) == (200, LAYERS[1])
                await settled(bucket)
        bucket.delete(layout.layer_link(parse_name(f"hub/{NAME}"), Digest.of(LAYERS[1])))
    assert hub.count("GET", blob) == 2


@pytest.mark.parametrize("followers", ["wait", "upstream"])
async def test_asked_at_once(hub: Scripted, replica: Replica, bucket: Bucket, followers: str) -> None:
    have(hub)
    hub.on("GET", f"/v2/{NAME}/", slow)
    async with replica(followers=followers) as first, replica(followers=followers) as second:
        await asyncio.gather(*(pull(each) for each in (first, second) for _ in range(5)))
        await settled(bucket)
    counted = set(gets(hub).values())
    assert counted == {1} if followers == "wait" else counted <= {1, 2}
    blobs = [key for key in bucket.keys(layout.BLOBS) if key.endswith("/data")]
    assert len(blobs) == 6


async def test_a_tag_that_has_moved_is_fetched_by_one(hub: Scripted, replica: Replica, bucket: Bucket) -> None:
    have(hub)
    async with replica(ttl=0.0) as first, replica(ttl=0.0) as second:
        await pull(first)
        await settled(bucket)
        body = image(b"{}", annotations={"moved": "yes"})
        digest = hub.image(NAME, "v1", body)
        hub.requests.clear()
        hub.on("GET", f"/v2/{NAME}/manifests/", slow)
        answers = await asyncio.gather(*(each.get(f"/v2/{NAME}/manifests/v1") for each in (first, second)))
        assert [answer.headers["Docker-Content-Digest"] for answer in answers] == [str(digest)] * 2
        assert hub.count("GET", f"/v2/{NAME}/manifests/") == 1
        await settled(bucket)


async def test_what_the_upstream_lacks(hub: Scripted, replica: Replica, bucket: Bucket) -> None:
    """An error is told, and leaves no lease."""
    async with replica() as api:
        for path in (f"/v2/{NAME}/manifests/v1", f"/v2/{NAME}/blobs/{Digest.of(b'no such')}"):
            assert (await api.get(path)).status_code == 404
        hub.on("*", "/", act.status(503))
        assert (await api.get(f"/v2/{NAME}/blobs/{Digest.of(b'nor such')}")).status_code == 503
    await settled(bucket)


async def test_what_a_turn_costs(hub: Scripted, replica: Replica, bucket: Bucket) -> None:
    """A PUT, a HEAD and a DELETE for a blob that is fetched; nothing for one that is cached. docs/proxy.md says so."""
    have(hub)
    async with Relay(bucket.server.endpoint) as relay, replica(endpoint=relay.endpoint) as api:
        await api.get(f"/v2/{NAME}/blobs/{Digest.of(LAYERS[0])}")
        while not relay.counts()["ListObjectsV2"]:  # noqa: ASYNC110 - the one of a process, behind its first answer
            await asyncio.sleep(0.01)
        cold, warm = Digest.of(LAYERS[1]), Digest.of(LAYERS[0])
        with relay.counting() as calls:
            await api.get(f"/v2/{NAME}/blobs/{cold}")
            await settled(bucket)
        data, lease = layout.blob_data(cold), layout.blob_lease(cold)
        made = [(call.operation, call.key.removeprefix(f"{bucket.root}/")) for call in calls]
        assert [operation for operation, key in made if key == lease] == ["PutObject", "DeleteObject"]
        assert [operation for operation, key in made if key == data] == [
            *("GetObject", "HeadObject", "HeadObject", "PutObject")
        ]
        assert len(made) == 8, f"the link is read and written besides: {made}"
        with relay.counting() as calls:
            await api.get(f"/v2/{NAME}/blobs/{warm}")
        assert [call.operation for call in calls] == ["GetObject", "GetObject"]
