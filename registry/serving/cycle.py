"""One request of a connection and its response: uvicorn's cycle, with the body in the pieces that the parser gave.

Private parts of uvicorn are touched here as in registry/serving/protocol.py, under its rules.
"""

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from uvicorn._types import ASGI3Application, ASGIReceiveEvent, ASGISendEvent, HTTPScope, Scope
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from registry.responses import ResponseBroken
from registry.serving import framing, refusals
from registry.serving.heads import response_head
from registry.serving.inlet import Inlet

if TYPE_CHECKING:
    from registry.serving.protocol import RegistryProtocol

ZERO_COPY_SEND = "http.response.zerocopysend"

JOINED = 64 << 10
"""Bytes: up to here it is cheaper to copy a body behind its head than to write them one after the other."""


class RegistryCycle(RequestResponseCycle):
    """One request and its response. The body is kept as the pieces that the parser gave: no copy before the last."""

    def __init__(self, protocol: "RegistryProtocol", scope: HTTPScope, *, body_length: int | None, keep_alive: bool):
        super().__init__(
            scope=scope,
            transport=protocol.outlet,  # type: ignore[arg-type] # it has the three methods that are used
            flow=protocol.flow,
            logger=protocol.logger,
            access_logger=protocol.access_logger,
            access_log=False,  # one access log, written by the application, which knows the user
            default_headers=protocol.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=framing.expects_continue(scope["http_version"], protocol.headers),
            keep_alive=keep_alive,
            on_response=protocol.on_response_complete,
        )
        self.limits = protocol.limits
        self.outlet, self.files = protocol.outlet, protocol.files
        self.body_left = body_length
        self.chunks: list[bytes] = []
        self.held = 0
        self.inlet: Inlet | None = None
        self.delivered = False
        self.head = b""  # of the response, until its first body is there

    def feed(self, chunk: bytes) -> None:
        self.chunks.append(chunk)
        self.held += len(chunk)
        if self.body_left is not None:
            self.body_left -= len(chunk)
        if self.held >= self.limits.body_high_water:
            self.flow.pause_reading()
        self.message_event.set()

    def end_body(self) -> None:
        self.more_body = False
        self.message_event.set()

    def lose(self) -> None:
        """The rest of the request will not come, and nobody waits for the response."""
        if not self.response_complete:
            self.disconnected = True
        if self.inlet:
            self.inlet.lose()
        self.message_event.set()

    async def receive(self) -> ASGIReceiveEvent:
        """What arrived before a disconnect is delivered first: an upload can go on from there."""
        self.send_continue()
        while not (self.disconnected or self.response_complete or self.deliverable):
            self.resume_reading()
            self.message_event.clear()
            await self.message_event.wait()
        if self.response_complete or not self.deliverable:
            return {"type": "http.disconnect"}
        pieces, self.delivered = self.take(), not self.more_body
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self.resume_reading()
        return {"type": "http.request", "body": body, "more_body": self.more_body}

    def take(self) -> list[bytes]:
        """What has arrived and nobody has."""
        pieces, self.chunks, self.held = self.chunks, [], 0
        return pieces

    @property
    def deliverable(self) -> bool:
        return bool(self.chunks) or not (self.more_body or self.delivered)

    def resume_reading(self) -> None:
        if not self.inlet and not self.transport.is_closing():  # uvloop raises on a closed transport
            self.flow.resume_reading()

    def send_continue(self) -> None:
        if self.waiting_for_100_continue and not self.transport.is_closing():
            self.waiting_for_100_continue = False
            if self.more_body and not self.chunks:
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    async def send(self, message: ASGISendEvent) -> None:
        """Takes what uvicorn's own takes, and writes head and body at once: each write is a call into the kernel.

        "The protocol server must not start sending the response [...] until it has received at least one Response Body
        event" (ASGI, "Response Start").
        """
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        kind = message["type"]
        if kind not in (fitting := self.fitting_messages()):
            raise RuntimeError(f"an application can only send {' or '.join(fitting) or 'nothing'} here, not {kind}")
        if message["type"] == "http.response.start":
            self.start_response(message["status"], message.get("headers", ()))
            return
        body = b""
        if message["type"] == "http.response.body":
            body = message.get("body", b"")
        else:
            await self.send_file(message)
        if not self.disconnected:
            self.send_body(body, more=bool(message.get("more_body", False)))

    def fitting_messages(self) -> tuple[str, ...]:
        if self.response_complete:
            return ()
        return ("http.response.body", ZERO_COPY_SEND) if self.response_started else ("http.response.start",)

    def start_response(self, status: int, fields: Iterable[tuple[bytes, bytes]]) -> None:
        if self.more_body and not self.will_drain():
            self.keep_alive = False
        is_head = self.scope["method"] == "HEAD"
        head = response_head(
            status, [*self.default_headers, *fields], keep_alive=self.keep_alive, chunkable=not is_head
        )
        self.response_started, self.waiting_for_100_continue = True, False
        self.keep_alive = not head.ends
        self.head = head.data
        self.chunked_encoding = head.length is None and not is_head
        self.expected_content_length = 0 if is_head else head.length or 0

    def send_body(self, body: bytes, *, more: bool) -> None:
        head, self.head = self.head, b""
        if self.scope["method"] == "HEAD":
            body = b""
        elif self.chunked_encoding:
            body = (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + (b"" if more else b"0\r\n\r\n")
        else:
            self.expected_content_length -= len(body)
            if self.expected_content_length < 0:
                raise RuntimeError("the body of a response is longer than Content-Length")
            if self.expected_content_length and not more:
                raise RuntimeError("the body of a response is shorter than Content-Length")
        if head and len(body) > JOINED:
            self.outlet.write(head)
            self.outlet.write(body)
        elif data := head + body if head else body:
            self.outlet.write(data)
        if not more:
            self.response_complete = True
            self.message_event.set()
            if not self.keep_alive:
                self.transport.close()
            self.on_response()

    async def send_file(self, message: Mapping[str, Any]) -> None:
        """Part of a file as part of the body (ASGI, "Zero Copy Send"); of an answer that has announced its length.

        Without an offset it begins where the file stands, without a count it goes on to the file's end.
        """
        if not self.transport.is_closing():
            fd, offset, count = message["file"].fileno(), message.get("offset"), message.get("count")
            if offset is None:
                offset = os.lseek(fd, 0, os.SEEK_CUR)
            if count is None:
                count = max(0, os.fstat(fd).st_size - offset)
            self.account_for(count)
            if count and self.scope["method"] != "HEAD":
                if self.head:
                    self.outlet.write(self.head)
                    self.head = b""
                await self.files.send(self.outlet, fd, offset, count)
        if self.transport.is_closing():
            self.disconnected = True  # whatever is missing is nobody's mistake

    def account_for(self, count: int) -> None:
        """Raises RuntimeError for what uvicorn would not let a body do, before a byte of it leaves."""
        if self.scope["method"] == "HEAD":
            return
        if self.chunked_encoding or not 0 <= count <= self.expected_content_length:
            raise RuntimeError("a file can only be sent within the Content-Length of a response")
        self.expected_content_length -= count

    def will_drain(self) -> bool:
        """Is the rest of the body short enough to be dropped for the sake of the connection?

        Not behind an unanswered `Expect: 100-continue`: nobody knows whether the client sends the body now.
        """
        known = self.body_left is not None and self.body_left <= self.limits.discard_bytes
        return known and not self.waiting_for_100_continue

    async def send_500_response(self) -> None:
        await self.send({"type": "http.response.start", "status": 500, "headers": refusals.INTERNAL.fields()})
        await self.send({"type": "http.response.body", "body": refusals.INTERNAL.body(), "more_body": False})


async def closing_what_breaks(app: ASGI3Application, scope: Scope, receive: Callable[..., Any], send: Any) -> None:
    """The application, without the traceback that uvicorn logs of whatever is raised."""
    try:
        await app(scope, receive, send)
    except ResponseBroken:
        cycle: RegistryCycle = send.__self__
        cycle.outlet.close()
        cycle.disconnected = True
