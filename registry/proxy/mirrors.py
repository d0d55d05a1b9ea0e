"""All upstreams of a registry: from a name to the repository that caches it. Made by app.py, closed by its lifespan."""

from collections.abc import Callable, Sequence
from functools import partial

from registry.config.model import CacheConfig, CacheRangesConfig
from registry.config.upstreams import ProxyConfig, UpstreamConfig, from_proxy
from registry.errors import Denied
from registry.proxy.directory import Directory, directory_of
from registry.proxy.eviction import Bounds, Evictor
from registry.proxy.fetches import Fetches
from registry.proxy.freshness import Freshness
from registry.proxy.leases import Leases
from registry.proxy.pieces_shelf import Shelf
from registry.proxy.platforms import Platforms
from registry.proxy.pull_through import Cache, PullThrough
from registry.proxy.report import add_page
from registry.proxy.repository import UpstreamRepository
from registry.proxy.tally import Tally
from registry.proxy.trust import Trusts
from registry.proxy.upstream import Upstream
from registry.proxy.uses import Uses
from registry.watching.debug import Debug
from storage.driver import StorageDriver
from storage.names import RepositoryName
from storage.once import Once
from storage.repository import Repository, RepositoryReader


class Mirrors:
    """Nothing is asked before a client asks, so a registry starts without any upstream.

    local: makes the repository of the cache.   fresh: seconds, as in StorageDriver.put_content.
    bounds: of the cache.   make: makes an upstream from its settings; tests have their own clocks.
    waits: is what another replica fetches waited for, or fetched as well?
    ranges: what is kept of blobs that are not cached.   folder: where that is kept; None: TMPDIR.
    """

    def __init__(
        self,
        upstreams: Sequence[UpstreamConfig],
        directory: Directory,
        driver: StorageDriver,
        local: Callable[[RepositoryName], RepositoryReader],
        *,
        fresh: float,
        bounds: Bounds | None = None,
        waits: bool = True,
        ranges: CacheRangesConfig | None = None,
        folder: str | None = None,
        make: Callable[[UpstreamConfig], Upstream] | None = None,
    ) -> None:
        self._configs = upstreams
        self._directory = directory
        self._local = local
        bounds = bounds or Bounds()
        if bounds.recorded:
            fresh = min(fresh, bounds.grace / 2)  # what is old enough to be evicted is written anew
        uses = Uses(driver, bounds.recorded)
        leases = Leases(driver, waits=waits) if driver.calls_are_dear else None  # others lock files (claim.py)
        fetches = Fetches(driver, fresh=fresh, leases=leases)
        ranges = ranges or CacheRangesConfig()
        shelf = Shelf(driver, fetches, folder=folder, size=ranges.size, fillafter=ranges.fillafter)
        self._cache = Cache(driver, fetches, Freshness(), Once(), fresh, uses, shelf, leases)
        make = make or partial(Upstream, trusts=Trusts())
        self.upstreams = [make(each) for each in upstreams]
        self._platforms = [Platforms(each.platforms) for each in upstreams]
        self.evictor = self._evictor(driver, bounds) if bounds.recorded else None

    @classmethod
    def of(
        cls,
        proxy: ProxyConfig,
        upstreams: Sequence[UpstreamConfig],
        hosted: Sequence[str],
        driver: StorageDriver,
        local: Callable[[RepositoryName], RepositoryReader],
        fresh: float,
        cache: CacheConfig,
        folder: str | None = None,
    ) -> "Mirrors | None":
        """None: all is hosted here."""
        directory = directory_of(proxy, upstreams, hosted)
        if directory is None:
            return None
        configs = (from_proxy(proxy),) if proxy.remoteurl else upstreams
        bounds = Bounds.of(cache, proxy, driver)
        waits = cache.followers == "wait"
        return cls(
            configs,
            directory,
            driver,
            local,
            fresh=fresh,
            bounds=bounds,
            waits=waits,
            ranges=cache.ranges,
            folder=folder,
        )

    def _evictor(self, driver: StorageDriver, bounds: Bounds) -> Evictor:
        def tally(name: RepositoryName) -> Tally:
            return self.upstreams[self._directory.cached(name) or 0].tally

        return Evictor(
            driver,
            bounds,
            caches=lambda name: self._directory.cached(name) is not None,
            fetched=lambda: sum(each.tally.fetched_bytes for each in self.upstreams),
            tally=tally,
        )

    def repository(self, name: RepositoryName, ns: str | None) -> Repository | None:
        """None: it is hosted here. Raises RepositoryUnknown; Denied for what `allow` and `deny` do not let through."""
        place = self._directory.find(name, ns)
        if place is None:
            return None
        upstream, config = self.upstreams[place.upstream], self._configs[place.upstream]
        if not upstream.permits(place.remote):
            raise Denied
        return PullThrough(
            self._local(place.local),
            UpstreamRepository(upstream, place.remote),
            self._cache,
            ttl=config.ttl,
            keep=config.deleted == "keep",
            namespace=config.called,
            platforms=self._platforms[place.upstream],
        )

    def add_page(self, debug: Debug) -> None:
        """What people ask of the upstreams, at the debug address."""
        add_page(debug, self.upstreams)

    async def aclose(self) -> None:
        """Ends what is being fetched. Idempotent."""
        await self._cache.shelf.aclose()
        await self._cache.fetches.aclose()
        await self._cache.once.aclose()
        for upstream in self.upstreams:
            await upstream.aclose()
