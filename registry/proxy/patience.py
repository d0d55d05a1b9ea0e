"""How long to wait for an upstream, how often to try, and when to leave it alone. Pure: every clock is an argument."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds. containerd 2.3 gives up 30 s after its request, so `answer` stays below that.

    connect: name, TCP and TLS.   first_byte: from the request to the whole head of the answer.
    answer: of everything small, with its login and all retries.
    rate, window: a body that brings less than `rate` bytes/s while we wait `window` seconds for it has failed.
    """

    connect: float = 5.0
    first_byte: float = 15.0
    answer: float = 20.0
    rate: float = 1024.0
    window: float = 20.0


class Pace:
    """Is a body still coming? Only the time counts in which we wait for the upstream, not the time we take ourselves.

    allowance = pace.allowance()      seconds that the next read may take
    pace.got(waited, size)            after a read
    pace.expired()                    the allowance has passed without a byte; True: too slow
    """

    def __init__(self, rate: float, window: float) -> None:
        self._least = rate * window
        self._window = window
        self._waited = 0.0
        self._size = 0

    def allowance(self) -> float:
        return self._window - self._waited

    def got(self, waited: float, size: int) -> bool:
        """True: a window is over and has brought too little."""
        self._waited += waited
        self._size += size
        if self._waited < self._window:
            return False
        too_slow = self._size < self._least
        self._waited, self._size = 0.0, 0
        return too_slow


def backoff(attempts: int, draw: Callable[[], float], base: float = 0.2, longest: float = 3.0) -> Iterator[float]:
    """Seconds to wait before each further attempt, attempts - 1 of them: doubling, with full jitter.

    draw: a number from 0 to 1. Without jitter, all replicas would come back at the same moment.
    """
    for attempt in range(attempts - 1):
        yield min(longest, base * 2**attempt) * (0.5 + draw() / 2)


class Breaker:
    """A circuit breaker: after `threshold` faults in a row an upstream is left alone for a while, then tried once.

    closed ──threshold faults──> open ──pause──> half-open: one trial ──answer──> closed, ──fault──> open, for longer
    """

    def __init__(
        self,
        clock: Callable[[], float],
        draw: Callable[[], float],
        *,
        threshold: int = 5,
        pause: float = 5.0,
        longest: float = 60.0,
    ) -> None:
        self._clock, self._draw = clock, draw
        self._threshold, self._pause, self._longest = threshold, pause, longest
        self._faults = 0
        self._until = 0.0
        self._trial = False

    @property
    def open(self) -> bool:
        return self._faults >= self._threshold

    def enter(self) -> float | None:
        """None: go on, and say how it ended. Else the seconds after which to ask again."""
        if not self.open:
            return None
        now = self._clock()
        if now < self._until or self._trial:
            return max(self._until - now, 1.0)
        self._trial = True
        return None

    def answered(self) -> bool:
        """The upstream is there. True: that is news."""
        was_open = self.open
        self._faults, self._trial = 0, False
        return was_open

    def failed(self) -> bool:
        """True: that has opened the breaker."""
        was_open = self.open
        if was_open and not self._trial:
            return False  # one of those that were under way when it opened
        self._trial = False
        self._faults += 1
        if not self.open:
            return False
        pause = min(self._longest, self._pause * 2.0 ** min(self._faults - self._threshold, 16))
        self._until = self._clock() + pause * (0.5 + self._draw() / 2)
        return not was_open

    def abandoned(self) -> None:
        """We gave up ourselves: it says nothing of the upstream."""
        self._trial = False
