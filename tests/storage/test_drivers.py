"""The drivers that ship, each against the whole contract, and the table that makes them."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from storage.driver import StorageDriver
from storage.drivers.filesystem import FilesystemDriver
from storage.drivers.memory import MemoryDriver
from storage.testing import DriverContract

SCRATCH = "v2/_scratch"


class TestMemory(DriverContract):
    @pytest.fixture
    async def driver(self) -> AsyncIterator[StorageDriver]:
        driver = MemoryDriver()
        yield driver
        await driver.aclose()

    async def raw_read(self, driver: StorageDriver, key: str) -> bytes | None:
        assert isinstance(driver, MemoryDriver)
        found = driver._objects.get(key)
        return None if found is None else found.data

    async def raw_write(self, driver: StorageDriver, key: str, data: bytes) -> None:
        assert isinstance(driver, MemoryDriver)
        driver._store(key, data)


class TestFilesystem(DriverContract):
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        return tmp_path / "not" / "yet" / "there"

    @pytest.fixture
    async def driver(self, root: Path) -> AsyncIterator[StorageDriver]:
        driver = FilesystemDriver(root, scratch=SCRATCH)
        yield driver
        await driver.aclose()
        assert not (root / SCRATCH).exists() or os.listdir(root / SCRATCH) == []

    @pytest.fixture
    async def other(self, root: Path, driver: StorageDriver) -> AsyncIterator[StorageDriver]:
        other = FilesystemDriver(root, scratch=SCRATCH)
        yield other
        await other.aclose()

    async def leftovers(self, driver: StorageDriver) -> list[str]:
        root = driver.name.removeprefix("filesystem at ")
        lock = f"{root}/{SCRATCH}/"
        held = [
            os.readlink(f"/proc/self/fd/{fd}")
            for fd in os.listdir("/proc/self/fd")
            if os.path.exists(f"/proc/self/fd/{fd}")
        ]
        files = [str(path) for path in Path(root, SCRATCH).rglob("*") if path.is_file() and path.name != "lock"]
        return files + [path for path in held if path.startswith(root) and not path.startswith(lock)]

    async def raw_read(self, driver: StorageDriver, key: str) -> bytes | None:
        path = Path(driver.name.removeprefix("filesystem at "), key)
        return path.read_bytes() if path.is_file() else None

    async def raw_write(self, driver: StorageDriver, key: str, data: bytes) -> None:
        path = Path(driver.name.removeprefix("filesystem at "), key)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
