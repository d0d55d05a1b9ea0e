"""One id for each request: in every log line that it causes, also those of what it leaves behind, and in the answer.

A load balancer or client in front may name it by `X-Request-Id`; else it is made here: eight random digits of this
process and a number. Tasks inherit the id (contextvars), so a fetch that outlives its client is still found by it.
"""

import itertools
import re
import secrets
from contextvars import ContextVar

from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER = b"x-request-id"

_GIVEN = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")

_current: ContextVar[str] = ContextVar("request_id", default="")


def request_id() -> str:
    """Of the request that this code runs for; "" outside of any."""
    return _current.get()


class RequestIds:
    """Pure ASGI; bodies pass untouched."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._process = secrets.token_hex(4)
        self._numbers = itertools.count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        id = _given(scope) or f"{self._process}-{next(self._numbers)}"
        field = (HEADER, id.encode("ascii"))

        async def with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), field]
            await send(message)

        token = _current.set(id)
        try:
            await self._app(scope, receive, with_id)
        finally:
            _current.reset(token)


def _given(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == HEADER:
            return value.decode("ascii") if _GIVEN.fullmatch(value) else None
    return None
