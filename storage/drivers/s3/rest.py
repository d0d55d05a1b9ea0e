"""A bucket over HTTP: each verb of bucket.py as one request of S3's REST interface.

Content type, encryption, storage class and ACL go with every request that makes an object. The class STANDARD and the
ACL "private" are what S3 does unasked; they are not sent, since naming an ACL needs s3:PutObjectAcl and is refused by
buckets that have ACLs switched off.
"""

import asyncio
import hashlib
import math
import zlib
from base64 import b64encode
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TypeVar
from urllib.parse import quote

from storage.driver import CallSeen
from storage.drivers.s3 import errors, xml
from storage.drivers.s3.body import RestBody, measure, range_header
from storage.drivers.s3.bucket import Body, Head, Page, Part, Upload, UploadGone
from storage.drivers.s3.calls import Answer, Calls, Request, Retries
from storage.drivers.s3.clock import parse_date
from storage.drivers.s3.credentials import Chain, Fixed, Source
from storage.drivers.s3.endpoint import Endpoint
from storage.drivers.s3.errors import Fault
from storage.drivers.s3.settings import S3Settings
from storage.drivers.s3.sign import Credentials, Signer, UrlCache
from storage.drivers.s3.xml import Malformed
from storage.errors import ObjectNotFound, RangeNotSatisfiable, Unavailable
from storage.ranges import ByteRange

T = TypeVar("T")

_IN_LOOP = 256 << 10
"""Bytes whose CRC32 is computed in the event loop: less than the way to a thread and back costs."""

_COPIED = 8 << 20
"""Bytes a second that a store copies at least, of all copies side by side: a small one answers them all at the end."""

_NOTE = "x-amz-meta-moorage"

_LONGEST = 7 * 86_400
"""Seconds: S3's bound for a presigned URL."""


def source_of(settings: S3Settings) -> Source:
    """The keys of the settings where they are there, else the chain."""
    if not settings.accesskey:
        return Chain()
    return Fixed(Credentials(settings.accesskey, settings.secretkey, settings.sessiontoken))


class RestBucket:
    """Belongs to the event loop of its first call. Makes no call by itself, and opens nothing before the first."""

    def __init__(self, settings: S3Settings, *, source: Source | None = None, retries: Retries | None = None) -> None:
        self._calls = Calls(settings, source or source_of(settings), retries or Retries())
        self._settings = settings
        self._urls = UrlCache()
        self._redirects = Endpoint.for_redirects(settings)
        self._redirect_signer = Signer(settings.region, self._redirects.host)
        self._made = _made_with(settings)

    def watch_calls(self, seen: CallSeen) -> None:
        self._calls.seen = seen

    async def get(self, key: str, start: int | None = None, stop: int | None = None) -> Body:
        asked = range_header(start, stop)
        request = Request(errors.GET, "GET", key, headers={"range": asked} if asked else {}, missing=key)
        try:
            response = await self._calls.open(request)
        except RangeNotSatisfiable as exc:
            if exc.size >= 0:
                raise
            raise RangeNotSatisfiable((await self.head(key)).size) from exc
        try:
            span, size = measure(response.headers, start, stop)
            if start is not None and not len(span):  # the last bytes of an empty object: 416 on Amazon, 200 elsewhere
                raise RangeNotSatisfiable(size)
            head = self._head(response.headers, size)
        except Malformed as exc:
            response.close()
            raise self._calls.fail(request, Fault(0, cause=exc)) from exc
        except RangeNotSatisfiable:
            response.release()
            raise
        return RestBody(response, head, span, lambda fault: self._calls.fail(request, fault))

    async def head(self, key: str) -> Head:
        request = Request(errors.HEAD, "HEAD", key, missing=key)
        try:
            answer = await self._calls.ask(request)
        except ObjectNotFound:
            if self._calls.met:
                raise
            # is it the key or the bucket that is missing? An answer to HEAD has no body that says so
            body = await self.get(key)
            await body.aclose()
            return body.head
        try:
            return self._head(answer.headers, measure(answer.headers, None, None)[1])
        except Malformed as exc:
            raise self._calls.fail(request, Fault(0, cause=exc)) from exc

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
        headers = self._made | _noted(note)
        if sha256 is not None:
            headers["x-amz-checksum-sha256"] = b64encode(sha256).decode()
        else:
            headers["x-amz-checksum-crc32"] = await _crc32(data)
        if if_absent:
            headers["if-none-match"] = "*"
        if if_match is not None:
            headers["if-match"] = if_match
        request = Request(
            errors.PUT,
            "PUT",
            key,
            headers=headers,
            body=data,
            missing=key,
            conditional=if_absent or if_match is not None,
        )
        return self._etag(request, await self._calls.ask(request))

    async def copy(self, source: str, target: str, *, size: int, note: str = "") -> None:
        headers = self._made | _noted(note)
        headers |= {"x-amz-copy-source": self._source(source), "x-amz-metadata-directive": "REPLACE"}
        patience = self._settings.readtimeout + size / _COPIED
        await self._calls.ask(Request(errors.COPY, "PUT", target, headers=headers, missing=source, patience=patience))

    async def delete(self, key: str, *, if_match: str | None = None) -> None:
        headers = {} if if_match is None else {"if-match": if_match}
        request = Request(errors.DELETE, "DELETE", key, headers=headers, missing=key, conditional=if_match is not None)
        try:
            await self._calls.ask(request)
        except ObjectNotFound:
            return

    async def delete_many(self, keys: list[str]) -> None:
        body = xml.delete_body(keys)
        md5 = hashlib.md5(body, usedforsecurity=False).digest()
        headers = {"content-md5": b64encode(md5).decode(), "content-type": "application/xml"}
        await self._calls.ask(
            Request(
                errors.DELETE_MANY,
                "POST",
                query=(("delete", ""),),
                headers=headers,
                body=body,
                check=xml.parse_deleted,
            )
        )

    async def list_page(
        self, prefix: str, *, after: str = "", delimiter: str = "", token: str | None = None, limit: int = 1000
    ) -> Page:
        query = [("list-type", "2"), ("encoding-type", "url"), ("max-keys", str(limit)), ("prefix", prefix)]
        if delimiter:
            query.append(("delimiter", delimiter))
        if token is not None:
            query.append(("continuation-token", token))
        elif after:
            query.append(("start-after", after))
        request = Request(errors.LIST, "GET", query=tuple(query))
        return self._read(request, await self._calls.ask(request), xml.parse_page)

    async def create_upload(self, key: str, *, checksums: bool = True, alone: bool = False) -> str:
        headers = self._made | ({"x-amz-checksum-algorithm": "CRC32"} if checksums else {})
        request = Request(errors.CREATE, "POST", key, query=(("uploads", ""),), headers=headers)
        answer = await self._calls.ask(request)
        id = self._read(request, answer, xml.parse_upload_id)
        if alone and answer.repeated:
            await self._abort_empty(key, id)
        return id

    async def _abort_empty(self, key: str, id: str) -> None:
        """Uploads of the key that hold nothing, but for that one: another process may have gone on in one that does."""
        for upload in await self.list_uploads(key):
            if upload.key == key and upload.id != id:
                with suppress(UploadGone):
                    if not await self.list_parts(key, upload.id):
                        await self.abort_upload(key, upload.id)

    async def upload_part(
        self, key: str, id: str, number: int, data: bytes | bytearray | memoryview, *, checksum: bool = True
    ) -> Part:
        request = Request(
            errors.PART,
            "PUT",
            key,
            query=(("partNumber", str(number)), ("uploadId", id)),
            headers={"x-amz-checksum-crc32": await _crc32(data)} if checksum else {},
            body=data,
        )
        answer = await self._calls.ask(request)
        size = memoryview(data).nbytes
        kept = answer.headers.get("x-amz-checksum-crc32", "")
        return Part(number, size, self._etag(request, answer), answer.date, kept)

    async def copy_part(self, key: str, id: str, number: int, source: str, span: ByteRange, *, beside: int = 1) -> Part:
        request = Request(
            errors.COPY_PART,
            "PUT",
            key,
            query=(("partNumber", str(number)), ("uploadId", id)),
            headers={
                "x-amz-copy-source": self._source(source),
                "x-amz-copy-source-range": f"bytes={span.start}-{span.stop - 1}",
            },
            missing=source,
            patience=self._settings.readtimeout + beside * len(span) / _COPIED,
        )
        etag, modified, checksum = self._read(request, await self._calls.ask(request), xml.parse_copied_part)
        return Part(number, len(span), etag, modified, checksum)

    async def complete_upload(self, key: str, id: str, parts: list[Part], *, if_absent: bool = False) -> None:
        headers = {"content-type": "application/xml"} | ({"if-none-match": "*"} if if_absent else {})
        request = Request(
            errors.COMPLETE,
            "POST",
            key,
            query=(("uploadId", id),),
            headers=headers,
            body=xml.complete_body(parts),
            conditional=if_absent,
            patience=self._settings.readtimeout + sum(part.size for part in parts) / _COPIED,
        )
        self._read(request, await self._calls.ask(request), lambda body: xml.parse(body, "CompleteMultipartUpload"))

    async def abort_upload(self, key: str, id: str) -> None:
        request = Request(errors.ABORT, "DELETE", key, query=(("uploadId", id),), missing=key)
        try:
            await self._calls.ask(request)
        except (UploadGone, ObjectNotFound):
            return

    async def list_parts(self, key: str, id: str) -> list[Part]:
        found: dict[int, Part] = {}
        marker: str | None = None
        while True:
            query = [("uploadId", id), ("max-parts", "1000")]
            if marker is not None:
                query.append(("part-number-marker", marker))
            request = Request(errors.LIST_PARTS, "GET", key, query=tuple(query))
            parts, following = self._read(request, await self._calls.ask(request), xml.parse_parts)
            for part in parts:
                known = found.get(part.number)
                if (
                    known is None or known.modified < part.modified
                ):  # of equal times the first: the newest, on SeaweedFS
                    found[part.number] = part
            if following is None or following == marker:
                return [found[number] for number in sorted(found)]
            marker = following

    async def list_uploads(self, prefix: str) -> list[Upload]:
        found: list[Upload] = []
        marker: tuple[str, str] | None = None
        while True:
            query = [("uploads", ""), ("encoding-type", "url"), ("prefix", prefix)]
            if marker is not None:
                query += [("key-marker", marker[0]), ("upload-id-marker", marker[1])]
            request = Request(errors.LIST_UPLOADS, "GET", query=tuple(query))
            uploads, following = self._read(request, await self._calls.ask(request), xml.parse_uploads)
            found += uploads
            if following is None or following == marker:
                return found
            marker = following

    async def presign(self, key: str, method: str, expires: float) -> str:
        calls = self._calls
        credentials = await calls.source.get()
        now = calls.clock.signing()
        name = (method, key, credentials.access_key, expires)
        if known := self._urls.find(name, now):
            return known
        left = math.inf if credentials.expires is None else credentials.expires - now
        life = int(min(expires, _LONGEST, left))
        if life < 1:
            raise Unavailable("the registry's credentials for its storage have expired")
        path = self._redirects.path(key)
        url = f"{self._redirects.origin}{path}?{self._redirect_signer.query(credentials, method, path, life, now)}"
        self._urls.keep(name, url, now, life)
        return url

    async def date(self) -> float:
        if not self._calls.clock.known:
            await self.list_page(self._settings.rootdirectory.strip("/"), limit=1)
        return self._calls.clock.now()

    async def aclose(self) -> None:
        await self._calls.aclose()

    def _head(self, headers: Mapping[str, str], size: int) -> Head:
        try:
            modified = parse_date(headers.get("Last-Modified", ""))
        except ValueError as exc:
            raise Malformed("an object without its time") from exc
        date = self._calls.clock.observe(headers.get("Date", ""))
        return Head(size, headers.get("ETag", ""), modified, date, headers.get(_NOTE, ""))

    def _read(self, request: Request, answer: Answer, parse: Callable[[bytes], T]) -> T:
        try:
            return parse(answer.body)
        except Malformed as exc:
            raise self._calls.fail(request, Fault(0, cause=exc)) from exc

    def _etag(self, request: Request, answer: Answer) -> str:
        if etag := answer.headers.get("ETag", ""):
            return etag
        raise self._calls.fail(request, Fault(0, cause=Malformed("an object without an ETag")))

    def _source(self, key: str) -> str:
        return quote(f"/{self._settings.bucket}/{key}", safe="/-_.~")


def _made_with(settings: S3Settings) -> dict[str, str]:
    """The headers of every request that makes an object."""
    headers = {"content-type": "application/octet-stream"}
    if settings.encrypt:
        headers["x-amz-server-side-encryption"] = "aws:kms" if settings.keyid else "AES256"
    if settings.keyid:
        headers["x-amz-server-side-encryption-aws-kms-key-id"] = settings.keyid
    if settings.storageclass not in ("NONE", "STANDARD"):
        headers["x-amz-storage-class"] = settings.storageclass
    if settings.objectacl != "private":
        headers["x-amz-acl"] = settings.objectacl
    return headers


def _noted(note: str) -> dict[str, str]:
    return {_NOTE: note} if note else {}


async def _crc32(data: bytes | bytearray | memoryview) -> str:
    large = memoryview(data).nbytes > _IN_LOOP
    value = await asyncio.to_thread(zlib.crc32, data) if large else zlib.crc32(data)
    return b64encode(value.to_bytes(4, "big")).decode()
