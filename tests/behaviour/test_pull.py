"""Pulling: types, conditions and ranges (rows 103 to 114 and 123)."""

import re

import httpx
import pytest

from tests import rawsocket
from tests.api import DOCKER_IMAGE, IMAGE, INDEX, Api, digest_of, error_of
from tests.behaviour.table import ABSENT, LAYER_DATA, LAYER_DIGEST, MANIFEST, MANIFEST_DIGEST, NAME, Bad, Wire, World

DATA = bytes(range(256)) * 8
DIGEST = digest_of(DATA)
BLOB = f"/v2/{NAME}/blobs/{DIGEST}"
BY_DIGEST = f"/v2/{NAME}/manifests/{MANIFEST_DIGEST}"
LAYER = f"/v2/{NAME}/blobs/{LAYER_DIGEST}"
ETAG = f'"{DIGEST}"'


@pytest.fixture
async def pushed(api: Api) -> Api:
    """A repository with DATA as a blob."""
    await api.push_blob(NAME, DATA)
    return api


async def ranged(api: Api, value: str, **headers: str) -> httpx.Response:
    return await api.get(BLOB, Range=value, **headers)


@pytest.mark.parametrize("reference", ["v1", MANIFEST_DIGEST])
@pytest.mark.parametrize("accept", [None, DOCKER_IMAGE, INDEX, "text/html", "*/*", "x", f"{INDEX};q=1, {IMAGE};q=0"])
async def test_row_103_accept_is_not_negotiated(world: World, accept: str | None, reference: str) -> None:
    headers = {} if accept is None else {"Accept": accept}
    if accept is None:
        del world.api.http.headers["Accept"]
    response = await world.api.http.get(f"/v2/{NAME}/manifests/{reference}", headers=headers)
    assert (response.status_code, response.content) == (200, MANIFEST)
    assert response.headers["Content-Type"] == IMAGE


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("value", "status"),
    [
        ('"{digest}"', 304),
        ('W/"{digest}"', 304),
        ("{digest}", 304),
        ('"x", "{digest}"', 304),
        ("*", 304),
        (f'"{ABSENT}"', 200),
        ('"', 200),
        (",,,", 200),
        ("", 200),
    ],
)
@pytest.mark.parametrize("target", [f"/v2/{NAME}/manifests/v1", BY_DIGEST, LAYER])
async def test_row_104_if_none_match(world: World, target: str, value: str, status: int, method: str) -> None:
    digest = LAYER_DIGEST if target == LAYER else MANIFEST_DIGEST
    headers = {"If-None-Match": value.format(digest=digest)}
    response = await world.api.http.request(method, target, headers=headers)
    assert response.status_code == status
    assert response.headers["ETag"] == f'"{digest}"'
    assert response.headers["Docker-Content-Digest"] == digest
    if status == 304:
        assert response.content == b""


@pytest.mark.parametrize("target", ["/v2/{0}/manifests/nope", "/v2/{0}/manifests/{1}", "/v2/{0}/blobs/{1}"])
async def test_row_104_what_is_not_there_has_not_been_kept(world: World, target: str) -> None:
    for condition in ("*", f'"{ABSENT}"'):
        response = await world.api.get(target.format(NAME, ABSENT), If_None_Match=condition)
        assert response.status_code == 404
        assert error_of(response)[1] in ("MANIFEST_UNKNOWN", "BLOB_UNKNOWN")


@pytest.mark.parametrize("target", [f"/v2/{NAME}/manifests/v1", BY_DIGEST, LAYER])
async def test_row_105_head_is_get_without_a_body(wire: Wire, target: str) -> None:
    """On a socket: that nothing follows the head shows in the next answer on the connection."""
    with rawsocket.connected(wire.server.host, wire.server.port) as client:
        client.send(rawsocket.request("HEAD", target) + rawsocket.request("GET", target))
        head, get = client.response("HEAD"), client.response()
    size = len(LAYER_DATA if target == LAYER else MANIFEST)
    assert (head.status, get.status, len(get.body)) == (200, 200, size)
    assert head.headers["content-length"] == get.headers["content-length"] == str(size)
    same = ("content-type", "docker-content-digest", "etag", "accept-ranges", "cache-control")
    assert [head.headers.get(name) for name in same] == [get.headers.get(name) for name in same]


SINGLE = {
    "bytes=0-1": (0, 2),
    "bytes=500-1499": (500, 1500),
    "bytes=500-": (500, 2048),
    "bytes=-500": (1548, 2048),
    "bytes=2000-5000": (2000, 2048),
    "bytes=-5000": (0, 2048),
    "bytes=0-": (0, 2048),
    "bytes=2047-2047": (2047, 2048),
    f"bytes=5-{'9' * 20}": (5, 2048),
    f"bytes=-{'9' * 5000}": (0, 2048),
    "bytes=007-010": (7, 11),
    "Bytes=0-1": (0, 2),
    "bytes=0-1,": (0, 2),
    "bytes=0-1,9999-": (0, 2),
}


@pytest.mark.parametrize("value", SINGLE, ids=lambda value: f"row-106-{value[:30]}")
async def test_one_range(pushed: Api, value: str) -> None:
    start, stop = SINGLE[value]
    response = await ranged(pushed, value)
    assert (response.status_code, response.content) == (206, DATA[start:stop])
    assert response.headers["Content-Range"] == f"bytes {start}-{stop - 1}/2048"
    assert response.headers["Content-Length"] == str(stop - start)
    assert response.headers["Docker-Content-Digest"] == DIGEST


UNSATISFIABLE = {
    "107-reversed": "bytes=500-0",
    "107-at-the-end": "bytes=2048-",
    "107-behind-the-end": "bytes=5000-10000",
    "108-no-suffix": "bytes=-0",
    "109-20-digits": f"bytes={'9' * 20}-",
    "109-5000-digits": f"bytes={'9' * 5000}-",
    "111-none-of-three": "bytes=2048-,3000-3001,-0",
}


@pytest.mark.parametrize("row", UNSATISFIABLE, ids=lambda row: f"row-{row}")
async def test_not_satisfiable(pushed: Api, row: str) -> None:
    response = await ranged(pushed, UNSATISFIABLE[row])
    assert error_of(response) == (416, "SIZE_INVALID")
    assert response.headers["Content-Range"] == "bytes */2048"


IGNORED = {
    "109-letters": "bytes=a-b",
    "109-nothing": "bytes=",
    "109-dash": "bytes=-",
    "109-negative": "bytes=--5",
    "109-three": "bytes=1-2-3",
    "109-space-inside": "bytes=1 -2",
    "109-one-of-two": "bytes=0-1,x",
    "109-underscore": "bytes=0_1-2",
    "109-float": "bytes=0.5-2",
    "109-no-unit": "0-1",
    "110-other-unit": "items=0-1",
    "110-none": "none",
    "110-empty": "",
}


@pytest.mark.parametrize("row", IGNORED, ids=lambda row: f"row-{row}")
async def test_ignored_range(pushed: Api, row: str) -> None:
    response = await ranged(pushed, IGNORED[row])
    assert (response.status_code, response.content) == (200, DATA)
    assert "Content-Range" not in response.headers
    assert response.headers["Accept-Ranges"] == "bytes"


@pytest.mark.parametrize(
    "spans",
    [
        [(0, 2), (10, 20)],
        [(100, 200), (0, 1)],  # in the order that they were asked for
        [(n * 100, n * 100 + 7) for n in range(16)],
    ],
    ids=["row-111-two", "row-111-backwards", "row-111-sixteen"],
)
async def test_several_ranges(pushed: Api, spans: list[tuple[int, int]]) -> None:
    response = await ranged(pushed, "bytes=" + ", ".join(f"{a}-{b - 1}" for a, b in spans))
    assert response.status_code == 206
    assert "Content-Range" not in response.headers
    assert response.headers["Content-Length"] == str(len(response.content))
    media_type, _, boundary = response.headers["Content-Type"].partition("; boundary=")
    assert media_type == "multipart/byteranges"
    nothing, *parts, end = response.content.split(f"\r\n--{boundary}".encode())
    assert (nothing, end) == (b"", b"--\r\n")
    for (start, stop), part in zip(spans, parts, strict=True):
        head, _, body = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        assert head.decode().split("\r\n") == [
            "Content-Type: application/octet-stream",
            f"Content-Range: bytes {start}-{stop - 1}/2048",
        ]
        assert body == DATA[start:stop]


TOO_MANY = {
    "111-six-times-the-whole": "bytes=" + ",".join(["0-"] * 6),
    "111-overlap": "bytes=0-10,10-20",
    "111-overlapping-suffix": "bytes=0-1999,-100",
    "111-seventeen": "bytes=" + ",".join(f"{n * 10}-{n * 10}" for n in range(17)),
    "111-thousands": "bytes=" + ",".join(f"{n}-" for n in range(9000)),
}


@pytest.mark.parametrize("row", TOO_MANY, ids=lambda row: f"row-{row}")
async def test_too_many_ranges(pushed: Api, row: str) -> None:
    assert error_of(await ranged(pushed, TOO_MANY[row])) == (400, "UNSUPPORTED")


@pytest.mark.parametrize("value", ["bytes=0-1", "bytes=9999-", "bytes=0-,0-,0-"])
async def test_row_112_head_has_no_ranges(pushed: Api, value: str) -> None:
    response = await pushed.http.head(BLOB, headers={"Range": value})
    assert (response.status_code, response.headers["Content-Length"]) == (200, "2048")


@pytest.mark.parametrize("value", ["bytes=0-1", "bytes=9999-"])
async def test_row_112_manifests_have_no_ranges(world: World, value: str) -> None:
    response = await world.api.get(BY_DIGEST, Range=value)
    assert (response.status_code, response.content) == (200, MANIFEST)


@pytest.mark.parametrize(
    ("value", "status"),
    [
        (ETAG, 206),
        (f"W/{ETAG}", 200),
        (f'"{ABSENT}"', 200),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 200),
        ("*", 200),
        ("", 200),
    ],
)
async def test_row_113_if_range(pushed: Api, value: str, status: int) -> None:
    response = await ranged(pushed, "bytes=0-1", If_Range=value)
    assert (response.status_code, response.content) == (status, DATA[:2] if status == 206 else DATA)


@pytest.mark.parametrize("value", ["bytes=0-", "bytes=0-0", "bytes=-1", "bytes=0-0,1-1"])
async def test_row_114_range_of_an_empty_blob(api: Api, value: str) -> None:
    digest = await api.push_blob(NAME, b"")
    response = await api.get(f"/v2/{NAME}/blobs/{digest}", Range=value)
    assert error_of(response) == (416, "SIZE_INVALID")
    assert response.headers["Content-Range"] == "bytes */0"


FORWARDED = (
    "X-Forwarded-Host: evil.example",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Prefix: /evil",
    "Forwarded: host=evil.example;proto=https",
    "X-Original-URL: /evil",
)


@pytest.mark.parametrize("host", ["evil.example", "evil.example/?x=", "a@b", "[::1]:80", "evil.example:99999"])
async def test_row_123_who_names_the_host(wire: Wire, host: str) -> None:
    """Location and Link stay relative, whatever Host and X-Forwarded-* say."""
    start = wire.ask(rawsocket.request("POST", f"/v2/{NAME}/blobs/uploads/", *FORWARDED, host=host), "POST")
    assert start.status == 202
    assert start.headers["location"].startswith(f"/v2/{NAME}/blobs/uploads/")
    fields = (*FORWARDED, f"Content-Type: {IMAGE}")
    put = wire.ask(rawsocket.request("PUT", f"/v2/{NAME}/manifests/v1", *fields, body=MANIFEST, host=host), "PUT")
    assert (put.status, put.headers["location"]) == (201, f"/v2/{NAME}/manifests/v1")
    await wire.api.push_manifest(NAME, MANIFEST, "v2")
    listed = wire.ask(rawsocket.request("GET", f"/v2/{NAME}/tags/list?n=1", *FORWARDED, host=host))
    assert listed.headers["link"] == f'</v2/{NAME}/tags/list?n=1&last=v1>; rel="next"'


async def test_a_browser_gets_nothing_to_run(wire: Wire) -> None:
    """Blobs are octets, whatever they look like, and nobody is to guess (S26)."""
    digest = await wire.api.push_blob(NAME, b"<script>alert(1)</script>")
    response = wire.ask(rawsocket.request("GET", f"/v2/{NAME}/blobs/{digest}", "Origin: https://evil.example"))
    assert response.headers["content-type"] == "application/octet-stream"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert not [name for name in response.headers if name.startswith("access-control")]


TWICE = re.compile("content-length|content-type|etag|docker-content-digest|docker-distribution-api-version")


@pytest.mark.parametrize("target", [BY_DIGEST, LAYER, "/v2/", f"/v2/{NAME}/tags/list", "/v2/nope/tags/list"])
async def test_no_header_is_sent_twice(wire: Wire, target: str) -> None:
    names = [name for name, _ in wire.ask(rawsocket.request("GET", target)).fields if TWICE.fullmatch(name)]
    assert len(names) == len(set(names)), names


A_LAYER = f"/v2/{NAME}/blobs/{LAYER_DIGEST}"
CORPUS = [
    *(
        Bad(row.partition("-")[0], row.partition("-")[2], "GET", A_LAYER, 416, "SIZE_INVALID", {"Range": value})
        for row, value in UNSATISFIABLE.items()
    ),
    *(
        Bad(row.partition("-")[0], row.partition("-")[2], "GET", A_LAYER, 400, "UNSUPPORTED", {"Range": value})
        for row, value in TOO_MANY.items()
        if "overlapping" not in row
    ),
]
