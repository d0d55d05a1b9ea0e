"""What the filesystem driver promises beyond the contract: the order of its syncs, crashes, full disks, other users.

Run as a script, this file is the process that the crash tests kill: see `_serve_crashes` and `_count`.
"""

import asyncio
import errno
import fcntl
import hashlib
import io
import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from storage.driver import CHUNK, Stage
from storage.drivers import folders
from storage.drivers.filesystem import FilesystemDriver
from storage.drivers.growing import GrowingFile
from storage.drivers.oserrors import ABSENT, FULL, translate
from storage.drivers.scratch import Scratch, remove_tree
from storage.errors import (
    ObjectNotFound,
    OffsetMismatch,
    PreconditionFailed,
    StorageFull,
    Unavailable,
)

SCRATCH = "v2/_scratch"


def pattern(size: int, seed: str = "") -> bytes:
    return hashlib.shake_128(seed.encode()).digest(size)


async def pieces(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


@pytest.fixture
def cold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is in the kernel's memory: everything is asked of the disk, through threads."""

    def would_wait(*args: Any) -> Any:
        raise BlockingIOError

    monkeypatch.setattr("storage.drivers.files.open_cached", would_wait)
    monkeypatch.setattr("storage.drivers.files.read_cached", would_wait)
    monkeypatch.setattr("storage.drivers.filesystem.read_cached", would_wait)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
async def driver(root: Path) -> AsyncIterator[FilesystemDriver]:
    driver = FilesystemDriver(root, scratch=SCRATCH)
    yield driver
    await driver.aclose()


def scratch_files(root: Path) -> list[Path]:
    return [path for path in (root / SCRATCH).rglob("*") if path.name != "lock" and path.parent != root / SCRATCH]


# The order of steps


class Recorder:
    """Notes calls of os that change a filesystem, in order, with paths relative to root; the calls are made as ever."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.steps: list[str] = []
        self._root = root
        real_fsync = os.fsync

        def fsync(fd: int) -> None:
            real_fsync(fd)
            self.steps.append(f"fsync {self._named(os.readlink(f'/proc/self/fd/{fd}'))}")

        patch.setattr(os, "fsync", fsync)
        for name, target in (("mkdir", "dir_fd"), ("rmdir", "dir_fd"), ("unlink", "dir_fd")):
            patch.setattr(os, name, self._one(name, getattr(os, name), target))
        for name in ("rename", "link"):
            patch.setattr(os, name, self._two(name, getattr(os, name)))

    def _one(self, name: str, real: Callable[..., None], folder: str) -> Callable[..., None]:
        def call(path: str, *args: Any, **kwargs: Any) -> None:
            where = self._named(path, kwargs.get(folder))
            real(path, *args, **kwargs)
            self.steps.append(f"{name} {where}")

        return call

    def _two(self, name: str, real: Callable[..., None]) -> Callable[..., None]:
        def call(old: str, new: str, *args: Any, **kwargs: Any) -> None:
            where = f"{self._named(old, kwargs.get('src_dir_fd'))} -> {self._named(new, kwargs.get('dst_dir_fd'))}"
            real(old, new, *args, **kwargs)
            self.steps.append(f"{name} {where}")

        return call

    def _named(self, path: str, folder: int | None = None) -> str:
        if folder is not None:
            path = f"{os.readlink(f'/proc/self/fd/{folder}')}/{path}"
        found = os.path.relpath(path, self._root)
        return "TEMP" if found.startswith(SCRATCH) else found

    def take(self) -> list[str]:
        taken, self.steps = self.steps, []
        return taken


@pytest.fixture
async def recorder(driver: FilesystemDriver, root: Path, monkeypatch: pytest.MonkeyPatch) -> Recorder:
    await driver.check_writable()
    return Recorder(root, monkeypatch)


async def test_an_unmounted_volume_is_no_empty_store(root: Path) -> None:
    """A link stands for the mount: it can lead to another device without anybody mounting something."""
    volume = root.parent / "volume"
    async with aclosing(FilesystemDriver(root, scratch="s")) as driver:
        await driver.check_present()  # not made yet, which is as good as empty
        volume.mkdir()
        root.symlink_to(volume)
        await driver.check_present()
        root.unlink()
        with pytest.raises(Unavailable, match="is gone"):
            await driver.check_present()
        root.mkdir()
        await driver.check_present()  # made again, on the same device
        root.rmdir()
        root.symlink_to("/proc")
        with pytest.raises(Unavailable, match="another one"):
            await driver.check_present()
        root.unlink()
        root.symlink_to(volume)
        await driver.check_present()


async def test_the_root_is_made_durably(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = FilesystemDriver(root / "a", scratch="s")
    recorder = Recorder(root, monkeypatch)
    await driver.put("k", b"")
    expected = ["mkdir .", "fsync ..", "mkdir a", "fsync .", "mkdir a/s", "fsync a"]
    assert recorder.take()[: len(expected)] == expected
    await driver.aclose()


async def test_put_syncs_in_order(driver: FilesystemDriver, recorder: Recorder) -> None:
    await driver.put("a/b/c", b"1")
    new_folders = ["mkdir a", "fsync .", "mkdir a/b", "fsync a"]
    assert recorder.take() == ["fsync TEMP", *new_folders, "rename TEMP -> a/b/c", "fsync a/b"]
    await driver.put("a/b/c", b"2")
    assert recorder.take() == ["fsync TEMP", "rename TEMP -> a/b/c", "fsync a/b"]
    await driver.put("a/b/d", b"2", if_absent=True)
    assert recorder.take() == ["fsync TEMP", "link TEMP -> a/b/d", "fsync a/b", "unlink TEMP"]


async def test_move_syncs_in_order(driver: FilesystemDriver, recorder: Recorder) -> None:
    stage = await driver.begin("u/1/data")
    await driver.append(stage, 0, pieces(b"12345"))
    await driver.put("u/1/startedat", b"")
    recorder.take()
    await driver.complete(stage, 5)
    assert recorder.take() == ["fsync u/1/data", "fsync u/1"]
    await driver.move("u/1/data", "b/xx/data", 5)
    steps = ["mkdir b", "fsync .", "mkdir b/xx", "fsync b", "rename u/1/data -> b/xx/data", "fsync b/xx", "fsync u/1"]
    assert recorder.take() == steps
    await driver.delete_tree("u/1")
    recorder.take()
    await driver.move("b/xx/data", "b/xx/other", 5)
    assert recorder.take() == ["rename b/xx/data -> b/xx/other", "fsync b/xx"]
    await driver.move("b/xx/other", "c/data", 5)
    removed = ["rmdir b/xx", "rmdir b", "fsync ."]
    assert recorder.take() == ["mkdir c", "fsync .", "rename b/xx/other -> c/data", "fsync c", *removed]


async def test_delete_syncs_in_order(driver: FilesystemDriver, recorder: Recorder) -> None:
    for key in ("a/b/c", "a/b/d", "x/y/z/1", "x/y/z/2", "x/2"):
        await driver.put(key, b"")
    recorder.take()
    await driver.delete("a/b/c")
    assert recorder.take() == ["unlink a/b/c", "fsync a/b"]
    await driver.delete("a/b/d")
    assert recorder.take() == ["unlink a/b/d", "rmdir a/b", "rmdir a", "fsync ."]
    await driver.delete_tree("x/y/z")
    assert recorder.take()[:3] == ["rename x/y/z -> TEMP", "rmdir x/y", "fsync x"]


async def test_begin_and_append_leave_syncing_to_complete(driver: FilesystemDriver, recorder: Recorder) -> None:
    stage = await driver.begin("u/data")
    await driver.append(stage, 0, pieces(pattern(3 * CHUNK)))
    assert recorder.take() == ["mkdir u", "fsync .", "rename TEMP -> u/data"]


async def test_a_folder_just_made_is_waited_for(
    driver: FilesystemDriver, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who finds a folder there that another process has not synced yet must not acknowledge anything inside it."""
    await driver.put("a/b/old", b"")
    loop, waits, real = asyncio.get_running_loop(), asyncio.Event(), fcntl.flock

    def flock(fd: int, operation: int) -> None:
        if operation == fcntl.LOCK_SH:
            loop.call_soon_threadsafe(waits.set)
        real(fd, operation)

    folder = os.open(root / "a", os.O_RDONLY)
    try:
        real(folder, fcntl.LOCK_EX)  # as whoever has just made a/b and is about to sync a
        monkeypatch.setattr(fcntl, "flock", flock)
        put = asyncio.create_task(driver.put("a/b/new", b""))
        async with asyncio.timeout(30):
            await waits.wait()
        assert not (root / "a/b/new").exists()
    finally:
        os.close(folder)
    await put
    assert (root / "a/b/new").exists()


def test_a_lock_is_one_of_the_folder_that_is_there_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, real = tmp_path / "a", fcntl.flock
    replaced: list[Path] = []
    folder.mkdir()

    def flock(fd: int, operation: int) -> None:
        if not replaced:
            replaced.append(folder.rename(tmp_path / "old"))
            folder.mkdir()
        real(fd, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with folders.locked(str(folder)) as [fd]:
        assert os.path.samestat(os.fstat(fd), folder.stat())
    assert replaced


# Others who use the same folder


async def test_files_may_be_read_by_other_users(driver: FilesystemDriver, root: Path) -> None:
    old = os.umask(0o027)
    try:
        await driver.put("a/b", b"")
        await driver.put("a/new", b"", if_absent=True)
        await driver.begin("a/stage")
        await driver.put("a/secret", b"", private=True)
    finally:
        os.umask(old)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (root / "a").iterdir()}
    assert modes == {"b": 0o640, "new": 0o640, "stage": 0o640, "secret": 0o600}
    assert stat.S_IMODE((root / "a").stat().st_mode) == 0o750


async def test_stages_are_files_at_their_key(driver: FilesystemDriver, root: Path) -> None:
    """A replica of distribution goes on with our upload, and we with its."""
    stage = await driver.begin("_uploads/1/data")
    await driver.append(stage, 0, pieces(b"ours, "))
    with (root / "_uploads/1/data").open("ab") as file:
        file.write(b"theirs, ")
    assert (await driver.stage_info(stage)).offset == 14
    with pytest.raises(OffsetMismatch):
        await driver.append(stage, 6, pieces(b"ours"))
    await driver.append(stage, 14, pieces(b"ours"))
    assert (root / "_uploads/1/data").read_bytes() == b"ours, theirs, ours"


async def test_what_is_no_object_is_passed_over(driver: FilesystemDriver, root: Path) -> None:
    await driver.put("a/link", b"")
    (root / "a/link.0f5b.tmp").write_bytes(b"")  # distribution's, after a crash: a key; layers above know
    (root / "a/with space").write_bytes(b"")
    (root / "lost+found").mkdir()
    (root / "empty/er/est").mkdir(parents=True)
    os.mkfifo(root / "a/pipe")
    (root / "a/broken").symlink_to("nowhere")
    (root / "a/loop").symlink_to("loop")
    found = [info.key async for info in driver.list_objects("")]
    assert found == ["a/link", "a/link.0f5b.tmp"]
    assert await driver.list_folders("") == ["a"]
    for key in ("a/pipe", "a/broken", "a", "empty/er"):
        with pytest.raises(ObjectNotFound):
            await driver.open(key)
    with pytest.raises(ObjectNotFound):
        await driver.touch("empty")


async def test_links_are_followed(driver: FilesystemDriver, root: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "deep").mkdir(parents=True)
    (elsewhere / "deep/file").write_bytes(b"far away")
    root.mkdir()
    (root / "a").symlink_to(elsewhere)
    (root / "single").symlink_to(elsewhere / "deep/file")
    assert await driver.read("a/deep/file") == b"far away"
    assert [info.key async for info in driver.list_objects("")] == ["a/deep/file", "single"]
    assert await driver.list_folders("") == ["a"]
    await driver.move("a/deep/file", "a/deep/other", 8)
    await driver.put("a/deep/new", b"")
    assert sorted(os.listdir(elsewhere / "deep")) == ["new", "other"]
    (root / "b").symlink_to("a")
    await driver.move("a/deep/new", "b/deep/newer", 0)  # one folder by two names: its lock must be taken once
    assert sorted(os.listdir(elsewhere / "deep")) == ["newer", "other"]
    await driver.delete_tree("a")
    assert not (root / "a").is_symlink()
    assert (elsewhere / "deep/other").exists(), "the link goes, as with distribution, and not what it leads to"


async def test_the_scratch_folder_is_no_place_for_objects(driver: FilesystemDriver) -> None:
    await driver.put("a", b"")
    for key in (SCRATCH, f"{SCRATCH}/x"):
        with pytest.raises(ValueError, match="key"):
            await driver.put(key, b"")
        with pytest.raises(ValueError, match="key"):
            await driver.delete_tree(key)
    await driver.put("v2/other", b"")
    assert [info.key async for info in driver.list_objects("v2")] == ["v2/other"]
    await driver.delete_tree("v2")
    await driver.put("v2/again", b"")
    assert await driver.list_folders("") == ["v2"]


async def test_reading_writes_nothing(driver: FilesystemDriver, root: Path) -> None:
    with pytest.raises(ObjectNotFound):
        await driver.open("a/b")
    assert [info async for info in driver.list_objects("")] == []
    assert await driver.list_folders("x") == []
    assert abs(await driver.now() - time.time()) < 1
    await driver.delete("a/b")
    await driver.delete_tree("a")
    await driver.aclose()
    assert not root.exists()


async def test_a_store_that_is_emptied_under_us(driver: FilesystemDriver, root: Path) -> None:
    await driver.put("a/b", b"")
    shutil.rmtree(root)
    await driver.put("a/b", b"again")
    assert await driver.read("a/b") == b"again"
    shutil.rmtree(root / SCRATCH)
    await driver.delete_tree("a")
    assert await driver.list_folders("") == []
    shutil.rmtree(root)
    await driver.aclose()


async def test_a_folder_that_cannot_be_renamed(
    driver: FilesystemDriver, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As overlayfs does with a folder of an image's layer, and every kernel with a mount point."""
    for key in ("a/b/c", "a/b/d/e", "a/f", "g"):
        await driver.put(key, b"")
    (root / "a/empty").mkdir()
    real = os.rename

    def rename(old: str, new: str, **kwargs: Any) -> None:
        folder = kwargs.get("src_dir_fd")
        if stat.S_ISDIR(os.stat(old, dir_fd=folder).st_mode):
            raise OSError(errno.EXDEV, "another layer")
        real(old, new, **kwargs)

    monkeypatch.setattr(os, "rename", rename)
    await driver.delete_tree("a")
    assert sorted(os.listdir(root)) == ["g", "v2"]


async def test_touch_sets_the_time(driver: FilesystemDriver, root: Path) -> None:
    version = await driver.put("a", b"")
    os.utime(root / "a", (0, 0))
    await driver.touch("a")
    info = await driver.head("a")
    assert abs(info.modified - await driver.now()) < 2
    assert info.version != version


async def test_versions_differ_where_time_goes_in_steps(driver: FilesystemDriver, root: Path) -> None:
    """An inode's number may come again with the version after next; its time may not."""
    await driver.put("a", b"data")
    soon = time.time_ns() + 500_000_000
    os.utime(root / "a", ns=(soon, soon))
    versions = [await driver.put("a", b"data") for _ in range(3)]
    assert (root / "a").stat().st_mtime_ns == soon + 3
    assert len(set(versions)) == 3
    far = soon + 10**12
    os.utime(root / "a", ns=(far, far))  # a clock was wrong: not for ever
    await driver.put("a", b"data")
    assert abs((root / "a").stat().st_mtime_ns - time.time_ns()) < 10**10


@pytest.fixture
def vanishing(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Has a folder removed right before the next rename, as a delete does that empties it at that very moment."""

    def arm(folder: Path) -> None:
        real = os.rename

        def rename(*args: Any, **kwargs: Any) -> None:
            monkeypatch.setattr(os, "rename", real)
            shutil.rmtree(folder)
            real(*args, **kwargs)

        monkeypatch.setattr(os, "rename", rename)

    return arm


async def test_put_makes_its_folder_again(
    driver: FilesystemDriver, root: Path, vanishing: Callable[[Path], None]
) -> None:
    vanishing(root / "a")
    await driver.put("a/b/c", b"data")
    assert (root / "a/b/c").read_bytes() == b"data"


async def test_move_makes_its_folder_again(
    driver: FilesystemDriver, root: Path, vanishing: Callable[[Path], None]
) -> None:
    await driver.put("a/source", b"data")
    vanishing(root / "b")
    await driver.move("a/source", "b/c/target", 4)
    assert (root / "b/c/target").read_bytes() == b"data"


async def test_others_are_faster(
    driver: FilesystemDriver, root: Path, vanishing: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    await driver.put("a/b/c", b"")
    vanishing(root / "a")
    await driver.delete_tree("a/b")
    assert await driver.list_folders("") == []
    await driver.put("u/1/data", b"")
    vanishing(root / "u")
    with pytest.raises(ObjectNotFound):
        await driver.move("u/1/data", "b/data", 0)
    await driver.put("u/1/data", b"")
    real = fcntl.flock

    def flock(fd: int, operation: int) -> None:
        if operation == fcntl.LOCK_EX and os.path.samestat(os.fstat(fd), (root / "u/1").stat()):
            (root / "u/1/data").rename(root / "u/1/other")
            (root / "u/1/data").write_bytes(b"")  # begun anew: of the right size, and still not what was asked for
        real(fd, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(ObjectNotFound):
        await driver.move("u/1/data", "b/c/data", 0)
    assert [info.key async for info in driver.list_objects("")] == ["u/1/data", "u/1/other"]


async def test_if_absent_against_those_who_take_no_lock(
    driver: FilesystemDriver, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.link

    def link(*args: Any, **kwargs: Any) -> None:
        (root / "a").write_bytes(b"distribution's")
        real(*args, **kwargs)

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(PreconditionFailed):
        await driver.put("a", b"ours", if_absent=True)
    assert (root / "a").read_bytes() == b"distribution's"


async def test_a_folder_that_never_stays_is_a_fault(
    driver: FilesystemDriver, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.rename

    def rename(*args: Any, **kwargs: Any) -> None:
        shutil.rmtree(root / "a")
        real(*args, **kwargs)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(Unavailable):
        await driver.put("a/b", b"")
    assert scratch_files(root) == []


async def test_if_absent_without_hard_links(
    driver: FilesystemDriver, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(*args: Any, **kwargs: Any) -> None:
        raise PermissionError(errno.EPERM, "a filesystem without them")

    monkeypatch.setattr(os, "link", link)
    await driver.put("a", b"1", if_absent=True)
    with pytest.raises(PreconditionFailed):
        await driver.put("a", b"2", if_absent=True)
    assert (root / "a").read_bytes() == b"1"


async def test_two_processes_lose_no_update(driver: FilesystemDriver, root: Path) -> None:
    await driver.put("a/counter", b"0")
    command = [sys.executable, __file__, "count", str(root), "100"]
    counters = [await asyncio.create_subprocess_exec(*command) for _ in range(2)]
    assert [await counter.wait() for counter in counters] == [0, 0]
    assert await driver.read("a/counter") == b"200"


async def _count(root: str, times: int) -> None:
    driver = FilesystemDriver(Path(root), scratch=SCRATCH)
    for _ in range(times):
        while True:
            version = (await driver.head("a/counter")).version
            value = int(await driver.read("a/counter"))
            with suppress(PreconditionFailed):
                await driver.put("a/counter", b"%d" % (value + 1), if_version=version)
                break
    await driver.aclose()


# Faults


@pytest.mark.parametrize("number", sorted(errno.errorcode))
def test_every_error_number_has_a_meaning(number: int) -> None:
    exc = OSError(number, os.strerror(number), "/var/lib/registry/secret")
    looking, making = translate(exc, "some/key"), translate(exc, None)
    if number in {errno.ENOSPC, errno.EDQUOT}:
        assert type(looking) is type(making) is StorageFull
    elif number in {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG}:
        assert isinstance(looking, ObjectNotFound)
        assert type(making) is Unavailable
    else:
        assert type(looking) is type(making) is Unavailable
    assert not any("/" in str(error) and "var/lib" in str(error) for error in (looking, making))


def test_an_error_without_a_number() -> None:
    assert type(translate(OSError("odd"), "key")) is Unavailable
    assert ABSENT.isdisjoint(FULL)


@pytest.mark.parametrize(
    "verb", ["open", "read", "head", "list_objects", "list_folders", "chunks", "put", "touch", "delete", "delete_tree"]
)
@pytest.mark.usefixtures("cold")
async def test_a_broken_disk_is_unavailable(
    driver: FilesystemDriver, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await driver.put("a/b", pattern(CHUNK + 1))
    reader = await driver.open("a/b")

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise OSError(errno.EIO, "broken", "/secret/path")

    async with reader:
        if verb == "chunks":
            monkeypatch.setattr("aiofiles.threadpool.binary.AsyncFileIO.read", broken)
            with pytest.raises(Unavailable):
                await anext(reader.chunks())
            return
        for name in ("open", "stat", "lstat", "scandir", "utime", "rename"):
            monkeypatch.setattr(os, name, broken)
        call: Awaitable[object]
        match verb:
            case "list_objects":
                call = anext(driver.list_objects("a"))
            case "list_folders":
                call = driver.list_folders("a")
            case "put":
                call = driver.put("a/b", b"")
            case _:
                call = getattr(driver, verb)("a/b")
        with pytest.raises(Unavailable) as caught:
            await call
        monkeypatch.undo()
    assert isinstance(caught.value.__cause__, OSError)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("call", "number", "verb"),
    [
        ("rename", errno.EACCES, lambda driver: driver.delete_tree("a")),
        ("rmdir", errno.EIO, lambda driver: driver.delete("a/b")),
        ("link", errno.EIO, lambda driver: driver.put("a/new", b"", if_absent=True)),
        ("stat", errno.EIO, lambda driver: driver.list_folders("", containing="b")),
        ("stat", errno.EIO, lambda driver: driver.list_folders("c")),
    ],
)
async def test_a_call_that_fails_is_unavailable(
    driver: FilesystemDriver, root: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int, verb: Any
) -> None:
    await driver.put("a/b", b"")
    (root / "c").mkdir()
    (root / "c/link").symlink_to(root / "a")

    def broken(*args: Any, **kwargs: Any) -> None:
        raise OSError(number, "broken")

    monkeypatch.setattr(os, call, broken)
    with pytest.raises(Unavailable):
        await verb(driver)


async def test_folders_that_cannot_be_synced(driver: FilesystemDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some network filesystems say EINVAL to that: they promise no more. Any other error counts."""
    real, number = os.fsync, errno.EINVAL

    def fsync(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(number, "no")
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    await driver.put("a/b", b"")
    number = errno.EIO
    with pytest.raises(Unavailable):
        await driver.put("a/b", b"")


@pytest.mark.usefixtures("cold")
async def test_an_object_that_changes_while_it_is_read(
    driver: FilesystemDriver, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Shrinking(io.FileIO):
        def read(self, size: int | None = -1, /) -> bytes:
            os.truncate(root / "a", 2)
            return super().read(-1 if size is None else size) or b""

    await driver.put("a", b"12345")
    monkeypatch.setattr(io, "FileIO", Shrinking)
    with pytest.raises(Unavailable, match="changes while it is read"):
        await driver.read("a")


async def test_an_object_that_got_shorter_is_unavailable(driver: FilesystemDriver, root: Path) -> None:
    await driver.put("a", pattern(3 * CHUNK))
    async with await driver.open("a") as reader:
        chunks = reader.chunks()
        await anext(chunks)
        os.truncate(root / "a", CHUNK + 5)
        assert len(await anext(chunks)) == 5
        with pytest.raises(Unavailable):
            await anext(chunks)


async def test_a_key_in_the_way_of_another(driver: FilesystemDriver, root: Path) -> None:
    """No layout does it; it must not look like something missing."""
    await driver.put("a/b", b"data")
    for key in ("a", "a/b/c", "x" * 300):
        with pytest.raises(Unavailable):
            await driver.put(key, b"")
        with pytest.raises(Unavailable):
            await driver.begin(key)
        with pytest.raises(Unavailable):
            await driver.move("a/b", key, 4)
    assert (root / "a/b").read_bytes() == b"data"
    assert scratch_files(root) == []


async def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    driver = FilesystemDriver(tmp_path / "file/root", scratch=SCRATCH)
    with pytest.raises(Unavailable, match=r"cannot write to .*file/root.*: not a directory"):
        await driver.check_writable()
    with pytest.raises(Unavailable) as caught:
        await driver.put("a", b"")
    assert "file" not in str(caught.value)
    await driver.aclose()


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    folder.mkdir()
    mount = shutil.which("mount")
    made = mount and subprocess.run([mount, "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], capture_output=True)
    if not made or made.returncode:
        pytest.skip(f"mounting a small disk needs root: {made.stderr.decode().strip() if made else 'no mount here'}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)  # also when a failed test has left a file open


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """4 MiB that can be filled."""
    with small_disk(tmp_path / "disk") as folder:
        yield folder


async def test_put_on_a_full_disk(disk: Path) -> None:
    driver = FilesystemDriver(disk, scratch=SCRATCH)
    await driver.put("a", pattern(CHUNK))
    with pytest.raises(StorageFull):
        await driver.put("a", pattern(5 * CHUNK))
    assert (disk / "a").read_bytes() == pattern(CHUNK)
    assert scratch_files(disk) == []
    await driver.put("a", pattern(2 * CHUNK))
    await driver.aclose()


async def test_append_on_a_full_disk(disk: Path) -> None:
    driver = FilesystemDriver(disk, scratch=SCRATCH)
    (disk / "ballast").write_bytes(bytes(CHUNK))
    data, tapped = pattern(5 * CHUNK), bytearray()
    stage = await driver.begin("u/data")
    chunks = (data[start : start + 700_001] for start in range(0, len(data), 700_001))
    with pytest.raises(StorageFull):
        await driver.append(stage, 0, pieces(*chunks), tapped.extend)
    stored = (await driver.stage_info(stage)).offset
    assert 0 < stored == len(tapped) < 3 * CHUNK, "in step, though the disk took a part of the last batch"
    assert (disk / "u/data").read_bytes() == tapped == data[:stored]
    with pytest.raises(StorageFull):
        await driver.append(stage, stored, pieces(*[data[stored:]]))
    (disk / "ballast").unlink()
    size = await driver.append(stage, stored, pieces(data[stored : 3 * CHUNK]))
    await driver.complete(stage, size)
    assert (disk / "u/data").read_bytes() == data[: 3 * CHUNK]
    await driver.aclose()


async def test_a_full_disk_can_be_emptied(disk: Path) -> None:
    driver = FilesystemDriver(disk, scratch=SCRATCH)
    await driver.put("a/b", b"")
    stage = await driver.begin("a/c")
    with pytest.raises(StorageFull):
        await driver.append(stage, 0, pieces(pattern(5 * CHUNK)))
    await driver.delete_tree("a")
    await driver.put("x", pattern(2 * CHUNK))
    await driver.aclose()


async def test_large_files_are_closed_in_a_thread(driver: FilesystemDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever closes a deleted file last waits until its blocks are freed."""
    closed_in = []

    class Noted(io.FileIO):
        def close(self) -> None:
            closed_in.append(threading.get_ident())
            super().close()

    await driver.put("a", pattern(2 * CHUNK))
    monkeypatch.setattr(io, "FileIO", Noted)
    async with await driver.open("a"):
        await driver.delete("a")
    assert closed_in != []
    assert threading.get_ident() not in closed_in


async def test_memory_for_an_append_is_bounded(driver: FilesystemDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one batch is being stored the next is received; a third is not begun."""
    loop, stalled, going_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
    real = GrowingFile.write

    def write(self: GrowingFile, *args: Any) -> int:
        loop.call_soon_threadsafe(stalled.set)
        going_on.wait()
        return real(self, *args)

    monkeypatch.setattr(GrowingFile, "write", write)
    given = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal given
        for _ in range(8):
            given += 1
            yield bytes(CHUNK)
            await asyncio.sleep(0)

    stage = await driver.begin("a")
    task = asyncio.create_task(driver.append(stage, 0, chunks()))
    async with asyncio.timeout(30):
        await stalled.wait()
    for _ in range(100):
        await asyncio.sleep(0)
    assert given == 2
    going_on.set()
    assert await task == 8 * CHUNK


async def test_a_cancelled_append_waits_for_the_batch_under_way(
    driver: FilesystemDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or its descriptor, closed and given to another file at once, would be written to."""
    loop, stalled, going_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
    real = GrowingFile.write

    def write(self: GrowingFile, *args: Any) -> int:
        loop.call_soon_threadsafe(stalled.set)
        going_on.wait()
        return real(self, *args)

    async def chunks() -> AsyncIterator[bytes]:
        yield bytes(CHUNK)
        await asyncio.Event().wait()

    monkeypatch.setattr(GrowingFile, "write", write)
    stage = await driver.begin("a")
    task = asyncio.create_task(driver.append(stage, 0, chunks()))
    async with asyncio.timeout(30):
        await stalled.wait()
    for _ in range(3):
        task.cancel()
        for _ in range(20):
            await asyncio.sleep(0)
        assert not task.done()
    going_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await driver.stage_info(stage)).offset == CHUNK


@pytest.mark.usefixtures("cold")
async def test_a_cancelled_reader_waits_for_the_read_under_way(
    driver: FilesystemDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or its descriptor, closed and given to another file at once, would be read from, and that file moved on."""
    loop, stalled, going_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    class Slow(io.FileIO):
        def read(self, size: int | None = -1, /) -> bytes:
            loop.call_soon_threadsafe(stalled.set)
            going_on.wait()
            return super().read(-1 if size is None else size) or b""

    await driver.put("a", b"12345")
    monkeypatch.setattr(io, "FileIO", Slow)
    async with await driver.open("a") as reader:
        task = asyncio.create_task(reader.read(10))
        async with asyncio.timeout(30):
            await stalled.wait()
        for _ in range(3):
            task.cancel()
            for _ in range(20):
                await asyncio.sleep(0)
            assert not task.done()
        going_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task


# Processes that are killed


async def test_leftovers_of_the_dead_are_removed_and_those_of_the_living_are_not(
    driver: FilesystemDriver, root: Path
) -> None:
    await driver.put("a", b"")
    [living] = (root / SCRATCH).iterdir()
    (living / "99").write_bytes(b"being written")
    dead = root / SCRATCH / "6f9619ff-8b86-4d01-b42d-00cf4fc964ff"
    (dead / "3/tree/deep").mkdir(parents=True)
    (dead / "3/tree/deep/file").write_bytes(b"")
    (dead / "2").write_bytes(b"half an obj")
    (dead / "lock").write_bytes(b"")
    unborn = root / SCRATCH / "7f9619ff-8b86-4d01-b42d-00cf4fc964ff"
    unborn.mkdir()
    foreign = root / SCRATCH / "notes"
    foreign.mkdir()
    other = FilesystemDriver(root, scratch=SCRATCH)
    await other.head("a")
    assert dead.exists(), "reading removes nothing"
    await other.put("b", b"")
    assert not dead.exists()
    assert not unborn.exists()
    assert foreign.exists()
    assert (living / "99").exists()
    await other.aclose()
    (living / "99").unlink()


async def test_a_cleaner_comes_between_a_folder_and_its_lock(
    driver: FilesystemDriver, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the new writer finds its lock file gone, and starts again."""
    real = fcntl.flock
    cleaned: list[list[str]] = []

    def flock(fd: int, operation: int) -> None:
        if not cleaned and os.readlink(f"/proc/self/fd/{fd}").endswith("/lock"):
            cleaned.append(os.listdir(root / SCRATCH))
            cleaner = Scratch(str(root), str(root / SCRATCH))
            cleaner.path()
            cleaned.append(os.listdir(root / SCRATCH))
            cleaner.close()
        real(fd, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    await driver.put("a", b"data")
    assert not set(cleaned[0]) & set(cleaned[1]), "the cleaner has taken the new folder away"
    assert (root / "a").read_bytes() == b"data"


def test_a_tree_is_removed_though_others_add_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, late = os.rmdir, [tmp_path / "a/b/late", tmp_path / "a/later"]

    def rmdir(path: str, **kwargs: Any) -> None:
        if late:
            late.pop().write_bytes(b"")
        real(path, **kwargs)

    (tmp_path / "a/b").mkdir(parents=True)
    monkeypatch.setattr(os, "rmdir", rmdir)
    remove_tree(str(tmp_path / "a"))
    assert not (tmp_path / "a").exists()
    remove_tree(str(tmp_path / "gone"))

    def never(path: str, **kwargs: Any) -> None:
        raise OSError(errno.ENOTEMPTY, "busy")

    (tmp_path / "c").mkdir()
    monkeypatch.setattr(os, "rmdir", never)
    with pytest.raises(OSError, match="busy"):
        remove_tree(str(tmp_path / "c"))


async def test_a_cleaner_comes_between_a_folder_and_its_lock_file(
    driver: FilesystemDriver, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / SCRATCH).mkdir(parents=True)
    real = os.mkdir
    removed: list[str] = []

    def mkdir(path: str, *args: Any, **kwargs: Any) -> None:
        real(path, *args, **kwargs)
        if not removed:
            removed.append(path)
            os.rmdir(path)

    monkeypatch.setattr(os, "mkdir", mkdir)
    await driver.put("a", b"data")
    assert (root / "a").read_bytes() == b"data"
    assert len(removed) == 1


async def test_leftovers_that_cannot_be_removed_do_not_matter(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    dead = root / SCRATCH / "6f9619ff-8b86-4d01-b42d-00cf4fc964ff"
    dead.mkdir(parents=True)
    (dead / "lock").write_bytes(b"")
    (dead / "1").write_bytes(b"")
    real = os.unlink

    def unlink(path: str, **kwargs: Any) -> None:
        if str(path).startswith(str(dead)):
            raise PermissionError(errno.EACCES, "of another user")
        real(path, **kwargs)

    monkeypatch.setattr(os, "unlink", unlink)
    driver = FilesystemDriver(root, scratch=SCRATCH)
    await driver.put("a", b"")
    assert "scratch" in caplog.text
    await driver.aclose()


@pytest.mark.slow
def test_killed_at_any_moment(root: Path) -> None:
    """200 kills: what was acknowledged is there, the verb under way has happened wholly or not at all."""
    dice = random.Random(7)
    state: dict[str, bytes] = {}
    halfway = 0
    with subprocess.Popen(
        [sys.executable, __file__, "crash", str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        for number in range(200):
            server.stdin.write(b"%d\n" % number)
            server.stdin.flush()
            under_way, acknowledged, pid, kill_after = None, 0, 0, dice.randrange(5)
            for line in server.stdout:
                told = json.loads(line)
                if told == "ended":
                    break
                if "pid" in told:
                    pid = told["pid"]
                elif "start" in told:
                    under_way = told["start"]
                else:
                    state, under_way, acknowledged = _after(state, under_way), None, acknowledged + 1
                if pid and acknowledged >= kill_after:
                    _spin(dice.random() * 0.003)
                    os.kill(pid, signal.SIGKILL)
                    pid = 0
            else:
                pytest.fail("the process that makes the victims has died")
            found = _on_disk(root)
            if under_way is not None and found != state:
                halfway += 1
                assert _may_be(found, state, under_way), (number, under_way)
            else:
                assert found == state, (number, under_way)
            state = found
            assert len(os.listdir(root / SCRATCH) if (root / SCRATCH).exists() else []) < 5
        server.stdin.close()
    assert halfway, "no kill came while something was under way: the test has lost its teeth"
    asyncio.run(_clean(root))


async def _clean(root: Path) -> None:
    driver = FilesystemDriver(root, scratch=SCRATCH)
    await driver.put("a", b"")
    assert len(os.listdir(root / SCRATCH)) == 1
    assert scratch_files(root) == []
    await driver.aclose()
    assert os.listdir(root / SCRATCH) == []


def _spin(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def _on_disk(root: Path) -> dict[str, bytes]:
    found = {str(path.relative_to(root)): path for path in root.rglob("*") if path.is_file()}
    return {key: path.read_bytes() for key, path in found.items() if not key.startswith(SCRATCH)}


def _after(state: dict[str, bytes], verb: Any) -> dict[str, bytes]:
    """The state once a verb is done."""
    name, key, *rest = verb
    state = dict(state)
    match name:
        case "put":
            state[key] = pattern(*rest)
        case "begin":
            state[key] = b""
        case "append":
            state[key] += pattern(*rest)
        case "delete":
            state.pop(key, None)
        case "delete_tree":
            state = {other: data for other, data in state.items() if not other.startswith(f"{key}/")}
        case "move":
            state[rest[0]] = state.pop(key)
    return state


def _may_be(found: dict[str, bytes], state: dict[str, bytes], verb: Any) -> bool:
    """Is this what a kill in the middle of the verb may leave, where it is not what was there before?"""
    whole = _after(state, verb)
    if verb[0] == "append":
        key = verb[1]
        return (
            found.keys() == whole.keys()
            and whole[key].startswith(found[key])
            and found[key].startswith(state[key])
            and all(found[other] == whole[other] for other in whole if other != key)
        )
    return found == whole


def _serve_crashes(root: str) -> None:
    """For each line on stdin, fork a victim that works until it is killed."""
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            asyncio.run(_be_killed(root, int(line)))
            os._exit(1)
        os.waitpid(pid, 0)
        _say("ended")


def _say(what: Any) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")


async def _be_killed(root: str, seed: int) -> None:
    dice = random.Random(seed)
    driver = FilesystemDriver(Path(root), scratch=SCRATCH)
    _say({"pid": os.getpid()})
    while True:
        key = f"k/{dice.randrange(3)}/{dice.randrange(4)}"
        match dice.randrange(6):
            case 0 | 1:
                await _do(driver, "put", key, dice.randrange(100_000), str(dice.random()))
            case 2:
                await _do(driver, "delete", key)
            case 3:
                await _do(driver, "delete_tree", dice.choice(["k/0", "k/1", "k", "b/1", "b"]))
            case _:
                await _upload(driver, dice)


async def _upload(driver: FilesystemDriver, dice: random.Random) -> None:
    number, size = dice.randrange(4), 0
    await _do(driver, "begin", f"u/{number}/data")
    for _ in range(3):
        length = dice.randrange(1_500_000)
        await _do(driver, "append", f"u/{number}/data", length, str(dice.random()), offset=size)
        size += length
    await _do(driver, "complete", f"u/{number}/data", size)
    await _do(driver, "move", f"u/{number}/data", f"b/{number}/data", size)


async def _do(driver: FilesystemDriver, name: str, key: str, *rest: Any, offset: int = 0) -> None:
    _say({"start": [name, key, *rest]})
    match name:
        case "put":
            await driver.put(key, pattern(*rest))
        case "append":
            data = pattern(*rest)
            chunks = (data[start : start + 300_000] for start in range(0, len(data), 300_000))
            await driver.append(Stage(key), offset, pieces(*chunks))
        case _:
            await getattr(driver, name)(key, *rest)
    _say({"done": True})


if __name__ == "__main__":
    if sys.argv[1] == "crash":
        _serve_crashes(sys.argv[2])
    else:
        asyncio.run(_count(sys.argv[2], int(sys.argv[3])))
