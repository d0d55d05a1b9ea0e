"""Every refusal: one table from error class to status and OCI code, and the one function that makes the response.

Handlers raise; nothing else in the registry writes an error. The codes are the distribution-spec's closed list ("Error
Codes"); faults of ours (5xx) have UNAVAILABLE and UNKNOWN, as distribution has. Headers that belong to a refusal
(Allow, Content-Range, WWW-Authenticate, Location) travel with the error.
"""

import json
import logging
import math
from collections.abc import Mapping
from json.encoder import encode_basestring_ascii
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from registry.headers import (
    HeaderInvalid,
    PathInvalid,
    QueryInvalid,
    QueryTooLong,
    TooManyRanges,
    UploadRangeInvalid,
    UploadRangeReversed,
    unsatisfied_range,
)
from storage import errors as storage

log = logging.getLogger(__name__)

SPEC_CODES = frozenset(
    [
        "BLOB_UNKNOWN",
        "BLOB_UPLOAD_INVALID",
        "BLOB_UPLOAD_UNKNOWN",
        "DIGEST_INVALID",
        "MANIFEST_BLOB_UNKNOWN",
        "MANIFEST_INVALID",
        "MANIFEST_UNKNOWN",
        "NAME_INVALID",
        "NAME_UNKNOWN",
        "SIZE_INVALID",
        "UNAUTHORIZED",
        "DENIED",
        "UNSUPPORTED",
        "TOOMANYREQUESTS",
    ]
)
"""The fourteen of the spec, code-1 to code-14; all that a 4xx may say."""

FAULT_CODES = frozenset(("UNAVAILABLE", "UNKNOWN"))


class RegistryError(Exception):
    """Base of what the HTTP side refuses by itself. headers: those that the response carries."""

    def __init__(self, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.headers = dict(headers or {})


class EndpointUnknown(RegistryError):
    def __init__(self) -> None:
        super().__init__("there is no such endpoint; the API starts at /v2/")


class MethodNotAllowed(RegistryError):
    """allow: the methods that remain, "" for none (RFC 9110 section 10.2.1).   why: where it is not the endpoint's."""

    def __init__(self, allow: str, why: str = "") -> None:
        super().__init__(why or f"this endpoint offers {allow}", {"Allow": allow})


class Unauthorized(RegistryError):
    def __init__(self, challenge: str) -> None:
        super().__init__("authentication is required: run `docker login` first", {"WWW-Authenticate": challenge})


class Denied(RegistryError):
    def __init__(self) -> None:
        super().__init__("this user may not do that here")


class BodyTooLarge(RegistryError):
    def __init__(self, limit: int) -> None:
        super().__init__(f"the body is larger than the {limit} bytes that are accepted here")


class TooManyTags(RegistryError):
    def __init__(self, limit: int) -> None:
        super().__init__(f"more than {limit} tag parameters")


class UploadOffset(RegistryError):
    """An upload does not go on where the client believes: where it does is in Location and Range."""


class Row(NamedTuple):
    status: int
    code: str


TABLE: dict[type[Exception], Row] = {
    storage.RepositoryUnknown: Row(404, "NAME_UNKNOWN"),
    storage.BlobUnknown: Row(404, "BLOB_UNKNOWN"),
    storage.ManifestUnknown: Row(404, "MANIFEST_UNKNOWN"),
    storage.UploadUnknown: Row(404, "BLOB_UPLOAD_UNKNOWN"),
    storage.NameInvalid: Row(400, "NAME_INVALID"),
    storage.TagInvalid: Row(400, "MANIFEST_INVALID"),
    storage.DigestInvalid: Row(400, "DIGEST_INVALID"),
    storage.SizeInvalid: Row(400, "SIZE_INVALID"),
    storage.ManifestInvalid: Row(400, "MANIFEST_INVALID"),
    storage.ManifestBlobUnknown: Row(400, "MANIFEST_BLOB_UNKNOWN"),
    storage.RangeNotSatisfiable: Row(416, "SIZE_INVALID"),
    storage.OffsetMismatch: Row(416, "BLOB_UPLOAD_INVALID"),
    storage.PreconditionFailed: Row(412, "UNSUPPORTED"),
    storage.Unsupported: Row(405, "UNSUPPORTED"),
    storage.Unavailable: Row(503, "UNAVAILABLE"),
    storage.StorageFull: Row(507, "UNAVAILABLE"),
    storage.UpstreamDenied: Row(403, "DENIED"),
    storage.UpstreamUnavailable: Row(502, "UNAVAILABLE"),
    storage.UpstreamBusy: Row(503, "UNAVAILABLE"),
    storage.UpstreamTimeout: Row(504, "UNAVAILABLE"),
    storage.TooManyRequests: Row(429, "TOOMANYREQUESTS"),
    TooManyRanges: Row(400, "UNSUPPORTED"),
    PathInvalid: Row(400, "NAME_INVALID"),
    QueryInvalid: Row(400, "UNSUPPORTED"),
    HeaderInvalid: Row(400, "UNSUPPORTED"),
    QueryTooLong: Row(414, "UNSUPPORTED"),
    UploadRangeInvalid: Row(400, "BLOB_UPLOAD_INVALID"),
    UploadRangeReversed: Row(416, "BLOB_UPLOAD_INVALID"),
    EndpointUnknown: Row(404, "UNSUPPORTED"),
    MethodNotAllowed: Row(405, "UNSUPPORTED"),
    Unauthorized: Row(401, "UNAUTHORIZED"),
    Denied: Row(403, "DENIED"),
    BodyTooLarge: Row(413, "SIZE_INVALID"),
    TooManyTags: Row(414, "UNSUPPORTED"),
    UploadOffset: Row(416, "BLOB_UPLOAD_INVALID"),
}
"""The most specific class of an error decides; what is not here is a bug of ours: 500."""

_UNKNOWN = Row(500, "UNKNOWN")
_RETRY_AFTER = "5"
"""Seconds. A fault that lasts longer is asked about again; clients add jitter of their own."""


def row_of(exc: Exception) -> Row:
    if isinstance(exc, QueryInvalid) and exc.parameter == "digest":
        return TABLE[storage.DigestInvalid]  # the spec has a code for just this parameter
    return next((TABLE[kind] for kind in type(exc).__mro__ if kind in TABLE), _UNKNOWN)


def error_body(code: str, message: str, detail: object = None) -> bytes:
    """The error format of the spec ("Error Codes"). detail is left out where there is none."""
    if detail is None:  # as json.dumps would, at a fifth of its cost: every push asks for what is not there
        return f'{{"errors": [{{"code": "{code}", "message": {encode_basestring_ascii(message)}}}]}}'.encode("ascii")
    error: dict[str, object] = {"code": code, "message": message}
    if detail is not None:
        error["detail"] = detail
    return json.dumps({"errors": [error]}).encode("ascii")


async def respond(request: Request, exc: Exception) -> Response:
    """The response to any exception that reaches the border (a Starlette exception handler)."""
    row = row_of(exc)
    if row.status >= 500 and row is not _UNKNOWN:  # a bug of ours is raised on, and logged by the server
        # the cause may name hosts or paths: it goes into the log and not to the client
        log.error("request failed: %s", exc, extra={"cause": str(exc.__cause__ or "")})
    message = "internal error; the registry's log has the details" if row is _UNKNOWN else str(exc)
    body = error_body(row.code, message, _detail(exc))
    return Response(body, row.status, {**_headers(exc, row), "Content-Type": "application/json"})


def _detail(exc: Exception) -> object:
    if isinstance(exc, storage.ManifestBlobUnknown):
        return [{"digest": digest} for digest in exc.digests[:100]]
    if isinstance(exc, storage.RepositoryUnknown):
        return {"name": exc.name}
    return None


def _headers(exc: Exception, row: Row) -> dict[str, str]:
    if isinstance(exc, RegistryError):
        return exc.headers
    if isinstance(exc, storage.RangeNotSatisfiable):
        return {"Content-Range": unsatisfied_range(exc.size)}
    if isinstance(exc, storage.Unsupported):
        return {"Allow": "GET, HEAD"}
    if isinstance(exc, storage.UpstreamUnavailable) and exc.retry_after is not None:
        return {"Retry-After": str(max(1, math.ceil(exc.retry_after)))}
    if row.status == 429 or row.status >= 502:
        return {"Retry-After": _RETRY_AFTER}
    return {}
