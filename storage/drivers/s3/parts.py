"""The memory of a part while it is received.

It is taken at once in the size of the part, and used for the next part but one: what grows step by step is moved again
and again and leaves holes in the heap (uploads side by side took 34 to 38 MiB each for their two parts of 10 MiB). Only
what may stay small begins small.
"""

_SMALL = 1 << 20


class PartBuffer:
    """size: bytes of the part. Views of what was filled before `begin` show other bytes after it."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.filled = 0
        self._memory = bytearray(min(size, _SMALL >> 4))

    def begin(self, size: int) -> None:
        """Another part, in the same memory."""
        self.size, self.filled = size, 0

    @property
    def is_full(self) -> bool:
        return self.filled >= self.size

    def add(self, data: memoryview) -> memoryview:
        """Returns what has no room."""
        taken = data[: self.size - self.filled]
        end = self.filled + len(taken)
        if end > len(self._memory):
            small = max(end, 2 * len(self._memory))
            memory = bytearray(min(self.size, small) if small <= _SMALL else self.size)
            memory[: self.filled] = memoryview(self._memory)[: self.filled]
            self._memory = memory
        self._memory[self.filled : end] = taken
        self.filled = end
        return data[len(taken) :]

    @property
    def view(self) -> memoryview:
        """What has been filled; where that is less than half of the memory, a copy that holds no more."""
        filled = memoryview(self._memory)[: self.filled]
        return filled if 2 * self.filled > len(self._memory) else memoryview(bytes(filled))
