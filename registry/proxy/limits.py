"""What an upstream says of its rate limit, and how we spare it. Pure: every clock is an argument.

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

SLOWER = ((0.5, 2.0), (0.1, 10.0))
"""Below this part of the limit, a tag is served so many times longer before it is asked about again."""

SLOW_FROM = 60.0
"""Seconds: a shorter time to live is lengthened as if it were this. It may be 0, of which there is no multiple."""

SLOWEST = 24 * 3600.0
"""Seconds, beyond which no time to live is lengthened."""

WINDOW = 6 * 3600.0
"""Seconds for which a limit holds that names no window: Docker Hub's."""

_RISE, _FAR = 0.05, 1.5
"""A step is behind us once what is left, less _RISE of the limit, is _FAR times the step."""

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


def slowed(ttl: float, left: float | None) -> float:
    """The time to live of a tag, in seconds, as it is to be when `left` (0 to 1) of the limit is left; None: unknown.

    That a tag has not changed costs nothing at Docker Hub (a HEAD). That it has, costs a pull: of these there shall be
    fewer when few are left, so that they are there for images that nobody has yet.
    """
    factor = max((factor for step, factor in SLOWER if left is not None and left < step), default=1.0)
    return ttl if factor == 1.0 else max(ttl, min(max(ttl, SLOW_FROM) * factor, SLOWEST))


def warning_of(found: RateLimit, username: str) -> str:
    """The rest of a sentence that begins with the upstream, for the log: what is left, and what to do."""
    of = "" if found.limit is None else f" of {found.limit}"
    window = found.window or WINDOW
    advice = "use an account that may pull more" if username else "log in there (settings: username, passwordfile)"
    return (
        f"lets us pull {found.remaining}{of} more in {window / 3600:.3g} h; tags are asked about less often meanwhile,"
        f" and when none is left only what is cached is served: {advice}"
    )


class Budget:
    """The rate limit of an upstream as it was last told, for as long as that can be so.

    clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last: RateLimit | None = None
        self._at = 0.0
        self._reported = 0

    @property
    def last(self) -> RateLimit | None:
        """None: nothing is known, or what is known is older than the window."""
        if self._last is None or self._clock() - self._at >= (self._last.window or WINDOW):
            return None
        return self._last

    @property
    def left(self) -> float | None:
        """The part of the limit that is left, from 0 to 1; None: unknown."""
        return _part(self.last)

    def told(self, found: RateLimit) -> bool:
        """The upstream has said so. True: that is news, as less is left than a further step of SLOWER, or nothing.

        A step is news again once the budget has risen well above it: in a window that slides it goes up and down.
        """
        self._last, self._at = found, self._clock()
        left = _part(found)
        if left is None:
            return False
        self._reported = min(self._reported, _level((left - _RISE) / _FAR))
        if (level := _level(left)) <= self._reported:
            return False
        self._reported = level
        return True


def _part(found: RateLimit | None) -> float | None:
    if found is None or found.remaining is None:
        return None
    if not found.remaining:
        return 0.0
    return min(found.remaining / found.limit, 1.0) if found.limit else None


def _level(left: float) -> int:
    """How many steps it has gone down; the last one is to nothing at all."""
    return sum(left < step for step, _ in SLOWER) + (left <= 0.0)


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
