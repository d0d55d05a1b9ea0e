"""ContentStore: owns the driver, hands out repositories and lists them."""

import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass

from storage import layout
from storage.driver import StorageDriver
from storage.errors import NameInvalid
from storage.facts import ManifestCache
from storage.local import LocalRepository
from storage.names import RepositoryName, parse_name
from storage.rules import ManifestRules
from storage.uploads import RunningHashes

log = logging.getLogger(__name__)


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
        folders = await self.driver.list_folders(prefix)
        if name and after is None and marks.intersection(folders):
            try:
                yield parse_name(name)
            except NameInvalid:
                log.warning("ignoring a folder that is no repository name", extra={"folder": name})
        for folder in folders:
            if folder.startswith("_") or (after and folder < after[0]):
                continue
            rest = after[1:] if after and folder == after[0] else None
            async for found in self._walk(f"{prefix}/{folder}", f"{name}/{folder}".lstrip("/"), rest, marks):
                yield found

    async def aclose(self) -> None:
        await self.driver.aclose()
