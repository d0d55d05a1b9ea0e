"""The debug address (`http.debug.addr`): pages for operators and their machines. Plain HTTP, GET and HEAD, no login.

It has a server of its own beside the registry's, on the same event loop: it answers from before the first request
until after the last, and limits for clients do not touch it. A part that has something to tell adds a page in app.py:

    debug.add("/metrics", page, join)

page: makes the answer of this process. Every application has its own pages, also where one process makes several.
join: makes one answer of those of all workers, in the order of their numbers. With several workers the address is the
first one's, who asks the others (processes/siblings.py); a page without a join is the first one's alone. If one does
not answer, neither does the page (503): a sum that lacks a part looks to Prometheus like counters that went back.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from socket import socket

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from registry.config import Config
from registry.serving.limits import Limits
from registry.serving.listeners import listening

LIMITS = Limits(max_connections=100)


@dataclass(frozen=True, slots=True)
class Answer:
    body: bytes
    media_type: str = "application/json"
    status: int = 200


class Silent(Exception):
    """Another worker has not answered. The message says which."""


Page = Callable[[], Awaitable[Answer]]
Join = Callable[[Sequence[Answer]], Answer]
Ask = Callable[[str], Awaitable[Sequence[Answer]]]
"""path -> what all other workers answer there, in their order. Raises Silent."""


class Debug:
    """The pages of one application."""

    def __init__(self) -> None:
        self._pages: dict[str, tuple[Page, Join | None]] = {}

    def add(self, path: str, page: Page, join: Join | None = None) -> None:
        self._pages[path] = page, join

    async def answer(self, path: str) -> Answer:
        """Of this process alone. Raises KeyError."""
        page, _ = self._pages[path]
        return await page()

    def app(self, ask: Ask | None = None) -> Starlette:
        """ask: None where there are no other workers."""
        routes = [Route(path, _endpoint(path, *entry, ask), methods=["GET"]) for path, entry in self._pages.items()]
        app = Starlette(routes=routes)
        app.router.redirect_slashes = False
        return app


def _endpoint(path: str, page: Page, join: Join | None, ask: Ask | None) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(_: Request) -> Response:
        found = await page()
        if ask is not None and join is not None:
            try:
                found = join([found, *await ask(path)])
            except Silent as exc:
                return PlainTextResponse(f"{exc}\n", 503)
        return Response(found.body, found.status, {"Cache-Control": "no-store"}, found.media_type)

    return endpoint


@contextmanager
def debug_listening(config: Config) -> Iterator[list[socket]]:
    """The sockets of the debug address; none where it has none. Raises OSError as `listening` does."""
    if not config.http.debug.addr:
        yield []
        return
    with listening("tcp", config.http.debug.addr) as sockets:
        yield sockets
