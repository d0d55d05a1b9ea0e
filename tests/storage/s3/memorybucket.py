"""MemoryBucket: a bucket in memory that answers as S3 does, for tests of what stands on one.

A verified fake: the driver's whole contract runs on it and on real servers (test_driver.py). Added to what a server
does: `calls` remembers every call, `faults` are raised before or after one is carried out, bodies can break.

tree: answers as SeaweedFS does: lists folder by folder, with emptied folders. conditions: False ignores them.
"""

import asyncio
import base64
import hashlib
import itertools
import time
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from storage.driver import LARGEST_NOTE, CallSeen
from storage.drivers.s3.bucket import Body, Head, Listed, Page, Part, Refused, Upload, UploadGone
from storage.errors import ObjectNotFound, PreconditionFailed, RangeNotSatisfiable, Unavailable
from storage.ranges import ByteRange, RangeRequest

MIB = 1 << 20


@dataclass
class Stored:
    data: bytes
    etag: str
    modified: float
    note: str = ""


@dataclass
class Open:
    key: str
    started: float
    parts: dict[int, tuple[Part, bytes]] = field(default_factory=dict)


@dataclass
class Fault:
    """At the n-th call (from 1) of `verb`, for `times` calls. after: once it has been carried out: a lost reply."""

    verb: str
    number: int = 1
    error: type[Exception] = Unavailable
    after: bool = False
    times: int = 1


class MemoryBody:
    """piece: bytes a chunk. breaks: bytes after which the body ends with an error; None: it is whole."""

    def __init__(self, head: Head, span: ByteRange, data: bytes, piece: int, breaks: int | None) -> None:
        self.head = head
        self.span = span
        self.closed = False
        self._data = data
        self._piece = piece
        self._breaks = breaks

    async def chunks(self) -> AsyncIterator[bytes]:
        end = len(self._data) if self._breaks is None else min(self._breaks, len(self._data))
        for start in range(0, end, self._piece):
            await asyncio.sleep(0)
            yield self._data[start : min(start + self._piece, end)]
        if end < len(self._data):
            raise Unavailable("the storage has ended a body early")

    async def readinto(self, buffer: memoryview) -> None:
        at = 0
        async for chunk in self.chunks():
            buffer[at : at + len(chunk)] = chunk
            at += len(chunk)

    async def aclose(self) -> None:
        self.closed = True


class MemoryBucket:
    def __init__(self, *, tree: bool = False, conditions: bool = True, page: int = 1000) -> None:
        self.objects: dict[str, Stored] = {}
        self.uploads: dict[str, Open] = {}
        self._copying = self.most_copying = 0
        self.folders: set[str] = set()
        self.calls: list[tuple[str, str]] = []
        self.faults: list[Fault] = []
        self.breaks: list[int | None] = []
        """For each GET to come: bytes after which its body breaks."""
        self.bodies: list[MemoryBody] = []
        self.piece = 64 << 10
        self.tree = tree
        self.largest_note = LARGEST_NOTE
        self.conditions = conditions
        self.ages = 0.0
        self._page = page
        self._ids = itertools.count()
        self._counts: dict[str, int] = {}

    def verbs(self) -> list[str]:
        """The verbs called so far, which are forgotten."""
        verbs, self.calls = [verb for verb, _ in self.calls], []
        return verbs

    async def _call(self, verb: str, key: str) -> "Fault | None":
        self.calls.append((verb, key))
        await asyncio.sleep(0)
        for fault in self.faults:
            if fault.verb == verb:
                fault.number -= 1
                if fault.number <= 0 and fault.times:
                    fault.times -= 1
                    if not fault.after:
                        self._raise(fault, key)
                    return fault
        return None

    def _raise(self, fault: "Fault | None", key: str) -> None:
        if fault is not None:
            if fault.error is ObjectNotFound:
                raise ObjectNotFound(key)
            raise fault.error()

    def _found(self, key: str) -> Stored:
        if key not in self.objects:
            raise ObjectNotFound(key)
        return self.objects[key]

    def _head(self, stored: Stored) -> Head:
        return Head(len(stored.data), stored.etag, float(int(stored.modified)), time.time(), stored.note)

    def store(self, key: str, data: bytes, etag: str = "", note: str = "") -> str:
        etag = etag or f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'
        self.objects[key] = Stored(data, etag, time.time() - self.ages, note)
        parts = key.split("/")
        self.folders.update("/".join(parts[:n]) for n in range(1, len(parts)))
        return etag

    def watch_calls(self, seen: CallSeen) -> None:
        """Its calls go to nobody."""

    async def get(self, key: str, start: int | None = None, stop: int | None = None) -> Body:
        await self._call("get", key)
        stored = self._found(key)
        span = ByteRange(0, len(stored.data))
        if start is not None:
            wanted = RangeRequest(suffix=-start) if start < 0 else RangeRequest(start, stop)
            if not stored.data:
                raise RangeNotSatisfiable(0)
            span = wanted.resolve(len(stored.data))
        breaks = self.breaks.pop(0) if self.breaks else None
        body = MemoryBody(self._head(stored), span, stored.data[span.start : span.stop], self.piece, breaks)
        self.bodies.append(body)
        return body

    async def head(self, key: str) -> Head:
        await self._call("head", key)
        return self._head(self._found(key))

    def _check(self, key: str, if_absent: bool, if_match: str | None) -> None:
        stored = self.objects.get(key)
        if not self.conditions:
            return
        if if_absent and stored:
            raise PreconditionFailed
        if if_match is not None and (stored is None or stored.etag != if_match):
            raise PreconditionFailed

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
        fault = await self._call("put", key)
        if len(note) > self.largest_note:
            raise Refused
        if sha256 is not None and hashlib.sha256(data).digest() != sha256:
            raise Unavailable("the storage refuses a checksum")
        self._check(key, if_absent, if_match)
        etag = self.store(key, bytes(data), note=note)
        self._raise(fault, key)
        return etag

    async def copy(self, source: str, target: str, *, size: int, note: str = "") -> None:
        fault = await self._call("copy", target)
        stored = self._found(source)
        assert size == len(stored.data) <= 5 << 30
        self.store(target, stored.data, note=note)
        self._raise(fault, target)

    async def delete(self, key: str, *, if_match: str | None = None) -> None:
        fault = await self._call("delete", key)
        if if_match is not None and key in self.objects:
            self._check(key, False, if_match)
        self.objects.pop(key, None)
        self._raise(fault, key)

    async def delete_many(self, keys: list[str]) -> None:
        assert 0 < len(keys) <= 1000
        await self._call("delete_many", keys[0])
        for key in keys:
            self.objects.pop(key, None)

    async def list_page(
        self, prefix: str, *, after: str = "", delimiter: str = "", token: str | None = None, limit: int = 1000
    ) -> Page:
        await self._call("list", prefix)
        after = token if token is not None else after
        order = self._order
        names: list[str] = []
        for key in {*self.objects, *(f"{folder}/" for folder in self.folders if self.tree and delimiter)}:
            if key.startswith(prefix) and (delimiter or not key.endswith("/")):
                cut = key.find(delimiter, len(prefix)) if delimiter else -1
                name = key if cut < 0 else key[: cut + 1]
                if order(name.rstrip("/") if self.tree else name) > order(after.rstrip("/") if self.tree else after):
                    names.append(name)
        names = sorted(set(names) - {prefix}, key=order)
        page = names[: min(limit, self._page)]
        objects = [
            Listed(name, len(self.objects[name].data), self.objects[name].etag, self.objects[name].modified)
            for name in page
            if name in self.objects
        ]
        prefixes = [name for name in page if name not in self.objects]
        return Page(objects, prefixes, page[-1] if len(names) > len(page) else None)

    def _order(self, key: str) -> list[str]:
        return key.split("/") if self.tree else [key]

    async def create_upload(self, key: str, *, checksums: bool = True, alone: bool = False) -> str:
        fault = await self._call("create_upload", key)
        id = f"upload-{next(self._ids)}"
        self.uploads[id] = Open(key, time.time())
        self._raise(fault, key)
        return id

    def _upload(self, key: str, id: str) -> Open:
        found = self.uploads.get(id)
        if found is None or found.key != key:
            raise UploadGone
        return found

    async def upload_part(
        self, key: str, id: str, number: int, data: bytes | bytearray | memoryview, *, checksum: bool = True
    ) -> Part:
        fault = await self._call("upload_part", key)
        part = self._add(self._upload(key, id), number, bytes(data))
        self._raise(fault, key)
        return part

    async def copy_part(self, key: str, id: str, number: int, source: str, span: ByteRange, *, beside: int = 1) -> Part:
        self._copying += 1
        assert self._copying <= beside, "more copies at a time than the store is given time for"
        self.most_copying = max(self.most_copying, self._copying)
        try:
            fault = await self._call("copy_part", key)
        finally:
            self._copying -= 1
        part = self._add(self._upload(key, id), number, self._found(source).data[span.start : span.stop])
        self._raise(fault, key)
        return part

    def _add(self, upload: Open, number: int, data: bytes) -> Part:
        assert 1 <= number <= 10_000
        etag = f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'
        checksum = base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()
        part = Part(number, len(data), etag, float(int(time.time())), checksum)
        upload.parts[number] = part, data
        return part

    async def complete_upload(self, key: str, id: str, parts: list[Part], *, if_absent: bool = False) -> None:
        fault = await self._call("complete_upload", key)
        upload = self._upload(key, id)
        self._check(key, if_absent, None)
        assert parts, "S3 completes nothing that has no parts"
        assert all(part.size >= 5 * MIB for part in parts[:-1]), "S3 takes no small part but the last"
        assert [part.number for part in parts] == sorted({part.number for part in parts})
        data = b"".join(upload.parts[part.number][1] for part in parts)
        del self.uploads[id]
        self.store(key, data, f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}-{len(parts)}"')
        self._raise(fault, key)

    async def abort_upload(self, key: str, id: str) -> None:
        await self._call("abort_upload", key)
        self.uploads.pop(id, None)

    async def list_parts(self, key: str, id: str) -> list[Part]:
        await self._call("list_parts", key)
        upload = self._upload(key, id)
        return [upload.parts[number][0] for number in sorted(upload.parts)]

    async def list_uploads(self, prefix: str) -> list[Upload]:
        await self._call("list_uploads", prefix)
        return [Upload(u.key, id, u.started) for id, u in self.uploads.items() if u.key.startswith(prefix)]

    async def presign(self, key: str, method: str, expires: float) -> str:
        return f"memory://bucket/{key}?{method}&{expires}"

    async def date(self) -> float:
        return time.time()

    async def aclose(self) -> None:
        self.calls.append(("aclose", ""))
