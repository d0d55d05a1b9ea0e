"""What create_app makes: the registry as an ASGI application, and what its server has to know of it besides."""

from collections.abc import Awaitable
from dataclasses import dataclass

from starlette.types import ASGIApp, Receive, Scope, Send

from registry.watching.debug import Debug
from registry.watching.health import Health


@dataclass(frozen=True, eq=False, slots=True)
class Application:
    """debug: the pages of the debug address.   health: is told when the end begins."""

    asgi: ASGIApp
    debug: Debug
    health: Health

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        return self.asgi(scope, receive, send)
