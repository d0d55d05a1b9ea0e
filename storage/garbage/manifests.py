"""The manifests of one repository: what each names, and which of them are alive.

Alive is what a tag names, what is younger than the grace, and, from there on, everything that a living manifest names
(the images of an index), and every referrer whose subject is alive. Without `untagged` every revision is alive.

- A referrer keeps its subject no more than a signature keeps a document: a subject lives by tags and indexes alone.
- A dangling referrer, whose subject is no manifest here, lives while it is young, since it may be pushed first; then
  only by a tag or an index of its own. Else the signatures of deleted images would pile up for ever.
- A manifest that cannot be read stops everything: what it names is unknown, so nothing is known to be garbage. Not
  where a cache alone is collected: what its own repository links to stays then (collect.py).

Memory: 600 bytes for each manifest (of six blobs) of the one repository that is looked at, and 500 for each of its
links that lead nowhere.
"""

from array import array
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from storage import layout
from storage.digest import Digest
from storage.driver import ObjectInfo, StorageDriver
from storage.errors import ObjectNotFound, Unavailable
from storage.garbage.links import Foreign, Link, layer_links, links_below, target_of
from storage.garbage.named import named_digests
from storage.garbage.table import FRESH, NEEDED, BlobTable
from storage.links import read_link
from storage.manifest import parse_stored
from storage.names import RepositoryName, Tag
from storage.parallel import for_each

T = TypeVar("T")

Young = Callable[[ObjectInfo], bool]
"""Is an object so young that a push may be under way that needs it?"""

OnLink = Callable[[RepositoryName, ObjectInfo, Sequence[int]], None]
"""Told of a layer link, and of the places in the table to which it leads."""

LARGEST = 64 << 20
"""Bytes of a manifest; more than limits.manifestsize allows to push."""


class UnreadableManifest(Unavailable):
    """A manifest whose bytes are missing or damaged."""

    def __init__(self, name: str, digest: object, why: str) -> None:
        super().__init__(
            f"the manifest {digest} in {name} {why}, so nobody can say what it needs; `registry doctor CONFIG` lists"
            " all such: push them again, delete them, or let `doctor --fix` drop what has lost its bytes"
        )


@dataclass(slots=True)
class Node:
    """One manifest. info: of its revision link; None for what only a tag names.

    places: what it names, in the table of blobs.   images: what it names that may be a manifest of this repository.
    extra: keys that lie below its folder and go with it.   readable: False where nobody knows what it names.
    """

    digest: Digest
    info: ObjectInfo | None
    places: "array[int]" = field(default_factory=lambda: array("Q"))
    images: tuple[Digest, ...] = ()
    subject: Digest | None = None
    extra: list[ObjectInfo] = field(default_factory=list)
    readable: bool = True


@dataclass(slots=True)
class Survey:
    """A repository at one moment. fresh: places of blobs whose links are younger than the grace.

    dangling: layer links that lead to no blob of the table, and that no manifest here names.
    orphans: what lies below the folder of a manifest that has gone.
    """

    name: RepositoryName
    nodes: dict[Digest, Node] = field(default_factory=dict)
    tagged: set[Digest] = field(default_factory=set)
    fresh: "array[int]" = field(default_factory=lambda: array("Q"))
    dangling: dict[Digest, Link] = field(default_factory=dict)
    orphans: list[ObjectInfo] = field(default_factory=list)

    def living(self, *, untagged: bool, young: Young) -> set[Digest]:
        """untagged: may what has no tag be garbage?"""
        if not untagged:
            return set(self.nodes)
        roots = {d for d, node in self.nodes.items() if d in self.tagged or (node.info and young(node.info))}
        referrers: dict[Digest, list[Digest]] = {}
        for digest, node in self.nodes.items():
            if node.subject is not None:
                referrers.setdefault(node.subject, []).append(digest)
        living: set[Digest] = set()
        waiting = list(roots)
        while waiting:
            digest = waiting.pop()
            if digest in living or digest not in self.nodes:
                continue
            living.add(digest)
            waiting.extend(self.nodes[digest].images)
            waiting.extend(referrers.get(digest, ()))
        return living


class Surveyor:
    """Looks through repositories, and finds what they name in a table of blobs.

    on_link: told of every layer link that is come across; with it, manifests that cannot be read stop nothing.
    """

    def __init__(self, driver: StorageDriver, table: BlobTable, on_link: OnLink | None = None) -> None:
        self._driver = driver
        self._table = table
        self._on_link = on_link

    async def survey(self, name: RepositoryName, young: Young) -> Survey:
        """Raises UnreadableManifest; Unavailable."""
        found = Survey(name)
        aliases = await self._layers(found, young)
        signatures: list[Link] = []
        async for link in links_below(self._driver, layout.revisions(name)):
            if isinstance(link, Foreign):
                raise UnreadableManifest(name, link.info.key.split("/")[-2], "has a digest of an unknown algorithm")
            if link.extra:
                signatures.append(link)
            else:
                found.nodes[link.name] = Node(link.name, link.info)
        await self._tags(found)

        gone = []

        async def read(node: Node) -> None:
            if not await self._read(found, node, aliases):
                gone.append(node.digest)

        await for_each(each(list(found.nodes.values())), read)
        for digest in gone:
            del found.nodes[digest]
        for link in signatures:
            self._hang_on(found, link)
        return found

    async def news(self, name: RepositoryName, since: float, young: Young) -> None:
        """Mark what has come into use since: by manifests written later or not marked yet, and by fresh links."""
        found = Survey(name)
        aliases = await self._layers(found, young)
        links = [
            link
            async for link in links_below(self._driver, layout.revisions(name))
            if isinstance(link, Link)
            and not link.extra
            and (link.info.modified > since or not self._table.needs(link.name))
        ]

        async def read(link: Link) -> None:
            node = Node(link.name, link.info)
            await self._read(found, node, aliases)
            self.mark(node.places)

        await for_each(each(links), read)
        self.mark(found.fresh, FRESH)

    def mark(self, places: Iterable[int], mark: int = NEEDED) -> None:
        for place in places:
            self._table.mark(place, mark)

    async def _layers(self, found: Survey, young: Young) -> dict[Digest, Digest]:
        """Fresh links, behind each of which a push may stand; and names whose data has another digest."""
        aliases = {}
        async for link in layer_links(self._driver, found.name):
            target = await target_of(self._driver, link)
            if target is not None and target != link.name:
                aliases[link.name] = target
            places = self._places((link.name, target or link.name))
            if target is not None and not places:
                found.dangling[link.name] = link
            if young(link.info):
                found.fresh.extend(places)
            if self._on_link is not None:
                self._on_link(found.name, link.info, places)
        return aliases

    async def _tags(self, found: Survey) -> None:
        async def read(tag: str) -> None:
            try:
                target = await read_link(self._driver, layout.tag_link(found.name, Tag(tag)))
            except ObjectNotFound:
                return  # damaged, which nobody can pull, or deleted meanwhile
            found.tagged.add(target)
            # served by that tag, though distribution 2.8 has deleted its revision
            found.nodes.setdefault(target, Node(target, None))

        names = await self._driver.list_folders(layout.tags(found.name), containing=layout.CURRENT_LINK)
        await for_each(each(names), read)

    async def _read(self, found: Survey, node: Node, aliases: dict[Digest, Digest]) -> bool:
        """Fill in what the manifest names. False: it is no longer there."""
        try:
            read = await self._body(found.name, node)
        except UnreadableManifest:
            if self._on_link is None:
                raise
            node.readable = False
            found.dangling.clear()  # it may name them
            node.places.extend(self._places((node.digest,)))
            return True
        if read is None:
            return False
        target, body = read
        named = named_digests(body)
        subject = parse_stored(body).subject
        node.subject = subject.digest if subject else None
        node.images = tuple(digest for digest in named if digest in found.nodes)
        for digest in named:
            found.dangling.pop(digest, None)
        node.places.extend(self._places((node.digest, target, *named, *(aliases[d] for d in named if d in aliases))))
        return True

    async def _body(self, name: RepositoryName, node: Node) -> tuple[Digest, bytes] | None:
        """The digest of its data, and the data. Raises UnreadableManifest."""
        target = node.digest
        if node.info is not None:
            # a damaged link says nothing, but its folder does
            target = await target_of(self._driver, Link(node.digest, node.info)) or node.digest
        try:
            body = await self._driver.read(layout.blob_data(target), LARGEST)
        except ObjectNotFound as exc:
            if await self._is_gone(node):
                return None
            raise UnreadableManifest(name, node.digest, "has lost its bytes") from exc
        if Digest.of(body, target.algorithm) != target:
            raise UnreadableManifest(name, node.digest, "is damaged")
        return target, body

    async def _is_gone(self, node: Node) -> bool:
        """Was it deleted? Since it was listed; or, where only a tag names it, by distribution 2.8, which keeps tags."""
        if node.info is None:
            return True
        try:
            await self._driver.head(node.info.key)
        except ObjectNotFound:
            return True
        return False

    def _places(self, digests: Iterable[Digest]) -> list[int]:
        return [place for digest in digests if (place := self._table.find(digest)) is not None]

    def _hang_on(self, found: Survey, link: Link) -> None:
        """Signatures of schema 1 live and go with their manifest."""
        alg, hex, *_ = link.info.key.removeprefix(f"{layout.revisions(found.name)}/").split("/")
        node = found.nodes.get(Digest(alg, hex))
        if node is None:
            found.orphans.append(link.info)
        else:
            node.extra.append(link.info)
            node.places.extend(self._places((link.name,)))


async def each(items: Iterable[T]) -> AsyncIterator[T]:
    for item in items:
        yield item
