"""One bucket by its REST verbs: a call here is one request there, retries aside.

Rules:
- Keys are the whole keys of objects; the driver has put rootdirectory before them.
- Errors are those of storage.errors, translated in errors.py, around the iteration of bodies too: ObjectNotFound (404
  of a key), PreconditionFailed (412, and 409 of a conditional write), RangeNotSatisfiable (416), Unavailable for all
  else (its text has no keys, hosts or secrets; the log line has what an operator needs), NoConditions and Refused among
  it; UploadGone for an upload id that the store does not know.
- What is safe to repeat is repeated with jitter and a cap (503 SlowDown, 500, time-outs, resets). A condition that is
  refused at a repeat may have been met by our own first try: PerhapsOurs, and the caller compares.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from storage.driver import CallSeen
from storage.errors import PreconditionFailed, Unavailable
from storage.ranges import ByteRange


class PerhapsOurs(PreconditionFailed):
    """A condition was refused to a repeated write: what stands there may be the first try, whose answer was lost."""


class NoConditions(Unavailable):
    """The store does not know conditions, and says so instead of ignoring them."""

    def __init__(self) -> None:
        super().__init__("the registry's storage refuses conditional requests")


class Refused(Unavailable):
    """The store takes no such request, from anybody."""


class UploadGone(Exception):
    """The store does not know this multipart upload: completed, aborted or never begun."""


@dataclass(frozen=True, slots=True)
class Head:
    """size in bytes; etag as sent, with quotes; modified and date (of the answer) in seconds since 1970.

    note: see StorageDriver.put_noted.
    """

    size: int
    etag: str
    modified: float
    date: float
    note: str = ""


class Body(Protocol):
    """An answer to GET whose bytes are still to come.

    head: of the whole object (size is the object's, not the range's). span: the bytes that come.
    """

    head: Head
    span: ByteRange

    def chunks(self) -> AsyncIterator[bytes]:
        """What the socket yields, at most 1 MiB each. Raises Unavailable when the store ends early."""

    async def readinto(self, buffer: memoryview) -> None:
        """Fill the buffer, whose length is that of span. Raises Unavailable when the store ends early."""

    async def aclose(self) -> None:
        """Idempotent. A body that is not at its end costs its connection."""


@dataclass(frozen=True, slots=True)
class Listed:
    key: str
    size: int
    etag: str
    modified: float


@dataclass(frozen=True, slots=True)
class Page:
    """objects and prefixes (with their trailing slash) in the store's order. token: asks for the next page."""

    objects: list[Listed]
    prefixes: list[str]
    token: str | None


@dataclass(frozen=True, slots=True)
class Part:
    """modified: seconds since 1970. checksum: CRC32 in base64, as the store gave it back; "" where it gave none."""

    number: int
    size: int
    etag: str
    modified: float
    checksum: str = ""


@dataclass(frozen=True, slots=True)
class Upload:
    """A multipart upload that is open. started: seconds since 1970."""

    key: str
    id: str
    started: float


class Bucket(Protocol):
    """What driver.py needs; RestBucket (rest.py) is it over HTTP."""

    def watch_calls(self, seen: CallSeen) -> None:
        """As in StorageDriver."""

    async def get(self, key: str, start: int | None = None, stop: int | None = None) -> Body:
        """The object; bytes start to stop (half-open; None: to the end); start < 0: the last -start bytes."""

    async def head(self, key: str) -> Head: ...

    async def put(
        self,
        key: str,
        data: bytes | bytearray | memoryview,
        *,
        if_absent: bool = False,
        if_match: str | None = None,
        sha256: bytes | None = None,
        note: str = "",
    ) -> str:
        """Returns the ETag. sha256: sent as x-amz-checksum-sha256; without it a CRC32 is sent. note: as metadata."""

    async def copy(self, source: str, target: str, *, size: int, note: str = "") -> None:
        """On the server's side, of at most 5 GiB; also onto itself (which renews its time). note: what it has then."""

    async def delete(self, key: str, *, if_match: str | None = None) -> None: ...

    async def delete_many(self, keys: list[str]) -> None:
        """At most 1,000. Raises Unavailable when the store names an error for any of them."""

    async def list_page(
        self, prefix: str, *, after: str = "", delimiter: str = "", token: str | None = None, limit: int = 1000
    ) -> Page:
        """ListObjectsV2: what starts with prefix (a plain string prefix of keys) and is > after."""

    async def create_upload(self, key: str, *, checksums: bool = True, alone: bool = False) -> str:
        """A repeated try may leave an upload of that key that nobody knows.

        alone: the key is the caller's own, as that of a stage: then what such a try has left, and is empty, is aborted.

        checksums: every part will come with a CRC32, and complete_upload names them. Amazon takes CRC32 in parts only
        of uploads that were begun so, and then wants it of all: False for those that distribution may go on with. MinIO
        copies no parts into uploads that were begun with: False for those too.
        """

    async def upload_part(
        self, key: str, id: str, number: int, data: bytes | bytearray | memoryview, *, checksum: bool = True
    ) -> Part:
        """Sends a CRC32, computed off the event loop. checksum: False where the upload was begun without (above)."""

    async def copy_part(self, key: str, id: str, number: int, source: str, span: ByteRange, *, beside: int = 1) -> Part:
        """beside: how many such copies the caller has under way at a time, this one counted: each is slower for it."""

    async def complete_upload(self, key: str, id: str, parts: list[Part], *, if_absent: bool = False) -> None:
        """Raises UploadGone; PreconditionFailed. A 200 with an error in its body is an error."""

    async def abort_upload(self, key: str, id: str) -> None:
        """Idempotent."""

    async def list_parts(self, key: str, id: str) -> list[Part]:
        """All of them, by number; of a number that is listed twice the newest. Raises UploadGone."""

    async def list_uploads(self, prefix: str) -> list[Upload]:
        """All that are open with keys that start with prefix."""

    async def presign(self, key: str, method: str, expires: float) -> str:
        """A URL for `method` (GET or HEAD), valid for at most `expires` seconds, never longer than the credentials.

        Asks nothing of the store; it waits only where credentials have to be fetched first.
        """

    async def date(self) -> float:
        """The store's clock, from the last answer's Date and our monotonic clock; asks only where none has come yet."""

    async def aclose(self) -> None: ...
