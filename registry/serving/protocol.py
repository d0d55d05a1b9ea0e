"""One client's connection: uvicorn's httptools protocol, with what a registry needs and uvicorn lacks.

What it adds: large request bodies without copying, limits in size and time (limits.py), strict framing (framing.py),
JSON for every refusal, requests with `Upgrade` that keep their body, answers that survive a client which is still
sending, and disconnects that reach every request of a connection.

Rules:
- Only this module and cycle.py (one request of a connection) touch private parts of uvicorn. uvicorn is pinned
  exactly, and a test compares the digest of the sources that stand behind them; docs/server.md says how to upgrade.
- Nothing is ever written into another request's response: what cannot be answered in its turn is not answered.
- Whatever reaches the application is either the whole body or is followed by `http.disconnect`.
- A connection is in one `Phase`; `since` is when the client had to act, for the phases that wait for it.
"""

import asyncio
import enum
import functools
import logging
import urllib.parse
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.protocols.http import flow_control, httptools_impl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from registry.serving import framing, refusals
from registry.serving.cycle import ZERO_COPY_SEND, RegistryCycle, closing_what_breaks
from registry.serving.filesend import FileSender
from registry.serving.inlet import EXTENSION, WORTH_WHILE, Inlet
from registry.serving.limits import Limits
from registry.serving.outlet import Outlet
from registry.serving.refusals import Refusal, Refused
from registry.serving.stalls import Meter, Watch

logger = logging.getLogger(__name__)

PRIVATE: Sequence[object] = (httptools_impl, flow_control, ServerState)
"""What the two modules use of uvicorn beyond its documentation. test_protocol.py knows the digests."""

CHUNK_FRAMING = 16
"""Bytes of a chunk that are free of charge: its size and two line ends. Go's reader allows the same."""
HEAD_FRAMING = 32
"""The like for a head: method, version, spaces and line ends of the request line and the empty line."""
FIELD_FRAMING = 4
"""Colon, space and line end of a header field."""


LIVE = "/livez"
"""What is answered to connections above the limit as well, or an orchestrator kills a registry for being in demand."""


class Phase(enum.Enum):
    HEAD = "a head has begun, or is the first one of the connection"
    BODY = "the newest request's body is not complete"
    IDLE = "all that arrived is complete"
    DEAF = "what arrives is dropped; the connection ends after the last answer"


class RegistryProtocol(HttpToolsProtocol):
    """See the module. `limits`, `watch` and `files` are shared by all connections of a server."""

    cycle: RegistryCycle | None  # type: ignore[assignment] # the newest request
    parser: Any

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        limits: Limits,
        watch: Watch,
        files: FileSender,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.app = functools.partial(closing_what_breaks, self.app)
        self.limits, self.watch, self.files = limits, watch, files
        self.phase = Phase.HEAD
        self.since = 0.0
        self.running: RegistryCycle | None = None  # the request that is being answered, or was last
        self.received = 0
        self.inbound, self.outbound = Meter(limits), Meter(limits)
        self.overhead = 0  # bytes received that are neither body nor the usual framing of one
        self.head_size = 0
        self.replaying = False
        self.ending = self.surplus = False

    # The connection.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.outlet = Outlet(
            transport,
            self.limits,
            self.loop,
            flow=self.flow,
            still_sending=lambda: self.phase in (Phase.BODY, Phase.DEAF),
        )
        self.since = self.loop.time()
        self.watch.add(self)
        above = len(self.connections) - self.limits.max_connections
        self.surplus = above > 0
        if above > self.limits.reserve:
            # No lingering here: a descriptor that waits is what there are too many of.
            self.phase = Phase.DEAF
            self.watch.refuse(self.limits.max_connections)
            self.outlet.write(refusals.TOO_MANY_CONNECTIONS.response(self.server_state.default_headers))
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.watch.remove(self)
        self.outlet.lost()
        self.lose_requests()
        self.pipeline.clear()
        super().connection_lost(exc)

    def eof_received(self) -> None:
        """A half-close counts as leaving, as it does in uvicorn. The loop now closes, which waits for the client to
        read what is written; the application need not."""
        self.lose_requests()

    def lose_requests(self) -> None:
        # uvicorn tells the newest request only; the one that is being answered may be an older one.
        for cycle in {self.running, self.cycle}:
            if cycle:
                cycle.lose()

    @property
    def method(self) -> str | None:
        """Of the request that runs; None while none does."""
        return self.cycle.scope["method"] if self.cycle and not self.cycle.response_complete else None

    def end_soon(self) -> None:
        """The next answer to begin is the last one, and says so."""
        self.ending = True
        if self.cycle and not self.cycle.response_started:
            self.cycle.keep_alive = False

    def shutdown(self) -> None:
        """Called when the server ends: answer what has begun to arrive, and nothing after it."""
        self.ending = True
        if self.cycle and not self.cycle.response_complete:
            self.cycle.keep_alive = False
        elif self.outlet.lingering or (self.phase is Phase.HEAD and self.overhead):
            return  # it ends by itself, or its request will be the last
        else:
            self.transport.close()

    def check(self, now: float) -> None:
        """Called every few seconds: do we wait for this client, and for how long?"""
        cycle, unsent = self.cycle, self.outlet.unsent()
        inlet = cycle.inlet if cycle else None
        reading = inlet.waiting if inlet else not self.flow.read_paused
        received = self.received + (inlet.arrived if inlet else 0)
        wants_body = (
            self.phase is Phase.BODY
            and cycle is not None
            and reading
            and not (cycle.response_complete or cycle.waiting_for_100_continue)
        )
        late_body = self.inbound.stalled(received, now, waiting=wants_body)
        late_reader = self.outbound.stalled(self.outlet.sent - unsent, now, waiting=unsent > 0)
        if late_body or late_reader:
            self.outlet.abort()
        elif cycle is None or cycle.response_complete:
            limit = {Phase.HEAD: self.limits.head_timeout, Phase.IDLE: self.limits.keep_alive}.get(self.phase)
            if limit and not unsent and now - self.since > limit:
                self.transport.close()

    def traffic(self) -> tuple[int, int]:
        inlet = self.cycle.inlet if self.cycle else None
        return self.received + (inlet.taken if inlet else 0), self.outlet.sent

    # What arrives.

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        if self.transport.is_closing():
            return
        if self.phase is Phase.DEAF or self.outlet.lingering:
            self.outlet.discard(len(data))
            return
        if self.phase is Phase.IDLE:
            self.overhead, self.phase, self.since = 0, Phase.HEAD, self.loop.time()
        self.overhead += len(data)
        try:
            self.parse(memoryview(data))
        except httptools.HttpParserError as exc:
            self.refuse(self.refusal_for(exc))
            return
        self.overhead = max(0, self.overhead)
        if self.overhead > self.limits.max_head:
            self.refuse(refusals.FRAMING_TOO_LARGE)

    def parse(self, data: memoryview) -> None:
        """Feed the parser. At an `Upgrade` it stops behind the head; RFC 9110 7.8 lets us ignore that header."""
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as stop:
                data = data[stop.args[0] :]
                self.replace_parser(self.headers)
            else:
                return

    def replace_parser(self, fields: framing.Fields) -> None:
        """Go on with a parser that expects the body which the fields announce, and has seen nothing else.

        httptools takes a request with `Upgrade` for one without a body, and its body for the next request; and it
        cannot be told what an inlet has taken.
        """
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        self.replaying = True
        self.parser.feed_data(framing.body_only_head(fields))
        self.replaying = False

    def refusal_for(self, exc: httptools.HttpParserError) -> Refusal:
        cause = exc.__context__
        if isinstance(cause, Refused):
            return cause.refusal
        if isinstance(exc, httptools.HttpParserCallbackError):
            logger.error("a parser callback failed", exc_info=exc)
            return refusals.INTERNAL
        return refusals.MALFORMED

    def refuse(self, refusal: Refusal) -> None:
        """Answer what cannot be a request, where it is that request's turn, and end the connection."""
        cycle = self.cycle
        if self.transport.is_closing():
            return
        if cycle and cycle.more_body:
            if cycle.response_complete:
                self.outlet.linger()
            elif cycle is not self.running or cycle.response_started:
                self.outlet.abort()
            else:
                cycle.lose()
                self.answer(refusal)
        elif cycle and not cycle.response_complete:
            # It came behind a whole request, whose response shall not suffer.
            self.phase, cycle.keep_alive = Phase.DEAF, False
        else:
            self.answer(refusal)

    def answer(self, refusal: Refusal) -> None:
        head_only = self.phase is Phase.HEAD and self.parser.get_method() == b"HEAD"
        self.outlet.write(refusal.response(self.server_state.default_headers, head_only=head_only))
        self.outlet.linger()

    # What the parser says. Refused may be raised in all of these.

    def on_message_begin(self) -> None:
        if self.replaying:
            return
        super().on_message_begin()
        if self.phase is not Phase.HEAD:
            self.phase, self.since = Phase.HEAD, self.loop.time()
        self.head_size = 0

    def on_url(self, url: bytes) -> None:
        if self.replaying:
            return
        self.url += url
        if len(self.url) > self.limits.max_head:
            raise Refused(refusals.TARGET_TOO_LONG)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.phase is not Phase.HEAD:
            return  # a trailer: it must not join a request that runs already
        self.head_size += len(name) + len(value)
        if len(self.headers) >= self.limits.max_fields or self.head_size > self.limits.max_head:
            raise Refused(refusals.HEAD_TOO_LARGE)
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if self.replaying:
            return
        method, version = self.parser.get_method(), self.parser.get_http_version()
        framing.check_head(method, version, self.headers)
        if self.transport.is_closing() or len(self.pipeline) >= self.limits.max_pipelined:
            raise Refused(refusals.MALFORMED)  # which is answered to nobody: others come first
        self.overhead -= self.head_size + len(self.url) + FIELD_FRAMING * len(self.headers) + HEAD_FRAMING
        self.scope["method"], self.scope["http_version"] = method.decode("ascii"), version
        self.scope["raw_path"], self.scope["path"], self.scope["query_string"] = self.split_target()
        if self.surplus:
            self.ending = True
            if not self.scope["path"].endswith(LIVE):
                self.watch.refuse(self.limits.max_connections)
                raise Refused(refusals.TOO_MANY_CONNECTIONS)
        self.scope["extensions"] = {ZERO_COPY_SEND: {}}
        cycle = RegistryCycle(
            self,
            self.scope,
            body_length=framing.body_length(self.headers),
            keep_alive=version != "1.0" and self.parser.should_keep_alive() and not self.ending,
        )
        if cycle.body_left and cycle.body_left >= WORTH_WHILE and self.outlet.socket and not self.outlet.encrypted:
            extensions: dict[str, Any] = self.scope["extensions"]
            extensions[EXTENSION] = functools.partial(self.open_inlet, cycle)
        earlier, self.cycle, self.phase = self.cycle, cycle, Phase.BODY
        if earlier is None or earlier.response_complete:
            self._start_asgi_task(cycle, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))

    def split_target(self) -> tuple[bytes, str, bytes]:
        """raw path, path and query. The application reads the raw path: in the other `%2F` is a slash already."""
        try:
            target = httptools.parse_url(self.url)
            raw_path = target.path or b"/"
            path = raw_path.decode("ascii")
            return raw_path, urllib.parse.unquote(path) if "%" in path else path, target.query or b""
        except (httptools.HttpParserInvalidURLError, UnicodeDecodeError):
            raise Refused(refusals.MALFORMED) from None

    def on_chunk_header(self) -> None:
        self.overhead -= CHUNK_FRAMING

    def on_body(self, body: bytes) -> None:
        assert self.cycle is not None
        self.overhead -= len(body)
        if self.cycle.response_complete:
            self.outlet.discard(len(body))
        else:
            self.cycle.feed(body)

    def on_message_complete(self) -> None:
        assert self.cycle is not None
        if self.parser.should_upgrade():
            return  # its body comes by replace_parser()
        self.phase, self.since = Phase.IDLE, self.loop.time()
        self.cycle.end_body()
        self.outlet.stay_open()

    def open_inlet(self, cycle: RegistryCycle) -> AbstractContextManager[Inlet] | None:
        """A way to the rest of the body past the loop, if much is missing and more can be expected."""
        if cycle.disconnected or cycle.inlet or not cycle.body_left or cycle.body_left < WORTH_WHILE:
            return None
        return self.bypassed(cycle, cycle.body_left)

    @contextmanager
    def bypassed(self, cycle: RegistryCycle, left: int) -> Iterator[Inlet]:
        assert self.outlet.socket is not None
        cycle.send_continue()
        self.flow.pause_reading()
        inlet = cycle.inlet = Inlet(self.outlet.socket.fileno(), self.loop, cycle.take(), left)
        try:
            yield inlet
        finally:
            cycle.inlet = None
            inlet.close()
            if inlet.lost:
                cycle.lose()  # the transport has yet to see it
            self.received += inlet.taken
            cycle.body_left = inlet.left
            self.replace_parser([(b"content-length", b"%d" % inlet.left)])  # at 0 it ends the message
            cycle.resume_reading()

    # What the cycles say.

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        assert isinstance(cycle, RegistryCycle)
        self.running = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing() or self.outlet.lingering:
            return
        self.since = self.loop.time()
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self.phase is Phase.BODY:
            self.outlet.close_later()  # unless the rest of the body comes in time
