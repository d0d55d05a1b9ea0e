"""List what a repository holds, for the read-only run.

The list is walked from the tags through the manifests, never asked for blob by blob: a blob that the registry lost is
on the list, and the suite misses it.
"""

import hashlib
import json
from dataclasses import dataclass, field

import httpx

ACCEPT = ", ".join(
    [
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    ]
)


class PreloadFailed(Exception):
    """The repository does not hold what was pushed into it."""


@dataclass
class Content:
    tags: list[str] = field(default_factory=list)
    manifests: list[str] = field(default_factory=list)
    blobs: list[str] = field(default_factory=list)
    referrers: list[str] = field(default_factory=list)

    def add_manifest(self, digest: str, body: bytes) -> list[str]:
        """Note a manifest and what it names; returns the digests of the manifests below it."""
        self.manifests.append(digest)
        manifest = json.loads(body)
        blobs = [manifest["config"], *manifest["layers"]] if "config" in manifest else []
        self.blobs.extend(blob["digest"] for blob in blobs if blob["digest"] not in self.blobs)
        if "subject" in manifest and manifest["subject"]["digest"] not in self.referrers:
            # The subject itself may be missing; its list of referrers exists all the same.
            self.referrers.append(manifest["subject"]["digest"])
        return [child["digest"] for child in manifest.get("manifests", [])]


def list_content(address: str, repository: str) -> Content:
    """Raises PreloadFailed when there is nothing, or a manifest is missing or not what its digest says."""
    content = Content()
    with httpx.Client(base_url=f"http://{address}/v2/{repository}", timeout=30) as client:
        # One page: the suite pushes some 30 tags.
        content.tags = client.get("/tags/list").raise_for_status().json()["tags"] or []
        if not content.tags:
            raise PreloadFailed(f"{repository} has no tags after the preload")
        waiting = [_digest_of_tag(client, tag) for tag in content.tags]
        while waiting:
            digest = waiting.pop()
            if digest not in content.manifests:
                waiting.extend(content.add_manifest(digest, _manifest(client, digest)))
    return content


def refuses_push(address: str, repository: str) -> bool:
    return httpx.post(f"http://{address}/v2/{repository}/blobs/uploads/", timeout=30).status_code == 405


def _digest_of_tag(client: httpx.Client, tag: str) -> str:
    response = client.head(f"/manifests/{tag}", headers={"Accept": ACCEPT})
    if response.status_code != 200 or "Docker-Content-Digest" not in response.headers:
        raise PreloadFailed(f"HEAD of tag {tag}: {response.status_code}, or no Docker-Content-Digest")
    digest: str = response.headers["Docker-Content-Digest"]
    return digest


def _manifest(client: httpx.Client, digest: str) -> bytes:
    response = client.get(f"/manifests/{digest}", headers={"Accept": ACCEPT})
    algorithm, _, expected = digest.partition(":")
    if response.status_code != 200 or hashlib.new(algorithm, response.content).hexdigest() != expected:
        raise PreloadFailed(f"GET of manifest {digest}: {response.status_code}, or other bytes")
    return response.content
