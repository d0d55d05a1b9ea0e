"""The catalog: which folders are repositories, in which order, page by page."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage import layout
from storage.content import ContentStore
from storage.driver import StorageDriver
from storage.drivers.memory import MemoryDriver
from storage.names import parse_name
from tests.api import in_pieces
from tests.storage.spying import Record, push_blob

NASTY = [
    "a",
    "a-b",
    "a.b",
    "a/b",
    "a/b/c",
    "a/blobs/uploads",
    "a/manifests/b",
    "a/referrers",
    "a/tags/list",
    "a0",
    "a_b",
    "a__b",
    "aa",
    "b/manifests",
    "blobs/uploads",
    "con",
    "data",
    "link",
    "manifests",
    "/".join("x" * 12),
    "tags/list",
    "v2",
    "z",
]


def in_order(names: list[str]) -> list[str]:
    """By component, as distribution's: a, a/b, a-b."""
    return sorted(names, key=lambda name: name.split("/"))


async def mark(driver: StorageDriver, name: str) -> None:
    """What makes a folder a repository, without the effort of a push."""
    await driver.put(f"{layout.manifests(parse_name(name))}/revisions/sha256/{'0' * 64}/link", b"")


async def pages(content: ContentStore, limit: int) -> list[str]:
    found: list[str] = []
    while True:
        page = await content.list_repositories(found[-1] if found else "", limit)
        assert len(page.names) <= limit
        found += page.names
        if not page.more:
            return found
        assert len(page.names) == limit


async def test_nothing(content: ContentStore) -> None:
    page = await content.list_repositories("", 10)
    assert (page.names, page.more) == ([], False)


@pytest.mark.slow
async def test_every_page_size_over_nasty_names(content: ContentStore, backing: StorageDriver) -> None:
    for name in NASTY:
        await mark(backing, name)
    expected = in_order(NASTY)
    for limit in (1, 2, 3, len(NASTY) - 1, len(NASTY), len(NASTY) + 1, 1000):
        assert await pages(content, limit) == expected


@pytest.mark.slow
async def test_from_any_place(content: ContentStore, backing: StorageDriver) -> None:
    """`last` need not exist any more, nor be a name at all."""
    for name in NASTY:
        await mark(backing, name)
    expected = in_order(NASTY)
    for after in [
        *NASTY,
        "a/",
        "a/a",
        "a/b/",
        "a/b/b",
        "a/zz",
        "a-",
        "0",
        "~",
        "UPPER",
        "_",
        "/",
        "//",
        "a//b",
        "a/../b",
    ]:
        page = await content.list_repositories(after, 1000)
        assert page.names == [name for name in expected if name.split("/") > after.split("/")], after


@pytest.mark.slow
async def test_the_deepest_name(content: ContentStore, backing: StorageDriver) -> None:
    deepest = "/".join("x" * 128)
    for name in ("x", deepest, "y"):
        await mark(backing, name)
    assert await pages(content, 1) == ["x", deepest, "y"]


async def test_what_is_no_repository(
    content: ContentStore, backing: StorageDriver, caplog: pytest.LogCaptureFixture
) -> None:
    await push_blob(content.repository(parse_name("only/blobs")), b"x")
    uploading = content.repository(parse_name("only/uploads"))
    await uploading.append_upload(await uploading.start_upload(), in_pieces(b"x"))
    await mark(backing, "a")
    for key in (
        "UPPER/_manifests/revisions/x/link",
        "a/_other/x",
        "_hidden/b/_manifests/x",
        "a..b/_manifests/x",
        "plain/file",
        "a/_layers/b/_manifests/x",
    ):
        await backing.put(f"{layout.REPOSITORIES}/{key}", b"x")
    assert (await content.list_repositories("", 100)).names == ["a"]
    assert "no repository name" in caplog.text
    assert await content.repositories_with(layout.UPLOADS_FOLDER) == ["only/uploads"]


async def test_a_page_of_what_is_no_repository(content: ContentStore, backing: StorageDriver) -> None:
    """The list goes on behind it."""
    for name in ("A", "B", "C", "d"):
        await backing.put(f"{layout.REPOSITORIES}/{name}/_manifests/revisions/x/link", b"")
    assert (await content.list_repositories("", 2)).names == ["d"]


@pytest.mark.slow
async def test_a_page_costs_what_is_on_it(content: ContentStore, backing: StorageDriver, record: Record) -> None:
    """S1: the work for a page depends on the page, not on n, and not on what comes behind it."""
    for number in range(60):
        await mark(backing, f"r{number:03}")
    costs = []
    for limit in (5, 5):
        record.taken()
        await content.list_repositories("r030", limit)
        costs.append(len(record.taken()))
    assert costs[0] <= 10, "the root, the last one of the page before, five, and the one that says there are more"
    record.taken()
    await content.list_repositories("r055", 2**31)
    assert len(record.taken()) <= 10


component = st.from_regex(r"[a-c](?:[-._][a-c])?", fullmatch=True)
names = st.lists(component, min_size=1, max_size=4).map("/".join)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.sets(names, max_size=12), st.integers(1, 5), names)
async def test_pages_are_the_whole_in_order(found: set[str], limit: int, after: str) -> None:
    driver = MemoryDriver()
    content = ContentStore(driver)
    for name in found:
        await mark(driver, name)
    expected = in_order(list(found))
    assert await pages(content, limit) == expected
    page = await content.list_repositories(after, 100)
    assert page.names == [name for name in expected if name.split("/") > after.split("/")]
    await driver.aclose()
