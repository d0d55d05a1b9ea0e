"""The store's clock, told from the Date of its answers and our monotonic clock. Asks nothing itself."""

import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime

TOLERANCE = 60.0
"""Seconds: requests are signed with our own time until it differs by more. S3 refuses from 15 minutes on."""


def parse_date(text: str) -> float:
    """Seconds since 1970 of an HTTP date. Raises ValueError."""
    try:
        return parsedate_to_datetime(text).timestamp()
    except (TypeError, IndexError) as exc:  # what it raised for odd text before Python 3.10, and may still
        raise ValueError(f"not an HTTP date: {text[:40]!r}") from exc


class StoreClock:
    """wall, monotonic: clocks, in seconds."""

    def __init__(
        self, *, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._wall, self._monotonic = wall, monotonic
        self._text = ""
        self._date = self._seen = 0.0

    @property
    def known(self) -> bool:
        return bool(self._text)

    def observe(self, text: str) -> float:
        """The Date of an answer that has just come. Returns it, or what we believe where it is missing or odd."""
        if text != self._text or not text:
            try:
                self._date = parse_date(text)
            except ValueError:
                return self.now()
            self._text, self._seen = text, self._monotonic()
        return self._date

    def now(self) -> float:
        """By the store's clock, as far as we know."""
        return self._date + self._monotonic() - self._seen if self.known else self._wall()

    @property
    def skewed(self) -> bool:
        return abs(self.now() - self._wall()) > TOLERANCE

    def signing(self) -> float:
        return self.now() if self.skewed else self._wall()
