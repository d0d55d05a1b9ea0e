"""ContentStore: owns the driver, hands out repositories and lists them."""

import logging
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
        while True:
            found = await self.driver.find_folders(
                layout.REPOSITORIES, layout.MANIFESTS_FOLDER, after=after, limit=limit + 1
            )
            names, more = _names(found[:limit]), len(found) > limit
            if names or not more:
                return RepositoryPage(names, more)
            after = found[limit - 1]  # a page of nothing but folders that are no names

    async def repositories_with(self, folder: str) -> list[RepositoryName]:
        """Every repository that has that folder (layout.UPLOADS_FOLDER, ...), be there a manifest or not."""
        return _names(await self.driver.find_folders(layout.REPOSITORIES, folder))

    async def aclose(self) -> None:
        await self.driver.aclose()


def _names(found: list[str]) -> list[RepositoryName]:
    names = []
    for name in found:
        try:
            names.append(parse_name(name))
        except NameInvalid:
            log.warning("ignoring a folder that is no repository name", extra={"folder": name})
    return names
