"""Whom to trust over TLS, and which proxy leads out: what both HTTP clients of the proxy go by.

`tls.ca` is trusted besides the system's authorities, as docker does it with certs.d. `tls.skipverify` covers the host
of the upstream and no other: not its token server, not its CDN (CVE-2019-10214).
"""

import ssl
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from registry.config.errors import ConfigError
from registry.config.upstreams import UpstreamTLSConfig
from registry.proxy.realms import Origin


@dataclass(frozen=True, slots=True)
class Trust:
    """own: for the upstream's host.   others: for every other."""

    host: str
    own: ssl.SSLContext
    others: ssl.SSLContext

    def context(self, host: str) -> ssl.SSLContext:
        return self.own if host == self.host else self.others


class Trusts:
    """Of all upstreams of a registry: those with the same settings share what takes some 40 ms to make."""

    def __init__(self) -> None:
        self._contexts: dict[tuple[str, bool], ssl.SSLContext] = {}

    def of(self, origin: Origin, config: UpstreamTLSConfig) -> Trust:
        """Raises ConfigError for a `tls.ca` that cannot be read; its path is that of the field."""
        return Trust(origin.host, self._context(config.ca, config.skipverify), self._context(config.ca, False))

    def _context(self, ca: str, skipverify: bool) -> ssl.SSLContext:
        found = self._contexts.get((ca, skipverify))
        if found is None:
            found = self._contexts[ca, skipverify] = _context(ca)
            if skipverify:
                found.check_hostname = False
                found.verify_mode = ssl.CERT_NONE
        return found


def _context(ca: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    paths = ssl.get_default_verify_paths()
    if not paths.cafile and not (paths.capath and any(Path(paths.capath).iterdir())):
        import certifi  # httpx brings it; a container without ca-certificates trusts nobody else

        context.load_verify_locations(certifi.where())
    if ca:
        try:
            context.load_verify_locations(ca)
        except ssl.SSLError as exc:
            raise ConfigError("tls.ca", f"{ca} holds no PEM certificate: {exc.reason}") from exc
        except OSError as exc:
            raise ConfigError("tls.ca", f"{ca} cannot be read: {exc.strerror}") from exc
    return context


def proxy_for(url: str) -> str | None:
    """What HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY say of a URL. A SOCKS proxy is not used."""
    parts = urlsplit(url)
    proxies = urllib.request.getproxies_environment()
    found = proxies.get(parts.scheme) or proxies.get("all")
    bypassed = urllib.request.proxy_bypass_environment  # type: ignore[attr-defined]
    if not found or bypassed(parts.netloc, proxies):
        return None
    found = found if "://" in found else f"http://{found}"
    return found if urlsplit(found).scheme in ("http", "https") else None
