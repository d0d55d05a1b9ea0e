"""Where a bucket is reached: scheme, host and the path of a key. Pure.

The names are Amazon's: `BUCKET.s3.REGION.amazonaws.com`, with `dualstack`, `-fips` and `s3-accelerate` where settings
ask for them; a test compares them with botocore's own rules. Any other store is named by `regionendpoint`.
"""

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from storage.drivers.s3.settings import S3Settings

_SUFFIXES = {
    "cn-": "amazonaws.com.cn",
    "us-iso-": "c2s.ic.gov",
    "us-isob-": "sc2s.sgov.gov",
    "us-isof-": "csp.hci.ic.gov",
    "eu-isoe-": "cloud.adc-e.uk",
    "eusc-": "amazonaws.eu",
}
"""Prefix of a region: the domain of its partition, where it is not amazonaws.com."""

_DNS_NAME = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """host: with the port where it is not the scheme's own. base: stands before every key, with a slash at its end."""

    scheme: str
    host: str
    base: str

    @classmethod
    def of(cls, settings: S3Settings) -> "Endpoint":
        """Raises ValueError for a regionendpoint that is none."""
        scheme = "https" if settings.secure else "http"
        if settings.accelerate and not settings.regionendpoint:
            stack = "s3-accelerate.dualstack" if settings.usedualstack else "s3-accelerate"
            return cls(scheme, f"{settings.bucket}.{stack}.{_domain(settings.region)}", "/")
        host, base = _amazon(settings), "/"
        if settings.regionendpoint:
            scheme, host, base = _parse("regionendpoint", settings.regionendpoint, scheme)
        if _in_path(settings, scheme, host):
            return cls(scheme, host, f"{base}{quote(settings.bucket, safe='-._~')}/")
        return cls(scheme, f"{settings.bucket}.{host}", base)

    @classmethod
    def for_redirects(cls, settings: S3Settings) -> "Endpoint":
        """Where presigned URLs lead: redirectendpoint in place of scheme and host, as in distribution."""
        ours = cls.of(settings)
        if not settings.redirectendpoint:
            return ours
        scheme, host, path = _parse("redirectendpoint", settings.redirectendpoint, "")
        if path != "/":
            raise ValueError("storage driver s3: redirectendpoint must be a URL without a path: the bucket's is added")
        return cls(scheme, host, ours.base)

    def path(self, key: str) -> str:
        """Percent-encoded as signatures want it: everything but letters, digits and `-_.~/`."""
        return self.base + quote(key, safe="/-_.~")

    @property
    def origin(self) -> str:
        return f"{self.scheme}://{self.host}"


def _domain(region: str) -> str:
    return next((domain for prefix, domain in _SUFFIXES.items() if region.startswith(prefix)), "amazonaws.com")


def _amazon(settings: S3Settings) -> str:
    service = "s3-fips" if settings.usefipsendpoint else "s3"
    stack = ".dualstack" if settings.usedualstack else ""
    return f"{service}{stack}.{settings.region}.{_domain(settings.region)}"


def _parse(name: str, endpoint: str, scheme: str) -> tuple[str, str, str]:
    """A scheme in the endpoint wins over `secure`, as in distribution."""
    whole = endpoint if "://" in endpoint else f"{scheme}://{endpoint}"
    try:
        parts = urlsplit(whole)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    odd = not host or parts.scheme not in ("http", "https") or "@" in parts.netloc or parts.query or parts.fragment
    if odd or not host:
        raise ValueError(f"storage driver s3: {name} must be a URL such as https://s3.example.com:9000")
    if ":" in host:
        host = f"[{host}]"
    if port is not None and port != {"http": 80, "https": 443}[parts.scheme]:
        host = f"{host}:{port}"
    return parts.scheme, host, parts.path.rstrip("/") + "/"


def _in_path(settings: S3Settings, scheme: str, host: str) -> bool:
    """Is the bucket named in the path? A wildcard certificate covers no dots, and no host lies below an address."""
    if settings.forcepathstyle or not _DNS_NAME.fullmatch(settings.bucket.replace(".", "")):
        return True
    if (scheme == "https" and "." in settings.bucket) or _is_address(host):
        return True
    if settings.forcepathstyle is None and settings.regionendpoint:
        return ".amazonaws." not in host
    return False


def _is_address(host: str) -> bool:
    bare = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    try:
        ipaddress.ip_address(bare.strip("[]"))
    except ValueError:
        return False
    return True
