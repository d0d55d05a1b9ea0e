"""Fixtures: scripted upstreams, Upstream objects that ask them without waiting between attempts, and fetches from them.

`driver` is a store that shows its stages, and one that hides them.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from registry.config.upstreams import UpstreamConfig
from registry.proxy.fetches import Fetches
from registry.proxy.patience import Deadlines
from registry.proxy.repository import UpstreamRepository
from registry.proxy.upstream import Upstream
from storage import layout
from storage.driver import StorageDriver
from storage.drivers.filesystem import FilesystemDriver
from storage.drivers.memory import MemoryDriver
from storage.names import parse_name

from .fetching import no_sleep, uploads
from .scripted import Scripted, scripted

FAST = Deadlines(connect=2.0, first_byte=0.15, answer=2.0, rate=1000.0, window=0.15)
"""For tests of what never comes."""

PATIENT = Deadlines(connect=10.0, first_byte=30.0, answer=30.0, rate=1.0, window=30.0)

Ask = Callable[..., UpstreamRepository]


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the machine's environment says must not lead tests elsewhere."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
async def hub() -> AsyncIterator[Scripted]:
    async with scripted() as found:
        yield found


@pytest.fixture
async def other() -> AsyncIterator[Scripted]:
    """A second server: a CDN, a token server, somebody evil."""
    async with scripted() as found:
        yield found


@pytest.fixture
async def connect(clock: Clock) -> AsyncIterator[Callable[..., Upstream]]:
    """Makes upstreams that are closed afterwards. `slept` of each is how long it waited between attempts."""
    async with AsyncExitStack() as stack:

        def make(hub: Scripted, **settings: Any) -> Upstream:
            more = {key: settings.pop(key) for key in ("deadlines", "source", "environ") if key in settings}

            async def pass_time(seconds: float) -> None:
                clock.now += seconds

            config = replace(UpstreamConfig(url=hub.url), **settings)
            upstream = Upstream(
                config, **{"deadlines": PATIENT, **more}, clock=clock, draw=lambda: 1.0, sleep=pass_time
            )
            stack.push_async_callback(upstream.aclose)
            return upstream

        yield make


@pytest.fixture
def ask(connect: Callable[..., Upstream]) -> Ask:
    """The repository a/b of an upstream with these settings."""

    def make(hub: Scripted, name: str = "a/b", **settings: Any) -> UpstreamRepository:
        return UpstreamRepository(connect(hub, **settings), parse_name(name))

    return make


@pytest.fixture(params=["memory", "filesystem"])
async def driver(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[StorageDriver]:
    made = MemoryDriver() if request.param == "memory" else FilesystemDriver(tmp_path / "data", scratch=layout.SCRATCH)
    yield made
    await made.aclose()


@pytest.fixture
async def fetches(driver: StorageDriver, tmp_path: Path, clock: Clock) -> AsyncIterator[Fetches]:
    """Nothing may stay behind: no fetch, no upload, no temporary file."""
    folder = tmp_path / "spool"
    folder.mkdir()
    made = Fetches(driver, fresh=3600.0, folder=str(folder), sleep=no_sleep, clock=clock)
    yield made
    await made.aclose()
    assert not len(made)
    assert not list(folder.iterdir())
    assert not await uploads(driver)
