"""Fixtures of the negative table: the world in-process, and the world behind a socket."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from registry.app import create_app
from registry.config import Config
from registry.config.model import DeleteConfig, StorageConfig
from registry.serving.server import RunningServer, running
from tests.api import Api
from tests.behaviour.table import Wire, World

Live = tuple[RunningServer, Path | None]


def root_of(storage: StorageConfig) -> Path | None:
    root = storage.parameters.get("rootdirectory")
    return Path(str(root)) if root else None


@pytest.fixture
async def world(api: Api, storage_config: StorageConfig) -> World:
    return await World(api, root_of(storage_config)).begin()


@pytest.fixture(scope="module", params=["inmemory", "filesystem"])
def live(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """One server for a module: its bad requests leave nothing behind, as each test checks."""
    folder = str(tmp_path_factory.mktemp("live") / "data")
    parameters = {"rootdirectory": folder} if request.param == "filesystem" else {}
    storage = StorageConfig(driver=request.param, parameters=parameters, delete=DeleteConfig(enabled=True))
    config = Config(storage=storage)
    with running(create_app(config), config) as server:
        yield server, root_of(storage)


@pytest.fixture
async def wire(live: Live) -> AsyncIterator[Wire]:
    server, root = live
    # verify: there is no TLS here, and reading the system's certificates for each test takes 30 ms
    async with httpx.AsyncClient(base_url=server.url, verify=False) as client:
        yield Wire(server, await World(Api(client), root).begin())
