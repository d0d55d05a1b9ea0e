"""All upstreams of a registry: from a name to the repository that caches it. Made by app.py, closed by its lifespan."""

from collections.abc import Callable, Sequence

from registry.config.upstreams import ProxyConfig, UpstreamConfig, from_proxy
from registry.errors import Denied
from registry.proxy.directory import Directory
from registry.proxy.fetches import Fetches
from registry.proxy.freshness import Freshness
from registry.proxy.pull_through import Cache, PullThrough
from registry.proxy.repository import UpstreamRepository
from registry.proxy.upstream import Upstream
from storage.driver import StorageDriver
from storage.names import RepositoryName
from storage.once import Once
from storage.repository import Repository, RepositoryReader


class Mirrors:
    """Nothing is asked before a client asks, so a registry starts without any upstream.

    local: makes the repository of the cache.   fresh: seconds, as in StorageDriver.put_content.
    make: makes an upstream from its settings; tests have their own clocks.
    """

    def __init__(
        self,
        upstreams: Sequence[UpstreamConfig],
        directory: Directory,
        driver: StorageDriver,
        local: Callable[[RepositoryName], RepositoryReader],
        *,
        fresh: float,
        make: Callable[[UpstreamConfig], Upstream] | None = None,
    ) -> None:
        self._configs = upstreams
        self._directory = directory
        self._local = local
        self._cache = Cache(driver, Fetches(driver, fresh=fresh), Freshness(), Once(), fresh)
        self.upstreams = [(make or Upstream)(each) for each in upstreams]

    @classmethod
    def of(
        cls,
        proxy: ProxyConfig,
        upstreams: Sequence[UpstreamConfig],
        hosted: Sequence[str],
        driver: StorageDriver,
        local: Callable[[RepositoryName], RepositoryReader],
        fresh: float,
    ) -> "Mirrors | None":
        """None: all is hosted here."""
        if proxy.remoteurl:
            configs: Sequence[UpstreamConfig] = (from_proxy(proxy),)
        else:
            configs = upstreams
        if not configs:
            return None
        return cls(configs, Directory(configs, hosted, mirror=bool(proxy.remoteurl)), driver, local, fresh=fresh)

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
        )

    async def aclose(self) -> None:
        """Ends what is being fetched. Idempotent."""
        await self._cache.fetches.aclose()
        await self._cache.once.aclose()
        for upstream in self.upstreams:
            await upstream.aclose()
