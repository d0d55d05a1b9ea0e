"""Every operation, with a fault at every call that it makes to the store, one after the other.

MOORAGE_SWEEP=all (`make crash`): every moment on the filesystem, too; else there those two which are most its own.
"""

import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from registry.app import create_app
from registry.config import Config
from registry.config.model import DeleteConfig, StorageConfig
from registry.serving.lifespan import lifespan
from storage import drivers, layout
from storage.content import ContentStore
from storage.driver import StorageDriver
from storage.drivers.filesystem import FilesystemDriver
from storage.drivers.memory import MemoryDriver
from storage.purge import purge_uploads
from tests.api import Api

from .faulty import Fault, FaultyDriver
from .operations import OPERATIONS, Calm, Client, Current, Operation

MOMENTS: dict[str, Callable[[int], Fault]] = {
    "before": lambda call: Fault(call),
    "after": lambda call: Fault(call, "after"),
    "halfway": lambda call: Fault(call, "halfway"),
    "outage": lambda call: Fault(call, lasting=True),
    "crash": lambda call: Fault(call, lasting=True, crash=True),
    "full": lambda call: Fault(call, lasting=True, full=True),
}


FILESYSTEM_MOMENTS = MOMENTS if os.environ.get("MOORAGE_SWEEP") == "all" else ("after", "full")
WHERE = [
    *(pytest.param(MemoryDriver, moment, id=f"inmemory-{moment}") for moment in MOMENTS),
    *(pytest.param(FilesystemDriver, moment, id=f"filesystem-{moment}") for moment in FILESYSTEM_MOMENTS),
]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "moment"), WHERE)
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
async def test_a_fault_at_every_call(
    operation: Operation, kind: type[StorageDriver], moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    while await meets_fault(operation, MOMENTS[moment](calls + 1), new_store(kind, tmp_path / str(calls)), monkeypatch):
        calls += 1
    if moment not in ("halfway", "full"):
        assert calls >= 3, "the sweep has swept nothing"


def new_store(kind: type[StorageDriver], folder: Path) -> StorageDriver:
    return FilesystemDriver(folder, scratch=layout.SCRATCH) if kind is FilesystemDriver else MemoryDriver()


async def meets_fault(
    operation: Operation, fault: Fault, store: StorageDriver, monkeypatch: pytest.MonkeyPatch
) -> bool:
    """Run the operation with the fault; was it met?"""
    driver, current = FaultyDriver(store), Current()
    monkeypatch.setitem(drivers._BUILT_IN, "faulty", lambda parameters: driver)
    config = Config(storage=StorageConfig(driver="faulty", parameters={}, delete=DeleteConfig(enabled=True)))
    async with AsyncExitStack() as stack:

        async def start() -> None:
            """A registry that knows what is stored, and nothing else."""
            app = create_app(config)
            await stack.enter_async_context(lifespan(app))
            current.inner = httpx.ASGITransport(app)

        await start()
        http, calm = [
            await stack.enter_async_context(httpx.AsyncClient(transport=way, base_url="http://registry"))
            for way in (current, Calm(current, driver))
        ]
        client = Client(
            http, Api(calm), driver, operation, expected_status(operation, fault), start if fault.crash else None
        )
        if operation.prepare is not None:
            await operation.prepare(client)
        driver.fault = fault
        await operation.run(client)
        driver.fault = None
        await client.check_whole()
        await nothing_is_left(store)
        return client.met


def expected_status(operation: Operation, fault: Fault) -> int | None:
    if fault.full:
        return None if operation.reads else 507
    return 503


async def nothing_is_left(store: StorageDriver) -> None:
    """I6: what the fault has left can be purged, and then no session and no scratch file is there."""
    await purge_uploads(ContentStore(store), age=-1.0)
    keys = [info.key async for info in store.list_objects("")]
    assert not [key for key in keys if f"/{layout.UPLOADS_FOLDER}/" in key]
    if isinstance(store, FilesystemDriver):
        scratch = Path(store._tree.root, layout.SCRATCH)
        assert [path.name for path in scratch.rglob("*") if path.is_file()] in ([], ["lock"])
