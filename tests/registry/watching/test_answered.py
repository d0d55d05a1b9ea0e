"""The answer of a request is counted once, whoever wants to know."""

import logging

import pytest
from starlette.types import Message, Receive, Scope, Send

from registry.middleware import AccessLog
from registry.responses import ZERO_COPY_SEND
from registry.watching.answered import counted
from tests.registry.metrics.test_requests import Lab
from tests.registry.metrics.tools import value

MESSAGES: list[Message] = [
    {"type": "http.response.start", "status": 206, "headers": []},
    {"type": "http.response.body", "body": b"123", "more_body": True},
    {"type": ZERO_COPY_SEND, "count": 5000, "offset": 0, "more_body": True},
    {"type": "http.response.body"},
]


async def send_nowhere(message: Message) -> None:
    pass


async def test_status_and_bytes_as_they_are_sent() -> None:
    answered, send = counted({"type": "http"}, send_nowhere)
    seen = []
    for message in MESSAGES:
        seen.append((answered.status, answered.size))
        await send(message)
    assert seen == [(0, 0), (206, 0), (206, 3), (206, 5003)]
    assert (answered.status, answered.size) == (206, 5003)


async def test_what_is_further_in_reads_the_same_count_and_adds_no_layer() -> None:
    scope: Scope = {"type": "http"}
    outer, send = counted(scope, send_nowhere)
    inner, sent_through = counted(scope, send)
    assert inner is outer
    assert sent_through is send


async def test_log_and_metrics_tell_the_same(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in MESSAGES:
            await send(message)

    lab = Lab(AccessLog(app))
    await lab.ask(headers=[])
    (record,) = caplog.records
    assert (record.getMessage(), vars(record)["bytes"]) == ("GET  206", 5003)
    assert value(lab.found, "registry_http_response_size_bytes_sum", handler="unknown") == 5003
