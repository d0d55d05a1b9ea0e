"""What surrounds every request: headers that every answer has, and the access log. Pure ASGI; bodies pass untouched."""

import logging
import time
from collections.abc import Mapping, Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from registry.watching.answered import counted

access = logging.getLogger("registry.access")

API_VERSION = (b"docker-distribution-api-version", b"registry/2.0")
NO_SNIFF = (b"x-content-type-options", b"nosniff")


class ResponseHeaders:
    """Adds headers to every response: the API version that docker asks for, and those of `http.headers`."""

    def __init__(self, app: ASGIApp, configured: Mapping[str, Sequence[str]]) -> None:
        self._app = app
        ours = {NO_SNIFF[0]: [NO_SNIFF[1]]}
        ours |= {k.lower().encode("latin-1"): [v.encode("latin-1") for v in values] for k, values in configured.items()}
        self._headers = [API_VERSION, *((name, value) for name, values in ours.items() for value in values)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *self._headers]
            await send(message)

        await self._app(scope, receive, with_headers)


class AccessLog:
    """One line a request, when it has ended. The query is left out: it may carry a signed `_state`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not access.isEnabledFor(logging.INFO):
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        answered, send = counted(scope, send)
        try:
            await self._app(scope, receive, send)
        finally:
            actor, client = scope.get("actor"), scope.get("client")
            access.info(
                "%s %s %d",
                scope["method"],
                scope.get("raw_path", b"").decode("ascii", "backslashreplace"),
                answered.status,
                extra={
                    "remote": client[0] if client else "",
                    "user": actor.name if actor is not None and actor.name else "",
                    "bytes": answered.size,
                    "seconds": round(time.monotonic() - started, 4),
                    "agent": _agent(scope),
                },
            )


def _agent(scope: Scope) -> str:
    return next((value.decode("latin-1")[:200] for name, value in scope["headers"] if name == b"user-agent"), "")
