"""Many downloads at once, at little cost: one thread, epoll, and bodies that the kernel throws away (MSG_TRUNC).

spec: port, clients, heads (requests, taken in turn), method, status, size (of each body), and either requests (of each
client) or seconds. Result: seconds, bytes of bodies, requests.
"""

import select
import socket
import time
from typing import Any

from . import LoadFailed, read_spec, report
from .http import END, connect, content_length, status_of

# recv_into wants room for what it is asked for; with MSG_TRUNC the kernel never touches it
ROOM = bytearray(4 << 20)
PATIENCE_SECONDS = 120


class Download:
    """One client: a connection, and where its answer stands."""

    def __init__(self, spec: dict[str, Any], number: int) -> None:
        self.sock = connect(spec["port"])
        self.sock.setblocking(False)
        self._heads = [head.encode() for head in spec["heads"]]
        self._turn = number
        self._status: int = spec["status"]
        self._size: int = 0 if spec["method"] == "HEAD" else spec["size"]
        self._has_body: bool = spec["method"] != "HEAD"
        self._head = b""
        self._remaining: int | None = None
        self.done = 0

    def ask(self) -> None:
        self.sock.send(self._heads[self._turn % len(self._heads)])
        self._turn += 1
        self._remaining = None

    def take(self) -> bool:
        """Read what is there; True at the end of an answer."""
        if self._remaining is None:
            if not self._take_head():
                return False
        else:
            got = self.sock.recv_into(ROOM, min(self._remaining, len(ROOM)), socket.MSG_TRUNC)
            if got == 0:
                raise LoadFailed(f"the connection was closed {self._remaining} bytes before the end")
            self._remaining -= got
        if self._remaining:
            return False
        self.done += 1
        return True

    def _take_head(self) -> bool:
        got = self.sock.recv(65536)
        if not got:
            raise LoadFailed(f"the connection was closed after {self._head[:200]!r}")
        self._head += got
        at = self._head.find(END)
        if at < 0:
            return False
        head, body = self._head[:at], len(self._head) - at - len(END)
        self._head = b""
        if status_of(head) != self._status:
            raise LoadFailed(f"{head[:200]!r}: not the expected status {self._status}")
        if self._has_body and content_length(head) != self._size:
            raise LoadFailed(f"{content_length(head)} bytes instead of {self._size}")
        if body > self._size:
            raise LoadFailed(f"{body} bytes of body instead of {self._size}")
        self._remaining = self._size - body
        return True


def run(spec: dict[str, Any]) -> dict[str, Any]:
    downloads = [Download(spec, number) for number in range(spec["clients"])]
    try:
        seconds = run_all(downloads, spec.get("requests"), spec.get("seconds"))
    finally:
        for download in downloads:
            download.sock.close()
    requests = sum(download.done for download in downloads)
    size = 0 if spec["method"] == "HEAD" else spec["size"]
    return {"seconds": seconds, "bytes": requests * size, "requests": requests}


def run_all(downloads: list[Download], requests: int | None, limit: float | None) -> float:
    """Until each has made so many requests, or finished the one in which the time ran out. Returns seconds."""
    by_number = {download.sock.fileno(): download for download in downloads}
    with select.epoll() as poll:
        for number in by_number:
            poll.register(number, select.EPOLLIN)
        start = time.perf_counter()
        for download in downloads:
            download.ask()
        running = len(downloads)
        while running:
            ready = poll.poll(PATIENCE_SECONDS)
            if not ready:
                raise LoadFailed(f"not a byte in {PATIENCE_SECONDS} s, {running} answers are missing")
            for number, _ in ready:
                download = by_number[number]
                if not download.take():
                    continue
                if download.done == requests or (limit is not None and time.perf_counter() - start >= limit):
                    poll.unregister(number)
                    running -= 1
                else:
                    download.ask()
        return time.perf_counter() - start


if __name__ == "__main__":
    report(run(read_spec()))
