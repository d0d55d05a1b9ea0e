"""What a repository can do, split where wrappers differ: reading and writing; and the wrappers that refuse.

A mode of the registry is a wrapper around a Repository, built once where the application is joined, never a flag that
verbs test: ReadOnly refuses every write, RefuseDeletes every delete. Handlers see a Repository and nothing else.

    Repository = RepositoryReader + RepositoryWriter
    RefuseDeletes(LocalRepository(...))      deletes are off (the default, as distribution's)
    ReadOnly(LocalRepository(...))           storage.maintenance.readonly
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal, NoReturn, Protocol

from storage.digest import SHA256, Digest
from storage.driver import ObjectReader
from storage.errors import Unsupported
from storage.manifest import Descriptor
from storage.names import Reference, RepositoryName, Tag
from storage.ranges import RangeRequest

Action = Literal["pull", "push", "delete"]
Chunks = AsyncIterator[bytes]


@dataclass(frozen=True, slots=True)
class StoredManifest:
    """A manifest as it was pushed, byte for byte. digest: the one asked for, or the one that the tag names."""

    digest: Digest
    media_type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class TagPage:
    """names: in order. more: are there any after the last of them?"""

    names: list[str]
    more: bool


@dataclass(frozen=True, slots=True)
class UploadSession:
    """An upload session as client and registry know it between two requests; the registry signs it into Location.

    offset: bytes stored when this was made.   algorithm: in which the bytes are hashed as they arrive.
    prefix: digest of bytes 0 to offset, None where it is not known.   started: RFC 3339, UTC.
    stored: it was in the store before it had a byte, as distribution's always are, and ours where that is asked for.
    """

    id: str
    offset: int
    started: str
    algorithm: str = SHA256
    prefix: Digest | None = None
    stored: bool = False


@dataclass(frozen=True, slots=True)
class Precondition:
    """What must hold of the tag that a manifest PUT is about to set (RFC 9110 sections 13.1.1 and 13.1.2).

    absent: nothing may stand there (If-None-Match: *).   one_of: it must name one of these (If-Match); None: not asked.
    """

    absent: bool = False
    one_of: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class PutManifest:
    """What a manifest PUT has done.

    subject: the digest that its `subject` field names.   absent: what it names and is not here, where rules allow that.
    """

    digest: Digest
    subject: Digest | None
    absent: tuple[Digest, ...] = ()


class RepositoryReader(Protocol):
    """Pulling from one repository. Every verb raises Unavailable for a fault of the store."""

    name: RepositoryName

    async def stat_blob(self, digest: Digest) -> int:
        """Size in bytes. Raises BlobUnknown."""

    async def open_blob(self, digest: Digest, range: RangeRequest | None = None) -> ObjectReader:
        """The caller closes it. Raises BlobUnknown; RangeNotSatisfiable."""

    async def blob_url(self, digest: Digest, method: str) -> str | None:
        """Where the client may `method` the blob itself, or None: serve it. Raises BlobUnknown."""

    async def get_manifest(self, reference: Reference) -> StoredManifest:
        """Raises ManifestUnknown."""

    async def list_tags(self, after: str, limit: int) -> TagPage:
        """At most `limit` tags behind `after`, in order. Raises RepositoryUnknown."""

    async def list_referrers(self, subject: Digest) -> list[Descriptor]:
        """What refers to subject, ordered by digest; empty where nothing does. (spec: Listing Referrers, end-12)"""


class RepositoryWriter(Protocol):
    """Pushing to one repository, and deleting from it."""

    def allow(self, action: Action) -> None:
        """Raises Unsupported when the repository does not offer the action at all: asked before a body is read."""

    async def start_upload(self, algorithm: str = SHA256) -> UploadSession:
        """Raises DigestUnsupported. (spec: Pushing blobs, end-4a)"""

    async def upload_status(self, session: UploadSession) -> UploadSession:
        """The session as it is stored now. Raises UploadUnknown. (end-13)"""

    async def append_upload(self, session: UploadSession, chunks: Chunks, offset: int | None = None) -> UploadSession:
        """Append chunks. offset: where the client says they belong; None: where the session says.

        The session may get another id by that: go on with what this returns.
        Raises UploadUnknown; OffsetMismatch before reading any chunk, or when another client appends meanwhile.
        If cancelled or chunks raises, some of the chunks may be stored: ask upload_status. (end-5)
        """

    async def finish_upload(
        self,
        session: UploadSession,
        digest: Digest,
        chunks: Chunks,
        offset: int | None = None,
        length: int | None = None,
    ) -> None:
        """Append what chunks still brings, and make the whole the blob `digest`; it is there when this returns.

        length: bytes that chunks will bring, where that is known. Raises what append_upload raises; DigestMismatch:
        then the session is kept if chunks brought nothing, else it is gone. Finishing again what is finished succeeds:
        the first answer may have been lost. (end-6)
        """

    async def put_blob(self, digest: Digest, chunks: Chunks, length: int | None = None) -> None:
        """Store a whole blob whose digest is known first, without a session. length: bytes to come, where known.

        Nothing stays of it when chunks raises. Raises DigestMismatch. (end-4b)
        """

    async def cancel_upload(self, session: UploadSession) -> None:
        """Raises UploadUnknown. (end-14)"""

    async def mount_blob(self, digest: Digest, source: RepositoryName | None) -> None:
        """Make a blob of the repository `source` one of this, too; None: of any. Raises BlobUnknown. (end-11)"""

    async def put_manifest(
        self,
        reference: Reference,
        content_type: str | None,
        body: bytes,
        tags: tuple[Tag, ...] = (),
        precondition: Precondition | None = None,
    ) -> PutManifest:
        """Store a manifest under a digest or tag, and under more tags. All is there when this returns.

        Raises ManifestInvalid; ManifestBlobUnknown; DigestMismatch; PreconditionFailed: then no tag has changed.
        (end-7)
        """

    async def delete_manifest(self, digest: Digest) -> None:
        """Remove the manifest and every tag that names it. Raises ManifestUnknown. (end-9)"""

    async def delete_tag(self, tag: Tag) -> None:
        """Raises ManifestUnknown. (end-9)"""

    async def delete_blob(self, digest: Digest) -> None:
        """Raises BlobUnknown. The bytes go with the next garbage collection. (end-10)"""


class Repository(RepositoryReader, RepositoryWriter, Protocol):
    """Both halves."""


class _Reading:
    """Hands the reader's verbs on."""

    def __init__(self, inner: RepositoryReader) -> None:
        self._reader = inner
        self.name = inner.name

    async def stat_blob(self, digest: Digest) -> int:
        return await self._reader.stat_blob(digest)

    async def open_blob(self, digest: Digest, range: RangeRequest | None = None) -> ObjectReader:
        return await self._reader.open_blob(digest, range)

    async def blob_url(self, digest: Digest, method: str) -> str | None:
        return await self._reader.blob_url(digest, method)

    async def get_manifest(self, reference: Reference) -> StoredManifest:
        return await self._reader.get_manifest(reference)

    async def list_tags(self, after: str, limit: int) -> TagPage:
        return await self._reader.list_tags(after, limit)

    async def list_referrers(self, subject: Digest) -> list[Descriptor]:
        return await self._reader.list_referrers(subject)


class RefuseWrites:
    """A writer that refuses. why: the sentence that the client reads, with the setting that decides."""

    why = "this registry is read-only (storage.maintenance.readonly)"

    def _refuse(self) -> NoReturn:
        raise Unsupported(self.why)

    def allow(self, action: Action) -> None:
        if action != "pull":
            self._refuse()

    async def start_upload(self, algorithm: str = SHA256) -> UploadSession:
        self._refuse()

    async def upload_status(self, session: UploadSession) -> UploadSession:
        self._refuse()

    async def append_upload(self, session: UploadSession, chunks: Chunks, offset: int | None = None) -> UploadSession:
        self._refuse()

    async def finish_upload(
        self,
        session: UploadSession,
        digest: Digest,
        chunks: Chunks,
        offset: int | None = None,
        length: int | None = None,
    ) -> None:
        self._refuse()

    async def put_blob(self, digest: Digest, chunks: Chunks, length: int | None = None) -> None:
        self._refuse()

    async def cancel_upload(self, session: UploadSession) -> None:
        self._refuse()

    async def mount_blob(self, digest: Digest, source: RepositoryName | None) -> None:
        self._refuse()

    async def put_manifest(
        self,
        reference: Reference,
        content_type: str | None,
        body: bytes,
        tags: tuple[Tag, ...] = (),
        precondition: Precondition | None = None,
    ) -> PutManifest:
        self._refuse()

    async def delete_manifest(self, digest: Digest) -> None:
        self._refuse()

    async def delete_tag(self, tag: Tag) -> None:
        self._refuse()

    async def delete_blob(self, digest: Digest) -> None:
        self._refuse()


class ReadOnly(RefuseWrites, _Reading):
    """A repository that can only be pulled from."""


class RefuseDeletes(_Reading):
    """A repository in which nothing can be deleted (storage.delete.enabled: false, the default)."""

    def __init__(self, inner: Repository) -> None:
        super().__init__(inner)
        self._writer = inner

    def _refuse(self) -> NoReturn:
        raise Unsupported("deleting is not enabled on this registry (storage.delete.enabled)")

    def allow(self, action: Action) -> None:
        if action == "delete":
            self._refuse()
        self._writer.allow(action)

    async def start_upload(self, algorithm: str = SHA256) -> UploadSession:
        return await self._writer.start_upload(algorithm)

    async def upload_status(self, session: UploadSession) -> UploadSession:
        return await self._writer.upload_status(session)

    async def append_upload(self, session: UploadSession, chunks: Chunks, offset: int | None = None) -> UploadSession:
        return await self._writer.append_upload(session, chunks, offset)

    async def finish_upload(
        self,
        session: UploadSession,
        digest: Digest,
        chunks: Chunks,
        offset: int | None = None,
        length: int | None = None,
    ) -> None:
        await self._writer.finish_upload(session, digest, chunks, offset, length)

    async def put_blob(self, digest: Digest, chunks: Chunks, length: int | None = None) -> None:
        await self._writer.put_blob(digest, chunks, length)

    async def cancel_upload(self, session: UploadSession) -> None:
        await self._writer.cancel_upload(session)

    async def mount_blob(self, digest: Digest, source: RepositoryName | None) -> None:
        await self._writer.mount_blob(digest, source)

    async def put_manifest(
        self,
        reference: Reference,
        content_type: str | None,
        body: bytes,
        tags: tuple[Tag, ...] = (),
        precondition: Precondition | None = None,
    ) -> PutManifest:
        return await self._writer.put_manifest(reference, content_type, body, tags, precondition)

    async def delete_manifest(self, digest: Digest) -> None:
        self._refuse()

    async def delete_tag(self, tag: Tag) -> None:
        self._refuse()

    async def delete_blob(self, digest: Digest) -> None:
        self._refuse()
