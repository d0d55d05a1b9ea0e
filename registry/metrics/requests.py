"""Counts every request: endpoint, method, status, time, and bytes both ways, those past the event loop as well.

Pure ASGI; bodies pass untouched. What is not known is one value of its label, so that no client can make up new ones:
`handler` is "unknown" where no endpoint is, `method` where HTTP has no such method.
"""

import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from registry.metrics import catalogue
from registry.metrics.catalogue import SECONDS, SIZES
from registry.metrics.numbers import Numbers
from registry.responses import ResponseBroken
from registry.serving.inlet import EXTENSION, Inlet
from registry.watching.answered import counted

HANDLERS: Mapping[str, str] = {
    "base": "base",
    "catalog": "catalog",
    "blob": "blob",
    "uploads": "blob_upload",
    "upload": "blob_upload_chunk",
    "manifest": "manifest",
    "tags": "tags",
    "referrers": "referrers",
}
"""distribution's names of the endpoints (registry/routes.py), as label values."""

METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"))
UNKNOWN = "unknown"
OTHERS = "(others)"
"""No repository can be called that."""

_WITH_BODY = frozenset(("PUT", "PATCH", "POST"))

Life = Callable[[Scope], AbstractAsyncContextManager[None]]
Opening = Callable[[], AbstractContextManager[Inlet] | None]


class Measured:
    """repositories: how many of them get labels of their own, in each worker; the others share one.

    life: entered around the application's lifespan, whose scope it gets.
    """

    def __init__(self, app: ASGIApp, numbers: Numbers, repositories: int, *, life: Life) -> None:
        self._app = app
        self._numbers = numbers
        self._most = repositories
        self._life = life
        self._names: set[str] = set()
        self._places: dict[tuple[str | None, str, int], tuple[int, int, int, int]] = {}
        self._running: dict[int, Scope] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            async with self._life(scope):
                await self._app(scope, receive, send)
            return
        body = _Body(scope, receive) if scope["method"] in _WITH_BODY else None
        answered, send = counted(scope, send)
        self._running[id(scope)] = scope
        began = time.monotonic()
        try:
            await self._app(scope, receive if body is None else body.receive, send)
        except ResponseBroken:
            self._numbers.add(catalogue.BROKEN, (handler_of(scope),))
            raise
        finally:
            del self._running[id(scope)]
            received = 0 if body is None else body.size
            self._note(scope, answered.status, time.monotonic() - began, received, answered.size)

    def _note(self, scope: Scope, status: int, seconds: float, received: int, sent: int) -> None:
        key = (scope.get("endpoint"), scope["method"], status)
        places = self._places.get(key) or self._find_places(scope, status)
        count, duration, request, response = places
        values = self._numbers.values
        values[count] += 1
        values[duration + bisect_left(SECONDS, seconds)] += 1
        values[duration + len(SECONDS) + 1] += seconds
        values[request + bisect_left(SIZES, received)] += 1
        values[request + len(SIZES) + 1] += received
        values[response + bisect_left(SIZES, sent)] += 1
        values[response + len(SIZES) + 1] += sent
        if self._most and status < 400:
            self._note_repository(scope, received, sent)

    def _find_places(self, scope: Scope, status: int) -> tuple[int, int, int, int]:
        handler, place = handler_of(scope), self._numbers.place
        method = scope["method"].lower() if scope["method"] in METHODS else UNKNOWN
        places = (
            place(catalogue.REQUESTS, (handler, str(status), method)),
            place(catalogue.DURATION, (handler, method)),
            place(catalogue.REQUEST_SIZE, (handler,)),
            place(catalogue.RESPONSE_SIZE, (handler,)),
        )
        if method != UNKNOWN:
            self._places[scope.get("endpoint"), scope["method"], status] = places
        return places

    def _note_repository(self, scope: Scope, received: int, sent: int) -> None:
        name = scope.get("repository")
        if name is None:
            return
        if name not in self._names:
            if len(self._names) < self._most:
                self._names.add(name)
            else:
                name = OTHERS
        numbers, labels = self._numbers, (name,)
        if scope["endpoint"] == "manifest" and scope["method"] in ("GET", "PUT"):
            numbers.add(catalogue.PULLS if scope["method"] == "GET" else catalogue.PUSHES, labels)
        if received:
            numbers.add(catalogue.REPOSITORY_RECEIVED, labels, received)
        if sent:
            numbers.add(catalogue.REPOSITORY_SENT, labels, sent)

    def expect(self) -> None:
        """As Actions.expect."""
        for handler in ("blob", "manifest"):
            self._numbers.place(catalogue.BROKEN, (handler,))

    def sample(self) -> None:
        """What is being answered now. Which endpoint, a request only knows once it was routed."""
        running = dict.fromkeys((*HANDLERS.values(), UNKNOWN), 0)
        uploads = 0
        for scope in self._running.values():
            running[handler_of(scope)] += 1
            uploads += scope.get("endpoint") in ("upload", "uploads") and scope["method"] in _WITH_BODY
        for handler, count in running.items():
            self._numbers.set(catalogue.IN_FLIGHT, (handler,), count)
        self._numbers.set(catalogue.UPLOADS, (), uploads)


def handler_of(scope: Scope) -> str:
    return HANDLERS.get(scope.get("endpoint", ""), UNKNOWN)


class _Body:
    """Counts the bytes of one body as they are received, by the loop or past it."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.size = 0
        self._receive = receive
        extensions: dict[str, Any] = scope.get("extensions") or {}
        opening: Opening | None = extensions.get(EXTENSION)
        if opening is not None:
            extensions[EXTENSION] = lambda: self._counted(opening)

    async def receive(self) -> Message:
        message = await self._receive()
        self.size += len(message.get("body", b""))
        return message

    def _counted(self, opening: Opening) -> AbstractContextManager[Inlet] | None:
        way = opening()
        return None if way is None else self._counting(way)

    @contextmanager
    def _counting(self, way: AbstractContextManager[Inlet]) -> Iterator[Inlet]:
        with way as inlet:
            first = sum(len(piece) for piece in inlet.first)
            try:
                yield inlet
            finally:
                self.size += first + inlet.taken
