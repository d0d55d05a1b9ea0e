"""How the first of several workers asks the others for their pages (registry/watching/debug.py).

The parent makes a socket for each before it forks: abstract ones, as there may be no folder to write to. So whoever is
on this machine can connect, and a secret that only the workers know comes first. One line asks: the secret and a path.
The answer is a line of JSON (status, media type, size) and the body. The sockets of a worker that dies are its
successor's.
"""

import asyncio
import json
import secrets
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from hmac import compare_digest

from registry.watching.debug import Answer, Debug, Silent

PATIENCE = 3.0
"""Seconds for the answers of all; Prometheus waits for ten."""


class Siblings:
    """Made before the fork. close: in the parent, at the end; a worker's end closes its own copies."""

    def __init__(self, count: int) -> None:
        self._secret = secrets.token_hex(16)
        self._sockets = [_listener() for _ in range(count)]

    def close(self) -> None:
        for sock in self._sockets:
            sock.close()

    async def ask(self, path: str) -> Sequence[Answer]:
        """What all workers but the first answer there. Raises Silent."""
        return await asyncio.gather(*(self._ask(number, path) for number in range(1, len(self._sockets))))

    async def _ask(self, number: int, path: str) -> Answer:
        try:
            async with asyncio.timeout(PATIENCE):
                sock = socket.socket(socket.AF_UNIX)
                sock.setblocking(False)
                sock.connect(self._sockets[number].getsockname())  # at once, as to any socket of this kind
                reader, writer = await asyncio.open_unix_connection(sock=sock)
                try:
                    writer.write(f"{self._secret} {path}\n".encode())
                    head = json.loads(await reader.readline())
                    return Answer(await reader.readexactly(head["size"]), head["type"], head["status"])
                finally:
                    writer.close()
        except (OSError, EOFError, ValueError) as exc:
            raise Silent(f"worker {number} does not answer") from exc

    @asynccontextmanager
    async def answering(self, number: int, debug: Debug) -> AsyncIterator[None]:
        """Inside, this process is worker `number`."""

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                secret, _, path = (await reader.readline()).rstrip(b"\n").decode().partition(" ")
                if compare_digest(secret, self._secret):
                    found = await debug.answer(path)
                    head = json.dumps({"status": found.status, "type": found.media_type, "size": len(found.body)})
                    writer.write(head.encode() + b"\n" + found.body)
                    await writer.drain()
            except (OSError, ValueError):
                pass  # whoever asked has left, or is none of us
            finally:
                writer.close()

        server = await asyncio.start_unix_server(answer, sock=self._sockets[number])
        try:
            yield
        finally:
            server.close()


def _listener() -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind("")  # Linux chooses an abstract name
    sock.listen()
    sock.setblocking(False)
    return sock
