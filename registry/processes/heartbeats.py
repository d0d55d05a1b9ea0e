"""Does the event loop of each worker still turn? A worker counts on in shared memory, and its parent looks.

A worker that hangs dies of nothing, and the kernel goes on giving it its share of the connections: those clients wait
until they give up. The parent counts its own looks, not seconds: where all were frozen together (`docker pause`, a
machine that slept), it has not looked either, and nobody is taken for one that hangs.
"""

import asyncio
import mmap
from collections.abc import Callable

BEAT = 1.0
"""Seconds between two of a worker's."""
LOOK = 5.0
"""Seconds between two looks of the parent."""
LOOKS = 12
"""In a row without a beat, after which a worker hangs: a minute, which no work in the loop takes."""


class Heartbeats:
    """Made before the fork. `beat` is a worker's, `silence` its parent's."""

    def __init__(self, count: int) -> None:
        self._beats = mmap.mmap(-1, count)
        self._seen = [0] * count
        self._looks = [0] * count

    def beat(self, number: int) -> None:
        self._beats[number] = (self._beats[number] + 1) % 256

    def silence(self, number: int) -> int:
        """One look more. Returns how many there have been since the last beat."""
        beats = self._beats[number]
        self._looks[number] = 0 if beats != self._seen[number] else self._looks[number] + 1
        self._seen[number] = beats
        return self._looks[number]


def keep_beating(beat: Callable[[], None]) -> None:
    """As long as the running loop does."""
    beat()
    asyncio.get_running_loop().call_later(BEAT, keep_beating, beat)
