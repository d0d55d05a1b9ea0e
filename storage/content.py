"""ContentStore: owns the driver, hands out repositories and lists them."""

import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass

from storage import layout
from storage.driver import StorageDriver, is_key
from storage.errors import NameInvalid
from storage.facts import ManifestCache
from storage.local import LocalRepository
from storage.names import RepositoryName, parse_name
from storage.rules import ManifestRules
from storage.uploads import RunningHashes

log = logging.getLogger(__name__)


_PAGE = 100
"""Folders that are listed at a time: a page of the catalog costs what is on it, not what is in the store."""


@dataclass(frozen=True, slots=True)
class RepositoryPage:
    """names: in order. more: are there any after the last of them?"""

    names: list[RepositoryName]
    more: bool


class ContentStore:
    """All repositories of one store.

    rescan: seconds between looks for referrers that other registries have pushed; None: never (read-only).
    """

    def __init__(
        self, driver: StorageDriver, *, rules: ManifestRules | None = None, rescan: float | None = 600.0
    ) -> None:
        self.driver = driver
        self._rules = rules or ManifestRules()
        self._rescan = rescan
        self._hashes = RunningHashes()
        self._known = ManifestCache()

    def repository(self, name: RepositoryName) -> LocalRepository:
        """Any name: whether the repository exists shows when it is used."""
        return LocalRepository(
            name, self.driver, hashes=self._hashes, known=self._known, rules=self._rules, rescan=self._rescan
        )

    async def list_repositories(self, after: str, limit: int) -> RepositoryPage:
        """At most `limit` repositories behind `after`. Order: by component, so a, a/b, a-b, as distribution's."""
        names: list[RepositoryName] = []
        async for name in self._walk(layout.REPOSITORIES, "", after.split("/") if after else None):
            if len(names) == limit:
                return RepositoryPage(names, True)
            names.append(name)
        return RepositoryPage(names, False)

    async def repositories(self) -> AsyncIterator[RepositoryName]:
        """Every repository, also one that has uploads or blobs and no manifest yet."""
        async for name in self._walk(
            layout.REPOSITORIES, "", None, marks=frozenset({"_manifests", "_layers", "_uploads"})
        ):
            yield name

    async def _walk(
        self,
        prefix: str,
        name: str,
        after: list[str] | None,
        marks: frozenset[str] = frozenset({layout.MANIFESTS_FOLDER}),
    ) -> AsyncIterator[RepositoryName]:
        """The repository `name` and those below it. after: components of the last one listed, relative to name."""
        below, cursor = f"{name}/" if name else "", ""
        if after:
            cursor = after[0]
            if is_key(cursor):  # a client may have sent anything
                async for found in self._walk(f"{prefix}/{cursor}", f"{below}{cursor}", after[1:], marks):
                    yield found
        folders = await self.driver.list_folders(prefix, after=cursor, limit=_PAGE)
        if name and after is None and await self._is_marked(prefix, folders, marks):
            try:
                yield parse_name(name)
            except NameInvalid:
                log.warning("ignoring a folder that is no repository name", extra={"folder": name})
        while folders:
            for folder in folders:
                if not folder.startswith("_"):
                    async for found in self._walk(f"{prefix}/{folder}", f"{below}{folder}", None, marks):
                        yield found
            if len(folders) < _PAGE:
                return
            folders = await self.driver.list_folders(prefix, after=folders[-1], limit=_PAGE)

    async def _is_marked(self, prefix: str, first: list[str], marks: frozenset[str]) -> bool:
        """first: the first page of the folders below prefix, which has the marks in all but the widest repositories."""
        if marks.intersection(first):
            return True
        return len(first) == _PAGE and any(
            [await self.driver.list_folders(f"{prefix}/{mark}", limit=1) for mark in marks]
        )

    async def aclose(self) -> None:
        await self.driver.aclose()
