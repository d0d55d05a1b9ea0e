"""The way to one client: what is written to it, what of that has arrived, and how the connection ends.

A connection ends in one of three ways. `close` is for a client that has nothing more to say. `linger` is for one that
is still sending: closing over unread bytes makes the kernel answer with a reset, which destroys what is on its way to
the client, so our side is closed first and the other side is read for a while. `abort` is for one that takes nothing:
`close` would wait for it.
"""

import asyncio
import fcntl
import os
import socket
import struct
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from registry.serving.limits import Limits


class Flow(Protocol):
    """What is needed here of uvicorn's FlowControl, which pauses and resumes both directions."""

    async def drain(self) -> None: ...

    def resume_reading(self) -> None: ...


class DirectWay:
    """The socket below the transport, under a descriptor of its own: loops refuse to watch the transport's."""

    def __init__(self, descriptor: int, loop: asyncio.AbstractEventLoop, is_closing: Callable[[], bool]) -> None:
        self.descriptor, self.loop, self.is_closing = descriptor, loop, is_closing
        self.wake = asyncio.Event()

    async def writable(self) -> None:
        """Until the kernel takes more, or the connection closes."""
        if self.is_closing():
            return
        self.wake.clear()
        self.loop.add_writer(self.descriptor, self.wake.set)
        try:
            await self.wake.wait()
        finally:
            self.loop.remove_writer(self.descriptor)


class Outlet:
    """Stands in for the transport where responses are written.

    still_sending: says whether the client may be in the middle of something that we do not want to read.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        limits: Limits,
        loop: asyncio.AbstractEventLoop,
        *,
        flow: Flow,
        still_sending: Callable[[], bool],
    ) -> None:
        self.transport, self.limits, self.loop = transport, limits, loop
        self.flow, self.still_sending = flow, still_sending
        self.socket: socket.socket | None = transport.get_extra_info("socket")
        self.encrypted = transport.get_extra_info("ssl_object") is not None
        self.way: DirectWay | None = None
        self.sent = self.discarded = 0
        self.lingering = False
        self.timer: asyncio.TimerHandle | None = None

    def write(self, data: bytes) -> None:
        self.sent += len(data)
        self.transport.write(data)

    async def drain(self) -> None:
        """Until the client has taken enough that more may be written, or is gone."""
        await self.flow.drain()

    async def flush(self) -> None:
        """Until all that was written is with the kernel."""
        self.transport.set_write_buffer_limits(0)
        try:
            await self.flow.drain()
        finally:
            if not self.transport.is_closing():
                self.transport.set_write_buffer_limits()

    @contextmanager
    def direct(self) -> Iterator[DirectWay]:
        """A way past the transport, which must hold nothing (`flush`) and get nothing meanwhile."""
        assert self.socket is not None
        descriptor = os.dup(self.socket.fileno())
        self.way = DirectWay(descriptor, self.loop, self.is_closing)
        try:
            yield self.way
        finally:
            self.way = None
            os.close(descriptor)

    def is_closing(self) -> bool:
        return self.transport.is_closing()

    def lost(self) -> None:
        """The connection is gone: whoever waits to write stops waiting."""
        self.stay_open()
        if self.way:
            self.way.wake.set()

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
        self.flow.resume_reading()
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
