"""The way to one client: what is written to it, what of that has arrived, and how the connection ends.

A connection ends in one of three ways. `close` is for a client that has nothing more to say. `linger` is for one that
is still sending: closing over unread bytes makes the kernel answer with a reset, which destroys what is on its way to
the client, so our side is closed first and the other side is read for a while. `abort` is for one that takes nothing:
`close` would wait for it.
"""

import asyncio
import fcntl
import socket
import struct
import sys
import termios
from collections.abc import Callable

from registry.limits import Limits


class Outlet:
    """Stands in for the transport where responses are written.

    still_sending: says whether the client may be in the middle of something that we do not want to read.
    resume: makes the transport read again, if that was paused.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        limits: Limits,
        loop: asyncio.AbstractEventLoop,
        *,
        still_sending: Callable[[], bool],
        resume: Callable[[], None],
    ) -> None:
        self.transport, self.limits, self.loop = transport, limits, loop
        self.still_sending, self.resume = still_sending, resume
        self.socket: socket.socket | None = transport.get_extra_info("socket")
        self.sent = self.discarded = 0
        self.lingering = False
        self.timer: asyncio.TimerHandle | None = None

    def write(self, data: bytes) -> None:
        self.sent += len(data)
        self.transport.write(data)

    def is_closing(self) -> bool:
        return self.transport.is_closing()

    def close(self) -> None:
        """End the connection once everything written has left."""
        if self.still_sending():
            self.linger()
        else:
            self.transport.close()

    def linger(self) -> None:
        """Say that nothing more comes; the client closes, or a limit ends it. What arrives goes to `discard`."""
        if self.lingering or self.transport.is_closing():
            return
        self.lingering = True
        if self.transport.can_write_eof():  # not with TLS
            self.transport.write_eof()
        self.resume()
        self.close_later()

    def discard(self, size: int) -> None:
        """Count bytes that nobody wants."""
        self.discarded += size
        if self.discarded > self.limits.discard_bytes:
            self.transport.close()

    def close_later(self) -> None:
        self.timer = self.loop.call_later(self.limits.discard_timeout, self.transport.close)

    def stay_open(self) -> None:
        """Undo close_later."""
        if self.timer:
            self.timer.cancel()
            self.timer = None

    def abort(self) -> None:
        if self.socket and self.unsent():
            at_once = struct.pack("ii", 1, 0)  # by a reset, so that the kernel drops its part, too
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
        self.transport.abort()

    def unsent(self) -> int:
        """Bytes written that the client has not acknowledged: ours and the kernel's."""
        descriptor = self.socket.fileno() if self.socket else -1
        if descriptor < 0:
            return 0
        queued = fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4))
        return self.transport.get_write_buffer_size() + int.from_bytes(queued, sys.byteorder)
