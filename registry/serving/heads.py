"""The heads of responses as bytes, and what they say about the body behind them. Pure.

Names and values are checked here, whatever application made them: a line end in one of them would let a client write
headers, or a whole response, of its own (response splitting).
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from http import HTTPStatus
from typing import NamedTuple

_NOT_IN_NAME = re.compile(rb'[\x00-\x20\x7f()<>@,;:\\\[\]={}"]')
_CONTROL = bytes(sorted({*range(0x20), 0x7F} - {0x09}))  # RFC 9110 section 5.5: a tab may stand in a value
_BODILESS = frozenset((204, 304))


class Head(NamedTuple):
    """One head.

    length: bytes of the body, as announced; None for chunked transfer coding.
    ends: is the connection closed behind the response?
    """

    data: bytes
    length: int | None
    ends: bool


def response_head(
    status: int, fields: Iterable[tuple[bytes, bytes]], *, keep_alive: bool, chunkable: bool = True
) -> Head:
    """fields: names in any case.   chunkable: may a body of unknown length be chunked (not for HEAD)?

    Raises RuntimeError for what cannot stand in a head.
    """
    length, chunked, closes, count = None, False, False, 0
    lines = [_status_line(status)]
    for name, value in fields:
        name = _line_start(name)
        if name in _FRAMING:
            if name == b"content-length: " and length is None and not chunked:
                length = int(value)
            elif name == b"transfer-encoding: " and value.lower() == b"chunked":
                chunked = True
            elif name == b"connection: ":
                closes = closes or b"close" in [token.strip() for token in value.lower().split(b",")]
        lines += (name, value, b"\r\n")
        count += 1
    block = b"".join(lines)
    # every line has its end, so two of them each; one translation is a fifth of what a regular expression costs
    if len(block) - len(block.translate(None, _CONTROL)) != 2 * count + 2:
        raise RuntimeError("a header value of the response holds control characters")
    if not keep_alive and not closes:
        block += b"connection: close\r\n"
    if length is None and not chunked and chunkable and status not in _BODILESS:
        chunked = True
        block += b"transfer-encoding: chunked\r\n"
    return Head(block + b"\r\n", None if chunked else length or 0, closes or not keep_alive)


_FRAMING = frozenset((b"content-length: ", b"transfer-encoding: ", b"connection: "))


@lru_cache(64)
def _status_line(status: int) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return f"HTTP/1.1 {status} {phrase}\r\n".encode("ascii")


@lru_cache(256)  # an application uses the same few
def _line_start(name: bytes) -> bytes:
    """Raises RuntimeError for what is no name."""
    if not name or _NOT_IN_NAME.search(name):
        raise RuntimeError("a header name of the response is none")
    return name.lower() + b": "
