"""An HTTP relay in front of an S3 server: it counts calls, injects faults, and makes the way longer and narrower.

Heads pass as they came, Host included, so that signatures hold; bodies stream. In a test's own event loop, in a
thread, or as a process of its own (benchmarks):

    async with Relay(server.endpoint) as relay: ...         relay.endpoint, relay.calls, relay.inject(Fault("answer"))
    with relaying(server.endpoint, latency=0.02) as relay: ...
    python -m tests.s3.relay ENDPOINT --latency 0.02 --rate 90e6         prints its endpoint; its counts at the end
"""

import argparse
import asyncio
import signal
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.utils import formatdate
from typing import Literal, Self
from urllib.parse import urlsplit

from tests.s3 import http1
from tests.s3.calls import Call, call_of
from tests.s3.http1 import Broken, Head

Kind = Literal[
    "answer",  # an error, and the store was not asked
    "answer-after",  # the store did it, and an error is what the client sees
    "reset-before",  # the store was not asked, and the connection is reset
    "reset-after",  # the store did it, and the answer is lost
    "stall",  # nothing comes, and the store was not asked
    "stall-after",  # the store did it, and nothing comes
    "stall-body",  # half of the answer's body, and then nothing
    "short",  # half of the answer's body, and the end of the connection
    "broken",  # half of the answer's body, and a reset
    "cut",  # the store gets half of the request's body, and a reset; the client gets a reset
    "dead",  # the store gets the request's head alone, and an end; the client gets a reset
]
BODY_KINDS = frozenset({"stall-body", "short", "broken"})
FOREVER = 1 << 60


@dataclass
class Fault:
    """call: the how-manieth of the calls that count is hit, and `times` of them in all.

    operations: those which count (None: all); where: which of them. status, code, body: of kind answer; body: None
    for S3's usual error. counted, fired: how many calls have counted, and have been hit.
    """

    kind: Kind
    call: int = 1
    times: int = 1
    operations: frozenset[str] | None = None
    where: Callable[[Call], bool] | None = None
    status: int = 503
    code: str = "SlowDown"
    body: bytes | None = None
    counted: int = 0
    fired: int = 0

    def hits(self, call: Call) -> bool:
        if (self.operations is not None and call.operation not in self.operations) or (
            self.where is not None and not self.where(call)
        ):
            return False
        self.counted += 1
        hit = self.call <= self.counted < self.call + self.times
        self.fired += hit
        return hit

    def answer(self) -> bytes:
        """S3's error as it stands on the wire."""
        if self.body is not None:
            return self.body
        return (
            f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{self.code}</Code><Message>injected</Message>'
            "<Resource>/</Resource><RequestId>INJECTED</RequestId></Error>"
        ).encode()


def slow_down(call: int = 1, times: int = 1) -> Fault:
    return Fault("answer", call, times)


def denied(call: int = 1, times: int = 1, code: str = "AccessDenied") -> Fault:
    """code: AccessDenied, RequestTimeTooSkewed, InvalidAccessKeyId, SignatureDoesNotMatch: all 403."""
    return Fault("answer", call, times, status=403, code=code)


def expired(call: int = 1, times: int = 1) -> Fault:
    return Fault("answer", call, times, status=400, code="ExpiredToken")


def no_bucket(call: int = 1, times: int = 1) -> Fault:
    return Fault("answer", call, times, status=404, code="NoSuchBucket")


class Relay:
    """target: the server's endpoint. latency: seconds before a request goes on. rate: bytes/s per connection.

    without: headers, in lower case, that the server never hears of; one that checks signatures refuses what lacks them.
    calls: all that have come, in the order in which their heads came. connections: how many were ever accepted.
    """

    def __init__(
        self, target: str, *, latency: float = 0.0, rate: float | None = None, without: frozenset[str] = frozenset()
    ) -> None:
        parts = urlsplit(target)
        assert parts.hostname
        assert parts.port
        self._target = (parts.hostname, parts.port)
        self.latency = latency
        self.rate = rate
        self.without = without
        self.calls: list[Call] = []
        self.connections = 0
        self.faults: list[Fault] = []
        self._running: set[asyncio.Task[None]] = set()

    # For tests

    def inject(self, fault: Fault) -> Fault:
        self.faults.append(fault)
        return fault

    def clear(self) -> None:
        """No more faults."""
        self.faults.clear()

    def forget(self) -> None:
        """Count from here."""
        self.calls.clear()

    def counts(self) -> Counter[str]:
        """Calls by operation."""
        return Counter(call.operation for call in self.calls)

    @contextmanager
    def counting(self) -> Iterator[list[Call]]:
        """The calls of the block, once it has ended."""
        start, found = len(self.calls), list[Call]()
        yield found
        found += self.calls[start:]

    # Life

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=http1.LIMIT)
        host, port = self._server.sockets[0].getsockname()
        self.endpoint = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        tasks = list(self._running)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.get_running_loop().create_task(Connection(self, reader, writer, self._target).serve())
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    def fault_of(self, call: Call) -> Fault | None:
        """The first that is due; all of them count."""
        due = [fault for fault in self.faults if fault.hits(call)]
        return due[0] if due else None


class Connection:
    """One client's connection, and the one to the server that goes with it."""

    def __init__(
        self, relay: Relay, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: tuple[str, int]
    ) -> None:
        self._relay, self._reader, self._writer, self._target = relay, reader, writer, target
        self._up: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._paid = 0.0

    async def serve(self) -> None:
        try:
            while (head := await http1.read_head(self._reader)) is not None and await self._relay_one(head):
                pass
        except (Broken, ConnectionError):
            reset(self._writer)  # whichever side broke, the other one learns of it
        finally:
            self._writer.close()
            self._hang_up()

    async def _relay_one(self, head: Head) -> bool:
        """Returns whether the connection can be used again."""
        call = call_of(head)
        self._relay.calls.append(call)
        fault = self._relay.fault_of(call)
        if self._relay.latency:
            await asyncio.sleep(self._relay.latency)
        head = http1.without(head, self._relay.without) if self._relay.without else head
        if fault is not None:
            call.fault = fault.kind
            return await self._fail(head, call, fault)
        return await self._forward(head, call)

    async def _fail(self, head: Head, call: Call, fault: Fault) -> bool:
        if fault.kind in ("cut", "dead"):
            await self._send_part(head, fault.kind)
        elif fault.kind in ("answer", "stall", "reset-before"):
            await self._swallow(head)
        else:
            return await self._forward(head, call, fault)
        return await self._end(head, call, fault)

    async def _end(self, head: Head, call: Call, fault: Fault) -> bool:
        """What the client gets where none of the store's answer is for it."""
        if fault.kind in ("stall", "stall-after", "stall-body"):
            await self._reader.read(1)  # until the client gives up
            return False
        if fault.kind not in ("answer", "answer-after"):
            reset(self._writer)
            return False
        call.status = fault.status
        data = fault.answer()
        lines = [f"HTTP/1.1 {fault.status} Injected", "Content-Type: application/xml", f"Content-Length: {len(data)}"]
        lines += [f"Date: {formatdate(usegmt=True)}", "", ""]
        self._writer.write("\r\n".join(lines).encode() + (data if call.method != "HEAD" else b""))
        await self._writer.drain()
        return not head.closes

    async def _forward(self, head: Head, call: Call, fault: Fault | None = None) -> bool:
        up_reader, up_writer = await self._upstream()
        sending = asyncio.create_task(self._send(head, up_writer))
        try:
            answer = await self._answer(up_reader)
            call.stored = answer.status
            pieces = http1.body(up_reader, answer) if http1.has_body(answer, call.method) else _nothing()
            if fault is None:
                await self._deliver(call, answer, pieces)
                # the store may answer, and stop reading, before all of the request was sent
                await asyncio.wait({sending}, timeout=1)
                return sending.done() and sending.exception() is None and not (head.closes or answer.closes)
            if fault.kind in BODY_KINDS and http1.has_body(answer, call.method):
                await self._deliver(call, answer, http1.half(pieces, answer))
                return await self._break_off(fault)
            async for _ in pieces:
                pass
            return await self._end(head, call, fault)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    async def _break_off(self, fault: Fault) -> bool:
        self._hang_up()
        if fault.kind == "stall-body":
            await self._reader.read(1)
        elif fault.kind == "broken":
            reset(self._writer)
        return False

    async def _answer(self, up_reader: asyncio.StreamReader) -> Head:
        while True:
            answer = await http1.read_head(up_reader)
            if answer is None:
                raise Broken
            if answer.status >= 200:
                return answer
            self._writer.write(answer.raw)  # 100 Continue

    async def _deliver(self, call: Call, answer: Head, pieces: AsyncIterator[bytes]) -> None:
        call.status = answer.status
        self._writer.write(answer.raw)
        async for piece in pieces:
            self._writer.write(piece)
            await self._writer.drain()
            call.delivered += len(piece)
            await self._pace(len(piece))
        await self._writer.drain()

    async def _send(self, head: Head, up_writer: asyncio.StreamWriter) -> None:
        try:
            up_writer.write(head.raw)
            async for piece in http1.body(self._reader, head):
                up_writer.write(piece)
                await up_writer.drain()
                await self._pace(len(piece))
        except Broken:
            self._hang_up()  # the client went: the store learns of it, or it would wait for the rest
            raise

    async def _send_part(self, head: Head, kind: Kind) -> None:
        """dead: the head, and an end, as of a client that closed; cut: half of the body, too, and a reset."""
        _, up_writer = await self._upstream()
        up_writer.write(head.raw)
        if kind == "cut":
            async for piece in http1.half(http1.body(self._reader, head), head):
                up_writer.write(piece)
                await up_writer.drain()
            await self._until_written(up_writer)
            reset(up_writer)
        else:
            await self._until_written(up_writer)
            up_writer.close()
        self._up = None

    async def _until_written(self, writer: asyncio.StreamWriter) -> None:
        writer.transport.set_write_buffer_limits(0)
        await writer.drain()

    async def _swallow(self, head: Head) -> None:
        if head.fields.get("expect", "").lower() == "100-continue":
            self._writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        async for _ in http1.body(self._reader, head):
            pass

    async def _pace(self, size: int) -> None:
        """Wait as long as `size` bytes take at the connection's rate."""
        if self._relay.rate:
            now = time.monotonic()
            self._paid = max(now, self._paid) + size / self._relay.rate
            await asyncio.sleep(self._paid - now)

    async def _upstream(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._up is not None and (self._up[0].at_eof() or self._up[1].is_closing()):
            self._hang_up()
        if self._up is None:
            self._up = await asyncio.open_connection(*self._target, limit=http1.LIMIT)
        return self._up

    def _hang_up(self) -> None:
        if self._up is not None:
            self._up[1].transport.abort()
            self._up = None


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection with RST; what has not been sent is lost."""
    with suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""


@contextmanager
def relaying(target: str, *, latency: float = 0.0, rate: float | None = None) -> Iterator[Relay]:
    """A relay in a thread of its own, for tests that are no coroutines."""
    relay, started = Relay(target, latency=latency, rate=rate), threading.Event()
    loop = asyncio.new_event_loop()
    ending = asyncio.Event()

    async def run() -> None:
        async with relay:
            started.set()
            await ending.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()), name="relay")
    thread.start()
    started.wait()
    try:
        yield relay
    finally:
        loop.call_soon_threadsafe(ending.set)
        thread.join()
        loop.close()


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.s3.relay", description=__doc__.splitlines()[0])
    parser.add_argument("endpoint", help="of the S3 server, such as http://127.0.0.1:8333")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds per request")
    parser.add_argument("--rate", type=float, default=None, help="bytes per second and connection")
    given = parser.parse_args()
    ending = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ending.set)
    async with Relay(given.endpoint, latency=given.latency, rate=given.rate) as relay:
        print(relay.endpoint, flush=True)
        await ending.wait()
    for operation, count in relay.counts().most_common():
        print(f"{count:8} {operation}", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
