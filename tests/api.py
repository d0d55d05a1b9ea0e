"""A small registry client for tests: what a push and a pull are, in the words of the spec."""

import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx

IMAGE = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_IMAGE = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def digest_of(data: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


def descriptor(data: bytes, media_type: str = LAYER, algorithm: str = "sha256", **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(data, algorithm), "size": len(data), **more}


def image(config: bytes = b"{}", layers: tuple[bytes, ...] = (), **more: Any) -> bytes:
    """The bytes of an OCI image manifest."""
    body = {
        "schemaVersion": 2,
        "mediaType": IMAGE,
        "config": descriptor(config, CONFIG),
        "layers": [descriptor(layer) for layer in layers],
        **more,
    }
    return json.dumps({k: v for k, v in body.items() if v is not None}).encode()


def index(*manifests: dict[str, Any], **more: Any) -> bytes:
    """The bytes of an OCI image index."""
    return json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": list(manifests), **more}).encode()


async def in_pieces(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


@dataclass
class Api:
    """Talks to one registry; `http` for everything that has no method of its own."""

    http: httpx.AsyncClient

    async def start(self, name: str, query: str = "") -> str:
        """Open an upload session; its Location."""
        response = await self.http.post(f"/v2/{name}/blobs/uploads/{query}")
        assert response.status_code == 202, response.text
        return response.headers["Location"]

    async def push_blob(self, name: str, data: bytes, algorithm: str = "sha256") -> str:
        digest = digest_of(data, algorithm)
        location = await self.start(name)
        response = await self.http.put(with_query(location, digest=digest), content=data)
        assert response.status_code == 201, response.text
        return digest

    async def push_manifest(self, name: str, body: bytes, reference: str = "", media_type: str = IMAGE) -> str:
        """By digest where no reference is given; the digest that the registry answers with."""
        response = await self.http.put(
            f"/v2/{name}/manifests/{reference or digest_of(body)}", content=body, headers={"Content-Type": media_type}
        )
        assert response.status_code == 201, response.text
        return response.headers["Docker-Content-Digest"]

    async def push_image(self, name: str, reference: str = "", layers: tuple[bytes, ...] = (), **more: Any) -> str:
        """Config, layers and manifest; the digest of the manifest."""
        for data in (b"{}", *layers):
            await self.push_blob(name, data)
        return await self.push_manifest(name, image(b"{}", layers, **more), reference)

    async def get(self, path: str, **headers: str) -> httpx.Response:
        return await self.http.get(path, headers={k.replace("_", "-"): v for k, v in headers.items()})

    async def tags(self, name: str, query: str = "") -> list[str]:
        response = await self.http.get(f"/v2/{name}/tags/list{query}")
        assert response.status_code == 200, response.text
        found: list[str] = response.json()["tags"]
        return found

    async def referrers(self, name: str, subject: str, query: str = "") -> list[dict[str, Any]]:
        response = await self.http.get(f"/v2/{name}/referrers/{subject}{query}")
        assert response.status_code == 200, response.text
        assert response.headers["Content-Type"] == INDEX
        found: list[dict[str, Any]] = response.json()["manifests"]
        return found


def with_query(location: str, **query: str) -> str:
    """A Location with more parameters."""
    return str(httpx.URL(location).copy_merge_params(query))


def error_of(response: httpx.Response) -> tuple[int, str]:
    """Status and code; fails where the body is not the spec's error format."""
    assert response.headers["Content-Type"] == "application/json", response.headers
    errors = response.json()["errors"]
    assert len(errors) == 1
    assert errors[0]["message"]
    return response.status_code, errors[0]["code"]
