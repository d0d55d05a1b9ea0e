"""Tags of one repository: a tag is one small link, so that setting it needs no lock and is seen whole."""

from collections.abc import Set

from storage import layout
from storage.digest import Digest
from storage.driver import StorageDriver
from storage.errors import ManifestUnknown, ObjectNotFound, PreconditionFailed, RepositoryUnknown
from storage.links import read_link, write_link
from storage.names import RepositoryName, Tag
from storage.parallel import for_all
from storage.repository import Precondition, TagPage


class Tags:
    """The tags of one repository; see Repository for what the verbs promise."""

    def __init__(self, name: RepositoryName, driver: StorageDriver) -> None:
        self._name = name
        self._driver = driver

    async def get(self, tag: Tag) -> Digest:
        try:
            return await read_link(self._driver, layout.tag_link(self._name, tag))
        except ObjectNotFound as exc:
            raise ManifestUnknown(tag) from exc

    async def check(self, tag: Tag, precondition: Precondition) -> str | None:
        """The version of the link for which the precondition holds; None: there is none. Raises PreconditionFailed."""
        key, version = layout.tag_link(self._name, tag), None
        try:
            version = (await self._driver.head(key)).version
            digest = await read_link(self._driver, key)
        except ObjectNotFound:
            if precondition.one_of is not None:
                raise PreconditionFailed from None
            return version  # a damaged link is no tag, but it is there, and has to be replaced
        wanted = precondition.one_of
        if precondition.absent or (wanted is not None and "*" not in wanted and str(digest) not in wanted):
            raise PreconditionFailed
        return version

    async def set(self, tag: Tag, digest: Digest, precondition: Precondition | None = None) -> None:
        """Point the tag at digest. With a precondition atomically: another writer in between: PreconditionFailed."""
        version = await self.check(tag, precondition) if precondition else None
        # distribution's order, and `registry garbage-collect -m` reads the index
        await self.record(tag, digest)
        await self._put(tag, digest, precondition, version)

    async def record(self, tag: Tag, digest: Digest) -> None:
        """Note that the tag has named digest. It is a tag only once `point` has set it."""
        await write_link(self._driver, layout.tag_index_link(self._name, tag, digest), digest)

    async def point(self, tag: Tag, digest: Digest, precondition: Precondition | None) -> None:
        """`set` for a tag that has its record."""
        await self._put(tag, digest, precondition, await self.check(tag, precondition) if precondition else None)

    async def _put(self, tag: Tag, digest: Digest, precondition: Precondition | None, version: str | None) -> None:
        """version: of the link for which the precondition was seen to hold."""
        await self._driver.put(
            layout.tag_link(self._name, tag),
            str(digest).encode("ascii"),
            if_absent=precondition is not None and version is None,
            if_version=version,
        )

    async def delete(self, tag: Tag) -> None:
        """Also one with a damaged link, which nobody can pull but everybody sees listed."""
        try:
            await self._driver.head(layout.tag_link(self._name, tag))
        except ObjectNotFound as exc:
            raise ManifestUnknown(tag) from exc
        await self._driver.delete_tree(layout.tag(self._name, tag))

    async def delete_all_of(self, *digests: Digest) -> None:
        """Remove every tag that names one of them; not one that somebody points at another meanwhile."""
        wanted = frozenset(digests)
        for tag in await self._naming(wanted):
            link = layout.tag_link(self._name, tag)
            try:
                version = (await self._driver.head(link)).version
                if await self.get(tag) not in wanted:
                    continue
                await self._driver.delete(link, if_version=version)
            except (ObjectNotFound, ManifestUnknown, PreconditionFailed):
                continue
            # an entry that a new tag of this name has just made may go with them: only `-m` of distribution reads them
            await self._driver.delete_tree(layout.tag_index(self._name, tag))

    async def page(self, after: str, limit: int) -> TagPage:
        """Tags behind `after`. A folder without a current link, left by a crash, is no tag."""
        names = await self._driver.list_folders(
            layout.tags(self._name), after=after, limit=limit + 1, containing=layout.CURRENT_LINK
        )
        if not names and not await self._driver.list_folders(layout.manifests(self._name), limit=1):
            raise RepositoryUnknown(self._name)
        return TagPage(names[:limit], len(names) > limit)

    async def _names(self) -> list[Tag]:
        names = await self._driver.list_folders(layout.tags(self._name), containing=layout.CURRENT_LINK)
        return [Tag(name) for name in names]

    async def _naming(self, wanted: Set[Digest]) -> list[Tag]:
        """The tags that name one of them now. Most tags name others, so each is asked once, and many at a time."""

        async def does(tag: Tag) -> bool:
            try:
                return await self.get(tag) in wanted
            except ManifestUnknown:
                return False

        tags = await self._names()
        return [tag for tag, is_named in zip(tags, await for_all(tags, does), strict=True) if is_named]
