"""How many parts of an object are fetched ahead of its reader, learned from what helps. No I/O here.

One stream is as fast as ranges side by side where nothing limits a connection, and cheaper; where something does, such
as S3 itself at some 90 MB/s, ranges win by their number. Nobody knows beforehand, so the process measures:

- The window is shut or open. Open is tried between two looks at shut, and taken only if it is half as fast again as the
  faster of the two: what speeds up by itself, on a busy machine, does so for both.
- Then it rests, longer each time, before it learns anew.
- What counts are spans in which the store was waited for, not the client, and behind those in which what was fetched in
  another way came to its end.
- It belongs to the process. Only readers of large objects try; all others use what has been found. Many readers are
  parallel as they are: the more of them, the fewer parts each.
- Parts fill buffers of one budget. Where none is free nothing is fetched ahead, and a reader never waits for one.
"""

PART = 4 << 20
"""Bytes of a part, and of a buffer."""

SPAN = 16 << 20
"""Bytes over which a rate is measured."""

STREAMS = 8
"""Streams side by side that are worth having, of all readers together."""

GAIN = 1.5
"""Eight streams at 90 MB/s each, 20 ms away, give 4 times one; on a machine where one stream takes all there is, the
same stream was seen to vary by half between two seconds. There is nothing between one and eight: four give 2.8 times
one there, so that eight beside four would have to be told from noise."""

SAMPLES = 2
"""Spans that are measured in one way, of which the faster counts."""

TRYING = (STREAMS - 1) * PART + 2 * SPAN
"""Bytes of an object whose reader tries: it reads a span after all that is ahead has been changed."""

BUDGET = 32 << 20
"""Bytes of buffers."""

_WORTH_TRYING = 3
"""Parts ahead of each reader, below which there is little to be seen."""

_REST = 300.0
_LONGEST_REST = 3600.0


class Window:
    """Times in seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._open = False
        self._samples: list[float] = []
        self._rates: list[float] = []  # shut, open, and shut again
        self._readers = 0
        self._rest = _REST
        self._rests_until: float | None = None

    def parts(self, readers: int, *, tries: bool = True) -> int:
        """Parts that each of so many readers may fetch ahead. tries: does it measure what an open window brings?"""
        tried = tries and len(self._rates) == 1
        return _worth(readers) if self._open or tried else 0

    def record(self, parts: int, readers: int, size: int, elapsed: float, waited: float, now: float) -> None:
        """One of so many readers has read a span with so many parts ahead. waited: the store's share of elapsed."""
        if self._rests_until is not None:
            if now < self._rests_until:
                return
            self._rests_until = None
            self._open = False
            self._look_again()
        if readers != self._readers:  # their number changes the rate of each: what was measured cannot be compared
            self._readers = readers
            self._look_again()
        if _worth(readers) < _WORTH_TRYING:
            return  # fewer readers may get more
        trial = len(self._rates) == 1
        # a client that is overtaken by the open window is what that is for
        if parts != self.parts(readers) or elapsed <= 0 or (not trial and waited < elapsed / 2):
            return
        self._samples.append(size / elapsed)
        if len(self._samples) == SAMPLES:
            self._rates.append(max(self._samples))
            self._samples = []
            self._decide(now)

    def _decide(self, now: float) -> None:
        looks, tried = self._rates[::2], self._rates[1:2]
        if tried and tried[0] < GAIN * max(looks):
            self._settle(False, now)
        elif len(looks) == 2:
            self._settle(True, now)

    def _look_again(self) -> None:
        self._samples, self._rates = [], []

    def _settle(self, is_open: bool, now: float) -> None:
        self._open = is_open
        self._look_again()
        self._rests_until = now + self._rest
        self._rest = min(2 * self._rest, _LONGEST_REST)


def _worth(readers: int) -> int:
    """Parts ahead that are worth having for each of so many."""
    return max(0, STREAMS // max(1, readers) - 1)


class Buffers:
    """Buffers of one part each, made when they are first needed, and used again."""

    def __init__(self, budget: int) -> None:
        self._left = budget // PART
        self._free: list[bytearray] = []

    def take(self) -> bytearray | None:
        if self._free:
            return self._free.pop()
        if not self._left:
            return None
        self._left -= 1
        return bytearray(PART)

    def give(self, buffer: bytearray) -> None:
        self._free.append(buffer)


class LookAhead:
    """What all readers of a process share. readers: how many there are of objects that are worth it."""

    def __init__(self, budget: int = BUDGET) -> None:
        self.window = Window()
        self.buffers = Buffers(budget)
        self.readers = 0
