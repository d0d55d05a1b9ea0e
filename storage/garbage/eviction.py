"""Eviction: how a cache keeps its bounds, on any StorageDriver, also while others pull from it and push beside it.

    look     list every blob, and what repositories outside of the cache link to: the rest is the cache's size
    choose   read every manifest of the cache; what was used least recently is given up (lru.py)
    remove   of each such image the tags, then the revisions, unless it was used meanwhile
    collect  mark and sweep what nobody names any more, hosted or cached (collect.py, Options.cache)

What may be cut off, and when:
- At any point a killed run leaves a valid store: a tag goes before its revision, a manifest before its blobs, and of
  what is missing the cache fetches all again. The next run finishes.
- Two runs at once choose from the same times in the same order, so they choose the same; what one has removed the other
  finds gone. A run that looks while another removes sees less to keep, and stops at the same room. So nothing has to
  keep them apart but thrift (registry/proxy/eviction.py).
- What was used within `grace` stays. Uses are recorded when they are older than a quarter of that (renewals.py), and a
  process remembers for another quarter that they are: so for half of the grace from a manifest's last pull, a blob's
  last read or redirect, it goes nowhere. This is the time that a download which has begun, or a presigned URL that was
  given away, has on a store where an object that is deleted cannot be read to its end. On a filesystem it can.
- A push to a hosted repository that finds a blob of the cache (a HEAD, a mount, an upload of the same bytes) renews it
  as it does against a collector, within the same `grace`: registry/app.py sees to that. What is older than the grace
  when it is swept is therefore another version by then, and stays; and once a hosted link is there, that keeps it.
- A blob that nobody has needed for longer may be asked for between the last look at its links and its delete. That is
  one call to the store. Who has opened it on S3 in that moment is cut off, and fetches it anew at the next try.

Calls: `look` makes one LIST for a thousand blobs, two listings of each repository's folder, and for one outside of the
cache those of its links. A run reads every manifest of the cache twice, of others once, and lists all links four times.
Memory: 17 bytes for each blob, 600 for each manifest of the cache.
"""

import time
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field

from storage import layout
from storage.content import ContentStore
from storage.driver import StorageDriver
from storage.garbage.collect import Collected, Collector, Options
from storage.garbage.links import Link, blobs, layer_links, links_below, repository_names, target_of
from storage.garbage.lru import Choice, Image, Limits, choose, images
from storage.garbage.manifests import Node, Surveyor, each
from storage.garbage.removal import is_as_listed, remove_from_tags, remove_manifest
from storage.garbage.table import HELD, BlobTable
from storage.garbage.watch import Watcher
from storage.names import RepositoryName
from storage.parallel import for_all, for_each
from storage.tags import Tags


@dataclass(frozen=True, slots=True)
class Evicted:
    """manifests: removed.   collected: what went with them.   kept: bytes that the images that stay have in the cache.

    size: bytes of the cache afterwards, as far as it was measured.   oldest: when the first of the images that stay was
    used last, in seconds since 1970; math.inf: there are none.
    """

    manifests: int
    collected: Collected
    kept: int
    size: int
    oldest: float
    seconds: float


@dataclass
class Eviction:
    """One run over one store.

    caches: is a repository one of the cache?   grace: seconds; what was used later stays.   watcher: is told of all.
    """

    driver: StorageDriver
    caches: Callable[[RepositoryName], bool]
    grace: float
    watcher: Watcher = field(default_factory=Watcher)
    size: int = 0
    """Bytes of the cache, after `look`."""

    def __post_init__(self) -> None:
        self._table = BlobTable(with_sizes=True)
        self._names: list[RepositoryName] = []

    async def look(self) -> int:
        """The size of the cache: bytes to which no repository outside of it links. Raises Unavailable."""
        async for digest, info in blobs(self.driver):
            self._table.add(digest, info.size)
            self.size += info.size
        self._names = await repository_names(self.driver)
        for name in self._names:
            if not self.caches(name):
                await for_each(layer_links(self.driver, name), self._hold)
                await for_each(self._revisions(name), self._hold)
        return self.size

    async def run(self, *, room: float, age: float) -> Evicted:
        """After `look`. room: bytes to get down to; math.inf: any.   age: seconds without use; math.inf: any.

        Raises Unavailable, when what was removed is removed.
        """
        begun, now = time.monotonic(), await self.driver.now()
        choice = await self._choose(Limits(room, now - age, now - self.grace))
        removed = 0
        for name, doomed in _by_name(choice.doomed).items():
            removed += await self._remove(name, doomed)
        options = Options(grace=self.grace, cache=self.caches)
        collected = await Collector(ContentStore(self.driver), options, self.watcher).run()
        self.size -= collected.size
        seconds = time.monotonic() - begun
        return Evicted(removed, collected, choice.size, self.size, choice.oldest, seconds)

    async def _revisions(self, name: RepositoryName) -> AsyncIterator[Link]:
        async for link in links_below(self.driver, layout.revisions(name)):
            if isinstance(link, Link):
                yield link

    async def _hold(self, link: Link) -> None:
        """Not the cache's alone: its bytes stay, whatever the cache gives up."""
        for digest in {link.name, await target_of(self.driver, link) or link.name}:
            place = self._table.find(digest)
            if place is not None and self._table.mark(place, HELD):
                self.size -= self._table.size(place)

    async def _choose(self, limits: Limits) -> Choice:
        surveyor = Surveyor(self.driver, self._table, lambda name, link, places: None)
        found: list[Image] = []
        for name in self._names:
            if self.caches(name):
                found += images(await surveyor.survey(name, lambda info: False))
        return choose(found, self._table, limits)

    async def _remove(self, name: RepositoryName, doomed: list[Image]) -> int:
        """Of one repository, those that nobody has used meanwhile. Returns how many manifests."""

        async def is_unused(image: Image) -> bool:
            link = image.members[0].info
            return link is None or await is_as_listed(self.driver, link)

        unused = await for_all(doomed, is_unused)
        members = [node for image, is_one in zip(doomed, unused, strict=True) if is_one for node in image.members]
        await Tags(name, self.driver).delete_all_of(*(node.digest for node in members))
        await remove_from_tags(self.driver, name, {node.digest for node in members})
        removed = 0

        async def remove(node: Node) -> None:
            nonlocal removed
            if await remove_manifest(self.driver, name, node):
                removed += 1
                self.watcher.manifest(name, node.digest)

        await for_each(each(members), remove)
        return removed


def _by_name(doomed: Iterable[Image]) -> dict[RepositoryName, list[Image]]:
    """In the order of each repository's first, which was used least recently."""
    found: dict[RepositoryName, list[Image]] = {}
    for image in doomed:
        found.setdefault(image.name, []).append(image)
    return found
