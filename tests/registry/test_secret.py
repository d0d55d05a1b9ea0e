"""The secret that signs upload sessions: configured, found, or made once."""

import asyncio
import stat
from pathlib import Path

import pytest

from registry.secret import UploadSecret
from storage import layout
from storage.driver import StorageDriver
from storage.drivers.filesystem import FilesystemDriver
from storage.drivers.memory import MemoryDriver
from storage.errors import ObjectNotFound, Unavailable


@pytest.fixture
def driver() -> MemoryDriver:
    return MemoryDriver()


async def stored(driver: StorageDriver) -> bytes:
    return await driver.read(layout.SECRET)


async def test_a_configured_one_is_used_and_not_stored(driver: MemoryDriver) -> None:
    assert await UploadSecret("sécret", driver)() == "sécret".encode()
    with pytest.raises(ObjectNotFound):
        await stored(driver)


async def test_one_is_made_at_the_first_call_and_stays(driver: MemoryDriver) -> None:
    secret = UploadSecret("", driver)
    with pytest.raises(ObjectNotFound):
        await stored(driver)
    made = await secret()
    assert len(made) >= 32
    assert made == await secret() == await stored(driver) == await UploadSecret("", driver)()


async def test_first_calls_of_many_processes_agree(driver: MemoryDriver) -> None:
    answers = await asyncio.gather(*(UploadSecret("", driver)() for _ in range(16)))
    assert set(answers) == {await stored(driver)}


async def test_stores_differ(driver: MemoryDriver) -> None:
    assert await UploadSecret("", driver)() != await UploadSecret("", MemoryDriver())()


@pytest.mark.parametrize("damaged", [b"", b"short"])
async def test_s22_a_damaged_one_is_never_signed_with(driver: MemoryDriver, damaged: bytes) -> None:
    """An empty key would let everybody sign."""
    await driver.put(layout.SECRET, damaged)
    made = await UploadSecret("", driver)()
    assert len(made) >= 32
    assert made == await stored(driver)


async def test_a_fault_of_the_store_makes_no_other_secret(driver: MemoryDriver) -> None:
    await driver.put(layout.SECRET, b"x" * 5000)
    with pytest.raises(Unavailable):
        await UploadSecret("", driver)()
    assert await stored(driver) == b"x" * 5000


async def test_nobody_else_may_read_the_file(tmp_path: Path) -> None:
    driver = FilesystemDriver(tmp_path, scratch=layout.SCRATCH)
    await UploadSecret("", driver)()
    await driver.aclose()
    assert stat.S_IMODE((tmp_path / layout.SECRET).stat().st_mode) == 0o600
