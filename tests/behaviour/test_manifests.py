"""Manifests that must be refused, or must not (rows 68 to 102); the tag they would have set stays as it was."""

import asyncio
import json
from typing import Any

import pytest

from tests.api import (
    CONFIG,
    DOCKER_IMAGE,
    DOCKER_LIST,
    IMAGE,
    INDEX,
    LAYER,
    Api,
    descriptor,
    digest_of,
    error_of,
    image,
    index,
)
from tests.behaviour.table import (
    ABSENT,
    LAYER_DATA,
    LAYER_DIGEST,
    MANIFEST,
    MANIFEST_DIGEST,
    NAME,
    Bad,
    Wire,
    World,
    by_id,
    refused,
)

V1 = f"/v2/{NAME}/manifests/v1"
FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+json"
SCHEMA1_SIGNED = "application/vnd.docker.distribution.manifest.v1+prettyjws"


def bad(row: str, what: str, body: bytes, media_type: str = IMAGE, code: str = "MANIFEST_INVALID") -> Bad:
    return Bad(row, what, "PUT", V1, 400, code, {"Content-Type": media_type} if media_type else {}, body)


def with_layer(**more: Any) -> bytes:
    """An image whose one layer says something else."""
    return edited(layers=[{**descriptor(LAYER_DATA), **more}])


def edited(**more: Any) -> bytes:
    """The good image with other fields; None takes one away."""
    fields = {**json.loads(MANIFEST), **more}
    return json.dumps({key: value for key, value in fields.items() if value is not None}).encode()


def spliced(old: str, new: str) -> bytes:
    """The good image with other text, for what json.dumps would not write."""
    assert old in MANIFEST.decode()
    return MANIFEST.decode().replace(old, new, 1).encode()


SIZE = f'"size": {len(LAYER_DATA)}'
LAYERS = '"layers": ['
DEEP = "[" * 100_000 + "]" * 100_000

BAD = [
    bad("68", "empty", b""),
    bad("68", "text", b"hello"),
    bad("68", "array", b"[]"),
    bad("68", "string", b'"a"'),
    bad("68", "number", b"1"),
    bad("68", "empty-object", b"{}"),
    bad("68", "cut", MANIFEST[:-20]),
    bad("68", "trailing-garbage", MANIFEST + b"}"),
    bad("68", "two-documents", MANIFEST + MANIFEST),
    bad("68", "trailing-comma", spliced('"schemaVersion": 2,', '"schemaVersion": 2,,')),
    bad("68", "nul-bytes", bytes(100)),
    bad("69", "null", b"null"),
    bad("70", "invalid-utf8", MANIFEST.replace(b'"mediaType"', b'"x": "\xff", "mediaType"', 1)),
    bad("71", "bom", b"\xef\xbb\xbf" + MANIFEST),
    bad("71", "utf16", MANIFEST.decode().encode("utf-16")),
    bad("71", "utf16-without-bom", MANIFEST.decode().encode("utf-16-le")),
    bad("71", "utf32", MANIFEST.decode().encode("utf-32")),
    bad("72", "two-media-types", spliced('"mediaType"', f'"mediaType": "{INDEX}", "mediaType"')),
    bad("72", "two-layers", spliced(LAYERS, f'"layers": [], {LAYERS}')),
    bad("72", "two-configs", spliced('"config"', '"config": null, "config"')),
    bad("72", "two-digests-in-a-layer", spliced(SIZE, f'{SIZE}, "digest": "{ABSENT}"')),
    bad("72", "escaped-key", spliced('"config"', '"\\u0063onfig": null, "config"')),
    bad("73", "media-type-in-another-case", spliced('"mediaType"', f'"MediaType": "{INDEX}", "mediaType"')),
    bad("73", "only-in-another-case", spliced('"mediaType"', '"mediatype"')),
    bad("73", "layers-in-another-case", spliced(LAYERS, f'"LAYERS": [], {LAYERS}')),
    bad("73", "long-s", spliced(LAYERS, '"layer\u017f": [], "layers": [')),
    bad("74", "deep-annotations", spliced(LAYERS, f'"annotations": {DEEP}, {LAYERS}')),
    bad("74", "deep-unknown-field", spliced(LAYERS, f'"x": {DEEP}, {LAYERS}')),
    bad("74", "deep-objects", spliced(LAYERS, f'"x": {"{" * 5000 + "}" * 5000}, {LAYERS}')),
    bad("74", "deep-and-open", b"[" * 1_000_000),
    *(
        bad("75", f"size-{what}", spliced(SIZE, f'"size": {value}'))
        for what, value in {
            "nan": "NaN",
            "infinity": "-Infinity",
            "1e999": "1e999",
            "1e2": "1e2",
            "5000-digits": "9" * 5000,
            "float": "20.0",
            "string": f'"{len(LAYER_DATA)}"',
            "true": "true",
            "null": "null",
            "2-to-63": str(1 << 63),
            "array": "[]",
        }.items()
    ),
    bad("75", "schema-version-of-5000-digits", spliced('"schemaVersion": 2', '"schemaVersion": ' + "2" * 5000)),
    bad("75", "nan-in-an-unknown-field", spliced(LAYERS, f'"x": NaN, {LAYERS}')),
    bad("76", "negative-size", with_layer(size=-1)),
    bad("77", "size-too-small", with_layer(size=len(LAYER_DATA) - 1)),
    bad("77", "size-too-large", with_layer(size=len(LAYER_DATA) + 1)),
    bad("77", "config-size", edited(config={**descriptor(b"{}", CONFIG), "size": 3})),
    bad("77", "child-size", index({**descriptor(MANIFEST, IMAGE), "size": 1}), INDEX),
    bad("78", "layers-and-manifests", edited(manifests=[])),
    bad("78", "config-and-manifests", edited(layers=None, manifests=[])),
    bad("78", "index-with-layers", index(layers=[]), INDEX),
    bad("78", "index-with-config", index(config=descriptor(b"{}", CONFIG)), INDEX),
    bad("79", "index-as-image", index()),
    bad("79", "image-as-index", MANIFEST, INDEX),
    bad("79", "oci-as-docker", MANIFEST, DOCKER_IMAGE),
    bad("79", "docker-list-as-index", index(mediaType=DOCKER_LIST), INDEX),
    bad("79", "another-in-the-body", edited(mediaType="application/vnd.oci.image.config.v1+json")),
    bad("79", "media-type-null", spliced(f'"mediaType": "{IMAGE}"', '"mediaType": null')),
    bad("79", "media-type-number", spliced(f'"mediaType": "{IMAGE}"', '"mediaType": 1')),
    bad("80", "no-type-at-all", edited(mediaType=None), ""),
    *(
        bad("82", what, edited(mediaType=None), media_type)
        for what, media_type in {
            "json": "application/json",
            "html": "text/html",
            "vendor": "application/vnd.example.manifest.v1+json",
            "config-type": CONFIG,
            "no-slash": "image",
            "two": f"{IMAGE}, {INDEX}",
            "wildcard": "*/*",
            "artifact-manifest": "application/vnd.oci.artifact.manifest.v1+json",
        }.items()
    ),
    bad("82", "html-in-the-body-too", edited(mediaType="text/html"), "text/html"),
    bad("84", "schema-version-1", edited(schemaVersion=1)),
    bad("84", "schema-version-3", edited(schemaVersion=3)),
    bad("84", "schema-version-string", edited(schemaVersion="2")),
    bad("84", "schema-version-float", spliced('"schemaVersion": 2', '"schemaVersion": 2.0')),
    bad("84", "schema-version-true", edited(schemaVersion=True)),
    bad("84", "schema-version-missing", edited(schemaVersion=None)),
    bad("84", "index-schema-version-1", index(schemaVersion=1), INDEX),
    bad("85", "no-config", edited(config=None)),
    bad("85", "config-a-string", edited(config=LAYER_DIGEST)),
    bad("85", "config-an-array", edited(config=[])),
    bad("85", "layers-a-string", edited(layers="none")),
    bad("85", "layers-an-object", edited(layers={})),
    bad("85", "layer-a-string", edited(layers=[LAYER_DIGEST])),
    bad("85", "layer-null", edited(layers=[None])),
    bad("85", "layer-without-digest", edited(layers=[{"mediaType": LAYER, "size": 1}])),
    bad("85", "layer-without-size", edited(layers=[{"mediaType": LAYER, "digest": LAYER_DIGEST}])),
    bad("85", "layer-without-type", edited(layers=[{"digest": LAYER_DIGEST, "size": len(LAYER_DATA)}])),
    bad("85", "index-without-manifests", json.dumps({"schemaVersion": 2, "mediaType": INDEX}).encode(), INDEX),
    bad("85", "manifests-an-object", json.dumps({"schemaVersion": 2, "manifests": {}}).encode(), INDEX),
    bad("86", "layer-digest-malformed", with_layer(digest="sha256:bad")),
    bad("86", "layer-digest-empty", with_layer(digest="")),
    bad("86", "layer-digest-a-path", with_layer(digest="sha256:../../../etc/passwd")),
    bad("86", "layer-digest-a-number", with_layer(digest=1)),
    bad("86", "layer-digest-md5", with_layer(digest="md5:d41d8cd98f00b204e9800998ecf8427e")),
    bad("86", "config-digest-malformed", edited(config={**descriptor(b"{}", CONFIG), "digest": "x"})),
    bad("86", "child-digest-malformed", index({**descriptor(MANIFEST, IMAGE), "digest": "x"}), INDEX),
    bad("87", "layer-missing", with_layer(digest=ABSENT), code="MANIFEST_BLOB_UNKNOWN"),
    bad("87", "config-missing", image(b"no such config"), code="MANIFEST_BLOB_UNKNOWN"),
    bad("87", "child-missing", index(descriptor(b"no such image", IMAGE)), INDEX, "MANIFEST_BLOB_UNKNOWN"),
    bad("89", "annotation-a-number", edited(annotations={"a": 1})),
    bad("89", "annotation-null", edited(annotations={"a": None})),
    bad("89", "annotations-an-array", edited(annotations=["a"])),
    bad("89", "annotation-of-a-layer", with_layer(annotations={"a": {}})),
    bad("90", "half-a-surrogate-pair", edited(annotations={"a": "\ud800"})),
    bad("90", "half-a-surrogate-pair-as-a-key", edited(annotations={"\udfff": "a"})),
    bad("91", "subject-malformed", edited(subject={**descriptor(b"x", IMAGE), "digest": "sha256:bad"})),
    bad("91", "subject-a-string", edited(subject=ABSENT)),
    bad("91", "subject-without-size", edited(subject={"mediaType": IMAGE, "digest": ABSENT})),
    bad("91", "subject-md5", edited(subject={**descriptor(b"x", IMAGE), "digest": "md5:" + "0" * 32})),
    bad("95", "file-url", with_layer(urls=["file:///etc/passwd"])),
    bad("95", "relative-url", with_layer(urls=["/etc/passwd"])),
    bad("95", "script-url", with_layer(urls=["javascript:alert(1)"])),
    bad("95", "broken-url", with_layer(urls=["http://[::1"])),
    bad("95", "url-a-number", with_layer(urls=[1])),
    bad("95", "urls-a-string", with_layer(urls="http://example.com/")),
    bad("96", "data-of-another-digest", with_layer(data="AAAA")),
    bad("96", "data-no-base64", with_layer(data="%")),
    bad("96", "data-of-another-size", edited(config={**descriptor(b"{}", CONFIG), "data": "e30KCg=="})),
    bad("99", "schema1", json.dumps({"schemaVersion": 1, "name": "a", "tag": "v1"}).encode(), SCHEMA1),
    bad("99", "schema1-signed", json.dumps({"schemaVersion": 1, "signatures": []}).encode(), SCHEMA1_SIGNED),
    bad("99", "schema1-without-type", json.dumps({"schemaVersion": 1, "fsLayers": []}).encode(), ""),
]

BY_DIGEST = f"/v2/{NAME}/manifests/{MANIFEST_DIGEST}"
TYPED = {"Content-Type": IMAGE}


def tags_query(count: int) -> str:
    return "?" + "&".join(f"tag=t{n}" for n in range(count))


REFUSED = [
    *BAD,
    Bad("98", "5-mib", "PUT", V1, 413, "SIZE_INVALID", TYPED, b" " * (5 << 20)),
    Bad("100", "one-bad-tag", "PUT", f"{BY_DIGEST}?tag=good&tag=.bad", 400, "MANIFEST_INVALID", TYPED, MANIFEST),
    Bad("100", "empty-tag", "PUT", f"{BY_DIGEST}?tag=good&tag=", 400, "MANIFEST_INVALID", TYPED, MANIFEST),
    Bad("100", "tag-a-digest", "PUT", f"{BY_DIGEST}?tag={ABSENT}", 400, "MANIFEST_INVALID", TYPED, MANIFEST),
    Bad("100", "101-tags", "PUT", BY_DIGEST + tags_query(101), 414, "UNSUPPORTED", TYPED, MANIFEST),
    Bad("100", "2000-tags", "PUT", BY_DIGEST + tags_query(2000), 414, "UNSUPPORTED", TYPED, MANIFEST),
    Bad("100", "tags-and-bad-body", "PUT", f"{BY_DIGEST}?tag=good", 400, "DIGEST_INVALID", TYPED, MANIFEST + b" "),
    Bad("101", "exists", "PUT", V1, 412, "UNSUPPORTED", {**TYPED, "If-None-Match": "*"}, MANIFEST),
    Bad("101", "stale", "PUT", V1, 412, "UNSUPPORTED", {**TYPED, "If-Match": f'"{ABSENT}"'}, MANIFEST),
    Bad("101", "weak", "PUT", V1, 412, "UNSUPPORTED", {**TYPED, "If-Match": f'W/"{MANIFEST_DIGEST}"'}, MANIFEST),
    Bad("101", "no-tag-to-match", "PUT", f"/v2/{NAME}/manifests/new", 412, "UNSUPPORTED", {**TYPED, "If-Match": "*"},
        MANIFEST),
    Bad("101", "second-of-two-tags-exists", "PUT", f"{BY_DIGEST}?tag=new&tag=v1", 412, "UNSUPPORTED",
        {**TYPED, "If-None-Match": "*"}, MANIFEST),
    Bad("101", "second-of-two-tags-is-stale", "PUT", f"{BY_DIGEST}?tag=v1&tag=new", 412, "UNSUPPORTED",
        {**TYPED, "If-Match": f'"{MANIFEST_DIGEST}"'}, MANIFEST),
]  # fmt: skip

CORPUS = REFUSED


@by_id(REFUSED)
async def test_refused(wire: Wire, case: Bad) -> None:
    await wire.refuses(case)


async def test_row_88_a_thousand_missing_layers(world: World) -> None:
    """The message stays one that can be read, and the list bounded."""
    layers = tuple(str(n).encode() for n in range(1000))
    case = bad("88", "missing", image(b"{}", layers), code="MANIFEST_BLOB_UNKNOWN")
    response = await refused(world, case)
    (error,) = response.json()["errors"]
    assert len(error["detail"]) == 100
    assert error["detail"][0] == {"digest": digest_of(b"0")}
    assert len(response.content) < 20_000
    assert "and 990 more" in error["message"]


async def test_row_98_is_refused_before_it_is_sent(wire: Wire) -> None:
    """By the announced length; and without one, as soon as the limit is passed."""
    head = f"PUT {V1} HTTP/1.1\r\nHost: a\r\nContent-Type: {IMAGE}\r\n".encode()
    announced = wire.ask(head + b"Content-Length: 104857600\r\n\r\n", "PUT")
    assert (announced.status, json.loads(announced.body)["errors"][0]["code"]) == (413, "SIZE_INVALID")
    chunked = wire.ask(
        head + b"Transfer-Encoding: chunked\r\n\r\n" + (b"10000\r\n" + bytes(0x10000) + b"\r\n") * 80, "PUT"
    )
    assert (chunked.status, json.loads(chunked.body)["errors"][0]["code"]) == (413, "SIZE_INVALID")


ACCEPTED = {
    "80-type-from-the-body": (MANIFEST, "", IMAGE),
    "81-charset": (MANIFEST, f"{IMAGE}; charset=utf-8", IMAGE),
    "81-upper-case": (MANIFEST, IMAGE.upper(), IMAGE),
    "83-type-from-the-header": (edited(mediaType=None), IMAGE, IMAGE),
    "83-index-from-the-header": (json.dumps({"schemaVersion": 2, "manifests": []}).encode(), INDEX, INDEX),
    "85-layers-null": (spliced(LAYERS, '"layers": null, "x": ['), IMAGE, IMAGE),
    "85-no-layers": (edited(layers=None), IMAGE, IMAGE),
    "88-empty-layers": (edited(layers=[]), IMAGE, IMAGE),
    "90-a-whole-surrogate-pair": (edited(annotations={"a": "\U0001f4a9"}), IMAGE, IMAGE),
    "92-missing-subject": (edited(subject=descriptor(b"nobody", IMAGE)), IMAGE, IMAGE),
    "94-nondistributable": (
        edited(layers=[descriptor(b"elsewhere", FOREIGN, urls=["http://127.0.0.1:9/layer"])]),
        IMAGE,
        IMAGE,
    ),
    "95-url-of-a-layer-that-is-here": (with_layer(urls=["https://example.com/layer"]), IMAGE, IMAGE),
    "96-data": (edited(config={**descriptor(b"{}", CONFIG), "data": "e30="}), IMAGE, IMAGE),
    "97-3.9-mb": (edited(annotations={f"a{n}": "x" * 10_000 for n in range(390)}), IMAGE, IMAGE),
    "docker-image": (edited(mediaType=DOCKER_IMAGE), DOCKER_IMAGE, DOCKER_IMAGE),
    "docker-list": (index(descriptor(MANIFEST, IMAGE), mediaType=DOCKER_LIST), DOCKER_LIST, DOCKER_LIST),
    "nested-index": (index(descriptor(index(), INDEX)), INDEX, INDEX),
    "empty-index": (index(), INDEX, INDEX),
    "custom-fields": (edited(x={"y": [1.5, None, True]}, annotations={"": ""}), IMAGE, IMAGE),
    "spaces": (b" \n\t" + MANIFEST + b"\r\n", IMAGE, IMAGE),
}


@pytest.mark.parametrize("row", ACCEPTED, ids=lambda row: f"row-{row}")
async def test_accepted(world: World, row: str) -> None:
    """Stored and returned byte for byte, as the type that it was pushed with."""
    body, sent, expected = ACCEPTED[row]
    api = world.api
    await api.push_manifest(NAME, index(), media_type=INDEX)  # the child of the nested one
    headers = {"Content-Type": sent} if sent else {}
    response = await api.http.put(f"/v2/{NAME}/manifests/new", content=body, headers=headers)
    assert response.status_code == 201, response.text
    assert response.headers["Location"] == f"/v2/{NAME}/manifests/new"
    for reference in ("new", digest_of(body)):
        got = await api.get(f"/v2/{NAME}/manifests/{reference}")
        assert (got.status_code, got.content) == (200, body)
        assert (got.headers["Content-Type"], got.headers["Docker-Content-Digest"]) == (expected, digest_of(body))


async def test_c1_one_digest_pushed_as_two_types(world: World) -> None:
    """Bytes without mediaType, first as an image and then as an index: the second is refused or changes nothing."""
    api, body = world.api, edited(mediaType=None)
    digest = await api.push_manifest(NAME, body)
    response = await api.http.put(f"/v2/{NAME}/manifests/{digest}", content=body, headers={"Content-Type": INDEX})
    assert error_of(response) == (400, "MANIFEST_INVALID")
    assert (await api.get(f"/v2/{NAME}/manifests/{digest}", Accept=INDEX)).headers["Content-Type"] == IMAGE


async def test_rows_90_92_referrers_of_odd_annotations(world: World) -> None:
    api = world.api
    body = edited(subject=descriptor(b"nobody", IMAGE), annotations={"a": "\U0001f4a9\u0000\u2028"})
    response = await api.http.put(f"/v2/{NAME}/manifests/new", content=body, headers=TYPED)
    assert (response.status_code, response.headers["OCI-Subject"]) == (201, digest_of(b"nobody"))
    (found,) = await api.referrers(NAME, digest_of(b"nobody"))
    assert found["annotations"] == {"a": "\U0001f4a9\u0000\u2028"}


async def test_row_93_subjects_in_a_circle(world: World) -> None:
    """Nobody can push two that name each other by digest; an index may name its own subject as a child, though."""
    api = world.api
    subject = descriptor(MANIFEST, IMAGE)
    body = index(subject, subject=subject)
    await api.push_manifest(NAME, body, "list", INDEX)
    assert [d["digest"] for d in await api.referrers(NAME, MANIFEST_DIGEST)] == [digest_of(body)]
    assert await api.referrers(NAME, digest_of(body)) == []


async def test_row_94_nothing_is_fetched(world: World) -> None:
    """A URL of a layer is text to us (S14): nobody connects to the port that it names."""
    connected = asyncio.Event()
    server = await asyncio.start_server(lambda reader, writer: connected.set(), "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        url = f"http://127.0.0.1:{port}/layer"
        body = edited(layers=[descriptor(b"elsewhere", FOREIGN, urls=[url]), descriptor(LAYER_DATA, urls=[url])])
        await world.api.push_manifest(NAME, body, "foreign")
        assert (await world.api.get(f"/v2/{NAME}/manifests/foreign")).content == body
    assert not connected.is_set()


async def test_row_100_tags_of_a_push_by_digest(world: World) -> None:
    api = world.api
    names = [f"t{n}" for n in range(12)]
    query = "&".join(f"tag={name}" for name in names)
    response = await api.http.put(f"{BY_DIGEST}?{query}&tag=t0", content=MANIFEST, headers=TYPED)
    assert response.status_code == 201
    assert response.headers["Location"] == BY_DIGEST
    assert response.headers.get_list("OCI-Tag") == names
    assert await api.tags(NAME) == sorted([*names, "v1"])


async def test_row_100_tags_of_a_push_by_tag_are_ignored(world: World) -> None:
    response = await world.api.http.put(f"{V1}?tag=other", content=MANIFEST, headers=TYPED)
    assert response.status_code == 201
    assert "OCI-Tag" not in response.headers
    assert await world.api.tags(NAME) == ["v1"]


async def test_row_101_preconditions_that_hold(world: World) -> None:
    api = world.api
    other = edited(annotations={"a": "b"})
    for reference, condition in (
        ("new", {"If-None-Match": "*"}),
        ("new", {"If-Match": f'"{digest_of(other)}"'}),
        ("v1", {"If-Match": f'"{ABSENT}", "{MANIFEST_DIGEST}"'}),
        ("v1", {"If-Match": "*"}),
        ("v1", {"If-None-Match": f'"{ABSENT}"'}),
    ):
        response = await api.http.put(
            f"/v2/{NAME}/manifests/{reference}", content=other, headers={**TYPED, **condition}
        )
        assert response.status_code == 201, (reference, condition)


async def test_row_101_of_many_who_create_one_wins(world: World) -> None:
    async def create(n: int) -> int:
        body = edited(annotations={"n": str(n)})
        headers = {**TYPED, "If-None-Match": "*"}
        return (await world.api.http.put(f"/v2/{NAME}/manifests/new", content=body, headers=headers)).status_code

    assert sorted(await asyncio.gather(*(create(n) for n in range(8)))) == [201] + [412] * 7


async def test_row_102_two_writers_of_one_tag(world: World) -> None:
    api = world.api
    bodies = [edited(annotations={"n": str(n)}) for n in range(6)]
    await asyncio.gather(*(api.push_manifest(NAME, body, "v1") for body in bodies))
    assert (await api.get(V1)).content in bodies
    for body in bodies:
        assert (await api.get(f"/v2/{NAME}/manifests/{digest_of(body)}")).content == body


async def test_row_97_pulled_over_a_socket(wire: Wire) -> None:
    body, _, _ = ACCEPTED["97-3.9-mb"]
    await push_and_pull(wire.api, body)


async def push_and_pull(api: Api, body: bytes) -> None:
    await api.push_manifest(NAME, body)
    assert (await api.get(f"/v2/{NAME}/manifests/{digest_of(body)}")).content == body
