"""Looks one repository through: links, manifests and their parts, tags, the index of referrers.

What was not there when the blobs were listed is asked for again before it counts as missing: pushes may be under way.
What a push writes in an order of its own (a referrer's entry before its revision, a tag's history before the tag) is
left out while it is younger than ten minutes.

What it has is marked in the table: as HELD where it is pushed to, as NEEDED where it is a cache of another's.

Memory: 3.4 kB for each manifest with six blobs of its own, links included.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

from storage import layout
from storage.digest import Digest
from storage.doctor.findings import Finding, Kind, Repair
from storage.doctor.known import Known
from storage.doctor.repairs import Repairs
from storage.driver import ObjectInfo, StorageDriver
from storage.errors import DigestInvalid, ObjectNotFound
from storage.garbage.links import Link, layer_links, links_below
from storage.garbage.manifests import LARGEST, each
from storage.garbage.named import named_digests
from storage.garbage.table import HELD, NEEDED, BlobTable
from storage.links import parse_link
from storage.manifest import DOCKER_SCHEMA1, DOCKER_SCHEMA1_SIGNED, NONDISTRIBUTABLE, Manifest, parse_stored
from storage.names import RepositoryName, Tag
from storage.parallel import for_each
from storage.rules import ManifestRules

Report = Callable[[Finding], None]

_SETTLED = 600.0
_OVERLAP = 300.0
"""Seconds: as far behind its marker the index of referrers is not complete by itself (referrers.py)."""

_SCHEMA1 = frozenset({DOCKER_SCHEMA1, DOCKER_SCHEMA1_SIGNED})


@dataclass(slots=True)
class _Seen:
    """layers: the digest meant, by name, of links that lead somewhere. manifests: those that can be read."""

    layers: dict[Digest, Digest] = field(default_factory=dict)
    dangling: dict[Digest, Link] = field(default_factory=dict)
    revisions: dict[Digest, ObjectInfo] = field(default_factory=dict)
    subjects: dict[Digest, Digest] = field(default_factory=dict)
    needed: set[Digest] = field(default_factory=set)
    unreadable: set[Digest] = field(default_factory=set)


class RepositoryDoctor:
    """One repository. now: by the store's clock.   deep: read every link.

    cached: is it a cache of another's?   damaged: blobs that were found to be, to be told whose they are.
    """

    def __init__(
        self,
        name: RepositoryName,
        driver: StorageDriver,
        table: BlobTable,
        rules: ManifestRules,
        *,
        now: float,
        deep: bool,
        report: Report,
        cached: bool = False,
        damaged: Mapping[Digest, Finding] | None = None,
    ) -> None:
        self.name = name
        self._driver = driver
        self._table = table
        self._rules = ManifestRules(sparse=True) if cached else rules
        self._now = now
        self._deep = deep
        self._report = report
        self._repairs = Repairs(driver)
        self._seen = _Seen()
        self._known = Known(name)
        self._cached = cached
        self._damaged = damaged or {}
        self._bad_links: dict[Digest, Finding] = {}
        self._wanted: frozenset[Digest] = frozenset()
        self.manifests = 0

    async def examine(self) -> None:
        """Raises Unavailable."""
        await for_each(layer_links(self._driver, self.name), self._layer)
        links = [link async for link in links_below(self._driver, layout.revisions(self.name))]
        found = [link for link in links if isinstance(link, Link) and not link.extra]
        self.manifests = len(found)
        self._seen.revisions = {link.name: link.info for link in found}
        await for_each(each(found), self._manifest)
        for link in self._seen.dangling.values():
            if link.name not in self._seen.needed:  # else the manifest that lacks it is reported
                self._dangling(link)
        await self._referrers()
        await self._tags()
        self._known.answer()

    def _find(
        self, kind: Kind, what: str, digest: object = "", repair: Repair | None = None, of: Digest | None = None
    ) -> Finding:
        """of: the manifest that it spoils."""
        finding = Finding(kind, what, self.name, str(digest), repair, cached=self._cached)
        if of is not None:
            self._known.ask(finding, of)
        self._report(finding)
        return finding

    def _mark(self, *digests: Digest) -> None:
        for digest in digests:
            place = self._table.find(digest)
            if place is not None:
                self._table.mark(place, NEEDED if self._cached else HELD)

    def _is_held(self, digest: Digest) -> bool:
        """Has a repository that is pushed to got it? For when all have been examined."""
        place = self._table.find(digest)
        return place is None or self._table.is_marked(place, HELD)

    # Links

    async def _layer(self, link: Link) -> None:
        target = await self._target(link)
        if target is None:
            repair = partial(self._repairs.relink, link.info, link.name)
            what = f"the link of blob {link.name} is damaged"
            self._bad_links[link.name] = self._find(Kind.LINK_DAMAGED, what, link.name, repair)
            self._mark(link.name)
            if await self._has_blob(link.name):
                self._seen.layers[link.name] = link.name
        elif await self._has_blob(target):
            self._mark(target)
            self._seen.layers[link.name] = target
        else:
            self._seen.dangling[link.name] = link

    def _dangling(self, link: Link) -> None:
        what = f"blob {link.name} is linked, and not in the store"
        repair = partial(self._repairs.remove_dangling, link.info, link.name)
        self._find(Kind.LINK_DANGLING, what, link.name, repair)

    async def _target(self, link: Link) -> Digest | None:
        """None: the link is damaged."""
        if link.looks_right and not self._deep:
            return link.name
        try:
            target = parse_link(link.info.key, await self._driver.read(link.info.key))
        except ObjectNotFound:
            return None if await self._repairs.exists(link.info.key) else link.name
        # distribution's aliases are sha512 names of sha256 data; any other stranger is damage
        return None if target != link.name and target.algorithm == link.name.algorithm else target

    async def _has_blob(self, digest: Digest) -> bool:
        """Also one that came after the listing."""
        return self._table.find(digest) is not None or await self._repairs.exists(layout.blob_data(digest))

    # Manifests

    async def _manifest(self, link: Link) -> None:
        target = await self._target(link)
        if target is None:
            repair = partial(self._repairs.relink, link.info, link.name)
            what = f"the link of manifest {link.name} is damaged"
            self._find(Kind.LINK_DAMAGED, what, link.name, repair, of=link.name)
        target = target or link.name
        self._mark(target)
        self._spoils(target, link.name)
        try:
            body = await self._driver.read(layout.blob_data(target), LARGEST)
        except ObjectNotFound:
            self._seen.unreadable.add(link.name)
            if await self._repairs.exists(link.info.key):
                repair = partial(self._repairs.remove_dangling, link.info, target)
                what = f"the bytes of manifest {link.name} are gone"
                self._find(Kind.MANIFEST_MISSING, what, link.name, repair, of=link.name)
            return
        if Digest.of(body, target.algorithm) != target:
            self._seen.unreadable.add(link.name)
            await self._damaged_manifest(link, target)
            return
        manifest = parse_stored(body)
        if manifest.subject is not None:
            self._seen.subjects[link.name] = manifest.subject.digest
            self._known.referrer(link.name, manifest.subject.digest)
        self._known.index(link.name, (child.digest for child in manifest.children))
        await self._parts(link.name, manifest, body)

    def _spoils(self, part: Digest, of: Digest) -> None:
        for found in (self._damaged, self._bad_links):
            if (finding := found.get(part)) is not None:
                self._known.ask(finding, of)

    async def _damaged_manifest(self, link: Link, target: Digest) -> None:
        what = f"the bytes of manifest {link.name} are not those"
        finding = self._find(Kind.MANIFEST_DAMAGED, what, link.name, of=link.name)
        if self._cached:
            try:
                data = await self._driver.head(layout.blob_data(target))
            except ObjectNotFound:
                return  # collected meanwhile
            # the bytes first: a fetch would leave what has the right size
            finding.repair = partial(self._drop, finding, target, data, link.info)

    async def _drop(self, finding: Finding, data: Digest, *found: ObjectInfo) -> bool:
        """Of a cache. What is held elsewhere is no longer the cache's to drop."""
        if self._is_held(data):
            finding.cached, finding.repair = False, None
            return False
        return await self._repairs.drop(*found)

    async def _parts(self, of: Digest, manifest: Manifest, body: bytes) -> None:
        sizes = {d.digest: d.size for d in (*manifest.blobs, *manifest.children)}
        elsewhere = {d.digest for d in manifest.blobs if d.media_type in NONDISTRIBUTABLE}
        required = self._rules.required(manifest) - elsewhere
        if manifest.media_type in _SCHEMA1 and not self._rules.sparse:
            required |= named_digests(body)
        for digest in sorted({*required, *sizes}):
            self._seen.needed.add(digest)
            self._spoils(self._seen.layers.get(digest, digest), of)
            await self._part(of, digest, sizes.get(digest), must=digest in required)

    async def _part(self, of: Digest, digest: Digest, size: int | None, *, must: bool) -> None:
        data = self._seen.layers.get(digest)
        if data is None and digest in self._seen.revisions:
            return  # an image of an index, which is looked at for itself
        if data is None:
            if must:
                await self._absent(of, digest)
            return
        place = self._table.find(data)
        if size is not None and place is not None and self._table.size(place) != size:
            held = self._table.size(place)
            what = f"{of} says that {digest} has {size} bytes, stored are {held}"
            finding = self._find(Kind.PART_SIZE, what, digest, of=of)
            if self._cached:
                finding.repair = partial(self._drop_part, finding, data, held)

    async def _drop_part(self, finding: Finding, data: Digest, size: int) -> bool:
        """If it still has the wrong size, or is gone."""
        try:
            info = await self._driver.head(layout.blob_data(data))
        except ObjectNotFound:
            return True
        return info.size == size and await self._drop(finding, data, info)

    async def _absent(self, of: Digest, digest: Digest) -> None:
        if await self._repairs.exists(layout.layer_link(self.name, digest)) and await self._has_blob(digest):
            return  # pushed meanwhile
        if digest.algorithm in ("sha256", "sha512") and await self._has_blob(digest):
            repair = partial(self._repairs.link, layout.layer_link(self.name, digest), digest)
            what = f"{of} needs {digest}, which is in the store and not linked here"
            self._find(Kind.PART_UNLINKED, what, digest, repair, of=of)
        else:
            self._find(Kind.PART_MISSING, f"{of} needs {digest}, which is not in the store", digest, of=of)

    # Tags

    async def _tags(self) -> None:
        self._wanted = self._known.wanted()
        whole = set(await self._driver.list_folders(layout.tags(self.name), containing=layout.CURRENT_LINK))
        every = await self._driver.list_folders(layout.tags(self.name))
        await for_each(each(sorted(whole)), self._tag)
        for name in every:
            if name not in whole:
                await self._half(name)

    async def _half(self, name: str) -> None:
        folder = layout.tag(self.name, Tag(name))
        times = [info.modified async for info in self._driver.list_objects(folder)]
        if times and max(times) < self._now - _SETTLED:
            repair = partial(self._repairs.remove_tree, folder, layout.tag_link(self.name, Tag(name)))
            self._find(Kind.TAG_HALF, f"the tag {name} names nothing", "", repair)

    async def _tag(self, name: str) -> None:
        key = layout.tag_link(self.name, Tag(name))
        try:
            info = await self._driver.head(key)
            body = await self._driver.read(key)
        except ObjectNotFound:
            return  # deleted meanwhile
        try:
            target = parse_link(key, body)
        except ObjectNotFound:
            only = await self._only_one(name)
            repair: Repair | None = None if only is None else partial(self._repairs.relink, info, only)
            if only is None and self._cached:
                repair = partial(self._remove_tag, name, partial(self._repairs.remove, info))
            self._find(Kind.TAG_DAMAGED, f"the tag {name} cannot be read", only or "", repair)
            return
        if target in self._wanted:
            self._known.tag(name, target)
        if target in self._seen.revisions and target not in self._seen.unreadable:
            return
        if await self._has_blob(target):
            link = layout.revision_link(self.name, target)
            if not await self._repairs.exists(link):
                what = f"the tag {name} names {target}, which has no revision here: it was deleted, or its link lost"
                drop = partial(self._remove_tag, name, partial(self._repairs.remove_unless, info, link))
                self._find(Kind.TAG_UNVOUCHED, what, target, drop if self._cached else None)
        else:
            repair = partial(self._remove_tag, name, partial(self._repairs.remove_dangling, info, target))
            self._find(Kind.TAG_NOTHING, f"the tag {name} names {target}, which is gone", target, repair)

    async def _remove_tag(self, name: str, remove: Repair) -> bool:
        """With its history, or half a tag would be left."""
        if not await remove():
            return False
        await self._repairs.remove_tree(layout.tag(self.name, Tag(name)), layout.tag_link(self.name, Tag(name)))
        return True

    async def _only_one(self, name: str) -> Digest | None:
        """What the tag has ever named, if that is one manifest that can be pulled."""
        folder = layout.tag_index(self.name, Tag(name))
        named = [link.name async for link in links_below(self._driver, folder) if isinstance(link, Link)]
        if len(named) == 1 and named[0] in self._seen.revisions and named[0] not in self._seen.unreadable:
            return named[0]
        return None

    # Referrers

    async def _referrers(self) -> None:
        scanned = await self._scanned()
        if scanned is None:
            return  # nobody has asked for referrers yet: the first who does has the index made
        for digest, subject in self._seen.subjects.items():
            key = layout.referrer_link(self.name, subject, digest)
            settled = self._seen.revisions[digest].modified < scanned - _OVERLAP
            if settled and not await self._repairs.exists(key):
                repair = partial(self._repairs.link, key, digest)
                what = f"{digest} refers to {subject}, and is not listed"
                self._find(Kind.REFERRER_MISSING, what, digest, repair, of=digest)
        async for info in self._driver.list_objects(layout.referrers(self.name)):
            entry = _entry(info.key)
            if entry is None or info.modified >= self._now - _SETTLED:
                continue
            subject, digest = entry
            if self._seen.subjects.get(digest) != subject and digest not in self._seen.unreadable:
                repair = partial(self._repairs.remove, info)
                what = f"{digest} is listed as a referrer of {subject}, and is none"
                self._find(Kind.REFERRER_STALE, what, digest, repair)

    async def _scanned(self) -> float | None:
        try:
            return float(await self._driver.read(layout.referrers_scanned(self.name)))
        except (ObjectNotFound, ValueError):
            return None


def _entry(key: str) -> tuple[Digest, Digest] | None:
    """Subject and referrer; None for what is no entry."""
    parts = key.split("/")
    if len(parts) < 6 or parts[-1] != "link":
        return None
    try:
        return Digest.parse(f"{parts[-5]}:{parts[-4]}"), Digest.parse(f"{parts[-3]}:{parts[-2]}")
    except DigestInvalid:
        return None


def count(findings: Iterable[Finding], *kinds: Kind) -> int:
    return sum(finding.kind in kinds for finding in findings)
