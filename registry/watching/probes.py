"""What stands before the registry for its health's sake: `/livez`, `/readyz` and `/`, and 503 while a check has failed.

Probes are outermost: load balancers ask every second, so that they need no login, have no line in the access log (but
at level debug), no id and no trace. They are at the root, and below `http.prefix` for balancers that pass on nothing
else; names of repositories begin behind `/v2/` and cannot collide.
"""

import logging
from collections.abc import Awaitable, Callable

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from registry.errors import error_body
from registry.watching.debug import Answer, Debug
from registry.watching.health import Health, join_status

access = logging.getLogger("registry.access")

_RETRY_AFTER = "5"


class Probes:
    """prefix: http.prefix, without a slash at its end."""

    def __init__(self, app: ASGIApp, health: Health, prefix: str) -> None:
        self._app = app
        self._pages: dict[str, Callable[[], Awaitable[Answer]]] = {"/": health.root}
        for place in ("", prefix):
            self._pages |= {f"{place}/livez": health.live, f"{place}/readyz": health.ready}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] in ("GET", "HEAD"):
            page = self._pages.get(scope["path"].removeprefix(scope.get("root_path", "")))
            if page is not None:
                found = await page()
                access.debug("%s %s %d", scope["method"], scope["path"], found.status)
                response = Response(found.body, found.status, {"Cache-Control": "no-store"}, found.media_type)
                await response(scope, receive, send)
                return
        await self._app(scope, receive, send)


class Gate:
    """Answers with 503 in the registry's place while a configured check has failed, as distribution does, or while the
    store is known to be away."""

    def __init__(self, app: ASGIApp, health: Health) -> None:
        self._app, self._health = app, health

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._health.failing():
            why = "health check failed: please see /debug/health"
        elif await self._health.is_absent():
            why = "the registry's storage is away: please see /readyz"
        else:
            await self._app(scope, receive, send)
            return
        body = error_body("UNAVAILABLE", "service unavailable", why)
        headers = {"Content-Type": "application/json", "Retry-After": _RETRY_AFTER}
        await Response(body, 503, headers)(scope, receive, send)


def add_pages(debug: Debug, health: Health) -> None:
    debug.add("/debug/health", health.status, join_status)
    debug.add("/livez", health.live)
    debug.add("/readyz", health.ready_in_full)
