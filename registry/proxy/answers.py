"""What an upstream's answer means: a manifest, a page, a range, or which of our errors. Pure.

The rule behind all of it: "not found" is said only where a registry said so. A page in HTML is no registry's (a proxy,
a portal, a load balancer), a 404 of the CDN behind a redirect is no registry's either; both are faults. What is asked
for by digest is what has that digest, whatever the headers say.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from registry.proxy.limits import parse_retry_after
from storage.digest import SHA256, Digest
from storage.errors import (
    DigestInvalid,
    DigestMismatch,
    NotFound,
    RangeNotSatisfiable,
    StorageError,
    TooManyRequests,
    UpstreamBusy,
    UpstreamDenied,
    UpstreamUnavailable,
)
from storage.manifest import MANIFEST_TYPES, sniff
from storage.names import Reference
from storage.ranges import ByteRange
from storage.repository import StoredManifest

ACCEPT = ", ".join(sorted(MANIFEST_TYPES))

WRONG = "the upstream registry sent what is not the content asked for"

_UNKNOWN = frozenset({"BLOB_UNKNOWN", "MANIFEST_UNKNOWN", "NAME_UNKNOWN", "NAME_INVALID", "TAG_INVALID", "NOT_FOUND"})
_DENIED = frozenset({"UNAUTHORIZED", "DENIED"})
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)")
_UNSATISFIED = re.compile(r"bytes \*/([0-9]{1,18})")
_LENGTH = re.compile(r"[0-9]{1,18}")
_NEXT = re.compile(r"<([^<>]*)>((?:[ \t]*;[ \t]*[^,;\"]+(?:\"[^\"]*\")?)*)")
_RELATION = re.compile(r";[ \t]*rel[ \t]*=[ \t]*\"?next\"?[ \t]*(?:;|\Z)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Head:
    """Status and headers of an answer. elsewhere: does it come from where a redirect led, not from the upstream?"""

    status: int
    fields: tuple[tuple[str, str], ...] = ()
    elsewhere: bool = False

    def get(self, name: str) -> str | None:
        """The first of that name, which is given in lower case."""
        return next((value for key, value in self.fields if key == name), None)

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key == name]

    @property
    def content_type(self) -> str:
        """Without parameters, in lower case; "" where there is none."""
        return (self.get("content-type") or "").partition(";")[0].strip().lower()

    @property
    def is_of_a_registry(self) -> bool:
        return self.get("docker-distribution-api-version") is not None or self.content_type == "application/json"


@dataclass(frozen=True, slots=True)
class Answer:
    """A small answer, whole."""

    head: Head
    body: bytes

    async def aclose(self) -> None:
        """Nothing is held."""


# Errors


def fault_of(head: Head, wall: float) -> UpstreamUnavailable | None:
    """The fault that a status is by itself; None: it answers the question. wall: seconds since 1970."""
    retry_after = parse_retry_after(head.get("retry-after"), wall)
    if head.status == 429:
        return (
            UpstreamBusy("where the upstream keeps its blobs there are too many requests", retry_after)
            if (head.elsewhere)
            else TooManyRequests(retry_after)
        )
    if head.status == 503:
        return UpstreamBusy("the upstream registry says that it is not available now", retry_after)
    if head.status >= 500 or head.status in (407, 408, 421, 425) or not 200 <= head.status < 500:
        return UpstreamUnavailable(f"the upstream registry answered with status {head.status}", retry_after)
    return None


def refusal_of(head: Head, body: bytes, unknown: NotFound) -> StorageError:
    """The error that a 3xx or 4xx is. unknown: the one to raise where the upstream does not have it."""
    codes = error_codes(body)
    if codes & _UNKNOWN and 400 <= head.status < 500:
        return unknown
    page = head.content_type == "text/html" and not head.is_of_a_registry
    if head.status in (404, 410) and not page and (not head.elsewhere or head.is_of_a_registry):
        return unknown
    if not head.elsewhere and not page and (head.status in (401, 403, 451) or codes & _DENIED):
        return UpstreamDenied()
    if head.status == 416 and (match := _UNSATISFIED.fullmatch(head.get("content-range") or "")):
        return RangeNotSatisfiable(int(match[1]))
    return UpstreamUnavailable(f"the upstream registry answered with status {head.status}")


def error_codes(body: bytes) -> frozenset[str]:
    """Of the spec's error format; none where the body is something else."""
    try:
        errors = json.loads(body)["errors"]
        return frozenset(str(each["code"]) for each in errors)
    except (ValueError, KeyError, TypeError, RecursionError):
        return frozenset()


def check_encoding(head: Head) -> None:
    """We ask for identity: what is encoded all the same has other bytes than its digest says."""
    encoding = (head.get("content-encoding") or "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise UpstreamUnavailable("the upstream registry sent an encoded body, which it was not asked for")


# Manifests


def read_digest(head: Head) -> Digest | None:
    """Docker-Content-Digest, where it is one that we can compute: it is never used unchecked."""
    try:
        return Digest.parse(head.get("docker-content-digest") or "")
    except DigestInvalid:
        return None


def read_manifest(head: Head, body: bytes, reference: Reference) -> StoredManifest:
    """A manifest whose bytes have the digest that was asked for, and the one that the upstream names.

    Raises UpstreamUnavailable for anything else.
    """
    named = read_digest(head)
    wanted = reference if isinstance(reference, Digest) else named
    digest = wanted or Digest.of(body, SHA256)
    try:
        digest.verify(body)
        if named is not None:
            named.verify(body)
    except DigestMismatch as exc:
        raise UpstreamUnavailable(WRONG) from exc
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise UpstreamUnavailable(WRONG) from None
    if not isinstance(document, dict) or not isinstance(document.get("schemaVersion"), int):
        raise UpstreamUnavailable(WRONG)
    media_type = sniff(body)  # as the cache will read it: the header could say something else
    if media_type not in MANIFEST_TYPES:
        raise UpstreamUnavailable("the upstream registry has that image only in a format that is not supported")
    return StoredManifest(digest, media_type, body)


# Lists


def next_link(head: Head) -> str | None:
    """Where the next page is (RFC 8288), as it was written; None at the end."""
    for value in head.all("link"):
        for match in _NEXT.finditer(value):
            if _RELATION.search(match[2]):
                return match[1]
    return None


def read_tags(body: bytes) -> list[object]:
    """What stands in `tags`; Go writes null for none. Raises UpstreamUnavailable."""
    try:
        document = json.loads(body)
        tags = document["tags"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UpstreamUnavailable("the upstream registry sent no list of tags") from None
    if tags is None:
        return []
    if not isinstance(tags, list):
        raise UpstreamUnavailable("the upstream registry sent no list of tags")
    return tags


# Blobs


def content_length(head: Head) -> int | None:
    value = head.get("content-length")
    return int(value) if value is not None and _LENGTH.fullmatch(value) else None


@dataclass(frozen=True, slots=True)
class Extent:
    """What of a blob a body brings. total: its size, None where the answer does not say. stop: None likewise."""

    start: int
    stop: int | None
    total: int | None


def read_extent(head: Head, asked: Sequence[int | None] | None) -> Extent:
    """Of a 200 or 206. asked: (start, stop or None) of the Range that was sent; None: none was.

    A 200 to a Range is the whole: its start is 0. Raises UpstreamUnavailable for a 206 of something else.
    """
    length = content_length(head)
    if head.status != 206:
        return Extent(0, length, length)
    match = _CONTENT_RANGE.fullmatch((head.get("content-range") or "").strip())
    if match is None or asked is None:
        raise UpstreamUnavailable("the upstream registry answered with a part that was not asked for")
    found = ByteRange(int(match[1]), int(match[2]) + 1)
    total = None if match[3] == "*" else int(match[3])
    start, stop = asked
    fits = found.start == start and (stop is None or found.stop <= stop) and (total is None or found.stop <= total)
    if not fits or found.start >= found.stop or (length is not None and length != len(found)):
        raise UpstreamUnavailable("the upstream registry answered with a part that was not asked for")
    return Extent(found.start, found.stop, total)
