"""What becomes of those keys of distribution's that have no field in model.py. This table is the only place.

A row covers its key and all below it. To make a key work: give it a field in model.py and delete its row.

- RENAMED: an old name. It works, with a warning (legacy.py).
- IGNORED: it only tunes. The start goes on, with one warning per row.
- STOPS: it restricts or protects, or it picks the driver, an upstream or a middleware. Ignoring it would serve
  other data, or serve it to others, than the operator asked for; so it stops the start, and names the key.

Neither happens for a key that says nothing: empty, or switched off by `disabled: true`.
"""

from dataclasses import dataclass
from enum import Enum

from .model import DRIVERS


class Status(Enum):
    RENAMED = "works, deprecated"
    IGNORED = "accepted, no effect"
    STOPS = "stops the start"


@dataclass(frozen=True, slots=True)
class Row:
    """why: for STOPS, what is missing and what to do; for IGNORED, why nothing happens."""

    key: str
    status: Status
    why: str


_IGNORED, _STOPS = Status.IGNORED, Status.STOPS

ROWS = (
    Row("loglevel", Status.RENAMED, "use log.level"),
    Row("log.hooks", _IGNORED, "mail on errors is not built; watch the log instead"),
    Row("log.reportcaller", _IGNORED, "the caller's line is not logged"),
    Row("storage.gcs", _STOPS, "there is no driver for Google Cloud Storage"),
    Row("storage.azure", _STOPS, "there is no driver for Azure"),
    Row("storage.oss", _STOPS, "there is no driver for Aliyun OSS"),
    Row("storage.swift", _STOPS, "there is no driver for OpenStack Swift"),
    Row("storage.filesystem.maxthreads", _IGNORED, "the driver sizes its own threads"),
    Row("storage.filesystem.encrypt", _STOPS, "this driver does not encrypt; put the folder on an encrypted disk"),
    Row("storage.filesystem.keyid", _STOPS, "this driver does not encrypt; put the folder on an encrypted disk"),
    Row("storage.inmemory.encrypt", _STOPS, "this driver does not encrypt"),
    Row("storage.inmemory.keyid", _STOPS, "this driver does not encrypt"),
    Row("storage.cache", _IGNORED, "facts are kept in memory where calls to the store are dear; see cache.linkttl"),
    Row("storage.tag", _IGNORED, "tags are looked up without a limit of their own"),
    Row("auth.token", _STOPS, "bearer tokens are not built yet; auth.htpasswd is"),
    Row("auth.silly", _STOPS, "it lets in whoever sends any Authorization header; use auth.htpasswd"),
    Row("middleware", _STOPS, "middleware is not built"),
    Row("http.tls.letsencrypt", _STOPS, "certificates are not fetched; set http.tls.certificate and http.tls.key"),
    Row("http.http2", _IGNORED, "HTTP/1.1 is spoken; put a proxy in front for HTTP/2"),
    Row("http.h2c", _IGNORED, "HTTP/1.1 is spoken; put a proxy in front for HTTP/2"),
    Row("notifications", _IGNORED, "no notifications are sent yet"),
    Row("redis", _IGNORED, "nothing is cached in Redis"),
    Row("validation.enabled", Status.RENAMED, "validation is on unless validation.disabled is true"),
    Row("policy", _STOPS, "classes of repositories are not built"),
    Row("compatibility", _IGNORED, "schema 1 manifests are gone from registry:3 and from here"),
    Row("reporting", _IGNORED, "Bugsnag and New Relic are gone from registry:3 and from here"),
)
_DRIVERS = tuple(f"storage.{driver}" for driver in DRIVERS)
_BY_KEY = {row.key: row for row in ROWS}

# An unknown key below one of these stops the start as well: it may be a protection that we do not know.
PROTECTED = ("auth", "http.tls", "validation", "policy")

# A key of a file (or of a level, in a variable) that nearly is one of these stops the start as well: `storge`, or
# `readonly` at the wrong level, would serve another store, or serve it otherwise, than the operator asked for.
CHOOSING = ("storage", "storage.maintenance.readonly", "proxy", "proxy.remoteurl", "upstreams")

# Variables are named after distribution's Go fields, which differ from the names in the file in these places
# ("*" is a list's index; "" is a level that the file does not have). Both spellings are accepted.
GO_NAMES = {
    "log.hooks.*.mailoptions": "options",
    "notifications.eventconfig": "events",
    "health.filecheckers": "file",
    "health.httpcheckers": "http",
    "health.tcpcheckers": "tcp",
    "redis.options": "",
    "compatibility.schema1.trustkey": "signingkeyfile",
}


def find_row(key: str) -> Row | None:
    """The row of the key itself or of the closest level above it."""
    while key:
        if key in _BY_KEY:
            return _BY_KEY[key]
        key = key.rpartition(".")[0]
    return None


def is_above_row(key: str) -> bool:
    return any(row.key.startswith(f"{key}.") for row in ROWS)


def must_hold(key: str) -> bool:
    """Of a known key: does it protect, or choose what is served?"""
    row = find_row(key)
    chooses = key in CHOOSING or any(key == each or key.startswith(f"{each}.") for each in _DRIVERS)
    return is_protected(key) or chooses or (row is not None and row.status is Status.STOPS)


def is_protected(key: str) -> bool:
    return any(key == prefix or key.startswith(f"{prefix}.") for prefix in PROTECTED)
