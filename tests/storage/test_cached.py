"""Reading what the kernel holds in memory without a thread, and only that."""

import ctypes
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from storage.drivers import cached
from storage.drivers.cached import LARGEST, PAGE, open_cached, read_cached, read_first_page
from storage.drivers.filesystem import FilesystemDriver
from storage.errors import ObjectNotFound, Unavailable
from storage.ranges import RangeRequest


def knows_nowait(folder: Path) -> bool:
    (folder / "probe").write_bytes(b"x")
    with (folder / "probe").open("rb") as file:
        try:
            return os.preadv(file.fileno(), [bytearray(1)], 0, os.RWF_NOWAIT) == 1
        except OSError:
            return False


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    if not knows_nowait(tmp_path):
        pytest.skip(f"{tmp_path} is on a filesystem without RWF_NOWAIT: everything there goes through threads")
    return tmp_path


@pytest.fixture
async def driver(folder: Path) -> AsyncIterator[FilesystemDriver]:
    driver = FilesystemDriver(folder, scratch="scratch")
    yield driver
    await driver.aclose()


def test_what_was_just_written_is_read(folder: Path) -> None:
    (folder / "a").write_bytes(b"0123456789")
    fd = open_cached(str(folder / "a"))
    try:
        assert read_cached(fd, 2, 5) == b"23456"
        with pytest.raises(BlockingIOError):
            read_cached(fd, 8, 5)  # it has become shorter: the long way says how that is
    finally:
        os.close(fd)


def test_a_name_is_absent_once_the_kernel_knows(folder: Path) -> None:
    path = folder / "never" / "there"
    with pytest.raises((BlockingIOError, FileNotFoundError)):
        open_cached(str(path))
    assert not path.exists()
    with pytest.raises(FileNotFoundError):
        open_cached(str(path))


@pytest.mark.parametrize("kernel", ["without openat2", "forbids openat2"])
def test_a_kernel_that_cannot(folder: Path, kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "a").write_bytes(b"x")
    if kernel == "without openat2":
        monkeypatch.setattr(cached, "_syscall", None)
    else:
        unknown = ctypes.c_long(100_000)  # ENOSYS
        monkeypatch.setattr(cached, "_BEFORE", (unknown, *cached._BEFORE[1:]))
    with pytest.raises(BlockingIOError):
        open_cached(str(folder / "a"))
    with pytest.raises(BlockingIOError):
        read_first_page(str(folder / "a"))


@pytest.mark.parametrize("size", [1, 71, PAGE - 1])
def test_a_file_below_a_page_in_one_go(folder: Path, size: int) -> None:
    (folder / "a").write_bytes(bytes(range(1, 72)) * 100)
    os.truncate(folder / "a", size)
    assert read_first_page(str(folder / "a")) == (bytes(range(1, 72)) * 100)[:size]


@pytest.mark.parametrize("size", [0, PAGE, PAGE + 1])
def test_what_a_page_does_not_tell_takes_the_long_way(folder: Path, size: int) -> None:
    (folder / "a").write_bytes(bytes(size))
    with pytest.raises(BlockingIOError):
        read_first_page(str(folder / "a"))


def test_a_pipe_takes_the_long_way_to_be_no_object(folder: Path) -> None:
    os.mkfifo(folder / "a")
    with pytest.raises(BlockingIOError):
        read_first_page(str(folder / "a"))


async def test_what_is_larger_than_expected_is_a_fault(driver: FilesystemDriver) -> None:
    for size in (80, PAGE):
        await driver.put("a", bytes(size))
        with pytest.raises(Unavailable):
            await driver.read("a", limit=79)
    assert await driver.read("a", limit=PAGE) == bytes(PAGE)


async def test_no_thread_for_small_things(driver: FilesystemDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    await driver.put("a/b", b"small")
    await driver.put("a/large", bytes(LARGEST + 1))
    with pytest.raises(ObjectNotFound):
        await driver.read("a/none")

    def no_thread(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("a thread was asked")

    monkeypatch.setattr("storage.drivers.threads.Threads.start", no_thread)
    assert await driver.read("a/b") == b"small"
    assert (await driver.head("a/large")).size == LARGEST + 1
    async with await driver.open("a/large", RangeRequest(5, 7)) as reader:
        assert await reader.read(10) == b"\0\0"
    with pytest.raises(ObjectNotFound):
        await driver.read("a/none")


async def test_large_things_go_through_a_thread(driver: FilesystemDriver) -> None:
    await driver.put("a", bytes(LARGEST + 1))
    assert len(await driver.read("a")) == LARGEST + 1
    async with await driver.open("a") as reader:
        assert len(await reader.read(LARGEST + 1)) == LARGEST + 1


async def test_a_folder_is_no_object(driver: FilesystemDriver) -> None:
    await driver.put("a/b", b"x")
    for _ in range(2):
        with pytest.raises(ObjectNotFound):
            await driver.open("a")
        with pytest.raises(ObjectNotFound):
            await driver.head("a")
        with pytest.raises(ObjectNotFound):
            await driver.read("a", limit=100)
