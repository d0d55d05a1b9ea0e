"""How many parts of an object are fetched ahead of its reader, learned from what helps. No I/O here.

One stream is as fast as ranges side by side where nothing limits a connection, and cheaper; where something does, such
as S3 itself at some 90 MB/s, ranges win by their number. Nobody knows beforehand, so the process measures:

- The window is 0, 1, 3 or 7 parts. It grows by a step, stays there if that has raised the rate by 15 %, and otherwise
  goes back. Then it rests, longer each time, before it learns anew.
- What counts are spans in which the store was waited for, not the client.
- It belongs to the process. Many readers are parallel as they are: the more of them, the fewer parts each.
- Parts fill buffers of one budget. Where none is free nothing is fetched ahead, and a reader never waits for one.
"""

PART = 4 << 20
"""Bytes of a part, and of a buffer."""

SPAN = 16 << 20
"""Bytes over which a rate is measured."""

LEVELS = (0, 1, 3, 7)
GAIN = 1.15
SAMPLES = 2
"""Spans that are measured on a level, of which the faster counts: the first has to get going."""

STREAMS = 8
"""Streams side by side that are worth having, of all readers together."""

_REST = 300.0
_LONGEST_REST = 3600.0


class Window:
    """Times in seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._level = 0
        self._samples: list[float] = []
        self._below: float | None = None
        self._rest = _REST
        self._readers = 0
        self._settled_until: float | None = None

    def parts(self, readers: int) -> int:
        """Parts that each of so many readers may fetch ahead."""
        return min(LEVELS[self._level], max(0, STREAMS // max(1, readers) - 1))

    def record(self, parts: int, readers: int, size: int, elapsed: float, waited: float, now: float) -> None:
        """One of so many readers has read a span with so many parts ahead. waited: the store's share of elapsed."""
        if parts != LEVELS[self._level] or elapsed <= 0 or waited < elapsed / 2:
            return
        if self._settled_until is not None:
            if now >= self._settled_until:
                self._settled_until = None
                self._go(0, None)
            return
        if readers != self._readers:  # their number changes the rate of each: what was measured cannot be compared
            self._readers = readers
            self._go(self._level, None)
        self._samples.append(size / elapsed)
        if len(self._samples) < SAMPLES:
            return
        rate = max(self._samples)
        if self._below is not None and rate < self._below * GAIN:
            self._go(self._level - 1, None)
            self._settle(now)
        elif self._level + 1 == len(LEVELS):
            self._settle(now)
        elif LEVELS[self._level + 1] < STREAMS // max(1, readers):
            self._go(self._level + 1, rate)
        else:
            self._samples = []  # as many as are worth having; fewer readers may get more

    def _go(self, level: int, below: float | None) -> None:
        self._level, self._samples, self._below = level, [], below

    def _settle(self, now: float) -> None:
        self._settled_until = now + self._rest
        self._rest = min(2 * self._rest, _LONGEST_REST)


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
    """What all readers of a process share. budget: bytes of buffers; 0 turns looking ahead off."""

    def __init__(self, budget: int) -> None:
        self.window = Window()
        self.buffers = Buffers(budget)
        self.readers = 0
        self._on = budget >= PART

    @property
    def parts(self) -> int:
        return self.window.parts(self.readers) if self._on else 0
