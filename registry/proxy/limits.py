"""What an upstream says of its rate limit, and how long it is left alone for it. Pure: every clock is an argument.

Docker Hub sends `RateLimit-Limit: 100;w=21600` and `RateLimit-Remaining: 76;w=21600` with manifests, and tells in
`docker-ratelimit-source` whom it counts: an address or a user. Retry-After has two forms (RFC 9110 section 10.2.3), and
some send the second since 1970 at which to come back.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

LONGEST_HOLD = 300.0
"""Seconds for which an upstream is not asked after a 429, whatever it says: its limit may be lifted before."""

FIRST_HOLD = 5.0
"""Seconds after a 429 that says nothing; doubled with each that follows, up to LONGEST_HOLD."""

MAX_RETRY_AFTER = 24 * 3600.0

_QUOTA = re.compile(r"([0-9]{1,12})(?:[ \t]*;[ \t]*w=([0-9]{1,12}))?(?:[ \t]*[;,].*)?")
_DIGITS = re.compile(r"[0-9]{1,18}")
_SOURCE = re.compile(r"[0-9A-Za-z.:_-]{1,64}")
_EPOCH = 10**9  # more seconds than anyone waits: a date


@dataclass(frozen=True, slots=True)
class RateLimit:
    """limit, remaining: requests, None where not said. window: seconds. source: whom the upstream counts."""

    limit: int | None
    remaining: int | None
    window: int | None = None
    source: str = ""


def parse_rate_limit(headers: Mapping[str, str]) -> RateLimit | None:
    """None where an answer says nothing of it. headers: by lower-case name."""
    limit, remaining = (_quota(headers.get(f"ratelimit-{name}")) for name in ("limit", "remaining"))
    if limit is None and remaining is None:
        return None
    source = headers.get("docker-ratelimit-source", "")
    return RateLimit(
        limit=limit and limit[0],
        remaining=remaining and remaining[0],
        window=(limit and limit[1]) or (remaining and remaining[1]),
        source=source if _SOURCE.fullmatch(source) else "",
    )


def _quota(value: str | None) -> tuple[int, int | None] | None:
    match = _QUOTA.fullmatch(value.strip()) if value else None
    return None if match is None else (int(match[1]), int(match[2]) if match[2] else None)


def parse_retry_after(value: str | None, wall: float) -> float | None:
    """Seconds from now; None where it is not there or malformed. wall: seconds since 1970."""
    if not value:
        return None
    text = value.strip()
    if _DIGITS.fullmatch(text):
        seconds = float(text) - (wall if int(text) >= _EPOCH else 0.0)
    else:
        try:
            date = parsedate_to_datetime(text)
        except (ValueError, OverflowError, TypeError):
            return None
        seconds = date.replace(tzinfo=date.tzinfo or UTC).timestamp() - wall
    return min(max(seconds, 0.0), MAX_RETRY_AFTER)


class Throttle:
    """Holds requests of each kind back after a 429, so that a limit that is reached is not asked for again and again.

    A kind is what the upstream counts together: manifests and the rest (Docker Hub counts manifests alone).
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until: dict[str, float] = {}
        self._said: dict[str, float] = {}
        self._times: dict[str, int] = {}

    def held(self, kind: str) -> float | None:
        """Seconds that the upstream asked us to wait still; None: ask it."""
        now = self._clock()
        if now >= self._until.get(kind, now):
            return None
        return max(self._said[kind], self._until[kind]) - now

    def limited(self, kind: str, retry_after: float | None) -> float:
        """The upstream answered 429. Returns the seconds to wait."""
        times = self._times.get(kind, 0)
        self._times[kind] = times + 1
        wait: float = min(FIRST_HOLD * 2.0 ** min(times, 16), LONGEST_HOLD) if retry_after is None else retry_after
        now = self._clock()
        self._said[kind] = now + wait
        self._until[kind] = now + min(wait, LONGEST_HOLD)
        return wait

    def passed(self, kind: str) -> None:
        """The upstream gave an answer of this kind."""
        self._times.pop(kind, None)
        self._until.pop(kind, None)
