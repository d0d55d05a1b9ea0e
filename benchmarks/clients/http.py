"""As much HTTP/1.1 as a load client needs, on a plain socket."""

import socket
import struct
from urllib.parse import urlsplit

from . import LoadFailed

END = b"\r\n\r\n"
PATIENCE = struct.pack("ll", 120, 0)
"""Seconds, as the kernel takes them: a time-out of Python's own would make the socket non-blocking for sendfile."""


def connect(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, PATIENCE)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, PATIENCE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def request(method: str, path: str, port: int, *lines: str) -> bytes:
    """The head of a request."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", *lines, "", ""]).encode()


def status_of(head: bytes) -> int:
    return int(head[9:12])


def header(head: bytes, name: str) -> str | None:
    for line in head.split(b"\r\n")[1:]:
        key, _, value = line.partition(b":")
        if key.strip().lower() == name.lower().encode():
            return value.strip().decode()
    return None


def content_length(head: bytes) -> int:
    """Raises LoadFailed: without a length nobody can say whether the answer was complete."""
    length = header(head, "content-length")
    if length is None:
        raise LoadFailed(f"no Content-Length in {head[:200]!r}")
    return int(length)


def read_head(sock: socket.socket) -> tuple[bytes, bytes]:
    """The head of an answer, and what came with it of the body."""
    received = b""
    while END not in received:
        more = sock.recv(65536)
        if not more:
            raise LoadFailed(f"the connection was closed after {received[:200]!r}")
        received += more
    head, _, body = received.partition(END)
    return head, body


def read_answer(sock: socket.socket, expected: int) -> tuple[bytes, bytes]:
    """An answer with a Content-Length: head and body. Raises LoadFailed when the status is another one."""
    head, body = read_head(sock)
    length = content_length(head)
    while len(body) < length:
        more = sock.recv(length - len(body))
        if not more:
            raise LoadFailed("the connection was closed within a body")
        body += more
    if status_of(head) != expected:
        raise LoadFailed(f"{status_of(head)} instead of {expected}: {body[:300]!r}")
    return head, body


def path_of(location: str) -> str:
    """What to put into the next request, of a Location that may be absolute."""
    parts = urlsplit(location)
    return parts.path + (f"?{parts.query}" if parts.query else "")
