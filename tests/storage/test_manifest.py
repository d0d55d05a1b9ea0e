"""What a push of a manifest must look like, and what stored bytes mean (behaviour C1, C2, C4, rows 68 to 99)."""

import base64
import json
import re
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.digest import Digest
from storage.errors import ManifestInvalid
from storage.manifest import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    DOCKER_SCHEMA1,
    DOCKER_SCHEMA1_SIGNED,
    IMAGE_INDEX,
    IMAGE_MANIFEST,
    INDEX_TYPES,
    MANIFEST_TYPES,
    NONDISTRIBUTABLE,
    Descriptor,
    Manifest,
    Platform,
    parse,
    parse_index_lenient,
    parse_stored,
    referrer_descriptor,
    required_blobs,
    required_children,
    sniff,
    url_violations,
)
from tests.properties import steady

Json = dict[str, Any]
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
FOREIGN_TYPE = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
GONE = object()
"""Instead of a value: the field is left out."""


def digest(data: bytes = b"x", algorithm: str = "sha256") -> str:
    return str(Digest.of(data, algorithm))


def without(fields: Json) -> Json:
    return {key: value for key, value in fields.items() if value is not GONE}


def descriptor(content: bytes = b"x", media_type: str = LAYER_TYPE, /, **more: Any) -> Json:
    return without({"mediaType": media_type, "digest": digest(content), "size": len(content), **more})


def image(**more: Any) -> Json:
    fields = {
        "schemaVersion": 2,
        "mediaType": IMAGE_MANIFEST,
        "config": descriptor(b"{}", CONFIG_TYPE),
        "layers": [descriptor(b"layer")],
    }
    return without(fields | more)


def index(**more: Any) -> Json:
    children = [descriptor(b"child", IMAGE_MANIFEST)]
    return without({"schemaVersion": 2, "mediaType": IMAGE_INDEX, "manifests": children} | more)


def push(document: object, content_type: str | None = GONE) -> Manifest:  # type: ignore[assignment]
    """Parse it under its own media type, or under the one given."""
    if content_type is GONE:
        content_type = document["mediaType"] if isinstance(document, dict) else IMAGE_MANIFEST
    return parse(json.dumps(document).encode(), content_type)


# Accepted


def test_an_image() -> None:
    found = push(image(annotations={"a": "b"}))
    assert found == Manifest(
        media_type=IMAGE_MANIFEST,
        blobs=(
            Descriptor(CONFIG_TYPE, Digest.of(b"{}"), 2),
            Descriptor(LAYER_TYPE, Digest.of(b"layer"), 5),
        ),
        artifact_type=CONFIG_TYPE,
        annotations={"a": "b"},
    )


def test_an_index() -> None:
    child = descriptor(
        b"child", IMAGE_MANIFEST, platform={"os": "linux", "architecture": "arm64", "variant": "v8"}, artifactType="a/b"
    )
    nested = descriptor(b"nested", IMAGE_INDEX, digest=digest(b"nested", "sha512"), annotations={"k": "v"})
    found = push(index(manifests=[child, nested], artifactType="application/x"))
    assert found == Manifest(
        media_type=IMAGE_INDEX,
        children=(
            Descriptor(IMAGE_MANIFEST, Digest.of(b"child"), 5, "a/b", platform=Platform("linux", "arm64")),
            Descriptor(IMAGE_INDEX, Digest.of(b"nested", "sha512"), 6, annotations={"k": "v"}),
        ),
        artifact_type="application/x",
    )


ACCEPTED: dict[str, Json] = {
    "artifact": image(
        artifactType="application/x", config=descriptor(b"{}", EMPTY_TYPE), layers=[descriptor(b"{}", EMPTY_TYPE)]
    ),
    "artifact whose artifactType is empty": image(artifactType=""),
    "no layers": image(layers=[]),
    "layers as Go writes none": image(layers=None),
    "no field layers": image(layers=GONE),
    "empty layer": image(layers=[descriptor(b"")]),
    "unknown layer type": image(layers=[descriptor(mediaType="application/vnd.cncf.helm.chart.content.v1.tar+gzip")]),
    "same layer twice": image(layers=[descriptor(), descriptor()]),
    "sha512": image(layers=[descriptor(digest=digest(b"x", "sha512"))]),
    "largest size": image(layers=[descriptor(size=2**63 - 1)]),
    "no field mediaType": image(mediaType=GONE),
    "empty index": index(manifests=[]),
    "index as Go writes an empty one": index(manifests=None),
    "index without field mediaType": index(mediaType=GONE),
    "nested index": index(manifests=[descriptor(b"index", IMAGE_INDEX)]),
    "index of blobs, as BuildKit's cache": index(manifests=[descriptor(), descriptor(b"{}", "application/x.config")]),
    "platform unknown": index(manifests=[descriptor(platform={"os": "unknown", "architecture": "unknown"})]),
    "platform of an old tool": index(manifests=[descriptor(platform={"features": ["sse4"], "custom": {}})]),
    "Docker manifest": image(mediaType=DOCKER_MANIFEST),
    "Docker list": index(mediaType=DOCKER_LIST),
    "subject": image(subject=descriptor(b"subject", IMAGE_MANIFEST)),
    "subject of an index": index(subject=descriptor(b"subject", IMAGE_MANIFEST)),
    "subject of sha512": image(subject=descriptor(digest=digest(b"s", "sha512"))),
    "nothing where Go writes null": image(
        subject=None, annotations=None, config=descriptor(urls=None, annotations=None, data=None, platform=None)
    ),
    "nondistributable layer": image(layers=[descriptor(b"x", FOREIGN_TYPE, urls=["https://example.com/layer"])]),
    "data": image(layers=[descriptor(b"layer", data=base64.b64encode(b"layer").decode())]),
    "data of an empty blob": image(layers=[descriptor(b"", data="")]),
    "data of sha512": image(
        config=descriptor(b"{}", digest=digest(b"{}", "sha512"), data=base64.b64encode(b"{}").decode())
    ),
    "custom fields": image(
        org_example=[1.5, None, {"mediatype": 1, "Digest": []}],
        history=[],
        config=descriptor(custom={"size": "large", "Size": -1}),
        annotations={"MediaType": "x", "layers": "y", "Size": "1", "": ""},
    ),
    "case variants below what is known": image(custom={"MediaType": 1, "mediatype": 2}),
    "escaped characters": image(annotations={"emoji": "\U0001f600", "é": "\u2028"}),
    "many layers": image(layers=[descriptor(str(n).encode()) for n in range(2000)]),
}


@pytest.mark.parametrize("document", ACCEPTED.values(), ids=ACCEPTED)
def test_accepted_and_known_again(document: Json) -> None:
    body = json.dumps(document).encode()
    found = parse(body, document.get("mediaType") or (IMAGE_INDEX if "manifests" in document else IMAGE_MANIFEST))
    assert sniff(body) == found.media_type
    # What is read of stored bytes is the same, but for what a listing does not show.
    stored = parse_stored(body)
    assert (stored.media_type, stored.artifact_type) == (found.media_type, found.artifact_type)
    assert dict(stored.annotations or {}) == dict(found.annotations or {})
    for name in ("blobs", "children"):
        assert [d.to_json() for d in getattr(stored, name)] == [d.to_json() for d in getattr(found, name)]
    assert (stored.subject and stored.subject.digest) == (found.subject and found.subject.digest)


def test_a_manifest_of_almost_4_mb() -> None:
    body = json.dumps(image(annotations={f"k{n}": "v" * 10_000 for n in range(390)})).encode()
    assert len(body) > 3_900_000
    assert len(parse(body, IMAGE_MANIFEST).annotations or {}) == 390
    assert sniff(body) == IMAGE_MANIFEST


CONTENT_TYPES: dict[str, tuple[str | None, Json, str]] = {
    "parameters": (f"{IMAGE_MANIFEST}; charset=utf-8", image(), IMAGE_MANIFEST),
    "blanks and case": (f"  {IMAGE_MANIFEST.upper()} ;x", image(), IMAGE_MANIFEST),
    "none, image": (None, image(), IMAGE_MANIFEST),
    "none, index": (None, index(), IMAGE_INDEX),
    "none, Docker": (None, image(mediaType=DOCKER_MANIFEST), DOCKER_MANIFEST),
    "empty": ("", index(), IMAGE_INDEX),
    "parameters only": ("; charset=utf-8", index(), IMAGE_INDEX),
    "no field": (IMAGE_INDEX, index(mediaType=GONE), IMAGE_INDEX),
}


@pytest.mark.parametrize(("content_type", "document", "expected"), CONTENT_TYPES.values(), ids=CONTENT_TYPES)
def test_media_type(content_type: str | None, document: Json, expected: str) -> None:
    assert push(document, content_type).media_type == expected


# Refused

BLAKE3 = "blake3:" + "0" * 64
REFUSED: dict[str, tuple[object, str]] = {
    "array": ([], "the top level must be an object"),
    "null": (None, "the top level must be an object"),
    "string": ("x", "the top level must be an object"),
    "number": (1, "the top level must be an object"),
    "schemaVersion missing": (image(schemaVersion=GONE), "schemaVersion must be 2"),
    "schemaVersion a string": (image(schemaVersion="2"), "schemaVersion must be 2"),
    "schemaVersion a float": (image(schemaVersion=2.0), "schemaVersion must be 2"),
    "schemaVersion true": (image(schemaVersion=True), "schemaVersion must be 2"),
    "schemaVersion 3": (image(schemaVersion=3), "schemaVersion must be 2"),
    "schemaVersion null": (index(schemaVersion=None), "schemaVersion must be 2"),
    "schema 1": (image(schemaVersion=1), "schema 1 is not supported"),
    "mediaType null": (image(mediaType=None), "mediaType must be a string"),
    "mediaType a number": (image(mediaType=2), "mediaType must be a string"),
    "mediaType empty": (image(mediaType=""), "media type '' is not a manifest's"),
    "mediaType of a config": (image(mediaType=CONFIG_TYPE), "is not a manifest's"),
    "mediaType in upper case": (image(mediaType=IMAGE_MANIFEST.upper()), "is not a manifest's"),
    "mediaType with parameter": (image(mediaType=f"{IMAGE_MANIFEST};a=b"), "is not a manifest's"),
    "mediaType of an index": (image(mediaType=IMAGE_INDEX), "but Content-Type says"),
    "MediaType instead": (image(mediaType=GONE, MediaType=IMAGE_MANIFEST), "'MediaType' must be spelled mediaType"),
    "MediaType besides": (image(MediaType=IMAGE_INDEX), "'MediaType' must be spelled mediaType"),
    "LAYERS": (image(LAYERS=[]), "'LAYERS' must be spelled layers"),
    "layers with a long s": (image() | {"layer\u017f": []}, r"'layer\\u017f' must be spelled layers"),
    "schemaversion": (image(schemaversion=1), "'schemaversion' must be spelled schemaVersion"),
    "Digest in a layer": (
        image(layers=[descriptor(), descriptor(Digest="x")]),
        r"layers\[1\].'Digest' must be spelled digest",
    ),
    "URLs in a config": (image(config=descriptor(URLs=[])), "config.'URLs' must be spelled urls"),
    "OS in a platform": (
        index(manifests=[descriptor(platform={"OS": "linux"})]),
        r"manifests\[0\].platform.'OS' must be spelled os",
    ),
    "layers and manifests": (image(manifests=[]), "manifests must not be there: this is an image manifest"),
    "manifests null in an image": (image(manifests=None), "manifests must not be there"),
    "no config": (image(config=GONE), "an image manifest needs a descriptor `config`"),
    "config null": (image(config=None), "an image manifest needs a descriptor `config`"),
    "config a string": (image(config="x"), "config must be an object"),
    "config empty": (image(config={}), "config.digest must be a string that is not empty"),
    "layers a string": (image(layers="x"), "layers must be an array"),
    "layers an object": (image(layers={}), "layers must be an array"),
    "layer null": (image(layers=[None]), r"layers\[0\] must be an object"),
    "layer a string": (image(layers=[descriptor(), digest()]), r"layers\[1\] must be an object"),
    "descriptor without mediaType": (image(layers=[descriptor(mediaType=GONE)]), r"layers\[0\].mediaType must be"),
    "descriptor with an empty mediaType": (image(layers=[descriptor(mediaType="")]), r"layers\[0\].mediaType must be"),
    "digest missing": (image(layers=[descriptor(digest=GONE)]), r"layers\[0\].digest must be a string"),
    "digest a number": (image(layers=[descriptor(digest=1)]), r"layers\[0\].digest must be a string"),
    "digest malformed": (image(layers=[descriptor(digest="sha256:zz")]), r"layers\[0\].digest: malformed digest"),
    "digest with newline": (image(layers=[descriptor(digest=digest() + "\n")]), r"layers\[0\].digest: malformed"),
    "digest in upper case": (image(config=descriptor(digest="sha256:" + "A" * 64)), "config.digest: malformed digest"),
    "digest of another algorithm": (
        image(config=descriptor(digest=BLAKE3)),
        "config.digest: digest algorithm 'blake3'",
    ),
    "subject of another algorithm": (image(subject=descriptor(digest=BLAKE3)), "subject.digest: digest algorithm"),
    "subject malformed": (image(subject=descriptor(digest="sha256:")), "subject.digest: malformed digest"),
    "subject a digest": (image(subject=digest()), "subject must be an object"),
    "subject of an index malformed": (index(subject={}), "subject.digest must be a string"),
    "annotations an array": (image(annotations=[]), "annotations must be an object"),
    "annotation a number": (image(annotations={"a": "b", "c": 1}), r"annotations\['c'\] must be a string"),
    "annotation null": (index(annotations={"c": None}), r"annotations\['c'\] must be a string"),
    "annotation of a layer": (
        image(layers=[descriptor(annotations={"a": []})]),
        r"layers\[0\].annotations\['a'\] must be a string",
    ),
    "artifactType a number": (image(artifactType=1), "artifactType must be a string"),
    "artifactType of a child": (index(manifests=[descriptor(artifactType=[])]), r"manifests\[0\].artifactType must be"),
    "urls a string": (image(layers=[descriptor(urls="http://a/")]), r"layers\[0\].urls must be an array"),
    "urls of numbers": (image(layers=[descriptor(urls=["http://a/", 1])]), r"layers\[0\].urls must be an array of str"),
    "data a number": (image(config=descriptor(data=1)), "config.data must be a string"),
    "data not base64": (image(config=descriptor(data="?")), "config.data must be base64"),
    "data not ASCII": (image(config=descriptor(data="é")), "config.data must be base64"),
    "data with junk": (image(config=descriptor(b"ab", data="Y\nWI=")), "config.data must be base64"),
    "data without padding": (image(config=descriptor(b"ab", data="YWI")), "config.data must be base64"),
    "data of another size": (image(config=descriptor(b"ab", data="YWJj")), "config.data does not have the size"),
    "data beside a wrong size": (image(config=descriptor(b"ab", size=3, data="YWI=")), "config.data does not have the"),
    "data of another digest": (image(config=descriptor(b"ab", data="YWM=")), "config.data does not have the size"),
    "platform a string": (
        index(manifests=[descriptor(platform="linux")]),
        r"manifests\[0\].platform must be an object",
    ),
    "os a number": (index(manifests=[descriptor(platform={"os": 1})]), r"manifests\[0\].platform.os must be a string"),
    "index with config": (index(config=descriptor()), "config must not be there: this is an index"),
    "index with layers": (index(layers=[]), "layers must not be there: this is an index"),
    "index without manifests": (index(manifests=GONE), "an index needs an array `manifests`"),
    "index with manifests null and no mediaType": (index(manifests=None, mediaType=GONE), "an index needs an array"),
    "manifests an object": (index(manifests={}), "manifests must be an array"),
    "child malformed": (index(manifests=[descriptor(), {"digest": digest()}]), r"manifests\[1\].size must be"),
    "Docker manifest without mediaType": (image(mediaType=GONE, x=DOCKER_MANIFEST), "needs its field mediaType"),
    "Docker list without mediaType": (index(mediaType=GONE, x=DOCKER_LIST), "needs its field mediaType"),
}


@pytest.mark.parametrize(("document", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(document: object, message: str) -> None:
    fields: Mapping[str, Any] = document if isinstance(document, dict) else {}
    guess = IMAGE_INDEX if ("manifests" in fields and "layers" not in fields) or "index" in message else IMAGE_MANIFEST
    with pytest.raises(ManifestInvalid, match=message):
        push(document, fields.get("x", guess))


@pytest.mark.parametrize(
    "size", [GONE, None, -1, 2**63, 10**29, 5.0, 5.5, 1e30, "5", True, [], {}], ids=lambda size: str(size)[:12]
)
def test_a_size_is_an_int64(size: object) -> None:
    with pytest.raises(ManifestInvalid, match=r"layers\[0\].size must be an integer from 0 to 9223372036854775807"):
        push(image(layers=[descriptor(size=size)]))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999", "9" * 5000])
def test_a_size_that_is_no_number(number: str) -> None:
    body = json.dumps(image(layers=[descriptor(size=4711)])).replace("4711", number)
    with pytest.raises(ManifestInvalid, match=r"layers\[0\].size is"):
        parse(body.encode(), IMAGE_MANIFEST)


@pytest.mark.parametrize("key", ["mediaType", "layers", "config", "schemaVersion"])
def test_a_key_twice(key: str) -> None:
    body = json.dumps(image())
    doubled = f'{{"{key}": null, {body[1:]}'.encode()
    with pytest.raises(ManifestInvalid, match=f"the top level has the key '{key}' twice"):
        parse(doubled, IMAGE_MANIFEST)


UNKNOWN_TYPES = [
    "application/json",
    "text/html",
    "text/html; charset=utf-8",
    "application/octet-stream",
    "application/vnd.example.manifest+json",
    f"{IMAGE_MANIFEST}, {IMAGE_INDEX}",
    "x" * 10_000,
    "\x00",
    "é",
]


@pytest.mark.parametrize("content_type", UNKNOWN_TYPES, ids=lambda text: ascii(text)[:30])
def test_content_types_that_are_not_a_manifests(content_type: str) -> None:
    for document in (image(), image(mediaType=GONE)):
        with pytest.raises(ManifestInvalid, match="is not a manifest's: expected") as caught:
            push(document, content_type)
        assert len(str(caught.value)) < 500
        assert str(caught.value).isascii()


@pytest.mark.parametrize("content_type", sorted(MANIFEST_TYPES))
@pytest.mark.parametrize("declared", sorted(MANIFEST_TYPES))
def test_header_and_field_agree_or_it_is_refused(content_type: str, declared: str) -> None:
    document = (index if declared in INDEX_TYPES else image)(mediaType=declared)
    if content_type == declared:
        assert push(document, content_type).media_type == declared
    else:
        with pytest.raises(ManifestInvalid, match=r"its mediaType is .*, but Content-Type says"):
            push(document, content_type)


@pytest.mark.parametrize("content_type", [None, "", "; charset=utf-8"])
def test_neither_header_nor_field(content_type: str | None) -> None:
    with pytest.raises(ManifestInvalid, match="neither Content-Type nor the field mediaType"):
        push(image(mediaType=GONE), content_type)


WITHDRAWN = {
    DOCKER_SCHEMA1: "schema 1 is not supported: push with a client that writes schema 2",
    DOCKER_SCHEMA1_SIGNED: "schema 1 is not supported: push with a client that writes schema 2",
    "application/vnd.oci.artifact.manifest.v1+json": "use an image manifest with artifactType",
}


@pytest.mark.parametrize(("media_type", "message"), WITHDRAWN.items())
def test_types_that_were_withdrawn_say_what_to_do(media_type: str, message: str) -> None:
    for document, content_type in ((image(mediaType=media_type), None), (image(mediaType=GONE), media_type)):
        with pytest.raises(ManifestInvalid, match=message):
            push(document, content_type)


def test_messages_are_short_and_printable() -> None:
    long = "é\n" * 100_000
    documents = [
        image(mediaType=long),
        image(annotations={long: 1}),
        image(layers=[descriptor(digest=long)]),
        image(layers=[descriptor(digest=f"{'a' * 100_000}:b")]),
        image(config=descriptor(annotations={long: 1})),
        image(**{"MEDIATYPE": 1, long: 2}),
    ]
    for document in documents:
        with pytest.raises(ManifestInvalid) as caught:
            push(document, IMAGE_MANIFEST)
        assert len(str(caught.value)) < 1000
        assert str(caught.value).isprintable()


# What a push needs


def test_required_blobs_are_all_but_layers_that_are_elsewhere() -> None:
    urls = ["https://example.com/x"]
    layers = [
        descriptor(b"normal"),
        descriptor(b"normal with urls", urls=urls),
        descriptor(b"foreign without urls", FOREIGN_TYPE),
        *(descriptor(media_type.encode(), media_type, urls=urls) for media_type in sorted(NONDISTRIBUTABLE)),
    ]
    # A config is never elsewhere, whatever it says of itself.
    manifest = push(image(config=descriptor(b"config", FOREIGN_TYPE, urls=urls), layers=layers))
    wanted = [b"config", b"normal", b"normal with urls", b"foreign without urls"]
    assert [blob.digest for blob in required_blobs(manifest)] == [Digest.of(data) for data in wanted]


def test_an_index_requires_no_blobs_and_an_image_no_children() -> None:
    assert required_blobs(push(index())) == ()
    assert required_children(push(image())) == ()


def test_required_children() -> None:
    amd64, arm64 = Platform("linux", "amd64"), Platform("linux", "arm64")
    children = [
        descriptor(b"amd64", IMAGE_MANIFEST, platform={"os": "linux", "architecture": "amd64", "variant": "v2"}),
        descriptor(b"arm64", IMAGE_MANIFEST, platform={"os": "linux", "architecture": "arm64"}),
        descriptor(b"none", IMAGE_MANIFEST),
    ]
    manifest = push(index(manifests=children))
    assert required_children(manifest) == manifest.children
    assert required_children(manifest, [amd64]) == manifest.children[:1]
    assert required_children(manifest, {amd64, arm64}) == manifest.children[:2]
    assert required_children(manifest, []) == ()


URLS: dict[str, tuple[str, str | None, str | None, bool]] = {
    "https": ("https://example.com/a?b=c", None, None, True),
    "http": ("http://example.com/", None, None, True),
    "upper case": ("HTTPS://example.com/", None, None, True),
    "file": ("file:///etc/passwd", None, None, False),
    "relative": ("/etc/passwd", None, None, False),
    "no scheme": ("//example.com/", None, None, False),
    "empty": ("", None, None, False),
    "javascript": ("javascript:alert(1)", None, None, False),
    "fragment": ("https://example.com/#x", None, None, False),
    "not a URL": ("http://[::1", None, None, False),
    "newline in the scheme": ("ht\ntp://example.com/", None, None, False),
    "blank": ("http://example.com/ a", None, None, False),
    "NUL": ("http://example.com/\x00", None, None, False),
    "allowed": ("https://a.example.com/x", r"^https?://([a-z]+\.)?example\.com/", None, True),
    "not allowed": ("https://example.org/x", r"^https?://([a-z]+\.)?example\.com/", None, False),
    "searched, not matched": ("https://example.com/x", "example", None, True),
    "denied": ("https://www.example.com/x", None, "www", False),
    "not denied": ("https://example.com/x", None, "www", True),
    "allowed and denied": ("https://www.example.com/x", "example", "www", False),
    "nothing is allowed": ("https://example.com/", "^$", None, False),
}


@pytest.mark.parametrize(("url", "allow", "deny", "holds"), URLS.values(), ids=URLS)
def test_url_violations(url: str, allow: str | None, deny: str | None, holds: bool) -> None:
    patterns = [re.compile(pattern) if pattern is not None else None for pattern in (allow, deny)]
    documents = {
        "config": image(config=descriptor(urls=[url])),
        "layers[0]": image(layers=[descriptor(urls=[url])]),
        "manifests[0]": index(manifests=[descriptor(urls=[url])]),
        "subject": index(subject=descriptor(urls=[url])),
    }
    for path, document in documents.items():
        expected = [] if holds else [f"{path}.urls: {url!a} is not allowed here"]
        assert url_violations(push(document), *patterns) == expected


def test_url_violations_of_layers_carry_their_index() -> None:
    manifest = push(image(layers=[descriptor(), descriptor(urls=["https://example.com/", "file:///x"])]))
    assert url_violations(manifest) == ["layers[1].urls: 'file:///x' is not allowed here"]


def test_url_violations_are_bounded() -> None:
    layers = [descriptor(urls=["file:///" + "x" * 10_000] * 100)] * 10
    found = url_violations(push(image(layers=layers)))
    assert len(found) == 10
    assert all(len(sentence) < 200 for sentence in found)


# Referrers

ARTIFACT_TYPES: dict[str, tuple[Json, str | None]] = {
    "manifest with the field": (image(artifactType="application/x"), "application/x"),
    "manifest without": (image(), CONFIG_TYPE),
    "manifest with an empty one": (image(artifactType=""), CONFIG_TYPE),
    "Docker manifest": (image(mediaType=DOCKER_MANIFEST), CONFIG_TYPE),
    "index with the field": (index(artifactType="application/x"), "application/x"),
    "index without": (index(), None),
    "index with an empty one": (index(artifactType=""), None),
}


@pytest.mark.parametrize(("document", "artifact_type"), ARTIFACT_TYPES.values(), ids=ARTIFACT_TYPES)
def test_referrer_descriptor(document: Json, artifact_type: str | None) -> None:
    annotations = {"a": "b", "é": "\U0001f600"}
    body = json.dumps(document | {"annotations": annotations, "subject": descriptor(b"subject")}).encode()
    for manifest in (parse(body, document["mediaType"]), parse_stored(body)):
        assert manifest.subject is not None
        assert manifest.subject.digest == Digest.of(b"subject")
        shown = referrer_descriptor(manifest, Digest.of(body), len(body)).to_json()
        expected = {
            "mediaType": document["mediaType"],
            "digest": str(Digest.of(body)),
            "size": len(body),
            "artifactType": artifact_type,
            "annotations": annotations,
        }
        assert shown == {key: value for key, value in expected.items() if value is not None}


def test_a_listing_leaves_out_what_there_is_not() -> None:
    shown = Descriptor(IMAGE_INDEX, Digest.of(b"x"), 1, annotations={}).to_json()
    assert shown == {"mediaType": IMAGE_INDEX, "digest": digest(), "size": 1}


def test_a_fallback_index_is_read_for_what_is_usable() -> None:
    good = descriptor(b"good", IMAGE_MANIFEST, artifactType="a/b", annotations={"k": "v", "bad": 1, "e": "\ud800"})
    also = {"MediaType": IMAGE_MANIFEST, "DIGEST": digest(b"also"), "size": 4, "artifactType": 1, "annotations": []}
    unusable: list[object] = [
        None,
        "x",
        [],
        {},
        descriptor(digest="sha256:zz"),
        descriptor(digest=BLAKE3),
        descriptor(digest=None),
        descriptor(mediaType=1),
        descriptor(mediaType=GONE),
        descriptor(size=-1),
        descriptor(size="1"),
        descriptor(size=True),
        descriptor(size=GONE),
        descriptor(size=10**40),
    ]
    found = parse_index_lenient(json.dumps({"manifests": [good, *unusable, also]}).encode())
    assert found == (
        Descriptor(IMAGE_MANIFEST, Digest.of(b"good"), 4, "a/b", {"k": "v", "e": "\ufffd"}),
        Descriptor(IMAGE_MANIFEST, Digest.of(b"also"), 4),
    )
    json.dumps([d.to_json() for d in found], ensure_ascii=False).encode()  # a listing of them encodes


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"null", b'{"manifests": {}}', b'{"manifests": "x"}', b'{"layers": [{}]}']
)
def test_a_fallback_tag_that_is_no_index_lists_nothing(body: bytes) -> None:
    assert parse_index_lenient(body) == ()


# Stored bytes

SNIFFED: dict[str, tuple[object, str]] = {
    "image": (image(), IMAGE_MANIFEST),
    "image without the field": (image(mediaType=GONE), IMAGE_MANIFEST),
    "index": (index(), IMAGE_INDEX),
    "index without the field": (index(mediaType=GONE), IMAGE_INDEX),
    "Docker manifest": (image(mediaType=DOCKER_MANIFEST), DOCKER_MANIFEST),
    "Docker list": (index(mediaType=DOCKER_LIST), DOCKER_LIST),
    "manifests null": (index(mediaType=GONE, manifests=None), IMAGE_MANIFEST),
    "MediaType, as Go reads it": (image(mediaType=GONE, MediaType=DOCKER_MANIFEST), DOCKER_MANIFEST),
    "artifact manifest": (
        {"mediaType": "application/vnd.oci.artifact.manifest.v1+json"},
        "application/vnd.oci.artifact.manifest.v1+json",
    ),
    "schema 1 by its field": ({"schemaVersion": 1, "mediaType": DOCKER_SCHEMA1_SIGNED}, DOCKER_SCHEMA1_SIGNED),
    "schema 1": ({"schemaVersion": 1, "fsLayers": []}, DOCKER_SCHEMA1),
    "schema 1, signed": ({"schemaVersion": 1, "fsLayers": [], "signatures": []}, DOCKER_SCHEMA1_SIGNED),
    "a type that a browser shows": (image(mediaType="text/html"), IMAGE_MANIFEST),
    "XHTML": (index(mediaType="application/xhtml+xml"), IMAGE_INDEX),
    "a type that splits the header": (image(mediaType="application/x+json\r\nX: y"), IMAGE_MANIFEST),
    "a type with a newline behind": (image(mediaType="application/x+json\n"), IMAGE_MANIFEST),
    "a type that is no string": (index(mediaType=["x"]), IMAGE_INDEX),
    "no object": ([1], IMAGE_MANIFEST),
}


@pytest.mark.parametrize(("document", "media_type"), SNIFFED.values(), ids=SNIFFED)
def test_sniff(document: object, media_type: str) -> None:
    assert sniff(json.dumps(document).encode()) == media_type


UNREADABLE = {
    "empty": b"",
    "not JSON": b"hello",
    "cut": b'{"manifests": [',
    "deep": b"[" * 100_000,
    "deep and whole": b"[" * 100_000 + b"]" * 100_000,
    "UTF-16": json.dumps(index()).encode("utf-16"),
    "mark": b"\xef\xbb\xbf" + json.dumps(index()).encode(),
}


@pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE)
def test_stored_bytes_that_cannot_be_read(body: bytes) -> None:
    assert parse_stored(body) == Manifest(IMAGE_MANIFEST)


def test_stored_bytes_that_only_a_push_refuses() -> None:
    # distribution has taken all of these; Go reads the last of two keys, in any case, and replaces bad UTF-8.
    body = json.dumps(image(mediaType=GONE, Layers=[descriptor(b"Layers")], size=10**40, x=float("nan"))).encode()
    body = body.replace(b'"x"', b'"\xff"').replace(
        b"{", b'{"config": 1, "annotations": {"a": "\xff", "b": "\\udc00"}, ', 1
    )
    found = parse_stored(body)
    assert [blob.digest for blob in found.blobs] == [Digest.of(b"{}"), Digest.of(b"Layers")]
    assert found.annotations == {"a": "\ufffd", "b": "\ufffd"}


def test_what_a_stored_descriptor_does_not_say() -> None:
    found = parse_stored(json.dumps(image(layers=[{"digest": digest()}, {"size": 1}])).encode())
    assert found.blobs[1:] == (Descriptor("", Digest.of(b"x"), 0),)


FIELD_NAMES = st.sampled_from(["mediaType", "digest", "size", "urls", "data", "annotations", "Size", "x"])
JSON_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.just(digest())),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(FIELD_NAMES, inner, max_size=4)),
    max_leaves=10,
)
DOCUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "schemaVersion": st.one_of(st.just(2), JSON_VALUES),
        "mediaType": st.one_of(st.sampled_from(sorted(MANIFEST_TYPES)), JSON_VALUES),
        "config": st.one_of(st.just(descriptor(b"{}")), JSON_VALUES),
        "layers": st.one_of(st.just([descriptor()]), JSON_VALUES),
        "manifests": st.one_of(st.just([descriptor()]), JSON_VALUES),
        "subject": st.one_of(st.just(descriptor()), JSON_VALUES),
        "annotations": JSON_VALUES,
        "artifactType": JSON_VALUES,
    },
)


@pytest.mark.slow
@steady
@given(DOCUMENTS, st.sampled_from([None, *sorted(MANIFEST_TYPES)]))
def test_any_document_is_read_or_refused(document: Json, content_type: str | None) -> None:
    body = json.dumps(document).encode()
    stored = parse_stored(body)
    for shown in (*stored.blobs, *stored.children, referrer_descriptor(stored, Digest.of(body), len(body))):
        json.dumps(shown.to_json(), ensure_ascii=False).encode()
    try:
        found = parse(body, content_type)
    except ManifestInvalid:
        return
    assert sniff(body) == found.media_type
    assert required_blobs(found) == found.blobs
