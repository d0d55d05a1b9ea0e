"""Whose turn it is, in a fleet whose time passes when the test says so, and whose replicas die and sleep."""

import asyncio
import heapq
import itertools
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from registry.proxy.lease import Lease, Terms, Watch
from registry.proxy.leases import Leases, Turn
from storage import layout
from storage.digest import Digest
from storage.driver import StorageDriver
from storage.drivers.memory import MemoryDriver
from storage.errors import ObjectNotFound, Unavailable
from storage.names import RepositoryName, Tag
from tests.storage.spying import Spied

TERMS = Terms(ttl=6.0, patience=12.0)
BLOB = "docker/registry/v2/blobs/x"
KEY = layout.blob_lease(Digest.of(b"x"))


class Time:
    """Seconds that pass in `go` alone; who sleeps wakes in the right order. over: the test is, and so is what hangs."""

    def __init__(self) -> None:
        self.now = 0.0
        self.over = asyncio.Event()
        self._sleepers: list[tuple[float, int, asyncio.Event]] = []
        self._count = itertools.count()

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        event = asyncio.Event()
        heapq.heappush(self._sleepers, (self.now + seconds, next(self._count), event))
        await event.wait()

    async def go(self, seconds: float) -> None:
        until = self.now + seconds
        await self.settle()
        while self._sleepers and self._sleepers[0][0] <= until:
            self.now, _, event = heapq.heappop(self._sleepers)
            event.set()
            await self.settle()
        self.now = until

    async def settle(self) -> None:
        for _ in range(30):  # more steps than any of the calls here take
            await asyncio.sleep(0)


class Replica:
    """One process of a fleet: its leases, and what becomes of it. dead: no call of it comes to an end any more."""

    def __init__(self, driver: StorageDriver, time: Time, *, waits: bool = True) -> None:
        self.driver = driver
        self.dead = False
        self.wakes = 0.0
        self._time = time
        self.leases = Leases(Spied(driver, self._before), waits=waits, terms=TERMS, clock=time, sleep=self.sleep)

    async def sleep(self, seconds: float) -> None:
        await self._time.sleep(seconds)
        await self._pause()

    async def _before(self, verb: str, key: str) -> None:
        await self._pause()

    async def _pause(self) -> None:
        if self.wakes > self._time.now:
            await self._time.sleep(self.wakes - self._time.now)
        if self.dead:
            await self._time.over.wait()
            raise Unavailable("nobody is here any more")

    async def done(self) -> bool:
        try:
            await self.driver.head(BLOB)
        except ObjectNotFound:
            return False
        return True

    async def turn(self) -> Turn | None:
        return await self.leases.turn(KEY, self.done)

    async def work(self, seconds: float) -> str:
        """How it ended: found, kept, or left to another one."""
        turn = await self.turn()
        if turn is None:
            return "found"
        async with turn:
            await self.sleep(seconds)
            if not await turn.take_lead():
                return "left"
            await self.driver.put(BLOB, b"x")
            return "kept"


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
async def driver() -> AsyncIterator[MemoryDriver]:
    made = MemoryDriver()
    yield made
    await made.aclose()


@pytest.fixture
async def start(time: Time) -> AsyncIterator[Callable[..., "asyncio.Task[Any]"]]:
    """Starts tasks, which end with the test."""
    tasks: list[asyncio.Task[Any]] = []

    def begin(work: Any) -> "asyncio.Task[Any]":
        tasks.append(asyncio.create_task(work))
        return tasks[-1]

    yield begin
    time.over.set()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


Start = Callable[..., "asyncio.Task[Any]"]


async def left(driver: StorageDriver) -> list[str]:
    return [info.key async for info in driver.list_objects(layout.LEASES)]


def test_a_rival_lives_while_he_writes() -> None:
    watch = Watch(TERMS)
    assert not watch.is_dead("1", 0.0, now=100.0)
    assert not watch.is_dead("1", 0.0, now=108.9)
    assert not watch.is_dead("2", 0.0, now=109.0)
    assert not watch.is_dead("2", 0.0, now=117.9)
    assert watch.is_dead("2", 0.0, now=118.0)


def test_nobody_needs_to_watch_what_is_old() -> None:
    assert not Watch(TERMS).is_dead("1", TERMS.old - 0.1, now=0.0)
    assert Watch(TERMS).is_dead("1", TERMS.old, now=0.0)
    assert not Watch(TERMS).is_dead("1", -3600.0, now=0.0), "a store whose clock went back"


def test_a_client_gets_its_answer_in_time() -> None:
    """containerd gives up after 30 s; a holder who died is replaced while others still wait for him."""
    assert Terms().silence + 1.0 < Terms().patience < 20.0


async def test_one_works_and_the_others_find(driver: MemoryDriver, time: Time, start: Start) -> None:
    replicas = [Replica(driver, time) for _ in range(4)]
    working = [start(replica.work(8.0)) for replica in replicas]
    await time.go(7.9)
    assert not any(task.done() for task in working)
    assert await left(driver) == [KEY]
    await time.go(1.2)
    assert [task.result() for task in working] == ["kept", "found", "found", "found"]
    assert await left(driver) == []


async def test_who_goes_beside_the_leader_leaves_it_to_him(driver: MemoryDriver, time: Time, start: Start) -> None:
    leader, other = Replica(driver, time, waits=False), Replica(driver, time, waits=False)
    first, second = start(leader.work(30.0)), start(other.work(20.0))
    await time.go(29.9)
    assert not second.done(), "what it has serves its own clients until then"
    await time.go(1.2)
    assert (first.result(), second.result()) == ("kept", "left")
    assert await left(driver) == []


async def test_patience_ends(driver: MemoryDriver, time: Time, start: Start) -> None:
    leader, other = Replica(driver, time), Replica(driver, time)
    first = start(leader.work(100.0))
    await time.go(0.0)
    waiting = start(other.turn())
    await time.go(TERMS.patience - 0.1)
    assert not waiting.done()
    await time.go(0.2)
    turn = waiting.result()
    assert turn is not None
    assert not turn.leads
    await time.go(90.0)
    assert first.result() == "kept"


async def test_a_leader_who_dies_is_replaced_by_one(driver: MemoryDriver, time: Time, start: Start) -> None:
    leader, *others = (Replica(driver, time) for _ in range(4))
    start(leader.work(5.0))
    await time.go(3.1)  # it has beaten twice
    waiting = [start(other.work(1.0)) for other in others]
    await time.go(0.5)
    leader.dead = True
    await time.go(TERMS.silence + 1.5 + 1.0 + 1.1)
    assert sorted(task.result() for task in waiting) == ["found", "found", "kept"]
    assert await left(driver) == []


async def test_one_beside_a_leader_who_died_keeps_what_he_has(driver: MemoryDriver, time: Time, start: Start) -> None:
    leader, other = Replica(driver, time, waits=False), Replica(driver, time, waits=False)
    start(leader.work(5.0))
    await time.go(0.1)
    second = start(other.work(TERMS.silence + 3.0))
    await time.go(0.1)
    leader.dead = True
    await time.go(TERMS.silence + 3.0)
    assert second.result() == "kept"
    assert await left(driver) == []


async def test_an_old_lease_keeps_nobody_waiting(driver: MemoryDriver, time: Time) -> None:
    class Later(MemoryDriver):
        async def now(self) -> float:
            return await super().now() + TERMS.old + 1.0

    store = Later()
    await store.put(KEY, b"of one who was killed a minute ago")
    turn = await Replica(store, time).turn()
    assert turn is not None
    assert turn.leads
    async with turn:
        pass
    assert await left(store) == []
    await store.aclose()


async def test_one_who_slept_leaves_the_lease_of_his_successor(driver: MemoryDriver, time: Time, start: Start) -> None:
    """Both keep what they have: it is the same."""
    sleeper, other = Replica(driver, time), Replica(driver, time)
    first = start(sleeper.work(2.0))
    await time.go(1.0)
    sleeper.wakes = time.now + 20.0
    second = start(other.work(50.0))
    await time.go(30.0)
    assert first.result() == "kept"
    assert await left(driver) == [KEY]
    await time.go(50.0)
    assert second.result() == "kept"
    assert await left(driver) == []


async def test_what_was_done_before_the_claim_is_found(driver: MemoryDriver, time: Time) -> None:
    await driver.put(BLOB, b"x")
    assert await Replica(driver, time).turn() is None
    assert await left(driver) == []


async def test_a_beat_whose_answer_is_lost_is_known_again(driver: MemoryDriver) -> None:
    lose = False

    class Losing(MemoryDriver):
        async def put(self, key: str, data: bytes, **how: Any) -> str:
            version = await driver.put(key, data, **how)
            if lose:
                raise Unavailable("no answer")
            return version

    store = Losing()
    store._objects = driver._objects
    lease, rival = Lease(store, KEY), Lease(driver, KEY)
    assert await lease.claim()
    lose = True
    with pytest.raises(Unavailable):
        await lease.beat()
    lose = False
    assert await lease.beat()
    assert not await rival.claim()
    await lease.release()
    await lease.release()
    assert await left(driver) == []
    assert await rival.claim()
    assert not await lease.beat(), "it was given up"


async def test_no_two_bodies_are_equal(driver: MemoryDriver) -> None:
    bodies = set()
    for _ in range(3):
        lease = Lease(driver, KEY)
        assert await lease.claim()
        for _ in range(3):
            bodies.add(await driver.read(KEY))
            assert await lease.beat()
        await lease.release()
    assert len(bodies) == 9


@pytest.mark.parametrize("verb", ["put", "head", "delete"])
async def test_a_store_that_fails_keeps_nobody_from_working(
    driver: MemoryDriver, time: Time, verb: str, start: Start
) -> None:
    async def fail(called: str, key: str) -> None:
        if called == verb and key == KEY:
            raise Unavailable("the store is down")

    if verb == "head":
        await Lease(driver, KEY).claim()
    working = start(Replica(Spied(driver, fail), time).work(1.0))
    await time.go(1.0)
    assert working.result() == "kept"


async def test_a_store_without_conditions(
    driver: MemoryDriver, time: Time, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    class Heedless(MemoryDriver):
        async def conditions_hold(self) -> bool:
            return False

    store = Heedless()
    replica = Replica(store, time)
    working = [start(replica.work(1.0)) for _ in range(2)]
    await time.go(1.0)
    assert [task.result() for task in working] == ["kept", "kept"]
    assert await left(store) == []
    [record] = caplog.records
    assert "ignores conditional writes" in record.message
    await store.aclose()


async def test_who_is_cancelled_leaves_no_lease(driver: MemoryDriver, time: Time, start: Start) -> None:
    for seconds in (0.0, 0.5, 2.0):
        task = start(Replica(driver, time).work(60.0))
        await time.go(seconds)
        task.cancel()
        await asyncio.wait([task])
        await time.settle()
        assert await left(driver) == []


async def test_litter_is_swept_once(time: Time) -> None:
    class Later(MemoryDriver):
        async def now(self) -> float:
            return await super().now() + 7200.0

    store = Later()
    await store.put(f"{layout.LEASES}/blobs/sha256/{'0' * 64}", b"of one who was killed")
    turn = await Replica(store, time).turn()
    assert turn is not None
    async with turn:
        pass
    assert await left(store) == []
    await store.aclose()


async def test_once(driver: MemoryDriver, time: Time, start: Start) -> None:
    """One brings it, the other finds it."""
    asked = []

    async def find() -> bytes | None:
        try:
            return await driver.read(BLOB)
        except ObjectNotFound:
            return None

    async def bring() -> bytes:
        asked.append(1)
        await time.sleep(1.0)
        await driver.put(BLOB, b"x")
        return b"x"

    key = layout.manifest_lease(RepositoryName("a/b"), Tag("v1"))
    both = [start(Replica(driver, time).leases.once(key, find, bring)) for _ in range(2)]
    await time.go(3.0)
    assert [task.result() for task in both] == [b"x", b"x"]
    assert len(asked) == 1
    assert await left(driver) == []


@pytest.mark.parametrize("seed", range(60))
async def test_random_fleets(seed: int, driver: MemoryDriver, time: Time, start: Start) -> None:
    """Whoever lives ends, what was wanted is there, and kept no more often than the deaths and sleeps account for."""
    draw = random.Random(seed)
    replicas = [Replica(driver, time) for _ in range(4)]
    ends: dict[int, asyncio.Task[str]] = {}
    harm = 0
    for number in draw.sample(range(4), 4):
        ends[number] = start(replicas[number].work(draw.uniform(0.0, 6.0)))
        await time.go(draw.choice([0.0, 0.01, 1.0]))
    for _ in range(draw.randrange(4)):
        await time.go(draw.uniform(0.0, 12.0))
        victim = draw.randrange(4)
        if ends[victim].done() or replicas[victim].dead:
            continue
        harm += 1
        if draw.random() < 0.5:
            replicas[victim].dead = True
        else:
            replicas[victim].wakes = time.now + draw.uniform(0.0, 15.0)
    await time.go(200.0)
    results = [ends[number].result() for number in ends if not replicas[number].dead]
    assert all(ends[number].done() for number in ends if not replicas[number].dead)
    if results:
        assert await replicas[0].done()
    if not harm:
        assert sorted(results) == ["found", "found", "found", "kept"]
    assert results.count("kept") <= 1 + harm, "others may have lost their patience, and left what they had"
    assert len(await left(driver)) <= sum(replica.dead for replica in replicas)
