"""The drivers that ship, each against the whole contract, and the table that makes them."""

import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from types import ModuleType

import pytest

from storage import drivers, layout
from storage.driver import StorageDriver
from storage.drivers.filesystem import FilesystemDriver
from storage.drivers.memory import MemoryDriver
from storage.testing import DriverContract

ROOT = Path(__file__).parents[2]
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


EXAMPLE, EXAMPLE_TEST = re.findall(r"```python\n(.*?)```", (ROOT / "docs/drivers.md").read_text(), re.DOTALL)


def module_of(name: str, text: str) -> ModuleType:
    module = ModuleType(name)
    sys.modules[name] = module
    exec(compile(text, f"docs/drivers.md ({name})", "exec"), module.__dict__)
    return module


prefix_driver = module_of("prefix_driver", EXAMPLE)
TestExampleOfTheDocs = module_of("test_prefix_driver", EXAMPLE_TEST).TestPrefixDriver


# The table


def test_the_built_in_drivers(tmp_path: Path) -> None:
    assert drivers.known() == ["filesystem", "inmemory", "s3", "s3aws"]
    assert isinstance(drivers.create("inmemory", {}), MemoryDriver)
    driver = drivers.create("filesystem", {"rootdirectory": str(tmp_path / "data"), "maxthreads": 2})
    assert isinstance(driver, FilesystemDriver)
    assert driver.name == f"filesystem at {tmp_path}/data"
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("name", ["s3", "s3aws"])
async def test_s3_asks_nothing_before_it_has_to(name: str) -> None:
    driver = drivers.create(name, {"bucket": "bkt", "regionendpoint": "http://127.0.0.1:1"})
    assert driver.name == "s3 bucket bkt"
    await driver.aclose()


def test_s3_says_which_packages_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drivers, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=re.escape("pip install 'moorage[s3]'")):
        drivers.create("s3", {"bucket": "bkt", "region": "eu-west-1"})


async def test_scratch_files_lie_where_the_layout_says(tmp_path: Path) -> None:
    driver = drivers.create("filesystem", {"rootdirectory": tmp_path})
    await driver.check_writable()
    assert len(os.listdir(tmp_path / layout.SCRATCH)) == 1
    await driver.aclose()


@pytest.mark.parametrize(
    ("name", "parameters", "text"),
    [
        ("s4", {}, "there is no storage driver 's4'; known here: filesystem, inmemory"),
        ("filesystem", {"rootdirectory": ""}, "rootdirectory must be a path, not ''"),
        ("filesystem", {"rootdirectory": 5}, "rootdirectory must be a path, not 5"),
        ("filesystem", {"scratch": None}, "scratch must be a key, not None"),
        ("filesystem", {"scratch": "../x"}, "not a storage key: '../x'"),
        ("filesystem", {"maxthreads": 0}, "maxthreads must be a number from 1, not 0"),
        ("filesystem", {"maxthreads": True}, "maxthreads must be a number from 1, not True"),
        ("filesystem", {"rootdir": "/x", "colour": 1}, "no such parameter: colour, rootdir"),
        ("inmemory", {"size": 1}, "no such parameter: size"),
        ("s3", {"region": "r"}, "storage driver s3: bucket is missing"),
        ("s3", {"bucket": "b", "regionendpoint": "ftp://h"}, "storage driver s3: regionendpoint must be a URL"),
        ("prefix", {"below": 1}, "`below` and `driver` must be text"),
        ("broken", {}, r"the storage driver 'broken' (nowhere:create) cannot be loaded: No module named 'nowhere'"),
    ],
)
def test_what_cannot_be_made(
    name: str, parameters: dict[str, object], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name != "s4":
        register(monkeypatch)
    with pytest.raises(ValueError, match=re.escape(text)):
        drivers.create(name, parameters)


async def test_a_third_partys_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch)
    assert drivers.known() == ["broken", "filesystem", "inmemory", "prefix", "s3", "s3aws"]
    driver = drivers.create("prefix", {"below": "team-a", "rootdirectory": str(tmp_path)})
    await driver.put("a", b"data")
    assert (tmp_path / "team-a/a").read_bytes() == b"data"
    await driver.aclose()
    assert isinstance(drivers.create("inmemory", {}), MemoryDriver), "a built-in name cannot be taken over"


def register(monkeypatch: pytest.MonkeyPatch) -> None:
    """Entry points as installed packages would bring them."""
    found = EntryPoints(
        EntryPoint(name, value, drivers.GROUP)
        for name, value in [
            ("prefix", "prefix_driver:create_prefix_driver"),
            ("broken", "nowhere:create"),
            ("inmemory", "nowhere:create"),
        ]
    )
    monkeypatch.setattr(drivers, "entry_points", lambda group: found.select(group=group))


def test_drivers_are_imported_when_they_are_asked_for() -> None:
    code = "import sys, storage.drivers; print([name for name in sys.modules if name.startswith('storage.drivers.')])"
    assert subprocess.check_output([sys.executable, "-c", code]) == b"[]\n"
