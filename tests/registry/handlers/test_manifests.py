"""Pushing, pulling and deleting manifests as the conformance suite does it."""

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import pytest

from registry.app import create_app
from registry.config import Config
from registry.config.model import ManifestRulesConfig, StorageConfig, ValidationConfig
from registry.serving.lifespan import lifespan
from tests.api import IMAGE, INDEX, Api, descriptor, digest_of, error_of, image, index

BODY = image()
TYPES: Mapping[str, tuple[bytes, str]] = {
    "image": (BODY, IMAGE),
    "index": (index(descriptor(BODY, IMAGE)), INDEX),
    "nested": (index(descriptor(index(descriptor(BODY, IMAGE)), INDEX)), INDEX),
}
algorithms = pytest.mark.parametrize("algorithm", ["sha256", "sha512"])


async def put(api: Api, reference: str, body: bytes, media_type: str = IMAGE, query: str = "") -> httpx.Response:
    return await api.http.put(f"/v2/a/manifests/{reference}{query}", content=body, headers={"Content-Type": media_type})


@pytest.fixture
async def ready(api: Api) -> Api:
    """What BODY names is there."""
    await api.push_blob("a", b"{}")
    return api


async def pulled(api: Api, reference: str, digest: str, body: bytes, media_type: str = IMAGE) -> None:
    """GET and HEAD agree, to the byte."""
    get = await api.get(f"/v2/a/manifests/{reference}", Accept=media_type)
    head = await api.http.head(f"/v2/a/manifests/{reference}", headers={"Accept": media_type})
    assert (get.status_code, get.content, head.status_code, head.content) == (200, body, 200, b"")
    for response in (get, head):
        assert response.headers["Content-Type"] == media_type
        assert response.headers["Content-Length"] == str(len(body))
        assert response.headers["Docker-Content-Digest"] == digest
        assert response.headers["ETag"] == f'"{digest}"'


@algorithms
@pytest.mark.parametrize("kind", TYPES)
async def test_row_27_by_digest(ready: Api, kind: str, algorithm: str) -> None:
    for body, media_type in TYPES.values():
        await ready.push_manifest("a", body, media_type=media_type)
    body, media_type = TYPES[kind]
    digest = digest_of(body, algorithm)
    response = await put(ready, digest, body, media_type)
    assert (response.status_code, response.content) == (201, b"")
    assert response.headers["Location"] == f"/v2/a/manifests/{digest}"
    assert response.headers["Docker-Content-Digest"] == digest
    await pulled(ready, digest, digest, body, media_type)


async def test_row_27_by_tag(ready: Api) -> None:
    response = await put(ready, "v1", BODY)
    assert (response.status_code, response.headers["Location"]) == (201, "/v2/a/manifests/v1")
    assert response.headers["Docker-Content-Digest"] == digest_of(BODY)
    await pulled(ready, "v1", digest_of(BODY), BODY)
    await pulled(ready, digest_of(BODY), digest_of(BODY), BODY)


@algorithms
async def test_row_6_by_tag_with_the_digest_it_was_pushed_with(ready: Api, algorithm: str) -> None:
    digest = digest_of(BODY, algorithm)
    response = await put(ready, digest, BODY, query="?tag=v1&tag=v2")
    assert response.headers["Docker-Content-Digest"] == digest
    for reference in ("v1", "v2", digest):
        await pulled(ready, reference, digest, BODY)


async def test_row_6_a_tag_follows_the_last_push(ready: Api) -> None:
    short, long = digest_of(BODY), digest_of(BODY, "sha512")
    await put(ready, long, BODY, query="?tag=v1")
    await put(ready, "v1", BODY)
    await pulled(ready, "v1", short, BODY)
    await put(ready, long, BODY, query="?tag=v1")
    await pulled(ready, "v1", long, BODY)
    assert (await ready.http.delete(f"/v2/a/manifests/{long}")).status_code == 202
    assert error_of(await ready.get("/v2/a/manifests/v1")) == (404, "MANIFEST_UNKNOWN")
    await pulled(ready, short, short, BODY)


@algorithms
async def test_row_28_wrong_digest(ready: Api, algorithm: str) -> None:
    wrong = digest_of(b"other", algorithm)
    assert error_of(await put(ready, wrong, BODY, query="?tag=v1")) == (400, "DIGEST_INVALID")
    for reference in (wrong, digest_of(BODY), digest_of(BODY, "sha512"), "v1"):
        assert error_of(await ready.get(f"/v2/a/manifests/{reference}")) == (404, "MANIFEST_UNKNOWN")


@algorithms
@pytest.mark.parametrize("media_type", [IMAGE, INDEX])
async def test_row_30_subject(ready: Api, media_type: str, algorithm: str) -> None:
    """Whether it is there or not, and however the manifest is pushed."""
    subject = descriptor(b"not here", IMAGE, algorithm)
    body = image(subject=subject) if media_type == IMAGE else index(subject=subject)
    for reference, query in (("v1", ""), (digest_of(body), ""), (digest_of(body, "sha512"), "?tag=v2")):
        response = await put(ready, reference, body, media_type, query)
        assert (response.status_code, response.headers["OCI-Subject"]) == (201, subject["digest"])


async def test_no_subject(ready: Api) -> None:
    assert "OCI-Subject" not in (await put(ready, "v1", BODY)).headers


async def test_row_26_delete(ready: Api) -> None:
    digest = digest_of(BODY)
    for reference in ("v1", digest):
        await put(ready, "v1", BODY)
        response = await ready.http.delete(f"/v2/a/manifests/{reference}")
        assert (response.status_code, response.content) == (202, b"")
        assert (await ready.http.head(f"/v2/a/manifests/{reference}")).status_code == 404
    assert (await ready.http.head(f"/v2/a/manifests/{digest}")).status_code == 404


async def test_row_34_tags_are_told(ready: Api) -> None:
    names = [f"t{n}" for n in range(100)]  # as many as we take
    response = await put(ready, digest_of(BODY), BODY, query="?" + "&".join(f"tag={name}" for name in names))
    assert response.status_code == 201
    assert response.headers.get_list("OCI-Tag") == names
    assert len(await ready.tags("a")) == 100


async def test_row_34_no_tags_no_header(ready: Api) -> None:
    assert "OCI-Tag" not in (await put(ready, digest_of(BODY), BODY)).headers


async def test_row_41_namespace_is_ignored(ready: Api) -> None:
    await put(ready, "v1", BODY)
    response = await ready.get("/v2/a/manifests/v1?ns=docker.io")
    assert (response.status_code, response.content) == (200, BODY)
    assert "OCI-Namespace" not in response.headers


async def test_pushing_again_heals_a_tag(ready: Api) -> None:
    for _ in range(2):
        assert (await put(ready, "v1", BODY)).status_code == 201
    await pulled(ready, "v1", digest_of(BODY), BODY)


@pytest.fixture
async def sparse(storage_config: StorageConfig) -> AsyncIterator[Api]:
    """validation.manifests.sparse: true."""
    rules = ValidationConfig(manifests=ManifestRulesConfig(sparse=True))
    app = create_app(Config(storage=storage_config, validation=rules))
    async with (
        lifespan(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://registry") as client,
    ):
        yield Api(client)


SPARSE: Mapping[str, tuple[bytes, str]] = {
    "image": (image(b"no config", (b"no layer",)), IMAGE),
    "index": (index(descriptor(b"no image", IMAGE)), INDEX),
}


@pytest.mark.parametrize("kind", SPARSE)
async def test_row_36_sparse(sparse: Api, kind: str) -> None:
    body, media_type = SPARSE[kind]
    assert (await put(sparse, "v1", body, media_type)).status_code == 201
    await pulled(sparse, "v1", digest_of(body), body, media_type)


@pytest.mark.parametrize("kind", SPARSE)
async def test_row_36_not_sparse(ready: Api, kind: str) -> None:
    body, media_type = SPARSE[kind]
    assert error_of(await put(ready, "v1", body, media_type)) == (400, "MANIFEST_BLOB_UNKNOWN")


ODD: Mapping[str, dict[str, Any]] = {
    "artifact-type": {"artifactType": "application/vnd.example"},
    "no-layers": {"layers": []},
    "unknown-fields": {"foo": {"bar": [1, "2"]}, "Ünïcode": "\u2028"},
    "annotations": {"annotations": {"": "", "a/b": "c"}},
    "data": {"config": {**descriptor(b"{}", "application/vnd.oci.empty.v1+json"), "data": "e30="}},
}


@pytest.mark.parametrize("what", ODD, ids=lambda what: f"row-38-{what}")
async def test_bytes_are_untouched(ready: Api, what: str) -> None:
    body = json.dumps({**json.loads(BODY), **ODD[what]}, ensure_ascii=False).encode()
    assert (await put(ready, "v1", body)).status_code == 201
    await pulled(ready, "v1", digest_of(body), body)
