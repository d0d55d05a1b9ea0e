"""Every request is counted once, whatever becomes of it; nobody can make up labels."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from registry.metrics.numbers import Numbers
from registry.metrics.requests import HANDLERS, METHODS, OTHERS, Measured
from registry.responses import ZERO_COPY_SEND, ResponseBroken
from registry.routes import EndpointName
from registry.serving.inlet import EXTENSION

from .tools import Samples, samples, total, value


class Lab:
    def __init__(self, app: ASGIApp, repositories: int = 0) -> None:
        self.numbers = Numbers()
        self.numbers.enter(0)
        self.lives: list[str] = []
        self.measured = Measured(app, self.numbers, repositories, life=self.life)

    @asynccontextmanager
    async def life(self, scope: Scope) -> AsyncIterator[None]:
        self.lives.append("begin")
        yield
        self.lives.append("end")

    async def ask(self, method: str = "GET", body: tuple[bytes, ...] = (), **scope: Any) -> list[Message]:
        left, sent = list(body), list[Message]()

        async def receive() -> Message:
            piece = left.pop(0) if left else b""
            return {"type": "http.request", "body": piece, "more_body": bool(left)}

        async def send(message: Message) -> None:
            sent.append(message)

        await self.measured({"type": "http", "method": method, **scope}, receive, send)
        return sent

    @property
    def found(self) -> Samples:
        self.measured.sample()
        return samples(self.numbers)


def answering(status: int = 200, *messages: Message, endpoint: str | None = "blob", repository: str = "") -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if endpoint:
            scope["endpoint"] = endpoint
        if repository:
            scope["repository"] = repository
        if scope["method"] in ("PUT", "PATCH", "POST"):
            while (await receive())["more_body"]:
                pass
        await send({"type": "http.response.start", "status": status, "headers": []})
        for message in messages or ({"type": "http.response.body", "body": b""},):
            await send(message)

    return app


def piece(body: bytes, *, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}


async def test_a_request_is_counted_with_its_bytes_those_of_files_too() -> None:
    file: Message = {"type": ZERO_COPY_SEND, "count": 5000, "offset": 0, "more_body": True}
    lab = Lab(answering(206, piece(b"x" * 100, more=True), file, piece(b"y" * 10)))
    sent = await lab.ask()
    assert [message.get("count") for message in sent] == [None, None, 5000, None]
    found = lab.found
    assert value(found, "registry_http_requests_total", handler="blob", code="206", method="get") == 1
    assert value(found, "registry_http_response_size_bytes_sum", handler="blob") == 5110
    assert value(found, "registry_http_response_size_bytes_bucket", handler="blob", le="4096.0") == 0
    assert value(found, "registry_http_response_size_bytes_bucket", handler="blob", le="8192.0") == 1
    assert value(found, "registry_http_request_size_bytes_sum", handler="blob") == 0
    assert value(found, "registry_http_request_duration_seconds_count", handler="blob", method="get") == 1


async def test_the_body_of_a_request() -> None:
    lab = Lab(answering(202, endpoint="upload"))
    await lab.ask("PATCH", (b"123", b"45678"))
    assert value(lab.found, "registry_http_request_size_bytes_sum", handler="blob_upload_chunk") == 8


class Taken:
    """An inlet that a thread has emptied."""

    first, taken = [b"ab", b"cd"], 1000


async def test_a_body_that_went_past_the_loop() -> None:
    @contextmanager
    def opening() -> Iterator[Any]:
        inlet = Taken()
        yield inlet
        inlet.first = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["endpoint"] = "upload"
        with scope["extensions"][EXTENSION]() as inlet:
            assert inlet.taken == 1000
        await answering(201, endpoint="upload")(scope, receive, send)

    lab = Lab(app)
    await lab.ask("PUT", extensions={EXTENSION: opening})
    assert value(lab.found, "registry_http_request_size_bytes_sum", handler="blob_upload_chunk") == 1004


async def test_a_way_that_is_not_worth_while_stays_closed() -> None:
    seen: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["extensions"][EXTENSION]())
        await answering(202, endpoint="upload")(scope, receive, send)

    await Lab(app).ask("PATCH", (b"1",), extensions={EXTENSION: lambda: None})
    assert seen == [None]


@pytest.mark.parametrize("method", ["BREW", "get", "PROPFIND"])
async def test_methods_that_nobody_knows_are_one(method: str) -> None:
    lab = Lab(answering(405, endpoint=None))
    for turn in range(3):
        await lab.ask(f"{method}{turn}")
    assert value(lab.found, "registry_http_requests_total", handler="unknown", code="405", method="unknown") == 3
    assert not lab.measured._places


async def test_every_endpoint_has_distributions_name() -> None:
    assert set(HANDLERS) == set(EndpointName.__args__)  # type: ignore[attr-defined]
    lab = Lab(answering())
    for method in METHODS:
        await lab.ask(method)
    assert total(lab.found, "registry_http_requests_total", handler="blob") == len(METHODS)


async def test_a_client_that_left_before_there_was_a_status() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise asyncio.CancelledError

    lab = Lab(app)
    with pytest.raises(asyncio.CancelledError):
        await lab.ask()
    assert value(lab.found, "registry_http_requests_total", handler="unknown", code="0", method="get") == 1


async def test_an_answer_that_the_store_broke_off() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answering(200, piece(b"x", more=True))(scope, receive, send)
        raise ResponseBroken

    lab = Lab(app)
    lab.measured.expect()
    assert value(lab.found, "registry_http_broken_responses_total", handler="blob") == 0
    with pytest.raises(ResponseBroken):
        await lab.ask()
    assert value(lab.found, "registry_http_broken_responses_total", handler="blob") == 1


async def test_requests_and_uploads_in_progress() -> None:
    begun, end = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["endpoint"] = "upload"
        begun.set()
        await end.wait()
        await answering(201, endpoint="upload")(scope, receive, send)

    lab = Lab(app)
    running = asyncio.create_task(lab.ask("PATCH"))
    await begun.wait()
    assert value(lab.found, "registry_http_in_flight_requests", handler="blob_upload_chunk") == 1
    assert value(lab.found, "registry_http_uploads_in_progress") == 1
    end.set()
    await running
    assert value(lab.found, "registry_http_in_flight_requests", handler="blob_upload_chunk") == 0
    assert value(lab.found, "registry_http_uploads_in_progress") == 0


def per_repository(found: Samples) -> set[str]:
    return {dict(labels)["repository"] for name, labels in found if name.startswith("registry_repository_")}


async def ask_of(lab: Lab, make: Callable[[str], ASGIApp], *names: str, method: str = "GET") -> None:
    for name in names:
        lab.measured._app = make(name)
        await lab.ask(method, (b"manifest",))


async def test_repositories_have_no_names_unless_asked_for() -> None:
    lab = Lab(answering())
    await ask_of(lab, lambda name: answering(200, endpoint="manifest", repository=name), "a", "b")
    assert not per_repository(lab.found)


async def test_repositories_up_to_a_number() -> None:
    lab = Lab(answering(), repositories=2)
    await ask_of(lab, lambda name: answering(404, endpoint="manifest", repository=name), "made", "up")
    assert not per_repository(lab.found)
    hit: Message = piece(b"12345")
    await ask_of(lab, lambda name: answering(200, hit, endpoint="manifest", repository=name), "a", "b", "c", "d", "a")
    await ask_of(lab, lambda name: answering(201, endpoint="manifest", repository=name), "a", method="PUT")
    found = lab.found
    assert per_repository(found) == {"a", "b", OTHERS}
    assert value(found, "registry_repository_pulls_total", repository="a") == 2
    assert value(found, "registry_repository_pulls_total", repository=OTHERS) == 2
    assert value(found, "registry_repository_pushes_total", repository="a") == 1
    assert value(found, "registry_repository_sent_bytes_total", repository="a") == 10
    assert value(found, "registry_repository_received_bytes_total", repository="a") == 8


async def test_the_lifespan_is_lived() -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    lab = Lab(app)
    await lab.measured({"type": "lifespan"}, None, None)  # type: ignore[arg-type]
    assert (seen, lab.lives) == (["lifespan"], ["begin", "end"])
