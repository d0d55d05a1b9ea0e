"""The way from one client past the event loop: a thread that stores a body receives it itself.

Through the loop a body is copied three times between socket and file and wakes the loop for each 256 KiB; a thread
that takes it from the socket uses one buffer again and again. `storage/direct.py` says what a user of this may do.

Rules:
- While an inlet is open the transport reads nothing. It is closed before the transport reads on, and after the last
  thread that uses it: a descriptor that is closed under a running receive may by then be another client's.
- It takes this body and not a byte of the next request.
- Threads take what is there; only the loop waits for a client, so stalled ones hold no thread.
"""

import asyncio
import fcntl
import os
import socket
import sys
import termios
from contextlib import suppress

from starlette.requests import ClientDisconnect

EXTENSION = "registry.serving.inlet"
"""In `scope["extensions"]` where a request has a body that can be taken directly: a function that opens the way."""

WORTH_WHILE = 1 << 20
"""Bytes that have to be missing: below, opening and closing costs more than it saves."""

ENOUGH = 512 << 10
"""Bytes that the kernel gathers before it wakes us."""


class Inlet:
    """See the module. first: bytes of the body that the loop has received; left: bytes that are still to come."""

    def __init__(self, descriptor: int, loop: asyncio.AbstractEventLoop, first: list[bytes], left: int) -> None:
        self.first, self.left = first, left
        self.taken = 0
        self.waiting = False  # for the client
        self._loop = loop
        # a descriptor of its own: loops refuse to watch the transport's, and the transport may close meanwhile
        self._socket = socket.socket(fileno=os.dup(descriptor))
        self._wake = asyncio.Event()
        self._rest: int | None = None  # of what had come when the connection was given up
        self.lost = False

    def receive(self, buffer: memoryview) -> int:
        """Fill buffer with what is there. Returns the count. What ends the connection is told by `ready`."""
        size, wanted = 0, min(len(buffer), self.left)
        if self._rest is not None:
            wanted = min(wanted, self._rest)
        try:
            while size < wanted:
                more = self._socket.recv_into(buffer[size:wanted])
                if not more:
                    self.lost = True
                    break
                size += more
        except BlockingIOError:
            pass
        except OSError:
            self.lost = True
        self.left -= size
        self.taken += size
        if self._rest is not None:
            self._rest = self._rest - size if size else 0
        return size

    async def ready(self) -> None:
        """Until there is more to receive. Raises ClientDisconnect, once all has been received that had come."""
        if not self.lost:
            self._wake.clear()
            self._wake_at(min(ENOUGH, self.left))
            self.waiting = True
            self._loop.add_reader(self._socket.fileno(), self._wake.set)
            try:
                await self._wake.wait()
            finally:
                self._loop.remove_reader(self._socket.fileno())
                self.waiting = False
        if self.lost and not self._rest:
            raise ClientDisconnect

    @property
    def arrived(self) -> int:
        """Bytes received, by us or by the kernel, which gathers some before it wakes us."""
        return self.taken + self._queued()

    def _queued(self) -> int:
        return int.from_bytes(fcntl.ioctl(self._socket, termios.FIONREAD, bytes(4)), sys.byteorder)

    def lose(self) -> None:
        """The connection is over, though our descriptor would keep it alive: nobody waits for more of it."""
        with suppress(OSError):
            self._rest = self._queued()
            self._socket.shutdown(socket.SHUT_RDWR)
        self.lost = True
        self._wake.set()

    def close(self) -> None:
        self._wake_at(1)
        self._socket.close()

    def _wake_at(self, size: int) -> None:
        with suppress(OSError):  # then we are woken more often, and that is all
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)
