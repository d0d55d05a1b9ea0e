"""A tiny HTTP client over a bare socket, for tests in which the bytes matter: it sends what it is given."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

PATIENCE = 10.0
"""Seconds after which a test fails instead of hanging."""


@dataclass
class Response:
    status: int
    headers: dict[str, str]
    body: bytes = b""
    fields: list[tuple[str, str]] = field(default_factory=list)


class Truncated(Exception):
    """The connection ended inside a response. `got` is what had arrived of it."""

    def __init__(self, got: bytes) -> None:
        super().__init__(f"ended after {len(got)} bytes")
        self.got = got


class RawConnection:
    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.socket.settimeout(PATIENCE)
        self.buffer = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def send_until_closed(self, data: bytes) -> None:
        """Send what a server may refuse in the middle; that it does is not an error here."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(data)

    def response(self, method: str = "GET") -> Response:
        """The next response; `method` says whether it has a body. Raises Truncated."""
        head = self._until(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        fields = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        response = Response(int(first.split()[1]), dict(fields), fields=fields)
        if method == "HEAD" or response.status in (204, 304) or response.status < 200:
            return response
        if response.headers.get("transfer-encoding") == "chunked":
            response.body = b"".join(self._chunks())
        elif "content-length" in response.headers:
            response.body = self.exactly(int(response.headers["content-length"]))
        return response

    def exactly(self, size: int) -> bytes:
        """The next bytes. Raises Truncated."""
        parts, left = [self.buffer[:size]], size - len(self.buffer)
        self.buffer = self.buffer[size:]
        while left > 0:
            self._more()
            parts.append(self.buffer[:left])
            left, self.buffer = left - len(self.buffer), self.buffer[left:]
        return b"".join(parts)

    def rest(self) -> bytes:
        """All that still comes until the server closes. A reset ends it, too."""
        data, self.buffer = self.buffer, b""
        with suppress(ConnectionResetError):
            while more := self.socket.recv(1 << 16):
                data += more
        return data

    def half_close(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Close with a reset instead of an orderly end."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self._until(b"\r\n"), 16):
            yield self.exactly(size)
            self._until(b"\r\n")
        self._until(b"\r\n")

    def _until(self, mark: bytes) -> bytes:
        while mark not in self.buffer:
            self._more()
        found, _, self.buffer = self.buffer.partition(mark)
        return found

    def _more(self) -> None:
        try:
            more = self.socket.recv(1 << 20)
        except ConnectionResetError:
            more = b""
        if not more:
            raise Truncated(self.buffer)
        self.buffer += more


def refuses(place: tuple[str, int], patience: float = PATIENCE) -> bool:
    """Does nobody listen there?"""
    try:
        socket.create_connection(place, timeout=patience).close()
    except (ConnectionRefusedError, ConnectionResetError):
        return True
    return False


@contextmanager
def connected(host: str, port: int, tls: ssl.SSLContext | None = None, *, window: int = 0) -> Iterator[RawConnection]:
    """window: bytes of receive buffer, small for a client that shall be slow."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    with sock:
        if window:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        sock.settimeout(PATIENCE)
        sock.connect((host, port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is None:
            yield RawConnection(sock)
        else:
            with tls.wrap_socket(sock, server_hostname=host) as wrapped:
                yield RawConnection(wrapped)


def request(
    method: str = "GET", target: str = "/", *fields: str, body: bytes = b"", version: str = "1.1", host: str = "test"
) -> bytes:
    """A request as bytes: `fields` are whole header lines; a body gets its Content-Length."""
    lines = [f"{method} {target} HTTP/{version}", *([f"Host: {host}"] if host else []), *fields]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body
