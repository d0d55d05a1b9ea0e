"""Tags and digests in paths (rows 20 to 33)."""

import pytest

from tests.api import IMAGE, Api, digest_of, error_of
from tests.behaviour.table import (
    ABSENT,
    CONFIG_DIGEST,
    LAYER_DIGEST,
    MANIFEST,
    MANIFEST_DIGEST,
    NAME,
    Bad,
    Wire,
    by_id,
    put_manifest,
)

HEX = "0" * 64

MALFORMED = {
    "24-bad-digest-string": "sha256:baddigeststring",
    "25-63-digits": "sha256:" + HEX[1:],
    "25-65-digits": "sha256:" + HEX + "0",
    "25-upper-case-hex": LAYER_DIGEST[:-1] + "A",
    "25-no-hex": "sha256:g" + HEX[1:],
    "25-sha512-of-64": "sha512:" + HEX,
    "26-upper-case-algorithm": "SHA256:" + HEX,
    "26-three-parts": "a:b:c",
    "26-nothing-behind": "sha256:",
    "26-nothing-before": ":" + HEX,
    "26-two-colons": "sha256::" + HEX,
    "26-space": "sha256:%20" + HEX[1:],
    "26-arabic-digits": "sha256:" + "%D9%A0" * 64,
    "27-parent-folders": "sha256:../../../../etc/passwd",
    "27-parent-folders-escaped": "sha256:..%2f..%2f..%2f..%2fetc%2fpasswd",
    "27-parent-of-64": "sha256:" + "../" * 21 + "a",
    "27-backslashes": "sha256:..%5C..%5Cetc",
}

UNSUPPORTED = {
    "28-md5": "md5:d41d8cd98f00b204e9800998ecf8427e",
    "28-sha1": "sha1:da39a3ee5e6b4b0d3255bfef95601890afd80709",
    "28-sha384": "sha384:" + "0" * 96,
    "28-base64url": "sha256+b64u:LCa0a2j_xo_5m0U8HTBBNBNCLXBkg7-g-YpeiGJm564",
    "28-blake3": "blake3:" + HEX,
}

ENDPOINTS = {
    "get-manifest": ("GET", "manifests"),
    "head-manifest": ("HEAD", "manifests"),
    "put-manifest": ("PUT", "manifests"),
    "delete-manifest": ("DELETE", "manifests"),
    "get-blob": ("GET", "blobs"),
    "head-blob": ("HEAD", "blobs"),
    "delete-blob": ("DELETE", "blobs"),
}


def bad_digests(id: str) -> list[Bad]:
    """One digest at every endpoint that takes one; `/referrers/` answers a well-formed one."""
    row, _, what = id.partition("-")
    digest = {**MALFORMED, **UNSUPPORTED}[id]
    endpoints = ENDPOINTS | ({"referrers": ("GET", "referrers")} if id in MALFORMED else {})
    return [
        Bad(
            row,
            f"{what}-{endpoint}",
            method,
            f"/v2/{NAME}/{word}/{digest}",
            400,
            "DIGEST_INVALID",
            {"Content-Type": IMAGE} if method == "PUT" else {},
            MANIFEST if method == "PUT" else b"",
        )
        for endpoint, (method, word) in endpoints.items()
    ]


BAD_TAGS = {
    "129-characters": "a" * 129,
    "dot-first": ".a",
    "dash-first": "-a",
    "space": "a%20b",
    "e-acute": "%C3%A9",
    "arabic-digit": "v%D9%A1",
    "plus": "v1+build",
    "at": "v1@latest",
    "parent": "..",
    "itself": ".",
}

SHA512 = digest_of(MANIFEST, "sha512")
WRONG_SHA512 = digest_of(MANIFEST + b" ", "sha512")

TAGS = [
    *(put_manifest("21", f"put-{what}", tag, 400, "MANIFEST_INVALID") for what, tag in BAD_TAGS.items()),
    put_manifest("21", "put-line-feed", "a%0A", 400, "MANIFEST_INVALID"),
    put_manifest("21", "put-nul", "a%00", 400, "MANIFEST_INVALID"),
    # the path as a whole is no text, before it is known what the byte stands in
    put_manifest("21", "put-not-utf8", "a%ff", 400, "NAME_INVALID"),
    Bad("26", "line-feed", "GET", f"/v2/{NAME}/blobs/{LAYER_DIGEST}%0A", 400, "DIGEST_INVALID"),
    put_manifest("22", "put-colon", "a:b", 400, "DIGEST_INVALID"),
    *(
        Bad("23", f"{method}-{what}", method, f"/v2/{NAME}/manifests/{tag}", 404, "MANIFEST_UNKNOWN")
        for what, tag in BAD_TAGS.items()
        for method in ("GET", "HEAD", "DELETE")
    ),
    Bad("23", "GET-absent", "GET", f"/v2/{NAME}/manifests/nope", 404, "MANIFEST_UNKNOWN"),
    Bad("23", "GET-absent-digest", "GET", f"/v2/{NAME}/manifests/{ABSENT}", 404, "MANIFEST_UNKNOWN"),
    Bad("23", "GET-absent-sha512", "GET", f"/v2/{NAME}/manifests/{SHA512}", 404, "MANIFEST_UNKNOWN"),
    Bad("30", "tag", "GET", f"/v2/{NAME}/referrers/v1", 400, "DIGEST_INVALID"),
    Bad("30", "empty", "GET", f"/v2/{NAME}/referrers/", 400, "DIGEST_INVALID"),
    Bad("30", "head", "HEAD", f"/v2/{NAME}/referrers/sha256:x", 400, "DIGEST_INVALID"),
    put_manifest("31", "another-digest", ABSENT, 400, "DIGEST_INVALID"),
    put_manifest("31", "two-spaces-more", MANIFEST_DIGEST, 400, "DIGEST_INVALID", MANIFEST + b"  "),
    put_manifest("32", "wrong-sha512", WRONG_SHA512, 400, "DIGEST_INVALID"),
    # a manifest is no blob, and a blob no manifest (C3)
    Bad("23", "manifest-by-blob-digest", "GET", f"/v2/{NAME}/manifests/{CONFIG_DIGEST}", 404, "MANIFEST_UNKNOWN"),
    Bad("23", "blob-by-manifest-digest", "GET", f"/v2/{NAME}/blobs/{MANIFEST_DIGEST}", 404, "BLOB_UNKNOWN"),
]

CORPUS = [*TAGS, *(case for id in (*MALFORMED, *UNSUPPORTED) for case in bad_digests(id))]


@pytest.mark.parametrize("id", [*MALFORMED, *UNSUPPORTED], ids=lambda id: f"row-{id}")
async def test_bad_digest(wire: Wire, id: str) -> None:
    for response in await wire.refuses(*bad_digests(id)):
        assert "location" not in response.headers


@by_id(TAGS)
async def test_refused(wire: Wire, case: Bad) -> None:
    await wire.refuses(case)


@pytest.mark.parametrize("tag", ["a" * 128, "_", "0", "A.B-c_d", "sha256", "latest", "a..b", "a-", "__proto__"])
async def test_rows_20_33_legal_tags(api: Api, tag: str) -> None:
    digest = await api.push_image(NAME, tag)
    response = await api.get(f"/v2/{NAME}/manifests/{tag}")
    assert (response.status_code, response.headers["Docker-Content-Digest"]) == (200, digest)
    assert await api.tags(NAME) == [tag]


@pytest.mark.parametrize("digest", UNSUPPORTED.values(), ids=UNSUPPORTED)
async def test_row_29_referrers_of_what_cannot_be_here(api: Api, digest: str) -> None:
    await api.push_image(NAME, "v1")
    assert await api.referrers(NAME, digest) == []


async def test_row_32_sha512(api: Api) -> None:
    """Pushed by sha512 it is known by sha512, and by that alone."""
    await api.push_blob(NAME, b"{}")
    await api.push_blob(NAME, b"the bytes of a layer")
    response = await api.http.put(f"/v2/{NAME}/manifests/{SHA512}", content=MANIFEST, headers={"Content-Type": IMAGE})
    assert (response.status_code, response.headers["Docker-Content-Digest"]) == (201, SHA512)
    got = await api.get(f"/v2/{NAME}/manifests/{SHA512}")
    assert (got.status_code, got.content, got.headers["Docker-Content-Digest"]) == (200, MANIFEST, SHA512)
    assert error_of(await api.get(f"/v2/{NAME}/manifests/{MANIFEST_DIGEST}")) == (404, "MANIFEST_UNKNOWN")
