"""What is left of an upstream's rate limit: known, told once per step, and spared; F26 of the design."""

import asyncio
import logging
import random
from collections import Counter
from pathlib import Path

import httpx
import pytest

from registry.app import create_app
from registry.config import Config
from registry.config.model import StorageConfig
from registry.config.upstreams import UpstreamConfig
from registry.proxy.limits import SLOWEST, WINDOW, Budget, RateLimit, slowed, warning_of
from registry.serving.lifespan import lifespan
from storage.errors import TooManyRequests
from storage.names import Tag
from tests.api import digest_of, error_of

from . import scripted as act
from .conftest import Ask, Clock
from .scripted import Exchange, Scripted, manifest

LATEST = Tag("latest")


class Meter:
    """Counts as Docker Hub does: a GET of a manifest costs one, a HEAD nothing."""

    def __init__(self, budget: int) -> None:
        self.limit = self.left = budget
        self.refused = 0

    async def __call__(self, exchange: Exchange) -> None:
        if "/manifests/" in exchange.seen.target:
            if exchange.seen.method == "GET" and not self.left:
                self.refused += 1
                await exchange.error(429, "TOOMANYREQUESTS", **self.fields)
                return
            self.left -= exchange.seen.method == "GET"
            exchange.hub.rate = self.fields
        await act.serve(exchange)

    @property
    def fields(self) -> dict[str, str]:
        return {"RateLimit_Limit": f"{self.limit};w=21600", "RateLimit_Remaining": f"{self.left};w=21600"}


@pytest.mark.parametrize(
    ("ttl", "left", "expected"),
    [
        (3600.0, None, 3600.0),
        (3600.0, 1.0, 3600.0),
        (3600.0, 0.5, 3600.0),
        (3600.0, 0.49, 7200.0),
        (3600.0, 0.1, 7200.0),
        (3600.0, 0.09, 36000.0),
        (3600.0, 0.0, 36000.0),
        (0.0, 0.5, 0.0),
        (0.0, 0.4, 120.0),
        (0.0, 0.0, 600.0),
        (12 * 3600.0, 0.0, SLOWEST),
        (7 * SLOWEST, 0.0, 7 * SLOWEST),
    ],
)
def test_slowed(ttl: float, left: float | None, expected: float) -> None:
    assert slowed(ttl, left) == expected


def test_each_step_is_news_once(clock: Clock) -> None:
    budget = Budget(clock)
    assert budget.left is None
    news = [left for left in range(100, -1, -1) if budget.told(RateLimit(100, left))]
    assert news == [49, 9, 0]
    for left in (0, 1, 0, 3, 0, 10, 9, 11, 9, 12, 0):  # a window that slides
        assert not budget.told(RateLimit(100, left)) or left == 0
    assert [left for left in (60, 49, 70, 45) if budget.told(RateLimit(100, left))] == []
    assert [left for left in (90, 49, 22, 9) if budget.told(RateLimit(100, left))] == [49, 9]


def test_what_is_known_gets_old(clock: Clock) -> None:
    budget = Budget(clock)
    budget.told(RateLimit(100, 5, 60))
    assert budget.left == 0.05
    clock.now += 60
    assert budget.left is None
    budget.told(RateLimit(100, 5))
    clock.now += WINDOW - 1
    assert budget.last == RateLimit(100, 5)
    clock.now += 1
    assert budget.last is None


@pytest.mark.parametrize(
    ("found", "left"),
    [
        (RateLimit(None, 7), None),
        (RateLimit(100, None), None),
        (RateLimit(0, 7), None),
        (RateLimit(None, 0), 0.0),
        (RateLimit(0, 0), 0.0),
        (RateLimit(100, 250), 1.0),
    ],
)
def test_odd_limits(clock: Clock, found: RateLimit, left: float | None) -> None:
    budget = Budget(clock)
    assert budget.told(found) == (left == 0.0)
    assert budget.left == left


def test_the_warning_says_what_to_do() -> None:
    assert "pull 9 of 100 more in 6 h" in warning_of(RateLimit(100, 9, 21600), "")
    assert warning_of(RateLimit(100, 9), "").endswith("log in there (settings: username, passwordfile)")
    assert warning_of(RateLimit(None, 0, 60), "carol").endswith("use an account that may pull more")


async def test_the_log_says_it_once(hub: Scripted, ask: Ask, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever asks, for whatever manifest: a HEAD tells it, too."""
    meter = Meter(20)
    hub.on("*", "/v2/", meter)
    hub.image("a/b", "latest")
    repository = ask(hub)
    with caplog.at_level(logging.WARNING, "registry.proxy"):
        for _ in range(20):
            await repository.get_manifest(LATEST)
            await repository.head_manifest(LATEST)
        for _ in range(3):
            with pytest.raises(TooManyRequests):
                await repository.get_manifest(LATEST)
    assert [record.getMessage().partition(" lets us ")[2].partition(" more")[0] for record in caplog.records] == [
        "pull 9 of 20",
        "pull 1 of 20",
        "pull 0 of 20",
        "",
    ]
    assert "answers 429 and is left alone for 5 s" in caplog.records[-1].getMessage()
    assert meter.refused == 1
    assert repository.tally.limited == 1
    assert repository.slowed(3600.0) == 36000.0
    clock.now += 21600
    assert repository.slowed(3600.0) == 3600.0


async def test_a_blob_tells_nothing(hub: Scripted, ask: Ask) -> None:
    """What upstreams count apart has limits of its own."""
    digest = hub.blob("a/b", b"blob")
    hub.on("HEAD", "/v2/a/b/blobs/", act.status(200, b"blob", RateLimit_Limit="10", RateLimit_Remaining="1"))
    repository = ask(hub)
    assert await repository.stat_blob(digest) == 4
    assert repository._upstream.state().rate_limit is None


@pytest.mark.slow
async def test_ten_thousand_pulls_with_a_budget_of_a_hundred(hub: Scripted, tmp_path: Path) -> None:
    """No cached tag fails, by tag and by digest; what is not cached is 429, and the upstream is hardly asked for it."""
    meter = Meter(100)
    hub.on("*", "/v2/", meter)
    images = {f"library/image{number}": manifest(number) for number in range(250)}
    for name, body in images.items():
        hub.image(name, "latest", body)
    storage = StorageConfig(driver="filesystem", parameters={"rootdirectory": str(tmp_path / "data")})
    upstream = UpstreamConfig(url=hub.url, name="hub", ttl=0.0, default=True)
    app = create_app(Config(storage=storage, upstreams=(upstream,)))
    chance = random.Random(6)
    wanted = [*images, *chance.choices(list(images), k=10_000 - len(images))]
    cached: set[str] = set()
    seen: Counter[int] = Counter()
    async with lifespan(app), httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://cache") as http:

        async def pull(name: str) -> None:
            reference = digest_of(images[name]) if name in cached and chance.random() < 0.3 else "latest"
            found = await http.get(f"/v2/{name}/manifests/{reference}")
            seen[found.status_code] += 1
            if found.status_code == 200:
                assert found.content == images[name]
                cached.add(name)
            else:
                assert name not in cached
                assert error_of(found) == (429, "TOOMANYREQUESTS")
                assert int(found.headers["Retry-After"]) > 0

        for at in range(0, len(wanted), 20):
            await asyncio.gather(*map(pull, wanted[at : at + 20]))
    assert len(cached) == 100
    assert sum(seen.values()) == 10_000
    assert seen.keys() == {200, 429}
    asked = hub.count("GET", "/v2/") + hub.count("HEAD", "/v2/")
    print(f"{dict(seen)}, {asked} requests at the upstream, {meter.refused} of them refused")
    assert asked < 250
