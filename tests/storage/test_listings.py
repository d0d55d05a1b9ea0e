"""Remembered lists of folders, and files that speak for a folder: never an old one."""

import os
from pathlib import Path
from typing import Any

import pytest

from storage.drivers.files import FileTree
from storage.drivers.listings import Listings, Witnesses, behind
from storage.drivers.walk import folders_with

LONG_AGO = 1_000_000_000_000_000_000


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders that were really read."""
    seen: list[str] = []
    scandir = os.scandir

    def counting(path: str) -> Any:
        seen.append(path)
        return scandir(path)

    monkeypatch.setattr("storage.drivers.listings.os.scandir", counting)
    return seen


def settled(folder: Path) -> str:
    """Its last change is long ago."""
    os.utime(folder, ns=(LONG_AGO, LONG_AGO))
    return str(folder)


def test_sorted_folders_alone(tmp_path: Path) -> None:
    for name in ("b", "a", "a-b", "B"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "nowhere").symlink_to("none")
    assert Listings().folders(str(tmp_path)) == ["B", "a", "a-b", "b", "link"]


def test_read_once_while_nothing_changes(tmp_path: Path, reads: list[str]) -> None:
    (tmp_path / "a").mkdir()
    found = Listings()
    path = settled(tmp_path)
    assert [found.folders(path) for _ in range(3)] == [["a"]] * 3
    assert len(reads) == 1


def test_a_change_is_seen_at_once(tmp_path: Path, reads: list[str]) -> None:
    found = Listings()
    for count in range(1, 4):
        (tmp_path / f"{count}").mkdir()
        assert len(found.folders(str(tmp_path))) == count
    (tmp_path / "1").rmdir()
    assert found.folders(str(tmp_path)) == ["2", "3"]


def test_what_has_changed_just_now_is_read_again(tmp_path: Path, reads: list[str]) -> None:
    """Its clock may not have moved on between two changes."""
    found = Listings()
    (tmp_path / "a").mkdir()
    now = os.stat(tmp_path).st_mtime_ns
    assert found.folders(str(tmp_path)) == ["a"]
    (tmp_path / "b").mkdir()
    os.utime(tmp_path, ns=(now, now))  # as if within one step of the clock
    assert found.folders(str(tmp_path)) == ["a", "b"]
    assert len(reads) == 2


def test_another_folder_of_the_same_path(tmp_path: Path) -> None:
    found = Listings()
    (tmp_path / "x" / "a").mkdir(parents=True)
    assert found.folders(settled(tmp_path / "x")) == ["a"]
    (tmp_path / "x").rename(tmp_path / "y")
    (tmp_path / "x" / "b").mkdir(parents=True)
    assert found.folders(settled(tmp_path / "x")) == ["b"]


def test_bounded(tmp_path: Path, reads: list[str]) -> None:
    found = Listings(many=10)
    for number in range(5):
        for name in "abc":
            (tmp_path / f"{number}" / name).mkdir(parents=True)
        found.folders(settled(tmp_path / f"{number}"))
    reads.clear()
    for number in (4, 3, 0):
        found.folders(str(tmp_path / f"{number}"))
    assert reads == [str(tmp_path / "0")]


def test_behind() -> None:
    names = ["a", "a-b", "b"]
    assert [behind(names, after) for after in ("", "a", "a0", "b", "c")] == [0, 1, 2, 3, 3]


def test_a_folder_that_held_a_file_is_looked_at_and_not_searched(tmp_path: Path, reads: list[str]) -> None:
    tree = FileTree(str(tmp_path), "scratch")
    for name in ("one", "two"):
        (tmp_path / f"a/_mark/deep/{name}").mkdir(parents=True)
        (tmp_path / f"a/_mark/deep/{name}/file").touch()

    def found() -> list[str]:
        return list(folders_with(tree, "", "_mark", "_", None))

    assert found() == ["a"]
    searched = [path for path in reads if "/_mark" in path]
    assert found() == ["a"]
    assert [path for path in reads if "/_mark" in path] == searched != []
    for gone in ("one", "two"):  # whichever spoke for it, the other does afterwards
        (tmp_path / f"a/_mark/deep/{gone}/file").unlink()
        assert found() == (["a"] if gone == "one" else [])
    (tmp_path / "a/_mark/deep/two/file").touch()
    assert found() == ["a"]


def test_witnesses_are_bounded() -> None:
    known = Witnesses(many=2)
    for number in range(4):
        known.keep(f"folder {number}", f"file {number}")
    assert [known.of(f"folder {number}") for number in range(4)] == [None, None, "file 2", "file 3"]
