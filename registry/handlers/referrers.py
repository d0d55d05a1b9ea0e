"""Listing referrers (end-12a, end-12b)."""

import json

from starlette.responses import Response

from registry.headers import format_link
from registry.services import Call
from storage.digest import Digest
from storage.errors import DigestUnsupported
from storage.manifest import Descriptor

_TYPE = "application/vnd.oci.image.index.v1+json"
_PAGE_BYTES = 3 << 20
"""Of descriptors on one page: clients accept manifests of 4 MiB."""


async def list_referrers(call: Call) -> Response:
    # no media type has a space: that was a `+` which the client has not escaped, as in application/x+json
    wanted = (call.query.get("artifactType") or "").replace(" ", "+")
    try:
        subject = Digest.parse(call.argument)
        found = await call.repository.list_referrers(subject)
    except DigestUnsupported:
        return _index([], {})  # a well-formed digest that nothing here can have
    if wanted:
        found = [d for d in found if d.artifact_type == wanted]
    page, last = _page(found, call.query.get("last") or "")
    headers = {"OCI-Filters-Applied": "artifactType"} if wanted else {}
    if last is not None:
        query = {**({"artifactType": wanted} if wanted else {}), "last": last, **call.upstream}
        headers["Link"] = format_link(call.services.urls.referrers(call.name, subject, **query))
    return _index(page, headers)


def _page(found: list[Descriptor], after: str) -> tuple[list[dict[str, object]], str | None]:
    """The descriptors behind the digest `after` that fit into one page, and the last of them if there are more."""
    page: list[dict[str, object]] = []
    size, last = 0, None
    for descriptor in found:
        if str(descriptor.digest) <= after:
            continue
        entry = descriptor.to_json()
        size += len(json.dumps(entry))
        if page and size > _PAGE_BYTES:
            return page, last
        page.append(entry)
        last = str(descriptor.digest)
    return page, None


def _index(manifests: list[dict[str, object]], headers: dict[str, str]) -> Response:
    body = {"schemaVersion": 2, "mediaType": _TYPE, "manifests": manifests}
    return Response(json.dumps(body).encode("ascii"), headers={**headers, "Content-Type": _TYPE})
