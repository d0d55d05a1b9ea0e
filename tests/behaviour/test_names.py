"""Names, paths and methods (rows 1 to 19), as bytes on a socket: a client library would repair half of them."""

import pytest

from tests import rawsocket
from tests.api import IMAGE, Api, error_of
from tests.behaviour.table import ABSENT, LAYER_DIGEST, MANIFEST, MANIFEST_DIGEST, NAME, Bad, Wire, by_id

INVALID = {
    "1-upper-case": "UPPER",
    "1-one-upper-case-letter": "a/bC",
    "2-two-dots": "a..b",
    "2-dot-first": ".a",
    "2-dot-last": "a.",
    "2-dash-first": "-a",
    "2-dash-last": "a-",
    "2-underscore-first": "_a",
    "2-underscore-last": "a_",
    "2-three-underscores": "a___b",
    "2-dot-and-dash": "a.-b",
    "2-our-own-folder": "a/_manifests",
    "3-two-slashes": "a//b",
    "3-slash-first": "/a",
    "3-slash-last": "a/",
    "4-parent": "a/../b",
    "4-parent-escaped": "%2e%2e/%2e%2e/etc",
    "4-parent-first": "../a",
    "4-itself": "a/./b",
    "5-nul": "a%00b",
    "5-line-feed": "a%0A",
    "5-carriage-return": "a%0D%0ASet-Cookie:x",
    "5-space": "a%20b",
    "5-plus": "a+b",
    "5-utf8": "%C3%A9",
    "5-not-utf8": "%ff",
    "5-overlong-utf8": "a%c0%af%c0%afb",
    "5-escape-that-is-none": "%zz",
    "5-escape-cut-short": "a%4",
    "5-escaped-escape": "a%252Fb",
    "5-backslash": "a%5Cb",
    "5-arabic-digit": "%D9%A1",
    "5-long-s": "%C5%BF",
    "8-component-of-256": "a" * 256,
    "8-name-of-262": "/".join(["a" * 130, "b" * 131]),
    "9-name-of-8000": "a" * 8000,
    "9-components-8000": "/".join("a" * 8000),
}

ENDPOINTS = {
    "tags": ("GET", "/tags/list"),
    "manifest": ("GET", "/manifests/v1"),
    "put-manifest": ("PUT", "/manifests/v1"),
    "delete-manifest": ("DELETE", "/manifests/v1"),
    "blob": ("GET", f"/blobs/{LAYER_DIGEST}"),
    "delete-blob": ("DELETE", f"/blobs/{LAYER_DIGEST}"),
    "upload": ("POST", "/blobs/uploads/"),
    "referrers": ("GET", f"/referrers/{MANIFEST_DIGEST}"),
}


def bad_names(id: str) -> list[Bad]:
    """One invalid name at each endpoint."""
    row, _, what = id.partition("-")
    return [
        Bad(
            row,
            f"{what}-{endpoint}",
            method,
            f"/v2/{INVALID[id]}{rest}",
            400,
            "NAME_INVALID",
            {"Content-Type": IMAGE} if method == "PUT" else {},
            MANIFEST if method == "PUT" else b"",
        )
        for endpoint, (method, rest) in ENDPOINTS.items()
    ]


RAW_UTF8 = "/v2/\u00e9/tags/list".encode().decode("latin-1")  # two bytes on the wire

GLOBAL = "GET, HEAD"
BLOB = "GET, HEAD, DELETE"
UPLOAD = "GET, PATCH, PUT, DELETE"
MANIFESTS = "GET, HEAD, PUT, DELETE"
A_BLOB = f"/v2/{NAME}/blobs/{LAYER_DIGEST}"
A_SESSION = f"/v2/{NAME}/blobs/uploads/3b1f7a5e-0000-4000-8000-000000000000"
METHODS = {
    "/v2/": (GLOBAL, "POST PUT PATCH DELETE OPTIONS TRACE"),
    "/v2/_catalog": (GLOBAL, "POST PUT PATCH DELETE OPTIONS"),
    f"/v2/{NAME}/manifests/v1": (MANIFESTS, "POST PATCH OPTIONS TRACE"),
    f"/v2/{NAME}/tags/list": (GLOBAL, "POST PUT PATCH DELETE OPTIONS"),
    A_BLOB: (BLOB, "POST PUT PATCH OPTIONS"),
    f"/v2/{NAME}/blobs/uploads/": ("POST", "GET HEAD PUT PATCH DELETE OPTIONS"),
    A_SESSION: (UPLOAD, "HEAD POST OPTIONS"),
    f"/v2/{NAME}/referrers/{MANIFEST_DIGEST}": (GLOBAL, "POST PUT PATCH DELETE OPTIONS"),
}
REFUSED_METHODS = [
    Bad("15" if target == "/v2/" else "16", f"{method}-{target}", method, target, 405, "UNSUPPORTED", allow=allow)
    for target, (allow, methods) in METHODS.items()
    for method in methods.split()
]

OTHERS = [
    Bad("6", "raw-utf8", "GET", RAW_UTF8, 400, "UNSUPPORTED"),
    Bad("9", "path-of-70-kb", "GET", "/v2/" + "a" * 70_000 + "/tags/list", 414, "UNSUPPORTED"),
    Bad("12", "tags-of-an-unknown-repository", "GET", "/v2/nope/tags/list", 404, "NAME_UNKNOWN"),
    Bad("13", "manifest-of-an-unknown-repository", "GET", "/v2/nope/manifests/v1", 404, "MANIFEST_UNKNOWN"),
    Bad("13", "manifest-by-digest", "GET", f"/v2/nope/manifests/{MANIFEST_DIGEST}", 404, "MANIFEST_UNKNOWN"),
    Bad("13", "manifest-head", "HEAD", "/v2/nope/manifests/v1", 404, "MANIFEST_UNKNOWN"),
    Bad("13", "blob-of-an-unknown-repository", "GET", f"/v2/nope/blobs/{LAYER_DIGEST}", 404, "BLOB_UNKNOWN"),
    Bad("13", "blob-head", "HEAD", f"/v2/nope/blobs/{LAYER_DIGEST}", 404, "BLOB_UNKNOWN"),
    Bad("13", "delete-tag", "DELETE", "/v2/nope/manifests/v1", 404, "MANIFEST_UNKNOWN"),
    Bad("13", "delete-manifest", "DELETE", f"/v2/nope/manifests/{ABSENT}", 404, "MANIFEST_UNKNOWN"),
    Bad("13", "delete-blob", "DELETE", f"/v2/nope/blobs/{LAYER_DIGEST}", 404, "BLOB_UNKNOWN"),
    Bad("15", "unknown-method", "FOO", "/v2/", 400, "UNSUPPORTED"),
    Bad("15", "connect", "CONNECT", "test:443", 405, "UNSUPPORTED", allow=GLOBAL),
    Bad("19", "blobs-and-nothing", "GET", f"/v2/{NAME}/blobs/", 404, "UNSUPPORTED"),
    Bad("19", "manifests-and-nothing", "GET", f"/v2/{NAME}/manifests/", 404, "UNSUPPORTED"),
    Bad("19", "tags-list-and-slash", "GET", f"/v2/{NAME}/tags/list/", 404, "UNSUPPORTED"),
    Bad("19", "tags", "GET", f"/v2/{NAME}/tags", 404, "UNSUPPORTED"),
    Bad("19", "name-alone", "GET", f"/v2/{NAME}", 404, "UNSUPPORTED"),
    Bad("19", "v1-ping", "GET", "/v1/_ping", 404, "UNSUPPORTED"),
    Bad("19", "root", "PUT", "/", 404, "UNSUPPORTED"),
    Bad("19", "upper-case-v2", "GET", "/V2/", 404, "UNSUPPORTED"),
    Bad("19", "catalog-below-dot", "GET", "/v2/./_catalog", 404, "UNSUPPORTED"),
    Bad("19", "catalog-behind-two-slashes", "GET", "//v2/_catalog", 404, "UNSUPPORTED"),
    Bad("19", "asterisk", "OPTIONS", "*", 404, "UNSUPPORTED"),
]

CORPUS = [*(case for id in INVALID for case in bad_names(id)), *REFUSED_METHODS, *OTHERS]


@pytest.mark.parametrize("id", INVALID, ids=lambda id: f"row-{id}")
async def test_invalid_name(wire: Wire, id: str) -> None:
    for response in await wire.refuses(*bad_names(id)):
        assert "location" not in response.headers  # a redirect would mend the name


@by_id([*REFUSED_METHODS, *OTHERS])
async def test_refused(wire: Wire, case: Bad) -> None:
    (response,) = await wire.refuses(case)
    assert "location" not in response.headers


NASTY = ["a/blobs/uploads", "a/manifests/b", "tags/list", "con", "a/referrers", "a/manifests/v1", "a/tags", "v2", "0"]


@pytest.mark.parametrize("name", NASTY)
async def test_row_10_valid_but_nasty(api: Api, name: str) -> None:
    """Names of fixed words: pushed, pulled, listed and deleted, and nothing of it shows in the repository `a`."""
    await api.push_image(NAME, "v1", (b"layer of a",))
    digest = await api.push_image(name, "other", (b"layer",))
    assert (await api.get(f"/v2/{name}/manifests/other")).headers["Docker-Content-Digest"] == digest
    assert await api.tags(name) == ["other"]
    assert await api.referrers(name, digest) == []
    assert await api.tags(NAME) == ["v1"]
    assert sorted((await api.get("/v2/_catalog")).json()["repositories"]) == sorted([NAME, name])
    assert (await api.http.delete(f"/v2/{name}/manifests/{digest}")).status_code == 202
    gone = await api.get(f"/v2/{name}/tags/list")
    assert error_of(gone) == (404, "NAME_UNKNOWN")  # nothing is left of it
    assert await api.tags(NAME) == ["v1"]


async def test_row_7_an_escaped_slash_is_a_slash(wire: Wire) -> None:
    put = wire.ask(rawsocket.request("PUT", "/v2/a%2Fb/manifests/v1", f"Content-Type: {IMAGE}", body=MANIFEST))
    assert put.status == 400  # its blobs are in `a`, not in `a/b`
    await wire.api.push_image("a/b", "v7")
    for target in ("/v2/a/b/tags/list", "/v2/a%2Fb/tags/list", "/v2/a%2fb/tags/list", "/v2/%61/b%2Ftags/list"):
        response = wire.ask(rawsocket.request("GET", target))
        assert (response.status, response.body) == (200, b'{"name": "a/b", "tags": ["v7"]}'), target


async def test_row_8_a_name_of_255_characters(api: Api) -> None:
    name = "/".join(["a" * 127, "b" * 127])
    assert len(name) == 255
    await api.push_image(name, "v1")
    assert await api.tags(name) == ["v1"]


@pytest.mark.parametrize("target", ["/v2", "/v2/"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_row_14_version_check(wire: Wire, method: str, target: str) -> None:
    response = wire.ask(rawsocket.request(method, target), method)
    assert (response.status, response.body) == (200, b"" if method == "HEAD" else b"{}")
    assert response.headers["content-length"] == "2"


@pytest.mark.parametrize("target", [f"/v2/{NAME}/tags/list", "/v2/_catalog", f"/v2/{NAME}/referrers/{ABSENT}"])
async def test_row_17_head_of_a_list(wire: Wire, target: str) -> None:
    get, head = wire.ask(rawsocket.request("GET", target)), wire.ask(rawsocket.request("HEAD", target), "HEAD")
    assert (get.status, head.status, head.body) == (200, 200, b"")
    own = ("date", "x-request-id")
    assert {k: v for k, v in head.headers.items() if k not in own} == {
        k: v for k, v in get.headers.items() if k not in own
    }


@pytest.mark.parametrize("slash", ["", "/"])
async def test_row_18_the_slash_behind_uploads_is_optional(api: Api, slash: str) -> None:
    response = await api.http.post(f"/v2/{NAME}/blobs/uploads{slash}")
    assert response.status_code == 202
