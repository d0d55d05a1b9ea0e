"""What a process remembers of an upstream's tags: when each was last compared, and what was not there a moment ago.

A hint and no record: after a restart, and in another replica, the time at which a tag's link was written or touched
says how old it is. So the memory may be small, and forgets the least recently used.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from storage.digest import Digest
from storage.errors import StorageError
from storage.names import RepositoryName

V = TypeVar("V")
Key = tuple[RepositoryName, str]

MISSING_FOR = 15.0
"""Seconds: long enough to make one question of a fleet's typing error, short enough for who has just pushed."""

LISTED_FOR = 15.0
"""Seconds for which a list of tags that has to be fetched whole is not fetched again: of all pages that a client asks
for, one is dear."""


class Recent(Generic[V]):
    """At most `limit` values, the least recently used dropped first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: OrderedDict[Key, V] = OrderedDict()

    def get(self, key: Key) -> V | None:
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def keep(self, key: Key, value: V) -> None:
        self._kept[key] = value
        self._kept.move_to_end(key)
        if len(self._kept) > self._limit:
            self._kept.popitem(last=False)


@dataclass(frozen=True, slots=True)
class _Checked:
    digest: Digest
    at: float


class Freshness:
    """clock: seconds that never go back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._checked: Recent[_Checked] = Recent(65_536)
        self._missing: Recent[tuple[StorageError, float]] = Recent(8_192)
        self._listed: Recent[tuple[list[str], float]] = Recent(16)

    def checked(self, name: RepositoryName, tag: str, digest: Digest, age: float = 0.0) -> None:
        """`age` seconds ago the tag named digest, said the upstream."""
        self._checked.keep((name, tag), _Checked(digest, self._clock() - age))

    def age(self, name: RepositoryName, tag: str, digest: Digest) -> float | None:
        """Seconds since that was last known to be so; None: not known here."""
        found = self._checked.get((name, tag))
        return self._clock() - found.at if found is not None and found.digest == digest else None

    def missed(self, name: RepositoryName, reference: str, why: StorageError) -> None:
        self._missing.keep((name, reference), (why, self._clock()))

    def check_missing(self, name: RepositoryName, reference: str) -> None:
        """Raises what the upstream said a moment ago, if it was that there is no such thing for us."""
        found = self._missing.get((name, reference))
        if found is not None and self._clock() - found[1] < MISSING_FOR:
            raise found[0].with_traceback(None)

    def listed(self, name: RepositoryName, tags: list[str]) -> None:
        self._listed.keep((name, ""), (tags, self._clock()))

    def tags(self, name: RepositoryName) -> list[str] | None:
        found = self._listed.get((name, ""))
        return found[0] if found is not None and self._clock() - found[1] < LISTED_FOR else None
