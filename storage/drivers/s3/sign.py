"""Signature version 4 for S3, in headers and in URLs; equal to botocore's byte for byte (tests/storage/s3). Pure.

Payloads are not signed: TLS or a checksum header protects them, and hashing a part costs as much as sending it. The
signing key holds for a day, so a signature is two hashes.
"""

import hashlib
import hmac
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

UNSIGNED = "UNSIGNED-PAYLOAD"


@dataclass(frozen=True, slots=True)
class Credentials:
    """expires: seconds since 1970; None: they do not."""

    access_key: str
    secret_key: str = field(repr=False)
    token: str = field(default="", repr=False)
    expires: float | None = None

    def has_keys_of(self, other: "Credentials") -> bool:
        return (self.access_key, self.secret_key, self.token) == (other.access_key, other.secret_key, other.token)


def encode_query(pairs: Iterable[tuple[str, str]]) -> str:
    """In the canonical form and order, which is also what is sent."""
    return "&".join(
        f"{name}={value}"
        for name, value in sorted((quote(name, safe="-_.~"), quote(value, safe="-_.~")) for name, value in pairs)
    )


class Signer:
    """Signs for one host and region. path and query come encoded; now in seconds since 1970."""

    def __init__(self, region: str, host: str) -> None:
        self._region, self._host = region, host
        self._day = ("", "", "")
        self._key = b""

    def headers(
        self, credentials: Credentials, method: str, path: str, query: str, headers: Mapping[str, str], now: float
    ) -> dict[str, str]:
        """headers, whose names are in lower case and whose values have no spaces to trim, and what signs them all."""
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
        signed = {**headers, "host": self._host, "x-amz-content-sha256": UNSIGNED, "x-amz-date": stamp}
        if credentials.token:
            signed["x-amz-security-token"] = credentials.token
        names = sorted(signed)
        listed = ";".join(names)
        lines = "\n".join([f"{name}:{signed[name]}" for name in names])
        canonical = f"{method}\n{path}\n{query}\n{lines}\n\n{listed}\n{UNSIGNED}"
        scope, signature = self._sign(credentials, stamp, canonical)
        signed["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={credentials.access_key}/{scope}, "
            f"SignedHeaders={listed}, Signature={signature}"
        )
        return signed

    def query(self, credentials: Credentials, method: str, path: str, expires: int, now: float) -> str:
        """The query of a URL with which anybody may `method` the path for `expires` seconds."""
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
        credential = f"{credentials.access_key}/{self._scope(stamp)}"
        pairs = [
            ("X-Amz-Algorithm", "AWS4-HMAC-SHA256"),
            ("X-Amz-Credential", credential),
            ("X-Amz-Date", stamp),
            ("X-Amz-Expires", str(expires)),
            ("X-Amz-SignedHeaders", "host"),
        ]
        if credentials.token:
            pairs.append(("X-Amz-Security-Token", credentials.token))
        query = encode_query(pairs)
        canonical = f"{method}\n{path}\n{query}\nhost:{self._host}\n\nhost\n{UNSIGNED}"
        _, signature = self._sign(credentials, stamp, canonical)
        return f"{query}&X-Amz-Signature={signature}"

    def _scope(self, stamp: str) -> str:
        return f"{stamp[:8]}/{self._region}/s3/aws4_request"

    def _sign(self, credentials: Credentials, stamp: str, canonical: str) -> tuple[str, str]:
        scope = self._scope(stamp)
        day = (credentials.access_key, credentials.secret_key, stamp[:8])
        if day != self._day:
            self._key = _day_key(credentials.secret_key, stamp[:8], self._region)
            self._day = day
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{digest}"
        return scope, hmac.digest(self._key, text.encode(), "sha256").hex()


def _day_key(secret: str, day: str, region: str) -> bytes:
    key = f"AWS4{secret}".encode()
    for part in (day, region, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


class UrlCache:
    """URLs that were handed out, so that the same one is given again while more than half its life is left.

    A client's or proxy's cache knows it again then, and signing is saved. Bounded: the oldest go.
    """

    def __init__(self, limit: int = 4096) -> None:
        self._limit = limit
        self._urls: dict[tuple[str, str, str, float], tuple[str, float]] = {}

    def find(self, name: tuple[str, str, str, float], now: float) -> str | None:
        found = self._urls.get(name)
        return found[0] if found is not None and now < found[1] else None

    def keep(self, name: tuple[str, str, str, float], url: str, now: float, life: float) -> None:
        self._urls.pop(name, None)
        if len(self._urls) >= self._limit:
            del self._urls[next(iter(self._urls))]
        self._urls[name] = (url, now + life / 2)
