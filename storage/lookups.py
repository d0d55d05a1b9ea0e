"""How often caches in memory were asked, and how often they knew: numbers that only grow, for metrics. Pure."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Asked:
    """One cache.   hits: of the requests, those that it could answer."""

    requests: int = 0
    hits: int = 0


@dataclass(frozen=True, slots=True)
class Lookups:
    """The caches of one store: manifests by digest, sizes of blobs, links."""

    manifests: Asked = field(default_factory=Asked)
    sizes: Asked = field(default_factory=Asked)
    links: Asked = field(default_factory=Asked)
