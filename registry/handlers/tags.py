"""Listing tags (end-8)."""

import json

from starlette.responses import Response

from registry.headers import format_link, parse_digits
from registry.services import Call


async def list_tags(call: Call) -> Response:
    maximum = call.services.settings.max_tags
    limit = parse_digits(call.query.get("n"), maximum, default=maximum)
    # n=0 asks whether the repository exists, and gets no Link
    page = await call.repository.list_tags(call.query.get("last") or "", max(limit, 1))
    names = page.names if limit else []
    headers = {"Content-Type": "application/json"}
    if names and page.more:
        url = call.services.urls.tags(call.name, n=limit, last=names[-1], **call.upstream)
        headers["Link"] = format_link(url)
    return Response(json.dumps({"name": call.name, "tags": names}).encode("ascii"), headers=headers)
