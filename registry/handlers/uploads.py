"""Pushing blobs: sessions, chunks, mounts (end-4a, 4b, 5, 6, 11, 13, 14).

Nothing is kept between requests but what storage holds and what the client carries in the signed Location, so each
request of an upload may reach another worker or replica.
"""

import logging
from collections.abc import AsyncIterator
from contextlib import suppress

from starlette.responses import Response

from registry.bodies import chunks, content_length, exactly
from registry.errors import UploadOffset
from registry.headers import parse_content_range, upload_range
from registry.services import Call
from storage.digest import SHA256, Digest
from storage.errors import (
    BlobUnknown,
    DigestInvalid,
    NameInvalid,
    OffsetMismatch,
    SizeInvalid,
    UploadUnknown,
)
from storage.names import parse_name
from storage.repository import UploadSession

log = logging.getLogger(__name__)


async def start_upload(call: Call) -> Response:
    """POST: open a session, or push a whole blob (`?digest=`), or mount one (`?mount=`)."""
    if (wanted := call.query.get("digest")) is not None:
        return await _push_at_once(call, Digest.parse(wanted))
    if (mount := call.query.get("mount")) is not None and (mounted := await _mount(call, mount)) is not None:
        return mounted
    session = await call.repository.start_upload(call.query.get("digest-algorithm") or SHA256)
    return await _accepted(call, session, 202)


async def _push_at_once(call: Call, digest: Digest) -> Response:
    await call.repository.put_blob(digest, chunks(call.request), content_length(call.request))
    return _created(call, digest)


async def _mount(call: Call, mount: str) -> Response | None:
    """None where it cannot be mounted, for whatever reason: an ordinary session follows, as the spec asks (end-11)."""
    source = call.query.get("from")
    if source is None and not call.services.anonymous_mount:
        return None
    if source is not None and not call.may("pull", source):
        return None
    try:
        digest = Digest.parse(mount)
        await call.repository.mount_blob(digest, parse_name(source) if source is not None else None)
    except (DigestInvalid, NameInvalid, BlobUnknown):
        return None
    return _created(call, digest)


async def upload_status(call: Call) -> Response:
    return await _accepted(call, await call.repository.upload_status(await call.session()), 204)


async def append_upload(call: Call) -> Response:
    session = await call.session()
    offset, body = _placed(call)
    try:
        return await _accepted(call, await call.repository.append_upload(session, body, offset), 202)
    except OffsetMismatch as exc:
        raise await _misplaced(call, session, exc) from exc


async def finish_upload(call: Call) -> Response:
    session = await call.session()
    wanted = call.query.get("digest")
    if wanted is None:
        raise DigestInvalid("a closing PUT needs the digest of the blob: ?digest=sha256:...")
    digest = Digest.parse(wanted)
    offset, body = _placed(call)
    try:
        await call.repository.finish_upload(session, digest, body, offset, content_length(call.request))
    except OffsetMismatch as exc:
        raise await _misplaced(call, session, exc) from exc
    return _created(call, digest)


async def cancel_upload(call: Call) -> Response:
    await call.repository.cancel_upload(await call.session())
    return Response(None, 204)


def _placed(call: Call) -> tuple[int | None, AsyncIterator[bytes]]:
    """Where the body belongs (None: where the session stands), and the body, held to the length that it claims."""
    body = chunks(call.request)
    value = call.header("content-range")
    if value is None:
        return None, body
    span = parse_content_range(value)
    announced = content_length(call.request)
    if announced is not None and announced != len(span):
        raise SizeInvalid(len(span), announced)
    # the server holds a body to its announced length, and the storage may take it directly only as it is
    return span.start, body if announced is not None else exactly(body, len(span))


async def _misplaced(call: Call, session: UploadSession, exc: OffsetMismatch) -> UploadOffset:
    """416 with the way on: Location and Range as they are now."""
    with suppress(UploadUnknown):
        session = await call.repository.upload_status(session)
    return UploadOffset(str(exc), await _session_headers(call, session))


async def _session_headers(call: Call, session: UploadSession) -> dict[str, str]:
    return {
        "Location": await call.upload_location(session),
        "Range": upload_range(session.offset),
        "Docker-Upload-UUID": session.id,
    }


async def _accepted(call: Call, session: UploadSession, status: int) -> Response:
    headers = await _session_headers(call, session)
    if status != 204:
        headers["Content-Length"] = "0"
    return Response(None, status, headers)


def _created(call: Call, digest: Digest) -> Response:
    return Response(
        None,
        201,
        {
            "Location": call.services.urls.blob(call.name, digest),
            "Docker-Content-Digest": str(digest),
            "Content-Length": "0",
        },
    )
