"""The answers that a client gets without the application: what the parser or a limit refuses.

They look like every other error of the registry and always end the connection, because after them nobody knows where
the next request would begin. The spec has no code for most of these: UNSUPPORTED is the one of its list that says "not
like this".
"""

from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus

from registry.errors import error_body
from registry.middleware import API_VERSION, NO_SNIFF

Headers = Iterable[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Refusal:
    status: int
    code: str
    message: str
    headers: tuple[tuple[bytes, bytes], ...] = ()

    def body(self) -> bytes:
        return error_body(self.code, self.message)

    def fields(self) -> list[tuple[bytes, bytes]]:
        """The header fields that go with body()."""
        return [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(self.body())),
            (b"connection", b"close"),
            API_VERSION,
            NO_SNIFF,
            *self.headers,
        ]

    def response(self, extra: Headers = (), *, head_only: bool = False) -> bytes:
        """The whole response as bytes. head_only: for HEAD, which has the fields of a body but none."""
        lines = [b"HTTP/1.1 %d %s" % (self.status, HTTPStatus(self.status).phrase.encode())]
        lines += [name + b": " + value for name, value in (*extra, *self.fields())]
        return b"\r\n".join(lines) + b"\r\n\r\n" + (b"" if head_only else self.body())


class Refused(Exception):
    """Raised inside a parser callback and answered by the protocol: it never leaves registry/serving/protocol.py."""

    def __init__(self, refusal: Refusal) -> None:
        self.refusal = refusal
        super().__init__(refusal.message)


MALFORMED = Refusal(400, "UNSUPPORTED", "malformed HTTP request")
NO_HOST = Refusal(400, "UNSUPPORTED", "a request needs exactly one Host header")
NO_TUNNEL = Refusal(405, "UNSUPPORTED", "CONNECT is not supported", ((b"allow", b"GET, HEAD"),))
TARGET_TOO_LONG = Refusal(414, "UNSUPPORTED", "the request target is too long")
HEAD_TOO_LARGE = Refusal(431, "UNSUPPORTED", "the header fields are too large or too many")
FRAMING_TOO_LARGE = Refusal(431, "UNSUPPORTED", "the request head, a chunk header or the trailer is too large")
NO_CODING = Refusal(400, "UNSUPPORTED", "this transfer coding is not supported; only chunked is")
NO_VERSION = Refusal(400, "UNSUPPORTED", "this HTTP version is not supported; HTTP/1.1 is")
TOO_MANY_CONNECTIONS = Refusal(503, "UNAVAILABLE", "too many connections; try again", ((b"retry-after", b"1"),))
INTERNAL = Refusal(500, "UNKNOWN", "internal error; the registry's log has the details")
