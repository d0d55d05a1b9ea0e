"""Sending a part of a file to a client without taking it through Python.

The kernel moves the bytes from the page cache to the socket, at most STEP of them in one turn of the loop, so that many
clients share it. What is not in the page cache is read by a thread first, so that the loop never waits for a disk. With
TLS the bytes have to pass through here: a thread reads them in large pieces.

Rules: a thread touches the file only, never the socket, so a call that outlives its request harms nobody. The socket is
used through a duplicate, as the loops refuse to watch a descriptor that belongs to a transport.
"""

import asyncio
import errno
import os
from concurrent.futures import ThreadPoolExecutor

from registry.serving.outlet import Outlet

STEP = 512 << 10
"""Bytes. sendfile goes on while the client empties the buffer (one call sent 512 MiB): the count bounds a turn."""

TLS_STEP = 256 << 10
READ_AHEAD = 4 << 20
"""Bytes of a cold file that a thread reads at a time."""

PROBE_EVERY = 128 << 10
THREADS = 8

UNREACHABLE = frozenset((errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.ENOTCONN))
"""What sockets say of a vanished client, besides Python's ConnectionErrors. listeners.py asks for ETIMEDOUT."""


class TruncatedFile(OSError):
    """The file ends before the part that was announced: somebody has cut it."""

    def __init__(self) -> None:
        super().__init__("a file became shorter while it was sent")


class FileSender:
    """Sends files for all connections of a server. `close` ends its threads."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._threads = ThreadPoolExecutor(THREADS, "filesend")
        self._probe = bytearray(1)

    async def send(self, outlet: Outlet, fd: int, offset: int, count: int) -> None:
        """Send count bytes of a file from offset on, behind what is written already. Raises TruncatedFile.

        Returns early once the connection is closing. fd must stay open until this has returned.
        """
        try:
            if outlet.socket is None or outlet.encrypted:
                await self._send_read(outlet, fd, offset, offset + count)
            else:
                await self._send_by_kernel(outlet, fd, offset, offset + count)
        except ConnectionError:
            outlet.abort()  # the client has left; ends as silently as uvicorn's own send does

    async def _send_read(self, outlet: Outlet, fd: int, offset: int, end: int) -> None:
        while offset < end and not outlet.is_closing():
            size = min(end - offset, TLS_STEP)
            data = await self._loop.run_in_executor(self._threads, os.pread, fd, size, offset)
            if not data:
                raise TruncatedFile
            if outlet.is_closing():
                return
            outlet.write(data)
            offset += len(data)
            await outlet.drain()

    async def _send_by_kernel(self, outlet: Outlet, fd: int, offset: int, end: int) -> None:
        await outlet.flush()
        if outlet.is_closing():
            return  # its descriptor is closed, or somebody else's by now
        with outlet.direct() as way:
            read = 0  # cold: up to here a thread has read
            while offset < end and not outlet.is_closing():
                size = min(end - offset, STEP)
                if offset + size > read and (read or not self._is_cached(fd, offset, size)):
                    read = min(offset + READ_AHEAD, end)  # once cold, a thread stays ahead until the end
                    await self._loop.run_in_executor(self._threads, _read, fd, offset, read)
                    if outlet.is_closing():
                        return
                sent = _sendfile(way.descriptor, fd, offset, size)
                offset += sent
                outlet.sent += sent
                # others come first in any case
                await (asyncio.sleep(0) if sent == size else way.writable())

    def _is_cached(self, fd: int, offset: int, size: int) -> bool:
        """Looks at some pages, without waiting. False where the filesystem cannot say (tmpfs, overlayfs)."""
        try:
            places = (*range(offset, offset + size, PROBE_EVERY), offset + size - 1)
            return all(os.preadv(fd, [self._probe], place, os.RWF_NOWAIT) for place in places)
        except OSError:
            return False

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def _read(fd: int, offset: int, end: int) -> None:
    """Bring a part of a file into the page cache."""
    scratch = bytearray(256 << 10)
    while offset < end and (size := os.preadv(fd, [scratch], offset)):
        offset += size


def _sendfile(sock: int, fd: int, offset: int, size: int) -> int:
    """Bytes that the socket has taken; 0 where it is full. Raises TruncatedFile; ConnectionError without a client."""
    try:
        sent = os.sendfile(sock, fd, offset, size)
    except BlockingIOError:
        return 0
    except OSError as exc:
        if exc.errno in UNREACHABLE:
            raise ConnectionResetError from exc
        raise
    if not sent:
        raise TruncatedFile
    return sent
