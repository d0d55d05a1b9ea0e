"""Numbers of several processes in one memory: sums that never fall, gauges that end with their process."""

import logging
import math
import os

import pytest

from registry.metrics import numbers as module
from registry.metrics.catalogue import (
    BUDGET_REMAINING,
    BUILD,
    FAMILIES,
    IN_FLIGHT,
    LAG,
    REQUESTS,
    SENT,
    UPSTREAM_LEFT_ALONE,
    Family,
)
from registry.metrics.numbers import Numbers

GET = ("manifest", "200", "get")


def entered(workers: int = 1) -> Numbers:
    numbers = Numbers(workers)
    numbers.enter(0)
    return numbers


def found(numbers: Numbers, family: Family, labels: tuple[str, ...] = ()) -> list[float] | None:
    series = {(each.family.name, each.labels): each.values for each in numbers.merged()}
    return series.get((family.name, labels))


def in_a_child(numbers: Numbers, worker: int, *does: tuple[Family, tuple[str, ...], float]) -> None:
    """As a worker that counts and dies without a word."""
    pid = os.fork()
    if pid == 0:
        try:
            numbers.enter(worker)
            for family, labels, amount in does:
                (numbers.set if family.kind == "gauge" else numbers.add)(family, labels, amount)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


def test_counters_add_up_over_processes_and_outlive_them() -> None:
    numbers = Numbers(3)
    in_a_child(numbers, 0, (REQUESTS, GET, 2))
    in_a_child(numbers, 1, (SENT, (), 7), (REQUESTS, GET, 3))
    in_a_child(numbers, 1, (REQUESTS, GET, 10))  # the successor
    assert found(numbers, REQUESTS, GET) == [15]
    assert found(numbers, SENT) == [7]


def test_a_gauge_ends_with_its_process_once_there_is_a_successor() -> None:
    numbers = Numbers(2)
    in_a_child(numbers, 0, (IN_FLIGHT, ("blob",), 2))
    in_a_child(numbers, 1, (IN_FLIGHT, ("blob",), 3))
    assert found(numbers, IN_FLIGHT, ("blob",)) == [5]
    in_a_child(numbers, 1)
    assert found(numbers, IN_FLIGHT, ("blob",)) == [2]


def test_what_gauges_of_several_make_together() -> None:
    numbers = Numbers(2)
    for worker, remaining, alone in ((0, 40, 0), (1, 30, 1)):
        in_a_child(numbers, worker, (BUDGET_REMAINING, ("hub",), remaining), (UPSTREAM_LEFT_ALONE, ("hub",), alone))
    assert found(numbers, BUDGET_REMAINING, ("hub",)) == [30]
    assert found(numbers, UPSTREAM_LEFT_ALONE, ("hub",)) == [1]


def test_what_is_not_known_is_not_there() -> None:
    numbers = entered()
    numbers.set(BUDGET_REMAINING, ("hub",), math.nan)
    assert found(numbers, BUDGET_REMAINING, ("hub",)) is None


def test_a_counter_that_somebody_else_keeps_goes_on_where_the_last_process_ended() -> None:
    numbers = entered()
    for seen in (0, 5, 8):
        numbers.total(SENT, (), seen)
    numbers.enter(0)
    for seen in (0, 2):
        numbers.total(SENT, (), seen)
    assert found(numbers, SENT) == [10]


def test_a_histogram() -> None:
    numbers = entered()
    for seconds in (0.005, 0.006, 100.0):
        numbers.observe(LAG, (), seconds)
    *counts, total = found(numbers, LAG) or []
    assert counts == [1, 1, *([0] * (len(LAG.buckets) - 2)), 1]
    assert total == pytest.approx(100.011)


def test_a_place_is_made_with_zeros_and_found_again() -> None:
    numbers = entered()
    place = numbers.place(LAG)
    assert numbers.place(REQUESTS, GET) == place + LAG.width
    assert numbers.place(LAG) == place
    assert found(numbers, LAG) == [0.0] * LAG.width


def test_names_may_hold_anything() -> None:
    numbers, labels = entered(), ('a"\n\\ä', "", "x")
    numbers.add(REQUESTS, labels)
    assert found(numbers, REQUESTS, labels) == [1]


def test_a_full_part_counts_on_for_what_it_has_and_says_so_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_NAMES", 144)
    numbers = Numbers()
    numbers.enter(0)
    with caplog.at_level(logging.WARNING):
        for name in "abcdefgh":
            numbers.add(REQUESTS, (name, "200", "get"))
            numbers.add(REQUESTS, (name, "200", "get"))
    assert [each.values for each in numbers.merged()] == [[2.0]] * 3
    assert len(caplog.records) == 1


def test_the_processes() -> None:
    numbers = Numbers(2)
    assert list(numbers.pids()) == []
    numbers.enter(1)
    assert list(numbers.pids()) == [(1, os.getpid())]


def test_names_of_the_catalogue() -> None:
    """As Prometheus' conventions have them, so that nobody needs to look up which is which."""
    assert len({*FAMILIES, BUILD}) == len(FAMILIES) + 1
    for family in FAMILIES.values():
        assert family.name.startswith("registry_")
        assert not family.name.endswith("_total")
        assert bool(family.buckets) == (family.kind == "histogram")
        assert list(family.buckets) == sorted(family.buckets)
        assert family.help.endswith(".")
        assert family.width <= 64
