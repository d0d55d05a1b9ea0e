"""S3's faults to our errors: one table of codes, one of statuses, and the log line for the operator.

- What a client may read (the error) names no bucket, key, host or secret. The log line names the bucket, the operation,
  S3's code and request id, and what to do; never a credential or a signed URL.
- 403 is a fault, never ObjectNotFound: without s3:ListBucket, Amazon answers 403 for a key that does not exist.
- A fault is repeated where the same request may succeed a moment later.
"""

import asyncio
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

import aiohttp

from storage.drivers.s3.bucket import NoConditions, Refused, UploadGone
from storage.drivers.s3.xml import ErrorAnswer, Malformed
from storage.errors import ObjectNotFound, PreconditionFailed, RangeNotSatisfiable, StorageFull, Unavailable

log = logging.getLogger(__name__)
_URL = re.compile(r"[a-z]+://\S+")

FOREIGN = (aiohttp.ClientError, OSError, TimeoutError, asyncio.IncompleteReadError, Malformed)
"""What one call may raise of others' errors; a test enumerates aiohttp's."""


@dataclass(frozen=True, slots=True)
class Operation:
    """Its name in Amazon's documentation, and the permissions that it needs."""

    name: str
    permission: str


GET = Operation("GetObject", "s3:GetObject")
HEAD = Operation("HeadObject", "s3:GetObject")
PUT = Operation("PutObject", "s3:PutObject")
COPY = Operation("CopyObject", "s3:GetObject and s3:PutObject")
DELETE = Operation("DeleteObject", "s3:DeleteObject")
DELETE_MANY = Operation("DeleteObjects", "s3:DeleteObject")
LIST = Operation("ListObjectsV2", "s3:ListBucket")
CREATE = Operation("CreateMultipartUpload", "s3:PutObject")
PART = Operation("UploadPart", "s3:PutObject")
COPY_PART = Operation("UploadPartCopy", "s3:GetObject and s3:PutObject")
COMPLETE = Operation("CompleteMultipartUpload", "s3:PutObject")
ABORT = Operation("AbortMultipartUpload", "s3:AbortMultipartUpload")
LIST_PARTS = Operation("ListParts", "s3:ListMultipartUploadParts")
LIST_UPLOADS = Operation("ListMultipartUploads", "s3:ListBucketMultipartUploads")


class Remedy(Enum):
    """What may help against a fault."""

    NONE = "nothing"
    REPEAT = "the same request a moment later"
    CREDENTIALS = "newer credentials"
    CLOCK = "the store's clock"
    EITHER = "the store's clock, or newer credentials"


@dataclass(frozen=True, slots=True)
class Fault:
    """A call that failed: an answer of 300 or above (status 0: none came), or an <Error> in one of 200.

    cause: the foreign error, where there was no answer.
    """

    status: int
    answer: ErrorAnswer = field(default_factory=lambda: ErrorAnswer(""))
    headers: Mapping[str, str] = field(default_factory=dict)
    cause: BaseException | None = None

    @property
    def code(self) -> str:
        return self.answer.code


_FULL = frozenset({"QuotaExceeded", "XMinioStorageFull", "InsufficientStorage", "BucketQuotaExceeded"})
_ABSENT = frozenset({"NoSuchKey", "NoSuchVersion"})
_CONDITION = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "OperationAborted"})
_REPEAT_CODES = frozenset(
    {
        "ConditionalRequestConflict",
        "IncompleteBody",
        "InternalError",
        "OperationAborted",
        "RequestLimitExceeded",
        "RequestTimeout",
        "RequestThrottled",
        "ServiceUnavailable",
        "SlowDown",
        "SlowDownRead",
        "SlowDownWrite",
        "Throttling",
        "ThrottlingException",
    }
)
_REPEAT_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
_REFUSALS = frozenset({400, 413, 431, 501})
"""Of what a request is: not of who asks, when and where."""
_STALE_CREDENTIALS = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidAccessKeyId",
        "InvalidToken",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
    }
)
"""Also of keys that were changed in a profile: another look finds the new ones."""

_ADVICE = {
    "AccessDenied": "the credentials may not do that: allow {permission} on the bucket and its objects",
    "AllAccessDisabled": "the bucket is switched off by its owner or by the store",
    "AccountProblem": "the store has a problem with the account; ask its provider",
    "NoSuchBucket": "there is no such bucket: create it, or correct bucket and region",
    "InvalidBucketName": "the store takes no such name: correct bucket",
    "InvalidAccessKeyId": "the store does not know the access key: correct accesskey or the credentials of the machine",
    "SignatureDoesNotMatch": "the secret key is not the access key's, or a proxy changes requests: correct secretkey",
    "ExpiredToken": "the temporary credentials have expired and no newer ones were found",
    "InvalidToken": "the session token is not the access key's, or has expired",
    "RequestTimeTooSkewed": "this machine's clock is wrong by more than 15 minutes: set it (NTP)",
    "SlowDown": "the store throttles: fewer replicas or pulls at a time, or more prefixes or capacity there",
    "PermanentRedirect": "the bucket is elsewhere: set region to {region}",
    "TemporaryRedirect": "the bucket is elsewhere, or new: set region to {region}",
    "AuthorizationHeaderMalformed": "requests are signed for another region: set region to {region}",
    "IllegalLocationConstraintException": "requests go to another region: set region to {region}",
    "KMS.NotFoundException": "the store does not find the key: correct keyid",
    "AccessControlListNotSupported": "the bucket refuses ACLs: leave out objectacl",
    "InvalidStorageClass": "the store does not know the class: set storageclass to NONE",
    "NotImplemented": "the store lacks an operation that is needed",
    "InsecureTransport": "the bucket wants TLS: secure: true",
}
"""What the operator can do, by S3's code."""

_BY_STATUS = {403: "AccessDenied", 301: "PermanentRedirect", 307: "TemporaryRedirect", 503: "SlowDown"}
"""Answers to HEAD have no body, so no code."""


def remedy(fault: Fault) -> Remedy:
    if fault.status == 0:
        # a name that does not resolve and a certificate that does not fit stay so, but a repeated try costs little
        return Remedy.NONE if isinstance(fault.cause, aiohttp.InvalidURL) else Remedy.REPEAT
    # without a code, as all answers to HEAD: a bad request is Amazon's word for an expired token then
    if fault.code in _STALE_CREDENTIALS or (fault.status == 400 and not fault.code):
        return Remedy.CREDENTIALS
    if fault.status == 403 and not fault.code:
        return Remedy.EITHER
    if fault.code == "RequestTimeTooSkewed":
        return Remedy.CLOCK
    if fault.code in _REPEAT_CODES or fault.status in _REPEAT_STATUSES:
        return Remedy.REPEAT
    return Remedy.NONE


def translate(fault: Fault, operation: Operation, bucket: str, key: str, *, conditional: bool) -> Exception:
    """One of ours. Logs what an operator has to know of it."""
    if expected := _expected(fault, operation, key, conditional):
        return expected
    log.error(describe(fault, operation, bucket))
    if fault.code in _FULL or fault.status == 507:
        return StorageFull()
    refused = fault.status in _REFUSALS and remedy(fault) is Remedy.NONE
    return (Refused if refused else Unavailable)(_sentence(fault))


def _expected(fault: Fault, operation: Operation, key: str, conditional: bool) -> Exception | None:
    """Answers that are no faults of the store."""
    if fault.code == "NoSuchUpload":
        return UploadGone()
    if fault.status == 412 or (conditional and fault.status == 409 and fault.code in _CONDITION | {""}):
        return PreconditionFailed()
    if conditional and (fault.status == 501 or fault.code == "NotImplemented"):
        return NoConditions()
    if fault.status == 404 and (fault.code in _ABSENT or (not fault.code and operation is HEAD)):
        return PreconditionFailed() if conditional and operation is PUT else ObjectNotFound(key)
    if fault.status == 416 or fault.code == "InvalidRange":
        return RangeNotSatisfiable(range_size(fault))
    return None


def range_size(fault: Fault) -> int:
    """Bytes of the object of which a range does not exist; -1: the store does not say."""
    text = fault.answer.size or fault.headers.get("Content-Range", "").rpartition("/")[2]
    return int(text) if text.isascii() and text.isdigit() else -1


def describe(fault: Fault, operation: Operation, bucket: str) -> str:
    """The log line."""
    headers = fault.headers
    request_id = fault.answer.request_id or headers.get("x-amz-request-id", "")
    if fault.status == 0:
        kind = type(fault.cause).__name__ if fault.cause is not None else "no answer"
        reason = _reason(fault.cause)
        return f"S3 {operation.name} on bucket {bucket!r} failed: {kind}{f': {reason}' if reason else ''}"
    code = fault.code or _BY_STATUS.get(fault.status, "")
    region = headers.get("x-amz-bucket-region", "") or fault.answer.region or "the bucket's own"
    advice = _ADVICE.get(code, "").format(permission=operation.permission, region=_printable(region))
    parts = [
        f"S3 {operation.name} on bucket {bucket!r} failed: {fault.status} {_printable(fault.code) or 'without a code'}",
        f"({_printable(fault.answer.message)})" if fault.answer.message else "",
        f"[request {_printable(request_id)}]" if request_id else "",
    ]
    line = " ".join(filter(None, parts))
    return f"{line}; {advice}" if advice else line


def _reason(cause: BaseException | None) -> str:
    """What the exception says, without URLs: a proxy's may hold a password."""
    if isinstance(cause, aiohttp.ClientResponseError):
        return _printable(cause.message)
    return _printable(_URL.sub("(a URL)", str(cause or "")))


def _sentence(fault: Fault) -> str:
    """For clients."""
    if fault.status == 0:
        if isinstance(fault.cause, TimeoutError):
            return "the registry's storage does not answer in time"
        if isinstance(fault.cause, Malformed):
            return "the registry's storage gave an answer that cannot be read"
        return "the registry's storage cannot be reached"
    if remedy(fault) is Remedy.REPEAT:
        return "the registry's storage is overloaded or failing"
    return "the registry's storage refused a request"


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text[:300])
