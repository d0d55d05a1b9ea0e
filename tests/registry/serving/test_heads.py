"""Heads of responses: what uvicorn's own made of the same messages, and what must never be written."""

import pytest

from registry.serving.heads import Head, response_head

LENGTH = (b"content-length", b"5")
CHUNKED = (b"Transfer-Encoding", b"Chunked")

HEADS: dict[str, tuple[Head, Head]] = {
    "length": (
        response_head(200, [(b"ETag", b'"a"'), LENGTH], keep_alive=True),
        Head(b'HTTP/1.1 200 OK\r\netag: "a"\r\ncontent-length: 5\r\n\r\n', 5, False),
    ),
    "the first length counts": (
        response_head(200, [LENGTH, (b"content-length", b"6")], keep_alive=True),
        Head(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n", 5, False),
    ),
    "no length": (
        response_head(200, [], keep_alive=True),
        Head(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", None, False),
    ),
    "no length for HEAD": (
        response_head(200, [], keep_alive=True, chunkable=False),
        Head(b"HTTP/1.1 200 OK\r\n\r\n", 0, False),
    ),
    "chunked already": (
        response_head(200, [CHUNKED], keep_alive=True),
        Head(b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n", None, False),
    ),
    "a status without a name": (
        response_head(299, [LENGTH], keep_alive=True),
        Head(b"HTTP/1.1 299 \r\ncontent-length: 5\r\n\r\n", 5, False),
    ),
    "without a body": (response_head(204, [], keep_alive=True), Head(b"HTTP/1.1 204 No Content\r\n\r\n", 0, False)),
    "the server ends": (
        response_head(304, [], keep_alive=False),
        Head(b"HTTP/1.1 304 Not Modified\r\nconnection: close\r\n\r\n", 0, True),
    ),
    "the application ends": (
        response_head(304, [(b"Connection", b"x, Close")], keep_alive=True),
        Head(b"HTTP/1.1 304 Not Modified\r\nconnection: x, Close\r\n\r\n", 0, True),
    ),
    "both end": (
        response_head(304, [(b"connection", b"close")], keep_alive=False),
        Head(b"HTTP/1.1 304 Not Modified\r\nconnection: close\r\n\r\n", 0, True),
    ),
    "a tab and bytes above ASCII": (
        response_head(304, [(b"x", b"a\tb\xe4")], keep_alive=True),
        Head(b"HTTP/1.1 304 Not Modified\r\nx: a\tb\xe4\r\n\r\n", 0, False),
    ),
}


@pytest.mark.parametrize("name", HEADS)
def test_head(name: str) -> None:
    made, expected = HEADS[name]
    assert made == expected


@pytest.mark.parametrize("control", [*range(9), *range(10, 32), 127])
def test_no_control_character_in_a_value(control: int) -> None:
    with pytest.raises(RuntimeError, match="control"):
        response_head(200, [LENGTH, (b"x", b"a%cb" % control)], keep_alive=True)


@pytest.mark.parametrize("value", [b"a\r\nb: c", b"a\r\n", b"\r\n\r\n<html>"])
def test_no_header_within_a_value(value: bytes) -> None:
    with pytest.raises(RuntimeError, match="control"):
        response_head(200, [(b"x", value)], keep_alive=True)


@pytest.mark.parametrize("name", [b"", b"a b", b"a:", b"a\r\nb", b"a\x7f", b"(a)"])
def test_no_other_name(name: bytes) -> None:
    for _ in range(2):  # what was refused is not remembered as right
        with pytest.raises(RuntimeError, match="name"):
            response_head(200, [(name, b"x")], keep_alive=True)
