"""LinkCache: links that are believed for a while, because they were read, or because a manifest vouches for them.

That a link exists is no immutable fact: a DELETE in any process ends it. So nothing here is older than `ttl` seconds,
counted from before the store was asked; and what this process deletes is forgotten at once: what was read before the
delete is not kept after it, and no manifest vouches for it until the link has been read again.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from storage.digest import Digest
from storage.lookups import Asked

_DROPPED = 4096
"""Deleted links that are remembered."""


@dataclass(frozen=True, slots=True)
class Known:
    """target: what the link names. asked: by the cache's clock, when the store was asked at the latest."""

    target: Digest
    asked: float


class LinkCache:
    """ttl: seconds; with 0 nothing is kept. limit: links, the least recently used dropped first.

    asked: where its requests are counted; with a ttl of 0 it is no cache, and nobody asks.
    enclosing: did the last link of a revision that was read enclose its manifest (enclosed.py)?
    """

    def __init__(
        self,
        ttl: float,
        *,
        limit: int = 16_384,
        clock: Callable[[], float] = time.monotonic,
        asked: Asked | None = None,
    ) -> None:
        self.ttl = ttl
        self.enclosing = True
        self._asked = asked or Asked()
        self.clock = clock
        self._limit = limit
        self._known: OrderedDict[str, Known] = OrderedDict()
        self._dropped: OrderedDict[str, float] = OrderedDict()

    def get(self, key: str) -> Known | None:
        self._asked.requests += self.ttl > 0
        known = self._known.get(key)
        if known is None:
            return None
        if self.clock() - known.asked >= self.ttl:
            del self._known[key]
            return None
        self._asked.hits += 1
        self._known.move_to_end(key)
        return known

    def keep(self, key: str, target: Digest, asked: float) -> None:
        """The link was read. asked: clock() before that."""
        if (dropped := self._dropped.get(key)) is not None:
            if asked <= dropped:
                return
            del self._dropped[key]
        self._store(key, target, asked)

    def vouch(self, key: str, target: Digest, asked: float) -> None:
        """The link must be there, since something was served that cannot be without it. asked: when that was read."""
        known = self._known.get(key)
        if key not in self._dropped and (known is None or known.asked < asked):
            self._store(key, target, asked)

    def forget(self, key: str) -> None:
        """What the link leads to is gone: ask again."""
        self._known.pop(key, None)

    def drop(self, key: str) -> None:
        """The link was deleted."""
        self.forget(key)
        self._dropped[key] = self.clock()
        self._dropped.move_to_end(key)
        if len(self._dropped) > _DROPPED:
            self._dropped.popitem(last=False)

    def _store(self, key: str, target: Digest, asked: float) -> None:
        if self.ttl <= 0:
            return
        self._known[key] = Known(target, asked)
        self._known.move_to_end(key)
        if len(self._known) > self._limit:
            self._known.popitem(last=False)
