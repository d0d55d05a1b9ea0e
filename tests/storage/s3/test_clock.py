"""The store's clock, told from its answers."""

import pytest

from storage.drivers.s3.clock import TOLERANCE, StoreClock, parse_date

DATE = "Sun, 22 Nov 2026 10:00:00 GMT"
AT = 1795341600.0


class Hand:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def test_it_goes_on_between_answers_whatever_our_own_does() -> None:
    wall, monotonic = Hand(5.0), Hand(100.0)
    clock = StoreClock(wall=wall, monotonic=monotonic)
    assert (clock.known, clock.now()) == (False, 5.0)
    assert clock.observe(DATE) == AT
    monotonic.now, wall.now = 107.0, 999.0
    assert (clock.known, clock.now()) == (True, AT + 7)
    assert clock.observe(DATE) == AT  # the same second, seen again: it has begun before
    assert clock.now() == AT + 7


def test_an_odd_date_is_none() -> None:
    clock = StoreClock(wall=Hand(5.0), monotonic=Hand(0.0))
    for text in ("", "soon", "Sun, 99 Nov 2026 10:00:00 GMT"):
        assert clock.observe(text) == 5.0
        with pytest.raises(ValueError, match=r"."):
            parse_date(text)
    assert not clock.known


@pytest.mark.parametrize(("ours", "signed"), [(AT + TOLERANCE, AT + TOLERANCE), (AT + TOLERANCE + 1, AT), (0.0, AT)])
def test_requests_are_signed_with_the_stores_time_where_ours_is_wrong(ours: float, signed: float) -> None:
    clock = StoreClock(wall=Hand(ours), monotonic=Hand(0.0))
    assert clock.signing() == ours
    clock.observe(DATE)
    assert clock.signing() == signed
