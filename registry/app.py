"""create_app(config): the one place where parts are joined. The result is a plain ASGI app.

Probes(Measured(RequestIds(Traced(AccessLog(ResponseHeaders(Starlette(exception handlers, lifespan)))))))
Starlette -> Dispatch -> handlers -> Repository -> WatchedDriver(driver)
Measured where metrics are on, Traced where traces are, WatchedDriver where one of them is
Repository: RefuseDeletes(LocalRepository) by default, ReadOnly(LocalRepository) under storage.maintenance.readonly;
PullThrough(LocalRepository, UpstreamRepository) for what an upstream has (proxy.remoteurl, upstreams)
"""

import os
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp

from registry.application import Application
from registry.auth import Authenticator, BasicAuthenticator, Htpasswd
from registry.chores import at_work
from registry.config import Config, ConfigError
from registry.dispatch import Dispatch
from registry.errors import RegistryError, respond
from registry.middleware import AccessLog, ResponseHeaders
from registry.proxy.eviction import Bounds
from registry.secret import UploadSecret
from registry.services import Resolve, Services, Settings
from registry.stores import manifest_rules, open_driver
from registry.urls import Urls
from registry.version import version
from registry.watching.checks import health_of
from registry.watching.debug import Debug
from registry.watching.probes import Gate, Probes, add_pages
from registry.watching.request_ids import RequestIds
from registry.watching.tracing import tracing
from registry.watching.watched_driver import WatchedDriver, label_of
from storage import layout
from storage.content import ContentStore
from storage.driver import StorageDriver
from storage.errors import ObjectNotFound, StorageError
from storage.names import RepositoryName
from storage.repository import ReadOnly, RefuseDeletes, Repository
from storage.rules import ManifestRules
from storage.thrift import Thrift

if TYPE_CHECKING:
    from registry.metrics.meter import Meter
    from registry.metrics.numbers import Numbers
    from registry.proxy.mirrors import Mirrors

_REPOSITORIES = 1024
"""Whose wrappers are kept."""

_LINK_TTL = 60.0
"""Seconds, of a read-only registry."""

_URL_EXPIRES = 1200.0
"""Seconds; distribution's."""


def create_app(config: Config, numbers: "Numbers | None" = None) -> Application:
    """The registry. Raises ConfigError for what cannot work; opens nothing that its lifespan does not close.

    numbers: what the metrics of several workers share, made before they are forked.
    """
    meter, traced, driver = _meter(config, numbers), tracing(os.environ), open_driver(config)
    content = ContentStore(
        _watched(driver, config, meter, traced=traced is not None),
        rules=manifest_rules(config),
        rescan=None if config.storage.maintenance.readonly.enabled else config.referrers.rescan,
        thrift=_thrift(config),
        url_expires=_url_expires(config),
        grace=_grace(config, driver),
    )
    mirrors = make_mirrors(content, config)
    services = Services(
        resolve=_resolver(content, config, mirrors),
        list_repositories=content.list_repositories,
        authenticator=_authenticator(config),
        secret=UploadSecret(config.http.secret, content.driver),
        urls=Urls(_base_url(config)),
        settings=Settings(config.limits.manifestsize, config.tags.maxtags, config.catalog.maxentries),
    )
    health, debug = health_of(config, partial(_ask_something, content, config), content.driver), Debug()
    add_pages(debug, health)
    if mirrors is not None:
        mirrors.add_page(debug)
    app = Starlette(
        exception_handlers={
            StorageError: respond,
            RegistryError: respond,
            HTTPException: respond,
            ClientDisconnect: _nobody_listens,
            Exception: respond,
        },
        lifespan=lambda _: at_work(content, config, mirrors, health),
    )
    app.router.redirect_slashes = False
    prefix = config.http.prefix.rstrip("/")
    app.router.default = Dispatch(services, prefix)
    with_headers = ResponseHeaders(Gate(app, health) if health.gated else app, config.http.headers)
    logged = with_headers if config.log.accesslog.disabled else AccessLog(with_headers)
    asgi: ASGIApp = RequestIds(traced(logged) if traced else logged)
    if meter is not None:
        meter.caches(content.lookups)
        if mirrors is not None:
            meter.upstreams(mirrors.upstreams)
        asgi = meter.requests(asgi)
        debug.add(config.http.debug.prometheus.path, meter.page)  # of all workers, so there is nothing to join
    return Application(Probes(asgi, health, prefix), debug, health)


def _meter(config: Config, numbers: "Numbers | None") -> "Meter | None":
    """None where nobody could read what is counted."""
    debug = config.http.debug
    if not (debug.addr and debug.prometheus.enabled):
        return None
    try:
        from registry.metrics.meter import Meter
    except ImportError as exc:
        name, how = "http.debug.prometheus.enabled", "pip install 'moorage[metrics]'"
        raise ConfigError(name, f"needs packages that are missing: {how} ({exc})") from exc
    from registry.metrics.numbers import Numbers

    return Meter(numbers or Numbers(), version(), debug.prometheus.repositories)


def _watched(driver: StorageDriver, config: Config, meter: "Meter | None", *, traced: bool) -> StorageDriver:
    if meter is None and not traced:
        return driver
    label = label_of(config.storage.driver)
    return WatchedDriver(driver, label, meter.actions(label) if meter else None, traced=traced)


async def _ask_something(content: ContentStore, config: Config) -> None:
    """One cheap call. Whether the object is there says nothing: only a registry that was pushed to has made it.

    On S3 a GET, as a 404 without a body does not say whether it is the bucket that is missing. In a folder the secret
    is the writer's alone, whom a replica need not run as: it only has to get at the blobs.
    """
    await content.driver.check_present()
    replica = config.storage.maintenance.readonly.enabled and config.storage.driver == "filesystem"
    with suppress(ObjectNotFound):
        await content.driver.read(f"{layout.BLOBS}/ready" if replica else layout.SECRET)


def _resolver(content: ContentStore, config: Config, mirrors: "Mirrors | None") -> Resolve:
    read_only, deletes = config.storage.maintenance.readonly.enabled, config.storage.delete.enabled

    @lru_cache(_REPOSITORIES)  # they hold no state, so making them for every request would be all that they cost
    def hosted(name: RepositoryName) -> Repository:
        repository = content.repository(name)
        if read_only:
            return ReadOnly(repository)
        return repository if deletes else RefuseDeletes(repository)

    if mirrors is None:
        return lambda name, ns: hosted(name)  # as distribution, which does not look at ns

    @lru_cache(_REPOSITORIES)
    def resolve(name: RepositoryName, ns: str | None) -> Repository:
        return mirrors.repository(name, ns) or hosted(name)

    return resolve


def make_mirrors(content: ContentStore, config: Config) -> "Mirrors | None":
    """Manifests of a cache come before what they name: its repositories are sparse ones of the same store."""
    if not config.proxy.remoteurl and not config.upstreams:
        return None
    try:
        from registry.proxy.mirrors import Mirrors
    except ImportError as exc:
        name = "proxy.remoteurl" if config.proxy.remoteurl else "upstreams"
        raise ConfigError(name, f"needs packages that are missing: pip install 'moorage[proxy]' ({exc})") from exc
    cached = ContentStore(
        content.driver,
        rules=ManifestRules(sparse=True),
        rescan=config.referrers.rescan,
        url_expires=_url_expires(config),
        grace=0.0,
        lookups=content.lookups,
    )
    return Mirrors.of(
        config.proxy,
        config.upstreams,
        config.hosted,
        content.driver,
        cached.repository,
        config.garbage.grace / 2,
        config.cache,
        _pieces_folder(config),
    )


def _url_expires(config: Config) -> float | None:
    """Seconds; None: blobs are sent by us."""
    return None if config.storage.redirect.disable else _URL_EXPIRES


def _pieces_folder(config: Config) -> str | None:
    """Where the store itself is local, pieces of blobs are on the same disk."""
    if config.storage.driver != "filesystem":
        return None
    return f"{config.storage.parameters['rootdirectory']}/{layout.PIECES}"


def _thrift(config: Config) -> Thrift:
    read_only, deletes = config.storage.maintenance.readonly.enabled, config.storage.delete.enabled
    linkttl = config.cache.linkttl
    if linkttl is None:
        linkttl = _LINK_TTL if read_only and not deletes else 0.0
    if deletes and not read_only:
        linkttl = 0.0  # the workers that have not deleted must know as well
    return Thrift(linkttl=linkttl, read_only=read_only, deletes=deletes, shareable=config.uploads.shareable)


def _grace(config: Config, driver: StorageDriver) -> float:
    """For which a push renews what it finds, so that neither a collector nor the bounds of a cache take it away."""
    if config.storage.maintenance.readonly.enabled:
        return 0.0
    graces = config.garbage.grace, Bounds.of(config.cache, config.proxy, driver).recorded
    return min(filter(None, graces), default=0.0)


def _authenticator(config: Config) -> Authenticator | None:
    htpasswd = config.auth.htpasswd
    if htpasswd is None:
        return None
    try:
        return BasicAuthenticator(Htpasswd(Path(htpasswd.path)), htpasswd.realm)
    except FileNotFoundError as exc:
        how = f"make one with: htpasswd -Bc {htpasswd.path} USER"
        raise ConfigError("auth.htpasswd.path", f"there is no file {htpasswd.path}; {how}") from exc
    except (OSError, ValueError) as exc:
        raise ConfigError("auth.htpasswd.path", f"cannot use {htpasswd.path}: {exc}") from exc


def _base_url(config: Config) -> str:
    """What stands before /v2/ in the URLs we answer with; relative unless `http.host` says what clients call us."""
    prefix = config.http.prefix.rstrip("/")
    if not config.http.host:
        return prefix
    host = urlsplit(config.http.host)
    return f"{host.scheme}://{host.netloc}{host.path.rstrip('/')}{prefix}"


async def _nobody_listens(request: Request, exc: Exception) -> Response:
    """The client has left in the middle of its body: heard by nobody, and logged as distribution and nginx do."""
    return Response(None, 499)
