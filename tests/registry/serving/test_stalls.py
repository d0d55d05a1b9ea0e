"""The arithmetic of "too slow", with a clock of our own."""

import asyncio

import pytest

from registry.serving.limits import Limits
from registry.serving.stalls import Meter, Watch

LIMITS = Limits(stall_timeout=30, min_rate=1000)


def run(meter: Meter, rows: list[tuple[float, int, bool]]) -> list[bool]:
    """rows: time, bytes moved in all, whether we wait for the client."""
    return [meter.stalled(total, now, waiting=waiting) for now, total, waiting in rows]


@pytest.mark.parametrize(
    ("rows", "stalled"),
    [
        ([(0, 0, True), (30, 0, True), (30.1, 0, True)], [False, False, True]),
        ([(0, 0, True), (29, 29_999, True), (31, 29_999, True)], [False, False, True]),
        ([(0, 0, True), (29, 30_000, True), (58, 30_001, True), (60, 30_001, True)], [False, False, False, True]),
        ([(0, 0, False), (100, 0, False), (200, 0, True), (229, 0, True)], [False] * 4),
        ([(0, 0, True), (29, 0, False), (31, 0, True), (60, 0, True)], [False] * 4),
        ([(0, 90_000, True), (10, 10, True), (20, 30_010, True), (45, 30_010, True)], [False] * 4),
    ],
    ids=["nothing moves", "too little", "enough, then nothing", "not waited for", "a pause", "counted too early"],
)
def test_meter(rows: list[tuple[float, int, bool]], stalled: list[bool]) -> None:
    assert run(Meter(LIMITS), rows) == stalled


@pytest.mark.parametrize("limits", [Limits(stall_timeout=0), Limits(min_rate=0)], ids=["no time-out", "any rate"])
def test_switched_off(limits: Limits) -> None:
    assert not any(run(Meter(limits), [(0, 0, True), (1000, 0, True), (2000, 0, True)]))


def test_sweep_follows_the_shortest_time() -> None:
    assert Limits().sweep_interval == 2.5
    assert Limits(head_timeout=12, stall_timeout=0).sweep_interval == 1
    assert Limits(head_timeout=0, stall_timeout=0, keep_alive=0).sweep_interval == 2.5


class Connection:
    """Counts how often it is looked at and says when it was."""

    def __init__(self, looks: int) -> None:
        self.left = looks
        self.done = asyncio.Event()

    def check(self, now: float) -> None:
        self.left -= 1
        if not self.left:
            self.done.set()

    def traffic(self) -> tuple[int, int]:
        return 3, 5


async def test_watch_looks_again_and_again_and_stops_when_all_have_left() -> None:
    watch, connection = Watch(asyncio.get_running_loop(), 0.001), Connection(3)
    assert watch.empty.is_set()
    watch.add(connection)
    assert not watch.empty.is_set()
    await asyncio.wait_for(connection.done.wait(), 5)
    watch.remove(connection)
    assert watch.empty.is_set()
    watch.sweep()
    assert watch.timer is None


async def test_watch_knows_what_has_gone_both_ways() -> None:
    watch, some = Watch(asyncio.get_running_loop(), 60), [Connection(1), Connection(1)]
    for connection in some:
        watch.add(connection)
    assert (watch.accepted, watch.traffic()) == (2, (6, 10))
    watch.remove(some[0])
    assert (watch.accepted, watch.traffic()) == (2, (6, 10))
    assert watch.timer
    watch.timer.cancel()


async def test_the_log_says_the_news_and_the_metric_all(caplog: pytest.LogCaptureFixture) -> None:
    watch = Watch(asyncio.get_running_loop(), 1.0)
    for _ in range(3):
        watch.refuse(7)
    assert watch.refused == 3
    (line,) = caplog.messages
    assert "1 refused, as 7 are open" in line
