"""The ASGI lifespan of an application, as a context manager.

uvicorn's own logs a failed start and exits the process. Here the application's error reaches whoever starts the
server, so that `registry serve` can say in one line what to do, and a test sees what broke.
"""

import asyncio
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp

from registry.serving.stalls import Watch

Message = MutableMapping[str, Any]

LAST_WORDS = 5.0
"""Seconds in which an application that said "failed" may raise what failed; Starlette does at once."""


HOSTING = "registry.serving.server"
"""In `scope["extensions"]` of the lifespan: the server's Hosting."""


@dataclass(frozen=True, slots=True)
class Hosting:
    """What a server tells its application of itself, for its metrics.

    worker: which of several processes this is. watch: its connections. limit: how many of them it takes.
    """

    worker: int
    watch: Watch
    limit: int


class LifespanFailed(RuntimeError):
    """The application refused to start or to stop without raising an error of its own."""


@asynccontextmanager
async def lifespan(app: ASGIApp, hosting: Hosting | None = None) -> AsyncIterator[dict[str, Any]]:
    """Starts app, yields the state that it gave, and stops it. Raises what app raises, else LifespanFailed."""
    state: dict[str, Any] = {}
    to_app: asyncio.Queue[Any] = asyncio.Queue()
    from_app: asyncio.Queue[Message] = asyncio.Queue()
    extensions = {HOSTING: hosting} if hosting else {}
    asgi = {"version": "3.0", "spec_version": "2.0"}
    scope = {"type": "lifespan", "asgi": asgi, "state": state, "extensions": extensions}
    task = asyncio.ensure_future(app(scope, to_app.get, from_app.put))

    async def tell(event: str) -> None:
        to_app.put_nowait({"type": f"lifespan.{event}"})
        answer = asyncio.ensure_future(from_app.get())
        await asyncio.wait({task, answer}, return_when=asyncio.FIRST_COMPLETED)
        said = answer.result() if answer.done() else {"type": "nothing"}
        answer.cancel()
        if said["type"] != f"lifespan.{event}.complete":
            await asyncio.wait_for(asyncio.shield(task), LAST_WORDS)
            raise LifespanFailed(said.get("message") or f"the application did not complete its {event}")

    try:
        await tell("startup")
        yield state
        await tell("shutdown")
        await task
    finally:
        task.cancel()
        await asyncio.wait({task})
