"""S1, S13, S21, S24, S26, C1, C2, C4, 1d: input that made others work without end, or believe what they should not."""

import ast
import json
import logging
import re
from collections.abc import AsyncIterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import pytest

from registry.app import create_app
from registry.config import Config
from registry.serving.lifespan import lifespan
from registry.serving.server import RunningServer
from storage import layout
from storage.drivers.memory import MemoryDriver
from tests import rawsocket
from tests.api import (
    CONFIG,
    DOCKER_IMAGE,
    DOCKER_LIST,
    IMAGE,
    INDEX,
    Api,
    descriptor,
    digest_of,
    error_of,
    image,
    index,
)
from tests.security.conftest import without_users
from tests.storage.spying import Record, Spied

ROOT = Path(__file__).parents[2]


@pytest.fixture
async def api(secured: Config) -> AsyncIterator[Api]:
    """A registry without users. What the application raises is raised here, so that no 500 hides."""
    app = create_app(without_users(secured))
    transport = httpx.ASGITransport(app)
    async with lifespan(app), httpx.AsyncClient(transport=transport, base_url="http://registry") as client:
        yield Api(client)


async def put(api: Api, body: bytes, media_type: str = IMAGE, reference: str = "v1") -> httpx.Response:
    return await api.http.put(f"/v2/a/manifests/{reference}", content=body, headers={"Content-Type": media_type})


# S1: tests/security/test_memory.py looks at the memory of a server that is asked so


@pytest.mark.parametrize("path", ["/v2/_catalog", "/v2/a/tags/list"])
@pytest.mark.parametrize("n", ["2147483647", "9" * 19])
async def test_s1_a_huge_n_is_cut(api: Api, path: str, n: str) -> None:
    await api.push_image("a", "v1")
    response = await api.get(f"{path}?n={n}")
    assert response.status_code == 200
    assert response.json().get("tags", ["v1"]) == ["v1"]


@pytest.mark.parametrize("path", ["/v2/_catalog", "/v2/a/tags/list"])
@pytest.mark.parametrize(
    "n",
    ["-1", "abc", "1.5", "1_0", "%D9%A1", "+5", "%2B5", "%205", "5%20", "0x5", "1e3", "9" * 20, "9" * 5000, "²", "٣"],
)
async def test_s1_what_is_no_number(api: Api, path: str, n: str) -> None:
    await api.push_image("a", "v1")
    assert (await api.get(f"{path}?n={n}")).status_code == 400


async def test_s1_more_than_the_most_come_in_pages(api: Api) -> None:
    body = index()
    for start in range(0, 1050, 75):
        query = "&".join(f"tag=t{n:04}" for n in range(start, start + 75))
        response = await api.http.put(
            f"/v2/a/manifests/{digest_of(body)}?{query}", content=body, headers={"Content-Type": INDEX}
        )
        assert response.status_code == 201
    response = await api.get("/v2/a/tags/list?n=2147483647")
    assert response.json()["tags"] == [f"t{n:04}" for n in range(1000)]
    assert 'rel="next"' in response.headers["Link"]
    response = await api.get(response.headers["Link"].partition(">")[0].removeprefix("<"))
    assert response.json()["tags"] == [f"t{n:04}" for n in range(1000, 1050)]
    assert "Link" not in response.headers


# S13


def sources() -> list[Path]:
    return [
        path for package in ("registry", "storage", "conformance") for path in sorted((ROOT / package).rglob("*.py"))
    ]


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_s13_nothing_is_unpickled_or_evaluated(path: Path) -> None:
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        assert not {"pickle", "marshal", "shelve", "dill", "jsonpickle", "cPickle"} & {n.split(".")[0] for n in names}
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("eval", "exec", "yaml.load", "yaml.unsafe_load", "yaml.full_load"), node.lineno
            assert not called.endswith((".form", "request.form")), "1d: forms have limits of their own"
        if isinstance(node, ast.Attribute) and node.attr == "url" and "proxy" not in path.parts:  # there it is ours
            assert "request" not in ast.unparse(node.value), f"line {node.lineno}: 1d: request.url believes Host"


HOSTILE = {
    "pickle": b"cos\nsystem\n(S'touch /tmp/owned'\ntR.",
    "empty": b"",
    "not-utf8": b"\xff\xfe\x00",
    "json": b'{"digest": "../../etc/passwd"}',
    "path": b"sha256:../../../../etc/passwd",
    "long": b"x" * 20_000,
}


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
async def test_s13_hostile_bytes_in_the_store(secured: Config, hostile: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever can write into the bucket can break an image; nothing is run, and the others still work."""
    driver = MemoryDriver()
    monkeypatch.setattr("registry.stores.create", lambda name, parameters: driver)
    app = create_app(without_users(secured))
    transport = httpx.ASGITransport(app)
    async with lifespan(app), httpx.AsyncClient(transport=transport, base_url="http://registry") as client:
        api = Api(client)
        subject = await api.push_image("b", "v1", (b"layer",))
        digest = await api.push_image("a", "v1", (b"layer",))
        await api.push_image("a", "v2", subject=descriptor(image(b"{}", (b"layer",)), IMAGE))
        location = await api.start("a")
        below = f"{layout.REPOSITORIES}/a/"
        for info in [info async for info in driver.list_objects(f"{layout.REPOSITORIES}/a")]:
            await driver.put(info.key, hostile)
        for path in (
            "tags/list",
            "manifests/v1",
            f"manifests/{digest}",
            f"blobs/{digest_of(b'layer')}",
            f"referrers/{subject}",
        ):
            response = await api.get(f"/v2/a/{path}")
            assert response.status_code in (200, 404, 503), (path, response.text)
            assert below not in response.text
        assert (await api.get(location)).status_code in (204, 404)
        assert (await api.get("/v2/_catalog")).status_code == 200
        assert await api.tags("b") == ["v1"]
        assert (await api.get("/v2/b/manifests/v1")).status_code == 200


# S21


FORWARDED = {
    "X-Forwarded-For": "203.0.113.9",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Port": "1",
    "X-Forwarded-Prefix": "/evil",
    "X-Real-IP": "203.0.113.9",
    "Forwarded": "for=203.0.113.9;host=evil.example;proto=https",
    "X-Original-URL": "/evil",
    "Host": "evil.example",
}


async def test_s21_forwarded_headers_are_believed_nowhere(
    live: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    """From localhost, where uvicorn would believe them."""
    caplog.set_level(logging.INFO)
    async with httpx.AsyncClient(
        base_url=live.url, headers=FORWARDED, auth=("alice", "alice's password"), verify=False
    ) as client:
        api = Api(client)
        await api.push_image("a", "v1")
        await api.push_image("a", "v2")
        responses = [
            await client.post("/v2/a/blobs/uploads/"),
            await client.post(f"/v2/a/blobs/uploads/?digest={digest_of(b'x')}", content=b"x"),
            await client.get("/v2/a/tags/list?n=1"),
            await client.get("/v2/nowhere"),
            await client.get("/v2/", auth=("x", "y")),
        ]
    assert [response.status_code for response in responses] == [202, 201, 200, 404, 401]
    for response in responses:
        assert "evil" not in str(response.headers) + response.text
        assert "203.0.113" not in str(response.headers) + response.text
        assert not response.headers.get("Location", "/").startswith("http")
    seen = [vars(record) for record in caplog.records if record.name == "registry.access"]
    assert {record["remote"] for record in seen} == {"127.0.0.1"}
    assert "203.0.113" not in caplog.text
    assert "evil" not in caplog.text


# S24


async def test_s24_a_chain_of_indexes_that_name_the_next_twice(
    secured: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two to the fortieth ways through it; we take as many steps for the last as for the first."""
    record = Record()
    driver = Spied(MemoryDriver(), record)
    monkeypatch.setattr("registry.stores.create", lambda name, parameters: driver)
    app = create_app(without_users(secured))
    transport = httpx.ASGITransport(app)
    async with lifespan(app), httpx.AsyncClient(transport=transport, base_url="http://registry") as client:
        api = Api(client)
        body = index()
        await api.push_manifest("a", body, media_type=INDEX)
        calls = []
        for _ in range(40):
            twice = descriptor(body, INDEX)
            body = index(twice, twice, subject=twice)
            record.taken()
            await api.push_manifest("a", body, media_type=INDEX)
            calls.append(len(record.taken()))
        assert len(set(calls)) == 1, calls
        assert len(await api.referrers("a", twice["digest"])) == 1
        assert (await client.delete(f"/v2/a/manifests/{digest_of(body)}")).status_code == 202


# S26


async def test_s26_browsers_get_no_help(api: Api) -> None:
    digest = await api.push_image("a", "v1", (b"<script>alert(1)</script>",))
    blob = digest_of(b"<script>alert(1)</script>")
    for path, media_type in [
        ("manifests/v1", IMAGE),
        (f"manifests/{digest}", IMAGE),
        (f"blobs/{blob}", "application/octet-stream"),
        ("tags/list", "application/json"),
        (f"referrers/{digest}", INDEX),
        ("manifests/none", "application/json"),
        ("<script>", "application/json"),
    ]:
        for accept in ("text/html", "*/*", "image/svg+xml"):
            response = await api.get(f"/v2/a/{path}", Accept=accept, Origin="https://evil.example")
            assert response.headers["Content-Type"] == media_type
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert not [name for name in response.headers if name.startswith("access-control")]
            assert "Set-Cookie" not in response.headers
    response = await api.http.options("/v2/a/tags/list", headers={"Origin": "https://evil.example"})
    assert response.status_code == 405
    assert not [name for name in response.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "path", ["/\\evil.example", "//evil.example", "/v2/..//evil.example", "/%5C%5Cevil.example/v2"]
)
async def test_s26_nobody_is_redirected(live: RunningServer, path: str) -> None:
    with rawsocket.connected(live.host, live.port) as client:
        client.send(rawsocket.request("GET", path))
        response = client.response()
    assert response.status in (400, 404)
    assert "location" not in response.headers


# C1


CONFIG_OF = descriptor(b"{}", CONFIG)


def body(**fields: Any) -> bytes:
    return json.dumps({"schemaVersion": 2, **fields}).encode()


CONFUSED = {
    "layers-and-manifests": (IMAGE, body(config=CONFIG_OF, layers=[], manifests=[])),
    "config-and-manifests-as-index": (INDEX, body(config=CONFIG_OF, manifests=[])),
    "layers-and-manifests-as-index": (INDEX, body(layers=[], manifests=[])),
    "null-manifests-in-an-image": (IMAGE, body(config=CONFIG_OF, layers=[], manifests=[CONFIG_OF])),
    "type-of-an-index-sent-as-image": (IMAGE, body(mediaType=INDEX, manifests=[])),
    "type-of-an-image-sent-as-index": (INDEX, body(mediaType=IMAGE, config=CONFIG_OF, layers=[])),
    "docker-sent-as-oci": (IMAGE, body(mediaType=DOCKER_IMAGE, config=CONFIG_OF, layers=[])),
    "docker-list-without-its-type": (DOCKER_LIST, body(manifests=[])),
    "index-without-manifests": (INDEX, body()),
    "image-without-config": (IMAGE, body(layers=[])),
    "type-is-no-text": (IMAGE, body(mediaType=5, config=CONFIG_OF, layers=[])),
}


@pytest.mark.parametrize(("media_type", "data"), CONFUSED.values(), ids=CONFUSED)
async def test_c1_what_could_be_two_things_is_neither(api: Api, media_type: str, data: bytes) -> None:
    await api.push_blob("a", b"{}")
    assert error_of(await put(api, data, media_type)) == (400, "MANIFEST_INVALID")
    assert (await api.get(f"/v2/a/manifests/{digest_of(data)}")).status_code == 404


async def test_c1_the_stored_type_whatever_is_accepted(api: Api) -> None:
    await api.push_blob("a", b"{}")
    untyped = {IMAGE: body(config=CONFIG_OF, layers=[]), INDEX: body(manifests=[])}
    for media_type, data in untyped.items():
        other = INDEX if media_type == IMAGE else IMAGE
        assert (await put(api, data, media_type)).status_code == 201
        assert error_of(await put(api, data, other)) == (400, "MANIFEST_INVALID"), "the same bytes as something else"
        for accept in (IMAGE, INDEX, DOCKER_IMAGE, "text/html", "*/*", ""):
            response = await api.get("/v2/a/manifests/v1", Accept=accept)
            assert (response.headers["Content-Type"], response.content) == (media_type, data)


# C2


VALID = image()
TEXT = VALID.decode()
DIFFERENT_TO_READERS = {
    "double-key": TEXT.replace('"layers": []', '"layers": [], "layers": []').encode(),
    "double-key-deep": TEXT.replace('"size": 2', '"size": 2, "size": 3').encode(),
    "double-key-in-annotations": image(annotations={"a": "1"}).replace(b'{"a": "1"}', b'{"a": "1", "a": "2"}'),
    "known-key-in-another-case": TEXT.replace('"layers": []', '"layers": [], "Layers": []').encode(),
    "media-type-in-another-case": TEXT.replace('"schemaVersion"', f'"MediaType": "{INDEX}", "schemaVersion"').encode(),
    "case-in-a-descriptor": TEXT.replace('"size": 2', '"size": 2, "Size": 3').encode(),
    "case-by-unicode": TEXT.replace('"layers": []', '"layers": [], "layer\u017f": []').encode(),
    "nan": TEXT.replace('"layers": []', '"layers": [], "x": NaN').encode(),
    "infinity": TEXT.replace('"layers": []', '"layers": [], "x": -Infinity').encode(),
    "utf16": TEXT.encode("utf-16"),
    "bom": b"\xef\xbb\xbf" + VALID,
    "not-utf8": VALID.replace(b'"layers"', b'"\xff": 1, "layers"'),
    "overlong-utf8": VALID.replace(b'"layers"', b'"\xc0\xaf": 1, "layers"'),
    "size-as-float": TEXT.replace('"size": 2', '"size": 2.0').encode(),
    "size-with-exponent": TEXT.replace('"size": 2', '"size": 2e0').encode(),
    "size-true": TEXT.replace('"size": 2', '"size": true').encode(),
    "size-negative": TEXT.replace('"size": 2', '"size": -2').encode(),
    "version-true": TEXT.replace('"schemaVersion": 2', '"schemaVersion": true').encode(),
    "version-float": TEXT.replace('"schemaVersion": 2', '"schemaVersion": 2.0').encode(),
    "more-behind-it": VALID + b"{}",
    "nul-behind-it": VALID + b"\0",
    "half": VALID[:-1],
    "empty": b"",
    "single-quotes": TEXT.replace('"', "'").encode(),
    "comment": b"/* */" + VALID,
    "1d-deep": TEXT.replace('"layers": []', '"layers": [], "x": ' + "[" * 101 + "]" * 101).encode(),
    "1d-very-deep": b"[" * 200_000,
    "1d-very-deep-objects": b'{"a":' * 100_000,
    "1d-5000-digits": TEXT.replace('"size": 2', '"size": ' + "9" * 5000).encode(),
    "1d-5000-digits-elsewhere": TEXT.replace('"layers": []', '"layers": [], "x": ' + "9" * 5000).encode(),
}


@pytest.mark.parametrize("data", DIFFERENT_TO_READERS.values(), ids=DIFFERENT_TO_READERS)
async def test_c2_what_readers_understand_differently(api: Api, data: bytes) -> None:
    await api.push_blob("a", b"{}")
    assert error_of(await put(api, data)) == (400, "MANIFEST_INVALID")
    assert error_of(await api.get("/v2/a/tags/list")) == (404, "NAME_UNKNOWN")


async def test_c2_keys_that_only_look_like_ours(api: Api) -> None:
    """In annotations and in what we do not know any key goes."""
    await api.push_blob("a", b"{}")
    data = image(annotations={"MediaType": "x", "mediatype": "y"}, example={"Layers": 1, "layers": 2})
    assert (await put(api, data)).status_code == 201
    assert (await api.get("/v2/a/manifests/v1")).content == data


@pytest.mark.parametrize("text", ['"\\ud800"', '"\\udc00x"', '"\\u0000"', '"<script>"', '"é\\n\\u2028"'])
async def test_c2_annotations_of_referrers_can_always_be_listed(api: Api, text: str) -> None:
    await api.push_blob("a", b"{}")
    subject = descriptor(b"nobody's", IMAGE)
    data = image(subject=subject, annotations={"a": "HERE"}).replace(b'"HERE"', text.encode())
    response = await put(api, data)
    assert response.status_code in (201, 400)
    listed = await api.get(f"/v2/a/referrers/{subject['digest']}")
    assert listed.status_code == 200
    listed.content.decode("utf-8")
    assert len(listed.json()["manifests"]) == (1 if response.status_code == 201 else 0)


# C4


@pytest.mark.parametrize(
    "media_type",
    [
        "text/html",
        "image/svg+xml",
        "application/xhtml+xml",
        "application/json",
        "text/html; charset=utf-7",
        "application/javascript",
        "x",
        "",
    ],
)
async def test_c4_types_that_a_browser_would_show(api: Api, media_type: str) -> None:
    await api.push_blob("a", b"{}")
    for data in (image(mediaType=media_type or None), image(mediaType=None)):
        response = await put(api, data, media_type)
        assert error_of(response) == (400, "MANIFEST_INVALID")
    response = await put(api, image(mediaType=media_type), IMAGE)
    assert error_of(response) == (400, "MANIFEST_INVALID")


async def test_c4_types_inside_are_never_answered_with(api: Api) -> None:
    await api.push_blob("a", b"{}")
    await api.push_blob("a", b"<p>")
    data = json.loads(image(b"{}", (b"<p>",), artifactType="text/html"))
    data["layers"][0]["mediaType"] = "text/html"
    assert (await put(api, json.dumps(data).encode())).status_code == 201
    response = await api.get(f"/v2/a/blobs/{digest_of(b'<p>')}")
    assert response.headers["Content-Type"] == "application/octet-stream"


# 1d


@pytest.mark.parametrize("value", ["%0d%0aSet-Cookie:%20x=1", "%0a", "%1b%5b2J", "é€", "%E2%82%AC", "%7f"])
async def test_1d_what_we_echo_ends_no_header_and_no_line(
    api: Api, value: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await api.push_image("a", "v1")
    for path in (
        f"/v2/a{value}/tags/list",
        f"/v2/a/manifests/{value}",
        f"/v2/a/tags/list?n=1&last={value}",
        f"/v2/_catalog?n=1&last={value}",
        f"/v2/a/referrers/{digest_of(b'x')}?artifactType={value}",
        f"/v2/a/blobs/uploads/{value}?_state={value}",
        f"/v2/{value}",
    ):
        response = await api.get(path)
        assert response.status_code < 500, path
        assert "Set-Cookie" not in response.headers
        for name, header in response.headers.items():
            assert re.fullmatch(r"[\x20-\x7e]*", header), (path, name, header)
    for method, path in (
        ("POST", f"/v2/a/blobs/uploads/?digest={value}"),
        ("POST", f"/v2/a/blobs/uploads/?mount={value}&from={value}"),
    ):
        assert (await api.http.request(method, path)).status_code < 500


@pytest.mark.parametrize("ranges", [17, 1000])
async def test_1d_many_ranges(api: Api, ranges: int) -> None:
    await api.push_blob("a", b"0123456789" * 100)
    digest = digest_of(b"0123456789" * 100)
    header = "bytes=" + ",".join(f"{n * 2 % 999}-{n * 2 % 999}" for n in range(ranges))
    response = await api.get(f"/v2/a/blobs/{digest}", Range=header)
    assert response.status_code == 400
    response = await api.get(f"/v2/a/blobs/{digest}", Range="bytes=" + "," * 1000 + "0-0")
    assert response.status_code in (200, 206, 400)
    response = await api.get(f"/v2/a/blobs/{digest}", Range="bytes=0-" + "9" * 5000)
    assert response.status_code == 206
    assert len(response.content) == 1000


def test_1d_the_floors_of_our_dependencies() -> None:
    """Versions without the advisories of section 1d."""

    def number(name: str) -> tuple[int, ...]:
        return tuple(int(part) for part in version(name).split(".")[:3])

    assert number("starlette") >= (1, 3, 1)
    assert number("uvicorn") >= (0, 54)
    declared = (ROOT / "pyproject.toml").read_text()
    assert '"starlette>=1.3.1"' in declared
    assert '"uvicorn==0.54.0"' in declared
