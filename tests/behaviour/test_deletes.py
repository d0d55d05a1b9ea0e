"""Deletes (rows 128 to 130), and the modes in which nothing can be deleted or pushed (S5)."""

from collections.abc import AsyncIterator

import httpx
import pytest

from registry.app import create_app
from registry.config import Config
from registry.config.model import DeleteConfig, StorageConfig
from registry.serving.lifespan import lifespan
from tests.api import IMAGE, Api, digest_of, error_of
from tests.behaviour.conftest import root_of
from tests.behaviour.table import (
    ABSENT,
    CONFIG_DIGEST,
    LAYER_DATA,
    LAYER_DIGEST,
    MANIFEST,
    MANIFEST_DIGEST,
    NAME,
    Bad,
    Wire,
    World,
    by_id,
    refused,
)
from tests.conftest import read_only

AT = f"/v2/{NAME}"
MISSING = [
    Bad("128", "tag", "DELETE", f"{AT}/manifests/nope", 404, "MANIFEST_UNKNOWN"),
    Bad("128", "manifest", "DELETE", f"{AT}/manifests/{ABSENT}", 404, "MANIFEST_UNKNOWN"),
    Bad("128", "blob", "DELETE", f"{AT}/blobs/{ABSENT}", 404, "BLOB_UNKNOWN"),
    Bad("128", "manifest-of-another-name", "DELETE", f"/v2/b/manifests/{MANIFEST_DIGEST}", 404, "MANIFEST_UNKNOWN"),
    Bad("128", "blob-of-another-name", "DELETE", f"/v2/b/blobs/{LAYER_DIGEST}", 404, "BLOB_UNKNOWN"),
    Bad("128", "blob-as-manifest", "DELETE", f"{AT}/manifests/{LAYER_DIGEST}", 404, "MANIFEST_UNKNOWN"),
    Bad("128", "manifest-as-blob", "DELETE", f"{AT}/blobs/{MANIFEST_DIGEST}", 404, "BLOB_UNKNOWN"),
    Bad("128", "bad-digest", "DELETE", f"{AT}/manifests/sha256:bad", 400, "DIGEST_INVALID"),
    Bad("128", "bad-blob-digest", "DELETE", f"{AT}/blobs/bad", 400, "DIGEST_INVALID"),
]

CORPUS = MISSING


@by_id(MISSING)
async def test_refused(wire: Wire, case: Bad) -> None:
    await wire.refuses(case)


async def test_row_129_manifest_with_two_tags(world: World) -> None:
    api = world.api
    await api.push_manifest(NAME, MANIFEST, "v2")
    other = await api.push_image(NAME, "other")
    response = await api.http.delete(f"{AT}/manifests/{MANIFEST_DIGEST}")
    assert (response.status_code, response.content) == (202, b"")
    for reference in ("v1", "v2", MANIFEST_DIGEST):
        assert error_of(await api.get(f"{AT}/manifests/{reference}")) == (404, "MANIFEST_UNKNOWN")
        assert (await api.http.head(f"{AT}/manifests/{reference}")).status_code == 404
    assert await api.tags(NAME) == ["other"]
    assert (await api.get(f"{AT}/manifests/{other}")).status_code == 200
    assert error_of(await api.http.delete(f"{AT}/manifests/{MANIFEST_DIGEST}")) == (404, "MANIFEST_UNKNOWN")


async def test_tag_goes_and_the_manifest_stays(world: World) -> None:
    api = world.api
    await api.push_manifest(NAME, MANIFEST, "v2")
    assert (await api.http.delete(f"{AT}/manifests/v1")).status_code == 202
    assert error_of(await api.get(f"{AT}/manifests/v1")) == (404, "MANIFEST_UNKNOWN")
    assert await api.tags(NAME) == ["v2"]
    assert (await api.get(f"{AT}/manifests/{MANIFEST_DIGEST}")).content == MANIFEST


async def test_last_tag_goes_and_the_repository_stays(world: World) -> None:
    assert (await world.api.http.delete(f"{AT}/manifests/v1")).status_code == 202
    assert await world.api.tags(NAME) == []
    assert (await world.api.get("/v2/_catalog")).json() == {"repositories": [NAME]}


async def test_row_130_blob_that_is_still_referenced(world: World) -> None:
    """It goes; the manifest stays, and a push of the blob heals the image."""
    api = world.api
    response = await api.http.delete(f"{AT}/blobs/{LAYER_DIGEST}")
    assert (response.status_code, response.content) == (202, b"")
    assert error_of(await api.get(f"{AT}/blobs/{LAYER_DIGEST}")) == (404, "BLOB_UNKNOWN")
    assert (await api.http.head(f"{AT}/blobs/{LAYER_DIGEST}")).status_code == 404
    assert error_of(await api.http.delete(f"{AT}/blobs/{LAYER_DIGEST}")) == (404, "BLOB_UNKNOWN")
    assert (await api.get(f"{AT}/manifests/v1")).status_code == 200
    response = await api.http.put(f"{AT}/manifests/v2", content=MANIFEST, headers={"Content-Type": IMAGE})
    assert error_of(response) == (400, "MANIFEST_BLOB_UNKNOWN")
    await api.push_blob(NAME, LAYER_DATA)
    assert (await api.get(f"{AT}/blobs/{LAYER_DIGEST}")).content == LAYER_DATA


async def test_s4_blob_of_two_repositories(world: World) -> None:
    """Deleted in one, it is gone there at once, and stays in the other (CVE-2026-35172)."""
    api = world.api
    await api.push_blob("b", LAYER_DATA)
    assert (await api.http.delete(f"{AT}/blobs/{LAYER_DIGEST}")).status_code == 202
    assert (await api.get(f"/v2/b/blobs/{LAYER_DIGEST}")).content == LAYER_DATA
    assert error_of(await api.get(f"{AT}/blobs/{LAYER_DIGEST}")) == (404, "BLOB_UNKNOWN")


async def test_pushed_again_after_a_delete(world: World) -> None:
    api = world.api
    for _ in range(3):
        assert (await api.http.delete(f"{AT}/manifests/{MANIFEST_DIGEST}")).status_code == 202
        for digest in (LAYER_DIGEST, CONFIG_DIGEST):
            assert (await api.http.delete(f"{AT}/blobs/{digest}")).status_code == 202
        assert world.files() <= {path for path in world.files() if "/blobs/" in path}  # bytes wait for the collector
        await world.begin()
        assert (await api.get(f"{AT}/manifests/v1")).content == MANIFEST
        assert (await api.get(f"{AT}/blobs/{LAYER_DIGEST}")).content == LAYER_DATA


TYPED = {"Content-Type": IMAGE}


def not_offered(method: str, target: str, allow: str, body: bytes = b"") -> Bad:
    """A request that the registry's mode does not have. allow: what is left."""
    fields = TYPED if "/manifests/" in target else {}
    return Bad("42", f"{method}-{target}", method, target, 405, "UNSUPPORTED", fields, body, allow)


def deletes(manifest_allow: str) -> list[Bad]:
    return [
        *(
            not_offered("DELETE", f"{AT}/manifests/{ref}", manifest_allow)
            for ref in ("v1", MANIFEST_DIGEST, ABSENT, "no")
        ),
        *(not_offered("DELETE", f"{AT}/blobs/{digest}", "GET, HEAD") for digest in (LAYER_DIGEST, ABSENT)),
    ]


PUSHES = [
    not_offered("POST", f"{AT}/blobs/uploads/", ""),
    not_offered("POST", f"{AT}/blobs/uploads/?digest={digest_of(b'x')}", "", b"x"),
    not_offered("POST", f"/v2/b/blobs/uploads/?mount={LAYER_DIGEST}&from={NAME}", ""),
    not_offered("GET", f"{AT}/blobs/uploads/x", ""),
    not_offered("PATCH", f"{AT}/blobs/uploads/x", "", b"x"),
    not_offered("PUT", f"{AT}/blobs/uploads/x?digest={ABSENT}", "", b"x"),
    not_offered("DELETE", f"{AT}/blobs/uploads/x", ""),
    not_offered("PUT", f"{AT}/manifests/v1", "GET, HEAD", MANIFEST),
    not_offered("PUT", f"{AT}/manifests/{MANIFEST_DIGEST}?tag=v2", "GET, HEAD", MANIFEST),
]


async def filled(storage: StorageConfig) -> AsyncIterator[World]:
    """The world pushed to a store with everything allowed, which the test then sees in another mode."""
    app = create_app(Config(storage=storage))
    async with lifespan(app), client_of(app) as client:
        yield await World(Api(client), root_of(storage)).begin()


def client_of(app: object) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://registry")  # type: ignore[arg-type]


@pytest.fixture
async def without_deletes(storage_config: StorageConfig) -> AsyncIterator[World]:
    """storage.delete.enabled as it is by default: off."""
    config = StorageConfig(
        driver=storage_config.driver, parameters=storage_config.parameters, delete=DeleteConfig(enabled=False)
    )
    async for world in filled(config):
        yield world


@by_id(deletes("GET, HEAD, PUT"))
async def test_deletes_off(without_deletes: World, case: Bad) -> None:
    response = await refused(without_deletes, case)
    assert "storage.delete.enabled" in response.json()["errors"][0]["message"]


@pytest.fixture
async def readonly(storage_config: StorageConfig) -> AsyncIterator[World]:
    """The filesystem only: what is in memory is not there when the registry starts again in another mode."""
    if storage_config.driver != "filesystem":
        app = create_app(Config(storage=read_only(storage_config)))
        async with lifespan(app), client_of(app) as client:
            yield World(Api(client), None)
        return
    async for _ in filled(storage_config):
        pass
    app = create_app(Config(storage=read_only(storage_config)))
    async with lifespan(app), client_of(app) as client:
        yield World(Api(client), root_of(storage_config))


@by_id([*deletes("GET, HEAD"), *PUSHES])
async def test_read_only(readonly: World, case: Bad) -> None:
    response = await refused(readonly, case)
    assert "storage.maintenance.readonly" in response.json()["errors"][0]["message"]


async def test_read_only_is_pulled_from(readonly: World) -> None:
    if readonly.root is not None:
        seen = await readonly.seen()
        assert seen[f"{NAME}:v1"] == (200, MANIFEST_DIGEST)
        assert seen["blob"] == (200, LAYER_DATA)
        assert await readonly.api.referrers(NAME, MANIFEST_DIGEST) == []
        assert await readonly.seen() == seen
