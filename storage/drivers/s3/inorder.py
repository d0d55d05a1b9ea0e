"""Names that a store lists in the order of its keys, given in the order that the driver's contract wants. Pure.

S3 lists by the bytes of whole keys, and `-` and `.` sort before `/`: `1-alpine/` comes before `1/`, while the name `1`
comes before `1-alpine`. A name is settled when the listing has passed every place where one that belongs before it
could still turn up: its barrier.
"""

from bisect import insort
from collections.abc import Callable


class InOrder:
    """sort: what names are ordered by.   barrier: the key that the listing must have reached for a name to be settled.

    limit: names that are wanted, from the first; None for all.
    """

    def __init__(
        self, limit: int | None, barrier: Callable[[str], str], sort: Callable[[str], list[str]] = lambda name: [name]
    ) -> None:
        self._limit = limit
        self._barrier = barrier
        self._sort = sort
        self._names: list[str] = []
        self._seen: set[str] = set()

    def add(self, name: str) -> None:
        if name not in self._seen:
            self._seen.add(name)
            insort(self._names, name, key=self._sort)

    def enough(self, cursor: str) -> bool:
        """Are `limit` names settled, now that all keys up to `cursor` have been listed?"""
        if self._limit is None or len(self._names) < self._limit:
            return False
        return all(self._barrier(name) <= cursor for name in self._names[: self._limit])

    def names(self) -> list[str]:
        return self._names[: self._limit]


def overtaken(name: str) -> list[str]:
    """The names (or paths) that belong before this one, and whose folders are listed behind it: `a` for `a-b`."""
    return [name[:at] for at in range(1, len(name)) if name[at] in "-." and name[at - 1] != "/"]
