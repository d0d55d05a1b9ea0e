"""Purging abandoned uploads: by the time that nobody has touched them, and nothing else."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from storage import layout
from storage.content import ContentStore
from storage.digest import Digest
from storage.drivers.filesystem import FilesystemDriver
from storage.drivers.memory import MemoryDriver
from storage.errors import Unavailable, UploadUnknown
from storage.names import parse_name
from storage.purge import Purged, purge_uploads
from storage.repository import UploadSession
from tests.api import in_pieces
from tests.storage.spying import NAME, Record, Spied, push_blob, read_blob

HOUR = 3600.0
DAY = 24 * HOUR


class Later(MemoryDriver):
    """A store whose clock a test sets; what was written keeps the time at which it was."""

    passed = 0.0

    async def now(self) -> float:
        return await super().now() + self.passed

    def age(self, session: UploadSession, seconds: float) -> None:
        """Let all of a session be older."""
        folder = layout.upload(NAME, session.id)
        for key, found in self._objects.items():
            if key.startswith(folder):
                found.modified -= seconds
        for stage, growing in self._stages.items():
            if stage.startswith(folder):
                growing.modified -= seconds


@pytest.fixture
async def driver() -> AsyncIterator[Later]:
    driver = Later()
    yield driver
    await driver.aclose()


@pytest.fixture
def content(driver: Later) -> ContentStore:
    return ContentStore(driver)


async def start(content: ContentStore, data: bytes = b"12345") -> UploadSession:
    repository = content.repository(NAME)
    return await repository.append_upload(await repository.start_upload(), in_pieces(data))


async def is_there(content: ContentStore, session: UploadSession) -> bool:
    try:
        await content.repository(NAME).upload_status(session)
    except UploadUnknown:
        return False
    return True


async def test_only_the_idle_ones_go(content: ContentStore, driver: Later) -> None:
    old, young = await start(content), await start(content)
    driver.age(old, 2 * DAY)
    assert await purge_uploads(content, DAY) == Purged(1, 5)
    assert not await is_there(content, old)
    assert await is_there(content, young)
    assert await purge_uploads(content, DAY) == Purged(0, 0)
    assert await purge_uploads(content, 0.0) == Purged(1, 5)
    assert [info.key async for info in driver.list_objects(layout.uploads(NAME))] == []


async def test_a_slow_upload_is_not_abandoned(content: ContentStore, driver: Later) -> None:
    """It was started long ago, and has just had another chunk."""
    session = await start(content)
    driver.age(session, 30 * DAY)
    session = await content.repository(NAME).append_upload(session, in_pieces(b"6"))
    assert await purge_uploads(content, DAY) == Purged(0, 0)
    await content.repository(NAME).finish_upload(session, Digest.of(b"123456"), in_pieces())
    assert await read_blob(content.repository(NAME), Digest.of(b"123456")) == b"123456"


async def test_by_the_clock_of_the_store(content: ContentStore, driver: Later) -> None:
    session = await start(content)
    driver.passed = -5 * DAY
    assert await purge_uploads(content, HOUR) == Purged(0, 0)
    driver.passed = 5 * DAY
    assert await purge_uploads(content, HOUR) == Purged(1, 5)
    assert not await is_there(content, session)


async def test_a_dry_run_says_and_does_nothing(
    content: ContentStore, driver: Later, caplog: pytest.LogCaptureFixture
) -> None:
    session = await start(content)
    driver.age(session, DAY)
    caplog.set_level("INFO")
    assert await purge_uploads(content, HOUR, dry_run=True) == Purged(1, 5)
    assert await is_there(content, session)
    assert vars(caplog.records[0])["dryrun"] is True


async def test_everything_else_stays(content: ContentStore, driver: Later) -> None:
    digest = await push_blob(content.repository(NAME), b"a blob")
    await push_blob(content.repository(parse_name("b")), b"a blob")
    before = {info.key async for info in driver.list_objects("")}
    session = await start(content)
    driver.passed = 365 * DAY
    assert await purge_uploads(content, DAY) == Purged(1, 5)
    assert {info.key async for info in driver.list_objects("")} == before
    assert not await is_there(content, session)
    assert await read_blob(content.repository(NAME), digest) == b"a blob"


async def test_halves_of_sessions_go_too(content: ContentStore, driver: Later) -> None:
    """What a crash has left: only the start, or only data; and what distribution keeps beside them."""
    for key in ("1/startedat", "2/data", "3/startedat", "3/hashstates/sha256/0", "not-a-uuid/x"):
        await driver.put(f"{layout.uploads(NAME)}/{key}", b"x")
    driver.passed = 2 * DAY
    purged = await purge_uploads(content, DAY)
    assert purged.sessions == 4
    assert [info.key async for info in driver.list_objects(layout.uploads(NAME))] == []


async def test_a_fault_is_raised_and_the_rest_goes_next_time(driver: Later) -> None:
    record = Record()
    content = ContentStore(Spied(driver, record))
    sessions = [await start(content) for _ in range(3)]
    driver.passed = 2 * DAY
    record.failing["delete_tree", sorted(s.id for s in sessions)[1]] = Unavailable("the disk is gone")
    with pytest.raises(Unavailable):
        await purge_uploads(content, DAY)
    record.failing.clear()
    assert (await purge_uploads(content, DAY)).sessions == 2
    assert not any([await is_there(content, session) for session in sessions])


async def test_on_a_disk(tmp_path: Path) -> None:
    driver = FilesystemDriver(tmp_path, scratch=layout.SCRATCH)
    content = ContentStore(driver)
    old, young = await start(content), await start(content)
    folder = tmp_path / layout.upload(NAME, old.id)
    for path in folder.iterdir():
        os.utime(path, (1, 1))
    (tmp_path / layout.uploads(NAME) / "not a key").mkdir()
    assert await purge_uploads(content, DAY) == Purged(1, 5)
    assert not folder.exists()
    assert await is_there(content, young)
    await driver.aclose()
