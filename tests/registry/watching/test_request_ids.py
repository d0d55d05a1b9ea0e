"""One id through everything that a request causes, and back in its answer."""

import asyncio
import io
import json
import logging
import re

import httpx
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from registry.watching.logs import JSONFormatter
from registry.watching.request_ids import RequestIds, request_id


class App:
    """Answers with the id that it sees, and starts a task that outlives the request and sees it later."""

    def __init__(self) -> None:
        self.later: list[asyncio.Task[str]] = []
        self.over = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await send({"type": "seen", "id": request_id()})
            return
        self.later.append(asyncio.create_task(self._outlive()))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-own", b"1")]})
        await send({"type": "http.response.body", "body": request_id().encode()})

    async def _outlive(self) -> str:
        await self.over.wait()
        return request_id()


async def ask(wrapped: ASGIApp, *given: bytes) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(wrapped), base_url="http://test") as client:
        return await client.get("/", headers=[(b"x-request-id", each) for each in given])


async def test_every_request_has_its_own() -> None:
    app = App()
    wrapped = RequestIds(app)
    first, second = await asyncio.gather(ask(wrapped), ask(wrapped))
    assert first.headers["x-request-id"] == first.text != second.text
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9]+", first.text)
    assert first.headers["x-own"] == "1"
    app.over.set()
    assert set(await asyncio.gather(*app.later)) == {first.text, second.text}
    assert request_id() == ""


@pytest.mark.parametrize("given", [b"abc", b"Root=1-67891233-abcdef012345678912345678", b"x" * 128])
async def test_who_is_in_front_may_name_it(given: bytes) -> None:
    response = await ask(RequestIds(App()), given)
    assert response.headers["x-request-id"].encode() == response.content == given


@pytest.mark.parametrize("given", [b"", b"x" * 129, b"a b", b'a"b', b"a\x1bb", b"\xe4", b"a=1;b=2"])
async def test_what_could_harm_a_log_is_not_taken(given: bytes) -> None:
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9]+", (await ask(RequestIds(App()), given)).text)


async def test_what_is_no_request_passes() -> None:
    seen = []

    async def send(message: object) -> None:
        seen.append(message)

    async def receive() -> dict[str, str]:
        raise AssertionError("nobody asked for a message")

    await RequestIds(App())({"type": "lifespan"}, receive, send)
    assert seen == [{"type": "seen", "id": ""}]


async def test_it_is_in_every_line_of_the_log(request: pytest.FixtureRequest) -> None:
    stream = io.StringIO()
    log = logging.getLogger("moorage.test.request_ids")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JSONFormatter({}))
    log.addHandler(handler)
    request.addfinalizer(lambda: log.removeHandler(handler))

    async def logging_app(scope: Scope, receive: Receive, send: Send) -> None:
        log.warning("inside")
        await App()(scope, receive, send)

    response = await ask(RequestIds(logging_app))
    log.warning("outside")
    inside, outside = (json.loads(line) for line in stream.getvalue().splitlines())
    assert inside["http.request.id"] == response.text
    assert "http.request.id" not in outside
