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
from tests.storage.spying import NAME, Record, Spied


@pytest.fixture(params=["memory", "filesystem"])
async def backing(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[StorageDriver]:
    """The store itself: behind the back of the repositories."""
    memory = request.param == "memory"
    driver = MemoryDriver() if memory else FilesystemDriver(tmp_path / "data", scratch=layout.SCRATCH)
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
