"""Traces by OpenTelemetry: a span for each request, below the one that the client names in `traceparent`.

Set up by OpenTelemetry's own variables (`OTEL_*`) and by nothing else, and off unless one of them names where spans go:
OTEL_TRACES_EXPORTER (otlp or console), or an OTEL_EXPORTER_OTLP_ENDPOINT. Needs the extra `tracing`, imported only
then. Spans carry paths and names, no query (it may hold a signed state) and no header but User-Agent.
"""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from registry.config import ConfigError
from registry.request_ids import request_id

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_HTTP = "http/protobuf"


def traced(app: ASGIApp, environ: Mapping[str, str]) -> ASGIApp:
    """The same app where no traces are asked for. Raises ConfigError for an exporter that is not there."""
    exporter = _exporter_name(environ)
    if exporter == "none":
        return app
    try:
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        made = _exporter(exporter, environ)
    except ImportError as exc:
        raise ConfigError(
            "OTEL_TRACES_EXPORTER", f"needs packages that are missing: pip install 'moorage[tracing]' ({exc})"
        ) from exc
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(made))
    return Traced(app, provider)


def _exporter_name(environ: Mapping[str, str]) -> str:
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return "none"
    default = "otlp" if any(environ.get(name) for name in _ENDPOINTS) else "none"
    return environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() or default


def _exporter(name: str, environ: Mapping[str, str]) -> "SpanExporter":
    if name == "console":
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        return ConsoleSpanExporter()
    if name != "otlp":
        raise ConfigError("OTEL_TRACES_EXPORTER", f"there is no exporter {name!r}: otlp, console or none")
    for variable in _PROTOCOLS:
        if environ.get(variable, _HTTP) != _HTTP:
            raise ConfigError(variable, f"only {_HTTP} is spoken; collectors take it on port 4318")
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()


class Traced:
    """Pure ASGI; bodies pass untouched. When the application ends, what has been recorded is still sent."""

    def __init__(self, app: ASGIApp, provider: "TracerProvider") -> None:
        from opentelemetry.trace import SpanKind, StatusCode
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._app = app
        self._provider = provider
        self._tracer = provider.get_tracer("moorage")
        self._propagator = TraceContextTextMapPropagator()
        self._server, self._error = SpanKind.SERVER, StatusCode.ERROR

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
        parent = self._propagator.extract(headers)
        method = scope["method"]
        with self._tracer.start_as_current_span(method, parent, self._server, _attributes(scope, headers)) as span:

            async def noting(message: Message) -> None:
                if message["type"] == "http.response.start":
                    span.set_attribute("http.response.status_code", message["status"])
                    if message["status"] >= 500:
                        span.set_status(self._error)
                await send(message)

            await self._app(scope, receive, noting)
            if endpoint := scope.get("endpoint"):
                span.update_name(f"{method} {endpoint}")
                span.set_attribute("http.route", endpoint)


def _attributes(scope: Scope, headers: Mapping[str, str]) -> dict[str, Any]:
    """By the names of OpenTelemetry's conventions for HTTP servers."""
    client = scope.get("client")
    return {
        "http.request.method": scope["method"],
        "url.path": scope.get("raw_path", b"").decode("ascii", "backslashreplace"),
        "url.scheme": scope.get("scheme", "http"),
        "client.address": client[0] if client else "",
        "user_agent.original": headers.get("user-agent", "")[:200],
        "http.request.id": request_id(),
    }
