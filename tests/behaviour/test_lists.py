"""Lists of tags and repositories, and their pages (rows 115 to 120)."""

import asyncio

import httpx
import pytest

from tests.api import Api, error_of
from tests.behaviour.table import ABSENT, MANIFEST_DIGEST, NAME, Bad, Wire, World, by_id

COUNTS = {
    "negative": "-1",
    "letters": "abc",
    "float": "1.5",
    "underscore": "1_0",
    "arabic": "%D9%A0",
    "superscript": "%C2%B2",
    "20-digits": "9" * 20,
    "5000-digits": "9" * 5000,
    "plus": "%2B5",
    "space": "%205",
    "plus-as-space": "+5",
    "hexadecimal": "0x10",
    "line-feed": "5%0A",
    "nul": "%00",
    "not-utf8": "%ff",
    "escape-that-is-none": "%zz",
    "two-in-one": "1,2",
}

REFUSED = [
    *(
        Bad("116", f"{what}-{kind}", "GET", f"/v2/{path}?n={n}", 400, "UNSUPPORTED")
        for what, n in COUNTS.items()
        for kind, path in {"tags": f"{NAME}/tags/list", "catalog": "_catalog"}.items()
    ),
    Bad("116", "two-counts", "GET", f"/v2/{NAME}/tags/list?n=1&n=2", 400, "UNSUPPORTED"),
    Bad("116", "two-counts-of-the-catalog", "GET", "/v2/_catalog?n=1&n=2", 400, "UNSUPPORTED"),
    Bad("116", "head", "HEAD", f"/v2/{NAME}/tags/list?n=-1", 400, "UNSUPPORTED"),
    Bad("118", "nul-tags", "GET", f"/v2/{NAME}/tags/list?last=%00", 400, "UNSUPPORTED"),
    Bad("118", "nul-catalog", "GET", "/v2/_catalog?last=%00", 400, "UNSUPPORTED"),
    Bad("118", "nul-referrers", "GET", f"/v2/{NAME}/referrers/{MANIFEST_DIGEST}?last=%00", 400, "UNSUPPORTED"),
    Bad("118", "nul-type", "GET", f"/v2/{NAME}/referrers/{ABSENT}?artifactType=%00", 400, "UNSUPPORTED"),
    Bad("118", "not-utf8", "GET", f"/v2/{NAME}/tags/list?last=%ff", 400, "UNSUPPORTED"),
    Bad("118", "not-utf8-name", "GET", f"/v2/{NAME}/tags/list?%ff=1", 400, "UNSUPPORTED"),
    Bad("118", "201-parameters", "GET", f"/v2/{NAME}/tags/list?" + "a&" * 201, 414, "UNSUPPORTED"),
    Bad("118", "two-types", "GET", f"/v2/{NAME}/referrers/{ABSENT}?artifactType=a&artifactType=b", 400, "UNSUPPORTED"),
    Bad("115", "no-repository", "GET", "/v2/nope/tags/list?n=0", 404, "NAME_UNKNOWN"),
]

CORPUS = REFUSED


@by_id(REFUSED)
async def test_refused(wire: Wire, case: Bad) -> None:
    await wire.refuses(case)


TAGS = ["0", "1", "1-a", "1.0", "1.0.0", "10", "A", "B_", "a", "a-b", "a.b", "ab", "latest", "v1", "v10", "v2"]
"""In order, which is that of bytes; many are the beginning of another."""


@pytest.fixture
async def tagged(api: Api) -> Api:
    await api.push_image(NAME, TAGS[0])
    digest = await api.push_image(NAME)
    body = (await api.get(f"/v2/{NAME}/manifests/{digest}")).content
    for start in range(0, len(TAGS), 50):
        await asyncio.gather(*(api.push_manifest(NAME, body, tag) for tag in TAGS[start : start + 50]))
    return api


async def listed(api: Api, query: str = "") -> httpx.Response:
    response = await api.get(f"/v2/{NAME}/tags/list{query}")
    assert response.status_code == 200, response.text
    assert response.headers["Content-Type"] == "application/json"
    assert set(response.json()) == {"name", "tags"}
    assert response.json()["name"] == NAME
    return response


async def test_sorted(tagged: Api) -> None:
    response = await listed(tagged)
    assert response.json()["tags"] == TAGS == sorted(TAGS)
    assert "Link" not in response.headers


@pytest.mark.parametrize("query", ["?n=0", "?n=00", "?n=0&last=a"])
async def test_row_115_none_asked_for(tagged: Api, query: str) -> None:
    response = await listed(tagged, query)
    assert response.json()["tags"] == []
    assert "Link" not in response.headers


@pytest.mark.parametrize("n", ["2147483647", "9223372036854775807", "9999999999999999999", "1000000"])
async def test_row_116_too_many_asked_for(tagged: Api, n: str) -> None:
    """Cut to what is given at most; nothing is allocated for the rest (CVE-2023-2253)."""
    assert (await listed(tagged, f"?n={n}")).json()["tags"] == TAGS
    catalog = await tagged.get(f"/v2/_catalog?n={n}")
    assert (catalog.status_code, catalog.json()) == (200, {"repositories": [NAME]})


@pytest.mark.parametrize("n", [1, 2, 3, 5, 15, 16, 17])
async def test_row_119_pages(tagged: Api, n: int) -> None:
    """By the Links alone: each tag once, in order, and a page is full wherever another follows."""
    url: str | None = f"/v2/{NAME}/tags/list?n={n}"
    pages = []
    while url is not None:
        response = await tagged.get(url)
        assert response.status_code == 200
        pages.append(response.json()["tags"])
        url = response.links["next"]["url"] if "next" in response.links else None
    assert [tag for page in pages for tag in page] == TAGS
    assert all(len(page) == n for page in pages[:-1])
    assert pages[-1]


LAST = {
    "117-absent": ("zzz", []),
    "117-absent-in-between": ("1.5", TAGS[5:]),
    "117-parent": ("../x", TAGS),
    "117-slash": ("a%2Fb", [t for t in TAGS if t > "a/b"]),
    "117-empty": ("", TAGS),
    "117-not-ascii": ("%C3%A9", []),
    "117-first": ("0", TAGS[1:]),
    "117-long": ("a" * 5000, [t for t in TAGS if t > "a" * 5000]),
    "117-ampersand": ("a%26b", [t for t in TAGS if t > "a&b"]),
    "117-plus": ("a%2B", [t for t in TAGS if t > "a+"]),
    "117-prefix": ("1", TAGS[2:]),
    "117-not-last-of-its-prefix": ("1.0", TAGS[4:]),
    "117-last": ("v2", []),
}


@pytest.mark.parametrize("row", LAST, ids=lambda row: f"row-{row}")
async def test_tags_behind(tagged: Api, row: str) -> None:
    """`last` need not exist, and works without n."""
    last, expected = LAST[row]
    assert (await listed(tagged, f"?last={last}")).json()["tags"] == expected
    response = await listed(tagged, f"?last={last}&n=2")
    assert response.json()["tags"] == expected[:2]
    assert ("Link" in response.headers) == (len(expected) > 2)


async def test_parameters_that_nobody_knows(tagged: Api) -> None:
    assert (await listed(tagged, "?x=%20y&&n=1&=&;")).json()["tags"] == TAGS[:1]


NAMES = ["a", "a/b", "a/b/c", "a-b", "a.b", "a0", "ab", "b/c/d", "c/d", "c__d"]


@pytest.mark.parametrize("n", [1, 2, 3, 10])
async def test_row_120_pages_of_the_catalog(api: Api, n: int) -> None:
    """Each name once; a slash in `last` is escaped in the Link."""
    for name in NAMES:
        await api.push_image(name, "v1")
    url: str | None = f"/v2/_catalog?n={n}"
    pages = []
    while url is not None:
        response = await api.get(url)
        assert response.status_code == 200
        pages.append(response.json()["repositories"])
        url = response.links["next"]["url"] if "next" in response.links else None
        assert url is None or "/" not in url.partition("last=")[2]
    found = [name for page in pages for name in page]
    assert sorted(found) == sorted(NAMES)
    assert len(found) == len(set(found))
    assert all(len(page) == n for page in pages[:-1])


@pytest.mark.parametrize("last", ["../x", "zzz", "%2F", "a%2F", "%2Fa", "a%2F%2Fb", "_", "UPPER", "%C3%A9"])
async def test_row_117_catalog_behind_what_is_no_name(api: Api, last: str) -> None:
    await api.push_image("a/b", "v1")
    response = await api.get(f"/v2/_catalog?last={last}")
    assert response.status_code == 200
    assert response.json()["repositories"] in ([], ["a/b"])


@pytest.mark.parametrize("query", ["?n=0", "?n="])
async def test_row_115_catalog(world: World, query: str) -> None:
    response = await world.api.get(f"/v2/_catalog{query}")
    assert response.json() == {"repositories": [] if query == "?n=0" else [NAME]}
    assert "Link" not in response.headers


async def test_error_shape_of_a_head(world: World) -> None:
    response = await world.api.http.head("/v2/nope/tags/list")
    assert (response.status_code, response.content) == (404, b"")
    assert error_of(await world.api.get("/v2/nope/tags/list")) == (404, "NAME_UNKNOWN")
