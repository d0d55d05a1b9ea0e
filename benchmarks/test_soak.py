"""What a soak makes of its moments, and that a short one runs through."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.soak import GROWTH_MB, Moment, faults, growth_mb, page, slope_mb_min, soak


def moments(*rss: float) -> list[Moment]:
    return [Moment(6.0 * n, value, value, 10) for n, value in enumerate(rss)]


FLAT = moments(*[30.0] * 4, *[50.0] * 97)
GROWING = moments(*[30.0 + n for n in range(101)])  # 1 MB each 6 s


def found(**changes: Any) -> dict[str, Any]:
    return {"wrong": [], "files": {"before": 10, "during": 30, "after": 10}, "growth_mb": 0.0} | changes


def test_what_starts_up_is_no_growth() -> None:
    assert growth_mb(FLAT) == pytest.approx(0)
    assert slope_mb_min(FLAT) == pytest.approx(0)


def test_growth() -> None:
    assert growth_mb(GROWING) == pytest.approx(40)
    assert slope_mb_min(GROWING) == pytest.approx(10)


def test_no_faults() -> None:
    assert faults(found(growth_mb=GROWTH_MB)) == []
    assert faults(found(files={"before": 10, "during": 30, "after": 9})) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"wrong": ["pull: other bytes"]},
        {"files": {"before": 10, "during": 30, "after": 11}},
        {"growth_mb": GROWTH_MB + 0.01},
    ],
    ids=["wrong answer", "open files", "growth"],
)
def test_faults(changes: dict[str, Any]) -> None:
    assert len(faults(found(**changes))) == 1


@pytest.mark.slow
def test_a_short_one(tmp_path: Path) -> None:
    """Its memory says nothing yet; its answers and its open files do."""
    seen = soak(5, tmp_path, {})
    assert [text for text in faults(seen) if "memory" not in text] == []
    assert {"pull_large", "push", "push_aborted", "leave", "manifests", "missing", "lists"} <= set(seen["done"])
    assert "| end of the load |" in page(seen)
