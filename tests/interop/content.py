"""What is pushed to one registry and must come back from another: a record that checks itself.

Every push is written down with its bytes, every delete strikes out; `check` asks a registry for all of it.
"""

from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.api import CONFIG, DOCKER_IMAGE, DOCKER_LIST, IMAGE, INDEX, digest_of, image, with_query

ACCEPT = {"Accept": ", ".join((IMAGE, INDEX, DOCKER_IMAGE, DOCKER_LIST))}
"""distribution answers 404 to who does not accept a manifest's type."""


def path_of(location: str) -> str:
    """A Location without its host, so that another registry can be asked."""
    return httpx.URL(location).raw_path.decode("ascii")


def answered(response: httpx.Response, status: int) -> httpx.Response:
    assert response.status_code == status, f"{response.request.method} {response.url}: {response} {response.text[:500]}"
    return response


@dataclass
class Held:
    """What one repository holds: bytes by digest, (type, bytes) by digest, digest by tag."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


@dataclass
class Content:
    """The record of all repositories of one folder."""

    held: dict[str, Held] = field(default_factory=dict)

    def of(self, name: str) -> Held:
        return self.held.setdefault(name, Held())

    # Pushing

    def blob(self, http: httpx.Client, name: str, data: bytes, algorithm: str = "sha256") -> str:
        digest = digest_of(data, algorithm)
        location = answered(http.post(f"/v2/{name}/blobs/uploads/"), 202).headers["Location"]
        answered(http.put(with_query(location, digest=digest), content=data), 201)
        self.of(name).blobs[digest] = data
        return digest

    def mounted(self, http: httpx.Client, name: str, source: str, digest: str) -> None:
        answered(http.post(f"/v2/{name}/blobs/uploads/?mount={digest}&from={source}"), 201)
        self.of(name).blobs[digest] = self.of(source).blobs[digest]

    def manifest(
        self, http: httpx.Client, name: str, body: bytes, media_type: str = IMAGE, tag: str = "", digest: str = ""
    ) -> dict[str, Any]:
        """By tag, or by digest where there is none. Returns its descriptor."""
        digest = digest or digest_of(body)
        path, query = f"/v2/{name}/manifests/{tag or digest}", ""
        if tag and not digest.startswith("sha256:"):
            path, query = f"/v2/{name}/manifests/{digest}", f"?tag={tag}"
        answered(http.put(path + query, content=body, headers={"Content-Type": media_type}), 201)
        self.of(name).manifests[digest] = (media_type, body)
        if tag:
            self.of(name).tags[tag] = digest
        return {"mediaType": media_type, "digest": digest, "size": len(body)}

    def image(
        self, http: httpx.Client, name: str, *layers: bytes, tag: str = "", config: bytes = b"{}", **more: Any
    ) -> dict[str, Any]:
        for data in (config, *layers):
            self.blob(http, name, data)
        return self.manifest(http, name, image(config, layers, **more), tag=tag)

    # Deleting

    def without_tag(self, http: httpx.Client, name: str, tag: str) -> None:
        answered(http.delete(f"/v2/{name}/manifests/{tag}"), 202)
        del self.of(name).tags[tag]

    def without_manifest(self, http: httpx.Client, name: str, digest: str) -> None:
        """Also its tags."""
        answered(http.delete(f"/v2/{name}/manifests/{digest}"), 202)
        held = self.of(name)
        del held.manifests[digest]
        held.tags = {tag: named for tag, named in held.tags.items() if named != digest}

    def without_blob(self, http: httpx.Client, name: str, digest: str) -> None:
        answered(http.delete(f"/v2/{name}/blobs/{digest}"), 202)
        del self.of(name).blobs[digest]

    # Checking

    def check(self, http: httpx.Client) -> None:
        """Everything pulls byte for byte, and is listed, and nothing else is."""
        for name, held in self.held.items():
            for digest, data in held.blobs.items():
                check_blob(http, name, digest, data)
            for digest, (media_type, body) in held.manifests.items():
                check_manifest(http, name, digest, digest, media_type, body)
            for tag, digest in held.tags.items():
                check_manifest(http, name, tag, digest, *held.manifests[digest])
            if held.tags:
                assert sorted(tags_of(http, name)) == sorted(held.tags), name
        assert catalog_of(http) == {name for name, held in self.held.items() if held.manifests}


def check_blob(http: httpx.Client, name: str, digest: str, data: bytes) -> None:
    found = answered(http.get(f"/v2/{name}/blobs/{digest}"), 200)
    assert found.content == data
    assert found.headers["Docker-Content-Digest"] == digest or not digest.startswith("sha256:")
    head = answered(http.head(f"/v2/{name}/blobs/{digest}"), 200)
    assert head.headers["Content-Length"] == str(len(data))


def check_manifest(http: httpx.Client, name: str, reference: str, digest: str, media_type: str, body: bytes) -> None:
    for response in (
        answered(http.get(f"/v2/{name}/manifests/{reference}", headers=ACCEPT), 200),
        answered(http.head(f"/v2/{name}/manifests/{reference}", headers=ACCEPT), 200),
    ):
        assert response.headers["Docker-Content-Digest"] == digest
        assert response.headers["Content-Type"] == media_type
        assert response.headers["Content-Length"] == str(len(body))
        assert response.content == (body if response.request.method == "GET" else b"")


def tags_of(http: httpx.Client, name: str) -> list[str]:
    found: list[str] = answered(http.get(f"/v2/{name}/tags/list"), 200).json()["tags"]
    return found


def catalog_of(http: httpx.Client) -> set[str]:
    return set(answered(http.get("/v2/_catalog?n=100"), 200).json()["repositories"])


def referrers_of(http: httpx.Client, name: str, subject: str) -> set[str]:
    return {d["digest"] for d in answered(http.get(f"/v2/{name}/referrers/{subject}"), 200).json()["manifests"]}


def docker_image(config: bytes, *layers: bytes) -> bytes:
    """A Docker schema 2 manifest."""
    template = image(config, layers, mediaType=DOCKER_IMAGE)
    return template.replace(CONFIG.encode(), b"application/vnd.docker.container.image.v1+json").replace(
        b"application/vnd.oci.image.layer.v1.tar+gzip", b"application/vnd.docker.image.rootfs.diff.tar.gzip"
    )


def referrer(subject: dict[str, Any], kind: str, **annotations: str) -> bytes:
    """A manifest without layers that says something about another one."""
    return image(b"{}", (), artifactType=kind, subject=subject, annotations=annotations or None)


def in_chunks(http: httpx.Client, name: str, data: bytes, size: int) -> None:
    """A push by PATCH with Content-Range, as the spec's chunked push."""
    location = answered(http.post(f"/v2/{name}/blobs/uploads/", headers={"Content-Length": "0"}), 202).headers[
        "Location"
    ]
    for start in range(0, len(data), size):
        piece = data[start : start + size]
        sent = http.patch(location, content=piece, headers={"Content-Range": f"{start}-{start + len(piece) - 1}"})
        location = answered(sent, 202).headers["Location"]
    answered(http.put(with_query(location, digest=digest_of(data))), 201)


def named_by_manifests(content: Content) -> set[str]:
    """Every digest that occurs in the bytes of a manifest."""
    text = b"\n".join(body for held in content.held.values() for _, body in held.manifests.values()).decode()
    return {digest for held in content.held.values() for digest in held.blobs if digest in text}
