"""CNCF distribution as the upstream of `registry serve`: pulled twice, the second time without it."""

import os
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.api import INDEX, digest_of, index
from tests.registry.proxy.fleet import SIZE, check, pushed

from .content import ACCEPT, Content
from .corpora import noise
from .peers import OURS, Lab, Program

pytestmark = [pytest.mark.interop, pytest.mark.slow]


def settings(http: httpx.Client, kind: str) -> dict[str, Any]:
    url = str(http.base_url).rstrip("/")
    if kind == "proxy":
        return {"proxy": {"remoteurl": url}}
    return {"upstreams": [{"url": url, "name": "peer", "default": kind == "default", "ttl": "0s"}]}


def pulled(http: httpx.Client, name: str, content: Content, query: str = "") -> None:
    """All that was pushed, as a client gets it: tag, index, manifests, blobs, ranges."""
    held = content.of("a/b")
    for reference in (*held.tags, *held.manifests):
        media_type, body = held.manifests[held.tags.get(reference, reference)]
        found = http.get(f"/v2/{name}/manifests/{reference}{query}", headers=ACCEPT)
        assert (found.status_code, found.content) == (200, body), found.text
        assert found.headers["Content-Type"] == media_type
        assert found.headers["Docker-Content-Digest"] == digest_of(body)
    for digest, data in held.blobs.items():
        path = f"/v2/{name}/blobs/{digest}{query}"
        found = http.get(path)
        assert (found.status_code, found.content) == (200, data)
        part = http.get(path, headers={"Range": "bytes=1-9"})
        assert (part.status_code, part.content) == (206, data[1:10])
        assert http.head(path).headers["Content-Length"] == str(len(data))


@pytest.mark.parametrize(
    ("kind", "name", "query"),
    [
        ("proxy", "a/b", ""),
        ("default", "a/b", ""),
        ("default", "a/b", "?ns=peer"),
        ("other", "peer/a/b", ""),
    ],
)
def test_twice(lab: Lab, peer: Program, tmp_path: Path, kind: str, name: str, query: str) -> None:
    content = Content()
    cache = tmp_path / "cache"
    with lab.serving(peer) as upstream:
        image = content.image(upstream, "a/b", noise("a", 3_000_000), tag="v1")
        content.manifest(upstream, "a/b", index(image), INDEX, tag="all")
        more = settings(upstream, kind)
        with lab.serving(OURS, cache, **more) as http:
            pulled(http, name, content, query)
    with lab.serving(OURS, cache, **more) as http:
        pulled(http, name, content, query)
        stale = http.get(f"/v2/{name}/manifests/v1{query}")
        assert "Warning" in stale.headers
        assert int(stale.headers["Age"]) >= 0
        assert http.get(f"/v2/{name}/tags/list{query}").json()["tags"] == ["all", "v1"]
        assert http.get(f"/v2/{name}/manifests/v2{query}").status_code == 502
        assert http.put(f"/v2/{name}/manifests/v1{query}", content=b"{}").status_code == 405
    if kind == "proxy":  # what our cache holds is what distribution's would
        with lab.serving(peer, cache) as http:
            pulled(http, name, content)


@pytest.mark.parametrize("workers", [1, 2])
def test_many_clients_one_question(lab: Lab, peer: Program, tmp_path: Path, workers: int) -> None:
    """F36."""
    data = os.urandom(SIZE)
    with lab.serving(peer) as upstream:
        pushed(str(upstream.base_url), data)
        check(str(upstream.base_url), tmp_path / "fleet", data, workers)
