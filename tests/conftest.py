"""Fixtures for tests of the application: in-process over httpx, on each built-in driver."""

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx
import pytest

from registry.app import create_app
from registry.config import Config
from registry.config.model import DeleteConfig, MaintenanceConfig, ReadOnlyConfig, StorageConfig
from registry.serving.lifespan import lifespan
from registry.watching.logs import ACCESS
from tests.api import Api
from tests.s3.servers import minio as minio  # fixtures that start a server when a test first asks
from tests.s3.servers import moto as moto
from tests.s3.servers import s3_server as s3_server
from tests.s3.servers import seaweedfs as seaweedfs

Connect = Callable[[Config], "AsyncIterator[Api]"]


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """A command that a test runs in-process sets up logging; the tests behind it must not be deaf to warnings."""
    root, access = logging.getLogger(), logging.getLogger(ACCESS)
    level, handlers = root.level, root.handlers[:]
    yield
    for handler in root.handlers[:]:
        if handler not in handlers:
            root.removeHandler(handler)
    root.setLevel(level)
    access.disabled = False


@pytest.fixture(params=["inmemory", "filesystem"])
def storage_config(request: pytest.FixtureRequest, tmp_path: Path) -> StorageConfig:
    """Storage with deletes on, as most tests want it."""
    parameters = {"rootdirectory": str(tmp_path / "data")} if request.param == "filesystem" else {}
    return StorageConfig(driver=request.param, parameters=parameters, delete=DeleteConfig(enabled=True))


@pytest.fixture
def config(storage_config: StorageConfig) -> Config:
    """Overridden by modules that need other settings."""
    return Config(storage=storage_config)


@pytest.fixture
async def api(config: Config) -> AsyncIterator[Api]:
    """The registry in-process: for status, headers and bodies. Streaming and disconnects need a socket."""
    app = create_app(config)
    async with (
        lifespan(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://registry") as client,
    ):
        yield Api(client)


def read_only(storage: StorageConfig) -> StorageConfig:
    """The same store, read-only."""
    return StorageConfig(
        driver=storage.driver,
        parameters=storage.parameters,
        delete=storage.delete,
        maintenance=MaintenanceConfig(readonly=ReadOnlyConfig(enabled=True)),
    )
