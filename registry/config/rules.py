"""What must hold between settings. Each rule takes the Config and the origins, and raises, warns or completes it.

A protection that is half configured stops the start: distribution serves plain HTTP for a key without a certificate.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from . import model
from .errors import ConfigError
from .upstreams import check_hosted, check_proxy, check_upstreams

_ADDRESS = re.compile(
    r"(\[[0-9A-Fa-f:.]+(?:%[\w.-]+)?\]|[^\s:\[\]]*):([0-9]+|[A-Za-z][\w-]*)"
)  # Go takes names of ports too


def apply(config: model.Config, origins: Mapping[str, str]) -> tuple[model.Config, list[str]]:
    _address(config.http, origins)
    _debug(config.http, origins)
    _health(config.health, origins)
    _auth(config.auth, origins)
    _upstreams(config, origins)
    warnings = [*_tls(config.http.tls, origins), *_urls(config.http, origins), *_linkttl(config, origins)]
    validation, more = _validation(config.validation, origins)
    return replace(config, validation=validation), [*warnings, *more]


def _origin(origins: Mapping[str, str], path: str) -> str:
    found = origins.get(path, "")
    return "" if found == "default" else found


def _address(http: model.HTTPConfig, origins: Mapping[str, str]) -> None:
    if http.net == "unix":
        if not _origin(origins, "http.addr"):
            raise ConfigError(
                "http.addr", 'expected the path of a socket, since http.net is "unix"', _origin(origins, "http.net")
            )
        return
    _tcp_address(http.addr, "http.addr", origins)


def _tcp_address(addr: str, path: str, origins: Mapping[str, str]) -> None:
    found = _ADDRESS.fullmatch(addr)
    if not found or (found[2].isdigit() and int(found[2]) > 65535):
        problem = f'expected HOST:PORT or :PORT, such as ":5000", found {addr[:60]!r}'
        raise ConfigError(path, problem, _origin(origins, path))


def _debug(http: model.HTTPConfig, origins: Mapping[str, str]) -> None:
    path = "http.debug.addr"
    if http.debug.addr:
        _tcp_address(http.debug.addr, path, origins)
        if http.debug.addr == http.addr and not http.addr.endswith(":0"):
            raise ConfigError(path, "is http.addr, where clients are; give it a port of its own", origins[path])


def _health(health: model.HealthConfig, origins: Mapping[str, str]) -> None:
    """A check without its object would look as if all were well."""
    checks: list[tuple[str, str, str]] = [
        *((f"health.file.{n}.file", each.file, "the path of a file") for n, each in enumerate(health.file)),
        *((f"health.http.{n}.uri", each.uri, "a URL") for n, each in enumerate(health.http)),
        *((f"health.tcp.{n}.addr", each.addr, "HOST:PORT") for n, each in enumerate(health.tcp)),
    ]
    for path, found, expected in checks:
        if not found:
            raise ConfigError(path, f"expected {expected}, found nothing", _origin(origins, path.rsplit(".", 2)[0]))
    for number, each in enumerate(health.tcp):
        _tcp_address(each.addr, f"health.tcp.{number}.addr", origins)


def _auth(auth: model.AuthConfig, origins: Mapping[str, str]) -> None:
    if auth.htpasswd and not auth.htpasswd.path:
        raise ConfigError(
            "auth.htpasswd.path",
            "expected the path of a file made by `htpasswd -Bc`, found nothing",
            _origin(origins, "auth"),
        )


def _upstreams(config: model.Config, origins: Mapping[str, str]) -> None:
    try:
        check_proxy(config.proxy)
        check_upstreams(config.upstreams)
        check_hosted(config.hosted)
    except ConfigError as exc:
        above = [exc.path, exc.path.rpartition(".")[0], exc.path.partition(".")[0]]
        raise ConfigError(exc.path, exc.problem, next(filter(None, (_origin(origins, p) for p in above)), "")) from None
    if not config.proxy.remoteurl and not config.upstreams:
        return
    name = "proxy.remoteurl" if config.proxy.remoteurl else "upstreams"
    if config.proxy.remoteurl and config.upstreams:
        problem = "proxy.remoteurl is a mirror of one; write that as one of the upstreams, with default: true"
        raise ConfigError("upstreams", problem, _origin(origins, "upstreams"))
    if config.storage.maintenance.readonly.enabled:
        path = "storage.maintenance.readonly.enabled"
        raise ConfigError(path, f"a cache writes what it fetches; {name} excludes it", _origin(origins, path))


def _tls(tls: model.TLSConfig, origins: Mapping[str, str]) -> Iterator[str]:
    for name, other in (("certificate", "key"), ("key", "certificate")):
        if getattr(tls, name) and not getattr(tls, other):
            raise ConfigError(
                f"http.tls.{other}",
                f"expected a path, since http.tls.{name} is set, found nothing",
                _origin(origins, f"http.tls.{name}"),
            )
    if tls.clientcas and not tls.certificate:
        raise ConfigError(
            "http.tls.clientcas",
            "cannot be kept: without http.tls.certificate there is no TLS",
            _origin(origins, "http.tls.clientcas"),
        )
    if not _origin(origins, "http.tls.clientcas") and (origin := _origin(origins, "http.tls.clientauth")):
        # An empty list says that none is wanted, as config.example.yaml does; no list at all looks forgotten.
        raise ConfigError("http.tls.clientauth", "cannot be kept: http.tls.clientcas names no CA", origin)
    for name in ("minimumtls", "ciphersuites"):
        changed = getattr(tls, name) != getattr(model.TLSConfig(), name)
        if changed and not tls.certificate:
            origin = _origin(origins, f"http.tls.{name}")
            yield f"http.tls.{name} has no effect: without http.tls.certificate there is no TLS ({origin})"
    if tls.ciphersuites and tls.minimumtls == "tls1.3":
        origin = _origin(origins, "http.tls.ciphersuites")
        yield f"http.tls.ciphersuites has no effect: the suites of TLS 1.3 cannot be chosen ({origin})"


def _urls(http: model.HTTPConfig, origins: Mapping[str, str]) -> Iterator[str]:
    """distribution makes absolute URLs from the Host header, which anyone may send; we never do."""
    if not http.relativeurls and not http.host:
        origin = _origin(origins, "http.relativeurls")
        yield f"http.relativeurls has no effect: URLs are absolute only when http.host says with what ({origin})"


def _linkttl(config: model.Config, origins: Mapping[str, str]) -> Iterator[str]:
    """A delete holds at once in the process that did it, and in its workers, which share no memory."""
    storage = config.storage
    if config.cache.linkttl and storage.delete.enabled and not storage.maintenance.readonly.enabled:
        origin = _origin(origins, "cache.linkttl")
        yield f"cache.linkttl has no effect: with storage.delete.enabled a delete has to hold at once ({origin})"


def _validation(found: model.ValidationConfig, origins: Mapping[str, str]) -> tuple[model.ValidationConfig, list[str]]:
    rules = found.manifests
    if found.disabled:
        relaxed = replace(rules, urls=model.URLRulesConfig(), indexes=model.IndexRulesConfig(platforms="none"))
        return replace(found, manifests=relaxed), []
    if rules.indexes.platforms == "list" and not rules.indexes.platformlist:
        everything = replace(rules, indexes=model.IndexRulesConfig(platforms="all"))
        origin = _origin(origins, "validation.manifests.indexes.platforms")
        warning = f'validation.manifests.indexes.platforms: "list" without a platformlist means "all" ({origin})'
        return replace(found, manifests=everything), [warning]
    return found, []
