"""Every error that storage raises. A message is a sentence that a client may read: no keys, hosts or secrets in it.

StorageError
├── NotFound
│   ├── RepositoryUnknown      no repository of that name
│   ├── BlobUnknown            not in this repository
│   ├── ManifestUnknown        no such tag or digest in this repository
│   ├── UploadUnknown          no such upload session in this repository
│   └── ObjectNotFound         a driver has no object under that key
├── Invalid                    what a client sent cannot be right
│   ├── NameInvalid
│   ├── TagInvalid
│   ├── DigestInvalid          malformed, or not the digest of the bytes
│   │   ├── DigestUnsupported  well-formed, with an algorithm that we do not compute
│   │   └── DigestMismatch
│   ├── SizeInvalid            more or fewer bytes than announced
│   ├── ManifestInvalid
│   └── ManifestBlobUnknown    a manifest names what is not in the repository
├── RangeNotSatisfiable        the object has no byte of that range
├── OffsetMismatch             an upload does not go on where the client believes
├── PreconditionFailed         if_absent or if_version did not hold
├── Unsupported                not in this registry's mode (read-only, deletes off, a proxy)
├── UpstreamDenied             the registry that we fetch from does not let us
└── Unavailable                a fault of the store, not of the request; never "unknown"
    ├── StorageFull            no space, or over a quota
    └── UpstreamUnavailable    the registry that we fetch from failed, or sent what cannot be right
        ├── UpstreamBusy       it says that it cannot now, or it failed so often that it is left alone for a while
        ├── UpstreamTimeout    it is too slow
        └── TooManyRequests    it counts our requests, and this was one too many
"""

from collections.abc import Sequence


class StorageError(Exception):
    """Base of all errors here."""


class NotFound(StorageError):
    """What was asked for does not exist."""


class RepositoryUnknown(NotFound):
    def __init__(self, name: str) -> None:
        super().__init__(f"repository {name!r} is not known to this registry")
        self.name = name


class BlobUnknown(NotFound):
    def __init__(self, digest: object) -> None:
        super().__init__(f"blob {digest} is not in this repository")
        self.digest = str(digest)


class ManifestUnknown(NotFound):
    def __init__(self, reference: object) -> None:
        super().__init__(f"manifest {reference} is not in this repository")
        self.reference = str(reference)


class UploadUnknown(NotFound):
    def __init__(self) -> None:
        super().__init__("this upload session does not exist; start a new one with POST")


class ObjectNotFound(NotFound):
    """A driver's "no object under this key". Repositories turn it into what the client asked for."""

    def __init__(self, key: str) -> None:
        super().__init__("object not found")
        self.key = key


class Invalid(StorageError):
    """The request cannot be right, whatever is stored."""


class NameInvalid(Invalid):
    def __init__(self, name: str) -> None:
        super().__init__(
            f"invalid repository name {name[:300]!r}: lower-case letters and digits, joined by '.', '_', '__' or '-', "
            "in components joined by '/', 255 characters at most"
        )


class TagInvalid(Invalid):
    def __init__(self, tag: str) -> None:
        super().__init__(
            f"invalid tag {tag[:200]!r}: 1 to 128 letters, digits, '_', '.' or '-', not starting with '.' or '-'"
        )


class DigestInvalid(Invalid):
    def __init__(self, message: str) -> None:
        super().__init__(message)


class DigestUnsupported(DigestInvalid):
    def __init__(self, algorithm: str) -> None:
        super().__init__(f"digest algorithm {algorithm[:64]!r} is not supported: use sha256 or sha512")


class DigestMismatch(DigestInvalid):
    def __init__(self, expected: object, actual: object) -> None:
        super().__init__(f"the content does not match its digest: expected {expected}, got {actual}")


class SizeInvalid(Invalid):
    def __init__(self, expected: int, actual: int, what: str = "the body") -> None:
        super().__init__(f"{what} has {actual} bytes where {expected} were announced")


class ManifestInvalid(Invalid):
    def __init__(self, reason: str) -> None:
        super().__init__(f"invalid manifest: {reason}")


class ManifestBlobUnknown(Invalid):
    """digests: all that are missing; the message names the first ten."""

    def __init__(self, digests: Sequence[object]) -> None:
        names = ", ".join(str(d) for d in digests[:10]) + (
            f" and {len(digests) - 10} more" if len(digests) > 10 else ""
        )
        super().__init__(f"the manifest refers to what is not in this repository: {names}")
        self.digests = tuple(str(d) for d in digests)


class RangeNotSatisfiable(StorageError):
    """size: bytes of the whole object, for `Content-Range: bytes */size` (RFC 9110 section 14.4)."""

    def __init__(self, size: int) -> None:
        super().__init__(f"the range lies outside of the {size} bytes that there are")
        self.size = size


class OffsetMismatch(StorageError):
    """expected: bytes that are stored, so the offset at which an upload goes on."""

    def __init__(self, expected: int) -> None:
        super().__init__(f"the upload goes on at byte {expected}")
        self.expected = expected


class PreconditionFailed(StorageError):
    def __init__(self) -> None:
        super().__init__("the precondition does not hold: what is stored has changed, or exists already")


class Unsupported(StorageError):
    """The operation is not offered in this registry's mode; the message says which setting decides."""


class Unavailable(StorageError):
    """A fault of the store. Asking again later may succeed; it never means that something does not exist."""


class StorageFull(Unavailable):
    def __init__(self) -> None:
        super().__init__("the registry's storage is full")


class UpstreamDenied(StorageError):
    """401 or 403 of an upstream. What does not exist is often refused so, that nobody can guess private names."""

    def __init__(self) -> None:
        super().__init__(
            "the upstream registry does not let this registry pull that: it is private there, or does not exist"
        )


class UpstreamUnavailable(Unavailable):
    """retry_after: seconds after which it pays to ask again, where that is known. It is never a 404."""

    def __init__(self, problem: str, retry_after: float | None = None) -> None:
        super().__init__(problem)
        self.retry_after = retry_after


class UpstreamBusy(UpstreamUnavailable):
    """503 of the upstream, or an open circuit breaker."""


class UpstreamTimeout(UpstreamUnavailable):
    """A deadline of ours has passed: connect, first byte, or minimum rate."""


class TooManyRequests(UpstreamUnavailable):
    """429 of the upstream, now or a moment ago."""

    def __init__(self, retry_after: float | None = None) -> None:
        super().__init__("the upstream registry's rate limit is reached", retry_after)
