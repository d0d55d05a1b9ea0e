"""Requests, and what they cause, as spans of OpenTelemetry. Imported where traces are asked for, and only there."""

import asyncio
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import ASGIApp, Receive, Scope, Send

from registry.watching.answered import Answered, counted
from registry.watching.request_ids import request_id
from registry.watching.spans import Attributes, Span, traced

_LONGEST = 200
"""Characters of a client's header."""

_MOST = 128
"""Links of a span: what OpenTelemetry keeps unless it is told otherwise."""


class OtelSpan(Span):
    def __init__(self, span: trace.Span) -> None:
        self._span = span
        self._linked = {trace.get_current_span().get_span_context().span_id}

    def current(self) -> AbstractContextManager[object]:
        return _current(self._span)

    def set(self, name: str, value: str | int) -> None:
        self._span.set_attribute(name, value)

    def fail(self, why: str) -> None:
        _fail(self._span, why)

    def wait(self) -> None:
        waiting = trace.get_current_span()
        context = waiting.get_span_context()
        if context.span_id in self._linked or len(self._linked) > _MOST or not self._span.is_recording():
            return
        self._linked.add(context.span_id)
        self._span.add_link(context)
        waiting.add_link(self._span.get_span_context())

    def end(self) -> None:
        if self._span.is_recording():
            self._span.end()


def _current(span: trace.Span) -> AbstractContextManager[object]:
    """Without the errors that pass: what they say, and the traceback, may hold a URL with a signature."""
    return trace.use_span(span, record_exception=False, set_status_on_exception=False)


def _fail(span: trace.Span, why: str) -> None:
    span.set_attribute("error.type", why)
    span.set_status(StatusCode.ERROR)


class Traced:
    """Pure ASGI; bodies pass untouched. When the application ends, what has been recorded is still sent."""

    def __init__(self, app: ASGIApp, provider: TracerProvider) -> None:
        self._app = app
        self._provider = provider
        self._tracer = provider.get_tracer("moorage")
        self._propagator = TraceContextTextMapPropagator()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._trace(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        finally:
            await asyncio.to_thread(self._provider.shutdown)

    async def _trace(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        answered, send = counted(scope, send)
        parent = self._propagator.extract(headers)
        span = self._tracer.start_span(scope["method"], parent, SpanKind.SERVER, _asked(scope, headers))
        try:
            with _current(span), traced(self._begin):
                await self._app(scope, receive, send)
        except BaseException as exc:
            _fail(span, type(exc).__name__)
            raise
        finally:
            _note_answer(span, scope, answered)
            span.end()

    def _begin(self, name: str, attributes: Attributes, *, client: bool = False, ago: float = 0.0) -> Span:
        kind = SpanKind.CLIENT if client else SpanKind.INTERNAL
        began = time.time_ns() - int(ago * 1e9) if ago else None
        return OtelSpan(self._tracer.start_span(name, None, kind, attributes, start_time=began))


def _asked(scope: Scope, headers: Mapping[str, str]) -> Attributes:
    """By the names of OpenTelemetry's conventions for HTTP servers."""
    client = scope.get("client")
    return {
        "http.request.method": scope["method"],
        "url.path": scope.get("raw_path", b"").decode("ascii", "backslashreplace"),
        "url.scheme": scope.get("scheme", "http"),
        "client.address": client[0] if client else "",
        "user_agent.original": headers.get("user-agent", "")[:_LONGEST],
        "http.request.id": request_id(),
    }


def _note_answer(span: trace.Span, scope: Scope, answered: Answered) -> None:
    if answered.status:
        span.set_attribute("http.response.status_code", answered.status)
        span.set_attribute("http.response.body.size", answered.size)
    if answered.status >= 500:
        span.set_status(StatusCode.ERROR)
    if endpoint := scope.get("endpoint"):
        span.update_name(f"{scope['method']} {endpoint}")
        span.set_attribute("http.route", endpoint)
