"""A registry with users: in-process, and behind a socket."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import bcrypt
import httpx
import pytest

from registry.app import create_app
from registry.config import Config
from registry.config.model import AuthConfig, DeleteConfig, HtpasswdConfig, StorageConfig
from registry.serving.lifespan import lifespan
from registry.serving.server import RunningServer, running
from tests.api import Api

USERS = {"alice": "alice's password", "bob": "bob's password"}


@pytest.fixture
def storage_config() -> StorageConfig:
    """Who may do what is decided before storage: one driver is enough."""
    return StorageConfig(driver="inmemory", parameters={}, delete=DeleteConfig(enabled=True))


@pytest.fixture(scope="session")
def htpasswd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Never changed by a test."""
    path = tmp_path_factory.mktemp("users") / "htpasswd"
    lines = (f"{user}:{bcrypt.hashpw(word.encode(), bcrypt.gensalt(4)).decode()}\n" for user, word in USERS.items())
    path.write_text("".join(lines))
    return path


@pytest.fixture
def secured(storage_config: StorageConfig, htpasswd: Path) -> Config:
    return Config(storage=storage_config, auth=AuthConfig(htpasswd=HtpasswdConfig(path=str(htpasswd))))


@pytest.fixture
async def anon(secured: Config) -> AsyncIterator[Api]:
    """A registry that asks for a password, and a client that has none."""
    app = create_app(secured)
    transport = httpx.ASGITransport(app)
    async with lifespan(app), httpx.AsyncClient(transport=transport, base_url="http://registry") as client:
        yield Api(client)


@pytest.fixture
async def alice(anon: Api) -> AsyncIterator[Api]:
    async with as_user(anon, "alice") as client:
        yield Api(client)


@pytest.fixture
async def bob(anon: Api) -> AsyncIterator[Api]:
    async with as_user(anon, "bob") as client:
        yield Api(client)


def as_user(anon: Api, name: str) -> httpx.AsyncClient:
    """The same registry, asked by a user."""
    return httpx.AsyncClient(transport=anon.http._transport, base_url="http://registry", auth=(name, USERS[name]))


@pytest.fixture
def live(secured: Config) -> Iterator[RunningServer]:
    with running(create_app(secured), secured) as server:
        yield server


def without_users(config: Config) -> Config:
    return replace(config, auth=AuthConfig())
