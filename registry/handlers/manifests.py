"""Pulling, pushing and deleting manifests (end-3, end-7, end-9)."""

from starlette.responses import Response

from registry.bodies import read_body
from registry.errors import TooManyTags
from registry.headers import etag, if_none_match_holds, parse_etags, warning
from registry.responses import Plain
from registry.services import Call
from registry.stale import StaleManifest
from storage.digest import Digest
from storage.errors import ManifestUnknown, TagInvalid
from storage.names import Reference, Tag, parse_reference, parse_tag
from storage.repository import Precondition

MAX_TAGS = 100
"""`tag` parameters of one PUT; the spec asks for ten at least."""


async def get_manifest(call: Call) -> Response:
    # Accept is not negotiated: a manifest has one type, and clients that cannot read it say so better than a 404
    stored = await call.repository.get_manifest(_existing(call.argument))
    tag = etag(stored.digest)
    fields = [(b"docker-content-digest", tag[1:-1].encode("ascii")), (b"etag", tag.encode("ascii"))]
    if isinstance(stored, StaleManifest):
        fields += [(b"age", b"%d" % stored.age), (b"warning", warning(stored.why).encode("ascii"))]
    if if_none_match_holds(call.header("if-none-match"), tag):
        return Plain(304, fields)
    fields.append((b"content-type", stored.media_type.encode("latin-1")))
    fields.append((b"content-length", b"%d" % len(stored.body)))
    return Plain(200, fields, stored.body)  # of a HEAD, the dispatch drops the body


async def put_manifest(call: Call) -> Response:
    reference = parse_reference(call.argument)
    tags = _tags(call, reference)
    body = await read_body(call.request, call.services.settings.manifest_size)
    done = await call.repository.put_manifest(reference, call.header("content-type"), body, tags, _precondition(call))
    headers = {
        "Location": call.services.urls.manifest(call.name, done.digest if tags else reference),
        "Docker-Content-Digest": str(done.digest),
        "Content-Length": "0",
    }
    if done.subject is not None:
        headers["OCI-Subject"] = str(done.subject)
    if done.absent:
        # sparse manifests and nondistributable layers: accepted, but the one who pushes should know (spec: Warnings)
        headers["Warning"] = warning(f"{len(done.absent)} of what this manifest names is not here: {done.absent[0]}")
    response = Response(None, 201, headers)
    for tag in tags:
        response.headers.append("OCI-Tag", tag)
    return response


async def delete_manifest(call: Call) -> Response:
    reference = _existing(call.argument)
    if isinstance(reference, Digest):
        await call.repository.delete_manifest(reference)
    else:
        await call.repository.delete_tag(reference)
    return Response(None, 202, {"Content-Length": "0"})


def _existing(argument: str) -> Reference:
    """A reference to something that should be there: what cannot be a tag is not there. Raises DigestInvalid."""
    try:
        return parse_reference(argument)
    except TagInvalid as exc:
        raise ManifestUnknown(argument[:200]) from exc


def _tags(call: Call, reference: Reference) -> tuple[Tag, ...]:
    """The tags that a PUT by digest sets beside (spec: Pushing Manifests, `tag` parameters); a PUT by tag has none."""
    values = call.query.all("tag") if isinstance(reference, Digest) else ()
    if len(values) > MAX_TAGS:
        raise TooManyTags(MAX_TAGS)
    return tuple(dict.fromkeys(parse_tag(value) for value in values))


def _precondition(call: Call) -> Precondition | None:
    """If-None-Match: * and If-Match, so that a client can create a tag, or move it from what it has read."""
    absent = (call.header("if-none-match") or "").strip() == "*"
    match = call.header("if-match")
    if not absent and match is None:
        return None
    return Precondition(absent, parse_etags(match) if match is not None else None)
