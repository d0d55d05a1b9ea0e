"""Where a request begins and ends: the checks that the parser leaves to us. Pure functions over a parsed head.

A server and a proxy in front that disagree about framing let one client speak in another's name (request smuggling),
so whatever RFC 9112 lets us refuse is refused. llhttp already refuses Content-Length beside Transfer-Encoding, two
lengths, lengths and chunk sizes that are not plain digits, folded fields and bare line feeds.
"""

from collections.abc import Sequence

from registry.serving import refusals
from registry.serving.refusals import Refused

Fields = Sequence[tuple[bytes, bytes]]
VERSIONS = ("1.0", "1.1")


def check_head(method: bytes, version: str, fields: Fields) -> None:
    """fields: names in lower case. Raises Refused for a request that must not reach the application."""
    if version not in VERSIONS:
        raise Refused(refusals.NO_VERSION)
    # RFC 9112 3.2: "A server MUST respond with a 400 (Bad Request) status code to any HTTP/1.1 request message that
    # lacks a Host header field and to any request message that contains more than one Host header field line."
    names = [name for name, _ in fields]
    hosts = names.count(b"host")
    if hosts > 1 or (hosts == 0 and version == "1.1"):
        raise Refused(refusals.NO_HOST)
    if b"transfer-encoding" in names:
        _check_codings(version, fields)
    if method == b"CONNECT":
        raise Refused(refusals.NO_TUNNEL)


def _check_codings(version: str, fields: Fields) -> None:
    codings = b",".join(value for name, value in fields if name == b"transfer-encoding").lower()
    if codings and codings.rpartition(b",")[2].strip() != b"chunked":
        # RFC 9112 6.3: if "the chunked transfer coding is not the final encoding, the message body length cannot be
        # determined reliably; the server MUST respond with the 400 (Bad Request) status code".
        raise Refused(refusals.MALFORMED)
    if codings and (codings.strip() != b"chunked" or version == "1.0"):
        # RFC 9112 6.1 would have 501 ("SHOULD"), and 505 for a version; but no input gets a 5xx here, so that whoever
        # sees one knows that it is our fault. chunked twice, or in HTTP/1.0, is nothing that can be understood.
        raise Refused(refusals.NO_CODING)


def body_length(fields: Fields) -> int | None:
    """Bytes of the body; None when only its end will tell (chunked)."""
    for name, value in fields:
        if name == b"transfer-encoding":
            return None
        if name == b"content-length":
            return int(value)
    return 0


def expects_continue(version: str, fields: Fields) -> bool:
    """RFC 9110 10.1.1: "A server that receives a 100-continue expectation in an HTTP/1.0 request MUST ignore it."."""
    if version == "1.1":
        for name, value in fields:
            if name == b"expect" and value.lower() == b"100-continue":
                return True
    return False


def body_only_head(fields: Fields) -> bytes:
    """A head with the same framing and nothing else, for a parser that shall read the body of these fields."""
    framing = [b"%s: %s\r\n" % f for f in fields if f[0] in (b"content-length", b"transfer-encoding")]
    return b"POST / HTTP/1.1\r\n" + b"".join(framing) + b"\r\n"
