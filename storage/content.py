"""ContentStore: owns the driver, hands out repositories and lists them."""

import logging
from dataclasses import dataclass

from storage import layout
from storage.driver import StorageDriver
from storage.errors import NameInvalid
from storage.facts import ManifestCache, Sizes
from storage.garbage.renewals import Renewals
from storage.linkcache import LinkCache
from storage.local import LocalRepository
from storage.lookups import Lookups
from storage.names import RepositoryName, parse_name
from storage.publishing import Publishing, ThriftyPublishing
from storage.reading import Reading
from storage.referrers import Referrers
from storage.rules import ManifestRules
from storage.tags import Tags
from storage.thrift import Thrift
from storage.thrifty_reading import ThriftyReading
from storage.thrifty_uploads import Begun, ThriftyUploads
from storage.uploads import RunningHashes, Uploads
from storage.vouch import Vouchers

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RepositoryPage:
    """names: in order. more: are there any after the last of them?"""

    names: list[RepositoryName]
    more: bool


class ContentStore:
    """All repositories of one store.

    rescan: seconds between looks for referrers that other registries have pushed; None: never (read-only).
    thrift: what may be left out where the driver's calls are dear.
    url_expires: seconds for which a redirect to the store is good; None: there are no redirects.
    grace: seconds, of the collector of garbage that may run beside pushes; 0: there are no pushes, or no collector.
    lookups: where requests to its caches in memory are counted, for several stores together.
    """

    def __init__(
        self,
        driver: StorageDriver,
        *,
        rules: ManifestRules | None = None,
        rescan: float | None = 600.0,
        thrift: Thrift | None = None,
        url_expires: float | None = 1200.0,
        grace: float = 24 * 3600.0,
        lookups: Lookups | None = None,
    ) -> None:
        self.driver = driver
        self._rules = rules or ManifestRules()
        self._rescan = rescan
        self._thrift = thrift or Thrift()
        self._url_expires = url_expires
        self.renewals = Renewals(driver, grace)
        self._hashes = RunningHashes()
        self._begun = Begun()
        self.lookups = lookups or Lookups()
        self._known = ManifestCache(asked=self.lookups.manifests)
        self._sizes = Sizes(asked=self.lookups.sizes)
        self._links = LinkCache(self._thrift.linkttl, asked=self.lookups.links)
        # sparse manifests come before their blobs
        self._vouchers = None if self._rules.sparse else Vouchers(self._links)

    def repository(self, name: RepositoryName) -> LocalRepository:
        """Any name: whether the repository exists shows when it is used."""
        tags, referrers = Tags(name, self.driver), Referrers(name, self.driver, self._rescan)
        dear, fresh = self.driver.calls_are_dear, self.renewals.fresh
        return LocalRepository(
            name,
            self.driver,
            reading=self._thrifty_reading(name) if dear else Reading(name, self.driver, self._known, self.renewals),
            uploads=self._thrifty_uploads(name) if dear else Uploads(name, self.driver, self._hashes, self.renewals),
            tags=tags,
            referrers=referrers,
            publishing=ThriftyPublishing(name, self.driver, tags, referrers, fresh, deletes=self._thrift.deletes)
            if dear
            else Publishing(name, self.driver, tags, referrers, fresh),
            rules=self._rules,
            renewals=self.renewals,
            url_expires=self._url_expires,
        )

    def _thrifty_reading(self, name: RepositoryName) -> ThriftyReading:
        return ThriftyReading(
            name,
            self.driver,
            self._known,
            self.renewals,
            links=self._links,
            sizes=self._sizes,
            vouchers=self._vouchers,
            read_only=self._thrift.read_only,
        )

    def _thrifty_uploads(self, name: RepositoryName) -> ThriftyUploads:
        return ThriftyUploads(
            name,
            self.driver,
            self._hashes,
            self.renewals,
            begun=self._begun,
            shareable=self._thrift.shareable,
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
