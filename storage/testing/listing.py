"""Lists: in order, complete, in pages, and true while others write. Part of DriverContract."""

import asyncio

import pytest

from storage.driver import StorageDriver
from storage.testing.tools import NEIGHBOURS, DriverFixtures, keys


class ListingContract(DriverFixtures):
    """list_objects, list_folders."""

    @pytest.fixture
    async def filled(self, driver: StorageDriver) -> StorageDriver:
        for key in reversed(NEIGHBOURS):
            await driver.put(key, key.encode())
        return driver

    async def test_objects_are_ordered_by_key(self, filled: StorageDriver) -> None:
        assert sorted(NEIGHBOURS) == NEIGHBOURS
        assert await keys(filled.list_objects("")) == NEIGHBOURS

    async def test_objects_are_described(self, filled: StorageDriver) -> None:
        async for info in filled.list_objects("a"):
            assert info == await filled.head(info.key)

    @pytest.mark.parametrize("prefix", ["a", "a/b", "a-b", "b", "a/b/c", "a0", "x", "a.b-c", "a_"])
    async def test_objects_below_a_folder(self, filled: StorageDriver, prefix: str) -> None:
        below = [key for key in NEIGHBOURS if key.startswith(f"{prefix}/")]
        assert await keys(filled.list_objects(prefix)) == below

    @pytest.mark.parametrize("prefix", ["", "a"])
    @pytest.mark.parametrize(
        "after", [*NEIGHBOURS, "A", "a/", "a/b/", "a/b/a", "a/b/d", "a-", "a-c", "a.", "a/b", "zz"]
    )
    async def test_objects_after(self, filled: StorageDriver, prefix: str, after: str) -> None:
        expected = [key for key in NEIGHBOURS if key > after and key.startswith(f"{prefix}/" if prefix else "")]
        assert await keys(filled.list_objects(prefix, after)) == expected

    async def test_nothing_is_listed_twice_or_left_out_while_others_write(self, driver: StorageDriver) -> None:
        names = [f"a/{number:03}/{leaf}" for number in range(300) for leaf in ("x", "y")]
        await asyncio.gather(*(driver.put(name, b"") for name in names))
        seen = []
        async for info in driver.list_objects("a"):
            seen.append(info.key)
            if info.key == "a/010/y":
                await driver.delete_tree("a/200")
                await driver.delete("a/299/x")
                await driver.put("a/250/new", b"")
                await driver.delete_tree("a/005")
        gone = {"a/200/x", "a/200/y", "a/299/x", "a/250/new"}
        assert [key for key in seen if key not in gone] == [key for key in names if key not in gone]
        assert len(seen) == len(set(seen))

    async def test_a_listing_can_be_given_up(self, driver: StorageDriver) -> None:
        await asyncio.gather(*(driver.put(f"a/{number:03}/x", b"") for number in range(100)))
        listing = driver.list_objects("")
        assert (await anext(listing)).key == "a/000/x"
        await listing.aclose()  # type: ignore[attr-defined]  # both kinds of iterators that a driver may return have it

    async def test_folders(self, filled: StorageDriver) -> None:
        assert await filled.list_folders("") == ["a", "a-b", "a.b-c", "a_"]
        assert await filled.list_folders("a") == ["b", "b-"]
        assert await filled.list_folders("a/b") == []
        assert await filled.list_folders("b") == [], "an object is no folder"
        assert await filled.list_folders("x/y") == []

    @pytest.mark.parametrize("after", ["", "a", "a-", "a-b", "a.", "b", "B"])
    @pytest.mark.parametrize("limit", [0, 1, 2, 3, 4, 100, None])
    async def test_folders_in_pages(self, filled: StorageDriver, after: str, limit: int | None) -> None:
        expected = [name for name in ["a", "a-b", "a.b-c", "a_"] if name > after][:limit]
        assert await filled.list_folders("", after=after, limit=limit) == expected

    async def test_folders_are_ordered_by_code_point(self, driver: StorageDriver) -> None:
        names = ["-", ".x", "0", "A", "Z", "_", "a", "a-b", "a.b", "a0", "aa", "b"]
        for name in reversed(names):
            await driver.put(f"p/{name}/x", b"")
        assert await driver.list_folders("p") == names

    async def test_folders_containing(self, driver: StorageDriver) -> None:
        for key in (
            "t/1/current/link",
            "t/2/index/link",
            "t/3/current/link/x",
            "t/4/current/link",
            "t/5/current/linked",
        ):
            await driver.put(key, b"")
        await driver.put("t/current/link", b"")
        found = ["1", "4"]
        assert await driver.list_folders("t", containing="current/link") == found
        assert await driver.list_folders("t", containing="current/link", limit=1) == found[:1]
        assert await driver.list_folders("t", containing="current/link", after="1") == found[1:]
        assert await driver.list_folders("", containing="4/current/link") == ["t"]

    async def test_an_emptied_folder_is_not_listed(self, driver: StorageDriver) -> None:
        for key in ("a/b/c", "a/x", "d/e/f/g"):
            await driver.put(key, b"")
        await driver.delete("a/b/c")
        assert await driver.list_folders("a") == []
        assert await driver.list_folders("") == ["a", "d"]
        await driver.delete("a/x")
        await driver.delete_tree("d/e/f")
        assert await driver.list_folders("") == []
        assert await keys(driver.list_objects("")) == []

    async def test_find_folders(self, driver: StorageDriver) -> None:
        for key in (
            "r/a/_m/x",
            "r/a/b/_m/x/y",
            "r/a-b/_m/x",
            "r/c/d/e/_m/y",
            "r/q/_l/x",
            "r/_h/z/_m/x",
            "other/a/_m/x",
        ):
            await driver.put(key, b"")
        assert await driver.find_folders("r", "_m") == ["a", "a/b", "a-b", "c/d/e"]
        assert await driver.find_folders("r", "_l") == ["q"]
        assert await driver.find_folders("none", "_m") == []

    @pytest.mark.parametrize(
        ("after", "found"),
        [
            ("a", ["a/b", "a-b", "c/d/e"]),
            ("a/b", ["a-b", "c/d/e"]),
            ("a/zz", ["a-b", "c/d/e"]),
            ("b", ["c/d/e"]),
            ("c/d", ["c/d/e"]),
            ("c/d/e", []),
            ("c/d/e/f", []),
            ("../x", ["a", "a/b", "a-b", "c/d/e"]),
            ("zz", []),
        ],
    )
    async def test_find_folders_page_by_page(self, driver: StorageDriver, after: str, found: list[str]) -> None:
        for name in ("a", "a/b", "a-b", "c/d/e"):
            await driver.put(f"r/{name}/_m/x", b"")
        assert await driver.find_folders("r", "_m", after=after) == found
        for limit in (0, 1, 2):
            assert await driver.find_folders("r", "_m", after=after, limit=limit) == found[:limit]

    async def test_find_folders_in_a_wide_folder(self, driver: StorageDriver) -> None:
        names = [f"{number:03}" for number in range(250)]
        for name in names:
            await driver.put(f"r/{name}/_m/x", b"")
        await driver.put("r/_m/x", b"")
        assert await driver.find_folders("", "_m") == ["r", *(f"r/{name}" for name in names)]
