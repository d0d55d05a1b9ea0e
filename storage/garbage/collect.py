"""Mark and sweep: remove the bytes that no manifest names, on any StorageDriver, also while others push.

    table    list every blob; what comes later is in no danger
    mark     read every manifest of every repository; with `untagged`, find those that are alive (manifests.py)
    remove   with `untagged`: look again, repository by repository, and delete the manifests that are not
    sweep    for a batch of unmarked, old blobs: mark what has come into use since, then delete what still is not
    links    remove the layer links that lead to swept blobs, and what a killed run has left of them

Any fault and any unreadable manifest during `table` and `mark` stops with nothing deleted. Every later step leaves a
store as a whole run would: what is deleted is garbage for itself, so a killed run, or two at once, do no harm, and the
next one finishes. A fault in the middle of the sweep stops it too. Blobs go before their links, since without its link
a blob that is renewed at that moment could not be pulled. So a killed run leaves links to nothing. The next one knows
them by this: they are older than the grace, their blob is gone, and no manifest of their repository names it. What a
manifest does name is damage, and its link stays: if the bytes come back, from a backup, say, the image is whole again.

Why a push beside it loses nothing. A blob goes only if, in this order,
  1. it was stored before the collection began, and no manifest named it when all were read;
  2. it is older than the grace, by the store's clock, and so are all links to it;
  3. no manifest written since the mark names it, and no link to it was written since (once per batch);
  4. it is still the version of 2 at the delete.
A push that needs an old blob does one of three things to it: it uploads it again, which writes its link (3), and the
blob (4); it mounts it, which writes a link (3); or it asks with HEAD and skips the upload. So writers *renew* what they
find by HEAD, mount or the check at manifest PUT (renewals.py): they touch it, which makes it young (2), another version
(4), or fails since it is gone, and then the client is told so. What the grace cannot cover is a writer that takes
longer than 3/4 of it from its last look at a blob to its manifest; that manifest's PUT checks again and refuses.
On the filesystem looking at the version and removing the file are one step under one lock, so nothing falls in between.
A store that cannot delete by version leaves the moment between `head` and `delete`: there the writer looks once more at
what it renewed *after* it has written the revision, and before it sets a tag. Then it sees the blob gone, takes the
revision back and says MANIFEST_BLOB_UNKNOWN; unless the collector has stood still between two calls for all of that.

Writers that renew nothing (distribution) are safe from 1 to 3 but for the skipped upload. With a grace of 0 nobody may
push at all, as with distribution's collector.

A cache alone (Options.cache) has a short grace, and gives up only what came by it. So a blob to which any repository
outside of it links stays, whatever names it: 2 to 4 need no grace for pushes then. Whoever reads in the cache touches
the link first (registry/proxy/uses.py); so right before a blob goes, the links that lead to it are looked at once more,
and one that was touched since they were listed keeps it. Its manifests may come before their blobs, and one whose blob
has gone is no damage: the blob is fetched again.

Memory: 9 bytes for each blob (table.py), about 100 for each repository, 600 for each manifest of one
repository at a time, and a batch.
"""

import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from storage import layout
from storage.content import ContentStore
from storage.digest import Digest
from storage.driver import ObjectInfo
from storage.errors import ObjectNotFound, PreconditionFailed
from storage.garbage.links import Link, blobs, layer_links, repository_names, target_of
from storage.garbage.manifests import Node, Survey, Surveyor, Young
from storage.garbage.removal import is_as_listed, remove_from_tags, remove_manifest
from storage.garbage.table import FRESH, HELD, NEEDED, SWEPT, BlobTable
from storage.garbage.watch import Watcher
from storage.names import RepositoryName
from storage.parallel import for_each
from storage.purge import Purged, purge_uploads

BATCH = 10_000
"""Blobs between two looks for news: each look lists all links of all repositories."""

_OVERLAP = 300.0
"""Seconds: a look for news reaches this far behind the last one, for writes that were under way. Not with a grace of 0:
then none is, and what was pushed a minute ago may be deleted and collected."""


@dataclass(frozen=True, slots=True)
class Options:
    """grace: seconds; 0: nobody pushes.   untagged: remove manifests without a tag, too.

    purge: seconds after which idle uploads are removed; None: they stay.
    cache: says of a repository whether it is a cache of what can be fetched again; then only what those alone brought
    is collected. None: everything is.
    """

    grace: float
    untagged: bool = False
    dry_run: bool = False
    purge: float | None = None
    cache: Callable[[RepositoryName], bool] | None = None


_NOTHING = Purged(0, 0)


@dataclass(frozen=True, slots=True)
class Collected:
    """What a run has removed, or would have. Sizes in bytes, seconds on this machine's clock.

    young: what nothing names, but which is younger than the grace, with young_size bytes.
    """

    repositories: int = 0
    manifests: int = 0
    blobs: int = 0
    marked: int = 0
    swept: int = 0
    size: int = 0
    removed: int = 0
    links: int = 0
    young: int = 0
    young_size: int = 0
    uploads: Purged = _NOTHING
    seconds: float = 0.0


class Collector:
    """One run over one store. watcher: is told of what happens."""

    def __init__(self, content: ContentStore, options: Options, watcher: Watcher | None = None) -> None:
        self._content = content
        self._driver = content.driver
        self._options = options
        self._watch = watcher or Watcher()
        self._table = BlobTable()
        self._surveyor = Surveyor(self._driver, self._table, None if options.cache is None else self._on_link)
        self._links: dict[int, list[ObjectInfo]] = {}
        self._untidy: set[RepositoryName] = set()
        """Where a killed run has left something."""
        self._overlap = min(_OVERLAP, options.grace)
        self._horizon = 0.0
        self.done = Collected()
        """What has happened so far, also when run() raises."""

    async def run(self) -> Collected:
        """Raises UnreadableManifest and Unavailable; `done` says what was removed until then."""
        begun = time.monotonic()
        started = await self._driver.now()
        self._horizon = started - self._options.grace
        try:
            await self._list_blobs()
            doomed = await self._mark(await repository_names(self._driver))
            if self._options.untagged and not self._options.dry_run:
                for name in doomed:
                    await self._remove_manifests(name)
            await self._sweep(started)
            await self._remove_links()
            if self._options.purge is not None:
                purged = await purge_uploads(self._content, self._options.purge, dry_run=self._options.dry_run)
                self._count(uploads=purged)
        finally:
            self._count(seconds=time.monotonic() - begun)
        return self.done

    def _young(self, info: ObjectInfo) -> bool:
        return self._options.grace > 0 and info.modified > self._horizon

    def _count(self, **changes: object) -> None:
        self.done = replace(self.done, **changes)  # type: ignore[arg-type]

    # Table and mark

    async def _list_blobs(self) -> None:
        self._watch.phase("listing blobs")
        async for digest, info in blobs(self._driver):
            self._table.add(digest, info.size)
            self._watch.step()
        self._count(blobs=len(self._table))

    async def _mark(self, names: list[RepositoryName]) -> list[RepositoryName]:
        """Returns the repositories that have manifests to remove."""
        self._watch.phase("marking", total=len(names))
        doomed = []
        for name in names:
            survey = await self._surveyor.survey(name, self._young)
            living = self._mark_living(survey)
            if self._leftovers(survey):
                self._untidy.add(name)
            dead = [node for digest, node in survey.nodes.items() if digest not in living]
            if dead:
                doomed.append(name)
            if self._options.dry_run:
                for node in dead:
                    self._watch.manifest(name, node.digest)
                self._count(removed=self.done.removed + len(dead))
            self._count(repositories=self.done.repositories + 1, manifests=self.done.manifests + len(survey.nodes))
            self._watch.step()
        return doomed

    def _mark_living(self, survey: Survey) -> set[Digest]:
        living = survey.living(untagged=self._options.untagged, young=self._young)
        for digest in living:
            self._mark_places(survey.nodes[digest])
        self._surveyor.mark(survey.fresh, FRESH)
        return living

    def _mark_places(self, node: Node) -> None:
        for place in node.places:
            if self._table.mark(place):
                self._count(marked=self.done.marked + 1)

    # Manifests without a tag

    async def _remove_manifests(self, name: RepositoryName) -> None:
        """Look again: what was tagged or pushed since the mark lives, and now is marked."""
        survey = await self._surveyor.survey(name, self._young)
        living = self._mark_living(survey)
        doomed = [node for digest, node in survey.nodes.items() if digest not in living]
        await remove_from_tags(self._driver, name, {node.digest for node in doomed})
        for node in doomed:
            await self._remove_manifest(name, node)

    async def _remove_manifest(self, name: RepositoryName, node: Node) -> None:
        if not await remove_manifest(self._driver, name, node):
            self._mark_places(node)
            return
        self._watch.manifest(name, node.digest)
        self._count(removed=self.done.removed + 1)

    # Blobs

    async def _sweep(self, started: float) -> None:
        self._watch.phase("sweeping", total=len(self._table))
        batch: list[tuple[Digest, ObjectInfo]] = []
        since = started - self._overlap
        async for digest, info in blobs(self._driver):
            self._watch.step()
            place = self._table.find(digest)
            if place is None or self._table.is_marked(place, NEEDED | HELD):
                continue
            if self._young(info) or self._table.is_marked(place, FRESH):
                self._count(young=self.done.young + 1, young_size=self.done.young_size + info.size)
                continue
            batch.append((digest, info))
            if len(batch) >= BATCH:
                since = await self._sweep_batch(batch, since)
                batch = []
        if batch:
            await self._sweep_batch(batch, since)

    async def _sweep_batch(self, batch: list[tuple[Digest, ObjectInfo]], since: float) -> float:
        """Returns the time since which the next batch has to look for news."""
        now = await self._driver.now()
        places = (self._table.find(digest) for digest, _ in batch)
        self._links = {place: [] for place in places if place is not None}
        if not self._options.dry_run:
            for name in await repository_names(self._driver):
                await self._surveyor.news(name, since, self._written_since(since))
        await for_each(_each(batch), self._sweep_one)
        return now - self._overlap

    def _on_link(self, name: RepositoryName, link: ObjectInfo, places: Sequence[int]) -> None:
        """Of a cache that is collected alone: who has the blobs, and by which links can those of the batch be read?"""
        assert self._options.cache is not None
        if not self._options.cache(name):
            self._surveyor.mark(places, HELD)
            return
        for place in places:
            if place in self._links:
                self._links[place].append(link)

    async def _sweep_one(self, item: tuple[Digest, ObjectInfo]) -> None:
        digest, listed = item
        place = self._table.find(digest)
        if place is None or self._table.is_marked(place, NEEDED | FRESH | HELD):
            return
        if not self._options.dry_run and not await self._delete_blob(listed, self._links[place]):
            return
        self._table.mark(place, SWEPT)
        self._watch.blob(digest, listed.size)
        self._count(swept=self.done.swept + 1, size=self.done.size + listed.size)

    async def _delete_blob(self, listed: ObjectInfo, links: Sequence[ObjectInfo]) -> bool:
        """If nobody has written or touched it, nor any of the links, since they were listed."""
        for each in (listed, *links):
            if not await is_as_listed(self._driver, each):
                return False
        try:
            await self._driver.delete(listed.key, if_version=listed.version)
        except PreconditionFailed:
            return False
        return True

    def _written_since(self, since: float) -> Young:
        """Links by which a push may have come to need an old blob. With a grace of 0, too: it costs nothing."""
        return lambda info: info.modified > since or self._young(info)

    # Links to what was swept

    async def _remove_links(self) -> None:
        """A link to nothing does no harm (it is a 404, and a push writes it again), but each is listed for ever."""
        names = await repository_names(self._driver) if self.done.swept else sorted(self._untidy)
        self._watch.phase("removing links", total=len(names))
        for name in names:
            if self.done.swept:
                await for_each(layer_links(self._driver, name), partial(self._remove_if_swept, name))
            if name in self._untidy:
                await self._tidy(name)
            self._watch.step()

    async def _remove_if_swept(self, name: RepositoryName, link: Link) -> None:
        target = await target_of(self._driver, link)
        place = None if target is None else self._table.find(target)
        if target is not None and place is not None and self._table.is_marked(place, SWEPT):
            await self._remove_link(name, link, target)

    async def _remove_link(self, name: RepositoryName, link: Link, target: Digest) -> None:
        """Not if the blob was pushed again, or is the namesake of what was swept; nor if the link was written again."""
        if not self._options.dry_run and not await self._remove_dangling(link, target):
            return
        self._watch.link(name, link.name)
        self._count(links=self.done.links + 1)

    async def _remove_dangling(self, link: Link, target: Digest) -> bool:
        try:
            await self._driver.head(layout.blob_data(target))
        except ObjectNotFound:
            try:
                await self._driver.delete(link.info.key, if_version=link.info.version)
            except PreconditionFailed:
                return False
            return True
        return False

    # What a killed run has left

    def _leftovers(self, survey: Survey) -> list[Link | ObjectInfo]:
        """Of a cache that is collected alone: its own."""
        if self._options.cache is not None and not self._options.cache(survey.name):
            return []
        links = [link for link in survey.dangling.values() if not self._young(link.info)]
        return [*links, *(info for info in survey.orphans if not self._young(info))]

    async def _tidy(self, name: RepositoryName) -> None:
        """Looks again: what was pushed since the mark may need them."""
        for left in self._leftovers(await self._surveyor.survey(name, self._young)):
            if isinstance(left, Link):
                target = await target_of(self._driver, left)
                if target is not None:
                    await self._remove_link(name, left, target)
            elif not self._options.dry_run:
                await self._driver.delete(left.key)


async def _each(batch: list[tuple[Digest, ObjectInfo]]) -> AsyncIterator[tuple[Digest, ObjectInfo]]:
    for item in batch:
        yield item
