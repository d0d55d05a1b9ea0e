"""WatchedDriver passes every verb on, and counts how it ended."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import pytest

from registry.metrics.actions import Actions
from registry.metrics.numbers import Numbers
from registry.watching.watched_driver import WatchedDriver, label_of, outcome_of
from storage import errors
from storage.driver import StorageDriver
from storage.drivers.memory import MemoryDriver
from storage.errors import ObjectNotFound, OffsetMismatch, PreconditionFailed, StorageFull, Unavailable
from storage.testing import DriverContract
from tests.api import in_pieces
from tests.registry.metrics.tools import Samples, samples, total, value

VERBS = {name for name, member in vars(StorageDriver).items() if inspect.isfunction(member) and name[0] != "_"}


class TestWatched(DriverContract):
    """It is a driver like any other."""

    @pytest.fixture
    async def driver(self) -> AsyncIterator[StorageDriver]:
        driver, _ = watched()
        yield driver
        await driver.aclose()

    async def raw_read(self, driver: StorageDriver, key: str) -> bytes | None:
        found = self._within(driver)._objects.get(key)
        return None if found is None else found.data

    async def raw_write(self, driver: StorageDriver, key: str, data: bytes) -> None:
        self._within(driver)._store(key, data)

    def _within(self, driver: StorageDriver) -> MemoryDriver:
        assert isinstance(driver, WatchedDriver)
        assert isinstance(driver._driver, MemoryDriver)
        return driver._driver


class Failing(MemoryDriver):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    async def read(self, key: str, limit: int = 0) -> bytes:
        raise self._error


def watched(driver: StorageDriver | None = None) -> tuple[WatchedDriver, Callable[[], Samples]]:
    numbers = Numbers()
    numbers.enter(0)
    actions = Actions(numbers, "inmemory")
    return WatchedDriver(driver or MemoryDriver(), "inmemory", actions, traced=False), lambda: samples(numbers)


def actions(found: Samples, action: str, outcome: str) -> float | None:
    return value(found, "registry_storage_actions_total", driver="inmemory", action=action, outcome=outcome)


def test_every_verb_is_passed_on() -> None:
    """A new verb of StorageDriver needs its line in watched_driver.py: its default would run over ours."""
    assert VERBS - set(vars(WatchedDriver)) == set()


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_verbs_take_what_the_drivers_take(verb: str) -> None:
    def parameters(owner: type) -> list[tuple[str, Any, Any]]:
        found = inspect.signature(getattr(owner, verb)).parameters.values()
        return [(each.name, each.kind, each.default) for each in found]

    assert parameters(WatchedDriver) == parameters(StorageDriver)


async def test_what_a_driver_says_of_itself() -> None:
    inner = MemoryDriver()
    driver, _ = watched(inner)
    for name in ("name", "offers_urls", "stages_are_hidden", "calls_are_dear"):
        assert getattr(driver, name) == getattr(inner, name)


async def test_calls_by_outcome_and_their_time() -> None:
    driver, found = watched()
    await driver.put("a/b", b"1")
    await driver.read("a/b")
    with pytest.raises(ObjectNotFound):
        await driver.read("a/c")
    with pytest.raises(PreconditionFailed):
        await driver.put("a/b", b"2", if_absent=True)
    seen = found()
    assert actions(seen, "GetContent", "ok") == actions(seen, "GetContent", "missing") == 1
    assert actions(seen, "PutContent", "ok") == actions(seen, "PutContent", "refused") == 1
    count = value(seen, "registry_storage_action_seconds_count", driver="inmemory", action="GetContent")
    assert count == 2


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (Unavailable("x"), "failed"),
        (StorageFull(), "full"),
        (OffsetMismatch(1), "refused"),
        (errors.UpstreamTimeout("x"), "interrupted"),
        (errors.UpstreamDenied(), "interrupted"),
        (ConnectionError(), "interrupted"),
    ],
)
async def test_outcomes(error: Exception, outcome: str) -> None:
    assert outcome_of(error) == outcome
    driver, found = watched(Failing(error))
    with pytest.raises(type(error)):
        await driver.read("a")
    assert actions(found(), "GetContent", outcome) == 1


async def test_lists_are_timed_without_their_reader() -> None:
    driver, found = watched()
    for name in "abc":
        await driver.put(f"x/{name}", b"")
    assert [each.key async for each in driver.list_objects("x")] == ["x/a", "x/b", "x/c"]
    async with aclosing(driver.list_objects("x")) as some:  # type: ignore[type-var]
        async for _ in some:
            break
    assert actions(found(), "List", "ok") == 2


async def test_a_list_that_fails() -> None:
    class Broken(MemoryDriver):
        async def list_objects(self, prefix: str, after: str = "") -> AsyncIterator[Any]:
            raise Unavailable("x")
            yield

    driver, found = watched(Broken())
    with pytest.raises(Unavailable):
        _ = [each async for each in driver.list_objects("x")]
    assert actions(found(), "List", "failed") == 1


async def test_what_waits_for_a_client_is_counted_and_not_timed() -> None:
    driver, found = watched()
    stage = await driver.begin("s")
    await driver.append(stage, 0, in_pieces(b"12345"))
    with pytest.raises(OffsetMismatch):
        await driver.append(stage, 0, in_pieces(b"12345"))
    seen = found()
    assert actions(seen, "Append", "ok") == actions(seen, "Append", "refused") == 1
    assert not total(seen, "registry_storage_action_seconds_count", action="Append")


async def test_a_call_that_is_cancelled() -> None:
    never = asyncio.Event()

    class Hanging(MemoryDriver):
        async def now(self) -> float:
            await never.wait()
            return 0.0

    driver, found = watched(Hanging())
    call = asyncio.create_task(driver.now())
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert actions(found(), "Now", "interrupted") == 1


def test_faults_are_there_before_the_first() -> None:
    numbers = Numbers()
    numbers.enter(0)
    Actions(numbers, "inmemory").expect()
    seen = samples(numbers)
    assert actions(seen, "Append", "full") == actions(seen, "Reader", "failed") == 0


async def test_requests_of_the_driver_to_its_store() -> None:
    class Watched(MemoryDriver):
        def watch_calls(self, seen: Callable[[str, int, float], None]) -> None:
            self.seen = seen

    inner = Watched()
    _, found = watched(inner)
    inner.seen("GetObject", 200, 0.004)
    inner.seen("GetObject", 503, 0.2)
    seen = found()
    assert value(seen, "registry_storage_calls_total", driver="inmemory", call="GetObject", code="503") == 1
    assert value(seen, "registry_storage_call_seconds_count", driver="inmemory", call="GetObject") == 2


@pytest.mark.parametrize(("name", "label"), [("s3", "s3aws"), ("filesystem", "filesystem"), ("my.driver", "my.driver")])
def test_what_distribution_calls_a_driver(name: str, label: str) -> None:
    assert label_of(name) == label
