"""Which upstream a name means: S14 of the design among it. And where in the cache that is."""

import pytest

from registry.config.upstreams import UpstreamConfig
from registry.proxy.directory import Directory, Place
from storage.errors import NameInvalid, RepositoryUnknown
from storage.names import RepositoryName, parse_name

HUB = UpstreamConfig(url="https://docker.io")
GHCR = UpstreamConfig(url="https://ghcr.io")
LAN = UpstreamConfig(url="http://hub.lan:5000")
DEFAULT = UpstreamConfig(url="https://docker.io", default=True)


def place(upstream: int, remote: str, local: str) -> Place:
    return Place(upstream, parse_name(remote), parse_name(local))


@pytest.mark.parametrize(
    ("name", "ns", "found"),
    [
        ("alpine", "docker.io", place(0, "library/alpine", "docker.io/library/alpine")),
        ("library/alpine", "DOCKER.io", place(0, "library/alpine", "docker.io/library/alpine")),
        ("library/alpine", "registry-1.docker.io", place(0, "library/alpine", "docker.io/library/alpine")),
        ("docker.io/alpine", None, place(0, "library/alpine", "docker.io/library/alpine")),
        ("index.docker.io/a/b", None, place(0, "a/b", "docker.io/a/b")),
        ("ghcr.io/a/b", None, place(1, "a/b", "ghcr.io/a/b")),
        ("ghcr.io/a/b", "ghcr.io", place(1, "ghcr.io/a/b", "ghcr.io/ghcr.io/a/b")),
        ("a", "ghcr.io", place(1, "a", "ghcr.io/a")),
        ("a", "hub.lan:5000", place(2, "a", "hub.lan_5000/a")),
        ("hub.lan_5000/a", None, place(2, "a", "hub.lan_5000/a")),
        ("a/b", None, None),
        ("ghcr.io", None, None),
        ("quay.io/a/b", None, None),
    ],
)
def test_several(name: str, ns: str | None, found: Place | None) -> None:
    assert Directory([HUB, GHCR, LAN]).find(parse_name(name), ns) == found


@pytest.mark.parametrize(
    ("name", "ns", "found"),
    [
        ("alpine", None, place(1, "library/alpine", "docker.io/library/alpine")),
        ("ghcr.io/a", None, place(0, "a", "ghcr.io/a")),
        ("team/app", None, None),
        ("team/app", "docker.io", None),
        ("team/app", "ghcr.io", place(0, "team/app", "ghcr.io/team/app")),
        ("docker.io/team/app", None, place(1, "team/app", "docker.io/team/app")),
        ("teams/app", None, place(1, "teams/app", "docker.io/teams/app")),
    ],
)
def test_a_default_beside_what_is_hosted(name: str, ns: str | None, found: Place | None) -> None:
    """dockerd and containerd mean the same by team/app of the default upstream, so it is hosted for both."""
    assert Directory([GHCR, DEFAULT], ["team/**"]).find(parse_name(name), ns) == found


@pytest.mark.parametrize(
    ("name", "ns", "found"),
    [
        ("alpine", None, place(0, "library/alpine", "library/alpine")),
        ("docker.io/a", None, place(0, "docker.io/a", "docker.io/a")),
        ("a/b", "docker.io", place(0, "a/b", "a/b")),
    ],
)
def test_a_mirror_of_one(name: str, ns: str | None, found: Place | None) -> None:
    assert Directory([HUB], mirror=True).find(parse_name(name), ns) == found


@pytest.mark.parametrize(
    "ns", ["", "evil.io", "169.254.169.254", "127.0.0.1:80", "[::ffff:127.0.0.1]", "a", "ghcr.io/"]
)
@pytest.mark.parametrize("mirror", [True, False])
def test_an_unknown_namespace_is_nobodys(ns: str, mirror: bool) -> None:
    with pytest.raises(RepositoryUnknown):
        Directory([DEFAULT], mirror=mirror).find(RepositoryName("a"), ns)


def test_neither_hosted_nor_anybodys() -> None:
    directory = Directory([GHCR], ["team/**"])
    assert directory.find(RepositoryName("team/a"), None) is None
    with pytest.raises(RepositoryUnknown):
        directory.find(RepositoryName("a"), None)


def test_a_name_that_gets_too_long() -> None:
    with pytest.raises(NameInvalid):
        Directory([GHCR]).find(RepositoryName("a" * 250), "ghcr.io")
