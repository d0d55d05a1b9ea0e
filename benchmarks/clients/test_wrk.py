"""Tests of reading what wrk.lua prints: only whole answers without errors count."""

import json

import pytest

from benchmarks.clients import LoadFailed
from benchmarks.clients.wrk import parse

GOOD = {
    "requests": 1000,
    "bytes": 1_300_000,
    "us": 2_000_000,
    "bad_status": 0,
    "socket_errors": 0,
    "timeouts": 0,
    "p50_us": 1500,
    "p99_us": 4000,
    "max_us": 9000,
}


def output(**changes: int) -> str:
    return f"Running 2s test\n  1 threads and 16 connections\nJSON {json.dumps({**GOOD, **changes})}\n"


def test_figures() -> None:
    assert parse(output(), 16, 1000) == {
        "requests": 1000,
        "bytes": 1_000_000,
        "req_s": 500.0,
        "p50_ms": 1.5,
        "p99_ms": 4.0,
        "max_ms": 9.0,
    }


@pytest.mark.parametrize(
    "text",
    [
        "",
        "unable to connect",
        output(bad_status=1),
        output(socket_errors=1),
        output(timeouts=1),
        output(requests=0, bytes=0),
        output(bytes=999_999),  # shorter bodies than they should be
        output(bytes=6_000_000),  # longer ones
    ],
)
def test_anything_else_is_no_result(text: str) -> None:
    with pytest.raises(LoadFailed):
        parse(text, 16, 1000)
