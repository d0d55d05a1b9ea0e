"""A load balancer as simple as they come: TCP, round robin, and a probe of /readyz that decides who gets connections.

It hides nothing: a connection that a backend refuses is closed, and counted.
"""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

PERIOD = 0.1
"""Seconds between two probes of a backend."""
TIMEOUT = 3.0
PIECE = 64 << 10


class Balancer:
    """backends: where the replicas are, by their numbers; changed while it runs. port: its own."""

    def __init__(self, count: int) -> None:
        self.backends: dict[int, int] = {}
        self.ready = [threading.Event() for _ in range(count)]
        self.refused = 0
        self.port = 0
        self._next = 0
        self._pipes: set[asyncio.Task[None]] = set()

    async def run(self, up: threading.Event, stop: asyncio.Event) -> None:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        up.set()
        probes = [asyncio.create_task(self._probe(number)) for number in range(len(self.ready))]
        await stop.wait()
        server.close()
        for task in (*probes, *self._pipes):
            task.cancel()
        await asyncio.gather(*probes, *self._pipes, return_exceptions=True)

    async def _probe(self, number: int) -> None:
        while True:
            if await self._is_ready(self.backends.get(number, 0)):
                self.ready[number].set()
            else:
                self.ready[number].clear()
            await asyncio.sleep(PERIOD)

    async def _is_ready(self, port: int) -> bool:
        with suppress(OSError):
            async with asyncio.timeout(TIMEOUT):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                with writer_closed(writer):
                    writer.write(b"GET /readyz HTTP/1.1\r\nHost: balancer\r\nConnection: close\r\n\r\n")
                    return b" 200 " in await reader.readline()
        return False

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._pipes.add(task)
        task.add_done_callback(self._pipes.discard)
        with writer_closed(writer):
            ready = [number for number, event in enumerate(self.ready) if event.is_set()]
            if not ready:
                self.refused += 1
                return
            self._next += 1
            try:
                port = self.backends[ready[self._next % len(ready)]]
                there = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                self.refused += 1
                return
            with writer_closed(there[1]):
                await asyncio.gather(pipe(reader, there[1]), pipe(there[0], writer))


async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(PIECE):
            writer.write(data)
            await writer.drain()
    writer.close()  # both ways: an end on either side is the end of a connection


@contextmanager
def writer_closed(writer: asyncio.StreamWriter) -> Iterator[None]:
    try:
        yield
    finally:
        writer.close()


@contextmanager
def balancing(count: int) -> Iterator[Balancer]:
    """In a thread."""
    made, up, stop = Balancer(count), threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=lambda: loop.run_until_complete(made.run(up, stop)))
    thread.start()
    up.wait()
    try:
        yield made
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()
