"""The settings of upstreams: distribution's `proxy`, and our list `upstreams`, as frozen dataclasses.

They follow the rules of model.py (names without underscores, an annotation says how a value is read). What one field
cannot say is checked by `check_proxy` and `check_upstreams`, which raise ConfigError with the dotted path of the
setting.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from registry.proxy.patterns import parse_patterns
from registry.proxy.realms import Origin, parse_allowed

from . import values
from .errors import ConfigError

T = TypeVar("T")

DAY = 24 * 3600.0
HUB = "registry-1.docker.io"
HUB_NAMES = frozenset({"docker.io", "index.docker.io", "registry.hub.docker.com", HUB})
"""Hosts that people write for Docker Hub; only the last one is a registry."""

PLATFORM = re.compile(r"[a-z0-9]+/[a-z0-9_]+(?:/[a-z0-9.]+)?")
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?(?::[0-9]{1,5})?")
_COMMAND = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def setting(default: T, reader: Callable[..., T]) -> T:
    """As in model.py, which imports this module and cannot be imported here."""
    made: Any = field(default=default, metadata={"reader": reader})
    return made  # type: ignore[no-any-return]


def secret() -> str:
    """A text that no repr shows."""
    made: Any = field(default="", repr=False)
    return made  # type: ignore[no-any-return]


@dataclass(frozen=True, kw_only=True, slots=True)
class ExecConfig:
    """`proxy.exec`: a credential helper of docker's kind. lifetime: seconds; None: it is run once, 0: every time."""

    command: str = ""
    lifetime: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ProxyConfig:
    """`proxy`, as in distribution: the whole registry is a mirror of one upstream.

    ttl: seconds without a pull, after which an image leaves the cache where cache.age does not say; 0: never.
    """

    remoteurl: str = ""
    username: str = ""
    password: str = secret()
    ttl: float = 7 * DAY
    exec: ExecConfig = field(default_factory=ExecConfig)


@dataclass(frozen=True, kw_only=True, slots=True)
class UpstreamTLSConfig:
    """ca: a PEM file, trusted besides the system's.   skipverify: no check at all, of this upstream's host alone."""

    ca: str = ""
    skipverify: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class UpstreamConfig:
    """One entry of `upstreams`.

    name: by which clients call it: a prefix of paths, and `?ns=`; the host of the url where it is left out.
    username: with password or passwordfile.   dockerconfig: a config.json of docker's, or its folder; "auto" for where
    docker itself looks.   helper: X, for the program docker-credential-X.   ecr: log in by the instance's role.
    realms: token servers that may be asked besides the upstream itself.
    privatenetworks: may it redirect to private addresses?   ttl: seconds for which a tag is not asked about again.
    platforms: those to be fetched, all if empty.   allow, deny: patterns of repositories, such as library/*.
    default: is it asked for names that no other upstream is named for?
    deleted: what becomes of a cached tag that the upstream has no more: keep (serve it) or drop (404).
    """

    name: str = ""
    url: str = ""
    username: str = ""
    password: str = secret()
    passwordfile: str = ""
    dockerconfig: str = ""
    helper: str = ""
    helperlifetime: float | None = 300.0
    ecr: bool = False
    tls: UpstreamTLSConfig = field(default_factory=UpstreamTLSConfig)
    realms: tuple[str, ...] = ()
    privatenetworks: bool = False
    ttl: float = setting(3600.0, values.duration)
    platforms: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    default: bool = False
    deleted: str = setting("keep", values.one_of("keep", "drop"))

    @property
    def origin(self) -> Origin:
        """Of the registry itself: Docker Hub's real host, where one of its other names is given."""
        return Origin.of(self.base)

    @property
    def base(self) -> str:
        """The URL below which `/v2/` is, without a slash at its end."""
        parts = urlsplit(self.url)
        if parts.hostname in HUB_NAMES:
            return f"https://{HUB}"
        return str(Origin.of(self.url)) + parts.path.rstrip("/")

    @property
    def called(self) -> str:
        """The name, or what stands for it."""
        if self.name:
            return self.name
        parts = urlsplit(self.url)
        return "docker.io" if parts.hostname in HUB_NAMES else parts.netloc.lower()

    @property
    def is_hub(self) -> bool:
        return self.origin.host == HUB


def from_proxy(proxy: ProxyConfig) -> UpstreamConfig:
    """The upstream that distribution's settings mean. Its tags are asked about at every pull, as there."""
    return UpstreamConfig(
        url=proxy.remoteurl,
        username=proxy.username,
        password=proxy.password,
        helper=proxy.exec.command,
        helperlifetime=proxy.exec.lifetime,
        ttl=0.0,
    )


def check_proxy(proxy: ProxyConfig, path: str = "proxy") -> None:
    """Raises ConfigError."""
    if not proxy.remoteurl:
        return
    _check_url(proxy.remoteurl, f"{path}.remoteurl")
    if proxy.exec.command and proxy.username:
        raise ConfigError(f"{path}.exec.command", "username and exec exclude each other; give one of them")


def check_upstreams(upstreams: Sequence[UpstreamConfig], path: str = "upstreams") -> None:
    """Raises ConfigError for the first that cannot be, with its path, such as `upstreams.0.url`."""
    seen: dict[str, int] = {}
    for number, each in enumerate(upstreams):
        here = f"{path}.{number}"
        _check_url(each.url, f"{here}.url")
        if not _NAME.fullmatch(each.called):
            raise ConfigError(
                f"{here}.name", f"{each.called!r} is not a host's name, such as docker.io or hub.lan:5000"
            )
        if each.called in seen:
            raise ConfigError(f"{here}.name", f"{each.called} is the name of {path}.{seen[each.called]} already")
        seen[each.called] = number
        if each.default and (others := [n for n in range(number) if upstreams[n].default]):
            raise ConfigError(f"{here}.default", f"{path}.{others[0]} is the default already")
        _check_credentials(each, here)
        _check_lists(each, here)
        if each.tls.ca and not Path(each.tls.ca).is_file():
            raise ConfigError(f"{here}.tls.ca", f"{each.tls.ca} is not a file")


def check_hosted(patterns: Sequence[str], path: str = "hosted") -> None:
    """Raises ConfigError for what is no pattern of names."""
    _check_patterns(patterns, path)


def _check_url(url: str, path: str) -> None:
    if not url:
        raise ConfigError(path, "is needed: where the upstream is, such as https://ghcr.io")
    if "@" in urlsplit(url).netloc:  # its text would show the password
        raise ConfigError(path, "must hold no user name or password; there are settings for them")
    try:
        Origin.of(url)
    except ValueError as exc:
        raise ConfigError(path, f"is not the URL of a registry, such as https://ghcr.io: {exc}") from None
    if urlsplit(url).query:
        raise ConfigError(path, "must not have a query")


def _check_credentials(each: UpstreamConfig, here: str) -> None:
    ways = {
        "username": each.username,
        "dockerconfig": each.dockerconfig,
        "helper": each.helper,
        "ecr": each.ecr,
    }
    if len(given := [way for way, value in ways.items() if value]) > 1:
        raise ConfigError(f"{here}.{given[1]}", f"{' and '.join(given)} exclude each other; give one of them")
    if each.password and each.passwordfile:
        raise ConfigError(f"{here}.passwordfile", "password and passwordfile exclude each other; give one of them")
    if each.username and not (each.password or each.passwordfile):
        raise ConfigError(f"{here}.username", "needs a password or a passwordfile")
    if not each.username and (each.password or each.passwordfile):
        raise ConfigError(f"{here}.username", "is needed with a password")
    if each.helper and not _COMMAND.fullmatch(each.helper):
        raise ConfigError(f"{here}.helper", f"{each.helper!r} is not the X of a program docker-credential-X")


def _check_lists(each: UpstreamConfig, here: str) -> None:
    for number, realm in enumerate(each.realms):
        try:
            parse_allowed(realm, each.origin.scheme)
        except ValueError as exc:
            raise ConfigError(f"{here}.realms.{number}", f"is not a host or URL: {exc}") from None
    for number, platform in enumerate(each.platforms):
        if not PLATFORM.fullmatch(platform):
            raise ConfigError(f"{here}.platforms.{number}", f"{platform!r} is not a platform such as linux/amd64")
    _check_patterns(each.allow, f"{here}.allow")
    _check_patterns(each.deny, f"{here}.deny")


def _check_patterns(patterns: Sequence[str], path: str) -> None:
    for number, pattern in enumerate(patterns):
        try:
            parse_patterns([pattern])
        except ValueError as exc:
            raise ConfigError(f"{path}.{number}", str(exc)) from None
