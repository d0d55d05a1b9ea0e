"""Repositories over a driver that tells of every call, on each built-in driver."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from storage import layout
from storage.content import ContentStore
from storage.driver import StorageDriver
from storage.drivers.filesystem import FilesystemDriver
from storage.drivers.memory import MemoryDriver
from storage.local import LocalRepository
from tests.storage.spying import NAME, DearMemory, Record, Spied

EAGER = pytest.mark.parametrize("backing", ["memory", "filesystem"], indirect=True)
"""For the order of calls where they are cheap; test_thrifty_*.py have it for where they are dear."""


@pytest.fixture(params=["memory", "filesystem", "dear"])
async def backing(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[StorageDriver]:
    """The store itself: behind the back of the repositories."""
    if request.param == "filesystem":
        driver: StorageDriver = FilesystemDriver(tmp_path / "data", scratch=layout.SCRATCH)
    else:
        driver = DearMemory() if request.param == "dear" else MemoryDriver()
    yield driver
    await driver.aclose()


@pytest.fixture
def record() -> Record:
    """Every call of `content`."""
    return Record()


@pytest.fixture
def content(backing: StorageDriver, record: Record) -> ContentStore:
    return ContentStore(Spied(backing, record))


@pytest.fixture
def repository(content: ContentStore) -> LocalRepository:
    return content.repository(NAME)


@pytest.fixture
def elsewhere_record() -> Record:
    """Every call of `elsewhere`."""
    return Record()


@pytest.fixture
def elsewhere(backing: StorageDriver, elsewhere_record: Record) -> LocalRepository:
    """The same repository in another process: it shares the store, and nothing that is kept in memory."""
    return ContentStore(Spied(backing, elsewhere_record)).repository(NAME)
