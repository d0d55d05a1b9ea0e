"""A repository of an upstream as a RepositoryReader: what the pull-through cache reads from.

"Not found" is an upstream's own word, everything else a fault (answers.py). Manifests come back verified; of a blob the
bytes are counted, and whoever reads them compares the digest.
"""

from bisect import bisect_right
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import quote, urljoin

from registry.proxy import answers
from registry.proxy.answers import Answer
from registry.proxy.blobs import BlobStream, UpstreamBlob
from registry.proxy.realms import Origin
from registry.proxy.upstream import MANIFEST, MAX_ERROR, OTHER, Upstream
from storage.descriptor import Descriptor
from storage.digest import Digest
from storage.driver import ObjectReader
from storage.errors import (
    BlobUnknown,
    ManifestUnknown,
    NotFound,
    RangeNotSatisfiable,
    RepositoryUnknown,
    TagInvalid,
    UpstreamUnavailable,
)
from storage.manifest import IMAGE_INDEX, parse_index_lenient
from storage.names import Reference, RepositoryName, Tag, parse_tag
from storage.ranges import ByteRange, RangeRequest
from storage.repository import StoredManifest, TagPage

MAX_MANIFEST = 4 << 20
MAX_PAGE = 8 << 20
MAX_PAGES = 1000
MAX_TAGS = 100_000
PAGE = 1000
"""Entries of a page; distribution refuses to give more."""

ENDLESS = "the upstream registry's list does not end"


@dataclass(frozen=True, slots=True)
class ManifestHead:
    """What a HEAD says. digest and size: None where the upstream does not. etag: to be sent with the next question."""

    digest: Digest | None
    size: int | None
    etag: str | None


@dataclass(frozen=True, slots=True)
class Fetched:
    """A manifest, verified, and the ETag under which the upstream knows it."""

    manifest: StoredManifest
    etag: str | None


class UpstreamRepository:
    """A repository of an upstream. A RepositoryReader, and what a cache needs besides."""

    def __init__(self, upstream: Upstream, name: RepositoryName) -> None:
        self.name = name
        self.tally = upstream.tally
        self._upstream = upstream
        self._remote = upstream.remote_name(name)
        self._scope = f"repository:{self._remote}:pull"
        self._path = f"/v2/{self._remote}"

    def slowed(self, ttl: float) -> float:
        """As Upstream.slowed."""
        return self._upstream.slowed(ttl)

    # Manifests

    async def head_manifest(self, reference: Reference, etag: str | None = None) -> ManifestHead | None:
        """What stands there now; Docker Hub does not count this. None: still what `etag` is of.

        Raises ManifestUnknown; UpstreamDenied; UpstreamUnavailable.
        """
        answer = await self._manifest("HEAD", reference, etag)
        if answer is None:
            return None
        if answer.head.content_type == "text/html":
            raise UpstreamUnavailable(answers.WRONG)
        return ManifestHead(
            answers.read_digest(answer.head), answers.content_length(answer.head), answer.head.get("etag")
        )

    async def fetch_manifest(self, reference: Reference, etag: str | None = None) -> Fetched | None:
        """The manifest, verified. None: still what `etag` is of.

        Raises ManifestUnknown; UpstreamDenied; UpstreamUnavailable, also for bytes that are not what was asked for.
        """
        answer = await self._manifest("GET", reference, etag)
        if answer is None:
            return None
        self.tally.fetched_bytes += len(answer.body)
        self.tally.fetched_manifest_bytes += len(answer.body)
        return Fetched(answers.read_manifest(answer.head, answer.body, reference), answer.head.get("etag"))

    async def get_manifest(self, reference: Reference) -> StoredManifest:
        """As in RepositoryReader; raises UpstreamDenied, too."""
        found = await self.fetch_manifest(reference)
        if found is None:
            raise UpstreamUnavailable(answers.WRONG)  # 304 to a question without a condition
        return found.manifest

    async def _manifest(self, method: str, reference: Reference, etag: str | None) -> Answer | None:
        headers = {"Accept": answers.ACCEPT, **({"If-None-Match": etag} if etag else {})}
        answer = await self._ask(method, f"/manifests/{reference}", MANIFEST, MAX_MANIFEST, headers)
        if answer.head.status == 304 and etag:
            return None
        return self._fine(answer, ManifestUnknown(reference))

    # Blobs

    async def stat_blob(self, digest: Digest) -> int:
        """As in RepositoryReader; raises UpstreamDenied, too."""
        answer = await self._ask("HEAD", f"/blobs/{digest}", OTHER, MAX_ERROR, {})
        size = answers.content_length(self._fine(answer, BlobUnknown(digest)).head)
        if answer.head.content_type == "text/html":
            raise UpstreamUnavailable(answers.WRONG)
        if size is None:
            raise UpstreamUnavailable("the upstream registry does not say how large the blob is")
        return size

    async def open_stream(self, digest: Digest, start: int = 0, stop: int | None = None) -> "BlobStream":
        """The bytes from start (to stop), as they come: the ground of a fetch that can be resumed.

        Where the upstream does not know Range, it is the whole: extent.start says so.
        Raises BlobUnknown; RangeNotSatisfiable; UpstreamDenied; UpstreamUnavailable.
        """
        asked = (start, stop) if start or stop is not None else None
        headers = {} if asked is None else {"Range": f"bytes={start}-{'' if stop is None else stop - 1}"}
        stream = await self._upstream.open(f"{self._path}/blobs/{digest}", self._scope, headers)
        try:
            if stream.head.status not in (200, 206):
                answer = await stream.answer(MAX_ERROR)
                raise answers.refusal_of(answer.head, answer.body, BlobUnknown(digest))
            if stream.head.content_type == "text/html":
                raise UpstreamUnavailable(answers.WRONG)
            return BlobStream(stream, answers.read_extent(stream.head, asked), self.tally)
        except BaseException:
            await stream.aclose()
            raise

    async def open_blob(self, digest: Digest, range: RangeRequest | None = None) -> ObjectReader:
        """As in RepositoryReader; raises UpstreamDenied, too. The digest is not compared."""
        if range is None or (range.suffix is None and not range.start and range.stop is None):
            stream = await self.open_stream(digest)
            size = stream.extent.total if stream.extent.total is not None else await self._size(digest, stream)
            return UpstreamBlob(stream, size, ByteRange(0, size))
        if range.suffix is not None:
            size = await self.stat_blob(digest)
            span = range.resolve(size)
            stream = await self.open_stream(digest, span.start, span.stop)
            return UpstreamBlob(stream, size, span)
        stream = await self.open_stream(digest, range.start or 0, range.stop)
        size = stream.extent.total if stream.extent.total is not None else await self._size(digest, stream)
        try:
            return UpstreamBlob(stream, size, range.resolve(size))
        except RangeNotSatisfiable:
            await stream.aclose()
            raise

    async def _size(self, digest: Digest, stream: "BlobStream") -> int:
        """Of a blob whose body does not say."""
        try:
            return await self.stat_blob(digest)
        except BaseException:
            await stream.aclose()
            raise

    async def blob_url(self, digest: Digest, method: str) -> str | None:
        """None: clients have no business with an upstream."""
        return None

    # Lists

    async def all_tags(self) -> list[str]:
        """Every tag, in order. Raises RepositoryUnknown; UpstreamDenied; UpstreamUnavailable."""
        found: set[str] = set()
        async for answer in self._pages(f"/tags/list?n={PAGE}", RepositoryUnknown(self.name)):
            found.update(_tags(answer))
            if len(found) > MAX_TAGS:
                raise UpstreamUnavailable(ENDLESS)
        return sorted(found)

    async def tags_after(self, after: str, limit: int) -> TagPage | None:
        """The next tags, of as few pages as it takes. None: they come in another order than ours, `all_tags` has them.

        The spec wants an order, registries have several. One that does not know `last`, or goes by age, shows by a tag
        that is not behind the one before, or when it is asked what is behind a name that no tag has.
        Raises as all_tags.
        """
        names: list[str] = []
        start = f"&last={quote(after, safe='')}" if after else ""
        async for answer in self._pages(f"/tags/list?n={min(limit, PAGE)}{start}", RepositoryUnknown(self.name)):
            for tag in _tags(answer):
                if tag <= (names[-1] if names else after):
                    return None
                names.append(tag)
            if len(names) >= limit:
                more = answers.next_link(answer.head) is not None
                if more and not await self._goes_on_behind(names[-1]):
                    return None
                return TagPage(names[:limit], more or len(names) > limit)
        return TagPage(names, False)

    async def _goes_on_behind(self, tag: str) -> bool:
        """Is the upstream's list in our order? Else what comes later could belong before this tag."""
        target = f"{self._path}/tags/list?n=1&last={quote(tag, safe='')}-"
        answer = await self._upstream.ask("GET", target, self._scope, OTHER, limit=MAX_PAGE)
        behind = next(_tags(answer), None) if answer.head.status == 200 else None
        return behind is not None and behind > tag

    async def list_tags(self, after: str, limit: int) -> TagPage:
        """As in RepositoryReader."""
        page = await self.tags_after(after, limit)
        return page_of(await self.all_tags(), after, limit) if page is None else page

    async def list_referrers(self, subject: Digest) -> list[Descriptor]:
        """As in RepositoryReader; of the fallback tag where the upstream has no such API."""
        try:
            bodies = [answer.body async for answer in self._pages(f"/referrers/{subject}", ManifestUnknown(subject))]
        except ManifestUnknown:
            bodies = await self._fallback(subject)
        found = {each.digest: each for body in bodies for each in parse_index_lenient(body)}
        return [found[digest] for digest in sorted(found)]

    async def _fallback(self, subject: Digest) -> list[bytes]:
        """What clients keep under a tag made of the digest (distribution-spec, "Referrers Tag Schema")."""
        try:
            found = await self.get_manifest(parse_tag(f"{subject.algorithm}-{subject.hex}"[:128]))
        except ManifestUnknown:
            return []
        return [found.body] if found.media_type == IMAGE_INDEX else []

    async def _pages(self, tail: str, unknown: NotFound) -> AsyncIterator[Answer]:
        """Answers, as long as a Link leads to another page of this repository's on the same upstream."""
        seen: set[str] = set()
        target = self._path + tail
        while target not in seen and len(seen) < MAX_PAGES:
            seen.add(target)
            answer = await self._upstream.ask("GET", target, self._scope, OTHER, limit=MAX_PAGE)
            yield self._fine(answer, unknown)
            if (link := answers.next_link(answer.head)) is None:
                return
            target = self._same_upstream(target, link)
        raise UpstreamUnavailable(ENDLESS)

    def _same_upstream(self, target: str, link: str) -> str:
        base = self._upstream.config.base
        try:
            url = urljoin(base + target, link)
            if Origin.of(url) == self._upstream.origin and url.startswith(f"{base}/v2/"):
                return url.removeprefix(base)
        except ValueError:
            pass
        raise UpstreamUnavailable("the upstream registry's list goes on at a place that is not allowed")

    async def _ask(self, method: str, tail: str, kind: str, limit: int, headers: Mapping[str, str]) -> Answer:
        target = self._path + quote(tail, safe="/:")
        return await self._upstream.ask(method, target, self._scope, kind, limit=limit, headers=headers)

    def _fine(self, answer: Answer, unknown: NotFound) -> Answer:
        if answer.head.status != 200:
            raise answers.refusal_of(answer.head, answer.body, unknown)
        return answer


def page_of(tags: list[str], after: str, limit: int) -> TagPage:
    """tags: all, in order."""
    names = tags[bisect_right(tags, after) :]
    return TagPage(names[:limit], len(names) > limit)


def _tags(answer: Answer) -> Iterator[Tag]:
    for tag in answers.read_tags(answer.body):
        try:
            yield parse_tag(tag if isinstance(tag, str) else "")
        except TagInvalid:
            continue  # nobody could pull it
