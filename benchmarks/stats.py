"""What is measured, and how samples become figures. Pure.

Rules: a case takes its samples in rounds, each server once a round, so the samples of one round saw the same machine.
A figure is the median with minimum and maximum. A ratio is the median of the ratios within each round: a machine that
slows down in between moves both sides alike.
"""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """One thing that a sample tells. more_is_better: the direction, for the reader of the table."""

    key: str
    unit: str
    more_is_better: bool
    digits: int = 2


METRICS = {
    metric.key: metric
    for metric in (
        Metric("gb_s", "GB/s", True),
        Metric("req_s", "requests/s", True, 0),
        Metric("ms", "ms", False),
        Metric("p50_ms", "ms p50", False),
        Metric("p99_ms", "ms p99", False),
        Metric("max_ms", "ms max", False),
        Metric("s", "s", False),
        Metric("cpu_s_gb", "CPU s/GB", False),
        Metric("cpu_s_kreq", "CPU s/1,000 requests", False, 3),
        Metric("rest_mb", "MB at rest", False, 0),
        Metric("peak_mb", "MB peak", False, 0),
    )
}

Sample = dict[str, float]
"""Metric key to value, of one server in one round."""


@dataclass(frozen=True)
class Summary:
    """A figure: the median, and between which values the samples lie."""

    median: float
    low: float
    high: float
    count: int


def summary(values: Sequence[float]) -> Summary:
    """Raises ValueError when there is no value."""
    if not values:
        raise ValueError("no samples")
    return Summary(statistics.median(values), min(values), max(values), len(values))


def paired_ratio(ours: Sequence[float], theirs: Sequence[float]) -> Summary | None:
    """Ours divided by theirs, round by round. None: there is no round in which both have a value that is not zero."""
    # the CPU clock ticks 100 times a second: a short sample may have seen no tick
    ratios = [a / b for a, b in zip(ours, theirs, strict=False) if b > 0]
    return summary(ratios) if ratios else None


def percentile(values: Iterable[float], percent: float) -> float:
    """The smallest value that at least so many per cent of the values do not exceed. Raises ValueError without any."""
    ordered = sorted(values)
    if not ordered:
        raise ValueError("no values")
    rank = -(-len(ordered) * percent // 100)  # rounded up
    return ordered[max(0, int(rank) - 1)]


def shown(value: float, digits: int) -> str:
    """A figure for the table, with about three digits that mean something."""
    if digits == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.{1 if abs(value) >= 10 and digits < 3 else digits}f}"
