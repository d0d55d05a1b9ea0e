"""Pulling and deleting blobs (end-2, end-10)."""

import secrets

from starlette.responses import RedirectResponse, Response

from registry.headers import (
    content_range,
    etag,
    if_none_match_holds,
    if_range_holds,
    multipart_length,
    parse_range,
    resolve_ranges,
)
from registry.responses import BlobResponse, RangesResponse
from registry.services import Call
from storage.digest import Digest
from storage.ranges import RangeRequest

_TYPE = "application/octet-stream"
"""Always: a blob's own type is in the manifest, and a browser must not interpret what anybody has pushed."""

_SMALL = 64 << 10
"""Bytes: up to here a body is cheaper at once than in a stream; configs are, and most of what is asked for by range."""

_FOREVER = "max-age=31536000"

_A_WHILE = "private, max-age=60"
"""For a redirect, which may be kept by who asked, and not longer than the URL lives: signed ones are handed out with
half their life left, which is five minutes at least (credentials are renewed ten minutes before they end)."""


async def get_blob(call: Call) -> Response:
    digest = Digest.parse(call.argument)
    tag = etag(digest)
    headers = {
        "Docker-Content-Digest": str(digest),
        "ETag": tag,
        "Accept-Ranges": "bytes",
        "Cache-Control": _FOREVER,
        "Content-Type": _TYPE,
    }
    if if_none_match_holds(call.header("if-none-match"), tag):
        await call.repository.stat_blob(digest)
        return Response(None, 304, {"ETag": tag, "Docker-Content-Digest": str(digest), "Cache-Control": _FOREVER})
    if (url := await call.repository.blob_url(digest, call.request.method)) is not None:
        return RedirectResponse(
            url, 307, {"Docker-Content-Digest": str(digest), "ETag": tag, "Cache-Control": _A_WHILE}
        )
    if call.is_head:
        size = await call.repository.stat_blob(digest)
        return Response(None, 200, {**headers, "Content-Length": str(size)})
    return await _send(call, digest, _ranges(call, tag), headers)


def _ranges(call: Call, tag: str) -> tuple[RangeRequest, ...]:
    """The ranges asked for; none: the whole. An If-Range that names other bytes makes Range void (RFC 9110 13.1.5)."""
    value = call.header("range")
    if value is None or not if_range_holds(call.header("if-range"), tag):
        return ()
    return parse_range(value) or ()


async def _send(call: Call, digest: Digest, ranges: tuple[RangeRequest, ...], headers: dict[str, str]) -> Response:
    if len(ranges) > 1:
        return await _send_parts(call, digest, ranges, headers)
    reader = await call.repository.open_blob(digest, ranges[0] if ranges else None)
    headers["Content-Length"] = str(len(reader.span))
    if ranges:
        headers["Content-Range"] = content_range(reader.span, reader.size)
    status = 206 if ranges else 200
    if len(reader.span) > _SMALL:
        return BlobResponse(reader, status, headers)
    async with reader:
        return Response(await reader.read(_SMALL), status, headers)


async def _send_parts(
    call: Call, digest: Digest, ranges: tuple[RangeRequest, ...], headers: dict[str, str]
) -> Response:
    """Lazy pullers ask for several ranges at once, and take the whole layer if that is refused with a 200."""
    size = await call.repository.stat_blob(digest)
    spans = resolve_ranges(ranges, size)
    if len(spans) == 1:
        return await _send(call, digest, (RangeRequest(spans[0].start, spans[0].stop),), headers)
    boundary = secrets.token_hex(16)
    part = {"Content-Type": _TYPE}
    headers["Content-Type"] = f"multipart/byteranges; boundary={boundary}"
    headers["Content-Length"] = str(multipart_length(boundary, part, spans, size))
    return RangesResponse(
        lambda wanted: call.repository.open_blob(digest, wanted), spans, size, boundary, part, headers
    )


async def delete_blob(call: Call) -> Response:
    await call.repository.delete_blob(Digest.parse(call.argument))
    return Response(None, 202, {"Content-Length": "0"})
