"""What surrounds every request: the headers of every answer, and one line in the access log."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from registry.middleware import AccessLog, ResponseHeaders
from registry.policy import Actor


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        await send({"type": "seen", "scope": scope["type"]})
        return
    if scope["path"] == "/breaks":
        raise LookupError("broken")
    scope["actor"] = Actor("alice") if scope["path"] == "/alice" else Actor()
    await send({"type": "http.response.start", "status": 202, "headers": [(b"x-own", b"1")]})
    await send({"type": "http.response.body", "body": b"12345", "more_body": True})
    await send({"type": "http.response.body", "body": b"678"})


async def ask(wrapped: ASGIApp, path: str = "/", headers: Mapping[str, str] | None = None) -> httpx.Response:
    transport = httpx.ASGITransport(wrapped, client=("192.0.2.7", 1234))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.get(path, headers=headers)


async def passed_on(wrapped: ASGIApp) -> list[Any]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("nobody asked for a message")

    await wrapped({"type": "lifespan"}, receive, send)
    return sent


@pytest.mark.parametrize("wrapped", [ResponseHeaders(app, {}), AccessLog(app)])
async def test_what_is_no_request_passes(wrapped: ASGIApp) -> None:
    assert await passed_on(wrapped) == [{"type": "seen", "scope": "lifespan"}]


@pytest.mark.parametrize(
    ("configured", "expected"),
    [
        ({}, {"x-content-type-options": ["nosniff"]}),
        ({"X-Content-Type-Options": ["nosniff"]}, {"x-content-type-options": ["nosniff"]}),
        ({"X-A": ["1", "2"]}, {"x-a": ["1", "2"], "x-content-type-options": ["nosniff"]}),
    ],
)
async def test_s26_headers_of_every_answer(configured: Mapping[str, Sequence[str]], expected: Any) -> None:
    response = await ask(ResponseHeaders(app, configured))
    assert response.headers["Docker-Distribution-Api-Version"] == "registry/2.0"
    assert response.headers["X-Own"] == "1"
    assert {name: response.headers.get_list(name) for name in expected} == expected
    assert not [name for name in response.headers if name.startswith("access-control")]


def lines(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name == "registry.access"]


async def test_one_line_a_request(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    await ask(AccessLog(app), "/alice?_state=secret", {"User-Agent": "x" * 300, "X-Forwarded-For": "203.0.113.9"})
    (record,) = lines(caplog)
    seen = vars(record)
    assert record.getMessage() == "GET /alice 202"
    assert (seen["user"], seen["remote"], seen["bytes"]) == ("alice", "192.0.2.7", 8)
    assert seen["agent"] == "x" * 200
    assert seen["seconds"] >= 0


async def test_also_for_a_request_that_breaks(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with pytest.raises(LookupError):
        await ask(AccessLog(app), "/breaks")
    assert lines(caplog)[0].getMessage() == "GET /breaks 0"


async def test_silent_when_nobody_reads_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    assert (await ask(AccessLog(app))).status_code == 202
    assert lines(caplog) == []
