"""The version check (end-1) and the catalog, which is distribution's and not the spec's."""

import json

from starlette.requests import Request
from starlette.responses import Response

from registry.headers import Query, format_link, parse_digits
from registry.services import Services

JSON = "application/json"
_DEFAULT_PAGE = 100
"""Repositories, when the client does not say; distribution's."""


async def get_base(request: Request, services: Services, query: Query) -> Response:
    return Response(b"{}", headers={"Content-Type": JSON})


async def get_catalog(request: Request, services: Services, query: Query) -> Response:
    maximum = services.settings.max_catalog
    limit = parse_digits(query.get("n"), maximum, default=min(_DEFAULT_PAGE, maximum))
    page = await services.list_repositories(query.get("last") or "", limit) if limit else None
    names = page.names if page else []
    headers = {"Content-Type": JSON}
    if page and page.more and names:
        headers["Link"] = format_link(services.urls.catalog(n=limit, last=names[-1]))
    return Response(json.dumps({"repositories": names}).encode("ascii"), headers=headers)
