"""What the tests push: of every kind something, first what every registry takes, then what distribution does not."""

import hashlib
import json
from typing import Any

import httpx

from tests.api import DOCKER_IMAGE, DOCKER_LIST, IMAGE, INDEX, descriptor, digest_of, image, index

from .content import Content, docker_image, in_chunks, referrer


def noise(seed: str, size: int) -> bytes:
    """Bytes that are the same in every run and compress badly."""
    return hashlib.shake_256(seed.encode()).digest(size)


def push_common(http: httpx.Client, content: Content, *, empty: bool = True) -> None:
    """Images, lists, odd names, a mount, a moved tag: what registry:2, registry:3 and we all take.

    empty: also a blob without a byte, which 2.8 cannot be given on SeaweedFS.
    """
    first = content.image(http, "library/plain", noise("l1", 5000), noise("l2", 70_000), tag="v1")
    content.manifest(http, "library/plain", content.of("library/plain").manifests[first["digest"]][1], tag="latest")
    content.image(http, "library/plain", noise("l3", 10), tag="moved")
    content.image(http, "library/plain", noise("l4", 11), tag="moved")  # the old one stays, by digest
    if empty:
        content.image(http, "library/plain", b"", tag="empty-layer")
    big = noise("big", 3_000_000)
    in_chunks(http, "library/plain", big, 1_200_000)
    content.of("library/plain").blobs[digest_of(big)] = big
    content.image(http, "library/plain", big, tag="Big_.-1")

    docker = docker_image(b"{}", noise("l1", 5000))
    content.manifest(http, "library/plain", docker, DOCKER_IMAGE, tag="docker")
    # no mediaType inside: only the structure says what it is
    bare = image(b"{}", (noise("l1", 5000),), mediaType=None)
    content.manifest(http, "library/plain", bare, IMAGE, tag="bare")

    for name in ("a", "a/b", "a/b/c", "a-b", "a.b", "a__b", "z" * 100):
        content.image(http, name, noise(name, 100), tag="t")
    content.mounted(http, "mounted/here", "library/plain", digest_of(noise("l2", 70_000)))
    content.image(http, "mounted/here", noise("l2", 70_000), tag="v1")
    content.image(http, "by/digest", noise("untagged", 100))  # _manifests without tags
    push_multi(http, content)


def push_multi(http: httpx.Client, content: Content) -> None:
    """Images for several platforms: children that no tag names, an index of indexes, a Docker manifest list."""
    children: list[dict[str, Any]] = []
    for architecture in ("amd64", "arm64"):
        platform = {"os": "linux", "architecture": architecture}
        config = json.dumps(platform).encode()
        child = content.image(http, "library/multi", noise(architecture, 1000), config=config)
        children.append({**child, "platform": platform})
    content.manifest(http, "library/multi", index(*children), INDEX, tag="v1")
    nested = content.manifest(http, "library/multi", index(*children, annotations={"level": "2"}), INDEX)
    content.manifest(http, "library/multi", index(nested), INDEX, tag="nested")

    body = docker_image(b"{}", noise("amd64", 1000))
    content.blob(http, "library/multi", b"{}")
    docker = content.manifest(http, "library/multi", body, DOCKER_IMAGE)
    listed = {**docker, "platform": {"os": "linux", "architecture": "amd64"}}
    content.manifest(
        http,
        "library/multi",
        json.dumps({"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": [listed]}).encode(),
        DOCKER_LIST,
        tag="docker",
    )


def push_ours(http: httpx.Client, content: Content) -> dict[str, set[str]]:
    """What distribution cannot be pushed, and has to serve and keep. Returns referrers by subject."""
    name = "library/ours"
    blob = noise("sha512", 4000)
    digest = content.blob(http, name, blob, "sha512")
    content.blob(http, name, b"{}", "sha512")
    body = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": IMAGE,
            "config": descriptor(b"{}", "application/vnd.oci.image.config.v1+json", "sha512"),
            "layers": [descriptor(blob, algorithm="sha512")],
        }
    ).encode()
    assert digest == digest_of(blob, "sha512")
    strong = content.manifest(http, name, body, tag="sha512", digest=digest_of(body, "sha512"))
    content.manifest(http, name, index(strong), INDEX, tag="index-of-sha512")

    subject = content.image(http, name, noise("subject", 100), tag="subject")
    signature = content.manifest(http, name, referrer(subject, "application/vnd.test.signature"))
    bill = content.manifest(http, name, referrer(subject, "application/vnd.test.sbom", by="us"))
    about_signature = content.manifest(http, name, referrer(signature, "application/vnd.test.note"))
    about_index = content.manifest(http, name, index(subject=subject, artifactType="application/vnd.test.index"), INDEX)
    return {
        subject["digest"]: {signature["digest"], bill["digest"], about_index["digest"]},
        signature["digest"]: {about_signature["digest"]},
    }
