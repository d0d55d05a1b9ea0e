"""Where credentials of an upstream may go: to itself, and to the token servers that are listed for it. Pure.

A registry names its token server in its answer. Whoever can forge one answer could name his own, and get the password
(CVE-2026-33540, CVE-2020-15157). So a realm is asked only when it has the upstream's own origin (scheme, host and port)
or stands in a list: `realms` of the upstream, or the few that everyone knows. Never over http when the upstream is
https. An anonymous request goes nowhere else either: a registry must not make this one fetch inner addresses.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

KNOWN = {
    "registry-1.docker.io": ("auth.docker.io",),
    "registry.gitlab.com": ("gitlab.com",),
    "docker.elastic.co": ("docker-auth.elastic.co",),
}
"""By host of the upstream. GHCR, Quay, NGC, GCR, Artifact Registry, ACR and ECR have theirs on their own host."""

_PORTS = {"http": 80, "https": 443}
_URL = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")  # printable ASCII without `"` and `\`, which readers take differently
_HOST = re.compile(r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?|[0-9a-f:.]*:[0-9a-f:.]*")


class RealmRefused(ValueError):
    """reason: for the operator; it may name the host."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port (RFC 6454). host in lower case, an IPv6 address without brackets."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> "Origin":
        """Raises ValueError for what is no plain http or https URL: user names in it, another scheme, a bad port."""
        parts = _split(url)
        return cls(parts.scheme, parts.hostname or "", parts.port or _PORTS[parts.scheme])

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + ("" if self.port == _PORTS[self.scheme] else f":{self.port}")


def _split(url: str) -> SplitResult:
    if not _URL.fullmatch(url):
        raise ValueError("it holds characters that do not belong into a URL")
    parts = urlsplit(url)
    if parts.scheme not in _PORTS:
        raise ValueError("it must start with http:// or https://")
    if "@" in parts.netloc:
        raise ValueError("it holds a user name or password")
    if parts.hostname is None or not _HOST.fullmatch(parts.hostname):
        raise ValueError("it names no host")
    if parts.port == 0:
        raise ValueError("it names port 0")
    if parts.fragment:
        raise ValueError("it has a fragment")
    return parts


def parse_allowed(text: str, scheme: str) -> Origin:
    """An entry of `realms`: `auth.example.com`, `auth.example.com:8443` or a URL, of which the origin counts.

    scheme: of the upstream, where the entry has none. Raises ValueError.
    """
    return Origin.of(text if "://" in text else f"{scheme}://{text}")


class Realms:
    """The token servers of one upstream."""

    def __init__(self, upstream: Origin, listed: Iterable[str] = ()) -> None:
        known = KNOWN.get(upstream.host, ()) if upstream.scheme == "https" else ()
        self._allowed = {upstream} | {parse_allowed(text, upstream.scheme) for text in (*known, *listed)}
        self._upstream = upstream

    def check(self, realm: str) -> Origin:
        """The origin of a realm that may be asked. Raises RealmRefused."""
        try:
            origin = Origin.of(realm)
        except ValueError as exc:
            raise RealmRefused(f"the upstream's realm cannot be used: {exc}") from None
        if self._upstream.scheme == "https" and origin.scheme != "https":
            raise RealmRefused(f"the upstream is https, and its realm is not: {origin}")
        if origin not in self._allowed:
            raise RealmRefused(f"{origin} is not among the realms of this upstream (setting: realms)")
        return origin
