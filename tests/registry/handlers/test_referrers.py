"""Listing referrers: what is shown of each, the filter, pages, and what old clients keep under a tag."""

import json
from typing import Any
from urllib.parse import quote

import pytest

from tests.api import CONFIG, IMAGE, INDEX, Api, descriptor, digest_of, error_of, image, index

SUBJECT = image()
DIGEST = digest_of(SUBJECT)
SBOM, SIGNATURE = "application/vnd.example.sbom+json", "application/vnd.example.signature"


def referrer(n: int = 0, artifact_type: str | None = SBOM, algorithm: str = "sha256", **more: Any) -> bytes:
    subject = descriptor(SUBJECT, IMAGE, algorithm)
    return image(subject=subject, artifactType=artifact_type, annotations={"n": str(n)}, **more)


@pytest.fixture
async def ready(api: Api) -> Api:
    await api.push_blob("a", b"{}")
    return api


def digests(found: list[dict[str, Any]]) -> set[str]:
    return {entry["digest"] for entry in found}


@pytest.mark.parametrize("name", ["nope", "a"])
async def test_row_3_nothing_there(ready: Api, name: str) -> None:
    response = await ready.get(f"/v2/{name}/referrers/{DIGEST}")
    assert (response.status_code, response.headers["Content-Type"]) == (200, INDEX)
    assert response.json() == {"schemaVersion": 2, "mediaType": INDEX, "manifests": []}
    assert "OCI-Filters-Applied" not in response.headers
    assert "Link" not in response.headers


async def test_row_31_what_is_shown(ready: Api) -> None:
    """artifactType: the manifest's own, else its config's type; of an index its own or none."""
    bodies = {
        "typed": (referrer(1), IMAGE, SBOM),
        "by-config": (referrer(2, None), IMAGE, CONFIG),
        "index": (index(subject=descriptor(SUBJECT, IMAGE), artifactType=SIGNATURE), INDEX, SIGNATURE),
        "index-without": (index(subject=descriptor(SUBJECT, IMAGE)), INDEX, None),
    }
    for body, media_type, _ in bodies.values():
        await ready.push_manifest("a", body, media_type=media_type)
    found = {entry["digest"]: entry for entry in await ready.referrers("a", DIGEST)}
    assert len(found) == len(bodies)
    for body, media_type, artifact_type in bodies.values():
        expected = {"mediaType": media_type, "digest": digest_of(body), "size": len(body)}
        if artifact_type:
            expected["artifactType"] = artifact_type
        if annotations := json.loads(body).get("annotations"):
            expected["annotations"] = annotations
        assert found[digest_of(body)] == expected


async def test_row_31_before_the_subject_and_after_a_delete(ready: Api) -> None:
    one = await ready.push_manifest("a", referrer(1))
    assert digests(await ready.referrers("a", DIGEST)) == {one}
    await ready.push_manifest("a", SUBJECT)
    other = await ready.push_manifest("a", referrer(2), "tagged")
    assert digests(await ready.referrers("a", DIGEST)) == {one, other}
    assert (await ready.http.delete(f"/v2/a/manifests/{one}")).status_code == 202
    assert digests(await ready.referrers("a", DIGEST)) == {other}
    assert (await ready.http.delete(f"/v2/a/manifests/{DIGEST}")).status_code == 202
    assert digests(await ready.referrers("a", DIGEST)) == {other}
    assert await ready.referrers("b", DIGEST) == []


async def test_subject_by_sha512(ready: Api) -> None:
    long = digest_of(SUBJECT, "sha512")
    body = referrer(1, algorithm="sha512")
    response = await ready.http.put(
        f"/v2/a/manifests/{digest_of(body, 'sha512')}", content=body, headers={"Content-Type": IMAGE}
    )
    assert (response.status_code, response.headers["OCI-Subject"]) == (201, long)
    assert digests(await ready.referrers("a", long)) == {digest_of(body, "sha512")}
    assert await ready.referrers("a", DIGEST) == []


ODD_TYPES = ["application/vnd.a+json", "a&b=c", "a%2Bb", "\u00e9", "a;b", 'a"b>c', "a,b"]


@pytest.mark.parametrize("wanted", [SBOM, *ODD_TYPES])
async def test_row_32_filter(ready: Api, wanted: str) -> None:
    wanted_one = await ready.push_manifest("a", referrer(1, wanted))
    await ready.push_manifest("a", referrer(2, SIGNATURE))
    await ready.push_manifest("a", referrer(3, None))
    response = await ready.get(f"/v2/a/referrers/{DIGEST}?artifactType={quote(wanted, safe='')}")
    assert response.headers["OCI-Filters-Applied"] == "artifactType"
    assert digests(response.json()["manifests"]) == {wanted_one}


@pytest.mark.parametrize("plus", ["+", "%2B", "%2b"])
async def test_row_32_a_plus_escaped_or_not(ready: Api, plus: str) -> None:
    """No media type has a space, so a client that did not escape its plus is understood."""
    wanted = await ready.push_manifest("a", referrer(1))
    response = await ready.get(f"/v2/a/referrers/{DIGEST}?artifactType={SBOM.replace('+', plus)}")
    assert digests(response.json()["manifests"]) == {wanted}


async def test_row_32_filter_by_config_type_and_without_a_match(ready: Api) -> None:
    by_config = await ready.push_manifest("a", referrer(1, None))
    await ready.push_manifest("a", referrer(2))
    assert digests(await ready.referrers("a", DIGEST, f"?artifactType={quote(CONFIG, safe='')}")) == {by_config}
    response = await ready.get(f"/v2/a/referrers/{DIGEST}?artifactType=none")
    assert (response.json()["manifests"], response.headers["OCI-Filters-Applied"]) == ([], "artifactType")


async def test_row_32_an_empty_filter_is_none(ready: Api) -> None:
    await ready.push_manifest("a", referrer(1))
    response = await ready.get(f"/v2/a/referrers/{DIGEST}?artifactType=")
    assert len(response.json()["manifests"]) == 1
    assert "OCI-Filters-Applied" not in response.headers


@pytest.mark.parametrize("query", ["", f"?artifactType={quote('a+b', safe='')}"], ids=["all", "filtered"])
async def test_row_33_pages(ready: Api, query: str) -> None:
    """A list larger than clients read of one answer; by the Links alone, each once, the filter kept."""
    pushed = set()
    for n in range(8):
        body = image(
            subject=descriptor(SUBJECT, IMAGE), artifactType="a+b", annotations={"n": str(n), "x": "y" * 900_000}
        )
        pushed.add(await ready.push_manifest("a", body))
    other = await ready.push_manifest("a", referrer(99))
    url: str | None = f"/v2/a/referrers/{DIGEST}{query}"
    found: list[str] = []
    pages = 0
    while url is not None:
        response = await ready.get(url)
        assert response.status_code == 200
        assert len(response.content) < 4 << 20
        assert ("OCI-Filters-Applied" in response.headers) == bool(query)
        page = [entry["digest"] for entry in response.json()["manifests"]]
        assert page
        found += page
        pages += 1
        url = response.links["next"]["url"] if "next" in response.links else None
    assert pages > 1
    assert len(found) == len(set(found))
    assert set(found) == (pushed if query else pushed | {other})


def fallback_tag(digest: str) -> str:
    return digest.replace(":", "-")[:128]


async def test_row_33_merged_with_the_fallback_tag(ready: Api) -> None:
    """What an old client keeps in an index under `sha256-<hex>` is listed, too, each once, while it is there."""
    known = await ready.push_manifest("a", referrer(1))
    old = image(artifactType=SIGNATURE, annotations={"by": "an old client"})  # without a subject: the tag says it
    old_digest = await ready.push_manifest("a", old)
    listed = index(
        descriptor(old, IMAGE, artifactType=SIGNATURE, annotations={"by": "an old client"}),
        descriptor(referrer(1), IMAGE, artifactType=SBOM),
    )
    await ready.push_manifest("a", listed, fallback_tag(DIGEST), INDEX)
    found = await ready.referrers("a", DIGEST)
    assert digests(found) == {known, old_digest}
    assert len(found) == 2
    entry = next(e for e in found if e["digest"] == old_digest)
    assert entry == descriptor(old, IMAGE, artifactType=SIGNATURE, annotations={"by": "an old client"})
    assert digests(await ready.referrers("a", DIGEST, f"?artifactType={SIGNATURE}")) == {old_digest}
    assert (await ready.http.delete(f"/v2/a/manifests/{old_digest}")).status_code == 202
    assert digests(await ready.referrers("a", DIGEST)) == {known}
    assert (await ready.http.delete(f"/v2/a/manifests/{fallback_tag(DIGEST)}")).status_code == 202
    assert digests(await ready.referrers("a", DIGEST)) == {known}


async def test_row_33_fallback_tag_of_something_else(ready: Api) -> None:
    """An image under that tag, as cosign's old scheme nearly had it: no list, no fault."""
    known = await ready.push_manifest("a", referrer(1))
    await ready.push_manifest("a", SUBJECT, fallback_tag(DIGEST))
    assert digests(await ready.referrers("a", DIGEST)) == {known}


@pytest.mark.parametrize("last", ["zzz", "sha256:bad", "%C3%A9", ""])
async def test_last_that_is_no_digest(ready: Api, last: str) -> None:
    await ready.push_manifest("a", referrer(1))
    response = await ready.get(f"/v2/a/referrers/{DIGEST}?last={last}")
    assert response.status_code == 200
    assert len(response.json()["manifests"]) in (0, 1)


async def test_tag_as_subject(ready: Api) -> None:
    await ready.push_manifest("a", SUBJECT, "v1")
    assert error_of(await ready.get("/v2/a/referrers/v1")) == (400, "DIGEST_INVALID")
