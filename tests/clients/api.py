"""The registry seen without any client: plain HTTP, the back door by which the tests check what a client reports.

Rule: whatever is read is hashed and compared with the digest it was asked by and with the digest headers.
"""

import json
from dataclasses import dataclass
from typing import Any

import httpx

from .images import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, Layout, digest_of, sha256

ACCEPT = ", ".join([OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST])
INDEXES = (OCI_INDEX, DOCKER_LIST)


@dataclass(frozen=True)
class Manifest:
    """A manifest as the registry gave it."""

    digest: str
    media_type: str
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        parsed: dict[str, Any] = json.loads(self.body)
        return parsed


class Registry:
    """The registry under test."""

    def __init__(self, host: str, http: httpx.Client) -> None:
        self.host = host
        """`localhost:PORT`, what stands in front of a repository in a reference."""
        self._http = http

    def manifest(self, repository: str, reference: str) -> Manifest:
        """Read a manifest by GET, and compare HEAD and the digests with it."""
        url = f"/v2/{repository}/manifests/{reference}"
        got = self._http.get(url, headers={"Accept": ACCEPT})
        assert got.status_code == 200, f"GET {url}: {got.status_code} {got.text}"
        digest = digest_of(got.content, got.headers["docker-content-digest"].partition(":")[0])
        head = self._http.head(url, headers={"Accept": ACCEPT})
        for answer in (got, head):
            assert answer.headers["docker-content-digest"] == digest, f"{answer.request.method} {url}"
            assert answer.headers["content-length"] == str(len(got.content)), f"{answer.request.method} {url}"
        assert ":" not in reference or reference == digest
        return Manifest(digest, got.headers["content-type"], got.content)

    def digest(self, repository: str, reference: str) -> str:
        return self.manifest(repository, reference).digest

    def blob(self, repository: str, digest: str) -> bytes:
        url = f"/v2/{repository}/blobs/{digest}"
        got = self._http.get(url)
        assert got.status_code == 200, f"GET {url}: {got.status_code} {got.text}"
        assert digest_of(got.content, digest.partition(":")[0]) == digest
        return got.content

    def check_complete(self, repository: str, reference: str) -> str:
        """Read a manifest and everything below it, hashing all; returns the digest of the top."""
        top = self.manifest(repository, reference)
        if top.media_type in INDEXES:
            for descriptor in top.json["manifests"]:
                self.check_complete(repository, descriptor["digest"])
        else:
            for descriptor in [top.json["config"], *top.json["layers"]]:
                assert len(self.blob(repository, descriptor["digest"])) == descriptor["size"]
        return top.digest

    def status(self, path: str) -> int:
        return self._http.head(path, headers={"Accept": ACCEPT}).status_code

    def has(self, repository: str, reference: str) -> bool:
        return self.status(f"/v2/{repository}/manifests/{reference}") == 200

    def tags(self, repository: str) -> list[str]:
        got = self._http.get(f"/v2/{repository}/tags/list")
        assert got.status_code == 200, f"tags of {repository}: {got.status_code} {got.text}"
        tags: list[str] = got.json()["tags"]
        return sorted(tags)

    def delete(self, repository: str, reference: str) -> None:
        gone = self._http.delete(f"/v2/{repository}/manifests/{reference}")
        assert gone.status_code == 202, f"DELETE {repository} {reference}: {gone.status_code} {gone.text}"

    def has_referrers_api(self) -> bool:
        """Whether the registry has end-12 of OCI 1.1. CNCF distribution does not; clients then use a tag instead."""
        return self._http.get(f"/v2/clients-probe/referrers/{sha256(b'')}").status_code == 200

    def referrers(self, repository: str, digest: str) -> list[dict[str, Any]]:
        """The referrers of a manifest: of the API when the registry has it, else of the fallback tag."""
        fallback = digest.replace(":", "-")
        if self.has_referrers_api():
            got = self._http.get(f"/v2/{repository}/referrers/{digest}")
            assert got.status_code == 200, f"referrers of {digest}: {got.status_code} {got.text}"
            assert got.headers["content-type"] == OCI_INDEX
            listed = got.json()
        elif self.has(repository, fallback):
            listed = self.manifest(repository, fallback).json
        else:
            return []
        descriptors: list[dict[str, Any]] = listed["manifests"]
        return descriptors

    def push_layout(self, repository: str, layout: Layout, *references: str) -> None:
        """Push images of a layout, each under its reference as the tag, and what they are made of."""
        for reference in references:
            self._push_manifest(repository, layout, layout.digests[reference], reference)

    def _push_manifest(self, repository: str, layout: Layout, digest: str, tag: str) -> None:
        body = layout.blob(digest)
        manifest = json.loads(body)
        for child in manifest.get("manifests", []):
            self._push_manifest(repository, layout, child["digest"], child["digest"])
        for blob in [manifest["config"], *manifest["layers"]] if "layers" in manifest else []:
            self._push_blob(repository, blob["digest"], layout.blob(blob["digest"]))
        url, headers = f"/v2/{repository}/manifests/{tag}", {"Content-Type": manifest["mediaType"]}
        put = self._http.put(url, content=body, headers=headers)
        assert put.status_code == 201, f"PUT {url}: {put.status_code} {put.text}"
        assert put.headers["docker-content-digest"] == digest

    def _push_blob(self, repository: str, digest: str, content: bytes) -> None:
        if self.status(f"/v2/{repository}/blobs/{digest}") == 200:
            return
        started = self._http.post(f"/v2/{repository}/blobs/uploads/")
        assert started.status_code == 202, started.text
        location = httpx.URL(started.headers["location"]).copy_merge_params({"digest": digest})
        put = self._http.put(location, content=content, headers={"Content-Type": "application/octet-stream"})
        assert put.status_code == 201, f"PUT of blob {digest}: {put.status_code} {put.text}"
