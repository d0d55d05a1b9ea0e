"""Which upstream a request means, what the repository is called there, and what in the cache. Pure.

    ?ns=ghcr.io           containerd's mirrors: that upstream, or nothing at all (never another's image of that name)
    ghcr.io/team/app      a path that begins with an upstream's name
    team/app              hosted here, if `hosted` says so; else the default upstream's; else hosted where none is set

What one upstream calls the same has one place in the cache, however it was asked for: below the upstream's name
(`docker.io/library/alpine`). Where `proxy.remoteurl` mirrors one upstream, it is the name alone, as distribution does.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from registry.config.upstreams import HUB_NAMES, ProxyConfig, UpstreamConfig, from_proxy
from registry.proxy.patterns import matches, parse_patterns
from storage.errors import RepositoryUnknown
from storage.names import RepositoryName, parse_name


@dataclass(frozen=True, slots=True)
class Place:
    """upstream: its number.   remote: the name as its clients write it.   local: the name in the cache."""

    upstream: int
    remote: RepositoryName
    local: RepositoryName


class Directory:
    """upstreams: in the order of their numbers.   mirror: is the only one what the whole registry is a mirror of?"""

    def __init__(
        self, upstreams: Sequence[UpstreamConfig], hosted: Sequence[str] = (), *, mirror: bool = False
    ) -> None:
        self._upstreams = upstreams
        self._mirror = mirror
        self._default = 0 if mirror else next((n for n, each in enumerate(upstreams) if each.default), None)
        self._hosted = parse_patterns(hosted)
        self._hosts_all = not hosted and self._default is None
        self._called = {alias: n for n, each in enumerate(upstreams) for alias in _aliases(each)}
        self._folders = [folder_of(each) for each in upstreams]
        self._prefixes = {} if mirror else {re.sub(":", "_", alias): n for alias, n in self._called.items()}

    def find(self, name: RepositoryName, ns: str | None) -> Place | None:
        """None: hosted here. Raises RepositoryUnknown for what is neither; NameInvalid for what gets too long."""
        if ns is not None:
            number = self._called.get(ns.lower())
            if number is None:
                raise RepositoryUnknown(name)
            if number != self._default or not matches(self._hosted, name):
                return self._place(number, name)
            return None
        if matches(self._hosted, name):
            return None
        prefix, _, rest = name.partition("/")
        if rest and prefix in self._prefixes:
            return self._place(self._prefixes[prefix], RepositoryName(rest))
        if self._default is not None:
            return self._place(self._default, name)
        if self._hosts_all:
            return None
        raise RepositoryUnknown(name)

    def cached(self, name: RepositoryName) -> int | None:
        """Of which upstream is what lies in the store under that name? None: it is hosted, or was once."""
        if matches(self._hosted, name):
            return None
        folder, _, rest = name.partition("/")
        if self._mirror:
            return 0
        return self._folders.index(folder) if rest and folder in self._folders else None

    def _place(self, number: int, remote: RepositoryName) -> Place:
        name = remote
        if self._upstreams[number].is_hub and "/" not in name:
            name = RepositoryName(f"library/{name}")
        local = name if self._mirror else parse_name(f"{self._folders[number]}/{name}")
        return Place(number, name, local)


def directory_of(proxy: ProxyConfig, upstreams: Sequence[UpstreamConfig], hosted: Sequence[str]) -> Directory | None:
    """None: all is hosted here."""
    if proxy.remoteurl:
        return Directory((from_proxy(proxy),), hosted, mirror=True)
    return Directory(upstreams, hosted) if upstreams else None


def folder_of(upstream: UpstreamConfig) -> str:
    """Below which its repositories are in the cache."""
    return upstream.called.replace(":", "_")


def _aliases(upstream: UpstreamConfig) -> set[str]:
    return {upstream.called.lower(), *(HUB_NAMES if upstream.is_hub else ())}
