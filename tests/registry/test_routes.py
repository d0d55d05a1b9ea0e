"""From a path to an endpoint: matched from the right, so that names may contain the API's own words."""

import pytest

from registry.errors import EndpointUnknown
from registry.routes import Match, match
from storage.errors import DigestInvalid

DIGEST = "sha256:" + "0" * 64

ENDPOINTS = {
    "/v2/": Match("base"),
    "/v2": Match("base"),
    "/v2/_catalog": Match("catalog"),
    "/v2/_catalog/": Match("catalog"),
    "/v2/a/tags/list": Match("tags", "a"),
    "/v2/a/b/c/tags/list": Match("tags", "a/b/c"),
    "/v2/a/manifests/v1": Match("manifest", "a", "v1"),
    f"/v2/a/manifests/{DIGEST}": Match("manifest", "a", DIGEST),
    f"/v2/a/blobs/{DIGEST}": Match("blob", "a", DIGEST),
    f"/v2/a/referrers/{DIGEST}": Match("referrers", "a", DIGEST),
    "/v2/a/blobs/uploads/": Match("uploads", "a"),
    "/v2/a/blobs/uploads": Match("uploads", "a"),
    "/v2/a/blobs/uploads/id": Match("upload", "a", "id"),
}

NASTY = {
    "/v2/tags/list/tags/list": Match("tags", "tags/list"),
    "/v2/a/manifests/b/manifests/v1": Match("manifest", "a/manifests/b", "v1"),
    "/v2/a/blobs/uploads/manifests/v1": Match("manifest", "a/blobs/uploads", "v1"),
    "/v2/a/blobs/uploads/blobs/uploads/": Match("uploads", "a/blobs/uploads"),
    "/v2/a/blobs/uploads/blobs/uploads/id": Match("upload", "a/blobs/uploads", "id"),
    "/v2/blobs/uploads/blobs/x": Match("blob", "blobs/uploads", "x"),
    "/v2/a/referrers/tags/list": Match("tags", "a/referrers"),
    "/v2/a/manifests/tags/tags/list": Match("tags", "a/manifests/tags"),
    "/v2/_catalog/tags/list": Match("tags", "_catalog"),
    "/v2/a/tags/list/manifests/list": Match("manifest", "a/tags/list", "list"),
    "/v2/con/manifests/nul": Match("manifest", "con", "nul"),
    # names that cannot be are refused as such, later on
    "/v2//tags/list": Match("tags", ""),
    "/v2/a//tags/list": Match("tags", "a/"),
    "/v2/../tags/list": Match("tags", ".."),
    "/v2/A/manifests/x": Match("manifest", "A", "x"),
}


@pytest.mark.parametrize("path", ENDPOINTS)
def test_endpoints(path: str) -> None:
    assert match(path) == ENDPOINTS[path]


@pytest.mark.parametrize("path", NASTY)
def test_names_with_our_own_words(path: str) -> None:
    assert match(path) == NASTY[path]


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/v1/_ping",
        "/V2/",
        "/V2/_catalog",
        "//v2/_catalog",
        "/v2/./_catalog",
        "/v2/../v2/_catalog",
        "/v2/_catalog/x",
        "/v2/_Catalog",
        "/v2//_catalog",
        "/v2_catalog",
        "/v2/a",
        "/v2/tags/list",
        "/v2/manifests/v1",
        "/v2/a/manifests/",
        "/v2/a/manifests",
        "/v2/a/blobs/",
        "/v2/a/tags/list/",
        "/v2/a/tags/other",
        "/metrics",
        "/debug/vars",
    ],
)
def test_no_such_endpoint(path: str) -> None:
    with pytest.raises(EndpointUnknown):
        match(path)


@pytest.mark.parametrize(
    "path", ["/v2/a/blobs/sha256:../../etc/passwd", "/v2/a/manifests/sha256:x/y", "/v2/a/referrers/"]
)
def test_what_can_only_be_meant_as_a_digest(path: str) -> None:
    with pytest.raises(DigestInvalid):
        match(path)
