"""Tests of the statistics."""

import pytest

from benchmarks.stats import METRICS, Summary, paired_ratio, percentile, shown, summary


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([2.0], Summary(2.0, 2.0, 2.0, 1)),
        ([3.0, 1.0, 2.0], Summary(2.0, 1.0, 3.0, 3)),
        ([4.0, 1.0, 2.0, 3.0], Summary(2.5, 1.0, 4.0, 4)),
    ],
)
def test_summary(values: list[float], expected: Summary) -> None:
    assert summary(values) == expected


def test_no_samples_have_no_summary() -> None:
    with pytest.raises(ValueError, match="no samples"):
        summary([])


def test_ratio_is_taken_within_each_round() -> None:
    # the machine became three times as slow after the first round: both sides are, and the ratio stays
    assert paired_ratio([6.0, 2.0, 2.0], [3.0, 1.0, 1.0]) == Summary(2.0, 2.0, 2.0, 3)


@pytest.mark.parametrize(("ours", "theirs"), [([], [1.0]), ([1.0], []), ([1.0, 2.0], [0.0, 0.0])])
def test_no_ratio_without_a_pair(ours: list[float], theirs: list[float]) -> None:
    assert paired_ratio(ours, theirs) is None


def test_a_round_in_which_the_clock_did_not_tick_has_no_ratio() -> None:
    assert paired_ratio([1.0, 3.0], [0.0, 1.0]) == Summary(3.0, 3.0, 3.0, 1)


@pytest.mark.parametrize(
    ("percent", "expected"), [(0, 1), (1, 1), (10, 1), (11, 2), (50, 5), (90, 9), (99, 10), (100, 10)]
)
def test_percentile(percent: float, expected: float) -> None:
    assert percentile([10, 1, 9, 2, 8, 3, 7, 4, 6, 5], percent) == expected


def test_no_percentile_of_nothing() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)


@pytest.mark.parametrize(
    ("value", "digits", "expected"),
    [
        (12345.6, 0, "12,346"),
        (0.5, 0, "0"),
        (3.14159, 2, "3.14"),
        (31.4159, 2, "31.4"),
        (314.159, 2, "314"),
        (0.0123, 3, "0.012"),
    ],
)
def test_shown(value: float, digits: int, expected: str) -> None:
    assert shown(value, digits) == expected


def test_every_metric_is_found_by_its_key() -> None:
    assert all(key == metric.key for key, metric in METRICS.items())
