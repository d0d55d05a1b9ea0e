"""A longer and narrower way to a server: seconds before each request, and bytes a second per connection.

It must not be the limit itself: bytes go from socket to socket through a pipe of the kernel (splice), and Python only
counts them. It reads no HTTP: what a client sends after it was answered is a request, and the first of it waits.

    python -m benchmarks.relay PORT --latency 0.02 --rate 90e6          prints the port on which it listens
"""

import argparse
import fcntl
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

PIPE = 1 << 20
CATCH_UP = 0.02
"""Seconds that sleep() may have taken too long, and that the next bytes make up for."""


class Connection:
    """Two threads, one for each direction. rate: bytes a second and direction; None for no bound."""

    def __init__(self, client: socket.socket, target: int, latency: float, rate: float | None) -> None:
        self._client = client
        self._server = socket.create_connection(("127.0.0.1", target))
        self._latency = latency
        self._rate = rate
        self._answered = True
        for sock in (self._client, self._server):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def live(self) -> None:
        """Until both directions have ended."""
        with self._client, self._server:
            back = threading.Thread(target=self._run, args=(self._server, self._client), daemon=True)
            back.start()
            self._run(self._client, self._server)
            back.join()

    def _run(self, source: socket.socket, sink: socket.socket) -> None:
        end, begin = os.pipe()
        try:
            fcntl.fcntl(begin, fcntl.F_SETPIPE_SZ, PIPE)
            self._pass_on(source, sink, end, begin)
        except OSError:
            pass  # whichever side broke, both learn of it below
        finally:
            os.close(end)
            os.close(begin)
            for sock in (source, sink):
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def _pass_on(self, source: socket.socket, sink: socket.socket, end: int, begin: int) -> None:
        paid = 0.0
        while size := os.splice(source.fileno(), begin, PIPE):
            if source is self._server:
                self._answered = True
            elif self._answered:
                self._answered = False
                time.sleep(self._latency)
            left = size
            while left:
                left -= os.splice(end, sink.fileno(), left)
            if self._rate:
                now = time.monotonic()
                paid = max(now - CATCH_UP, paid) + size / self._rate
                if paid > now:
                    time.sleep(paid - now)


def serve(listener: socket.socket, target: int, latency: float, rate: float | None) -> None:
    """Until the listener is closed."""
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        try:
            connection = Connection(client, target, latency, rate)
        except OSError:
            client.close()
        else:
            threading.Thread(target=connection.live, daemon=True).start()


@contextmanager
def relaying(target: int, latency: float = 0.0, rate: float | None = None) -> Iterator[int]:
    """A relay in a process of its own; the port on which it listens."""
    command = [sys.executable, "-m", "benchmarks.relay", str(target), "--latency", str(latency)]
    command += ["--rate", str(rate)] if rate else []
    # the parent-death signal covers what `finally` cannot: a harness that is killed itself
    process = subprocess.Popen(["setpriv", "--pdeathsig", "TERM", *command], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.terminate()
        process.communicate()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.relay")
    parser.add_argument("port", type=int, help="of the server, on this machine")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds per request")
    parser.add_argument("--rate", type=float, default=None, help="bytes per second and connection")
    given = parser.parse_args()
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        sys.stdout.write(f"{listener.getsockname()[1]}\n")
        sys.stdout.flush()
        serve(listener, given.port, given.latency, given.rate)


if __name__ == "__main__":
    main()
