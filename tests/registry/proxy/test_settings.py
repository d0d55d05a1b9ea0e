"""Settings of upstreams: read by the configuration's own builder, and checked with dotted paths."""

from dataclasses import replace
from typing import Any

import pytest

from registry.config.build import Builder
from registry.config.errors import ConfigError
from registry.config.tree import Table, read_text
from registry.config.upstreams import (
    ExecConfig,
    ProxyConfig,
    UpstreamConfig,
    UpstreamTLSConfig,
    check_proxy,
    check_upstreams,
    from_proxy,
)


def built(kind: type[Any], text: str) -> Any:
    root, _ = read_text(text, "config.yml")
    assert isinstance(root, Table)
    return Builder().level(kind, root, "here")


def test_read_as_the_file_has_it() -> None:
    found = built(
        UpstreamConfig,
        """
        name: ghcr.io
        url: https://ghcr.io
        username: u
        password: 0123
        tls: {ca: /ca.pem, skipverify: true}
        realms: [auth.lan]
        ttl: 10m
        platforms: [linux/amd64, linux/arm/v7]
        allow: [team/**]
        deny: [team/secret]
        """,
    )
    assert found == UpstreamConfig(
        name="ghcr.io",
        url="https://ghcr.io",
        username="u",
        password="0123",
        tls=UpstreamTLSConfig(ca="/ca.pem", skipverify=True),
        realms=("auth.lan",),
        ttl=600.0,
        platforms=("linux/amd64", "linux/arm/v7"),
        allow=("team/**",),
        deny=("team/secret",),
    )
    assert "0123" not in repr(found)


def test_proxy_as_distribution_has_it() -> None:
    found = built(
        ProxyConfig,
        "{remoteurl: 'https://registry-1.docker.io', username: u, password: p, ttl: 24h, "
        "exec: {command: x, lifetime: 1h}}",
    )
    assert found == ProxyConfig(
        remoteurl="https://registry-1.docker.io",
        username="u",
        password="p",
        ttl=86400.0,
        exec=ExecConfig(command="x", lifetime=3600.0),
    )
    assert built(ProxyConfig, "{}") == ProxyConfig(ttl=7 * 86400.0)
    assert built(ProxyConfig, "{ttl: 0}").ttl == 0
    check_proxy(ProxyConfig())
    upstream = from_proxy(replace(found, exec=ExecConfig()))
    check_upstreams([upstream])
    assert (upstream.called, upstream.is_hub, upstream.ttl) == ("docker.io", True, 0.0)


@pytest.mark.parametrize(
    ("url", "base", "called"),
    [
        ("https://docker.io", "https://registry-1.docker.io", "docker.io"),
        ("https://index.docker.io/v1/", "https://registry-1.docker.io", "docker.io"),
        ("http://registry-1.docker.io", "https://registry-1.docker.io", "docker.io"),
        ("https://GHCR.io:443/", "https://ghcr.io", "ghcr.io:443"),
        ("http://hub.lan:5000", "http://hub.lan:5000", "hub.lan:5000"),
        ("https://hub.lan/artifactory/docker/", "https://hub.lan/artifactory/docker", "hub.lan"),
    ],
)
def test_base_and_name(url: str, base: str, called: str) -> None:
    config = UpstreamConfig(url=url)
    assert (config.base, config.called) == (base, called)


GOOD = UpstreamConfig(url="https://ghcr.io")

WRONG: dict[str, tuple[list[UpstreamConfig], str]] = {
    "no url": ([UpstreamConfig()], "upstreams.0.url"),
    "no scheme": ([UpstreamConfig(url="ghcr.io")], "upstreams.0.url"),
    "ftp": ([UpstreamConfig(url="ftp://ghcr.io")], "upstreams.0.url"),
    "password in it": ([UpstreamConfig(url="https://u:canary@ghcr.io")], "upstreams.0.url"),
    "query": ([UpstreamConfig(url="https://ghcr.io/?a")], "upstreams.0.url"),
    "name": ([replace(GOOD, name="GHCR/x")], "upstreams.0.name"),
    "same name": ([GOOD, replace(GOOD, url="http://ghcr.io")], "upstreams.1.name"),
    "no password": ([replace(GOOD, username="u")], "upstreams.0.username"),
    "no user": ([replace(GOOD, password="canary")], "upstreams.0.username"),
    "two passwords": ([replace(GOOD, username="u", password="canary", passwordfile="/x")], "upstreams.0.passwordfile"),
    "two ways": ([replace(GOOD, dockerconfig="auto", helper="x")], "upstreams.0.helper"),
    "helper": ([replace(GOOD, helper="../x")], "upstreams.0.helper"),
    "realm": ([replace(GOOD, realms=("auth.lan", "http://u@x"))], "upstreams.0.realms.1"),
    "platform": ([replace(GOOD, platforms=("amd64",))], "upstreams.0.platforms.0"),
    "allow": ([replace(GOOD, allow=("a", "(x)"))], "upstreams.0.allow.1"),
    "deny": ([replace(GOOD, deny=("/",))], "upstreams.0.deny.0"),
    "ca": ([replace(GOOD, tls=UpstreamTLSConfig(ca="/none.pem"))], "upstreams.0.tls.ca"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be(name: str) -> None:
    upstreams, path = WRONG[name]
    with pytest.raises(ConfigError) as caught:
        check_upstreams(upstreams)
    assert caught.value.path == path
    assert "canary" not in str(caught.value)


def test_what_cannot_be_of_proxy() -> None:
    for proxy, path in (
        (ProxyConfig(remoteurl="registry-1.docker.io"), "proxy.remoteurl"),
        (ProxyConfig(remoteurl="https://x", username="u", exec=ExecConfig(command="c")), "proxy.exec.command"),
    ):
        with pytest.raises(ConfigError) as caught:
            check_proxy(proxy)
        assert caught.value.path == path


def test_good_ones() -> None:
    check_upstreams([])
    check_upstreams([GOOD, UpstreamConfig(url="https://docker.io", platforms=("linux/amd64",), helper="pass")])
