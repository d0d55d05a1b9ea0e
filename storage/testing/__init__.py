"""DriverContract: every sentence of storage/driver.py as a test, for ours and for other people's drivers.

    class TestMyDriver(DriverContract):
        @pytest.fixture
        async def driver(self):
            driver = MyDriver()
            yield driver
            await driver.aclose()

        async def raw_read(self, driver, key): ...        # behind the driver's back: what the store itself holds
        async def raw_write(self, driver, key, data): ...

Needs pytest and pytest-asyncio in auto mode; docs/drivers.md has the rest. Tests are deterministic: they wait for
events and count turns of the loop, and never for time to pass.
"""

from storage.testing.appending import AppendContract
from storage.testing.content import ContentContract
from storage.testing.listing import ListingContract
from storage.testing.reading import ReadingContract
from storage.testing.stages import StageContract
from storage.testing.writing import WritingContract

__all__ = [
    "AppendContract",
    "ContentContract",
    "DriverContract",
    "ListingContract",
    "ReadingContract",
    "StageContract",
    "WritingContract",
]


class DriverContract(ReadingContract, ListingContract, WritingContract, StageContract, AppendContract, ContentContract):
    """All of it; see the head of this module for how to use it."""
